//! Pure. One flush: what goes in, and what is durable once it returned.

use super::{BLOCK_BYTES, FileState, Item, Journal, JournalEffect, JournalPoint, Lane, Persisted, What, Writing};
use crate::disk::{AlignedBuf, DiskOp};
use crate::entry::{Frame, Loose};
use crate::format::journal::{FLAG_CLEAN_STOP, FLAG_SEAL, FlushBuilder, HEADER_BYTES, frame_bytes};
use catchwater_base::{Effects, Now, mutant};
use catchwater_record::{EntryIndex, Gid};
use std::collections::BTreeMap;

impl Journal {
    pub(super) fn write_next(&mut self, now: Now, out: &mut Effects<JournalEffect>) {
        if self.writing.is_some() {
            return;
        }
        let forward = self.forward_limit();
        let seal = self.seal_at.is_some_and(|at| at <= now.mono);
        if self.queue.is_empty() && forward.is_none() && !seal && !self.closing {
            return;
        }
        let least = self.least();
        let active = self.files.iter().position(|f| f.state == FileState::Active);
        let room = active.map_or(0, |at| self.files[at].len - self.files[at].next);
        let limit = |wish: u64| {
            let wish = wish.max(self.config.buffer_bytes as u64).next_multiple_of(BLOCK_BYTES as u64);
            usize::try_from(room.min(wish)).unwrap_or(usize::MAX)
        };
        match active {
            Some(at) if room >= least => {
                // Where not both have room, the first of the queue goes: what is forwarded, put before it, could push it
                // from file to file for ever, for in the next file the same would be forwarded again.
                let both = |last: &u64| least + self.forward_bytes(*last) + 2 * BLOCK_BYTES as u64 <= room;
                let forward = forward.filter(both);
                self.submit_flush(at, limit(least), forward, out);
            }
            // The rest of the file is good for what is forwarded: that frees the one that is wanted next.
            Some(at) if forward.is_some_and(|last| self.forward_fits(last, limit(0))) => {
                self.submit_flush(at, limit(0), forward, out);
            }
            _ => self.switch_file(now, least, out),
        }
    }

    /// Bytes of a flush with the first frame of the queue alone, or an empty one.
    pub(super) fn least(&self) -> u64 {
        let first = self.queue.front().and_then(Item::frame).map_or(0, frame_bytes);
        (HEADER_BYTES + first).next_multiple_of(BLOCK_BYTES) as u64
    }

    /// The frames to copy forward out of flushes up to `last`.
    fn forwards(&self, last: u64) -> impl Iterator<Item = (Gid, Frame)> + '_ {
        self.heads.iter().flat_map(move |(gid, head)| {
            let gid = *gid;
            let create = head.create.iter().filter(move |(_, l)| *l <= last);
            let create = create.map(move |(spec, _)| Frame::Create(gid, spec.clone()));
            let loose = head.loose.iter().filter(move |(_, l)| *l <= last && !mutant!("mark_frame_not_forwarded"));
            let marks = loose.map(move |(l, _)| Frame::Mark(gid, l.mark()));
            let hard = head.hard.iter().filter(move |(_, l)| *l <= last || head.unsaid);
            let in_files = head.in_files || head.create.is_none();
            let frame = if in_files { Frame::HardInFiles } else { Frame::Hard };
            let hard = hard.map(move |(hard, _)| frame(gid, *hard));
            create.chain(marks).chain(hard).map(move |frame| (gid, frame))
        })
    }

    fn forward_bytes(&self, last: u64) -> u64 {
        self.forwards(last).map(|(_, frame)| frame_bytes(&frame) as u64).sum()
    }

    fn forward_fits(&self, last: u64, limit: usize) -> bool {
        self.forwards(last).any(|(_, frame)| HEADER_BYTES + frame_bytes(&frame) <= limit)
    }

    pub(super) fn submit_flush(
        &mut self,
        at: usize,
        limit: usize,
        forward: Option<u64>,
        out: &mut Effects<JournalEffect>,
    ) {
        let buf = match self.buffer.take() {
            Some(buf) if buf.capacity() >= limit => buf,
            _ => AlignedBuf::with_capacity(limit),
        };
        let lsn = self.next_lsn;
        let mut builder = FlushBuilder::new(buf, lsn, limit);
        let mut items = Vec::new();
        // Nothing is in flight, so `heads` is the newest durable state; put first, nothing newer can be overtaken.
        if let Some(last) = forward {
            for (gid, frame) in self.forwards(last) {
                if builder.fits(&frame) {
                    builder.push(&frame);
                    items.push(Item { gid, what: What::Frame(frame), tag: None, forwarded: true });
                }
            }
        }
        while let Some(item) = self.queue.front() {
            if let Some(frame) = item.frame() {
                if !builder.fits(frame) {
                    break;
                }
                builder.push(frame);
            }
            items.extend(self.queue.pop_front());
        }
        let close = self.closing && self.queue.is_empty();
        let seal = builder.count() == 0;
        let flags = if close { FLAG_CLEAN_STOP } else { 0 } | if seal { FLAG_SEAL } else { 0 };
        let file = &self.files[at];
        let buf = builder.finish(file.file_gen, lsn - 1, flags, self.config.dir_id);
        let bytes = buf.len() as u64;
        let op = DiskOp::WriteDirect { path: file.path.clone(), at: file.next, buf };
        self.next_lsn += 1;
        self.seal_at = None;
        let token = self.token();
        let point = match items.iter().any(|i| i.forwarded) {
            true => JournalPoint::Forward,
            false if seal => JournalPoint::Seal,
            false => JournalPoint::Submit,
        };
        self.writing = Some((token, Writing::Flush { file: at, lsn, bytes, items, seal, close }));
        out.push(JournalEffect::Disk { token, op, lane: Lane::Commit, point });
    }

    pub(super) fn flushed(
        &mut self,
        at: usize,
        lsn: u64,
        bytes: u64,
        items: Vec<Item>,
        out: &mut Effects<JournalEffect>,
    ) {
        let file = &mut self.files[at];
        if file.next == BLOCK_BYTES as u64 {
            out.push(JournalEffect::Began(lsn));
        }
        file.last_lsn = lsn;
        file.next += bytes;
        let mut persisted: Vec<Persisted> = Vec::new();
        let mut place: BTreeMap<Gid, usize> = BTreeMap::new();
        for item in items {
            let gid = item.gid;
            match item.frame() {
                Some(Frame::Create(_, spec)) => {
                    self.heads.entry(gid).or_default().create = Some((spec.clone(), lsn));
                }
                Some(Frame::Hard(_, hard)) => self.heads.entry(gid).or_default().hard = Some((*hard, lsn)),
                Some(Frame::HardInFiles(_, hard)) => {
                    let head = self.heads.entry(gid).or_default();
                    (head.hard, head.unsaid) = (Some((*hard, lsn)), false);
                }
                Some(Frame::Mark(_, mark)) => {
                    let head = self.heads.entry(gid).or_default();
                    head.loose = Loose::fold(head.loose.map(|(l, _)| l), *mark).map(|l| (l, lsn));
                }
                Some(Frame::Drop(_)) => {
                    self.heads.remove(&gid);
                    file.pins.insert(gid, lsn);
                }
                Some(Frame::Entry(..) | Frame::Snapshot(..)) => drop(file.pins.insert(gid, lsn)),
                None => {}
            }
            if item.forwarded {
                continue;
            }
            let slot = *place.entry(gid).or_insert_with(|| {
                persisted.push(Persisted::empty(gid, lsn));
                persisted.len() - 1
            });
            let p = &mut persisted[slot];
            match item.what {
                What::Frame(Frame::Create(_, spec)) => p.create = Some(spec),
                What::Frame(Frame::Drop(_)) => p.drop = true,
                What::Frame(Frame::Snapshot(_, snapshot)) => {
                    // What was cut or written before it is void; that cuts are done is still waited for.
                    p.entries.clear();
                    p.truncate_from = None;
                    p.snapshot = Some(snapshot);
                }
                What::Truncate(EntryIndex(u64::MAX)) => {}
                What::Truncate(from) => {
                    // Entries of this very flush that a later batch of it cut again never reach a segment.
                    p.entries.retain(|e| e.index < from);
                    p.cuts += 1;
                    p.truncate_from = Some(p.truncate_from.map_or(from, |f| f.min(from)));
                }
                What::Frame(Frame::Entry(_, entry)) => {
                    p.body_bytes += entry.body.len() as u64;
                    p.entries.push(entry);
                }
                What::Frame(Frame::Hard(..) | Frame::HardInFiles(..) | Frame::Mark(..)) => {}
            }
            p.tags.extend(item.tag);
        }
        if !persisted.is_empty() {
            out.push(JournalEffect::Persisted(persisted));
        }
    }
}
