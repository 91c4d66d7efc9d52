"""kafka-python, the pure Python client that speaks the newest version of every client API."""

import kafka
from kafka import ConsumerRebalanceListener, KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.errors import CommitFailedError, MessageSizeTooLargeError, RebalanceInProgressError
from kafka.structs import OffsetAndMetadata

from scenarios import Cannot, In, PATIENCE_S, TooLarge, main

TOO_LARGE = tuple(e for e in (MessageSizeTooLargeError, getattr(kafka.errors, "RecordListTooLargeError", None)) if e)


def record(m):
    return In(m.partition, m.offset, m.timestamp, m.key, m.value, list(m.headers))


# Longer than a rebalance takes.
POLL_S = 4


class Member:
    def __init__(self, bootstrap, group, topics, instance, session_ms):
        more = {"group_instance_id": instance} if instance else {}
        self.rebalances = 0
        outer = self

        class Listener(ConsumerRebalanceListener):
            def on_partitions_revoked(self, revoked):
                pass

            def on_partitions_assigned(self, assigned):
                outer.rebalances += 1

        self.consumer = KafkaConsumer(
            bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
            session_timeout_ms=session_ms, heartbeat_interval_ms=500, max_poll_records=500, **more)
        # Without the topics' metadata at hand it assigns nothing at its first join and may keep rejoining for ever; seen
        # against Apache Kafka too, about one run in six.
        for topic in topics:
            self.consumer.partitions_for_topic(topic)
        self.consumer.subscribe(topics, listener=Listener())

    def poll(self, seconds):
        # If the time of a poll ends between JoinGroup and the answer to SyncGroup, kafka-python 3.0.12 loses the
        # assignment: the answer comes in on its IO thread, `need_rejoin` turns False, and no later poll applies it.
        # Nothing is fetched and no heartbeat sent. Its log then shows two answers to SyncGroup and one "Setting newly
        # assigned partitions". With polls of 0.2 s on a busy machine: 7 of 40 runs here, every answer of the broker
        # within 70 ms, and 4 of 30 against Apache Kafka 4.3.1; with 4 s none of 40. A poll ends as soon as it has
        # records, so a long one costs time only where none are due.
        found = self.consumer.poll(timeout_ms=int(max(seconds, POLL_S) * 1000))
        return [record(m) for part in found.values() for m in part]

    def assignment(self):
        return {(p.topic, p.partition) for p in self.consumer.assignment()}

    def commit(self):
        try:
            self.consumer.commit()
        except (CommitFailedError, RebalanceInProgressError):
            # A rebalance in between: the next owner reads again.
            pass

    def pause(self):
        self.consumer.pause(*self.consumer.assignment())

    def resume(self):
        self.consumer.resume(*self.consumer.assignment())

    def close(self):
        self.consumer.close(autocommit=False)


class Client:
    sends_nothing_at_all = False

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.admin = KafkaAdminClient(bootstrap_servers=bootstrap)
        self.producers = {}

    def cluster(self):
        consumer = KafkaConsumer(bootstrap_servers=self.bootstrap)
        try:
            consumer.topics()
            cluster = consumer._client.cluster
            return len(cluster.brokers()), getattr(cluster, "cluster_id", None) or "unknown to this client"
        finally:
            consumer.close()

    def create(self, topic, partitions, configs):
        self.admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=configs)])

    def delete(self, topic):
        self.admin.delete_topics([topic])

    def partitions(self, topic):
        return self._ask(lambda c: len(c.partitions_for_topic(topic) or []))

    def configs(self, topic):
        found = self.admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
        return flat_configs(found, topic)

    def headers_it_can(self, headers):
        # It refuses to send a null value.
        return [(key, value) for key, value in headers if value is not None]

    def produce(self, topic, records, acks="all", codec=None, idempotent=False):
        key = (acks, codec, idempotent)
        if key not in self.producers:
            self.producers[key] = KafkaProducer(
                bootstrap_servers=self.bootstrap, acks=acks, compression_type=codec, linger_ms=5, max_request_size=2_000_000,
                enable_idempotence=idempotent, delivery_timeout_ms=PATIENCE_S * 1000, request_timeout_ms=10_000)
        producer = self.producers[key]
        try:
            futures = [producer.send(topic, r.value, r.key, list(r.headers or []), r.partition, r.timestamp_ms) for r in records]
            producer.flush(PATIENCE_S)
            found = [f.get(PATIENCE_S) for f in futures]
        except TOO_LARGE:
            raise TooLarge
        return [m.offset if acks != 0 else None for m in found]

    def read(self, topic, partition, start, count):
        consumer = KafkaConsumer(bootstrap_servers=self.bootstrap, enable_auto_commit=False, group_id=None, max_poll_records=5000)
        place = TopicPartition(topic, partition)
        try:
            consumer.assign([place])
            if start == "beginning":
                consumer.seek_to_beginning(place)
            elif start == "end":
                consumer.seek_to_end(place)
            elif isinstance(start, tuple):
                consumer.seek(place, consumer.offsets_for_times({place: start[1]})[place].offset)
            else:
                consumer.seek(place, start)
            got, idle = [], 0
            while len(got) < count and idle < PATIENCE_S * 5:
                batch = consumer.poll(timeout_ms=200)
                idle = 0 if batch else idle + 1
                got.extend(record(m) for part in batch.values() for m in part)
            return got[:count]
        finally:
            consumer.close(autocommit=False)

    def _ask(self, ask, group=None):
        consumer = KafkaConsumer(bootstrap_servers=self.bootstrap, group_id=group, enable_auto_commit=False)
        try:
            return ask(consumer)
        finally:
            consumer.close(autocommit=False)

    def bounds(self, topic, partition):
        place = TopicPartition(topic, partition)
        return self._ask(lambda c: (c.beginning_offsets([place])[place], c.end_offsets([place])[place]))

    def offset_at(self, topic, partition, ms):
        place = TopicPartition(topic, partition)
        found = self._ask(lambda c: c.offsets_for_times({place: ms})[place])
        return found and found.offset

    def committed(self, group, topic, partition):
        found = self._ask(lambda c: c.committed(TopicPartition(topic, partition), metadata=True), group)
        return None if found is None or found.offset < 0 else (found.offset, found.metadata or "")

    def commit_plain(self, group, topic, partition, offset, metadata):
        def commit(consumer):
            consumer.assign([TopicPartition(topic, partition)])
            consumer.commit({TopicPartition(topic, partition): OffsetAndMetadata(offset, metadata, -1)})
        self._ask(commit, group)

    def member(self, group, topics, instance=None, session_ms=10_000):
        return Member(self.bootstrap, group, topics, instance, session_ms)


def flat_configs(found, topic):
    """The shape of this answer changed between releases: a list of replies, or dictionaries by resource."""
    if isinstance(found, dict):
        for key, value in found.items():
            if isinstance(value, dict):
                if topic in value:
                    return {n: getattr(c, "value", c.get("value") if isinstance(c, dict) else c) for n, c in value[topic].items()}
                return {n: getattr(c, "value", c.get("value") if isinstance(c, dict) else c) for n, c in value.items()}
    if isinstance(found, list) and found and hasattr(found[0], "resources"):
        (resource,) = found[0].resources
        return {entry[0]: entry[1] for entry in resource[4]}
    raise Cannot(f"unknown shape of describe_configs: {type(found)}")


if __name__ == "__main__":
    main(Client, "kafka-python", kafka.__version__)
