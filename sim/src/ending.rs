//! The end of a run: everything healed, everything equal, everything read and held against the ledgers.

use crate::check::print_of;
use crate::engine::Micros;
use crate::swarm::Profile;
use crate::world::{Happens, World};
use bytes::Bytes;
use catchwater_raft::GroupCore;
use catchwater_record::batch::iterate::records;
use catchwater_record::{BatchView, Gid, Offset};
use catchwater_storage::ReadPlan;
use std::collections::BTreeMap;

const LIVENESS: Micros = 60_000_000;
const WRITES_WANTED: usize = 20;
/// A disk may be damaged and refuse to be read; what it gives is right.
const WRONG: &str = "wrong bytes were served";

impl World {
    pub(crate) fn ledger_len(&self) -> usize {
        self.producers.iter().map(|p| p.acked.len()).sum()
    }

    /// Is everything well again?
    pub(crate) fn look(&mut self) {
        let since = self.calm_at.unwrap_or_default();
        let news = self.ledger_len().saturating_sub(self.acked_when_calm);
        if self.nodes.iter().all(|n| n.out) {
            self.finished = true; // the only disk is damaged, and its node says so
            return;
        }
        self.replace_burnt();
        let (wanted, pace) = match self.swarm.profile {
            Profile::Power => (WRITES_WANTED / 4, 10_000),
            _ => (WRITES_WANTED, 50_000),
        };
        // What is open holds up readers of what is committed behind it.
        let open = self.producers.iter().any(|p| p.may_have_open_txn());
        if news >= wanted && !open && self.converged() {
            self.finished = true;
            return;
        }
        if self.engine.now() > since + LIVENESS {
            let views: Vec<String> = self
                .nodes
                .iter()
                .map(|n| format!("{:?}", n.cores.values().map(GroupCore::view).collect::<Vec<_>>()))
                .collect();
            return self
                .checker
                .fail(format!("a minute after all faults ended: {news} new writes, replicas {}", views.join(" | ")));
        }
        // Once enough was written, writers stop so that replicas can become equal.
        self.full |= news >= wanted;
        self.engine.after(pace, Happens::Look);
    }

    pub(crate) fn converged(&self) -> bool {
        self.gids.iter().copied().all(|gid| {
            let members: Vec<usize> = self.members(gid).into_iter().filter(|n| !self.nodes[*n].out).collect();
            let views: Vec<_> =
                members.iter().filter_map(|n| self.nodes[*n].cores.get(&gid)).map(GroupCore::view).collect();
            views.len() == members.len()
                && self.settled(gid)
                // Who was taken out for its damaged files is never caught up: no id of it waits for anything.
                && !self.burnt.iter().any(|(g, _, new)| *g == gid && !self.nodes[new.node().0 as usize - 1].out)
                && views.iter().all(|v| !v.mute)
                && views.iter().all(|v| v.commit == v.last && v.persisted == v.last && v.last == views[0].last)
        }) && (0..self.nodes.len()).all(|n| self.nodes[n].out || self.nothing_is_left(n))
    }

    /// All replicas row by row, then one of them read from offset 0 and held against the ledgers.
    pub(crate) fn read_everything(&mut self) {
        for gid in self.gids.clone() {
            for node in self.members(gid) {
                if self.atlas.is_damaged(node) && !self.atlas.files_are_whole(node) {
                    self.read_damaged(node);
                    continue;
                }
                let Some(core) = self.nodes[node].cores.get(&gid) else { continue };
                let history = &self.checker.groups[&gid].committed;
                let first = core.log().first_index();
                let history = &history[first.0 as usize - 1..];
                let rows = self.nodes[node].storage.rows(core.log(), first, core.log().last_index());
                let rows: Vec<_> = rows.unwrap_or_default().iter().map(|r| print_of(core, r)).collect();
                if self.swarm.load.compact.is_some() {
                    self.read_compacted(node, gid);
                    continue;
                }
                let same = rows.len() == history.len()
                    && rows
                        .iter()
                        .zip(history)
                        .all(|(a, b)| (a.term, a.kind, a.base, a.count) == (b.term, b.kind, b.base, b.count));
                if !same {
                    return self.checker.fail(format!("node {node} {gid:?}: its log differs from what was committed"));
                }
                match self.read_log(node, gid) {
                    Ok(batches) => {
                        // Each node by itself against the ledgers; one of them as what the last consumer sees.
                        if self.members(gid).first() == Some(&node) {
                            let start = self.nodes[node].cores.get(&gid).map_or(Offset(0), |c| c.log().log_start());
                            self.saw(node, gid, start, &batches);
                        }
                        self.hold_against_ledgers(node, gid, &batches);
                    }
                    Err(why) => self.checker.fail(format!("node {node} {gid:?}: {why}")),
                }
            }
        }
    }

    /// What clients saw, judged by the checker that judges real ones. Not where the only disk was damaged: what it refuses
    /// to read is missing from the history.
    pub(crate) fn judge_story(&mut self) {
        if self.swarm.load.compact.is_some() {
            return; // judged by `compacted.rs`
        }
        // Who asked for an end and was not answered.
        for p in &self.producers {
            if let Some((txn, began)) = p.txn.and_then(|t| Some((t, t.ending?))) {
                self.story.ended(self.engine.now(), p.id, (p.txn_name(txn.number), began), None);
            }
        }
        // After a loss that is allowed, offsets are used again.
        if self.out.relaxed_losses > 0 || (0..self.nodes.len()).any(|n| self.atlas.is_damaged(n)) {
            return;
        }
        let report = self.story.judge();
        if let Some(first) = report.anomalies.first() {
            self.checker.fail(format!("history: {}: {}", first.kind, first.text));
        }
    }

    /// A damaged disk may refuse a range, but what it gives is right, and a log that can be read is whole.
    pub(crate) fn read_damaged(&mut self, node: usize) {
        for gid in self.gids.clone() {
            if !self.nodes[node].cores.contains_key(&gid) {
                continue;
            }
            let batches = match self.read_log(node, gid) {
                Ok(batches) => batches,
                Err(why) if why.starts_with(WRONG) => {
                    return self.checker.fail(format!("node {node} {gid:?}: {why}"));
                }
                Err(_) => continue,
            };
            // One of several may lag; the others are held against the ledgers.
            if self.nodes.len() > 1 {
                continue;
            }
            self.hold_against_ledgers(node, gid, &batches);
        }
    }

    pub(crate) fn read_log(&self, node: usize, gid: Gid) -> Result<Vec<Bytes>, String> {
        let start = self.nodes[node].cores.get(&gid).map_or(Offset(0), |c| c.log().log_start());
        self.read_from(node, gid, start)
    }

    /// Everything from `from` to the high watermark, checked batch by batch.
    pub(crate) fn read_from(&self, node: usize, gid: Gid, from: Offset) -> Result<Vec<Bytes>, String> {
        let Some(core) = self.nodes[node].cores.get(&gid) else { return Err("not there".into()) };
        let (mut at, end) = (from, core.view().high_watermark);
        let start = at;
        let mut all = Vec::new();
        while at < end {
            let found = match core.log().plan_read(at, end, 3_000) {
                ReadPlan::Tail(batches) => batches,
                ReadPlan::Files(read) => vec![self.nodes[node].storage.read(&read)?],
                // Compaction took what was there, up to the end.
                ReadPlan::Empty if self.swarm.load.compact.is_some() => return Ok(all),
                other => return Err(format!("reading at {at} of {end}: {other:?}")),
            };
            let before = at;
            for bytes in found {
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let (batch, tail) = BatchView::split(rest).map_err(|e| format!("{WRONG} at {at}: {e}"))?;
                    batch.check_crc().map_err(|e| format!("{WRONG} at {at}: {e}"))?;
                    // The log may start inside a batch.
                    let inside = at == start && batch.offset() < at;
                    let gap = self.swarm.load.compact.is_some() && batch.offset() > at;
                    if batch.offset() != at && !inside && !gap {
                        return Err(format!("{WRONG}: {} where {at} was due", batch.offset()));
                    }
                    at = batch.offset().plus(u64::from(batch.offset_count()));
                    all.push(Bytes::copy_from_slice(batch.bytes()));
                    rest = tail;
                }
            }
            if at == before {
                return Err(format!("reading at {at} of {end} gives nothing"));
            }
        }
        Ok(all)
    }

    pub(crate) fn hold_against_ledgers(&mut self, node: usize, gid: Gid, batches: &[Bytes]) {
        let start = self.nodes[node].cores.get(&gid).map_or(Offset(0), |c| c.log().log_start());
        let mut produced: BTreeMap<i64, Vec<(i32, u32, Offset)>> = BTreeMap::new();
        let mut captured: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for b in batches {
            let Some(b) = view(b).filter(|b| !b.is_control()) else { continue };
            if let Some(id) = b.producer_id() {
                produced.entry(id.0).or_default().push((b.base_sequence(), b.offset_count(), b.offset()));
            } else {
                for r in records(b.records(), b.offset_count()).flatten() {
                    let text = String::from_utf8_lossy(r.value.unwrap_or_default()).into_owned();
                    let mut parts = text.split(':');
                    if let (Some(who), Some(row)) = (parts.next(), parts.next()) {
                        captured.entry(who.to_owned()).or_default().push(row.parse().unwrap_or(0));
                    }
                }
            }
        }
        let known = self.producers.iter().flat_map(|p| p.lives().map(move |(id, acked)| (p, id, acked)));
        for (p, id, acked) in known.filter(|(p, ..)| p.gid == gid) {
            let found = produced.get(&id).cloned().unwrap_or_default();
            // What was trimmed is not expected.
            // Nor what a loss took of an id that had nothing before it: what was still on its way came first then.
            let begins_late = start > Offset(0) || (id != p.wire_id() && acked.is_empty());
            let mut due = if begins_late { found.first().map_or(0, |f| f.0) } else { 0 };
            for (sequence, count, _) in &found {
                if *sequence != due {
                    let what = if *sequence < due { "duplicated or reordered" } else { "missing" };
                    return self.checker.fail(format!(
                        "node {node} {gid:?}: producer {}: sequence {sequence} where {due} was due: {what}",
                        p.id
                    ));
                }
                due += *count as i32;
            }
            for (base, sequence, count) in acked.iter().filter(|(base, ..)| *base >= start) {
                if !found.contains(&(*sequence, *count, *base)) {
                    return self.checker.fail(format!(
                        "node {node} {gid:?}: producer {}: sequence {sequence} was acknowledged at {base} and is not there",
                        p.id
                    ));
                }
            }
        }
        for w in self.workers.iter().filter(|w| w.gid == gid) {
            let rows = captured.get(&format!("c{}", w.capture)).cloned().unwrap_or_default();
            let first = if start > Offset(0) { rows.first().copied().unwrap_or(w.acked + 1) } else { 1 };
            if rows.iter().zip(first..).any(|(row, due)| *row != due) || (first + rows.len() as u32) <= w.acked {
                return self.checker.fail(format!(
                    "node {node} {gid:?}: capture {}: rows are not 1, 2, 3, … up to the acknowledged {}: {rows:?}",
                    w.capture, w.acked
                ));
            }
        }
    }
}

pub(crate) fn view(bytes: &[u8]) -> Option<BatchView<'_>> {
    BatchView::new(bytes).ok()
}
