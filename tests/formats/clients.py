"""Fills a broker through every Python client there is, and reads it back; tests/tests/formats.rs compares that with decode.py.

    clients.py fill HOST:PORT ROUND     topics (in round 1), batches in all codecs, groups, trims, deletes
    clients.py read HOST:PORT           one JSON line per record of every topic: topic, partition, offset, crc of the value
"""

import asyncio
import json
import random
import sys
import time

from aiokafka import AIOKafkaProducer
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from kafka import KafkaProducer

sys.dont_write_bytecode = True
from sums import crc32c

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
SMALL = {"internal.segment.bytes": "16000", "file.delete.delay.ms": "0"}
COMPACT = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.0", "delete.retention.ms": "0"}
TOPICS = {
    **{"f-" + codec: (1, SMALL) for codec in CODECS},
    "f-many": (3, SMALL),
    "f-keyed": (1, {**SMALL, **COMPACT}),
    "f-trimmed": (1, SMALL),
    "f-relaxed": (1, {**SMALL, "storage.durability": "relaxed"}),
    "f-gone": (1, SMALL),
}


def done(futures):
    for future in futures.values():
        future.result(30)


def fill(address, round_no):
    rng = random.Random(int(round_no))
    admin = AdminClient({"bootstrap.servers": address})
    if round_no == "1":
        done(admin.create_topics([NewTopic(name, n, 1, config=c) for name, (n, c) in TOPICS.items()]))
    text = lambda n: ("round %s value %d " % (round_no, n)).encode() + bytes(rng.choices(b"abcdef", k=rng.randrange(400)))
    for codec in CODECS:
        # Idempotent ones leave producers in the snapshots.
        settings = {"compression.type": codec, "enable.idempotence": codec != "gzip", "linger.ms": 1}
        producer = Producer({"bootstrap.servers": address, **settings})
        for n in range(300):
            producer.produce("f-" + codec, text(n), headers={"n": b"%d" % n} if n % 3 else None)
            if n % 10 == 0:
                producer.flush()
        for n in range(400):
            key, value = b"key %d" % rng.randrange(9), text(n) if rng.random() < 0.9 else None
            producer.produce("f-keyed", value, key)
            if n % 5 == 0:
                producer.flush()
        for topic in ("f-trimmed", "f-relaxed", "f-gone"):
            for n in range(100):
                producer.produce(topic, text(n))
            producer.flush()
    for codec in (None, "gzip", "snappy", "lz4", "zstd"):
        producer = KafkaProducer(bootstrap_servers=address, compression_type=codec, linger_ms=2)
        for n in range(60):
            producer.send("f-many", text(n), partition=n % 3)
        producer.close()
    asyncio.run(through_aiokafka(address, text))
    done(admin.delete_records([TopicPartition("f-trimmed", 0, 150 * int(round_no) + 7)]))
    if round_no == "1":
        done(admin.delete_topics(["f-gone"]))
    groups(address, "group " + round_no)


async def through_aiokafka(address, text):
    for codec in (None, "gzip", "snappy", "lz4", "zstd"):
        producer = AIOKafkaProducer(bootstrap_servers=address, compression_type=codec)
        await producer.start()
        for n in range(30):
            await producer.send("f-many", text(n), partition=n % 3)
        await producer.stop()


def groups(address, group):
    """A client commits with metadata and without a group; then two members share a topic and leave."""
    settings = {"bootstrap.servers": address, "auto.offset.reset": "earliest", "enable.auto.commit": False}
    alone = Consumer({**settings, "group.id": group + " alone"})
    alone.commit(offsets=[TopicPartition("f-none", 0, 5, metadata="five")], asynchronous=False)
    alone.close()
    members = [Consumer({**settings, "group.id": group, "client.id": "member %d" % n}) for n in range(2)]
    for member in members:
        member.subscribe(["f-many"])
    until = time.monotonic() + 60
    while not all(member.assignment() for member in members):
        if time.monotonic() > until:
            sys.exit("the members of %s have %r" % (group, [m.assignment() for m in members]))
        for member in members:
            member.poll(0.05)
    for member in members:
        held = [TopicPartition(t.topic, t.partition, 1) for t in member.assignment()]
        member.commit(offsets=held, asynchronous=False)
        member.close()


def read(address):
    consumer = Consumer({"bootstrap.servers": address, "group.id": "reader", "enable.partition.eof": True})
    names = [t for t in consumer.list_topics(timeout=30).topics if not t.startswith("__")]
    wanted = []
    for name in names:
        for partition in consumer.list_topics(name, timeout=30).topics[name].partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(name, partition), timeout=30)
            print(json.dumps({"topic": name, "partition": partition, "low": low, "high": high}))
            wanted.append(TopicPartition(name, partition, low))
    consumer.assign(wanted)
    ends = 0
    while ends < len(wanted):
        for m in consumer.consume(1000, 1.0):
            if m.error():
                ends += 1
                continue
            line = {"topic": m.topic(), "partition": m.partition(), "offset": m.offset()}
            print(json.dumps({**line, "crc": crc32c(m.value() or b"")}))
    consumer.close()


if __name__ == "__main__":
    {"fill": fill, "read": read}[sys.argv[1]](*sys.argv[2:])
