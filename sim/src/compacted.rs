//! What readers see of transactions, and what is left of a compacted log: held against what clients were told.
//!
//! The oracle of a compacted topic is a map: key → newest record of a committed transaction (or of none). What the log still
//! has must be that; a tombstone may be gone once its time has passed, and then nothing older of its key comes back.

use crate::ending::view;
use crate::workload::{Keyed, Producer, key_text};
use crate::world::{Happens, World};
use bytes::Bytes;
use catchwater_check::history::Isolation;
use catchwater_raft::GroupCore;
use catchwater_record::batch::iterate::records;
use catchwater_record::{EntryIndex, Gid, Offset};
use catchwater_storage::EntryKind;
use catchwater_storage::compact::Policy;
use catchwater_storage::compact::rows::span;
use std::collections::BTreeMap;

/// A record that was read: offset, key, row (`None` = tombstone).
type Read = (Offset, String, Option<u32>);

/// What a read_committed consumer makes of these batches: nothing from the last stable offset on, nothing that was aborted.
fn committed_view(core: &GroupCore, from: Offset, batches: &[Bytes]) -> Vec<Bytes> {
    let stable = core.log().last_stable_offset();
    let aborted: Vec<_> = core.log().aborted(from, stable).copied().collect();
    let shown = |b: &&Bytes| {
        let Some(b) = view(b) else { return false };
        let at = b.offset();
        let gone = |a: &catchwater_storage::format::txn::Aborted| {
            b.producer_id() == Some(a.producer) && a.first <= at && at <= a.last
        };
        let end = at.plus(u64::from(b.offset_count()));
        end <= stable && !b.is_control() && !(b.is_transactional() && aborted.iter().any(gone))
    };
    batches.iter().filter(shown).cloned().collect()
}

fn read_of(batches: &[Bytes]) -> Vec<Read> {
    let mut out = Vec::new();
    for b in batches.iter().filter_map(|b| view(b)).filter(|b| !b.is_control()) {
        let count = u32::try_from(b.records_count()).unwrap_or(0);
        for r in records(b.records(), count).flatten() {
            let key = String::from_utf8_lossy(r.key.unwrap_or_default()).into_owned();
            let row = |v: &[u8]| String::from_utf8_lossy(v).split(':').nth(1).and_then(|t| t.parse().ok()).unwrap_or(0);
            out.push((b.offset().plus(r.offset_delta as u64), key, r.value.map(row)));
        }
    }
    out
}

impl Producer {
    /// Was it committed (`Some(true)`), aborted, or does nobody know yet?
    fn outcome(&self, k: &Keyed) -> Option<bool> {
        k.txn.map_or(Some(true), |txn| self.ends.get(&txn).map(|(commits, _)| *commits))
    }

    /// Holds what a consumer of committed records read from `start` to `end` against what this producer was told. Tombstones made
    /// before `old` may be gone.
    fn hold_keys(&self, (start, end): (Offset, Offset), old: u64, seen: &[Read]) -> Result<(), String> {
        let known: BTreeMap<Offset, &Keyed> = self.keyed.iter().map(|k| (k.offset, k)).collect();
        let newest_row = self.keyed.iter().map(|k| k.row).max();
        let mut last: BTreeMap<&str, &Read> = BTreeMap::new();
        for read in seen.iter().filter(|(_, key, _)| key.starts_with(&format!("p{}-", self.id))) {
            let (offset, key, row) = read;
            match known.get(offset) {
                Some(k) if self.outcome(k) == Some(false) => {
                    return Err(format!("{key} at {offset}: a record of an aborted transaction is shown"));
                }
                Some(k) => {
                    let due = (key_text(self.id, k.key), (!k.tombstone).then_some(k.row));
                    if due != (key.clone(), *row) {
                        return Err(format!("{key} at {offset} is {row:?}, acknowledged was {due:?}"));
                    }
                }
                // In flight when everything ended.
                None if row.is_none_or(|row| newest_row.is_none_or(|newest| row > newest)) => {}
                None => return Err(format!("{key} at {offset}: row {row:?} was acknowledged elsewhere")),
            }
            last.insert(key, read);
        }
        for key in 0..=u8::MAX {
            let told = |k: &&Keyed| k.key == key && (start..end).contains(&k.offset) && self.outcome(k) == Some(true);
            let mine = self.keyed.iter().filter(told);
            let Some(due) = mine.max_by_key(|k| k.offset) else { continue };
            let name = key_text(self.id, key);
            let found = last.get(&name[..]).map(|(offset, ..)| *offset);
            let expired = due.tombstone && due.at < old && found.is_none();
            if found.is_none_or(|at| at < due.offset) && !expired {
                let (at, row, tombstone) = (due.offset, due.row, due.tombstone);
                return Err(format!(
                    "{name}: its newest record, at {at} (row {row}, tombstone {tombstone}), is missing; found is {found:?}"
                ));
            }
        }
        Ok(())
    }

    /// What sequence numbers are checked against stays: a batch that ends where the newest acknowledged one does.
    fn hold_newest(&self, (start, high_watermark): (Offset, Offset), batches: &[Bytes]) -> Result<(), String> {
        let Some((base, _, count)) = self.acked.last() else { return Ok(()) };
        let end = base.plus(u64::from(*count));
        let mine = batches.iter().filter_map(|b| view(b)).filter(|b| b.raw_producer_id() == self.wire_id());
        let reaches = mine.filter(|b| !b.is_control()).any(|b| b.offset().plus(u64::from(b.offset_count())) >= end);
        if reaches || end <= start || end > high_watermark {
            Ok(())
        } else {
            Err(format!("producer {}: its newest batch is gone", self.id))
        }
    }
}

impl World {
    /// A consumer has read everything from `from` on.
    pub(crate) fn saw(&mut self, node: usize, gid: Gid, from: Offset, batches: &[Bytes]) {
        let Some(core) = self.nodes[node].cores.get(&gid) else { return };
        let (stable, now) = (core.log().last_stable_offset(), self.engine.now());
        let committed = self.swarm.load.txn.then(|| committed_view(core, from, batches));
        self.checker.stable((node, self.nodes[node].boot, gid), stable);
        for p in self.producers.iter().filter(|p| p.gid == gid) {
            let open = p.txn.filter(|t| t.ending.is_none()).and_then(|t| t.first);
            self.checker.ensure(open.is_none_or(|first| stable <= first), || {
                format!(
                    "node {node} {gid:?}: the last stable offset {stable} passes {open:?}, where a transaction is open"
                )
            });
        }
        if self.swarm.load.compact.is_none() {
            self.story.read(now, gid, (Isolation::Uncommitted, from), batches);
            if let Some(committed) = committed {
                self.story.read(now, gid, (Isolation::Committed, from), &committed);
            }
        }
    }

    /// A look at what may be compacted, or a step of the run under way.
    pub(crate) fn compact(&mut self, node: usize) {
        let Some(load) = self.swarm.load.compact else { return };
        let boot = self.nodes[node].boot;
        let now_ms = (self.engine.now() / 1000) as i64;
        if self.nodes[node].storage.is_compacting() {
            let (now, mut wishes) = (self.now(node), Vec::new());
            match self.nodes[node].storage.compact_step(now, &mut wishes) {
                Ok(switched) => self.out.compacted += u64::from(switched),
                // A disk that fails now and then ends the run, and the next one begins anew.
                Err(error) => self.checker.ensure(error.is_harmless() || self.disk_may_fail(), || {
                    format!("node {node}: compaction: {error}")
                }),
            }
            self.grant(node, wishes);
            let next = self.rng.between(100, 3_000);
            return self.engine.after(next, Happens::Compact { node, boot });
        }
        let gid = self.any_gid();
        let policy = Policy {
            dirty_ratio_min: load.dirty_ratio,
            lag_ms_min: 0,
            lag_ms_max: u64::MAX,
            delete_retention_ms: load.delete_retention_ms,
            segment_bytes: self.swarm.segment_bytes,
        };
        let core = self.nodes[node].cores.get(&gid);
        let plan = core.and_then(|c| Some((c.log().plan_compaction(&policy, now_ms)?, c.is_alone())));
        if let Some((plan, alone)) = plan {
            self.nodes[node].storage.compact(gid, plan, (policy, alone), now_ms);
        }
        self.engine.after(load.every, Happens::Compact { node, boot });
    }

    /// While faults go on: what this replica has up to where it knows of commits.
    pub(crate) fn read_compacted_meanwhile(&mut self, node: usize) {
        let gid = self.any_gid();
        let may = self.swarm.relaxed.is_none() && !self.atlas.is_damaged(node);
        // What takes a record's place may be committed elsewhere, and not known here.
        let all = EntryIndex(self.checker.groups.get(&gid).map_or(0, |g| g.committed.len() as u64));
        if may && self.nodes[node].cores.get(&gid).is_some_and(|c| !c.is_mute() && c.view().commit == all) {
            self.out.reads += 1;
            self.read_compacted(node, gid);
        }
    }

    fn disk_may_fail(&self) -> bool {
        self.swarm.read_error + self.swarm.write_error + self.swarm.no_space > 0
    }

    /// All of a compacted log, held against the oracle.
    pub(crate) fn read_compacted(&mut self, node: usize, gid: Gid) {
        let Some(core) = self.nodes[node].cores.get(&gid) else { return };
        let Some(history) = self.checker.groups.get(&gid).map(|g| &g.committed) else { return };
        let commit = core.view().commit;
        let Some(rows) = self.nodes[node].storage.rows(core.log(), core.log().first_index(), commit) else {
            return self.checker.fail(format!("node {node} {gid:?}: rows of a compacted log cannot be read"));
        };
        let strange = rows.into_iter().find(|r| {
            let known = history.get(r.index.0 as usize - 1);
            let same = known.is_some_and(|k| {
                let place = (k.term, k.base, k.count) == (r.term.0, r.base_offset, r.count);
                place && (k.kind == r.kind || r.kind == EntryKind::Gap)
            });
            span(r) == 1 && !same
        });
        if let Some(row) = strange.map(|r| r.index) {
            return self.checker.fail(format!("node {node} {gid:?}: entry {row} is not what was committed"));
        }
        let (start, stable) = (core.log().log_start(), core.log().last_stable_offset());
        let high_watermark = core.view().high_watermark;
        let batches = match self.read_log(node, gid) {
            Ok(batches) => batches,
            Err(why) => return self.checker.fail(format!("node {node} {gid:?}: {why}")),
        };
        let seen = read_of(&committed_view(core, start, &batches));
        let retention = self.swarm.load.compact.map_or(0, |c| c.delete_retention_ms * 1000);
        let old = (self.engine.now() + 1000).saturating_sub(retention);
        let bad = self.producers.iter().filter(|p| p.gid == gid).find_map(|p| {
            let keys = p.hold_keys((start, stable), old, &seen);
            keys.and_then(|()| p.hold_newest((start, high_watermark), &batches)).err()
        });
        if let Some(why) = bad {
            self.checker.fail(format!("node {node} {gid:?}: compacted log: {why}"));
        }
        self.saw(node, gid, start, &batches);
    }
}
