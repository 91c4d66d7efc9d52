"""confluent-kafka (librdkafka)."""

import confluent_kafka
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from scenarios import In, PATIENCE_S, TooLarge, main

TOO_LARGE = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError._MSG_SIZE_TOO_LARGE if hasattr(KafkaError, "_MSG_SIZE_TOO_LARGE") else 10}


def record(m):
    headers = [(k, v) for k, v in (m.headers() or [])]
    return In(m.partition(), m.offset(), m.timestamp()[1], m.key(), m.value(), headers)


class Member:
    def __init__(self, bootstrap, group, topics, instance, session_ms):
        config = {
            "bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest",
            "enable.auto.commit": False, "session.timeout.ms": session_ms, "heartbeat.interval.ms": 500,
            "partition.assignment.strategy": "range",
        }
        if instance:
            config["group.instance.id"] = instance
        self.consumer, self.rebalances = Consumer(config), 0

        def assigned(_consumer, _partitions):
            self.rebalances += 1

        self.consumer.subscribe(topics, on_assign=assigned)

    def poll(self, seconds):
        got = []
        for m in self.consumer.consume(500, seconds):
            if m.error():
                if m.error().retriable() or m.error().code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError.UNKNOWN_TOPIC_OR_PART):
                    continue
                raise KafkaException(m.error())
            got.append(record(m))
        return got

    def assignment(self):
        return {(p.topic, p.partition) for p in self.consumer.assignment()}

    def commit(self):
        try:
            self.consumer.commit(asynchronous=False)
        except KafkaException as e:
            # A rebalance in between: the next owner reads again.
            if e.args[0].code() not in (KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError._NO_OFFSET):
                raise

    def pause(self):
        self.consumer.pause(self.consumer.assignment())

    def resume(self):
        self.consumer.resume(self.consumer.assignment())

    def close(self):
        self.consumer.close()


class Client:
    sends_nothing_at_all = True

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.admin = AdminClient({"bootstrap.servers": bootstrap})
        self.producers = {}

    def cluster(self):
        info = self.admin.list_topics(timeout=PATIENCE_S)
        return len(info.brokers), info.cluster_id

    def create(self, topic, partitions, configs):
        self.admin.create_topics([NewTopic(topic, partitions, 1, config=configs)])[topic].result(PATIENCE_S)

    def delete(self, topic):
        self.admin.delete_topics([topic])[topic].result(PATIENCE_S)

    def partitions(self, topic):
        return len(self.admin.list_topics(topic, timeout=PATIENCE_S).topics[topic].partitions)

    def configs(self, topic):
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        found = self.admin.describe_configs([resource])[resource].result(PATIENCE_S)
        return {name: entry.value for name, entry in found.items()}

    def headers_it_can(self, headers):
        return headers

    def produce(self, topic, records, acks="all", codec=None, idempotent=False):
        config = {"bootstrap.servers": self.bootstrap, "acks": str(acks), "linger.ms": 5, "message.timeout.ms": PATIENCE_S * 1000,
                  "message.max.bytes": 2_000_000, "queue.buffering.max.messages": 100_000}
        if codec:
            config["compression.type"] = codec
        if idempotent:
            config["enable.idempotence"] = True
        key = tuple(sorted(config.items()))
        producer = self.producers.get(key) or self.producers.setdefault(key, Producer(config))
        offsets, errors = {}, []

        def delivered(index):
            def report(error, message):
                if error:
                    errors.append(error)
                else:
                    offsets[index] = message.offset()
            return report

        for i, r in enumerate(records):
            more = {"timestamp": r.timestamp_ms} if r.timestamp_ms is not None else {}
            try:
                producer.produce(topic, r.value, r.key, r.partition, on_delivery=delivered(i), headers=r.headers, **more)
            except KafkaException as e:
                raise (TooLarge if e.args[0].code() in TOO_LARGE else e)
            producer.poll(0)
        left = producer.flush(PATIENCE_S)
        assert left == 0, f"{left} records without an answer"
        if errors:
            raise (TooLarge if errors[0].code() in TOO_LARGE else KafkaException(errors[0]))
        return [offsets[i] for i in range(len(records))]

    def read(self, topic, partition, start, count):
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "unused", "enable.auto.commit": False})
        try:
            if isinstance(start, tuple):
                offset = consumer.offsets_for_times([TopicPartition(topic, partition, start[1])], PATIENCE_S)[0].offset
            else:
                offset = {"beginning": confluent_kafka.OFFSET_BEGINNING, "end": confluent_kafka.OFFSET_END}.get(start, start)
            consumer.assign([TopicPartition(topic, partition, offset)])
            got, idle = [], 0
            while len(got) < count and idle < PATIENCE_S * 5:
                batch = consumer.consume(min(count - len(got), 10_000), 0.2)
                idle = 0 if batch else idle + 1
                for m in batch:
                    if m.error():
                        raise KafkaException(m.error())
                    got.append(record(m))
            return got
        finally:
            consumer.close()

    def _ask(self, ask, group="unused"):
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": group})
        try:
            return ask(consumer)
        finally:
            consumer.close()

    def bounds(self, topic, partition):
        return self._ask(lambda c: c.get_watermark_offsets(TopicPartition(topic, partition), PATIENCE_S))

    def offset_at(self, topic, partition, ms):
        return self._ask(lambda c: c.offsets_for_times([TopicPartition(topic, partition, ms)], PATIENCE_S)[0].offset)

    def committed(self, group, topic, partition):
        found = self._ask(lambda c: c.committed([TopicPartition(topic, partition)], PATIENCE_S), group)[0]
        return None if found.offset < 0 else (found.offset, found.metadata or "")

    def commit_plain(self, group, topic, partition, offset, metadata):
        place = TopicPartition(topic, partition, offset, metadata=metadata) if metadata else TopicPartition(topic, partition, offset)
        self._ask(lambda c: c.commit(offsets=[place], asynchronous=False), group)

    def member(self, group, topics, instance=None, session_ms=10_000):
        return Member(self.bootstrap, group, topics, instance, session_ms)


if __name__ == "__main__":
    main(Client, "confluent-kafka", f"{confluent_kafka.version()[0] if isinstance(confluent_kafka.version(), tuple) else confluent_kafka.version()} (librdkafka {confluent_kafka.libversion()[0]})")
