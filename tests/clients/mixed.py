"""A random program against a node of its own (CATCHWATER_BIN), by librdkafka: `mixed.py SEED KILLS [damage]`.

Idempotent and plain producers, DeleteRecords, compaction, retention, changed settings, topics deleted and made again under their
name, kill -9 at any moment, also between a request of an administrator and its answer. What was acknowledged must be there, at
its offset, or have been allowed to go; nothing of an older topic of that name may come back, and nothing that nobody sent.
With `damage`, copies of a killed node's directory are damaged (PLACES of them a time): what a start then serves must be right and
whole, or be refused. One JSON line at the end; exit 1 if something was wrong, with the directory kept."""
import os, random, subprocess, sys, time, json, signal, tempfile, shutil
from confluent_kafka import Producer, Consumer, KafkaException, TopicPartition, KafkaError
from confluent_kafka.admin import AdminClient, NewTopic, ConfigResource, AlterConfigOpType, ConfigEntry, OffsetSpec

BIN = os.environ["CATCHWATER_BIN"]
seed = int(sys.argv[1]); kills = int(sys.argv[2]); 
damage = len(sys.argv) > 3 and sys.argv[3] == "damage"
R = random.Random(seed)
work = tempfile.mkdtemp(prefix="cw-mixed-")
ENV = {"storage.journal.file.bytes": "1048576" if R.random() < .5 else "4194304", "log.retention.check.interval.ms": "50", "min.free.bytes": "8388608",
       "auto.create.topics.enable": "false", "connect": "off", "log.cleaner.backoff.ms": "50", "num.partitions": "1"}
if R.random() < .3: ENV["log.cleaner.dedupe.buffer.size"] = "1048576"
class Node:
    def __init__(s): s.p = None; s.port = None; s.starts = 0
    def start(s):
        pf = work + "/ports"
        try: os.unlink(pf)
        except FileNotFoundError: pass
        env = dict(os.environ)
        for k, v in ENV.items(): env["CATCHWATER_" + k.upper().replace(".", "_")] = v
        log = open(work + "/log", "ab")
        s.p = subprocess.Popen([BIN, "start", "--listen", s.port or "127.0.0.1:0", "--http", "127.0.0.1:0", "--port-file", pf, "--data-dir", work + "/data"], env=env, stdout=log, stderr=log)
        end = time.time() + 60
        while time.time() < end:
            if s.p.poll() is not None: raise SystemExit(f"seed {seed}: the node ended with {s.p.returncode}: " + open(work+"/log").read()[-2000:])
            try: t = open(pf).read()
            except FileNotFoundError: t = ""
            if t.strip().endswith("}"):
                s.port = json.loads(t)["kafka"]; break
            time.sleep(.01)
        s.starts += 1
    def kill(s):
        s.p.kill(); s.p.wait(); s.over()
    def stop(s):
        s.p.terminate(); s.p.wait(); s.over()
    def over(s):
        for t in topics.values():
            for part in t.parts: part.before = set(part.acked)
node = Node()
bad = []
def wrong(x):
    bad.append(x); print(f"seed {seed}: WRONG: {x}", flush=True)

class Part:
    def __init__(s):
        s.acked = {}     # offset -> (key, value)
        s.sent = {}      # value id -> (key, value bytes or None), for unknown ones as well
        s.start_min = 0; s.start_max = 0; s.hw = 0; s.seen = {}; s.maybe_gone_before = 0
        s.before = set() # offsets that were acknowledged when the node died last
class Topic:
    n = 0
    def __init__(s, name, parts, conf):
        Topic.n += 1; s.id = Topic.n; s.name = name; s.parts = [Part() for _ in range(parts)]; s.conf = conf; s.ever_compact = False; s.ever_delete = False
        # Producers of its own: librdkafka gives an idempotent one a new epoch when a batch of any topic fails, and then sends
        # what has no answer a second time.
        s.prods = [Prod(True), Prod(True), Prod(False)]
        s.note()
    def note(s):
        p = s.conf.get("cleanup.policy", "delete")
        if "compact" in p: s.ever_compact = True
        if "delete" in p and (s.conf.get("retention.bytes", "-1") != "-1" or s.conf.get("retention.ms", "604800000") != "604800000"): s.ever_delete = True
topics = {}    # name -> Topic (live)
unsure = {}    # name -> (old Topic or None, new Topic or None): delete or create without an answer
def conf():
    c = {"internal.segment.bytes": str(R.choice([6000, 8000, 20000])), "min.cleanable.dirty.ratio": R.choice(["0.0", "0.01", "0.5"]),
         "delete.retention.ms": R.choice(["0", "300", "86400000"]), "file.delete.delay.ms": R.choice(["0", "100", "1000"]),
         "cleanup.policy": R.choice(["compact", "compact", "compact,delete", "delete"])}
    if R.random() < .2: c["storage.durability"] = "relaxed"
    if "delete" in c["cleanup.policy"] and R.random() < .5:
        c["retention.bytes"] = str(R.choice([10000, 50000]))
    if R.random() < .3: c["segment.ms"] = "200"
    return c
def adm(): return AdminClient({"bootstrap.servers": node.port, "socket.timeout.ms": 5000, "log_level": 0})
serial = 0
everyone = {}
stats = dict(acked=0, unknown=0, refused=0, deletes=0, made=0, gone=0, altered=0, kills=0, stops=0, compared=0, across=0, missing=0, mid_admin=0)
def value(t, p):
    global serial
    serial += 1
    pad = R.choice([5, 50, 300]) if R.random() < .97 else 3000
    return f"{t.id}/{p}/{serial}/".encode() + os.urandom(pad // 2).hex().encode()
class Prod:
    def __init__(s, idem): s.idem = idem; s.make()
    def make(s):
        c = {"bootstrap.servers": node.port, "linger.ms": R.choice([0, 5]), "message.timeout.ms": 3000, "socket.timeout.ms": 3000, "log_level": 0, "batch.size": 4000, "retry.backoff.ms": 20,
             "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100, "compression.type": R.choice(["none", "gzip", "lz4", "zstd", "snappy"])}
        if s.idem: c["enable.idempotence"] = True; c["message.timeout.ms"] = 120000
        else: c["acks"] = R.choice(["all", "1"]); c["retries"] = 0; c["enable.idempotence"] = False
        s.p = Producer(c)
def produce_round(prods, n):
    for _ in range(n):
        live = list(topics.values())
        if not live: return
        t = R.choice(live); p = R.randrange(len(t.parts)); part = t.parts[p]
        key = f"k{R.randrange(15) if R.random() < .8 else R.randrange(400)}".encode()
        q = R.choice(t.prods)
        v = (b"i" if q.idem else b"p") + value(t, p); tomb = "compact" in t.conf["cleanup.policy"] and R.random() < .15
        vid = v
        everyone[vid] = ((t.name, p), part)
        part.sent[vid] = (key, None if tomb else v, tomb)
        # A tombstone says in a header which it is.
        def cb(err, msg, part=part, vid=vid, key=key, tomb=tomb, v=v):
            if err is None:
                part.acked[msg.offset()] = (key, None if tomb else v, vid); stats["acked"] += 1
            else:
                stats["unknown"] += 1
                if vid[:1] == b"i": stats[err.name()] = stats.get(err.name(), 0) + 1
        try: q.p.produce(t.name, None if tomb else v, key, p, on_delivery=cb, headers=[("id", vid)])
        except (BufferError, KafkaException): pass
        if R.random() < .05:
            for q in t.prods: q.p.poll(0)
def settle(f, wait=6):
    try: return (True, f.result(wait))
    except KafkaException as e: return (False, e.args[0])
    except Exception as e: return (None, e)
def admin_op(a, die=None):
    """One random admin operation; die() is called between the request and its answer."""
    what = R.random(); live = list(topics.values())
    if what < .35 and live:
        t = R.choice(live); p = R.randrange(len(t.parts)); part = t.parts[p]
        if not part.acked: return
        top = max(part.acked) + 1
        at = R.choice([top, R.randint(0, top), -1 if not part.acked else R.randint(part.start_min, top)])
        f = a.delete_records([TopicPartition(t.name, p, at)], operation_timeout=3, request_timeout=5)
        part.start_max = max(part.start_max, at)
        if die: die()
        ok, r = settle(list(f.values())[0])
        if ok:
            part.start_min = max(part.start_min, at if at >= 0 else 0); stats["deletes"] += 1
            if at >= 0 and not at <= r.low_watermark <= max(at, part.start_max) and not t.ever_delete: wrong(f"{t.name}-{p}: DeleteRecords {at} answered low watermark {r.low_watermark}")
        elif ok is False and r.code() in (KafkaError.POLICY_VIOLATION,): part.start_max = part.start_max
    elif what < .6 and len(live) > 1:   # one stays: else there may be nothing to compare
        t = R.choice(live); f = a.delete_topics([t.name], operation_timeout=3, request_timeout=5)[t.name]
        if die: die()
        ok, r = settle(f)
        del topics[t.name]
        if ok:
            for q in t.prods: q.p.purge(); q.p.poll(0)
        if ok: stats["gone"] += 1
        else: unsure[t.name] = (t, None)
    elif what < .85:
        free = [n for n in NAMES if n not in topics and n not in unsure]
        if not free: return
        n = R.choice(free); t = Topic(n, R.choice([1, 1, 3]), conf())
        f = a.create_topics([NewTopic(n, len(t.parts), 1, config=t.conf)], operation_timeout=3, request_timeout=5)[n]
        if die: die()
        ok, r = settle(f)
        if ok: topics[n] = t; stats["made"] += 1
        elif ok is False and r.code() == KafkaError.TOPIC_ALREADY_EXISTS: wrong(f"{n} was deleted and is there")
        else: unsure[n] = (None, t)
    elif live:
        t = R.choice(live); new = conf(); new.pop("storage.durability", None)
        if "cleanup.policy" in new and "compact" in new["cleanup.policy"] and "retention.bytes" not in new: new["retention.bytes"] = "-1"
        if "retention.bytes" not in new: new["retention.bytes"] = "-1"
        entries = [ConfigEntry(k, v, incremental_operation=AlterConfigOpType.SET) for k, v in new.items()]
        r = ConfigResource(ConfigResource.Type.TOPIC, t.name, incremental_configs=entries)
        was = dict(t.conf); t.conf.update(new); t.note()
        f = list(a.incremental_alter_configs([r], request_timeout=5).values())[0]
        if die: die()
        ok, _ = settle(f)
        if ok: stats["altered"] += 1
NAMES = ["alpha", "beta", "gamma", "delta", "eps"]
def resolve(a):
    md = a.list_topics(timeout=10).topics
    for n, (old, new) in list(unsure.items()):
        del unsure[n]
        if n in md and old is not None: topics[n] = old
        elif n in md: topics[n] = new
    for n in NAMES:
        if n in topics and n not in md: wrong(f"topic {n} is lost"); del topics[n]
        if n not in topics and n in md: wrong(f"topic {n} should be gone")
    for n, t in topics.items():
        if len(md[n].partitions) != len(t.parts): wrong(f"{n} has {len(md[n].partitions)} partitions, not {len(t.parts)}")
class Refused(Exception): pass
def read(c, t, p, tries=50):
    tp = TopicPartition(t.name, p)
    for _ in range(tries):
        try: lo, hi = c.get_watermark_offsets(tp, timeout=10); break
        except KafkaException as e:
            time.sleep(.05); err = e
    else:
        if tries < 50: raise Refused()
        raise err
    got = {}
    c.assign([TopicPartition(t.name, p, lo)])
    end = time.time() + (40 if tries == 50 else 12); at = lo
    while at < hi:
        if time.time() > end and tries < 50: raise Refused()
        if time.time() > end: wrong(f"{t.name}-{p}: reading stands at {at} of {lo}..{hi}"); break
        for m in c.consume(500, .3):
            if m.error():
                if m.error().code() == KafkaError._PARTITION_EOF: at = max(at, m.offset())
                elif m.error().code() == KafkaError.OFFSET_OUT_OF_RANGE or m.error().code()==KafkaError._AUTO_OFFSET_RESET: at = hi; return None
                elif tries < 50 and m.error().code() in (KafkaError.KAFKA_STORAGE_ERROR, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.UNKNOWN, KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT): raise Refused()
                else: wrong(f"{t.name}-{p}: {m.error()}")
                continue
            if m.offset() in got: wrong(f"{t.name}-{p}: offset {m.offset()} twice")
            if got and m.offset() < max(got): wrong(f"{t.name}-{p}: offset {m.offset()} behind {max(got)}")
            got[m.offset()] = (m.key(), m.value(), dict(m.headers() or []).get("id")); at = max(at, m.offset() + 1)
    return lo, hi, got
def verify(quiet=False, only=None):
    refusals = 0
    c = Consumer({"bootstrap.servers": node.port, "group.id": "v", "enable.auto.commit": False, "enable.partition.eof": True, "log_level": 0, "auto.offset.reset": "error", "check.crcs": True})
    for n, t in list(topics.items()):
        for p, part in enumerate(t.parts):
            r = None
            if only is not None and n not in only: continue
            for _ in range(4):
                try: r = read(c, t, p, 3 if quiet else 50)
                except Refused: r = None; break
                if r: break
            if not r: refusals += 1; continue
            lo, hi, got = r; about = f"{n}#{t.id}-{p} [{lo},{hi}) {t.conf['cleanup.policy']}"
            stats["compared"] += len(got); stats["across"] += len(part.before & set(got))
            if lo < part.start_min: wrong(f"{about}: log start below {part.start_min}")
            if lo > max(part.start_max, part.start_min) and not t.ever_delete: wrong(f"{about}: log start above {part.start_max}")
            if hi < part.hw: wrong(f"{about}: high watermark was {part.hw}")
            part.hw = hi; part.start_min = max(part.start_min, lo); part.start_max = max(part.start_max, lo)
            ids = {}
            for o, (k, v, i) in sorted(got.items()):
                s = part.sent.get(i)
                if s is None and i in everyone and everyone[i][1] is not part and everyone[i][0] == (n, p) and not any(x[2] == i and at != o for at, x in everyone[i][1].acked.items()):
                    # It waited in its producer while the topic was made anew.
                    s = part.sent[i] = everyone[i][1].sent[i]; stats["moved"] = stats.get("moved", 0) + 1
                if s is None: wrong(f"{about}: offset {o} holds {i!r}, nobody sent that to it"); continue
                if (k, v) != (s[0], s[1]): wrong(f"{about}: offset {o}: not what was sent")
                if i in ids: wrong(f"{about}: {i!r} at {ids[i]} and {o}")
                ids[i] = o
                was = part.acked.get(o)
                if was and was[2] != i: wrong(f"{about}: offset {o} was acknowledged for another record")
                old = part.seen.get(o)
                if old and old != i: wrong(f"{about}: offset {o} held another record before")
                part.seen[o] = i
                if not was: part.acked[o] = (k, v, i)   # it is there now
            newest = {}
            for o, (k, v, i) in got.items(): newest[k] = max(newest.get(k, -1), o)
            tombs = {}
            for o, (k, v, i) in part.acked.items():
                if v is None: tombs[k] = max(tombs.get(k, -1), o)
            # A tombstone without an answer may have come and gone.
            ackd = {a[2] for a in part.acked.values()}
            loose = {k for i, (k, v, tomb) in part.sent.items() if tomb and i not in ackd}
            for o, (k, v, i) in part.acked.items():
                if o < lo or o in got: continue
                stats["missing"] += 1
                if o >= hi: wrong(f"{about}: acknowledged offset {o} is behind the end"); continue
                if not t.ever_compact: wrong(f"{about}: acknowledged offset {o} is not there"); continue
                if newest.get(k, -1) > o: continue
                if v is None or tombs.get(k, -1) > o or k in loose: continue
                wrong(f"{about}: the newest record of {k!r}, offset {o}, is gone")
    c.close()
    return refusals
def all_prods():
    return [q for t in list(topics.values()) + [x for pair in unsure.values() for x in pair if x] for q in t.prods]
def damage_one(root):
    files = [os.path.join(d, f) for d, _, fs in os.walk(root) for f in fs if f not in ("LOCK", "reserve")]
    # Kinds alike, however many files there are of each.
    kinds = {}
    for f in files: kinds.setdefault(f.rsplit("/", 1)[1].rsplit(".", 1)[-1] if not f[-2:] in (".a", ".b") else f.rsplit("/", 1)[1], []).append(f)
    f = R.choice(kinds[R.choice(sorted(kinds))]); b = bytearray(open(f, "rb").read()); n = len(b)
    used = n
    while used and b[used - 1] == 0: used -= 1
    how = R.choice(["bit", "zeros", "garbage", "cut", "gone", "shift", "swap", "append", "copyover", "empty"])
    if how == "gone" : os.unlink(f); return f"{f[len(root):]} {how}"
    if not n: return damage_one(root)
    at = R.randrange(max(used, 1)); l = min(n - at, R.choice([1, 8, 48, 512, 4096, 70000]))
    if how == "bit": b[at] ^= 1 << R.randrange(8)
    elif how == "zeros": b[at:at + l] = bytes(l)
    elif how == "garbage": b[at:at + l] = os.urandom(l)
    elif how == "cut": b = b[:at]
    elif how == "empty": b = b[:0]
    elif how == "shift": b = b[:at] + b[at + l:] if R.random() < .5 else b[:at] + os.urandom(l) + b[at:]
    elif how == "append": b += os.urandom(l) if R.random() < .5 else b[at:at + l]
    elif how == "swap":
        g = R.choice([x for x in files if x.rsplit(".", 1)[-1] == f.rsplit(".", 1)[-1]])
        c = open(g, "rb").read(); open(g, "wb").write(b); b = c; how += " " + g[len(root):]
    elif how == "copyover":
        to = R.randrange(max(used, 1)); b[to:to + l] = b[at:at + l]; b = b[:n]
    open(f, "wb").write(b)
    return f"{f[len(root):]} ({n}) {how} at {at} {l}"
def hostile(trials):
    import copy
    keep = work + "/data-keep"
    shutil.rmtree(keep, ignore_errors=True); os.rename(work + "/data", keep)
    for _ in range(trials):
        shutil.rmtree(work + "/data", ignore_errors=True); subprocess.run(["cp", "-a", keep, work + "/data"], check=True)
        what = "; ".join(damage_one(work + "/data") for _ in range(R.choice([1, 1, 1, 2, 3])))
        stats["places"] = stats.get("places", 0) + 1
        before = len(bad)
        pf = work + "/ports"
        try: os.unlink(pf)
        except FileNotFoundError: pass
        at = os.path.getsize(work + "/log")
        try: node.start()
        except SystemExit as e:
            if "error[CW" in str(e) and node.p.returncode in (1, 3): stats["start_refused"] = stats.get("start_refused", 0) + 1
            else: wrong(f"damage {what}: {e}")
            continue
        saved = {n: [(q.start_min, q.start_max, q.hw, dict(q.seen), dict(q.acked), dict(q.sent)) for q in t.parts] for n, t in topics.items()}
        refused = 0
        try:
            md = None
            for _ in range(5):
                try: md = adm().list_topics(timeout=10).topics; break
                except KafkaException: time.sleep(.2)
            if md is None: refused += 1; stats["meta_refused"] = stats.get("meta_refused", 0) + 1
            else:
                for n in topics:
                    if n not in md and n not in unsure: wrong(f"damage {what}: topic {n} is not there")
                refused += verify(quiet=True, only=set(md))
        except KafkaException as e: refused += 1; stats["odd"] = stats.get("odd", 0) + 1; print("odd", what, e)
        if node.p.poll() is not None: wrong(f"damage {what}: the node ended with {node.p.returncode}: " + open(work + "/log").read()[-1500:])
        for n, t in topics.items():
            for q, v in zip(t.parts, saved[n]): q.start_min, q.start_max, q.hw, q.seen, q.acked, q.sent = v
        stats["read_refused"] = stats.get("read_refused", 0) + (1 if refused else 0)
        if len(bad) > before: print(f"seed {seed}: the above by: {what}", flush=True)
        if node.p.poll() is None: node.kill()
        new = open(work + "/log").read()[at:]
        if "panicked" in new: wrong(f"damage {what}: panic: " + new[new.index("panicked") - 100:][:400])
        if len(bad) > 6: break
    shutil.rmtree(work + "/data", ignore_errors=True); os.rename(keep, work + "/data")
def rested(a):
    """Retention and compaction have had their turn since all that was written: they acted on topics made just now."""
    p = Producer({"bootstrap.servers": node.port, "log_level": 0, "batch.size": 2000})
    for name, c in (("rest-c", {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.0"}), ("rest-d", {"retention.bytes": "8000"})):
        a.create_topics([NewTopic(name, 1, 1, config={"internal.segment.bytes": "6000", **c})], operation_timeout=3)[name].result(10)
        for _ in range(30): p.produce(name, os.urandom(1000), b"one")
    p.flush(30)
    c = Consumer({"bootstrap.servers": node.port, "group.id": "r", "enable.auto.commit": False, "enable.partition.eof": True, "log_level": 0, "auto.offset.reset": "error"})
    end = time.time() + 60
    for name in ("rest-c", "rest-d"):
        while True:
            lo, hi = c.get_watermark_offsets(TopicPartition(name, 0), timeout=10)
            c.assign([TopicPartition(name, 0, lo)]); n = 0
            while lo < hi:
                m = c.poll(1)
                if m is None: break
                if m.error(): break
                n += 1
            if n < 30: break
            if time.time() > end: wrong(f"{name} is as it was written after a minute"); break
            time.sleep(.05)
    c.close()
def main():
    node.start(); a = adm(); prods = None
    for cycle in range(kills):
        dead = [False]
        def die():
            if R.random() < .5: time.sleep(R.random() * .02)
            node.kill(); dead[0] = True
        until = time.time() + R.uniform(.2, 2.0); limit = until + 30
        # Nothing acknowledged, nothing to compare: a slow machine gets its time.
        while time.time() < until or (time.time() < limit and not any(part.acked for t in topics.values() for part in t.parts)):
            produce_round(prods, R.randint(1, 120))
            for q in all_prods(): q.p.poll(.002)
            if R.random() < .5: admin_op(a)
        if R.random() < .5: stats["mid_admin"] += 1; produce_round(prods, 60); admin_op(a, die)
        elif R.random() < .2: stats["stops"] += 1; node.stop(); dead[0] = True
        if not dead[0]: node.kill()
        stats["kills"] += 1
        if damage and cycle % 2 == 1 and not bad:
            # What is unsure becomes sure first.
            node.start()
            for q in all_prods(): q.p.flush(30)
            a = adm(); resolve(a); verify(); node.kill() if R.random() < .7 else node.stop()
            for t in topics.values():
                for q in t.prods: q.make()
            hostile(int(os.environ.get("PLACES", "12")))
        if R.random() < .3:
            # Once more in the start or shortly behind it.
            node.start(); time.sleep(R.random() * .3); node.kill()
        node.start()
        for q in all_prods(): q.p.flush(30)
        a = adm()
        for q in all_prods():
            if not q.idem: q.make()
        resolve(a)
        if cycle % 2 == 1 or cycle == kills - 1: verify()
        if bad: node.kill(); break
    if not bad: verify(); rested(a); verify()
    if kills and not bad and not stats["across"]: wrong("nothing of before a kill was compared")
    log = open(work + "/log").read()
    for l in log.splitlines():
        if damage: break
        if "panick" in l or '"ERROR"' in l or " ERROR " in l or "error[CW" in l: wrong("log: " + l[:300]); break
    node.stop()
    print(json.dumps({"seed": seed, "wrong": len(bad), **stats}), flush=True)
    if bad: print("kept:", work)
    else: shutil.rmtree(work)
    sys.exit(1 if bad else 0)
try: main()
except BaseException as e:
    if node.p and node.p.poll() is None: node.p.kill()
    if not isinstance(e, SystemExit): 
        import traceback; traceback.print_exc(); print("kept:", work); sys.exit(2)
    raise
