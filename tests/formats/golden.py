"""The golden bytes of docs/formats/*.md, read by the decoder that was written from these pages: files.py and records.py.

    golden.py docs/formats       one line per block; exit status 1 if one is not read as the page says

That the pages hold what the product writes is checked beside its encoders, in Rust.
"""

import os
import re
import sys

sys.dont_write_bytecode = True
import files
import records
from sums import Wrong


def blocks(text):
    """{name: bytes} of the hex blocks of a page; `xN` at the end of a line repeats it."""
    out = {}
    for name, body in re.findall(r"```golden ([^\n]+)\n(.*?)```", text, re.S):
        if not re.match(r"[0-9a-f]{4}  ", body):
            continue
        data = b""
        for line in body.splitlines():
            place, row, *times = line.split("  ")
            if int(place, 16) != len(data):
                raise Wrong("%s: a line says %s, it is %x" % (name, place, len(data)))
            data += bytes.fromhex(row) * (int(times[0][1:]) if times else 1)
        out[name] = data
    return out


def lines(text):
    """{name: bytes} of `golden NAME: hex` lines."""
    return {name: bytes.fromhex(row) for name, row in re.findall(r"^golden ([^:\n]+): ([0-9a-f ]+)$", text, re.M)}


def table(text):
    """(name, cells as bytes) of the rows below "Golden bytes"."""
    for row in text.split("## Golden bytes")[1].splitlines():
        columns = [column.strip() for column in row.strip("| ").split("|")]
        cells = [re.fullmatch(r"`([0-9a-f ]+)`", column) for column in columns]
        if any(cells):
            yield columns[0], [bytes.fromhex(cell[1]) for cell in cells if cell]


def main(folder):
    page = lambda name: open(os.path.join(folder, name), encoding="utf-8").read()
    count = 0

    def show(name, what, found):
        nonlocal count
        count += 1
        print("%-20s %-60.60s %s" % (name, what, found))

    for name, data in blocks(page("manifest.md")).items():
        slot = files.slot(data)
        if slot["kind"] != name:
            raise Wrong("%s is a %s" % (name, slot["kind"]))
        show("manifest.md", name, slot)
    part = blocks(page("journal.md"))
    journal = files.journal(part["journal file block"] + part["journal flush"])
    kinds = [frame["kind"] for frame in journal["flushes"][0]["frames"]]
    if "torn" in journal or kinds != ["create", "hard", "entry", "entry", "drop"] or journal["stale_bytes"]:
        raise Wrong("the journal is %r" % journal)
    show("journal.md", "file block, flush", kinds)
    part = blocks(page("segment.md"))
    rows = files.entries(part["ent header"] + part["ent row"])
    if "torn" in rows or len(rows["rows"]) != 1:
        raise Wrong("the table is %r" % rows)
    show("segment.md", "header, row", rows)
    show("segment.md", "footer", files.footer(part["ent footer"]))
    show("segment.md", "txn", files.txn(part["txn"]))
    show("segment.md", "ext record", files.ext_bytes(part["ext record"], 101))
    part = blocks(page("snap.md"))
    show("snap.md", "snap", files.snapshot(part["snap"]))
    show("snap.md", "txn row", files.aborted(part["txn row"]))
    for name, data in lines(page("entry-context.md")).items():
        if name == "CHANGE":
            show("entry-context.md", name, files.conf_change(data))
        elif name == "CONF":
            show("entry-context.md", name, files.conf_state(data[2:]))
        else:
            show("entry-context.md", name, files.context(data))
    readers = {
        "cluster-records.md": records.cluster,
        "task-records.md": records.cluster,
        "group-records.md": records.group,
        "cuts.md": records.cut,
        "parked.md": records.parked,
    }
    for name, reader in readers.items():
        for what, cells in table(page(name)):
            show(name, what, reader(*cells))
    for what, (key, value) in table(page("checkpoint.md")):
        # The view of the CHUNK is a specimen that no source writes.
        specimen = value.replace(bytes.fromhex("00000001fe"), bytes.fromhex("0000000100"))
        show("checkpoint.md", what, records.checkpoint(key, specimen))
    for what, (value,) in table(page("stamp.md")):
        show("stamp.md", what, records.HEADERS["cw." + what.split(":")[0]](value))
    audit = records.Audit()
    for line in re.findall(r'^\{"version".*$', page("audit.md"), re.M):
        show("audit.md", "record", audit.read(None, line.encode()))
    print("%d golden blocks" % count)
    return 0 if count >= 35 else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
