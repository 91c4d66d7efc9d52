"""The same random program to two brokers by librdkafka: `beside.py OURS THEIRS SEED [STEPS]`; what they answer and what can be read
back must be the same. Their Kafka is a real one, with one node; nothing of retention or compaction is on.

Producers (idempotent and not, acks 0, 1, all, each codec, headers, null keys and values, timestamps, records that are too large for the
topic), topics made, widened and deleted, DeleteRecords, settings changed, offsets by time, by isolation level and by epoch, groups'
committed offsets, reads from anywhere. Where batches end is a matter of timing: each is sent by itself. Compared are error
codes, offsets, timestamps, keys, values, headers, log starts and ends. Epochs are not: ours begin at 1. One JSON line at the end;
exit 1 if something differed, 2 if nothing was compared."""
import json
import random
import sys
import time

from confluent_kafka import ConsumerGroupTopicPartitions, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec

ours, theirs, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
steps = int(sys.argv[4]) if len(sys.argv) > 4 else 300
R = random.Random(seed)
run = f"b{seed}-{int(time.time()) % 10**7}"
stats = {"seed": seed, "steps": 0, "answers": 0, "records": 0, "differences": 0}
now = int(time.time() * 1000)


def code(e):
    error = e.args[0] if isinstance(e, KafkaException) else e
    return error.name() if isinstance(error, KafkaError) else repr(e)


class Side:
    def __init__(s, address):
        s.address = address
        s.admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
        s.begin()

    def begin(s):
        """Clients that know nothing yet: those that are there know topics as they were."""
        s.producers = {}
        s.reader = Consumer({"bootstrap.servers": s.address, "group.id": "reads-" + run, "enable.auto.commit": False, "enable.partition.eof": True,
                             "auto.offset.reset": "error", "log_level": 0, "check.crcs": True})

    def ask(s, futures):
        """Value or error code of each, by name."""
        out = {}
        for name, f in futures.items():
            try:
                out[str(name)] = f.result(30)
            except KafkaException as e:
                out[str(name)] = code(e)
        return out

    def producer(s, config):
        key = json.dumps(config, sort_keys=True)
        if key not in s.producers:
            s.producers[key] = Producer({"bootstrap.servers": s.address, "linger.ms": 0, "log_level": 0, "message.max.bytes": 3_000_000, **config})
        return s.producers[key]

    def send(s, topic, partition, config, records):
        """One batch; offset or error of each record."""
        p, got = s.producer(config), [None] * len(records)
        for i, (key, value, ms, headers) in enumerate(records):
            def told(error, message, i=i):
                got[i] = error.name() if error else message.offset()
            try:
                p.produce(topic, value, key, partition, on_delivery=told, timestamp=ms, headers=headers)
            except KafkaException as e:
                got[i] = code(e)
            # One record a batch, so that both cut alike.
            p.flush(30)
        return got

    def bounds(s, topic, partition):
        try:
            return s.reader.get_watermark_offsets(TopicPartition(topic, partition), timeout=20)
        except KafkaException as e:
            return code(e)

    def read(s, topic, partition, at, most):
        s.reader.assign([TopicPartition(topic, partition, at)])
        out, limit = [], time.monotonic() + 30
        while time.monotonic() < limit and len(out) < most:
            m = s.reader.poll(1)
            if m is None:
                continue
            if m.error():
                c = m.error().code()
                out.append("end" if c == KafkaError._PARTITION_EOF else m.error().name())
                break
            out.append((m.offset(), m.timestamp(), m.key(), m.value(), m.headers()))
        s.reader.unassign()
        return out

    def at_time(s, topic, partition, ms):
        try:
            return s.reader.offsets_for_times([TopicPartition(topic, partition, ms)], timeout=20)[0].offset
        except KafkaException as e:
            return code(e)

    def close(s):
        s.reader.close()


sides = [Side(ours), Side(theirs)]
topics = {}  # name -> partitions


def both(what, f, same=None):
    try:
        answers = [f(s) for s in sides]
    except ValueError:
        return {}, {}  # the library itself refuses it
    stats["answers"] += 1
    a, b = (same(x) for x in answers) if same else answers
    if a != b:
        stats["differences"] += 1
        print(f"seed {seed} step {stats['steps']}: {what}: ours {str(a)[:600]}, theirs {str(b)[:600]}", flush=True)
    return answers


def settled(name, partitions):
    """A Kafka's leaders know of their partitions a moment later."""
    for s in sides:
        limit = time.monotonic() + 30
        while time.monotonic() < limit:
            if all(isinstance(s.bounds(name, p), tuple) for p in range(partitions)):
                break
            time.sleep(0.05)


def create():
    name = f"{run}-{len(topics)}-{stats['steps']}"
    partitions = R.choice([1, 1, 2, 4])
    conf = {"retention.ms": "-1"}
    if R.random() < 0.3:
        conf["message.timestamp.type"] = "LogAppendTime"
    if R.random() < 0.3:
        conf["max.message.bytes"] = str(R.choice([1000, 5000]))
    if R.random() < 0.3:
        conf["message.timestamp.after.max.ms"] = "3600000"
    if R.random() < 0.3:
        conf["segment.bytes"] = "1048576"
    factor = R.choice([1] * 8 + [2])
    if R.random() < 0.1:
        conf[R.choice(["no.such.key", "retention.ms", "cleanup.policy"])] = R.choice(["x", "", "-2"])
    a, _ = both(f"create {name} {partitions} {factor} {conf}", lambda s: s.ask(s.admin.create_topics([NewTopic(name, partitions, factor, config=conf)])), str)
    if a.get(name, 0) is None:
        topics[name] = (partitions, conf)
        settled(name, partitions)


def pick():
    name = R.choice(sorted(topics))
    return name, R.randrange(topics[name][0]), topics[name][1]


def produce():
    name, partition, conf = pick()
    config = {"acks": R.choice(["all", "1", "all", "0"]), "compression.type": R.choice(["none", "gzip", "snappy", "lz4", "zstd"])}
    if R.random() < 0.4:
        config = {**config, "acks": "all", "enable.idempotence": True}
    records = []
    for _ in range(R.randint(1, 5)):
        key = R.choice([None, b"", b"k%d" % R.randrange(20)])
        value = R.choice([None, b"", R.randbytes(R.choice([5, 50, 400]))])
        if R.random() < 0.04:
            value = R.randbytes(R.choice([2000, 9000]))
        ms = now + R.randrange(-100_000, 100_000)
        if R.random() < 0.04:
            ms = now + 2 * 3_600_000
        headers = [(f"h{i}", R.choice([None, b"", b"v"])) for i in range(R.randrange(3))] or None
        records.append((key, value, ms, headers))
    # Without an acknowledgement there is no offset, and a refusal shows as a broken connection, now or later.
    if config["acks"] == "0":
        for s in sides:
            before = s.bounds(name, partition)
            s.send(name, partition, config, records[:1] if len(records[0][1] or b"") < 900 and records[0][2] < now + 200_000 else [(b"k", b"v", now, None)])
            limit = time.monotonic() + 20
            while s.bounds(name, partition) == before and time.monotonic() < limit:
                time.sleep(0.02)
        return
    both(f"produce {name}-{partition} {config} {[(r[0], len(r[1] or b''), r[2] - now) for r in records]}", lambda s: s.send(name, partition, config, records))


def widen():
    name = R.choice(sorted(topics))
    has = topics[name][0]
    count = R.choice([has + 1, has + 2, has, has - 1, 0])
    nodes = None if R.random() < 0.7 else [[R.choice([1, 1, 1, 9])] for _ in range(R.choice([max(count - has, 0), 1]))]
    wanted = NewPartitions(name, count, nodes) if nodes else NewPartitions(name, count)
    trial = R.random() < 0.3
    a, _ = both(f"widen {name} from {has} to {count} {nodes} trial {trial}", lambda s: s.ask(s.admin.create_partitions([wanted], validate_only=trial)))
    if a.get(name, 0) is None and not trial:
        topics[name] = (count, topics[name][1])
        for s in sides:
            s.close()
            s.begin()
        settled(name, count)


def delete_records():
    name, partition, _ = pick()
    bounds, _ = both(f"bounds of {name}-{partition}", lambda s: s.bounds(name, partition))
    if isinstance(bounds, str):
        return
    end = bounds[1]
    at = R.choice([0, end, R.randint(0, end), end + 5, -1])
    low = lambda out: {k: v if isinstance(v, str) else v.low_watermark for k, v in out.items()}
    both(f"delete records of {name}-{partition} below {at}", lambda s: low(s.ask(s.admin.delete_records([TopicPartition(name, partition, at)]))), lambda d: list(d.values()))


def offsets():
    name, partition, _ = pick()
    spec = R.choice([OffsetSpec.earliest(), OffsetSpec.latest(), OffsetSpec.max_timestamp(), OffsetSpec.for_timestamp(now + R.randrange(-120_000, 120_000))])
    if topics[name][1].get("message.timestamp.type") and not isinstance(spec, (type(OffsetSpec.earliest()), type(OffsetSpec.latest()))):
        return  # their clocks differ
    if isinstance(spec, type(OffsetSpec.max_timestamp())) and sides[0].bounds(name, partition)[0]:
        return  # Kafka answers with records that DeleteRecords took
    told = lambda out: [v if isinstance(v, str) else (v.offset, v.timestamp if v.timestamp > 0 else -1) for v in out.values()]
    both(f"offsets of {name}-{partition} {spec}", lambda s: told(s.ask(s.admin.list_offsets({TopicPartition(name, partition): spec}))))


def times():
    name, partition, conf = pick()
    if conf.get("message.timestamp.type"):
        return
    ms = now + R.randrange(-120_000, 120_000)
    both(f"time {ms - now} in {name}-{partition}", lambda s: s.at_time(name, partition, ms))


def read():
    name, partition, conf = pick()
    bounds, _ = both(f"bounds of {name}-{partition}", lambda s: s.bounds(name, partition))
    if isinstance(bounds, str):
        return
    at = R.choice([bounds[0], R.randint(bounds[0], bounds[1]), bounds[1], max(bounds[0] - 1, 0), bounds[1] + 3])
    compare(name, partition, conf, at, R.choice([3, 1000]))


def compare(name, partition, conf, at, most):
    blind = lambda r: r if isinstance(r, str) else (r[0], r[1][0], *r[2:])
    clock = conf.get("message.timestamp.type")
    a, _ = both(f"read {name}-{partition} from {at}", lambda s: s.read(name, partition, at, most), (lambda out: [blind(r) for r in out]) if clock else None)
    stats["records"] += sum(not isinstance(r, str) for r in a)


def group():
    name, partition, _ = pick()
    g = f"g{R.randrange(3)}-{run}"
    at = TopicPartition(name, partition, R.choice([0, 1, 5, 10**9]), R.choice(["", "meta", "x" * 5000]))

    def commit(s):
        c = Consumer({"bootstrap.servers": s.address, "group.id": g, "enable.auto.commit": False, "log_level": 0})
        try:
            done = c.commit(offsets=[at], asynchronous=False)
            return [(t.offset, t.error and t.error.name()) for t in done]
        except KafkaException as e:
            return code(e)
        finally:
            c.close()

    def committed(s):
        out = s.ask(s.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(g, [TopicPartition(name, p) for p in range(topics[name][0])])]))
        return [v if isinstance(v, str) else [(t.partition, t.offset, t.metadata) for t in v.topic_partitions] for v in out.values()]
    both(f"commit of {g}: {at.offset}", commit)
    both(f"offsets of {g}", committed)


def alter():
    name = R.choice(sorted(topics))
    key, values = R.choice([("max.message.bytes", ["1000", "100000", "-1"]), ("segment.bytes", ["1048576", "1073741824"]), ("message.timestamp.after.max.ms", ["1000000", "9223372036854775807"]),
                            ("flush.ms", ["x", "1000"]), ("no.such", ["1"])])
    value = R.choice(values)
    entry = ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
    resource = lambda: ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=[entry])
    both(f"alter {name} {key}={value}", lambda s: list(s.ask(s.admin.incremental_alter_configs([resource()])).values()))
    shown = lambda out: [v if isinstance(v, str) else {k: v[k].value for k in ("max.message.bytes", "segment.bytes", "retention.ms", "message.timestamp.type")} for v in out.values()]
    # A Kafka's broker hears of it a moment later.
    limit = time.monotonic() + 10
    while time.monotonic() < limit:
        a, b = (shown(s.ask(s.admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, name)]))) for s in sides)
        if a == b:
            break
        time.sleep(0.05)
    both(f"settings of {name}", lambda s: shown(s.ask(s.admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, name)]))))


def delete():
    if len(topics) < 3:
        return
    name = R.choice(sorted(topics))
    both(f"delete {name}", lambda s: s.ask(s.admin.delete_topics([name])))
    del topics[name]
    both(f"delete {name} again", lambda s: gone(s, name))


def gone(s, name):
    limit = time.monotonic() + 20
    while time.monotonic() < limit and name in s.admin.list_topics(timeout=10).topics:
        time.sleep(0.05)
    return s.ask(s.admin.delete_topics([name]))


WHAT = [(create, 6), (produce, 50), (widen, 4), (delete_records, 5), (offsets, 8), (times, 6), (read, 14), (group, 5), (alter, 4), (delete, 2)]
while not topics:
    create()
for _ in range(steps):
    stats["steps"] += 1
    R.choices([f for f, _ in WHAT], [w for _, w in WHAT])[0]()
for name, (partitions, conf) in sorted(topics.items()):
    for partition in range(partitions):
        bounds, _ = both(f"bounds of {name}-{partition}", lambda s: s.bounds(name, partition))
        assert not isinstance(bounds, str), f"{name}-{partition}: {bounds}"
        compare(name, partition, conf, bounds[0], 10**6)
for s in sides:
    s.close()
    s.admin.delete_topics(sorted(topics))
print(json.dumps(stats), flush=True)
sys.exit(1 if stats["differences"] else 0 if stats["records"] else 2)
