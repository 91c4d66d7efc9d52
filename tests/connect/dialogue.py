"""One scripted HTTP dialogue with a Kafka Connect worker, for the real one and for Catchwater.

    dialogue.py REST SOURCE_PG TARGET_PG [OUT]

REST       http://host:port of the worker
SOURCE_PG  host:port/database: table public.items (id int primary key, name text) with rows, wal_level = logical
TARGET_PG  host:port/database, empty; user postgres, password `secret` (trust is enough) on both

Writes one JSON line a step: {"step", "method", "path", "status", "type", "body"}. What two workers may differ in is masked:
worker ids, versions, commit and cluster ids, stack traces, positions. Steps that a worker takes time for are polled until
`until` holds, at most 20 s; the last answer counts. Python's standard library only.
"""

import json
import os
import re
import sys
import time
import urllib.error
import urllib.request

REST, SOURCE, TARGET = sys.argv[1:4]
OUT = open(sys.argv[4], "w") if len(sys.argv) > 4 else sys.stdout
PG = "io.debezium.connector.postgresql.PostgresConnector"
JDBC = "io.debezium.connector.jdbc.JdbcSinkConnector"


def place(url):
    hostport, database = url.split("/")
    host, port = hostport.split(":")
    return host, port, database


def source(**more):
    host, port, database = place(SOURCE)
    config = {
        "connector.class": PG, "tasks.max": "1", "database.hostname": host, "database.port": port,
        "database.user": "postgres", "database.password": "secret", "database.dbname": database, "topic.prefix": "inv",
        "plugin.name": "pgoutput", "slot.name": os.environ.get("CW_SLOT", "inv_slot"), "publication.name": "inv_pub",
        "table.include.list": "public.items", "publication.autocreate.mode": "filtered",
    }
    config.update(more)
    return {k: v for k, v in config.items() if v is not None}


def sink(**more):
    host, port, database = place(TARGET)
    config = {
        "connector.class": JDBC, "tasks.max": "1", "topics": "inv.public.items",
        "connection.url": f"jdbc:postgresql://{host}:{port}/{database}", "connection.username": "postgres",
        "connection.password": "secret", "insert.mode": "upsert", "delete.enabled": "true",
        "primary.key.mode": "record_key", "schema.evolution": "basic", "collection.name.format": "items_copy",
    }
    config.update(more)
    return {k: v for k, v in config.items() if v is not None}


def call(method, path, body=None, kind="application/json"):
    data = None if body is None else (body if isinstance(body, bytes) else json.dumps(body).encode())
    request = urllib.request.Request(REST + path, data=data, method=method)
    if data is not None:
        request.add_header("Content-Type", kind)
    request.add_header("Accept", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.headers.get("Content-Type"), answer.read()
    except urllib.error.HTTPError as e:
        return e.code, e.headers.get("Content-Type"), e.read()


MASKED = {"worker_id", "version", "commit", "kafka_cluster_id", "last_modified", "lsn", "lsn_proc", "lsn_commit", "ts_usec", "txId"}


def masked(value):
    if isinstance(value, dict):
        return {k: ("*" if k in MASKED and v is not None else "<trace>" if k == "trace" else masked(v)) for k, v in value.items()}
    if isinstance(value, list):
        return [masked(v) for v in value]
    if isinstance(value, str):
        # Where a plugin lies on the worker's disk.
        return re.sub(r"location='[^']*'", "location='*'", value)
    return value


def step(name, method, path, body=None, until=None, kind="application/json", view=None):
    end = time.time() + 20
    while True:
        status, content, raw = call(method, path, body, kind)
        try:
            answer = json.loads(raw) if raw else None
        except ValueError:
            answer = {"text": raw.decode(errors="replace")}
        # 409: the real one rebalances; we never do.
        if status == 409 and isinstance(answer, dict) and "rebalance" in answer.get("message", "") and time.time() < end:
            time.sleep(0.3)
            continue
        if until is None or until(status, answer) or time.time() > end:
            break
        time.sleep(0.3)
    shown = masked(view(answer) if view and status < 300 else answer)
    line = {"step": name, "method": method, "path": path, "status": status,
            "type": (content or "").split(";")[0] or None, "body": shown}
    OUT.write(json.dumps(line) + "\n")
    OUT.flush()
    return answer


def runs(state, tasks):
    def holds(status, answer):
        return (status == 200 and answer["connector"]["state"] == state
                and [t["state"] for t in answer["tasks"]] == tasks)
    return holds


def plugin_view(plugins):
    """Both name what is asked for here; the real one has more."""
    return [p for p in plugins if p["class"] in (PG, JDBC)]


def validation_view(answer):
    """Definitions are those of the plugin's release: the shape, the names that a dialogue gave, and the errors."""
    shapes = sorted({",".join(sorted(c)) + " | " + ",".join(sorted(c["definition"])) + " | " + ",".join(sorted(c["value"])) for c in answer["configs"]})
    errors = {c["value"]["name"]: c["value"]["errors"] for c in answer["configs"] if c["value"]["errors"]}
    return {"name": answer["name"], "error_count": answer["error_count"], "shapes": shapes, "errors": errors}


# --- the worker itself, and what is not there
step("root", "GET", "/")
step("health", "GET", "/health")
step("none yet", "GET", "/connectors")
step("none yet, slash", "GET", "/connectors/")
step("plugins", "GET", "/connector-plugins", view=plugin_view)
for what, method, path in [
    ("info", "GET", ""), ("config", "GET", "/config"), ("status", "GET", "/status"), ("tasks", "GET", "/tasks"),
    ("task status", "GET", "/tasks/0/status"), ("topics", "GET", "/topics"), ("offsets", "GET", "/offsets"),
    ("tasks-config", "GET", "/tasks-config"), ("pause", "PUT", "/pause"), ("resume", "PUT", "/resume"), ("stop", "PUT", "/stop"),
    ("restart", "POST", "/restart"), ("restart task", "POST", "/tasks/0/restart"), ("restart with tasks", "POST", "/restart?includeTasks=true"),
    ("reset topics", "PUT", "/topics/reset"), ("delete", "DELETE", ""), ("delete offsets", "DELETE", "/offsets"),
]:
    step(f"absent: {what}", method, "/connectors/none" + path)
step("absent: patch", "PATCH", "/connectors/none/config", {"a": "b"})
step("absent: patch offsets", "PATCH", "/connectors/none/offsets", {"offsets": []})
step("no such path", "GET", "/nothing")
step("no such method", "DELETE", "/connectors")

# --- bad bodies
step("not JSON", "POST", "/connectors", b"{")
step("empty body", "POST", "/connectors", b"")
step("no config", "POST", "/connectors", {"name": "a"})
step("no class", "POST", "/connectors", {"name": "a", "config": {}})
step("no name", "POST", "/connectors", {"config": source()})
step("blank name", "POST", "/connectors", {"name": "  ", "config": source()})
step("another name inside", "POST", "/connectors", {"name": "a", "config": source(name="b")})
step("another name in the path", "PUT", "/connectors/a/config", source(name="b"))
step("unknown class", "POST", "/connectors", {"name": "a", "config": {"connector.class": "com.example.None"}})
step("unknown field", "POST", "/connectors", {"name": "a", "config": source(), "extra": 1})
step("unknown initial state", "POST", "/connectors", {"name": "a", "config": source(), "initial_state": "SLEEPY"})
step("null value", "PUT", "/connectors/a/config", {**source(), "x": None, "topic.prefix": None})
step("as text", "POST", "/connectors", json.dumps({"name": "a", "config": source()}).encode(), kind="text/plain")
step("missing property", "POST", "/connectors", {"name": "a", "config": source(**{"topic.prefix": None})})
step("a wrong value", "POST", "/connectors", {"name": "a", "config": source(**{"decimal.handling.mode": "exact"})})
step("no server", "POST", "/connectors", {"name": "a", "config": source(**{"database.port": "1"})},
     view=None)
step("none came of it", "GET", "/connectors")

# --- validation
V = f"/connector-plugins/{PG}/config/validate"
step("validate", "PUT", V, source(), view=validation_view)
step("validate by short name", "PUT", "/connector-plugins/PostgresConnector/config/validate", source(), view=validation_view)
step("validate, missing", "PUT", V, {"connector.class": PG}, view=validation_view)
step("validate, other class", "PUT", V, {"connector.class": JDBC}, view=validation_view)
step("validate, no class", "PUT", V, {}, view=validation_view)
step("validate, unknown plugin", "PUT", "/connector-plugins/None/config/validate", {"connector.class": "None"})
step("validate sink", "PUT", f"/connector-plugins/{JDBC}/config/validate", sink(), view=validation_view)
step("validate sink, missing", "PUT", f"/connector-plugins/{JDBC}/config/validate", {"connector.class": JDBC}, view=validation_view)
step("plugin config", "GET", f"/connector-plugins/{PG}/config", view=lambda a: sorted({",".join(sorted(d)) for d in a}))
step("plugin config, unknown", "GET", "/connector-plugins/None/config")

# --- a source
step("create", "POST", "/connectors", {"name": "inv", "config": source()})
step("create again", "POST", "/connectors", {"name": "inv", "config": source()})
step("it runs", "GET", "/connectors/inv/status", until=runs("RUNNING", ["RUNNING"]))
step("names", "GET", "/connectors")
step("expand status", "GET", "/connectors?expand=status")
step("expand info", "GET", "/connectors?expand=info")
step("expand both", "GET", "/connectors?expand=info&expand=status")
step("expand unknown", "GET", "/connectors?expand=colour")
step("info", "GET", "/connectors/inv")
step("info, slash", "GET", "/connectors/inv/")
step("config", "GET", "/connectors/inv/config")
step("tasks", "GET", "/connectors/inv/tasks", until=lambda s, a: s == 200 and a, view=lambda a: [{"id": t["id"], "same": sorted(k for k in source() if t["config"].get(k) == source()[k])} for t in a])
step("task status", "GET", "/connectors/inv/tasks/0/status")
step("no such task", "GET", "/connectors/inv/tasks/7/status")
step("task by word", "GET", "/connectors/inv/tasks/x/status")
step("topics", "GET", "/connectors/inv/topics", until=lambda s, a: s == 200 and a["inv"]["topics"])
step("offsets", "GET", "/connectors/inv/offsets", until=lambda s, a: s == 200 and a["offsets"],
     view=lambda a: [{"partition": o["partition"], "offset": "object" if isinstance(o["offset"], dict) else o["offset"]} for o in a["offsets"]])
step("offsets while running", "DELETE", "/connectors/inv/offsets")
step("alter offsets while running", "PATCH", "/connectors/inv/offsets", {"offsets": [{"partition": {"server": "inv"}, "offset": {"lsn": 1}}]})
step("change", "PUT", "/connectors/inv/config", source(**{"heartbeat.interval.ms": "0"}))
step("same again", "PUT", "/connectors/inv/config", source(**{"heartbeat.interval.ms": "0"}))
step("patch", "PATCH", "/connectors/inv/config", {"heartbeat.interval.ms": None, "max.batch.size": "1024"})
step("patched", "GET", "/connectors/inv/config")
step("runs on", "GET", "/connectors/inv/status", until=runs("RUNNING", ["RUNNING"]))
step("pause", "PUT", "/connectors/inv/pause")
step("paused", "GET", "/connectors/inv/status", until=runs("PAUSED", ["PAUSED"]))
step("resume", "PUT", "/connectors/inv/resume")
step("resumed", "GET", "/connectors/inv/status", until=runs("RUNNING", ["RUNNING"]))
step("restart", "POST", "/connectors/inv/restart")
step("restart with tasks", "POST", "/connectors/inv/restart?includeTasks=true&onlyFailed=false",
     view=lambda a: {"keys": sorted(a), "type": a["type"], "task keys": sorted(a["tasks"][0])})
step("restart failed only", "POST", "/connectors/inv/restart?includeTasks=true&onlyFailed=true")
step("restart a task", "POST", "/connectors/inv/tasks/0/restart")
step("restart no task", "POST", "/connectors/inv/tasks/9/restart")
step("after restarts", "GET", "/connectors/inv/status", until=runs("RUNNING", ["RUNNING"]))

# --- a sink of the other connector's topic
step("create sink", "PUT", "/connectors/copy/config", sink())
step("sink runs", "GET", "/connectors/copy/status", until=runs("RUNNING", ["RUNNING"]))
step("sink info", "GET", "/connectors/copy")
step("sink topics", "GET", "/connectors/copy/topics", until=lambda s, a: s == 200 and a["copy"]["topics"])
step("sink offsets", "GET", "/connectors/copy/offsets", until=lambda s, a: s == 200 and a["offsets"],
     view=lambda a: [o["partition"] for o in a["offsets"]])
step("two", "GET", "/connectors", view=sorted)
step("sink without topics", "PUT", "/connectors/bad/config", sink(topics=None))
step("sink with both", "PUT", "/connectors/bad/config", sink(**{"topics.regex": "a.*"}))
step("sink stop", "PUT", "/connectors/copy/stop")
step("sink stopped", "GET", "/connectors/copy/status", until=runs("STOPPED", []))
step("sink tasks, stopped", "GET", "/connectors/copy/tasks")
step("sink offsets back", "DELETE", "/connectors/copy/offsets", until=lambda s, a: s == 200)
step("sink offsets, none", "GET", "/connectors/copy/offsets")
step("sink resume", "PUT", "/connectors/copy/resume")
step("sink resumed", "GET", "/connectors/copy/status", until=runs("RUNNING", ["RUNNING"]))

# --- states
step("stop", "PUT", "/connectors/inv/stop")
step("stopped", "GET", "/connectors/inv/status", until=runs("STOPPED", []))
step("stopped info", "GET", "/connectors/inv")
step("restart of a stopped one", "POST", "/connectors/inv/restart")
step("create stopped", "POST", "/connectors", {"name": "later", "config": sink(topics="inv.public.items", **{"collection.name.format": "later"}), "initial_state": "STOPPED"})
step("is stopped", "GET", "/connectors/later/status", until=runs("STOPPED", []))
step("create paused", "POST", "/connectors", {"name": "later2", "config": sink(**{"collection.name.format": "later2"}), "initial_state": "PAUSED"})
step("is paused", "GET", "/connectors/later2/status", until=runs("PAUSED", ["PAUSED"]))

# --- loggers
step("loggers", "GET", "/admin/loggers", view=lambda a: {"root": sorted(a["root"])})
step("logger", "GET", "/admin/loggers/root", view=lambda a: sorted(a))
step("logger, wrong level", "PUT", "/admin/loggers/root", {"level": "LOUD"})
step("logger, no level", "PUT", "/admin/loggers/root", {})

# --- the end
for name in ("later", "later2", "copy", "inv"):
    step(f"delete {name}", "DELETE", f"/connectors/{name}")
step("deleted", "GET", "/connectors", until=lambda s, a: a == [])
step("delete again", "DELETE", "/connectors/inv")
