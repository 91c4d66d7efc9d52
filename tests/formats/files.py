"""Every file of a data directory, decoded by docs/formats/*.md alone. Standard library only.

Each function takes the bytes of one file (or of one part of it) and gives plain dictionaries; whatever the page does not
allow raises `Wrong`. What one file says of another is compared in decode.py.
"""

import gzip
import importlib
import struct

from sums import Cursor, Wrong, crc32c, crc64nvme

BLOCK = 4096


# --- slot files: docs/formats/manifest.md -------------------------------------------------------------------------------

SLOT_KINDS = {1: "dir.meta", 2: "boot.state", 3: "manifest"}


def slot(data):
    """One file of a ping-pong pair."""
    c = Cursor(data, "<")
    c.expect("magic", c.take(4), b"CWP1")
    crc = c.u32()
    out = {"generation": c.u64(), "kind": c.u16()}
    c.expect("version", c.u16(), 1)
    length = c.u32()
    c.zero(8)
    payload = c.take(length)
    # What stands behind the payload is left from a longer generation.
    c.expect("crc", crc, crc32c(data[8 : c.at]))
    out["kind"] = SLOT_KINDS.get(out["kind"]) or c.expect("kind", out["kind"], "1..3")
    out.update({"dir.meta": _dir_meta, "boot.state": _boot_state, "manifest": _manifest}[out["kind"]](payload))
    return out


def _dir_meta(payload):
    c = Cursor(payload, "<")
    out = {"cluster_id": c.hex(16), "dir_id": c.hex(16), "node": c.u32(), "state": c.u8()}
    c.zero(3)
    out["format"] = c.u32()
    c.zero(4)
    c.end()
    out["state"] = ["founding", "joining", "member"][out["state"]]
    c.expect("format", out["format"], 1)
    return out


def _boot_state(payload):
    c = Cursor(payload, "<")
    out = {
        "boot_id": c.hex(16),
        "mount_id": c.u64(),
        "last_lsn": c.u64(),
        "checkpoint_lsn": c.u64(),
        "flags": c.u32(),
    }
    c.zero(4)
    c.end()
    out["clean"] = bool(out["flags"] & 1)
    if out["flags"] & ~1:
        raise Wrong("unknown flags %#x" % out["flags"])
    return out


def _manifest(payload):
    c = Cursor(payload, "<")
    out = {
        "gid": c.u64(),
        "topic_id": c.hex(16),
        "partition": c.u32(),
        "incarnation": c.u32(),
        "log_start_offset": c.u64(),
        "first_index": c.u64(),
        "prev_term": c.u32(),
        "mode": ["fsync", "relaxed"][c.u8()],
        "state": ["ok", "suspect", "damaged", "offline"][c.u8()],
    }
    c.zero(2)
    out["compact_gen"] = c.u32()
    epochs, segments, tiered, damage, conf_len = c.u32(), c.u32(), c.u32(), c.u32(), c.u32()
    out["conf_index"], out["tiered_end"], out["local_start"] = c.u64(), c.u64(), c.u64()
    out["deletes_gone"] = c.u64()
    c.zero(16)
    out["epochs"] = []
    for _ in range(epochs):
        term = c.u32()
        c.zero(4)
        out["epochs"].append({"term": term, "start_index": c.u64(), "start_offset": c.u64()})
    out["segments"] = []
    for _ in range(segments):
        one = {"base_index": c.u64(), "base_offset": c.u64(), "gen": c.u32(), "state": c.u8()}
        one["state"] = ["active", "sealed", "compacted"][one["state"]]
        one["lengths"] = int.from_bytes(c.take(3), "little")
        one.update(rows=c.u32(), last_term=c.u32(), sealed_at_ms=c.i64(), max_ts=c.i64())
        out["segments"].append(one)
    out["tiered"] = [_tiered(c) for _ in range(tiered)]
    out["damage"] = [
        {"base_index": c.u64(), "from_index": c.u64(), "to_index": c.u64()} for _ in range(damage)
    ]
    out["conf"] = conf_state(c.take(conf_len)) if conf_len else None
    c.end()
    return out


def _tiered(c):
    return {
        "base_index": c.u64(),
        "base_offset": c.u64(),
        "next_offset": c.u64(),
        "object_id": c.hex(16),
        "len": c.u64(),
        "crc64": c.u64(),
        "max_ts": c.i64(),
    }


# --- entry contexts: docs/formats/entry-context.md ----------------------------------------------------------------------

ENTRY_KINDS = {1: "data", 2: "noop", 3: "conf", 4: "logstart", 5: "gap", 6: "ctl"}


def context(data):
    """The TLVs beside an entry, as {name: fields}."""
    c, out = Cursor(data, "<"), {}
    while c.left():
        tag = c.u8()
        value = Cursor(c.take(c.u8()), "<")
        name, read = _TAGS.get(tag, (None, None))
        if name is None:
            if tag < 128:
                raise Wrong("context tag %d is unknown" % tag)
            continue
        if name in out:
            raise Wrong("context tag %s stands twice" % name)
        out[name] = read(value)
        value.end()
    if "txn" in out and "capture" not in out:
        raise Wrong("a source transaction without a capture position")
    return out


def _capture(c):
    out = {"capture": c.u64(), "epoch": c.u32(), "flags": c.u8()}
    first, last = c.u8(), c.u8()
    c.zero(1)
    out["commit_seq"] = c.u64()
    out["first"], out["last"] = c.hex(first), c.hex(last)
    if first > 64 or last > 64 or bool(first) != bool(last) or out["first"] > out["last"]:
        raise Wrong("positions %s..%s" % (out["first"], out["last"]))
    return out


def conf_state(data):
    """Members of a group."""
    c = data if isinstance(data, Cursor) else Cursor(data, "<")
    c.expect("version", c.u8(), 1)
    counts = [c.u8() for _ in range(4)]
    c.expect("auto_leave", c.u8(), 0)
    c.zero(2)
    names = ("voters", "learners", "outgoing", "learners_next")
    out = {name: [_peer(c.u64()) for _ in range(n)] for name, n in zip(names, counts)}
    c.end()
    return out


def _peer(number):
    return "%d.%d" % (number >> 32, number & 0xFFFFFFFF)


def conf_change(c):
    """What an entry says of members: always a change; states stand in CREATE frames, manifests and snapshots."""
    c = c if isinstance(c, Cursor) else Cursor(c, "<")
    c.expect("version", c.u8(), 1)
    c.expect("transition", c.u8(), 2)
    count = c.u8()
    c.zero(5)
    out = []
    for _ in range(count):
        step = ["add voter", "remove", "add learner"][c.u8()]
        c.zero(7)
        out.append((step, _peer(c.u64())))
    return out


_TAGS = {
    1: ("capture", _capture),
    2: ("txn", lambda c: {"id": c.hex(c.left())}),
    3: ("conf", conf_change),
    4: ("logstart", lambda c: {"offset": c.u64(), "reason": ["retention", "DeleteRecords", "tier"][c.u8()]}),
    5: ("fence", lambda c: {"capture": c.u64(), "epoch": c.u32()}),
    6: (
        "tiered",
        lambda c: {
            "base_index": c.u64(),
            "base_offset": c.u64(),
            "next_offset": c.u64(),
            "object_id": c.hex(16),
            "len": c.u64(),
            "crc64": c.u64(),
            "gen": c.u32(),
        },
    ),
    7: (
        "gap",
        lambda c: {"first_index": c.u64(), "n": c.u64(), "base_offset": c.u64(), "end_offset": c.u64()},
    ),
    8: ("capture_drop", lambda c: {"capture": c.u64()}),
}


def kind_of(tags):
    """What an entry without a body is, by its context."""
    for tag, kind in (("conf", "conf"), ("logstart", "logstart"), ("gap", "gap")):
        if tag in tags:
            return kind
    return "ctl" if tags else "noop"


# --- the journal: docs/formats/journal.md -------------------------------------------------------------------------------

FRAME_KINDS = {1: "entry", 3: "hard", 4: "create", 6: "dirty", 7: "synced", 9: "mode", 10: "drop"}


def journal(data):
    """One journal file: its head and the flushes of its generation; `None` for a file that was never used."""
    if not any(data):
        return None
    c = Cursor(data[:BLOCK], "<")
    c.expect("magic", c.take(4), b"CWJF")
    c.expect("version", c.u16(), 1)
    c.expect("block_log2", c.u16(), 12)
    out = {"file_gen": c.u64(), "first_lsn": c.u64(), "dir_id": c.hex(16), "created_ms": c.i64()}
    out["blocks"] = c.u32()
    c.zero(8)
    c.expect("crc", c.u32(), crc32c(data[:60]))
    c.zero(BLOCK - 64)
    at, lsn, out["flushes"] = BLOCK, out["first_lsn"], []
    while at + 64 <= len(data) and data[at : at + 4] == b"CWJ1":
        head = Cursor(data[at : at + 64], "<")
        head.take(8)
        if (head.u64(), head.u64()) != (lsn, out["file_gen"]):
            break
        try:
            one, length = flush(data, at, out)
        except Wrong as error:
            # The last flush before a death may be torn; whether it was the last is for the caller to see.
            out["torn"] = "flush %d: %s" % (lsn, error)
            break
        out["flushes"].append(one)
        at, lsn = at + length, lsn + 1
    out["end"] = at
    # What follows is zeros, or flushes of an earlier use of the file.
    out["stale_bytes"] = len(data[at:].rstrip(b"\0"))
    return out


def flush(data, at, file):
    """One flush, from byte `at` on, and the bytes it takes."""
    head = data[at : at + 64]
    c = Cursor(head, "<")
    c.take(4)
    c.expect("flush crc", c.u32(), crc32c(head[8:64]))
    out = {"at": at, "lsn": c.u64(), "file_gen": c.u64(), "durable_lsn": c.u64()}
    frames_len, count, dir_crc, flags = c.u32(), c.u32(), c.u32(), c.u32()
    c.expect("dir_id", c.hex(16), file["dir_id"])
    out["seal"], out["clean"] = bool(flags & 1), bool(flags & 2)
    if flags & ~3 or (out["seal"] and count):
        raise Wrong("flush flags %#x with %d frames" % (flags, count))
    if out["durable_lsn"] > out["lsn"]:
        raise Wrong("flush %d calls %d durable" % (out["lsn"], out["durable_lsn"]))
    directory = data[at + 64 + frames_len : at + 64 + frames_len + 24 * count]
    c.expect("directory crc", crc32c(directory), dir_crc)
    length = -(-(64 + frames_len + 24 * count) // BLOCK) * BLOCK
    if any(data[at + 64 + frames_len + 24 * count : at + length]):
        raise Wrong("a flush ends in other bytes than zeros")
    out["frames"], place = [], 64
    for n in range(count):
        frame, size = _frame(data[at + place : at + 64 + frames_len])
        c.expect("frame lsn", frame["lsn"], out["lsn"])
        d = Cursor(directory[24 * n : 24 * n + 24], "<")
        gid, index, kind, entry = d.u64(), d.u64(), d.u8(), d.u8()
        d.zero(2)
        wanted = (frame["gid"], frame["index"], frame["kind_number"], frame["entry_kind"], place)
        c.expect("directory", (gid, index, kind, entry, d.u32()), wanted)
        frame["at"] = at + place
        out["frames"].append(frame)
        place += size
    c.expect("frames end", place, 64 + frames_len)
    return out, length


def _frame(data):
    c = Cursor(data[:64], "<")
    crc = c.u32()
    out = {"kind_number": c.u8(), "entry_kind": c.u8()}
    ctx_len = c.u16()
    out.update(lsn=c.u64(), gid=c.u64(), index=c.u64(), term=c.u32(), count=c.u32())
    out.update(base_offset=c.u64(), max_ts=c.i64())
    body_len, body_crc = c.u32(), c.u32()
    size = -(-(64 + ctx_len + body_len) // 8) * 8
    if size > len(data):
        raise Wrong("a frame of %d bytes, %d are left" % (size, len(data)))
    ctx, body = data[64 : 64 + ctx_len], data[64 + ctx_len : 64 + ctx_len + body_len]
    c.expect("frame crc", crc, crc32c(data[4:64] + ctx))
    if any(data[64 + ctx_len + body_len : size]):
        raise Wrong("a frame ends in other bytes than zeros")
    kind = FRAME_KINDS.get(out["kind_number"])
    if kind is None:
        raise Wrong("frame kind %d is unknown" % out["kind_number"])
    out["kind"], out["context"] = kind, context(ctx)
    out["ctx"], out["body"] = ctx, body
    if kind == "entry":
        out["entry"] = ENTRY_KINDS.get(out["entry_kind"]) or c.expect("entry kind", out["entry_kind"], "1..6")
        if out["entry"] == "data":
            one = batch_head(body)
            c.expect("batch length", one["length"], body_len)
            c.expect("batch crc field", one["crc"], body_crc)
            c.expect("batch", (one["base_offset"], one["leader_epoch"]), (out["base_offset"], out["term"]))
            c.expect("count", one["count"], out["count"])
            c.expect("max_ts", one["max_ts"], out["max_ts"])
            return out, size
        c.expect("entry", out["entry"], kind_of(out["context"]))
        c.expect("body of an internal entry", body, b"")
        c.expect("max_ts of an internal entry", out["max_ts"], -1)
    elif kind == "create":
        b = Cursor(body, "<")
        out["create"] = {"topic_id": b.hex(16), "partition": b.u32(), "incarnation": b.u32(), "mode": b.u8()}
        b.zero(7)
        out["create"]["conf"] = conf_state(b.take(b.left()))
    else:
        c.expect("body", body, b"")
    c.expect("body crc", body_crc, crc32c(body))
    return out, size


def salvage(data):
    """`p/<gid>/salvage`: entries that only the journal had, as one flush of no file."""
    out, length = flush(data, 0, {"dir_id": "00" * 16})
    Cursor(data[length:], "<").end()
    return out


# --- segments: docs/formats/segment.md ----------------------------------------------------------------------------------


def entries(data):
    """An `.ent` file: header, rows, and the footer of a sealed one."""
    c = Cursor(data, "<")
    c.expect("magic", c.take(4), b"CWE1")
    c.expect("version", c.u16(), 1)
    out = {"flags": c.u16(), "gid": c.u64(), "base_index": c.u64(), "base_offset": c.u64()}
    out.update(prev_term=c.u32(), gen=c.u32(), created_ms=c.i64())
    c.zero(12)
    c.expect("header crc", c.u32(), crc32c(data[:60]))
    out["rows"], out["footer"] = [], None
    seed = struct.pack("<QQ", out["gid"], out["base_index"])
    while c.left():
        if c.left() == 96 and data[c.at : c.at + 4] == b"CWEF":
            out["footer"] = footer(data[c.at :])
            c.expect("crc64 of header and rows", out["footer"]["ent_crc64"], crc64nvme(data[: c.at]))
            c.expect("rows of the footer", out["footer"]["rows"], len(out["rows"]))
            break
        try:
            out["rows"].append(_row(c.take(48), seed, out["base_index"]))
        except Wrong as error:
            # An open segment may end in half a row; whether it is open is for the caller to see.
            out["torn"] = "row %d: %s" % (len(out["rows"]), error)
            break
    return out


def _row(data, seed, base_index):
    c = Cursor(data, "<")
    c.expect("row crc", c.u32(), crc32c(seed + data[4:]))
    out = {"index": base_index + c.u32(), "term": c.u32(), "count": c.u32(), "base_offset": c.u64()}
    out.update(max_ts=c.i64(), pos=c.u32(), len=c.u32(), ext_pos=c.u32(), ext_len=c.u16())
    kind, out["flags"] = c.u8(), c.u8()
    out["kind"] = ENTRY_KINDS.get(kind) or c.expect("row kind", kind, "1..6")
    if out["flags"] & ~31:
        raise Wrong("row flags %#x" % out["flags"])
    return out


def footer(data):
    """The last 96 bytes of a sealed table."""
    c = Cursor(data, "<")
    c.take(4)
    out = {"rows": c.u32(), "last_index": c.u64(), "next_offset": c.u64(), "log_len": c.u64()}
    out.update(log_crc64=c.u64(), ent_crc64=c.u64(), ext_crc64=c.u64(), min_ts=c.i64(), max_ts=c.i64())
    out.update(ext_len=c.u32(), txn_len=c.u32(), last_term=c.u32(), flags=c.u32())
    c.zero(4)
    c.expect("footer crc", c.u32(), crc32c(data[:92]))
    return out


def ext_record(data, index):
    """One record of `.ext`: the context of the entry with this index."""
    return context(ext_bytes(data, index))


def ext_bytes(data, index):
    c = Cursor(data, "<")
    c.expect("context crc", c.u32(), crc32c(struct.pack("<Q", index) + data[4:]))
    return data[4:]


# --- snapshots: docs/formats/snap.md ------------------------------------------------------------------------------------


def snapshot(data):
    c = Cursor(data, "<")
    c.expect("magic", c.take(4), b"CWS1")
    c.expect("version", c.u16(), 1)
    out = {"flags": c.u16(), "gid": c.u64(), "index": c.u64(), "next_offset": c.u64()}
    length, crc = c.u32(), c.u32()
    payload = c.take(length)
    c.end()
    c.expect("crc", crc, crc32c(data[:36] + payload))
    c = Cursor(payload, "<")
    while c.left():
        kind = c.u16()
        c.zero(2)
        section = Cursor(c.take(c.u32()), "<")
        name, read = _SECTIONS.get(kind, ("unknown %d" % kind, lambda s: s.hex(s.left())))
        out[name] = read(section)
        section.end()
    return out


def _producers(c):
    count = c.u32()
    c.zero(4)
    out = []
    for _ in range(count):
        one = {"producer_id": c.i64(), "epoch": c.i16()}
        n = c.u16()
        if n > 5:
            raise Wrong("a producer with %d batches" % n)
        one.update(coordinator_epoch=c.i32(), last_ts=c.i64(), txn_first_offset=c.i64())
        c.zero(8)
        one["batches"] = [
            {"last_seq": c.i32(), "offset_delta": c.i32(), "last_offset": c.i64(), "ts": c.i64()} for _ in range(n)
        ]
        out.append(one)
    return out


def _captures(c):
    out = []
    while c.left():
        one = {"capture": c.u64(), "epoch": c.u32()}
        n, one["flags"] = c.u16(), c.u16()
        one.update(last_index=c.u64(), commit_seq=c.u64(), position=c.hex(n))
        c.zero(-c.at % 8)
        out.append(one)
    return out


def _aborted(c):
    return [aborted(c.take(40)) for _ in range(-(-c.left() // 40))]


def txn(data):
    """The rows of a `.txn`, in the order of their markers."""
    if not data or len(data) % 40:
        raise Wrong("%d bytes are no rows of 40" % len(data))
    rows = _aborted(Cursor(data, "<"))
    if any(a["last_offset"] >= b["last_offset"] for a, b in zip(rows, rows[1:])):
        raise Wrong("markers out of order")
    return rows


def aborted(row):
    """One aborted transaction, 40 bytes."""
    r = Cursor(row, "<")
    r.expect("crc", r.u32(), crc32c(row[4:]))
    r.expect("version", r.u16(), 1)
    r.expect("flags", r.u16(), 0)
    return {n: r.i64() for n in ("producer_id", "first_offset", "last_offset", "last_stable_offset")}


_SECTIONS = {
    1: ("producers", _producers),
    2: ("captures", _captures),
    3: ("log_start", lambda c: c.u64()),
    4: ("aborted", _aborted),
    5: ("conf", lambda c: {"index": c.u64(), "state": conf_state(c.take(c.left()))}),
}


# --- Kafka's record batches, magic 2 (https://kafka.apache.org/documentation/#recordbatch) ------------------------------

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


def batch_head(data):
    """The 61 bytes before the records of the batch at the beginning of `data`; its checksum is compared."""
    c = Cursor(data[:61], ">")
    out = {"base_offset": c.i64(), "length": c.i32() + 12, "leader_epoch": c.i32()}
    c.expect("magic", c.u8(), 2)
    out["crc"], attributes = c.u32(), c.u16()
    out.update(last_delta=c.i32(), base_ts=c.i64(), max_ts=c.i64())
    out.update(producer_id=c.i64(), producer_epoch=c.i16(), base_seq=c.i32(), count=c.i32())
    out["codec"] = CODECS[attributes & 7]
    out["transactional"], out["control"] = bool(attributes & 16), bool(attributes & 32)
    out["horizon"] = bool(attributes & 64)
    if attributes >> 7:
        raise Wrong("batch attributes %#x" % attributes)
    if len(data) < out["length"] or out["length"] < 61:
        raise Wrong("a batch of %d bytes, %d are there" % (out["length"], len(data)))
    c.expect("batch crc", out["crc"], crc32c(data[21 : out["length"]]))
    return out


def batch_records(data, head):
    """The records of one batch, or `None` if this Python has no module for its codec."""
    body = _unpacked(data[61 : head["length"]], head["codec"])
    if body is None:
        return None
    c, out = Cursor(body, ">"), []
    for _ in range(head["count"]):
        r = Cursor(c.take(c.varint()), ">")
        r.expect("record attributes", r.u8(), 0)
        one = {"ts": head["base_ts"] + r.varint(), "offset": head["base_offset"] + r.varint()}
        one["key"], one["value"] = _bytes(r), _bytes(r)
        one["headers"] = [(r.take(r.varint()).decode(), _bytes(r)) for _ in range(r.varint())]
        r.end()
        out.append(one)
    c.end()
    return out


def _bytes(c):
    n = c.varint()
    return None if n < 0 else c.take(n)


def _unpacked(data, codec):
    if codec == "none":
        return data
    if codec == "gzip":
        return gzip.decompress(data)
    try:
        cramjam = importlib.import_module("cramjam")
    except ImportError:
        return None
    if codec == "lz4":
        return bytes(cramjam.lz4.decompress(data))
    if codec == "zstd":
        return bytes(cramjam.zstd.decompress(data))
    if data[:8] != b"\x82SNAPPY\0":
        return bytes(cramjam.snappy.decompress_raw(data))
    # Some clients cut a Snappy batch into blocks: magic, two versions, then n x (length i32, block).
    c, out = Cursor(data[16:], ">"), b""
    while c.left():
        out += bytes(cramjam.snappy.decompress_raw(c.take(c.i32())))
    return out
