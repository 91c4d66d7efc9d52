"""Scenarios that every client library runs against a broker, each with topics of its own.

A driver (confluent.py, kafkapython.py, aio.py) wraps one library in the small interface below and calls `main`.
One JSON line comes out: {client, version, scenario, result: pass|fail|cannot, ms, note}. `cannot` = the library has no
such function, which the driver says by raising Cannot with the reason.

Interface: cluster() -> (brokers, cluster_id) · create(topic, partitions, configs) · delete(topic) · partitions(topic)
· configs(topic) -> {name: value} · produce(topic, [Out], acks, codec, idempotent) -> [offset or None], raises TooLarge
sends_nothing_at_all: a record without key and value is possible
· read(topic, partition, start, count) -> [In], start = "beginning" | "end" | offset | ("time", ms)
· bounds(topic, partition) -> (first, end) · offset_at(topic, partition, ms) -> offset or None
· committed(group, topic, partition) -> (offset, metadata) or None · commit_plain(group, topic, partition, offset, metadata)
· member(group, topics, instance=None, session_ms=...) -> Member with poll(seconds) -> [In], assignment() -> {(t, p)},
  commit(), pause(), resume(), close(), rebalances (a count).
"""

import argparse
import json
import os
import random
import sys
import threading
import time
import traceback
from collections import namedtuple

Out = namedtuple("Out", "key value headers timestamp_ms partition", defaults=(None, None, None, None, 0))
In = namedtuple("In", "partition offset timestamp_ms key value headers")

PATIENCE_S = 30
LARGE = 900 * 1024


class Cannot(Exception):
    """The library has no such function."""


class TooLarge(Exception):
    """The broker or the library refused a record for its size."""


def wait(what, condition, seconds=PATIENCE_S):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


class Run:
    def __init__(self, client, seed):
        self.client = client
        self.random = random.Random(seed)
        self.made = 0

    def name(self, prefix):
        self.made += 1
        return f"{prefix}-{os.getpid()}-{int(time.time() * 1000) % 10**9}-{self.made}"

    def topic(self, prefix, partitions=1, configs=None):
        topic = self.name(prefix)
        self.client.create(topic, partitions, configs or {})
        return topic

    def values(self, n, size=20):
        return [f"{i}-".encode() + self.random.randbytes(size).hex().encode() for i in range(n)]


def k01_connect(run):
    brokers, cluster_id = run.client.cluster()
    assert brokers == 1, brokers
    assert cluster_id, "a cluster id"


def k02_create_describe_configs(run):
    topic = run.topic("k02", 3, {"cleanup.policy": "compact", "retention.ms": "3600000"})
    wait("three partitions", lambda: run.client.partitions(topic) == 3)
    configs = run.client.configs(topic)
    assert configs["cleanup.policy"] == "compact", configs["cleanup.policy"]
    assert configs["retention.ms"] == "3600000"
    assert len(configs) >= 25, len(configs)
    run.client.delete(topic)


def k03_auto_create(run):
    topic = run.name("k03")
    values = run.values(10)
    run.client.produce(topic, [Out(value=v) for v in values])
    assert [r.value for r in run.client.read(topic, 0, "beginning", 10)] == values


def produce_consume(run, acks, n):
    topic = run.topic("k04")
    values = run.values(n)
    offsets = run.client.produce(topic, [Out(key=b"k", value=v) for v in values], acks=acks)
    if acks != 0:
        assert offsets == list(range(n)), "offsets in the order of sending"
    got = run.client.read(topic, 0, "beginning", n)
    assert [r.value for r in got] == values
    assert [r.offset for r in got] == list(range(n))
    assert run.client.bounds(topic, 0) == (0, n)


def k04_acks_0(run):
    produce_consume(run, 0, 2000)


def k04_acks_1(run):
    produce_consume(run, 1, 2000)


def k04_acks_all(run):
    produce_consume(run, "all", 10000)


def codec(run, name):
    topic = run.topic(f"k05-{name}")
    values = [b"", b"\x00\xff" * 50, b"a" * 100_000] + run.values(500, 100)
    run.client.produce(topic, [Out(value=v) for v in values], codec=name)
    assert [r.value for r in run.client.read(topic, 0, "beginning", len(values))] == values


def k05_gzip(run):
    codec(run, "gzip")


def k06_snappy(run):
    codec(run, "snappy")


def k07_lz4(run):
    codec(run, "lz4")


def k08_zstd(run):
    codec(run, "zstd")


def k09_headers(run):
    topic = run.topic("k09")
    headers = [("same", b"1"), ("same", b"2"), ("null", None), ("", b""), ("binary", bytes(range(256))), ("same", b"1")]
    headers = run.client.headers_it_can(headers)
    run.client.produce(topic, [Out(value=b"v", headers=headers)])
    (got,) = run.client.read(topic, 0, "beginning", 1)
    assert list(got.headers) == headers, got.headers


def k10_nulls_and_sizes(run):
    topic = run.topic("k10")
    large = run.random.randbytes(LARGE)
    out = [Out(None, b"v"), Out(b"k", None), Out(b"", b""), Out(b"large", large)]
    if run.client.sends_nothing_at_all:
        out.append(Out(None, None))
    run.client.produce(topic, out)
    got = run.client.read(topic, 0, "beginning", len(out))
    assert [(r.key, r.value) for r in got] == [(o.key, o.value) for o in out]
    try:
        run.client.produce(topic, [Out(None, run.random.randbytes(1_100_000))])
    except TooLarge:
        pass
    else:
        raise AssertionError("1.1 MB was accepted")
    assert run.client.bounds(topic, 0) == (0, len(out))


def k11_idempotent(run):
    topic = run.topic("k11")
    values = run.values(5000)
    run.client.produce(topic, [Out(value=v) for v in values], idempotent=True)
    assert [r.value for r in run.client.read(topic, 0, "beginning", len(values))] == values
    assert run.client.bounds(topic, 0) == (0, len(values)), "no duplicate"


def k12_seek(run):
    topic = run.topic("k12")
    start = int(time.time() * 1000) - 1_000_000
    values = run.values(300)
    run.client.produce(topic, [Out(value=v, timestamp_ms=start + 10 * i) for i, v in enumerate(values)])
    read = lambda at, n: [(r.offset, r.value) for r in run.client.read(topic, 0, at, n)]
    all_ = list(enumerate(values))
    assert read("beginning", 300) == all_
    assert read(123, 177) == all_[123:], "from inside a batch"
    assert read(299, 1) == all_[299:]
    assert read(("time", start + 1000), 5) == all_[100:105]
    assert read(("time", start + 1001), 5) == all_[101:106]
    (first,) = run.client.read(topic, 0, ("time", start + 1000), 1)
    assert first.timestamp_ms == start + 1000


def k13_offsets(run):
    topic = run.topic("k13")
    assert run.client.bounds(topic, 0) == (0, 0)
    start = int(time.time() * 1000) - 1_000_000
    run.client.produce(topic, [Out(value=b"x", timestamp_ms=start + i) for i in range(50)])
    assert run.client.bounds(topic, 0) == (0, 50)
    assert run.client.offset_at(topic, 0, start - 5) == 0
    assert run.client.offset_at(topic, 0, start + 7) == 7
    assert run.client.offset_at(topic, 0, start + 1000) in (None, -1, 50)


class Reader(threading.Thread):
    """A group member polled in a thread of its own; `seen` collects what it read."""

    def __init__(self, run, group, topic, commit=True, **more):
        super().__init__(daemon=True)
        self.member = run.client.member(group, [topic], **more)
        self.seen, self.done, self.error, self.commit = [], threading.Event(), None, commit
        self.owned = set()
        self.start()

    def run(self):
        try:
            while not self.done.is_set():
                got = self.member.poll(0.1)
                self.seen.extend(got)
                # Only this thread talks to the member: not every library may be asked from two.
                self.owned = self.member.assignment()
                if got and self.commit:
                    self.member.commit()
            self.member.close()
        except Exception as e:  # noqa: BLE001
            self.error = e

    def assignment(self):
        if self.error:
            raise self.error
        return self.owned

    def stop(self):
        self.done.set()
        self.join(PATIENCE_S)
        assert not self.is_alive(), "close hangs"
        if self.error:
            raise self.error


def spread(readers, topic, partitions):
    """Every partition is owned once."""
    owned = [r.assignment() for r in readers]
    whole = {(topic, p) for p in range(partitions)}
    return all(owned) and set().union(*owned) == whole and sum(map(len, owned)) == partitions


def k14_group_of_three(run):
    topic, group = run.topic("k14", 6), run.name("g")
    readers = [Reader(run, group, topic) for _ in range(3)]
    wait("three members share six partitions", lambda: spread(readers, topic, 6))
    assert sorted(len(r.assignment()) for r in readers) == [2, 2, 2]
    values = run.values(300)
    run.client.produce(topic, [Out(value=v, partition=i % 6) for i, v in enumerate(values)])
    seen = lambda: sorted(r.value for reader in readers for r in reader.seen)
    wait("all records arrive", lambda: len(seen()) >= 300)
    assert seen() == sorted(values), "each record once"
    readers.pop().stop()
    wait("two members take over", lambda: spread(readers, topic, 6))
    more = run.values(60)
    run.client.produce(topic, [Out(value=v, partition=i % 6) for i, v in enumerate(more)])
    wait("all records arrive at the two", lambda: set(more) <= {r.value for reader in readers for r in reader.seen})
    for reader in readers:
        reader.stop()


def k15_commit_and_resume(run):
    topic, group = run.topic("k15"), run.name("g")
    values = run.values(200)
    run.client.produce(topic, [Out(value=v) for v in values])
    first = run.client.member(group, [topic])
    seen = []
    wait("the first half", lambda: seen.extend(first.poll(0.2)) or len(seen) >= 100)
    assert [r.value for r in seen] == values[: len(seen)]
    first.commit()
    first.close()
    assert run.client.committed(group, topic, 0)[0] == len(seen)
    second = run.client.member(group, [topic])
    rest = []
    more = run.values(20)
    run.client.produce(topic, [Out(value=v) for v in more])
    wait("the rest", lambda: rest.extend(second.poll(0.2)) or len(rest) >= 220 - len(seen))
    assert [r.value for r in rest] == (values + more)[len(seen):], "resumes where it stopped"
    second.close()


def k16_static_member(run):
    topic, group = run.topic("k16", 4), run.name("g")
    one = Reader(run, group, topic, instance="i-1")
    two = Reader(run, group, topic, instance="i-2")
    readers = [one, two]
    wait("both own two", lambda: spread(readers, topic, 4))
    mine, before = one.assignment(), two.member.rebalances
    one.stop()
    one = Reader(run, group, topic, instance="i-1")
    wait("the same assignment again", lambda: one.assignment() == mine)
    assert two.member.rebalances == before, "no rebalance"
    one.stop()
    two.stop()


def k17_manual_commit_with_metadata(run):
    topic, group = run.topic("k17"), run.name("g")
    assert run.client.committed(group, topic, 0) is None
    run.client.commit_plain(group, topic, 0, 42, "märk")
    assert run.client.committed(group, topic, 0) == (42, "märk")
    run.client.commit_plain(group, topic, 0, 7, "")
    assert run.client.committed(group, topic, 0)[0] == 7


def k18_pause_and_resume(run):
    topic, group = run.topic("k18"), run.name("g")
    run.client.produce(topic, [Out(value=v) for v in run.values(10)])
    member = run.client.member(group, [topic])
    seen = []
    wait("ten records", lambda: seen.extend(member.poll(0.2)) or len(seen) == 10)
    member.pause()
    run.client.produce(topic, [Out(value=b"later")])
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        assert member.poll(0.1) == [], "paused"
    member.resume()
    wait("the eleventh", lambda: seen.extend(member.poll(0.2)) or len(seen) == 11)
    member.close()


def k19_rebalance_while_committing(run):
    topic, group = run.topic("k19", 4), run.name("g")
    stop, sent = threading.Event(), []

    def feed():
        while not stop.is_set():
            values = run.values(20)
            run.client.produce(topic, [Out(value=v, partition=i % 4) for i, v in enumerate(values)])
            sent.extend(values)
            time.sleep(0.05)

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    readers, gone = [Reader(run, group, topic)], []
    try:
        for step in range(4):
            readers.append(Reader(run, group, topic))
            wait("shared", lambda: spread(readers, topic, 4))
            if step % 2:
                gone.append(readers.pop(0))
                gone[-1].stop()
    finally:
        stop.set()
        feeder.join(PATIENCE_S)
    # At least once: close() commits nothing of itself here, so a record may come twice, never not at all.
    wait("every record was read", lambda: set(sent) <= {r.value for reader in readers + gone for r in reader.seen})
    for reader in readers:
        reader.stop()
    for partition in range(4):
        end = run.client.bounds(topic, partition)[1]
        assert run.client.committed(group, topic, partition)[0] == end, "committed to the end"


def k32_delete_and_create_again(run):
    topic = run.topic("k32")
    run.client.produce(topic, [Out(value=b"old")])
    run.client.delete(topic)
    wait("the name is free", lambda: created(run, topic))
    run.client.produce(topic, [Out(value=b"new")])
    assert [r.value for r in run.client.read(topic, 0, "beginning", 1)] == [b"new"]


def created(run, topic):
    try:
        run.client.create(topic, 1, {})
        return True
    except Exception:  # noqa: BLE001
        return False


def k34_log_append_time(run):
    topic = run.topic("k34", 1, {"message.timestamp.type": "LogAppendTime"})
    before = int(time.time() * 1000)
    run.client.produce(topic, [Out(value=b"v", timestamp_ms=1_000_000)])
    (got,) = run.client.read(topic, 0, "beginning", 1)
    assert before - 1 <= got.timestamp_ms <= int(time.time() * 1000) + 1


def k42_restart_in_the_middle(run):
    """The caller kills and restarts the broker while this runs; `running` on standard output says when it may."""
    topic = run.topic("k42")
    acked, end = [], time.monotonic() + 6
    print("running", flush=True)
    while time.monotonic() < end:
        values = run.values(50)
        try:
            run.client.produce(topic, [Out(value=v) for v in values], idempotent=True)
        except Exception as e:  # noqa: BLE001
            print("not acknowledged:", e, file=sys.stderr)
            continue
        acked.extend(values)
    first, last = wait("the broker is back", lambda: bounds_or_none(run, topic))
    got = [r.value for r in run.client.read(topic, 0, "beginning", last - first)]
    missing = set(acked) - set(got)
    assert not missing, f"{len(missing)} of {len(acked)} acknowledged records are lost"
    positions = {v: i for i, v in enumerate(got)}
    order = [positions[v] for v in acked]
    assert order == sorted(order), "in order"
    print("acknowledged:", len(acked), file=sys.stderr)


def bounds_or_none(run, topic):
    try:
        return run.client.bounds(topic, 0)
    except Exception:  # noqa: BLE001
        return None


SCENARIOS = {name: f for name, f in list(globals().items()) if name[0] == "k" and name[1:3].isdigit()}


def main(make, name, version):
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--scenario", required=True, help="a name of scenarios.py, or `all`")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    names = sorted(SCENARIOS) if args.scenario == "all" else [args.scenario]
    bad = 0
    for scenario in names:
        start, note, result = time.monotonic(), "", "pass"
        try:
            SCENARIOS[scenario](Run(make(args.bootstrap), args.seed))
        except Cannot as e:
            result, note = "cannot", str(e)
        except BaseException as e:  # noqa: BLE001
            result, note = "fail", f"{type(e).__name__}: {e}"
            traceback.print_exc()
            bad = 1
        ms = int((time.monotonic() - start) * 1000)
        line = {"client": name, "version": version, "scenario": scenario, "result": result, "ms": ms, "note": note}
        print(json.dumps(line), flush=True)
    # Threads of a failed scenario must not keep the process.
    os._exit(bad)
