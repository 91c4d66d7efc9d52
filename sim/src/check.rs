//! Pure. What must hold after every step, whatever fails: the first thing that does not is the run's violation.

use catchwater_raft::{GroupCore, GroupView};
use catchwater_record::{EntryIndex, Gid, Offset};
use catchwater_storage::compact::rows::{last_index, span};
use catchwater_storage::{EntryKind, Replaced, Row};
use std::collections::BTreeMap;

/// What an index holds for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Print {
    pub term: u32,
    pub kind: EntryKind,
    pub base: Offset,
    pub count: u32,
    /// Hash of body and context; 0 = not in memory when it was looked at.
    pub digest: u64,
}

impl Print {
    /// What stood where nobody could look: committed in the same step as the trim that let go of it. It held no record,
    /// which the next entry's offset shows; any replica that has it says what it was.
    fn unseen(at: Offset) -> Print {
        Print { term: 0, kind: EntryKind::LogStart, base: at, count: 0, digest: 0 }
    }
    pub fn was_seen(&self) -> bool {
        self.term != 0
    }
    fn end(&self) -> Offset {
        self.base.plus(u64::from(self.count))
    }
}

/// Who was told what of one group.
#[derive(Default)]
pub struct History {
    /// By index − 1.
    pub committed: Vec<Print>,
    leaders: BTreeMap<u32, usize>,
    /// Highest acknowledged entry.
    pub acked: (EntryIndex, u32),
    /// When each was told, and whether it may be lost with a window.
    pub told: BTreeMap<EntryIndex, (u64, bool)>,
    /// Highest log start that a settled leader had, and the term it had it in.
    pub log_start: Offset,
    pub log_start_term: u32,
    /// Up to here compaction has written batches anew somewhere: what a peer gets need not be, byte for byte, what was
    /// committed.
    pub rewritten: EntryIndex,
}

#[derive(Default)]
pub struct Checker {
    pub groups: BTreeMap<Gid, History>,
    /// Per (node, group): commit looked at so far, and the high watermark told.
    seen: BTreeMap<(usize, Gid), (u64, u64)>,
    /// Per life of a replica: the last stable offset that a reader met.
    stable: BTreeMap<(usize, u64, Gid), Offset>,
    pub violation: Option<String>,
}

impl Checker {
    pub fn fail(&mut self, what: impl Into<String>) {
        self.violation.get_or_insert_with(|| what.into());
    }
    pub fn ensure(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.fail(what());
        }
    }

    /// A compacted segment is in force at some replica.
    pub fn replaced(&mut self, gid: Gid, replaced: &Replaced) {
        let history = self.groups.entry(gid).or_default();
        history.rewritten =
            replaced.segment.rows.last().map_or(history.rewritten, |r| last_index(r).max(history.rewritten));
    }

    /// A node came up: everything it takes for committed must be what was committed.
    /// `rows`: those that only files have.
    pub fn opened(&mut self, node: usize, core: &GroupCore, rows: &[Row]) {
        let gid = core.gid();
        self.seen.insert((node, gid), (0, 0));
        let compacted = core.log().segments().iter().rev().find(|s| s.generation > 0).and_then(|s| s.rows.last());
        let history = self.groups.entry(gid).or_default();
        history.rewritten = compacted.map_or(history.rewritten, |r| last_index(r).max(history.rewritten));
        self.committed(node, core, rows, (core.view().commit, Offset(0)));
    }

    /// `node` says everything up to `upto` is committed. `old`: rows that only files have.
    pub fn committed(
        &mut self,
        node: usize,
        core: &GroupCore,
        old: &[Row],
        (upto, high_watermark): (EntryIndex, Offset),
    ) {
        let gid = core.gid();
        let seen = self.seen.entry((node, gid)).or_default();
        let from = seen.0;
        seen.0 = seen.0.max(upto.0);
        let before = seen.1;
        seen.1 = seen.1.max(high_watermark.0);
        if high_watermark != Offset(0) && high_watermark.0 < before {
            self.fail(format!("node {node} {gid:?}: high watermark fell from {before} to {high_watermark}"));
        }
        let log = core.log();
        let history = self.groups.entry(gid).or_default();
        let mut wrong = None;
        let term = core.view().term.0;
        if core.view().own_term_committed {
            // One that was cut off and has not heard of a newer leader knows what was committed before, as it should.
            if log.log_start() < history.log_start && term >= history.log_start_term {
                wrong = Some(format!(
                    "node {node} {gid:?}: the log start fell from {} to {}",
                    history.log_start,
                    log.log_start()
                ));
            }
            if log.log_start() > history.log_start {
                (history.log_start, history.log_start_term) = (log.log_start(), term);
            }
        }
        let first = (from + 1).max(log.first_index().0);
        while first <= upto.0 && (history.committed.len() as u64) < first - 1 {
            let end = history.committed.last().map_or(Offset(0), Print::end);
            history.committed.push(Print::unseen(end));
        }
        for index in first..=upto.0 {
            let at = EntryIndex(index);
            let place = old.partition_point(|r| r.index <= at).checked_sub(1);
            let in_file = || place.and_then(|p| old.get(p)).filter(|r| at <= last_index(r)).copied();
            let Some(row) = log.row(at).or_else(in_file) else {
                // Read errors and damage hide rows of files; what they say is looked at again at the end.
                if log.row_read(at, at.next(), 0).is_some() && history.committed.len() as u64 >= index {
                    continue;
                }
                wrong = Some(format!("node {node} {gid:?}: entry {index} is committed but not there"));
                break;
            };
            if row.kind == EntryKind::Gap {
                // Compaction took it, and it was looked at when it was committed.
                let known = history.committed.get(index as usize - 1);
                let same = known.is_some_and(|k| {
                    !k.was_seen() || (k.term, k.base, k.count) == (row.term.0, row.base_offset, row.count)
                });
                if span(&row) == 1 && !same {
                    wrong = Some(format!(
                        "node {node} {gid:?}: entry {index} went as {row:?}, but {known:?} was committed"
                    ));
                    break;
                }
                continue;
            }
            let mut print = print_of(core, &row);
            if at <= history.rewritten {
                print.digest = 0;
            }
            let before = index.checked_sub(2).and_then(|i| history.committed.get(i as usize));
            let due = before.map_or(Offset(0), Print::end);
            if print.base != due {
                wrong =
                    Some(format!("node {node} {gid:?}: entry {index} begins at {} where {due} was due", print.base));
                break;
            }
            match history.committed.get_mut(index as usize - 1) {
                None => history.committed.push(print),
                Some(unseen) if !unseen.was_seen() => *unseen = print,
                Some(known) => {
                    let same = (known.term, known.kind, known.base, known.count)
                        == (print.term, print.kind, print.base, print.count)
                        && (known.digest == print.digest || known.digest == 0 || print.digest == 0);
                    if !same {
                        wrong = Some(format!(
                            "node {node} {gid:?}: entry {index} is {print:?}, but {known:?} was committed"
                        ));
                        break;
                    }
                    known.digest = known.digest.max(print.digest);
                }
            }
        }
        if let Some(wrong) = wrong {
            self.fail(wrong);
        }
    }

    /// Whoever leads a term has everything that was acknowledged in it or before. (A late winner of an older term need not
    /// have what a newer one acknowledged: it commits nothing any more.)
    pub fn leads(&mut self, node: usize, core: &GroupCore) {
        let (gid, view) = (core.gid(), core.view());
        let history = self.groups.entry(gid).or_default();
        let other = *history.leaders.entry(view.term.0).or_insert(node);
        let (index, term) = history.acked;
        if other != node {
            self.fail(format!("{gid:?}: nodes {other} and {node} both lead term {}", view.term));
        } else if index.0 > 0
            && index >= core.log().first_index().prev()
            && term <= view.term.0
            && core.log().term(index).map(|t| t.0) != Some(term)
        {
            let has = core.log().term(index);
            self.fail(format!(
                "{gid:?}: node {node} leads term {} without the acknowledged entry {index} of term {term} (has {has:?})",
                view.term
            ));
        }
    }

    /// A client was told that (index, term) holds its batch.
    pub fn acked(&mut self, gid: Gid, index: EntryIndex, term: u32, now: u64, barrier: bool) {
        let history = self.groups.entry(gid).or_default();
        let known = history.committed.get(index.0 as usize - 1).copied();
        if index > history.acked.0 {
            history.acked = (index, term);
        }
        history.told.entry(index).or_insert((now, barrier));
        self.ensure(known.is_some_and(|p| p.term == term), || {
            format!("{gid:?}: entry {index} of term {term} was acknowledged, committed is {known:?}")
        });
    }

    /// A relaxed group ends at `last` after a loss of power, which may take one window of what was acknowledged. Gives the
    /// entries that are gone.
    pub fn lost(&mut self, gid: Gid, last: EntryIndex, term: u32, window_us: u64) -> u64 {
        let history = self.groups.entry(gid).or_default();
        let gone = (history.committed.len() as u64).saturating_sub(last.0);
        let told = history.told.split_off(&last.next());
        let span = match (told.values().map(|t| t.0).min(), told.values().map(|t| t.0).max()) {
            (Some(first), Some(newest)) => newest - first,
            _ => 0,
        };
        let barrier = told.iter().find(|(_, (_, barrier))| *barrier).map(|(i, _)| *i);
        history.committed.truncate(last.0 as usize);
        if history.acked.0 > last {
            history.acked = (last, term);
        }
        self.ensure(span <= window_us, || {
            format!("{gid:?}: a loss of power took what was acknowledged over {span} µs, the window is {window_us} µs")
        });
        self.ensure(barrier.is_none(), || format!("{gid:?}: a loss of power took the barrier {barrier:?}"));
        gone
    }

    /// A reader of committed transactions met this end, in this life of a replica.
    pub fn stable(&mut self, of: (usize, u64, Gid), stable: Offset) {
        let before = self.stable.insert(of, stable).unwrap_or_default();
        self.ensure(before <= stable, || format!("{of:?}: the last stable offset fell from {before} to {stable}"));
    }

    /// Orders inside one replica.
    pub fn order(&mut self, node: usize, gid: Gid, v: &GroupView) {
        let holds = v.log_start <= v.high_watermark
            && v.high_watermark <= v.spec_end
            && v.commit <= v.last
            && v.persisted <= v.last;
        self.ensure(holds, || format!("node {node} {gid:?}: {v:?}"));
    }
}

pub fn print_of(core: &GroupCore, row: &Row) -> Print {
    let digest = core.log().cached(row.index).map_or(0, |e| {
        let body = catchwater_base::hash::xxh3_64(&e.body);
        (body ^ catchwater_base::hash::xxh3_64(&e.context).rotate_left(1)) | 1
    });
    Print { term: row.term.0, kind: row.kind, base: row.base_offset, count: row.count, digest }
}
