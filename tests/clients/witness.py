"""A witness that is not ours: librdkafka (confluent-kafka) writes, reads, and tells what it saw, as a history of
docs/formats/history.md. It lives through every death of the broker; commands come line by line on standard input:

    fault TEXT   something was broken on purpose, just now
    stop         no more sends; wait for what is in flight
    final        all is healed: a fresh consumer reads everything; then the program ends

    witness.py BOOTSTRAP TOPIC PARTITIONS HISTORY SEED
"""

import json
import sys
import threading
import time

import confluent_kafka
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

BOOTSTRAP, TOPIC, PARTITIONS, HISTORY, SEED = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
CLIENT = "librdkafka " + confluent_kafka.libversion()[0]
PAUSE_S, SENDS_MAX = 0.002, 60_000

TABLE = []
for n in range(256):
    for _ in range(8):
        n = (n >> 1) ^ (0x82F63B78 if n & 1 else 0)
    TABLE.append(n)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def now():
    return time.monotonic_ns() // 1000


class History:
    def __init__(self, path):
        self.file, self.lock = open(path, "w", encoding="utf-8"), threading.Lock()
        self.line({"history": 1, "run": "librdkafka witness", "seed": SEED})

    def line(self, fields):
        with self.lock:
            self.file.write(json.dumps(fields) + "\n")


HIST = History(HISTORY)
SENDING, READING = threading.Event(), threading.Event()
SENDING.set()
READING.set()
PROBLEMS = []


def send(name):
    producer = Producer({
        "bootstrap.servers": BOOTSTRAP, "client.id": name, "enable.idempotence": True, "acks": "all", "linger.ms": 1,
        "delivery.timeout.ms": 120_000, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200, "retry.backoff.ms": 20,
        "socket.timeout.ms": 10_000, "log_level": 2,
    })

    def report(seq, tp, crc, begun):
        def done(error, message):
            line = {"op": "send", "at": begun, "end": now(), "process": name, "client": CLIENT, "tp": tp, "producer": name,
                    "seq": seq, "crc": crc, "idempotent": True}
            if error is None:
                line.update(result="ok", offset=message.offset())
            else:
                # It may have been written before the library gave up.
                line.update(result="info")
                del line["end"]
                if error.fatal():
                    PROBLEMS.append(f"{name}: {error}")
            HIST.line(line)
        return done

    seq = 0
    while SENDING.is_set() and seq < SENDS_MAX and not PROBLEMS:
        partition = (seq * 7 + len(name)) % PARTITIONS
        value = f"{name} says {seq} ".encode() * (1 + seq % 9)
        begun = now()
        try:
            producer.produce(TOPIC, key=f"{name}:{seq}", value=value, partition=partition,
                             on_delivery=report(seq, f"{TOPIC}/{partition}", crc32c(value), begun))
            seq += 1
        except BufferError:
            pass
        producer.poll(PAUSE_S)
    left = producer.flush(120)
    if left:
        PROBLEMS.append(f"{name}: {left} sends have no outcome after two minutes")


def consumer(group):
    return Consumer({
        "bootstrap.servers": BOOTSTRAP, "client.id": group, "group.id": group, "enable.auto.commit": False,
        "auto.offset.reset": "error", "isolation.level": "read_uncommitted", "reconnect.backoff.ms": 20,
        "reconnect.backoff.max.ms": 200, "fetch.error.backoff.ms": 20, "fetch.wait.max.ms": 50, "log_level": 2,
    })


def record(message):
    producer, seq = message.key().decode().rsplit(":", 1)
    return [message.offset(), producer, int(seq), crc32c(message.value())]


def read(name):
    """Polls from the beginning as long as the run lasts, and asks for the bounds now and then."""
    c, at = consumer(name), [0] * PARTITIONS
    seek = [True] * PARTITIONS
    c.assign([TopicPartition(TOPIC, p, 0) for p in range(PARTITIONS)])
    asked = 0
    while READING.is_set():
        begun = now()
        parts = {}
        for m in c.consume(500, 0.05):
            if m.error() is None:
                parts.setdefault(m.partition(), []).append(record(m))
        for p, records in parts.items():
            line = {"op": "poll", "at": begun, "end": now(), "process": f"{name}-{p}", "client": CLIENT, "tp": f"{TOPIC}/{p}",
                    "from": at[p], "next": records[-1][0] + 1, "records": records}
            if seek[p]:
                line["seek"], seek[p] = True, False
            HIST.line(line)
            at[p] = records[-1][0] + 1
        if time.monotonic() - asked > 0.2:
            asked = time.monotonic()
            bounds(c, f"{name}-bounds")
    c.close()


def bounds(c, name):
    """One process per partition: an answer of one says nothing about the order of another."""
    found = []
    for p in range(PARTITIONS):
        begun = now()
        try:
            low, high = c.get_watermark_offsets(TopicPartition(TOPIC, p), timeout=2.0, cached=False)
        except KafkaException:
            return None
        HIST.line({"op": "bounds", "at": begun, "end": now(), "process": f"{name}-{p}", "tp": f"{TOPIC}/{p}",
                   "log_start": low, "hw": high})
        found.append((low, high))
    return found


def final():
    HIST.line({"op": "final", "at": now()})
    c = consumer("final")
    deadline, ends = time.monotonic() + 60, None
    while ends is None and time.monotonic() < deadline:
        ends = bounds(c, "final-bounds")
    if ends is None:
        PROBLEMS.append("the bounds cannot be asked for at the end")
        return
    for p, (low, high) in enumerate(ends):
        c.assign([TopicPartition(TOPIC, p, low)])
        at, seek = low, True
        while at < high and time.monotonic() < deadline:
            begun = now()
            records = [record(m) for m in c.consume(1000, 0.2) if m.error() is None and m.partition() == p]
            if not records:
                continue
            line = {"op": "poll", "at": begun, "end": now(), "process": f"final-{p}", "client": CLIENT, "tp": f"{TOPIC}/{p}",
                    "from": at, "next": records[-1][0] + 1, "records": records}
            if seek:
                line["seek"], seek = True, False
            HIST.line(line)
            at = records[-1][0] + 1
        if at < high:
            PROBLEMS.append(f"partition {p} could be read to {at} of {high} only")
    c.close()


def run():
    senders = [threading.Thread(target=send, args=(f"w{n}",)) for n in range(2)]
    readers = [threading.Thread(target=read, args=(f"r{n}",)) for n in range(2)]
    for t in senders + readers:
        t.start()
    print("ready", flush=True)
    for line in sys.stdin:
        word, _, text = line.strip().partition(" ")
        if word == "fault":
            HIST.line({"op": "fault", "at": now(), "what": text})
        elif word == "stop":
            SENDING.clear()
            for t in senders:
                t.join()
        elif word == "final":
            READING.clear()
            for t in readers:
                t.join()
            final()
            break
        print("done", flush=True)
    SENDING.clear()
    READING.clear()
    HIST.file.close()
    for p in PROBLEMS:
        print(p, file=sys.stderr, flush=True)
    print("done", flush=True)
    return 1 if PROBLEMS else 0


sys.exit(run())
