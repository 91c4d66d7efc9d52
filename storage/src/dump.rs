//! Stored files as text, line by line: `catchwater storage dump`. Reads one file, checks every checksum, changes nothing,
//! takes no lock (of a directory in use it shows a moment).
//!
//! A line is a word and named values; the command prints it as text or as JSON. Bounded: at most `limit` lines, files
//! read in pieces but for journal files (their length is a setting, longer where a large batch wanted it) and tables of one segment.

use crate::disk::{BLOCK_BYTES, Disk, DiskError, DiskExt};
use crate::entry::{Frame, NewEntry, Row};
use crate::format::context::EntryContext;
use crate::format::journal::{FileHeader, FlushHeader, decode_flush, frame_kind};
use crate::format::manifest::Manifest;
use crate::format::row::{self, EntHeader, FOOTER_BYTES, Footer, HEADER_BYTES, ROW_BYTES};
use crate::format::slot::{self, BootState, DirMeta, SlotKind};
use crate::format::snap::{Snap, sections};
use crate::format::txn::{self, Aborted};
use crate::recover::SALVAGE_FILE;
use bytes::Bytes;
use catchwater_record::BatchView;
use catchwater_record::batch::HEADER_BYTES as BATCH_HEADER_BYTES;
use std::fmt::Display;

/// One line: what it is, then its values in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    pub word: &'static str,
    pub values: Vec<(&'static str, String)>,
}

impl Line {
    fn new(word: &'static str) -> Self {
        Line { word, values: Vec::new() }
    }
    fn with(mut self, name: &'static str, value: impl Display) -> Self {
        self.values.push((name, value.to_string()));
        self
    }
}

/// Why a file could not be shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DumpError {
    #[error("{0} is no file of a log directory: its name says nothing")]
    Unknown(String),
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// What a file is, by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    Journal,
    Log,
    Ent,
    Ext,
    Snap,
    Txn,
    Slot(SlotKind),
    Salvage,
}

fn shape(path: &str) -> Option<Shape> {
    let name = path.rsplit('/').next()?;
    let stem = name.strip_suffix(crate::recover::ASIDE).unwrap_or(name);
    if stem == SALVAGE_FILE {
        return Some(Shape::Salvage);
    }
    for (base, kind) in
        [("dir.meta", SlotKind::DirMeta), ("boot.state", SlotKind::BootState), ("manifest", SlotKind::Manifest)]
    {
        if stem.strip_prefix(base).is_some_and(|side| side == ".a" || side == ".b") {
            return Some(Shape::Slot(kind));
        }
    }
    Some(match stem.rsplit('.').next()? {
        "wal" => Shape::Journal,
        "log" => Shape::Log,
        "ent" => Shape::Ent,
        "ext" => Shape::Ext,
        "snap" => Shape::Snap,
        "txn" => Shape::Txn,
        _ => return None,
    })
}

/// Gives out lines until there are no more or `limit` is reached; true = there was more.
pub fn dump(disk: &dyn Disk, path: &str, limit: usize, give: &mut dyn FnMut(Line)) -> Result<bool, DumpError> {
    let shape = shape(path).ok_or_else(|| DumpError::Unknown(path.to_owned()))?;
    let mut out = Out { give, left: limit, more: false };
    match shape {
        Shape::Journal => journal(disk, path, &mut out)?,
        Shape::Salvage => salvage(&disk.read(path, 0, usize::MAX)?, &mut out),
        Shape::Log => log(disk, path, &mut out)?,
        Shape::Ent => ent(&disk.read(path, 0, usize::MAX)?, &mut out),
        Shape::Ext => ext(disk, path, &mut out)?,
        Shape::Snap => snap(&disk.read(path, 0, usize::MAX)?, &mut out),
        Shape::Txn => txn(&disk.read(path, 0, usize::MAX)?, &mut out),
        Shape::Slot(kind) => slot_file(kind, &disk.read(path, 0, usize::MAX)?, &mut out),
    }
    Ok(out.more)
}

struct Out<'a> {
    give: &'a mut dyn FnMut(Line),
    left: usize,
    more: bool,
}

impl Out<'_> {
    /// False: no more is wanted.
    fn line(&mut self, line: Line) -> bool {
        if self.left == 0 {
            self.more = true;
            return false;
        }
        self.left -= 1;
        (self.give)(line);
        true
    }
    fn bad(&mut self, at: usize, what: &str) -> bool {
        self.line(Line::new("DAMAGED").with("at", at).with("what", what))
    }
}

fn id(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn slot_file(kind: SlotKind, bytes: &[u8], out: &mut Out<'_>) {
    let Some(slot) = slot::decode(kind, bytes) else {
        let what = if slot::later_version(bytes).is_some() { "of a later version" } else { "not a whole slot" };
        out.bad(0, what);
        return;
    };
    let head = |word| Line::new(word).with("generation", slot.generation);
    match kind {
        SlotKind::DirMeta => match DirMeta::decode(&slot.payload) {
            Some(m) => drop(
                out.line(
                    head("dir.meta")
                        .with("cluster", id(&m.cluster_id))
                        .with("dir", id(&m.dir_id))
                        .with("node", m.node)
                        .with("state", format!("{:?}", m.state).to_lowercase())
                        .with("format", m.format),
                ),
            ),
            None => drop(out.bad(slot::HEADER_BYTES, "payload")),
        },
        SlotKind::BootState => match BootState::decode(&slot.payload) {
            Some(b) => drop(
                out.line(
                    head("boot.state")
                        .with("boot", id(&b.boot_id))
                        .with("mount", b.mount_id)
                        .with("last_lsn", b.last_lsn)
                        .with("checkpoint_lsn", b.checkpoint_lsn)
                        .with("clean", b.clean),
                ),
            ),
            None => drop(out.bad(slot::HEADER_BYTES, "payload")),
        },
        SlotKind::Manifest => match Manifest::decode(&slot.payload) {
            Some(m) => manifest(&m, head("manifest"), out),
            None => drop(out.bad(slot::HEADER_BYTES, "payload")),
        },
    }
}

fn manifest(m: &Manifest, head: Line, out: &mut Out<'_>) {
    let head = head
        .with("gid", format!("{:016x}", m.gid))
        .with("topic", m.topic)
        .with("partition", m.partition)
        .with("log_start", m.log_start)
        .with("first_index", m.first_index)
        .with("prev_term", m.prev_term)
        .with("mode", m.mode)
        .with("state", m.state)
        .with("conf", id(&m.conf));
    let mut go = out.line(head);
    for e in &m.epochs {
        go = go && out.line(Line::new("epoch").with("term", e.term).with("index", e.index).with("offset", e.offset));
    }
    for s in &m.segments {
        let line = Line::new("segment")
            .with("base_index", s.base_index)
            .with("base_offset", s.base_offset)
            .with("generation", s.generation)
            .with("state", format!("{:?}", s.state).to_lowercase())
            .with("lengths", s.lengths)
            .with("rows", s.rows)
            .with("last_term", s.last_term)
            .with("sealed_at_ms", s.sealed_at_ms)
            .with("max_ts", s.max_ts);
        go = go && out.line(line);
    }
    for d in &m.damage {
        go = go && out.line(Line::new("damage").with("segment", d.base_index).with("from", d.from).with("to", d.to));
    }
}

fn journal(disk: &dyn Disk, path: &str, out: &mut Out<'_>) -> Result<(), DiskError> {
    let bytes = disk.read(path, 0, usize::MAX)?;
    let file_gen = match FileHeader::decode(&bytes) {
        Some(h) => {
            let line = Line::new("journal")
                .with("file_gen", h.file_gen)
                .with("first_lsn", h.first_lsn)
                .with("dir", id(&h.dir_id))
                .with("created_ms", h.created_ms)
                .with("bytes", bytes.len());
            out.line(line);
            Some(h.file_gen)
        }
        None if bytes.iter().all(|b| *b == 0) => {
            out.line(Line::new("journal").with("bytes", bytes.len()).with("used", false));
            return Ok(());
        }
        None => {
            out.bad(0, "block 0 is no file header");
            None
        }
    };
    let mut at = BLOCK_BYTES;
    while at + BLOCK_BYTES <= bytes.len() {
        let header = FlushHeader::decode(&bytes[at..]);
        let Some(header) = header.filter(|h| file_gen.is_none_or(|g| h.file_gen == g)) else {
            // A block inside a stale flush, of a life before.
            at += BLOCK_BYTES;
            continue;
        };
        if !flush(at, &header, &bytes.slice(at..), out) {
            return Ok(());
        }
        at += header.flush_bytes().filter(|n| at + n <= bytes.len()).unwrap_or(BLOCK_BYTES);
    }
    Ok(())
}

fn salvage(bytes: &Bytes, out: &mut Out<'_>) {
    match FlushHeader::decode(bytes) {
        Some(header) => drop(flush(0, &header, bytes, out)),
        None => drop(out.bad(0, "no flush header")),
    }
}

fn flush(at: usize, header: &FlushHeader, bytes: &Bytes, out: &mut Out<'_>) -> bool {
    let line = Line::new("flush")
        .with("at", at)
        .with("lsn", header.lsn)
        .with("durable_lsn", header.durable_lsn)
        .with("frames", header.frame_count)
        .with("bytes", header.frames_len)
        .with("seal", header.flags & 1 != 0)
        .with("clean_stop", header.flags & 2 != 0);
    let mut go = out.line(line);
    if !go {
        return false;
    }
    let content = decode_flush(header, bytes);
    for frame in &content.frames {
        go = go && out.line(frame_line(frame));
    }
    for lost in &content.lost {
        go = go
            && match lost {
                Some(row) => out.line(
                    Line::new("LOST")
                        .with("gid", format!("{:016x}", row.gid.0))
                        .with("index", row.index)
                        .with("kind", row.kind)
                        .with("at", at + row.at as usize),
                ),
                None => out.bad(at, "frames are damaged, and it is not known whose"),
            };
    }
    go
}

fn frame_line(frame: &Frame) -> Line {
    let gid = format!("{:016x}", frame.gid().0);
    match frame {
        Frame::Entry(_, e) => entry_values(Line::new("entry").with("gid", gid), e),
        Frame::Hard(_, h) | Frame::HardInFiles(_, h) => {
            let vote = format!("{:016x}", h.vote);
            Line::new("hard").with("gid", gid).with("term", h.term).with("vote", vote).with("commit", h.commit)
        }
        Frame::Create(_, spec) => {
            let line = Line::new("create").with("gid", gid).with("topic", spec.topic).with("partition", spec.partition);
            line.with("incarnation", spec.incarnation).with("conf", id(&spec.conf))
        }
        Frame::Mark(_, mark) => Line::new("mark")
            .with("gid", gid)
            .with("mark", format!("{:?}", mark.kind).to_lowercase())
            .with("index", mark.index)
            .with("term", mark.term),
        other => {
            let word = if matches!(other, Frame::Drop(_)) { "drop" } else { "frame" };
            Line::new(word).with("gid", gid).with("kind", frame_kind(other))
        }
    }
}

fn entry_values(line: Line, e: &NewEntry) -> Line {
    let line = line
        .with("index", e.index)
        .with("term", e.term)
        .with("kind", format!("{:?}", e.kind).to_lowercase())
        .with("base_offset", e.base_offset)
        .with("count", e.count)
        .with("bytes", e.body.len());
    let line = batch_values(line, &e.body);
    if e.context.is_empty() { line } else { line.with("context", context_text(&e.context)) }
}

fn batch_values(line: Line, body: &[u8]) -> Line {
    let Ok(batch) = BatchView::new(body) else { return line };
    let line = line.with("max_ts", batch.max_timestamp());
    match crate::producer::BatchMark::read(body) {
        Some(mark) if mark.producer.is_some() => line
            .with("producer", mark.producer.map_or(-1, |p| p.0))
            .with("producer_epoch", mark.epoch.0)
            .with("sequence", mark.base_sequence)
            .with("attributes", format!("{:#06x}", mark.attributes)),
        Some(mark) if mark.attributes != 0 => line.with("attributes", format!("{:#06x}", mark.attributes)),
        _ => line,
    }
}

/// A context in short.
fn context_text(bytes: &Bytes) -> String {
    match EntryContext::decode(bytes) {
        Err(e) => format!("unreadable ({e})"),
        Ok(c) => {
            let mut parts = Vec::new();
            if let Some(c) = &c.capture {
                parts.push(format!(
                    "capture {} epoch {} seq {} last {}",
                    c.capture.0,
                    c.epoch.0,
                    c.commit_seq.0,
                    id(c.last.as_bytes())
                ));
            }
            if let Some(c) = &c.conf {
                parts.push(format!("conf {}", id(c)));
            }
            if let Some(s) = c.log_start {
                parts.push(format!("log start {} ({:?})", s.offset, s.reason));
            }
            if let Some(f) = c.fence {
                parts.push(format!("fence capture {} epoch {}", f.capture.0, f.epoch.0));
            }
            if let Some(c) = c.capture_drop {
                parts.push(format!("drop capture {}", c.0));
            }
            if let Some(g) = c.gap {
                parts.push(format!("gap of {} from index {}", g.count, g.first_index));
            }
            if c.tiered.is_some() {
                parts.push("tiered".to_owned());
            }
            parts.join(", ")
        }
    }
}

fn log(disk: &dyn Disk, path: &str, out: &mut Out<'_>) -> Result<(), DiskError> {
    const PIECE: usize = 4 << 20;
    let mut at = 0u64;
    loop {
        let mut piece = disk.read(path, at, PIECE)?;
        if piece.is_empty() {
            return Ok(());
        }
        let mut used = 0;
        while piece.len() - used >= BATCH_HEADER_BYTES {
            let len = u32::from_be_bytes([piece[used + 8], piece[used + 9], piece[used + 10], piece[used + 11]]);
            let len = (len as usize).saturating_add(12);
            if len > piece.len() - used {
                if used > 0 || len > crate::format::journal::BODY_BYTES_MAX || piece.len() >= len {
                    break;
                }
                piece = disk.read(path, at, len)?;
                if piece.len() < len {
                    break;
                }
            }
            if !out.line(batch_line(at + used as u64, &piece[used..used + len])) {
                return Ok(());
            }
            used += len;
        }
        if used == 0 {
            out.bad(usize::try_from(at).unwrap_or(usize::MAX), "no whole batch here");
            return Ok(());
        }
        at += used as u64;
    }
}

fn batch_line(at: u64, body: &[u8]) -> Line {
    let line = Line::new("batch").with("at", at).with("bytes", body.len());
    match BatchView::new(body) {
        Err(e) => line.with("DAMAGED", e),
        Ok(batch) => {
            let line = line
                .with("base_offset", batch.base_offset())
                .with("count", batch.offset_count())
                .with("epoch", batch.leader_epoch())
                .with("crc", if batch.check_crc().is_ok() { "ok" } else { "DAMAGED" });
            batch_values(line, body)
        }
    }
}

fn ent(bytes: &Bytes, out: &mut Out<'_>) {
    let Some(h) = EntHeader::decode(bytes) else {
        out.bad(0, "no header of an entry table");
        return;
    };
    let line = Line::new("table")
        .with("gid", format!("{:016x}", h.gid.0))
        .with("base_index", h.base_index)
        .with("base_offset", h.base_offset)
        .with("prev_term", h.prev_term)
        .with("generation", h.generation)
        .with("created_ms", h.created_ms);
    let mut go = out.line(line);
    let mut at = HEADER_BYTES;
    while go && at < bytes.len() {
        if let Some(row) = row::decode_row(&bytes[at..], h.gid, h.base_index) {
            go = out.line(row_line(&row));
            at += ROW_BYTES;
        } else if let Some(f) = Footer::decode(&bytes[at..]) {
            let line = Line::new("footer")
                .with("rows", f.rows)
                .with("last_index", f.last_index)
                .with("next_offset", f.next_offset)
                .with("log_len", f.log_len)
                .with("ext_len", f.ext_len)
                .with("txn_len", f.txn_len)
                .with("min_ts", f.min_ts)
                .with("max_ts", f.max_ts)
                .with("last_term", f.last_term);
            go = out.line(line);
            at += FOOTER_BYTES;
        } else {
            go = out.bad(at, "neither row nor footer");
            at += ROW_BYTES;
        }
    }
}

fn row_line(row: &Row) -> Line {
    let line = Line::new("row")
        .with("index", row.index)
        .with("term", row.term)
        .with("kind", format!("{:?}", row.kind).to_lowercase())
        .with("flags", format!("{:#04x}", row.flags))
        .with("base_offset", row.base_offset)
        .with("count", row.count)
        .with("max_ts", row.max_ts)
        .with("pos", row.pos)
        .with("len", row.len);
    if row.ext_len == 0 { line } else { line.with("ext_pos", row.ext_pos).with("ext_len", row.ext_len) }
}

/// Contexts have no frame of their own: the table beside says where each one is.
fn ext(disk: &dyn Disk, path: &str, out: &mut Out<'_>) -> Result<(), DiskError> {
    let table = format!("{}.ent", path.trim_end_matches(".ext"));
    let bytes = disk.read(&table, 0, usize::MAX)?;
    let Some(h) = EntHeader::decode(&bytes) else {
        out.bad(0, "the entry table beside it has no header");
        return Ok(());
    };
    let rows = bytes[HEADER_BYTES..].chunks_exact(ROW_BYTES);
    for row in rows.filter_map(|bytes| row::decode_row(bytes, h.gid, h.base_index)).filter(|r| r.ext_len > 0) {
        let record = disk.read(path, u64::from(row.ext_pos), usize::from(row.ext_len))?;
        let text = match row::decode_ext(row.index, &record) {
            Some(context) => context_text(&Bytes::copy_from_slice(context)),
            None => "DAMAGED".to_owned(),
        };
        if !out.line(Line::new("context").with("index", row.index).with("at", row.ext_pos).with("context", text)) {
            break;
        }
    }
    Ok(())
}

fn txn(bytes: &Bytes, out: &mut Out<'_>) {
    for (n, row) in bytes.chunks(txn::ROW_BYTES).enumerate() {
        let Some(a) = Aborted::decode(row) else {
            if !out.bad(n * txn::ROW_BYTES, "not a whole row") {
                return;
            }
            continue;
        };
        let line = Line::new("aborted")
            .with("producer", a.producer.0)
            .with("first", a.first)
            .with("marker", a.last)
            .with("last_stable", a.last_stable);
        if !out.line(line) {
            return;
        }
    }
}

fn snap(bytes: &Bytes, out: &mut Out<'_>) {
    let Some(snap) = Snap::decode(bytes) else {
        out.bad(0, "not a whole snapshot");
        return;
    };
    let gid = format!("{:016x}", snap.gid.0);
    let line = Line::new("snap").with("gid", gid).with("index", snap.index).with("next_offset", snap.next_offset);
    let mut go = out.line(line);
    for (kind, section) in sections(&snap.payload).unwrap_or_default() {
        let line = Line::new("section").with("type", kind).with("bytes", section.len());
        let line = match kind {
            1 => match crate::producer::Producers::decode(section) {
                Some(p) => line.with("producers", p.len()),
                None => line.with("DAMAGED", "producers"),
            },
            2 => match crate::capture_pos::Captures::decode(section) {
                Some(c) => line.with("captures", c.len()),
                None => line.with("DAMAGED", "captures"),
            },
            _ => line,
        };
        go = go && out.line(line);
    }
}
