"""Records of internal topics and record headers, decoded by docs/formats/*.md alone. Standard library only.

Every function takes key and value of one record (bytes or None) and gives plain dictionaries; `Wrong` if the page does not
allow the bytes.
"""

import hashlib
import json

from sums import Cursor, Wrong

CAPTURES, CUTS, AUDIT = "__catchwater_captures", "__catchwater_cuts", "__catchwater_audit"
PARKED, OFFSETS = "__catchwater_parked", "__consumer_offsets"


class _Fields(Cursor):
    """Big-endian fields as the record pages name them."""

    def __init__(self, data):
        super().__init__(data, ">")

    # Not flexible: cluster and task keys, group records.
    def string(self):
        n = self.i16()
        return None if n < 0 else self.take(n).decode()

    def bytes32(self):
        n = self.i32()
        return None if n < 0 else self.take(n)

    def array(self, read):
        return [read() for _ in range(self.i32())]

    # Flexible: cluster and task values, version 4 of group values.
    def cbytes(self):
        n = self.uvarint()
        return None if n == 0 else self.take(n - 1)

    def cstring(self):
        data = self.cbytes()
        return None if data is None else data.decode()

    def carray(self, read):
        return [read() for _ in range(self.uvarint() - 1)]

    def tags(self):
        last = -1
        for _ in range(self.uvarint()):
            tag = self.uvarint()
            if tag <= last:
                raise Wrong("tag %d after %d" % (tag, last))
            last = tag
            self.take(self.uvarint())

    def struct(self, **fields):
        out = {name: read() for name, read in fields.items()}
        self.tags()
        return out

    # Packed: checkpoints, cuts, parked keys.
    def text(self):
        return self.take(self.u32()).decode()

    def blob(self):
        return self.take(self.u32())

    def text16(self):
        return self.take(self.u16()).decode()

    def many(self, read):
        return [read() for _ in range(self.u32())]

    def uuid(self):
        return self.hex(16)


# --- group 0: docs/formats/cluster-records.md, task-records.md -----------------------------------------------------------


def cluster(key, value):
    """One record of group 0; `None` for a kind this page does not know."""
    k = _Fields(key)
    kind = k.i16()
    if kind not in _CLUSTER:
        return None
    name, read_key, read_value = _CLUSTER[kind]
    out = {"record": name, "key": read_key(k)}
    k.end()
    out["value"] = None
    if value is not None:
        v = _Fields(value)
        v.expect("version", v.i16(), 0)
        out["value"] = read_value(v)
        v.end()
    return out


def _named(k):
    return {"name": k.string()}


_CLUSTER = {
    1: ("CLUSTER", lambda k: {}, lambda v: v.struct(cluster_id=v.uuid, founded_ms=v.i64)),
    2: ("FEATURE", _named, lambda v: v.struct(level=v.i16)),
    3: (
        "BROKER",
        lambda k: {"node": k.i32()},
        lambda v: v.struct(
            process=v.uuid,
            epoch=v.i64,
            roles=v.i32,
            rack=v.cstring,
            listeners=lambda: v.carray(lambda: v.struct(name=v.cstring, host=v.cstring, port=v.u16)),
            dirs=lambda: v.carray(v.uuid),
        ),
    ),
    4: (
        "TOPIC",
        lambda k: {"topic_id": k.uuid()},
        lambda v: v.struct(
            name=v.cstring,
            created_ms=v.i64,
            owner=v.i8,
            capture=v.i64,
            capture_epoch=v.i32,
            partitions=lambda: v.carray(lambda: v.struct(gid=v.i64, replicas=lambda: v.carray(v.i32))),
        ),
    ),
    5: (
        "CONFIG",
        lambda k: {"resource": k.i8(), "name": k.string()},
        lambda v: v.struct(entries=lambda: v.carray(lambda: v.struct(key=v.cstring, value=v.cstring))),
    ),
    6: ("PRODUCER_IDS", lambda k: {}, lambda v: v.struct(next=v.i64, node=v.i32)),
    7: ("SOURCE", _named, lambda v: v.struct(capture=v.i64, incarnation=v.u16)),
    8: (
        "PIPELINE",
        _named,
        lambda v: v.struct(
            revision=v.i64,
            running=v.i8,
            text=v.cstring,
            captures=lambda: v.carray(lambda: v.struct(node=v.cstring, capture=v.i64)),
            sinks=lambda: v.carray(lambda: v.struct(node=v.cstring)),
        ),
    ),
    9: ("COUNTERS", lambda k: {}, lambda v: v.struct(gid=v.i64, capture=v.i64, task=v.i64)),
    10: (
        "REVISION",
        lambda k: {"name": k.string(), "revision": k.i64()},
        lambda v: v.struct(
            applied_ms=v.i64, text=v.cstring, base_dir=v.cstring, author=v.cstring, message=v.cstring
        ),
    ),
    64: (
        "TASK",
        lambda k: {"task": k.i64()},
        lambda v: v.struct(
            kind=v.i8,
            capture=v.i64,
            pipeline=v.cstring,
            node=v.cstring,
            revision=v.i64,
            wish=v.i8,
            epoch=v.i32,
            holder=v.i32,
            process=v.uuid,
        ),
    ),
    65: (
        "TASK_STATUS",
        lambda k: {"task": k.i64()},
        lambda v: v.struct(epoch=v.i32, state=v.i8, code=v.u16, at_ms=v.i64, progress=lambda: v.cbytes().hex()),
    ),
}


# --- __consumer_offsets: docs/formats/group-records.md -------------------------------------------------------------------


def group_partition(group):
    """The partition of `__consumer_offsets` a group lives in."""
    units, h = group.encode("utf-16-be"), 0
    for n in range(0, len(units), 2):
        h = (31 * h + int.from_bytes(units[n : n + 2], "big")) & 0xFFFFFFFF
    h -= (h & 0x80000000) << 1
    return (0 if h == -0x80000000 else abs(h)) % 50


def group(key, value):
    """One record of `__consumer_offsets`; `None` for a kind the page does not know."""
    k = _Fields(key)
    kind = k.i16()
    if kind in (0, 1):
        out = {"record": "OffsetCommit", "group": k.string(), "topic": k.string(), "partition": k.i32()}
    elif kind == 2:
        out = {"record": "GroupMetadata", "group": k.string()}
    else:
        return None
    k.end()
    out["value"] = None
    if value is not None:
        v = _Fields(value)
        version = v.i16()
        out["value"] = _commit(v, version) if kind < 2 else _metadata(v, version)
        v.end()
    return out


def _commit(v, version):
    if version == 3:
        out = {"offset": v.i64(), "leader_epoch": v.i32(), "metadata": v.string(), "commit_timestamp": v.i64()}
    elif version == 1:
        out = {"offset": v.i64(), "metadata": v.string(), "commit_timestamp": v.i64(), "expire_timestamp": v.i64()}
    else:
        raise Wrong("OffsetCommit version %d is never written" % version)
    return out


def _metadata(v, version):
    v.expect("version", version, 3)
    out = {"protocol_type": v.string(), "generation": v.i32(), "protocol": v.string(), "leader": v.string()}
    out["current_state_timestamp"] = v.i64()
    out["members"] = v.array(
        lambda: {
            "member_id": v.string(),
            "group_instance_id": v.string(),
            "client_id": v.string(),
            "client_host": v.string(),
            "rebalance_timeout": v.i32(),
            "session_timeout": v.i32(),
            "subscription": v.bytes32().hex(),
            "assignment": v.bytes32().hex(),
        }
    )
    return out


# --- __catchwater_captures: docs/formats/checkpoint.md -------------------------------------------------------------------


def checkpoint(key, value):
    """One record of `__catchwater_captures`."""
    k = _Fields(key)
    out = {"source": k.u64()}
    kind = k.u8()
    names = {1: "CHECKPOINT", 2: "CONFIG", 3: "CHUNK", 4: "TABLE", 5: "IDENTITY", 6: "SIGNALS"}
    if kind not in names:
        raise Wrong("checkpoint kind %d is unknown" % kind)
    out["record"] = names[kind]
    if kind == 2:
        out["version"] = k.u32()
    elif kind == 3:
        out.update(snapshot=k.u32(), table=k.u32(), unit=k.u32())
    elif kind == 4:
        out["schema"] = k.u32()
    k.end()
    out["value"] = None
    if value is not None:
        v = _Fields(value)
        v.expect("format", v.u8(), 1)
        out["value"] = {1: _position, 2: _config, 3: _chunk, 4: _schema, 5: _identity, 6: _signals}[kind](v)
        v.end()
    return out


def _place(v):
    return v.many(lambda: {"topic_id": v.uuid(), "partition": v.u32(), "end": v.u64()})


def _position(v):
    out = {"incarnation": v.u16(), "commit_seq": v.u64(), "native": v.blob().hex()}
    out.update(config_version=v.u32(), emit_version=v.u32(), commit_us=v.i64(), ends=_place(v))
    return out


def _config(v):
    out = {"incarnation": v.u16(), "valid_from": v.u64(), "emit_version": v.u32(), "revision": v.u64()}
    out.update(pipeline=v.text(), source=v.text())
    out["topics"] = v.many(lambda: {"topic_id": v.uuid(), "partitions": v.u32()})
    return out


def _chunk(v):
    out = {"state": ["planned", "open", "finished", "given up"][v.u8()], "method": ["exported", "chunked"][v.u8()]}
    out.update(flags=v.u8(), incarnation=v.u16(), commit_seq=v.u64(), schema=v.u32(), rows=v.u64())
    out.update(lower=v.many(v.text), upper=v.many(v.text))
    view = _Fields(v.blob())
    kind = view.u8() if view.left() else None
    if kind is None:
        out["view"] = None
    elif kind == 0:
        out["view"] = {"exported": True}
    elif kind == 1:
        out["view"] = {"xmin": view.u64(), "xmax": view.u64(), "xids": view.many(view.u64), "place": view.blob().hex()}
    elif kind == 2:
        out["view"] = {"native": view.blob().hex()}
    else:
        raise Wrong("view %d is unknown" % kind)
    view.end()
    out["filter"] = v.text()
    return out


def _schema(v):
    out = {"table": v.u32(), "incarnation": v.u16(), "commit_seq": v.u64(), "ordinal": v.u48(), "flags": v.u16()}
    out.update(fingerprint=v.hex(16), native_id=v.u64(), identity=chr(v.u8()), key_from=v.u8())
    out.update(database=v.text(), schema=v.text(), name=v.text(), comment=v.text(), topic_id=v.uuid())
    out["columns"] = v.many(lambda: _column(v))
    out["key"] = v.many(v.u16)
    out["unique"] = v.many(lambda: {"name": v.text(), "columns": v.many(v.u16)})
    return out


def _column(v):
    out = {"id": v.u32(), "flags": v.u16(), "name": v.text(), "native_type": v.text(), "native_type_id": v.u32()}
    out.update(modifier=v.i32(), type=_type(v, 0), default=v.text(), collation=v.text(), charset=v.text())
    out["comment"] = v.text()
    if out["flags"] >> 7 & 1:
        out["old"] = v.text()
    return out


def _type(v, depth):
    if depth > 8:
        raise Wrong("a type nested deeper than 8")
    out = {"tag": v.u8(), "a": v.u32(), "b": v.i32(), "labels": v.many(v.text)}
    out["parts"] = v.many(lambda: {"name": v.text(), "type": _type(v, depth + 1)})
    return out


def _identity(v):
    out = {"incarnation": v.u16(), "system": v.u8()}
    out["tags"] = v.many(lambda: (v.u8(), v.blob().hex()))
    if [t for t, _ in out["tags"]] != sorted({t for t, _ in out["tags"]}):
        raise Wrong("identity tags do not ascend")
    return out


def _signals(v):
    return {"incarnation": v.u16(), "next": _place(v)}


def source_partition(key, partitions=16):
    """The partition of a source's records: murmur2 of the source id's 8 bytes."""
    return (_murmur2(key[:8]) & 0x7FFFFFFF) % partitions


def _murmur2(data):
    # Source: org.apache.kafka.common.utils.Utils.murmur2.
    m, h, mask = 0x5BD1E995, 0x9747B28C ^ len(data), 0xFFFFFFFF
    for n in range(0, len(data) & ~3, 4):
        k = int.from_bytes(data[n : n + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = h * m & mask ^ k
    tail = data[len(data) & ~3 :]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


# --- __catchwater_cuts: docs/formats/cuts.md -----------------------------------------------------------------------------


def cut(key, value):
    k = _Fields(key)
    out = {"source": k.u64()}
    k.end()
    v = _Fields(value)
    v.expect("format", v.u8(), 1)
    out.update(incarnation=v.u16(), commit_seq=v.u64(), native=v.blob().hex(), commit_us=v.i64(), wall_us=v.i64())
    out.update(full=v.u8(), ends=_place(v))
    v.end()
    return out


# --- __catchwater_parked: docs/formats/parked.md --------------------------------------------------------------------------


def parked(key, value):
    k = _Fields(key)
    k.expect("format", k.u8(), 1)
    out = {"pipeline": k.text16(), "sink": k.text16(), "source": k.text16(), "table": k.text16(), "key": k.hex(16)}
    k.end()
    out["value"] = None
    if value is not None:
        v = _Fields(value)
        v.expect("format", v.u8(), 1)
        out["value"] = {"version": row_version(v), "code": v.u16()}
        v.end()
    return out


# --- __catchwater_audit: docs/formats/audit.md ----------------------------------------------------------------------------


class Audit:
    """The chain of audit records; `read` takes them in order."""

    FIELDS = {
        1: ["version", "at_ms", "who", "action", "on", "before", "after", "decision", "prev"],
        2: ["version", "at_ms", "who", "action", "on", "before", "after", "decision", "from", "prev"],
    }

    def __init__(self):
        self.prev = ""

    def read(self, key, value):
        if key is not None:
            raise Wrong("an audit record with a key")
        out = json.loads(value)
        if list(out) != self.FIELDS.get(out.get("version")):
            raise Wrong("audit fields %r" % list(out))
        if json.dumps(out, separators=(",", ":"), ensure_ascii=False).encode() != value:
            raise Wrong("an audit record is not in its plain form")
        if out["prev"] != self.prev:
            raise Wrong("the audit chain is broken: %s after %s" % (out["prev"], self.prev))
        self.prev = hashlib.sha256(value).hexdigest()
        return out


# --- record headers of captured records: docs/formats/stamp.md -----------------------------------------------------------


def row_version(v):
    return {"incarnation": v.u16(), "commit_seq": v.u64(), "ordinal": v.u48()}


def stamp(data):
    """`cw.stamp`."""
    v = _Fields(data)
    v.expect("version", v.u8(), 1)
    out = {"op": chr(v.u8()), "flags": v.u16(), "version": row_version(v), "total": v.u32()}
    out.update(source=v.u64(), commit_us=v.i64(), schema=v.u32())
    if out["op"] not in "cudrtmsbx":
        raise Wrong("op %r" % out["op"])
    if out["flags"] >> 10:
        raise Wrong("stamp flags %#x" % out["flags"])
    out["native"] = v.hex(v.u8())
    n = v.u8()
    out["txn"] = out["native"] if n == 255 else v.hex(n)
    v.end()
    return out


def exact(data):
    """`cw.exact`."""
    v = _Fields(data)
    v.expect("version", v.u8(), 1)
    out = []
    while v.left():
        side = v.u8()
        one = {"after": bool(side & 1), "mark": ["text", "not sent", "not captured", "null"][side >> 1]}
        one.update(column=v.u16(), text=v.text())
        out.append(one)
    return out


def form(data):
    """`cw.form`."""
    v = _Fields(data)
    v.expect("version", v.u8(), 1)
    out = {n: v.u8() for n in ("decimal", "time", "binary", "hstore", "interval", "money_digits")}
    v.end()
    return out


HEADERS = {"cw.stamp": stamp, "cw.exact": exact, "cw.form": form}
