//! Pure. The journal's bytes: file block, flushes, frames, directory. Page: `docs/formats/journal.md`.
//!
//! ```text
//! file block 0   0 magic "CWJF"  4 version u16  6 block_log2 u16 = 12  8 file_gen u64  16 first_lsn u64  24 dir_id[16]
//!               40 created_ms i64  48 blocks u32  52 zero[8]  60 crc u32 (bytes 0..60), zero to 4096
//! flush header   0 magic "CWJ1"  4 crc u32 (bytes 8..64)  8 lsn u64  16 file_gen u64  24 durable_lsn u64
//!               32 frames_len u32  36 frame_count u32  40 dir_crc u32  44 flags u32  48 dir_id[16]
//! frame header   0 crc u32 (bytes 4..64 + context)  4 kind u8  5 entry_kind u8  6 ctx_len u16  8 lsn u64  16 gid u64
//!               24 index u64  32 term u32  36 count u32  40 base_offset u64  48 max_ts i64  56 body_len u32
//!               60 body_crc u32;   then context, then body, then zeros to a multiple of 8
//! directory row  0 gid u64  8 index u64  16 kind u8  17 entry_kind u8  18 zero u16  20 frame offset u32 (from the flush)
//! ```
//! A flush starts on a 4 KiB boundary and is never rewritten. Frames repeat the lsn, the directory repeats group and
//! index: one flipped bit anywhere costs at most one frame, and whose it was is known.

use super::{Le, Put, prefix, sane, set_u32};
use crate::disk::{AlignedBuf, BLOCK_BYTES};
use crate::entry::{EntryKind, Frame, GroupSpec, Hard, Mark, MarkKind, NewEntry, derive_flags};
use bytes::Bytes;
use catchwater_base::mutant;
use catchwater_record::crc::{crc32c, crc32c_of};
use catchwater_record::{BatchView, EntryIndex, Gid, LeaderEpoch, Offset, PartitionId, TopicId};

pub const FILE_MAGIC: &[u8; 4] = b"CWJF";
pub const FLUSH_MAGIC: &[u8; 4] = b"CWJ1";
pub const VERSION: u16 = 1;
pub const HEADER_BYTES: usize = 64;
pub const FRAME_HEADER_BYTES: usize = 64;
pub const DIRECTORY_ROW_BYTES: usize = 24;
/// Flush flags.
pub const FLAG_SEAL: u32 = 1;
pub const FLAG_CLEAN_STOP: u32 = 2;
/// Longest body a reader accepts, bytes: the largest batch.
pub const BODY_BYTES_MAX: usize = 64 << 20;

/// Block 0 of a journal file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileHeader {
    pub file_gen: u64,
    pub first_lsn: u64,
    pub dir_id: [u8; 16],
    pub created_ms: i64,
    /// Length of the file in blocks, this one included: a shorter file was cut. 0 = not said, by builds that did not.
    pub blocks: u32,
}

impl FileHeader {
    /// One whole block.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Put::with_capacity(BLOCK_BYTES);
        out.bytes(FILE_MAGIC).u16(VERSION).u16(12).u64(self.file_gen).u64(self.first_lsn).bytes(&self.dir_id);
        out.i64(self.created_ms).u32(self.blocks).zeros(8).u32(0);
        let crc = crc32c(&out.0[..60]);
        set_u32(&mut out.0, 60, crc);
        out.zeros(BLOCK_BYTES - HEADER_BYTES);
        out.0
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < HEADER_BYTES || &bytes[0..4] != FILE_MAGIC {
            return None;
        }
        let le = Le(bytes);
        if le.u16(4) != VERSION || le.u16(6) != 12 || crc32c(&bytes[..60]) != le.u32(60) {
            return None;
        }
        let header = FileHeader {
            file_gen: le.u64(8),
            first_lsn: le.u64(16),
            dir_id: le.b16(24),
            created_ms: le.i64(40),
            blocks: le.u32(48),
        };
        sane([header.file_gen, header.first_lsn]).then_some(header)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlushHeader {
    pub lsn: u64,
    pub file_gen: u64,
    /// Flushes up to here were durable when this one was submitted.
    pub durable_lsn: u64,
    pub frames_len: u32,
    pub frame_count: u32,
    pub dir_crc: u32,
    pub flags: u32,
    pub dir_id: [u8; 16],
}

impl FlushHeader {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = Put::with_capacity(HEADER_BYTES);
        out.bytes(FLUSH_MAGIC).u32(0).u64(self.lsn).u64(self.file_gen).u64(self.durable_lsn);
        out.u32(self.frames_len).u32(self.frame_count).u32(self.dir_crc).u32(self.flags).bytes(&self.dir_id);
        let crc = crc32c(&out.0[8..HEADER_BYTES]);
        set_u32(&mut out.0, 4, crc);
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&out.0);
        header
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < HEADER_BYTES || &bytes[0..4] != FLUSH_MAGIC {
            return None;
        }
        let le = Le(bytes);
        if crc32c(&bytes[8..HEADER_BYTES]) != le.u32(4) {
            return None;
        }
        // A flush knows only of flushes before it.
        if !sane([le.u64(8), le.u64(16)]) || le.u64(24) > le.u64(8) {
            return None;
        }
        Some(FlushHeader {
            lsn: le.u64(8),
            file_gen: le.u64(16),
            durable_lsn: le.u64(24),
            frames_len: le.u32(32),
            frame_count: le.u32(36),
            dir_crc: le.u32(40),
            flags: le.u32(44),
            dir_id: le.b16(48),
        })
    }

    /// Bytes of the whole flush, padding included; `None` if the numbers make no sense.
    pub fn flush_bytes(&self) -> Option<usize> {
        let dir = (self.frame_count as usize).checked_mul(DIRECTORY_ROW_BYTES)?;
        let used = HEADER_BYTES.checked_add(self.frames_len as usize)?.checked_add(dir)?;
        Some(used.div_ceil(BLOCK_BYTES) * BLOCK_BYTES)
    }
}

const KIND_ENTRY: u8 = 1;
const KIND_HARD: u8 = 3;
const KIND_CREATE: u8 = 4;
const KIND_SNAP: u8 = 5;
const KIND_DIRTY: u8 = 6;
const KIND_SYNCED: u8 = 7;
const KIND_MODE: u8 = 9;
const KIND_DROP: u8 = 10;

/// `count` of a HARD frame of a group that has files; builds before it neither wrote nor looked at it.
const IN_FILES: u32 = 1;

/// The number under which a frame is stored.
pub fn frame_kind(frame: &Frame) -> u8 {
    match frame {
        Frame::Entry(..) => KIND_ENTRY,
        Frame::Hard(..) | Frame::HardInFiles(..) => KIND_HARD,
        Frame::Create(..) => KIND_CREATE,
        Frame::Snapshot(..) => KIND_SNAP,
        Frame::Drop(..) => KIND_DROP,
        Frame::Mark(_, mark) => match mark.kind {
            MarkKind::Dirty => KIND_DIRTY,
            MarkKind::Synced => KIND_SYNCED,
            MarkKind::Relaxed | MarkKind::Fsync => KIND_MODE,
        },
    }
}

/// Bytes a frame takes in a flush, directory row included.
pub fn frame_bytes(frame: &Frame) -> usize {
    let content = match frame {
        Frame::Entry(_, entry) => entry.context.len() + entry.body.len(),
        Frame::Hard(..) | Frame::HardInFiles(..) | Frame::Drop(..) | Frame::Mark(..) => 0,
        Frame::Create(_, spec) => 32 + spec.conf.len(),
        Frame::Snapshot(_, s) => prefix::encoded_len(s),
    };
    (FRAME_HEADER_BYTES + content).next_multiple_of(8) + DIRECTORY_ROW_BYTES
}

/// Builds one flush in place.
pub struct FlushBuilder {
    buf: AlignedBuf,
    lsn: u64,
    limit: usize,
    directory: Vec<u8>,
    count: u32,
}

impl FlushBuilder {
    /// `buf` is reused; its content is lost. The flush takes at most `limit` bytes, a multiple of the block size.
    pub fn new(mut buf: AlignedBuf, lsn: u64, limit: usize) -> Self {
        buf.clear();
        buf.put_zeros(HEADER_BYTES);
        let limit = limit.min(buf.capacity());
        FlushBuilder { buf, lsn, limit, directory: Vec::new(), count: 0 }
    }

    /// Gives the buffer back unused.
    pub fn abandon(self) -> AlignedBuf {
        self.buf
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    /// True if the frame still fits into the buffer.
    pub fn fits(&self, frame: &Frame) -> bool {
        let used = self.buf.len() + self.directory.len() + frame_bytes(frame);
        used <= self.limit
    }

    pub fn push(&mut self, frame: &Frame) {
        let at = self.buf.len();
        let mut create = Vec::new();
        let empty = Bytes::new();
        let (entry_kind, index, term, count, base_offset, max_ts, context, body): (
            u8,
            u64,
            u32,
            u32,
            u64,
            i64,
            &[u8],
            &[u8],
        ) = match frame {
            Frame::Entry(_, e) => {
                (e.kind as u8, e.index.0, e.term.0, e.count, e.base_offset.0, e.max_ts, &e.context, &e.body)
            }
            Frame::Hard(_, h) => (0, h.commit.0, h.term, 0, h.vote, 0, &empty, &empty),
            Frame::HardInFiles(_, h) => (0, h.commit.0, h.term, IN_FILES, h.vote, 0, &empty, &empty),
            Frame::Create(_, spec) => {
                encode_create(spec, &mut create);
                (0, 0, 0, 0, 0, 0, &empty, &create)
            }
            Frame::Snapshot(_, snapshot) => {
                prefix::encode(snapshot, &mut create);
                (0, snapshot.index.0, snapshot.term, 0, snapshot.next_offset.0, 0, &empty, &create)
            }
            Frame::Drop(_) => (0, 0, 0, 0, 0, 0, &empty, &empty),
            Frame::Mark(_, m) => {
                let mode = u32::from(m.kind == MarkKind::Relaxed);
                (0, m.index.0, m.term.0, mode, 0, 0, &empty, &empty)
            }
        };
        let body_crc = match frame {
            // Hashed once: the batch's own CRC field stands for the body.
            Frame::Entry(_, e) if e.kind == EntryKind::Data && body.len() >= 21 => {
                u32::from_be_bytes([body[17], body[18], body[19], body[20]])
            }
            _ => crc32c(body),
        };
        let gid = frame.gid().0;
        let kind = frame_kind(frame);
        // Built in place: a journal at work writes hundreds of thousands a second.
        let mut header = [0u8; FRAME_HEADER_BYTES];
        header[4] = kind;
        header[5] = entry_kind;
        header[6..8].copy_from_slice(&(context.len() as u16).to_le_bytes());
        header[8..16].copy_from_slice(&self.lsn.to_le_bytes());
        header[16..24].copy_from_slice(&gid.to_le_bytes());
        header[24..32].copy_from_slice(&index.to_le_bytes());
        header[32..36].copy_from_slice(&term.to_le_bytes());
        header[36..40].copy_from_slice(&count.to_le_bytes());
        header[40..48].copy_from_slice(&base_offset.to_le_bytes());
        header[48..56].copy_from_slice(&max_ts.to_le_bytes());
        header[56..60].copy_from_slice(&(body.len() as u32).to_le_bytes());
        header[60..64].copy_from_slice(&body_crc.to_le_bytes());
        let crc = crc32c_of(&[&header[4..], context]);
        set_u32(&mut header, 0, crc);
        self.buf.put(&header);
        self.buf.put(context);
        self.buf.put(body);
        self.buf.put_zeros(self.buf.len().next_multiple_of(8) - self.buf.len());
        let mut row = Put(std::mem::take(&mut self.directory));
        row.u64(gid).u64(index).u8(kind).u8(entry_kind).u16(0).u32(at as u32);
        self.directory = row.0;
        self.count += 1;
    }

    /// Adds directory and padding and fills in the header.
    pub fn finish(mut self, file_gen: u64, durable_lsn: u64, flags: u32, dir_id: [u8; 16]) -> AlignedBuf {
        let header = FlushHeader {
            lsn: self.lsn,
            file_gen,
            durable_lsn,
            frames_len: (self.buf.len() - HEADER_BYTES) as u32,
            frame_count: self.count,
            dir_crc: crc32c(&self.directory),
            flags,
            dir_id,
        };
        self.buf.put(&self.directory);
        self.buf.pad();
        self.buf.bytes_mut()[..HEADER_BYTES].copy_from_slice(&header.encode());
        self.buf
    }
}

fn encode_create(spec: &GroupSpec, out: &mut Vec<u8>) {
    let mut put = Put(std::mem::take(out));
    put.bytes(&spec.topic.0).u32(spec.partition.0).u32(spec.incarnation);
    // The mode, always 0 today, in the lowest byte.
    put.u64(spec.conf_index.0 << 8).bytes(&spec.conf);
    *out = put.0;
}

fn decode_create(body: &Bytes) -> Option<GroupSpec> {
    if body.len() < 32 {
        return None;
    }
    let le = Le(body);
    Some(GroupSpec {
        topic: TopicId(le.b16(0)),
        partition: PartitionId(le.u32(16)),
        incarnation: le.u32(20),
        // Kept as long as the group lives: not as a part of a whole journal file.
        conf: Bytes::copy_from_slice(&body[32..]),
        conf_index: EntryIndex(le.u64(24) >> 8),
    })
}

/// One directory row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirectoryRow {
    pub gid: Gid,
    pub index: u64,
    pub kind: u8,
    pub entry_kind: u8,
    pub at: u32,
}

impl DirectoryRow {
    fn decode(bytes: &[u8]) -> Self {
        let le = Le(bytes);
        DirectoryRow { gid: Gid(le.u64(0)), index: le.u64(8), kind: le.u8(16), entry_kind: le.u8(17), at: le.u32(20) }
    }
    pub fn is_hard(&self) -> bool {
        self.kind == KIND_HARD
    }
    pub fn is_entry(&self) -> bool {
        self.kind == KIND_ENTRY
    }
    pub fn is_snapshot(&self) -> bool {
        self.kind == KIND_SNAP
    }
    pub fn is_mark(&self) -> bool {
        matches!(self.kind, KIND_DIRTY | KIND_SYNCED | KIND_MODE)
    }
}

/// A frame that could be read, and the bytes it took (without padding).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    pub frame: Frame,
    pub lsn: u64,
    pub len: usize,
}

/// Reads one frame; `None` if it is not whole and undamaged. Frames of kinds this version does not write are damaged to it.
pub fn decode_frame(bytes: &Bytes) -> Option<Found> {
    if bytes.len() < FRAME_HEADER_BYTES {
        return None;
    }
    let le = Le(bytes);
    let (ctx_len, body_len) = (le.u16(6) as usize, le.u32(56) as usize);
    if body_len > BODY_BYTES_MAX || !sane([le.u64(24)]) {
        return None;
    }
    let body_at = FRAME_HEADER_BYTES + ctx_len;
    let end = body_at + body_len;
    if end > bytes.len()
        || (crc32c_of(&[&bytes[4..FRAME_HEADER_BYTES], &bytes[FRAME_HEADER_BYTES..body_at]]) != le.u32(0)
            && !mutant!("no_crc_at_recovery"))
    {
        return None;
    }
    let (kind, entry_kind, gid) = (le.u8(4), le.u8(5), Gid(le.u64(16)));
    let (index, term, count, base_offset) = (le.u64(24), le.u32(32), le.u32(36), le.u64(40));
    let body = bytes.slice(body_at..end);
    let body_crc = le.u32(60);
    let frame = match kind {
        KIND_ENTRY if !sane([base_offset]) => return None,
        KIND_ENTRY => {
            let kind = EntryKind::from_byte(entry_kind)?;
            let context = bytes.slice(FRAME_HEADER_BYTES..body_at);
            if kind == EntryKind::Data {
                let batch = BatchView::new(&body).ok()?;
                let sums = batch.crc() == body_crc && batch.check_crc().is_ok();
                let agrees = (sums || mutant!("no_crc_at_recovery"))
                    && batch.base_offset() == Offset(base_offset).wire()
                    && batch.leader_epoch() == term as i32
                    && batch.offset_count() == count;
                if !agrees {
                    return None;
                }
            } else if crc32c(&body) != body_crc {
                return None;
            }
            Frame::Entry(
                gid,
                NewEntry {
                    index: EntryIndex(index),
                    term: LeaderEpoch(term),
                    kind,
                    flags: derive_flags(kind, &body, &context),
                    base_offset: Offset(base_offset),
                    count,
                    max_ts: le.i64(48),
                    body,
                    context,
                },
            )
        }
        _ if crc32c(&body) != body_crc => return None,
        KIND_HARD => {
            let hard = Hard { term, vote: base_offset, commit: EntryIndex(index) };
            if count == IN_FILES { Frame::HardInFiles(gid, hard) } else { Frame::Hard(gid, hard) }
        }
        KIND_CREATE => Frame::Create(gid, decode_create(&body)?),
        KIND_SNAP => Frame::Snapshot(gid, Box::new(prefix::decode(&body)?)),
        KIND_DROP => Frame::Drop(gid),
        KIND_DIRTY | KIND_SYNCED | KIND_MODE => {
            let kind = match (kind, count) {
                (KIND_DIRTY, _) => MarkKind::Dirty,
                (KIND_SYNCED, _) => MarkKind::Synced,
                (_, 0) => MarkKind::Fsync,
                (_, 1) => MarkKind::Relaxed,
                _ => return None,
            };
            Frame::Mark(gid, Mark { kind, index: EntryIndex(index), term: LeaderEpoch(term) })
        }
        _ => return None,
    };
    Some(Found { frame, lsn: le.u64(8), len: end })
}

/// What a flush holds, as far as it can be read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FlushContent {
    pub frames: Vec<Frame>,
    /// Frames that were there and are damaged; `None` in the list = it is not known whose.
    pub lost: Vec<Option<DirectoryRow>>,
}

impl FlushContent {
    pub fn is_whole(&self) -> bool {
        self.lost.is_empty()
    }
}

/// Reads the frames of a flush whose header is valid. `bytes` starts at the flush and may be short (end of file).
pub fn decode_flush(header: &FlushHeader, bytes: &Bytes) -> FlushContent {
    let count = header.frame_count as usize;
    let dir_at = HEADER_BYTES + header.frames_len as usize;
    let dir_end = count.checked_mul(DIRECTORY_ROW_BYTES).and_then(|n| n.checked_add(dir_at));
    let directory = dir_end
        .filter(|end| *end <= bytes.len())
        .map(|end| &bytes[dir_at..end])
        .filter(|rows| crc32c(rows) == header.dir_crc || mutant!("no_crc_at_recovery"));
    let mut out = FlushContent::default();
    if let Some(directory) = directory {
        for row in directory.chunks_exact(DIRECTORY_ROW_BYTES).map(DirectoryRow::decode) {
            let at = row.at as usize;
            let found = (at <= dir_at).then(|| bytes.slice(at..dir_at)).and_then(|frame| decode_frame(&frame));
            match found {
                Some(found) if found.lsn == header.lsn && found.frame.gid() == row.gid => out.frames.push(found.frame),
                _ => out.lost.push(Some(row)),
            }
        }
        return out;
    }
    let end = dir_at.min(bytes.len());
    let (frames, _) = walk(header.lsn, bytes, end);
    let missing = count.saturating_sub(frames.len());
    out.frames = frames;
    // One entry stands for any number of them: nobody's frame in particular is the answer either way.
    out.lost.extend((missing > 0).then_some(None));
    out
}

/// Reads a flush whose header is damaged: frame by frame while they carry `lsn`, then checks that what follows is the
/// directory of exactly these frames. Without that proof one unknown frame counts as lost.
pub fn salvage_flush(lsn: u64, bytes: &Bytes) -> FlushContent {
    let (frames, end) = walk(lsn, bytes, bytes.len());
    if frames.is_empty() {
        // A seal with one bad bit, or a flush that is not there at all?
        let seal = bytes.len() >= HEADER_BYTES && {
            let le = Le(bytes);
            (&bytes[..4] == FLUSH_MAGIC || le.u64(8) == lsn) && (le.u32(32) == 0 || le.u32(36) == 0)
        };
        let empty = seal && bytes[HEADER_BYTES..].iter().take(BLOCK_BYTES - HEADER_BYTES).all(|b| *b == 0);
        return FlushContent { frames, lost: if empty { Vec::new() } else { vec![None] } };
    }
    let rows = &bytes[end.min(bytes.len())..];
    let complete = rows.len() >= frames.len() * DIRECTORY_ROW_BYTES
        && frames.iter().zip(rows.chunks_exact(DIRECTORY_ROW_BYTES)).all(|(frame, row)| {
            let row = DirectoryRow::decode(row);
            row.gid == frame.gid() && row.kind == frame_kind(frame)
        })
        && rows[frames.len() * DIRECTORY_ROW_BYTES..]
            .iter()
            .take((BLOCK_BYTES - (end + frames.len() * DIRECTORY_ROW_BYTES) % BLOCK_BYTES) % BLOCK_BYTES)
            .all(|b| *b == 0);
    FlushContent { lost: if complete { Vec::new() } else { vec![None] }, frames }
}

fn walk(lsn: u64, bytes: &Bytes, end: usize) -> (Vec<Frame>, usize) {
    let mut frames = Vec::new();
    let mut at = HEADER_BYTES;
    while at < end {
        match decode_frame(&bytes.slice(at..end)) {
            Some(found) if found.lsn == lsn => {
                at += found.len.next_multiple_of(8);
                frames.push(found.frame);
            }
            _ => break,
        }
    }
    (frames, at.min(bytes.len()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::assert_golden;
    use super::*;
    use catchwater_record::batch::{build::Builder, patch};

    const DIR: [u8; 16] = [0xd1; 16];

    fn data_entry(index: u64, offset: u64) -> NewEntry {
        let mut builder = Builder::new();
        builder.push(1_600_000_000_000, Some(b"k"), Some(b"v"), std::iter::empty());
        let mut batch = builder.finish();
        patch(&mut batch, Offset(offset), LeaderEpoch(3));
        let body = batch.freeze();
        NewEntry {
            index: EntryIndex(index),
            term: LeaderEpoch(3),
            kind: EntryKind::Data,
            flags: 0,
            base_offset: Offset(offset),
            count: 1,
            max_ts: 1_600_000_000_000,
            body,
            context: Bytes::new(),
        }
    }

    /// An entry whose batch has exactly so many bytes.
    fn entry_of(bytes: usize) -> NewEntry {
        let build = |value: usize| {
            let mut builder = Builder::new();
            builder.push(1_600_000_000_000, None, Some(&vec![b'v'; value]), std::iter::empty());
            builder.finish()
        };
        let mut batch = build(bytes - (build(bytes).len() - bytes));
        assert_eq!(batch.len(), bytes);
        patch(&mut batch, Offset(0), LeaderEpoch(3));
        NewEntry { body: batch.freeze(), ..data_entry(1, 0) }
    }

    #[test]
    fn a_batch_at_the_bound_reads_back_and_one_byte_more_is_refused() {
        for (bytes, whole) in [(BODY_BYTES_MAX, true), (BODY_BYTES_MAX + 1, false)] {
            let frame = Frame::Entry(Gid(1), entry_of(bytes));
            let room = (HEADER_BYTES + frame_bytes(&frame)).next_multiple_of(BLOCK_BYTES);
            let mut builder = FlushBuilder::new(AlignedBuf::with_capacity(room), 5, room);
            assert!(builder.fits(&frame));
            builder.push(&frame);
            let flush = Bytes::copy_from_slice(builder.finish(1, 4, 0, DIR).bytes());
            let content = decode_flush(&FlushHeader::decode(&flush).unwrap(), &flush);
            assert_eq!((content.is_whole(), content.frames.len()), (whole, usize::from(whole)), "{bytes} bytes");
            assert!(!whole || content.frames[0] == frame);
        }
    }

    fn frames() -> Vec<Frame> {
        let spec = GroupSpec {
            topic: TopicId([0x70; 16]),
            partition: PartitionId(2),
            incarnation: 1,
            conf: Bytes::from_static(&[1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]),
            conf_index: EntryIndex::ZERO,
        };
        let noop = NewEntry {
            index: EntryIndex(1),
            term: LeaderEpoch(3),
            kind: EntryKind::Noop,
            flags: 0,
            base_offset: Offset(0),
            count: 0,
            max_ts: -1,
            body: Bytes::new(),
            context: Bytes::new(),
        };
        vec![
            Frame::Create(Gid(5), spec),
            Frame::Hard(Gid(5), Hard { term: 3, vote: 0x0000_0001_0000_0001, commit: EntryIndex(0) }),
            Frame::Entry(Gid(5), noop),
            Frame::Entry(Gid(5), data_entry(2, 0)),
            Frame::Drop(Gid(4)),
        ]
    }

    #[test]
    fn a_create_frame_says_as_of_which_entry_its_members_are() {
        for conf_index in [0, 7, (1 << 56) - 1].map(EntryIndex) {
            let [Frame::Create(_, spec), ..] = &frames()[..] else { panic!("the first one") };
            let spec = GroupSpec { conf_index, ..spec.clone() };
            let mut bytes = Vec::new();
            encode_create(&spec, &mut bytes);
            assert_eq!(bytes[24], 0, "the mode");
            assert_eq!(decode_create(&Bytes::from(bytes)), Some(spec));
        }
    }

    fn flush() -> Bytes {
        let mut builder = FlushBuilder::new(AlignedBuf::with_capacity(8192), 42, 8192);
        for frame in frames() {
            assert!(builder.fits(&frame));
            builder.push(&frame);
        }
        Bytes::copy_from_slice(builder.finish(6, 41, 0, DIR).bytes())
    }

    #[test]
    fn golden_bytes() {
        let header = FileHeader { file_gen: 6, first_lsn: 42, dir_id: DIR, created_ms: 1_700_000_000_000, blocks: 16 };
        assert_golden("journal.md", "journal file block", &header.encode());
        assert_eq!(FileHeader::decode(&header.encode()), Some(header));
        assert_golden("journal.md", "journal flush", &flush());
    }

    #[test]
    fn marks_keep_their_numbers_and_read_back() {
        let mark = |kind| Frame::Mark(Gid(3), Mark { kind, index: EntryIndex(77), term: LeaderEpoch(5) });
        let kinds =
            [(MarkKind::Dirty, 6, 0), (MarkKind::Synced, 7, 0), (MarkKind::Relaxed, 9, 1), (MarkKind::Fsync, 9, 0)];
        for (kind, number, count) in kinds {
            let frame = mark(kind);
            let mut builder = FlushBuilder::new(AlignedBuf::with_capacity(4096), 8, 4096);
            builder.push(&frame);
            let flush = Bytes::copy_from_slice(builder.finish(1, 7, 0, DIR).bytes());
            let stored = &flush[HEADER_BYTES..HEADER_BYTES + FRAME_HEADER_BYTES];
            assert_eq!((stored[4], stored[24], stored[32], stored[36]), (number, 77, 5, count), "{kind:?}");
            let content = decode_flush(&FlushHeader::decode(&flush).unwrap(), &flush);
            assert_eq!((content.frames, content.lost), (vec![frame], Vec::new()));
        }
    }

    #[test]
    fn a_flush_reads_back() {
        let bytes = flush();
        let header = FlushHeader::decode(&bytes).unwrap();
        assert_eq!(header.flush_bytes(), Some(bytes.len()));
        let content = decode_flush(&header, &bytes);
        assert!(content.is_whole());
        assert_eq!(content.frames, frames());
        let salvaged = salvage_flush(42, &bytes);
        assert_eq!((salvaged.frames, salvaged.lost), (frames(), Vec::new()));
    }

    #[test]
    fn one_flipped_bit_costs_at_most_one_frame_whose_owner_is_known() {
        let whole = flush();
        let all = frames();
        for bit in 0..whole.len() * 8 {
            let mut bad = whole.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            let bad = Bytes::from(bad);
            let content = match FlushHeader::decode(&bad) {
                Some(header) => decode_flush(&header, &bad),
                None => salvage_flush(42, &bad),
            };
            assert!(content.lost.len() <= 1, "bit {bit}");
            assert!(content.frames.len() + content.lost.len() >= all.len(), "bit {bit}");
            for lost in &content.lost {
                let lost = lost.expect("with one flipped bit the owner is known");
                assert!(lost.gid == Gid(5) || lost.gid == Gid(4));
            }
            assert!(content.frames.iter().all(|f| all.contains(f)), "bit {bit} gave wrong bytes");
        }
    }

    #[test]
    fn hostile_counts_are_bounded_by_the_bytes() {
        let bytes = flush();
        let mut header = FlushHeader::decode(&bytes).unwrap();
        header.frame_count = u32::MAX;
        header.frames_len = u32::MAX;
        let content = decode_flush(&header, &bytes);
        assert_eq!(content.lost, [None]);
    }
}
