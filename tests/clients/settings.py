"""Topic settings, partitions and record deletes through the admin clients of confluent-kafka, kafka-python and aiokafka, the same
calls for a real Kafka and for us: what each call answers, and what is described afterwards.

    settings.py OURS THEIRS

Prints what differs, exit 1 if something does. The other Kafka is a fresh one.
"""

import asyncio
import sys
import time

from confluent_kafka import KafkaException, TopicPartition, TopicCollection
from confluent_kafka.admin import (AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic,
                                   OffsetSpec, ResourceType)

# Every topic setting of Kafka 4.3.1: values it takes, then values it refuses.
SETTINGS = {
    "cleanup.policy": (["compact", "compact,delete", "delete"], ["nope", "compact,nope", "delete,delete"]),
    "compression.type": (["zstd", "lz4", "snappy", "gzip", "uncompressed", "producer"], ["brotli", ""]),
    "compression.gzip.level": (["1", "9", "-1"], ["10", "0", "x"]),
    "compression.lz4.level": (["1", "17"], ["18", "0"]),
    "compression.zstd.level": (["3", "22", "-131072"], ["23", "-131073"]),
    "delete.retention.ms": (["0", "9223372036854775807"], ["-1", "9223372036854775808", "1.5"]),
    "file.delete.delay.ms": (["0"], ["-1"]),
    "flush.messages": (["1"], ["0"]),
    "flush.ms": (["0"], ["-1"]),
    "follower.replication.throttled.replicas": (["*", "0:1", "0:1,1:1", ""], ["x", "0:x"]),
    "index.interval.bytes": (["0"], ["-1"]),
    "leader.replication.throttled.replicas": (["*"], ["0-1"]),
    "local.retention.bytes": (["-2"], ["-3"]),
    "local.retention.ms": (["-2"], ["-3"]),
    "max.compaction.lag.ms": (["1"], ["0"]),
    "max.message.bytes": (["0", "2147483647"], ["-1", "2147483648", "1e3"]),
    "message.timestamp.after.max.ms": (["0"], ["-1"]),
    "message.timestamp.before.max.ms": (["0"], ["-1"]),
    "message.timestamp.type": (["LogAppendTime", "CreateTime"], ["logappendtime", "Never"]),
    "min.cleanable.dirty.ratio": (["0", "0.5", "1"], ["1.1", "-0.1", "x"]),
    "min.compaction.lag.ms": (["0"], ["-1"]),
    "min.insync.replicas": (["1", "7"], ["0"]),
    "preallocate": (["true", "FALSE"], ["1", "yes"]),
    "remote.log.copy.disable": (["false"], ["x"]),
    "remote.log.delete.on.disable": (["false"], ["x"]),
    "remote.storage.enable": (["false"], ["x"]),
    "retention.bytes": (["-1", "0", "1000"], ["x"]),
    "retention.ms": (["-1", "0", " 7000 "], ["-2", "1_000", "0x10"]),
    "segment.bytes": (["1048576"], ["1048575", "13"]),
    "segment.index.bytes": (["4"], ["3"]),
    "segment.jitter.ms": (["0"], ["-1"]),
    "segment.ms": (["1"], ["0"]),
    "unclean.leader.election.enable": (["true", "false"], ["1"]),
    "message.format.version": ([], ["3.0"]),
    "nonsense": ([], ["1"]),
}

# What is ours alone, in what is described, and what Kafka 4.3.1 sets for the whole cluster.
OURS = {"storage.durability", "produce.validation"}
CLUSTER = {"min.insync.replicas"}


def told(future):
    """What a call came to: a value, or the name and the text of its error."""
    try:
        value = future.result(20)
        return ("ok", getattr(value, "low_watermark", None))
    except KafkaException as e:
        return (e.args[0].name(), e.args[0].str())


def one(future_map):
    return told(next(iter(future_map.values())))


class Librdkafka:
    def __init__(self, bootstrap):
        self.admin = AdminClient({"bootstrap.servers": bootstrap, "socket.timeout.ms": 20000})

    def create(self, name, partitions, config=None):
        return one(self.admin.create_topics([NewTopic(name, partitions, 1, config=config or {})], operation_timeout=10))

    def alter(self, name, entries):
        resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[
            ConfigEntry(k, v, incremental_operation=op) for k, op, v in entries])
        return one(self.admin.incremental_alter_configs([resource]))

    def described_until(self, name, key, value):
        """Kafka's broker shows a change a moment after it was answered."""
        for _ in range(100):
            found = self.described(name).get(key)
            if value is None or (found and found[1] == 1 and found[0].lower() == value.strip().lower()):
                break
            time.sleep(0.05)
        if found and key in CLUSTER:
            found = (found[0], *found[2:])  # whose value it is differs
        return found

    def described(self, name):
        futures = self.admin.describe_configs([ConfigResource(ResourceType.TOPIC, name)])
        found = next(iter(futures.values())).result(20)
        return {e.name: (e.value, e.source, e.is_read_only, e.is_default, e.is_sensitive)
                for e in found.values() if e.name not in OURS}

    def partitions(self, name, count, assignment=None, dry=False):
        wanted = NewPartitions(name, count, assignment) if assignment else NewPartitions(name, count)
        return one(self.admin.create_partitions([wanted], validate_only=dry, operation_timeout=10))

    def delete_records(self, name, partition, offset):
        return one(self.admin.delete_records([TopicPartition(name, partition, offset)], request_timeout=10))

    def log_start(self, name, partition):
        spec = {TopicPartition(name, partition): OffsetSpec.earliest()}
        return next(iter(self.admin.list_offsets(spec).values())).result(20).offset

    def topic(self, name):
        found = self.admin.describe_topics(TopicCollection([name]))
        t = next(iter(found.values())).result(20)
        return (t.is_internal, [(p.id, p.leader.id, [r.id for r in p.replicas], [r.id for r in p.isr]) for p in t.partitions])


def librdkafka(bootstrap, say):
    """The whole story by librdkafka. `say` gets a name for each step and what it came to."""
    set_, delete, append, subtract = (AlterConfigOpType.SET, AlterConfigOpType.DELETE, AlterConfigOpType.APPEND,
                                      AlterConfigOpType.SUBTRACT)
    k = Librdkafka(bootstrap)
    say("create", k.create("s1", 2))
    for key, (good, bad) in SETTINGS.items():
        for value in good + bad:
            came = k.alter("s1", [(key, set_, value)])
            say(f"set {key}={value!r}", came)
            say(f"... described {key}", k.described_until("s1", key, value if came[0] == "ok" else None))
            if value in bad:
                say(f"create with {key}={value!r}", k.create(f"c-{key}-{bad.index(value)}", 1, {key: value}))
        say(f"delete {key}", k.alter("s1", [(key, delete, None)]))
    time.sleep(0.5)
    say("all", {key: v for key, v in k.described("s1").items() if key not in CLUSTER})
    say("append", k.alter("s1", [("cleanup.policy", append, "compact")]))
    say("append again", k.alter("s1", [("cleanup.policy", append, "compact")]))
    say("... described", k.described("s1").get("cleanup.policy"))
    say("subtract", k.alter("s1", [("cleanup.policy", subtract, "delete")]))
    say("subtract the last", k.alter("s1", [("cleanup.policy", subtract, "compact")]))
    say("... described", k.described("s1").get("cleanup.policy"))
    say("append to a number", k.alter("s1", [("retention.ms", append, "1")]))
    say("two of one key", k.alter("s1", [("retention.ms", set_, "1"), ("retention.ms", set_, "2")]))
    say("one good, one bad", k.alter("s1", [("retention.ms", set_, "1"), ("segment.ms", set_, "0")]))
    say("... described", (k.described("s1").get("retention.ms"), k.described("s1").get("segment.ms")))
    say("min above max", k.alter("s1", [("min.compaction.lag.ms", set_, "10"), ("max.compaction.lag.ms", set_, "5")]))
    say("no such topic", k.alter("nope", [("retention.ms", set_, "1")]))
    for count, assignment in ((3, None), (3, None), (2, None), (5, [[1], [1]]), (6, [[9]]), (7, [[1], [1]]), (7, [[1, 1]])):
        say(f"partitions {count} {assignment}", k.partitions("s1", count, assignment))
    say("partitions dry", k.partitions("s1", 9, dry=True))
    say("partitions of nothing", k.partitions("nope", 9))
    for _ in range(100):
        # Kafka's Metadata shows new partitions a moment after they were made.
        topic = k.topic("s1")
        if len(topic[1]) == 7:
            break
        time.sleep(0.05)
    say("described topic", topic)
    for partition, offset in ((0, 0), (0, -1), (0, 5), (0, -2)):
        say(f"delete records {partition} {offset}", k.delete_records("s1", partition, offset))
    say("log start", k.log_start("s1", 0))


def kafka_python(bootstrap, say):
    from kafka.admin import ConfigResource as Resource, ConfigResourceType, KafkaAdminClient, NewPartitions as More
    from kafka.admin import NewTopic as New
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)

    def call(name, what):
        try:
            what()
            say(name, "ok")
        except Exception as e:  # what it raises is the answer
            say(name, type(e).__name__)

    call("create", lambda: admin.create_topics([New("kp", 1, 1)]))
    call("create again", lambda: admin.create_topics([New("kp", 1, 1)]))
    call("partitions", lambda: admin.create_partitions({"kp": More(3)}))
    call("fewer", lambda: admin.create_partitions({"kp": More(2)}))
    call("alter", lambda: admin.alter_configs([Resource(ConfigResourceType.TOPIC, "kp", {"retention.ms": "1000"})]))
    call("alter badly", lambda: admin.alter_configs([Resource(ConfigResourceType.TOPIC, "kp", {"retention.ms": "-5"})]))
    call("describe", lambda: admin.describe_configs([Resource(ConfigResourceType.TOPIC, "kp")]))
    call("delete", lambda: admin.delete_topics(["kp"]))
    call("delete again", lambda: admin.delete_topics(["kp"]))
    admin.close()


def aio(bootstrap, say):
    from aiokafka.admin import AIOKafkaAdminClient, NewPartitions as More, NewTopic as New, RecordsToDelete
    from aiokafka.admin.config_resource import ConfigResource as Resource, ConfigResourceType
    from aiokafka.structs import TopicPartition as At

    async def story():
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()

        async def call(name, what):
            try:
                reply = await what
                plain = reply.to_object() if hasattr(reply, "to_object") else str(reply)
                if isinstance(plain, dict):
                    plain.pop("throttle_time_ms", None)
                say(name, "ok" if name.startswith("describe") else plain)
            except Exception as e:
                say(name, type(e).__name__)

        await call("create", admin.create_topics([New("aio", 1, 1)]))
        await call("partitions", admin.create_partitions({"aio": More(3)}))
        await call("fewer", admin.create_partitions({"aio": More(2)}))
        await call("alter", admin.alter_configs([Resource(ConfigResourceType.TOPIC, "aio", {"retention.ms": "1000"})]))
        await call("alter badly", admin.alter_configs([Resource(ConfigResourceType.TOPIC, "aio", {"retention.ms": "-5"})]))
        await call("describe", admin.describe_configs([Resource(ConfigResourceType.TOPIC, "aio")]))
        await call("delete records", admin.delete_records({At("aio", 0): RecordsToDelete(before_offset=0)}))
        await call("too many", admin.delete_records({At("aio", 0): RecordsToDelete(before_offset=9)}))
        await call("delete", admin.delete_topics(["aio"]))
        await admin.close()

    asyncio.run(story())


def alike(name, we, they):
    """The words of errors of settings are Kafka's; of those about topics and partitions the code is."""
    if name.startswith("partitions") and isinstance(we, tuple) and we[0] != "ok":
        return we[0] == they[0]
    return we == they


def main(ours, theirs):
    unknown = 0
    for library in (librdkafka, kafka_python, aio):
        seen = []
        for bootstrap in (ours, theirs):
            steps = []
            library(bootstrap, lambda name, what: steps.append((name, what)))
            seen.append(steps)
        print(f"{library.__name__}: {len(seen[0])} steps")
        assert [n for n, _ in seen[0]] == [n for n, _ in seen[1]], "the same story for both"
        for (name, we), (_, they) in zip(*seen):
            if isinstance(we, dict) and isinstance(they, dict):
                differ = {k: (we.get(k), they.get(k)) for k in we.keys() | they.keys() if we.get(k) != they.get(k)}
            else:
                differ = None if alike(name, we, they) else (we, they)
            if differ:
                unknown += 1
                print(f"{library.__name__} {name}: ours, theirs: {differ}")
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
