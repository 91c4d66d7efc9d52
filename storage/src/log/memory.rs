//! Pure. What a log keeps in memory beside its rows, and when it lets go of it: bytes of entries that are in files, producers
//! that nothing is heard of any more.

use super::{Log, entry_bytes};
use bytes::Bytes;
use catchwater_base::mutant;
use catchwater_record::EntryIndex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of placed entries that all logs of a node keep in memory together, [`super::ENTRY_COST`] included.
#[derive(Debug)]
pub struct TailBudget {
    used: AtomicU64,
    limit_bytes: u64,
}

impl TailBudget {
    pub fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(TailBudget { used: AtomicU64::new(0), limit_bytes })
    }
    pub fn used_bytes(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
    pub(super) fn add(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }
    pub(super) fn sub(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
    pub(super) fn over(&self) -> bool {
        self.used_bytes() > self.limit_bytes
    }
}

impl Log {
    /// Forgets producers that nothing was heard of for `idle_ms`.
    pub fn expire_producers(&mut self, now_ms: i64, idle_ms: i64) -> usize {
        self.producers.look(now_ms, idle_ms);
        self.evict_producers(now_ms.saturating_sub(idle_ms), usize::MAX)
    }

    /// Adds when each producer that may be forgotten was heard of last, ms.
    pub fn idle_producers(&mut self, now_ms: i64, idle_ms: i64, out: &mut Vec<i64>) {
        self.producers.look(now_ms, idle_ms);
        out.extend(self.producers.idle_since());
    }

    /// Forgets at most so many producers that nothing was heard of since `before_ms`, as of the last look.
    pub fn evict_producers(&mut self, before_ms: i64, most: usize) -> usize {
        // What an undo record names may come back by a truncation; it goes the next time.
        let gone = self.producers.forget(before_ms, most);
        self.tell_producers();
        gone
    }

    /// Lets go of bytes that are in files, oldest first, down to `keep_bytes`. Called under memory pressure too.
    pub fn shrink_tail(&mut self, keep_bytes: u64) {
        let placed = self.table.placed_end();
        while mutant!("tail_drops_what_no_file_has") && !self.cache.is_empty() {
            if let Some(entry) = self.cache.pop_front() {
                self.cache_bytes -= entry_bytes(&entry);
                self.release(if entry.index <= placed { entry_bytes(&entry) } else { 0 });
            }
        }
        while self.cache_placed_bytes > keep_bytes && self.cache.front().is_some_and(|e| e.index <= placed) {
            if let Some(entry) = self.cache.pop_front() {
                self.cache_bytes -= entry_bytes(&entry);
                self.release(entry_bytes(&entry));
            }
        }
        if self.cache.is_empty() {
            self.cache = VecDeque::new();
        }
    }

    pub(super) fn release(&mut self, bytes: u64) {
        self.cache_placed_bytes -= bytes;
        if let Some(budget) = &self.config.budget {
            budget.sub(bytes);
        }
    }

    /// What recovery brought are slices of whole journal files. Those that stay for readers are copied once they are in files,
    /// a few at a time and behind the start: as the start's own work, beside the reading of the journal, it was a third of it.
    pub(super) fn own(&mut self, from: EntryIndex, to: EntryIndex) {
        let to = to.min(self.borrowed_to);
        let Some(front) = self.cache.front().filter(|_| from <= to) else { return };
        let skip = from.0.saturating_sub(front.index.0) as usize;
        for entry in self.cache.iter_mut().skip(skip).take_while(|e| e.index <= to) {
            entry.body = Bytes::copy_from_slice(&entry.body);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::tests::{Writer, fresh, push, spec};
    use super::*;
    use crate::entry::RecoveredGroup;
    use crate::log::LogConfig;

    #[test]
    fn a_journal_file_leaves_memory_once_its_entries_are_in_files() {
        let mut before = fresh(LogConfig::default());
        for _ in 0..6 {
            push(&mut before, 1, 1, 0);
        }
        let entries: Vec<_> = (1..=6).map(|i| before.cached(EntryIndex(i)).unwrap().clone()).collect();
        // The file, and each entry's body as a part of it.
        let file = Bytes::from(entries.iter().flat_map(|e| e.body.to_vec()).collect::<Vec<_>>());
        let mut found = RecoveredGroup::fresh(before.gid(), spec());
        let mut at = 0;
        for mut entry in entries.clone() {
            let end = at + entry.body.len();
            entry.body = file.slice(at..end);
            at = end;
            found.journaled.push(entry);
        }
        let mut log = Log::open(found).unwrap();
        assert!(!file.is_unique());
        let mut writer = Writer { per_segment: 4, placed: vec![] };
        for upto in [4, 6] {
            let placed = writer.place(&log, EntryIndex(upto));
            log.segmented(EntryIndex(upto), &placed);
            assert_eq!(file.is_unique(), upto == 6, "{upto}");
        }
        for entry in &entries {
            assert_eq!(log.cached(entry.index).unwrap(), entry);
        }
    }
}
