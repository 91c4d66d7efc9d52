#!/usr/bin/env python3
"""Decodes every file of a Catchwater data directory with nothing but docs/formats/*.md. Standard library only.

    decode.py DIR             one JSON object: files, partitions, internal records, notes, problems
    decode.py --records DIR   after it one JSON line per record of every topic that is not internal

The node must not run. Exit status: 0 everything is as the pages say; 1 something is not (`problems`).

It is a proof of the pages, not a tool: written beside them, without a line of the product's code, and it refuses what they
do not mention. Every checksum is compared, every file must be known and used to its last byte, and what two files
say of one thing must agree: journal and segments, rows and batches, footers and files, manifest and tables, snapshot
and log. sums.py has the checksums, files.py the files, records.py the records of internal topics.

Records in Snappy, LZ4 and zstd are opened if this Python has the module `cramjam`; without it their batches are checked
and counted, and their records are not shown.
"""

import collections
import json
import os
import re
import struct
import sys

sys.dont_write_bytecode = True
import files
import records
from sums import Wrong, crc32c, crc64nvme

SEGMENT = re.compile(r"(\d{20})(?:\.(\d+))?\.(log|ent|ext|txn)")


class Tree:
    """The files of one data directory."""

    def __init__(self, root):
        self.root = root
        self.files = collections.OrderedDict()
        self.problems, self.notes = [], []
        self.counts = collections.Counter()
        self.slots = collections.defaultdict(dict)
        self.journals, self.replicas = [], {}

    def problem(self, where, what):
        self.problems.append("%s: %s" % (where, what))

    def read(self, path):
        with open(os.path.join(self.root, path), "rb") as file:
            return file.read()

    def guard(self, path, read, *args):
        """`read(*args)`, with what it raises put down under the file's name."""
        try:
            return read(*args)
        except (Wrong, IndexError, UnicodeDecodeError, ValueError, KeyError) as error:
            self.problem(path, "%s: %s" % (type(error).__name__, error))
            return None

    def walk(self):
        for folder, folders, names in os.walk(self.root):
            folders.sort()
            for name in sorted(names):
                path = os.path.relpath(os.path.join(folder, name), self.root)
                self.take(path)

    def take(self, path):
        if re.fullmatch(r"(dir\.meta|boot\.state|p/[0-9a-f]{16}/manifest)\.[ab]", path):
            slot = self.guard(path, files.slot, self.read(path))
            if slot:
                self.slots[path[:-2]][path[-1]] = slot
                self.files[path] = {"generation": slot["generation"]}
        elif re.fullmatch(r"journal/[0-9a-f]{16}\.wal", path):
            data = self.read(path)
            journal = self.guard(path, files.journal, data)
            self.files[path] = {"used": bool(journal)}
            if journal:
                if journal["blocks"] and journal["blocks"] * files.BLOCK != len(data):
                    self.problem(path, "has %d bytes and was made with %d blocks" % (len(data), journal["blocks"]))
                self.files[path]["flushes"] = [[f["lsn"], len(f["frames"])] for f in journal["flushes"]]
                self.files[path]["stale_bytes"] = journal["stale_bytes"]
                self.counts["stale bytes"] += journal["stale_bytes"]
                self.journals.append(journal)
        elif path == "reserve":
            self.files[path] = {"bytes": os.path.getsize(os.path.join(self.root, path))}
            if any(self.read(path)):
                self.problem(path, "is not zeros")
        elif re.fullmatch(r"p/[0-9a-f]{16}/\d{20}\.snap", path):
            snap = self.guard(path, files.snapshot, self.read(path))
            self.files[path] = {}
            if snap:
                self.replica(path).snaps[path] = snap
        elif re.fullmatch(r"p/[0-9a-f]{16}/salvage", path):
            found = self.guard(path, files.salvage, self.read(path))
            self.files[path] = {"entries": len(found["frames"]) if found else None}
            self.notes.append("%s: the replica is closed, these entries were saved" % path)
        elif re.fullmatch(r"(journal/[0-9a-f]{16}\.wal|p/[0-9a-f]{16}/[a-z0-9.-]+)\.aside", path):
            self.files[path] = {}
            self.notes.append("%s: damaged, put aside by a start" % path)
        elif re.fullmatch(r"journal/[0-9a-f]{16}\.wal\.new", path):
            # Being made when the node ended: zeros, as far as it came.
            self.files[path] = {}
            if any(self.read(path)):
                self.problem(path, "is not zeros")
        elif path.endswith(".new") and re.fullmatch(r"p/[0-9a-f]{16}/(salvage|\d{20}(\.\d+)?\.ent)\.new", path):
            self.files[path] = {}
            self.notes.append("%s: half made, belongs to nothing" % path)
        elif path.startswith("p/") and SEGMENT.fullmatch(os.path.basename(path)):
            base, gen, kind = SEGMENT.fullmatch(os.path.basename(path)).groups()
            self.replica(path).parts[(int(base), int(gen or 0))][kind] = path
            self.files[path] = {}
            if kind == "log":
                self.files[path]["batches"] = self.batches(path)
            elif kind == "ent":
                self.files[path]["rows"] = self.rows(path)
        else:
            self.problem(path, "no page knows this file")

    # What stands in a file, as far as it can be read; whether it had to be readable is decided with the manifest.

    def batches(self, path):
        """[place, bytes, first offset, records] of every batch of a `.log`, by nothing but the batches."""
        data, at, out = self.read(path), 0, []
        try:
            while at < len(data):
                head = files.batch_head(data[at:])
                out.append([at, head["length"], head["base_offset"], head["count"]])
                at += head["length"]
        except Wrong:
            pass
        return out

    def rows(self, path):
        try:
            rows = files.entries(self.read(path))["rows"]
        except Wrong:
            rows = []
        return [[r["index"], r["term"], r["kind"], r["base_offset"], r["count"], r["pos"], r["len"]] for r in rows]

    def replica(self, path):
        gid = int(path.split("/")[1], 16)
        return self.replicas.setdefault(gid, Replica(self, gid))

    def newest(self, name):
        """The newest valid one of a pair."""
        pair = self.slots.get(name, {})
        return max(pair.values(), key=lambda slot: slot["generation"], default=None)

    # -- the journal as a whole ------------------------------------------------------------------------------------------

    def replay(self):
        """All flushes in order; what they say of every replica."""
        self.journals.sort(key=lambda j: j["file_gen"])
        dir_id = (self.newest("dir.meta") or {}).get("dir_id")
        lsn = None
        for n, journal in enumerate(self.journals):
            name = "journal generation %d" % journal["file_gen"]
            if journal["dir_id"] != dir_id:
                self.problem(name, "belongs to directory %s, not %s" % (journal["dir_id"], dir_id))
            if n and journal["file_gen"] != self.journals[n - 1]["file_gen"] + 1:
                self.problem(name, "does not follow on %d" % self.journals[n - 1]["file_gen"])
            if lsn is not None and journal["first_lsn"] != lsn:
                self.problem(name, "begins with flush %d, wanted %d" % (journal["first_lsn"], lsn))
            for flush in journal["flushes"]:
                for frame in flush["frames"]:
                    self.counts[frame["kind"]] += 1
                    gid = frame["gid"]
                    self.replicas.setdefault(gid, Replica(self, gid)).replay(frame)
            lsn = journal["first_lsn"] + len(journal["flushes"])
            if "torn" in journal:
                last = n == len(self.journals) - 1
                (self.notes if last else self.problems).append("%s: torn %s" % (name, journal["torn"]))
        self.counts["flush"] = sum(len(j["flushes"]) for j in self.journals)
        boot = self.newest("boot.state")
        if boot and boot["clean"] and lsn is not None and boot["last_lsn"] != lsn - 1:
            self.problem("boot.state", "the last flush is %d, the journal ends with %d" % (boot["last_lsn"], lsn - 1))

    # -- topics and what stands in them -----------------------------------------------------------------------------------

    def name_topics(self):
        """Names of the replicas, by the TOPIC records of group 0."""
        names = {}
        for _, record in self.replicas[0].records() if 0 in self.replicas else ():
            out = self.guard("group 0", records.cluster, record["key"], record["value"])
            if out is None:
                self.problem("group 0", "a record of an unknown kind at %d" % record["offset"])
                continue
            self.counts[out["record"]] += 1
            if out["record"] == "TOPIC":
                names[out["key"]["topic_id"]] = out["value"] and out["value"]["name"]
        for gid, replica in self.replicas.items():
            topic = (replica.manifest or replica.create or {}).get("topic_id")
            replica.topic = names.get(topic) if gid else "group 0"
            if gid and replica.topic is None and not replica.dropped:
                self.problem(replica.name, "no TOPIC record names topic %s" % topic)

    def read_internal(self):
        audit = records.Audit()
        readers = {
            records.OFFSETS: records.group,
            records.CAPTURES: records.checkpoint,
            records.CUTS: records.cut,
            records.PARKED: records.parked,
            records.AUDIT: audit.read,
        }
        for replica in self.replicas.values():
            where = "%s-%s" % (replica.topic, (replica.manifest or {}).get("partition"))
            reader = readers.get(replica.topic)
            for _, record in replica.records() if replica.topic else ():
                if reader:
                    out = self.guard(where, reader, record["key"], record["value"])
                    self.counts["%s %s" % (replica.topic, (out or {}).get("record", "record"))] += 1
                for name, value in record["headers"]:
                    if name in records.HEADERS:
                        self.guard("%s %s" % (where, name), records.HEADERS[name], value)
                        self.counts[name] += 1

    def report(self):
        return {
            "files": self.files,
            "partitions": [r.report() for _, r in sorted(self.replicas.items()) if not r.dropped],
            "counts": dict(sorted(self.counts.items())),
            "notes": self.notes,
            "problems": self.problems,
        }


def span(entry):
    """Indexes that a row or entry covers."""
    return entry["len"] if entry["kind"] == "gap" else 1


class Replica:
    """One group: its segments, what the journal has above them, its snapshots."""

    def __init__(self, tree, gid):
        self.tree, self.gid, self.name = tree, gid, "p/%016x" % gid
        self.parts, self.snaps = collections.defaultdict(dict), {}
        self.manifest, self.create, self.dropped, self.topic = None, None, False, None
        # index -> {term, kind, count, base_offset, batch, context}; segments first, then the journal.
        self.entries, self.framed, self.rewritten = {}, {}, set()

    # -- segments ------------------------------------------------------------------------------------------------------

    def read_segments(self):
        self.manifest = self.tree.newest(self.name + "/manifest")
        if self.manifest is None:
            # Nothing counts yet: the journal has it all, from the CREATE frame on, and a start writes the files anew.
            if self.parts:
                self.tree.notes.append("%s: files before the first manifest" % self.name)
            return
        if self.manifest["gid"] != self.gid:
            self.tree.problem(self.name, "the manifest is of group %d" % self.manifest["gid"])
        before = (self.manifest["first_index"], self.manifest["prev_term"], None)
        for n, claim in enumerate(self.manifest["segments"]):
            parts = self.parts.pop((claim["base_offset"], claim["gen"]), {})
            path = parts.get("ent")
            where = path or "%s segment %d" % (self.name, claim["base_offset"])
            if path is None or "log" not in parts:
                self.tree.problem(where, "the manifest names a segment that is not there")
                continue
            table = self.tree.guard(path, files.entries, self.tree.read(path))
            if table is None:
                continue
            if n == 0 and table["base_index"] <= before[0]:
                before = (table["base_index"], table["prev_term"], None)
            self.tree.guard(path, self.segment, claim, table, parts, before)
            last = table["rows"][-1] if table["rows"] else None
            if last:
                before = (last["index"] + span(last), last["term"], last["base_offset"] + last["count"])
        for parts in self.parts.values():
            for path in parts.values():
                # A compaction's old files wait for their readers; a death leaves them, the next start removes them.
                self.tree.notes.append("%s: the manifest does not name it" % path)

    def segment(self, claim, table, parts, before):
        """One segment against its files and against what the manifest says of it."""
        log = self.tree.read(parts["log"])
        ext = self.tree.read(parts["ext"]) if "ext" in parts else b""
        expect = lambda name, got, want: self.tree.problem(
            parts["ent"], "%s is %r, wanted %r" % (name, got, want)
        ) if got != want else None
        expect("gid", table["gid"], self.gid)
        expect("base", (table["base_index"], table["base_offset"]), (claim["base_index"], claim["base_offset"]))
        expect("generation", table["gen"], claim["gen"])
        expect("flags", table["flags"], 0)
        expect("first index and term before it", (table["base_index"], table["prev_term"]), before[:2])
        if before[2] is not None:
            expect("base offset", table["base_offset"], before[2])
        pos, ext_pos, index, offset, max_ts = 0, 0, table["base_index"], table["base_offset"], -1
        for row in table["rows"]:
            expect("index", row["index"], index)
            expect("base offset of index %d" % index, row["base_offset"], offset)
            entry = {"term": row["term"], "kind": row["kind"], "count": row["count"], "base_offset": offset}
            entry.update(batch=b"", context={}, len=row["len"])
            if row["kind"] == "data":
                expect("place of index %d" % index, row["pos"], pos)
                entry["batch"] = log[pos : pos + row["len"]]
                head = files.batch_head(entry["batch"])
                got = (head["length"], head["base_offset"], head["last_delta"] + 1, head["leader_epoch"])
                self.tree.counts["batch"] += 1
                self.tree.counts["compacted batch"] += head["count"] <= head["last_delta"]
                expect("batch of index %d" % index, got, (row["len"], offset, row["count"], row["term"]))
                flags = head["control"] | head["transactional"] << 1 | (head["producer_id"] >= 0) << 2
                expect("flags of index %d" % index, row["flags"] & 7, flags)
                max_ts = max(max_ts, head["max_ts"])
                pos += row["len"]
            if row["ext_len"]:
                expect("context of index %d" % index, row["ext_pos"], ext_pos)
                entry["context"] = files.ext_record(ext[ext_pos : ext_pos + row["ext_len"]], index)
                self.tree.counts.update(name + " context" for name in entry["context"])
                ext_pos += row["ext_len"]
            if row["kind"] not in ("data", "gap"):
                expect("kind of index %d" % index, row["kind"], files.kind_of(entry["context"]))
            expect("capture flag of index %d" % index, bool(row["flags"] & 8), "capture" in entry["context"])
            expect("max_ts of index %d" % index, row["max_ts"], max_ts)
            self.entries[index] = entry
            self.rewritten.update([index] if table["gen"] else [])
            self.tree.counts["gap"] += row["kind"] == "gap"
            index, offset = index + span(row), offset + row["count"]
        sealed = table["footer"]
        if "torn" in table:
            self.tree.notes.append("%s: %s" % (parts["ent"], table["torn"]))
        expect("a footer", sealed is not None, claim["state"] != "active")
        if sealed:
            wanted = {
                "last_index": index - 1,
                "next_offset": offset,
                "log_len": len(log),
                "log_crc64": crc64nvme(log),
                "ext_len": len(ext),
                "ext_crc64": crc64nvme(ext),
                "txn_len": len(self.tree.read(parts["txn"])) if "txn" in parts else 0,
                "last_term": table["rows"][-1]["term"] if table["rows"] else table["prev_term"],
                "max_ts": max_ts,
                "flags": 0,
            }
            for name, value in wanted.items():
                expect("footer's " + name, sealed[name], value)
            if "txn" in parts:
                for row in self.tree.guard(parts["txn"], files.txn, self.tree.read(parts["txn"])) or []:
                    here = table["base_offset"] <= row["last_offset"] < offset and row["first_offset"] < row["last_offset"]
                    expect("place of an aborted transaction", here, True)
                    self.tree.counts["aborted"] += 1
            expect("rows in the manifest", claim["rows"], len(table["rows"]))
            expect("last term in the manifest", claim["last_term"], sealed["last_term"])
            # 0: it was written before there was such a field.
            lengths = struct.pack("<II", len(log), len(ext))
            expect("lengths in the manifest", claim["lengths"] or None, max(crc32c(lengths) >> 8, 1) if claim["lengths"] else None)
        elif claim["rows"] > len(table["rows"]):
            expect("rows of the manifest", claim["rows"], len(table["rows"]))
        if pos < len(log) or ext_pos < len(ext):
            what = "%d bytes of .log and %d of .ext have no row" % (len(log) - pos, len(ext) - ext_pos)
            if sealed:
                self.tree.problem(parts["ent"], what)
            else:
                self.tree.notes.append("%s: %s" % (parts["ent"], what))
        self.tree.counts["segment"] += 1
        self.tree.counts["row"] += len(table["rows"])

    # -- the journal ----------------------------------------------------------------------------------------------------

    def replay(self, frame):
        if frame["kind"] == "create":
            self.create, self.dropped = frame["create"], False
        elif frame["kind"] == "drop":
            self.framed, self.dropped = {}, True
        elif frame["kind"] == "entry":
            # A new entry under a known index replaces it and all behind it.
            self.framed = {i: e for i, e in self.framed.items() if i < frame["index"]} if frame["index"] in self.framed else self.framed
            self.framed[frame["index"]] = {
                "term": frame["term"],
                "kind": frame["entry"],
                "count": frame["count"],
                "base_offset": frame["base_offset"],
                "batch": frame["body"],
                "context": frame["context"],
            }

    def join(self):
        """The journal's entries against the segments', and behind them."""
        first, last = min(self.entries, default=None), self.last()
        for index in sorted(self.framed):
            frame = self.framed[index]
            if index in self.entries:
                entry, same = self.entries[index], ("term", "kind", "count", "base_offset", "context")
                if index not in self.rewritten:
                    same += ("batch",)
                    self.tree.counts["entry in both"] += 1
                if entry["kind"] != "gap" and any(entry[name] != frame[name] for name in same):
                    self.tree.problem(self.name, "index %d differs between journal and segment" % index)
            elif last is None or index > last:
                if last is None and index != 1:
                    self.tree.problem(self.name, "the journal begins with index %d" % index)
                if last is not None and index != last + 1:
                    self.tree.problem(self.name, "the journal goes on with index %d after %d" % (index, last))
                self.entries[index], last = frame, index
                self.tree.counts["entry in the journal only"] += 1
            elif index > first and not any(
                i < index < i + span(e) for i, e in self.entries.items() if e["kind"] == "gap"
            ):
                self.tree.problem(self.name, "index %d of the journal is in no segment" % index)
        for path, snap in self.snaps.items():
            entry = self.entries.get(snap["index"])
            if snap["gid"] != self.gid or int(os.path.basename(path).split(".")[0]) != snap["index"]:
                self.tree.problem(path, "is of group %d, index %d" % (snap["gid"], snap["index"]))
            elif entry and snap["next_offset"] != entry["base_offset"] + entry["count"]:
                self.tree.problem(path, "next offset is %d" % snap["next_offset"])
            self.tree.counts["snapshot"] += 1
            self.tree.counts["producer"] += len(snap.get("producers", []))
        for epoch in (self.manifest or {}).get("epochs", []):
            entry = self.entries.get(epoch["start_index"])
            if entry and (entry["term"], entry["base_offset"]) != (epoch["term"], epoch["start_offset"]):
                self.tree.problem(self.name, "the epoch %r does not begin there" % epoch)

    def last(self):
        """The last index, of a gap the last one it covers."""
        if not self.entries:
            return None
        index = max(self.entries)
        return index + span(self.entries[index]) - 1

    # -- what a consumer would see ---------------------------------------------------------------------------------------

    def batches(self):
        start = self.manifest["log_start_offset"] if self.manifest else 0
        for index in sorted(self.entries):
            entry = self.entries[index]
            if entry["kind"] == "data" and entry["base_offset"] + entry["count"] > start:
                yield entry["batch"], files.batch_head(entry["batch"])

    def records(self):
        """(batch head, record) of every record that is not a control record and whose codec is there."""
        start = self.manifest["log_start_offset"] if self.manifest else 0
        for batch, head in self.batches():
            if not head["control"]:
                for record in files.batch_records(batch, head) or ():
                    if record["offset"] >= start:
                        yield head, record

    def report(self):
        last = self.entries[max(self.entries)] if self.entries else None
        out = {
            "gid": self.gid,
            "topic": self.topic,
            "partition": (self.manifest or self.create or {}).get("partition"),
            "log_start": self.manifest["log_start_offset"] if self.manifest else 0,
            "end": last["base_offset"] + last["count"] if last else 0,
            "last_index": self.last() or 0,
            "batches": 0,
            "records": 0,
            "codecs": collections.Counter(),
        }
        for _, head in self.batches():
            out["batches"] += 1
            out["records"] += head["count"]
            out["codecs"][head["codec"]] += 1
        return out


def main(args):
    shown = "--records" in args
    args = [a for a in args if a != "--records"]
    if len(args) != 1 or not os.path.isdir(args[0]):
        sys.exit(__doc__)
    tree = Tree(args[0])
    tree.walk()
    tree.replay()
    for replica in tree.replicas.values():
        replica.read_segments()
        replica.join()
    tree.name_topics()
    tree.read_internal()
    print(json.dumps(tree.report()))
    for replica in tree.replicas.values() if shown else ():
        if replica.topic and replica.gid and not replica.topic.startswith("__"):
            for _, record in replica.records():
                line = {"topic": replica.topic, "partition": (replica.manifest or replica.create)["partition"]}
                line.update(offset=record["offset"], crc=crc32c(record["value"] or b""))
                print(json.dumps(line))
    return 1 if tree.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
