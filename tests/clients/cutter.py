"""One client for two logs: librdkafka (confluent-kafka) writes at a steady pace, keeps the ledger of what was acknowledged in
its own memory, and compares after the restart. Commands come line by line on standard input; each is answered by one JSON line:

    make TOPIC PARTITIONS REPLICAS   creates it; answered once every partition has its leader and all replicas in sync
    load TOPIC RECORDS_PER_SECOND    begins to write, answered at the first acknowledgement; acks=all, idempotent
    still TOPIC                      the disks are gone: no more sends; how many records were acknowledged
    read TOPIC BOOTSTRAP             reads all of it with a fresh client and compares

    cutter.py BOOTSTRAP
"""

import hashlib
import json
import sys
import threading
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

BODY = 8  # a body is its key's digest, so many times: 256 bytes
QUIET = {"log_level": 0, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200}


def body(key):
    return hashlib.sha256(key).digest() * BODY


class Topic:
    def __init__(self, bootstrap, name, partitions):
        self.bootstrap, self.name, self.partitions = bootstrap, name, partitions
        # (partition, offset) -> key, of what was acknowledged; and every key that was ever handed to the library.
        self.acked, self.sent, self.refused = {}, 0, 0
        self.first, self.writing = threading.Event(), threading.Event()
        self.thread = None

    def load(self, rate):
        self.writing.set()
        self.thread = threading.Thread(target=self.write, args=(rate,))
        self.thread.start()
        if not self.first.wait(60):
            raise RuntimeError("nothing was acknowledged within a minute")

    def write(self, rate):
        producer = Producer({
            **QUIET, "bootstrap.servers": self.bootstrap, "enable.idempotence": True, "acks": "all", "linger.ms": 2,
            "queue.buffering.max.messages": 20_000,
        })

        def done(error, message):
            if error is None:
                self.acked[(message.partition(), message.offset())] = message.key()
                self.first.set()
            else:
                self.refused += 1

        begun = time.monotonic()
        while self.writing.is_set():
            due = int((time.monotonic() - begun) * rate)
            try:
                while self.sent < due and self.writing.is_set():
                    key = b"%d" % self.sent
                    producer.produce(self.name, key=key, value=body(key), partition=self.sent % self.partitions,
                                     on_delivery=done)
                    self.sent += 1
                    if self.sent % 100 == 0:
                        producer.poll(0)
            except BufferError:
                # Slower than the pace: what is in flight stays bounded, the pace begins anew.
                begun = time.monotonic() - self.sent / rate
            producer.poll(0.002)
        # Answers that came before the disks went may still lie in the library; everything else has no outcome.
        producer.poll(0.2)
        producer.purge(in_queue=True, in_flight=True, blocking=True)
        producer.poll(0)

    def still(self):
        self.writing.clear()
        self.thread.join()
        return {"acked": len(self.acked), "sent": self.sent}

    def read(self, bootstrap):
        c = Consumer({**QUIET, "bootstrap.servers": bootstrap, "group.id": "cutter", "enable.auto.commit": False,
                      "auto.offset.reset": "error", "fetch.wait.max.ms": 50})
        found, wrong, dark, gone = {}, 0, 0, False
        deadline = time.monotonic() + 60
        for p in range(self.partitions):
            ends = None
            while ends is None and time.monotonic() < deadline:
                try:
                    ends = c.get_watermark_offsets(TopicPartition(self.name, p), timeout=5.0, cached=False)
                except KafkaException:
                    time.sleep(0.1)
            if ends is None:
                dark += 1
                continue
            at, high = ends
            c.assign([TopicPartition(self.name, p, at)])
            limit = time.monotonic() + 60
            while at < high and time.monotonic() < limit:
                for m in c.consume(2000, 0.5):
                    if m.error() is None and m.partition() == p:
                        found[(p, m.offset())] = m.key()
                        wrong += m.value() != body(m.key())
                        at = m.offset() + 1
            if at < high:
                dark += 1
        topics = c.list_topics(timeout=10).topics
        gone = self.name not in topics
        c.close()
        lost = sum(1 for at, key in self.acked.items() if found.get(at) != key)
        return {"acked": len(self.acked), "read": len(found), "lost": lost, "wrong": wrong, "dark": dark, "gone": gone}


def make(bootstrap, name, partitions, replicas):
    admin = AdminClient({**QUIET, "bootstrap.servers": bootstrap})
    deadline = time.monotonic() + 60
    while True:
        try:
            admin.create_topics([NewTopic(name, partitions, replicas)], request_timeout=10)[name].result()
            break
        except KafkaException as e:
            # 36: an attempt whose answer was lost had made it.
            if e.args[0].code() == 36:
                break
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
    while time.monotonic() < deadline:
        topic = admin.list_topics(topic=name, timeout=10).topics[name]
        if len(topic.partitions) == partitions and all(
                p.leader >= 0 and len(p.isrs) == replicas for p in topic.partitions.values()):
            return
        time.sleep(0.05)
    raise RuntimeError(f"{name} is not in sync within a minute")


def main():
    bootstrap, topics = sys.argv[1], {}
    for line in sys.stdin:
        words = line.split()
        try:
            if words[0] == "make":
                make(bootstrap, words[1], int(words[2]), int(words[3]))
                topics[words[1]] = Topic(bootstrap, words[1], int(words[2]))
                answer = {}
            elif words[0] == "load":
                topics[words[1]].load(int(words[2]))
                answer = {}
            elif words[0] == "still":
                answer = topics[words[1]].still()
            else:
                bootstrap = words[2]
                answer = topics.pop(words[1]).read(bootstrap)
        except Exception as e:
            answer = {"failed": f"{type(e).__name__}: {e}"}
        print(json.dumps(answer), flush=True)


main()
