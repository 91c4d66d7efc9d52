"""aiokafka, driven from a thread that runs its event loop."""

import asyncio
import threading

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError, MessageSizeTooLargeError, for_code
from aiokafka.structs import OffsetAndMetadata

from scenarios import In, PATIENCE_S, TooLarge, main

LOOP = asyncio.new_event_loop()
threading.Thread(target=LOOP.run_forever, daemon=True).start()


def do(work):
    return asyncio.run_coroutine_threadsafe(work, LOOP).result(PATIENCE_S * 3)


def record(m):
    return In(m.partition, m.offset, m.timestamp, m.key, m.value, list(m.headers))


class Member:
    def __init__(self, bootstrap, group, topics, instance, session_ms):
        self.rebalances = 0
        do(self._start(bootstrap, group, topics, instance, session_ms))

    async def _start(self, bootstrap, group, topics, instance, session_ms):
        outer = self

        class Listener(ConsumerRebalanceListener):
            def on_partitions_revoked(self, revoked):
                pass

            def on_partitions_assigned(self, assigned):
                outer.rebalances += 1

        self.consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
            session_timeout_ms=session_ms, heartbeat_interval_ms=500, group_instance_id=instance, metadata_max_age_ms=2_000)
        self.consumer.subscribe(topics, listener=Listener())
        await self.consumer.start()

    def poll(self, seconds):
        found = do(self.consumer.getmany(timeout_ms=int(seconds * 1000), max_records=500))
        return [record(m) for part in found.values() for m in part]

    def assignment(self):
        return {(p.topic, p.partition) for p in self.consumer.assignment()}

    def commit(self):
        try:
            do(self.consumer.commit())
        except (CommitFailedError, IllegalStateError):
            # A rebalance in between: the next owner reads again.
            pass

    def pause(self):
        do(self._pause(True))

    def resume(self):
        do(self._pause(False))

    async def _pause(self, on):
        (self.consumer.pause if on else self.consumer.resume)(*self.consumer.assignment())

    def close(self):
        do(self.consumer.stop())


class Client:
    sends_nothing_at_all = False

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.producers = {}

    def _admin(self, work):
        async def run():
            admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
            await admin.start()
            try:
                return await work(admin)
            finally:
                await admin.close()
        return do(run())

    def cluster(self):
        return self._ask(self._cluster)

    async def _cluster(self, consumer):
        await consumer.topics()
        cluster = consumer._client.cluster
        return len(cluster.brokers()), getattr(cluster, "cluster_id", None) or "unknown to this client"

    def create(self, topic, partitions, configs):
        reply = self._admin(lambda a: a.create_topics([NewTopic(topic, partitions, 1, topic_configs=configs)]))
        for entry in reply.topic_errors:
            if entry[1]:
                raise for_code(entry[1])(f"{topic}: {entry}")

    def delete(self, topic):
        reply = self._admin(lambda a: a.delete_topics([topic]))
        for _, code in reply.topic_error_codes:
            if code:
                raise for_code(code)(topic)

    def partitions(self, topic):
        async def ask(consumer):
            cluster = await consumer._client.fetch_all_metadata()
            return len(cluster.partitions_for_topic(topic) or [])
        return self._ask(ask)

    def configs(self, topic):
        (reply,) = self._admin(lambda a: a.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)]))
        (resource,) = reply.resources
        assert resource[0] == 0, resource[:2]
        return {entry[0]: entry[1] for entry in resource[4]}

    def headers_it_can(self, headers):
        return headers

    def produce(self, topic, records, acks="all", codec=None, idempotent=False):
        return do(self._produce(topic, records, acks, codec, idempotent))

    async def _produce(self, topic, records, acks, codec, idempotent):
        key = (acks, codec, idempotent)
        if key not in self.producers:
            producer = AIOKafkaProducer(
                bootstrap_servers=self.bootstrap, acks=acks, compression_type=codec, linger_ms=5, max_request_size=2_000_000,
                max_batch_size=100_000, enable_idempotence=idempotent, request_timeout_ms=PATIENCE_S * 1000)
            await producer.start()
            self.producers[key] = producer
        producer = self.producers[key]
        try:
            futures = []
            for r in records:
                futures.append(await producer.send(topic, r.value, r.key, r.partition, r.timestamp_ms, list(r.headers or [])))
            await producer.flush()
            found = [await f for f in futures]
        except MessageSizeTooLargeError:
            raise TooLarge
        return [m.offset if acks != 0 else None for m in found]

    def read(self, topic, partition, start, count):
        async def read(consumer):
            place = TopicPartition(topic, partition)
            consumer.assign([place])
            if start == "beginning":
                await consumer.seek_to_beginning(place)
            elif start == "end":
                await consumer.seek_to_end(place)
            elif isinstance(start, tuple):
                consumer.seek(place, (await consumer.offsets_for_times({place: start[1]}))[place].offset)
            else:
                consumer.seek(place, start)
            got, idle = [], 0
            while len(got) < count and idle < PATIENCE_S * 5:
                batch = await consumer.getmany(timeout_ms=200, max_records=count - len(got))
                idle = 0 if batch else idle + 1
                got.extend(record(m) for part in batch.values() for m in part)
            return got
        return self._ask(read)

    def _ask(self, work, group=None):
        async def run():
            consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, group_id=group, enable_auto_commit=False)
            await consumer.start()
            try:
                return await work(consumer)
            finally:
                await consumer.stop()
        return do(run())

    def bounds(self, topic, partition):
        place = TopicPartition(topic, partition)

        async def ask(consumer):
            return (await consumer.beginning_offsets([place]))[place], (await consumer.end_offsets([place]))[place]
        return self._ask(ask)

    def offset_at(self, topic, partition, ms):
        place = TopicPartition(topic, partition)

        async def ask(consumer):
            found = (await consumer.offsets_for_times({place: ms}))[place]
            return found and found.offset
        return self._ask(ask)

    def committed(self, group, topic, partition):
        place = TopicPartition(topic, partition)

        async def ask(admin):
            return (await admin.list_consumer_group_offsets(group, partitions=[place]))[place]
        found = self._admin(ask)
        return None if found.offset < 0 else (found.offset, found.metadata or "")

    def commit_plain(self, group, topic, partition, offset, metadata):
        place = TopicPartition(topic, partition)

        async def commit(consumer):
            consumer.assign([place])
            await consumer.commit({place: OffsetAndMetadata(offset, metadata)})
        self._ask(commit, group)

    def member(self, group, topics, instance=None, session_ms=10_000):
        return Member(self.bootstrap, group, topics, instance, session_ms)


if __name__ == "__main__":
    main(Client, "aiokafka", aiokafka.__version__)
