//! Pure. Partitions of one source → its transactions, in order, whole.
//!
//! Walk: row-change 14/17
//!
//! Each partition is a run that ascends by (incarnation, commit_seq, ordinal); this is their k-way merge. A row is given
//! out when a cut names a commit_seq at or above its own, and every subscribed partition shows either its next row or
//! has been read up to that cut's end offset: then no smaller row can come. So nothing is concluded from density, and a
//! transaction larger than memory streams through, because only the heads of the runs have to be here.
//!
//! Invariants: versions strictly ascend per partition (else [`OrderError`], which stops the sink); what is ≤ the sink's
//! mark is never given out; rows come out in (commit_seq, ordinal) order; `TxnEnd(s)` comes after the last row of `s` in
//! all subscribed partitions and before any later row. Cuts in the queue are bounded: above the bound they are
//! merged, which is only coarser.

use catchwater_base::Wall;
use catchwater_change::{Cut, Native, Version};
use catchwater_record::{CommitSeq, Incarnation, Offset, TopicPartition};
use std::cmp::Reverse;
use std::collections::binary_heap::{BinaryHeap, PeekMut};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Most cuts that wait; later ones are merged into the newest.
pub const CUTS_MAX: usize = 1024;

/// A record of a partition that may hold a row; `row` is what the worker wants back.
#[derive(Clone, PartialEq, Debug)]
pub struct Run<R> {
    pub version: Version,
    pub offset: Offset,
    /// Memory it holds.
    pub bytes: usize,
    pub row: R,
}

/// What comes next.
#[derive(Clone, PartialEq, Debug)]
pub enum Step<R> {
    Row(TopicPartition, Run<R>),
    /// All rows of this transaction were given out.
    TxnEnd(CommitSeq),
    /// All transactions of this cut were given out.
    CutEnd(Reached),
    /// Nothing more can be given out before more rows or cuts are added.
    Wait,
}

/// A cut all of whose rows were given out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reached {
    pub seq: CommitSeq,
    pub native: Native,
    pub commit_time: Wall,
    /// When the capture wrote it: the source's truth up to then is known.
    pub written: Wall,
}

/// The log broke the order it promises. A bug of ours or a foreign writer: the sink must stop.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OrderError {
    #[error("version {next} after {last} in {at}")]
    NotAscending { at: TopicPartition, last: Version, next: Version },
    #[error("{at} has rows of transaction {seq}, at or below the sink's position, and is new to this sink")]
    LateTable { at: TopicPartition, seq: CommitSeq },
    #[error("source incarnation {got} where {want} was due")]
    Incarnation { want: Incarnation, got: Incarnation },
}

struct Part<R> {
    rows: VecDeque<Run<R>>,
    bytes: usize,
    /// Next offset to fetch.
    next: Offset,
    last: Option<Version>,
    /// The sink's mark knows it: rows ≤ the mark are repeats. Otherwise it is new and must have none.
    known: bool,
}

struct Pending {
    reached: Reached,
    /// Offset of the first cut merged in here: where a restart reads again.
    at: Offset,
    ends: BTreeMap<TopicPartition, Offset>,
}

pub struct Regroup<R> {
    incarnation: Incarnation,
    parts: BTreeMap<TopicPartition, Part<R>>,
    /// First row of each partition that has any, the smallest on top.
    heads: BinaryHeap<Reverse<(Version, TopicPartition)>>,
    /// Partitions without a head that have not been read to the first cut's end.
    lacking: BTreeSet<TopicPartition>,
    cuts: VecDeque<Pending>,
    /// End offsets as the first waiting cut has them.
    ends: BTreeMap<TopicPartition, Offset>,
    /// The ends of partitions that partial cuts leave out are known.
    based: bool,
    cuts_next: Offset,
    newest_cut: CommitSeq,
    /// The sink holds everything ≤ this.
    applied: Option<CommitSeq>,
    open: Option<CommitSeq>,
    bytes: usize,
}

impl<R> Regroup<R> {
    /// `applied` = the mark the sink holds. `cuts_next` = where cuts will be read from; `based` = they are read from a
    /// place whose ends are known (the log's beginning, or the sink's mark): else the first full cut is waited for.
    pub fn new(incarnation: Incarnation, applied: Option<CommitSeq>, cuts_next: Offset, based: bool) -> Self {
        Regroup {
            incarnation,
            parts: BTreeMap::new(),
            heads: BinaryHeap::new(),
            lacking: BTreeSet::new(),
            cuts: VecDeque::new(),
            ends: BTreeMap::new(),
            based,
            cuts_next,
            newest_cut: applied.unwrap_or_default(),
            applied,
            open: None,
            bytes: 0,
        }
    }

    /// Subscribes a partition from `next`. `known` = the sink's mark names it.
    pub fn subscribe(&mut self, at: TopicPartition, next: Offset, known: bool) {
        self.parts.entry(at).or_insert(Part { rows: VecDeque::new(), bytes: 0, next, last: None, known });
        self.check_lack(at);
    }

    pub fn is_subscribed(&self, at: TopicPartition) -> bool {
        self.parts.contains_key(&at)
    }

    /// Rows of one partition in offset order, and the next offset to fetch after them.
    pub fn add_rows(
        &mut self,
        at: TopicPartition,
        rows: impl IntoIterator<Item = Run<R>>,
        next: Offset,
    ) -> Result<(), OrderError> {
        let Some(part) = self.parts.get_mut(&at) else { return Ok(()) };
        for row in rows {
            if row.offset < part.next {
                // The batch that holds the asked offset begins before it.
                continue;
            }
            let version = row.version;
            if version.incarnation != self.incarnation {
                return Err(OrderError::Incarnation { want: self.incarnation, got: version.incarnation });
            }
            if let Some(last) = part.last
                && version <= last
            {
                return Err(OrderError::NotAscending { at, last, next: version });
            }
            part.last = Some(version);
            if self.applied.is_some_and(|a| version.commit_seq <= a) {
                if !part.known {
                    return Err(OrderError::LateTable { at, seq: version.commit_seq });
                }
                continue;
            }
            if part.rows.is_empty() {
                self.heads.push(Reverse((version, at)));
            }
            part.bytes += row.bytes;
            self.bytes += row.bytes;
            part.rows.push_back(row);
        }
        part.next = part.next.max(next);
        self.check_lack(at);
        Ok(())
    }

    /// A cut read at `offset` of the cuts partition. The partitions it names must be subscribed already, or not wanted.
    pub fn add_cut(&mut self, offset: Offset, cut: &Cut) -> Result<(), OrderError> {
        self.cuts_next = self.cuts_next.max(offset.plus(1));
        if cut.incarnation != self.incarnation {
            return Err(OrderError::Incarnation { want: self.incarnation, got: cut.incarnation });
        }
        self.based |= cut.full;
        // A lower one is a late repeat: what it covers is covered.
        if !self.based || cut.commit_seq < self.newest_cut {
            return Ok(());
        }
        self.newest_cut = cut.commit_seq;
        let reached = Reached {
            seq: cut.commit_seq,
            native: cut.native.clone(),
            commit_time: cut.commit_time,
            written: cut.written,
        };
        let merge = self.cuts.len() >= CUTS_MAX || self.cuts.back().is_some_and(|b| b.reached.seq == reached.seq);
        if merge
            && self.cuts.len() > 1
            && let Some(back) = self.cuts.back_mut()
        {
            back.reached = reached;
            for (at, end) in &cut.ends {
                let known = back.ends.entry(*at).or_default();
                *known = (*known).max(*end);
            }
            return Ok(());
        }
        self.cuts.push_back(Pending { reached, at: offset, ends: cut.ends.iter().copied().collect() });
        if self.cuts.len() == 1 {
            self.enter_cut();
        }
        Ok(())
    }

    /// Cuts at or below `next` were read, without one for us among them.
    pub fn cuts_read(&mut self, next: Offset) {
        self.cuts_next = self.cuts_next.max(next);
    }

    pub fn cuts_next(&self) -> Offset {
        self.cuts_next
    }

    /// The log no longer holds the cuts that were due next: goes on at `next` with the first full cut.
    pub fn cuts_lost(&mut self, next: Offset) {
        self.cuts_next = next;
        self.based = false;
    }

    pub fn poll(&mut self) -> Step<R> {
        let Some(seq) = self.cuts.front().map(|c| c.reached.seq) else { return Step::Wait };
        if !self.lacking.is_empty() {
            return Step::Wait;
        }
        match self.heads.peek().copied().filter(|Reverse((v, _))| v.commit_seq <= seq) {
            Some(Reverse((version, _))) => match self.open {
                Some(open) if open != version.commit_seq => {
                    assert!(open < version.commit_seq, "rows of a transaction come after its end");
                    self.open = None;
                    Step::TxnEnd(open)
                }
                _ => match self.take() {
                    Some((at, row)) => Step::Row(at, row),
                    None => Step::Wait,
                },
            },
            None => match self.open.take() {
                Some(open) => Step::TxnEnd(open),
                None => match self.cuts.pop_front() {
                    Some(cut) => {
                        self.enter_cut();
                        Step::CutEnd(cut.reached)
                    }
                    None => Step::Wait,
                },
            },
        }
    }

    /// Where a restart would have to read from, at this boundary: each subscribed partition's first row not given out,
    /// or its end; and the cuts partition.
    pub fn offsets(&self, cuts: TopicPartition) -> Vec<(TopicPartition, Offset)> {
        let mut out: Vec<_> = self.parts.keys().filter_map(|at| Some((*at, self.given_out(*at)?))).collect();
        out.push((cuts, self.cuts.front().map_or(self.cuts_next, |c| c.at)));
        out
    }

    /// Partitions that should be fetched: (partition, next offset, bytes that still fit). A partition without a head
    /// always has room, so a full neighbour cannot starve the merge.
    pub fn wanted(&self, share_bytes: usize) -> Vec<(TopicPartition, Offset, usize)> {
        self.parts
            .iter()
            .filter(|(_, p)| p.rows.is_empty() || p.bytes < share_bytes)
            .map(|(at, p)| (*at, p.next, share_bytes.saturating_sub(p.bytes).max(1)))
            .collect()
    }

    /// Next offset to fetch of a subscribed partition.
    pub fn next(&self, at: TopicPartition) -> Option<Offset> {
        self.parts.get(&at).map(|p| p.next)
    }
    /// Everything of a subscribed partition below this offset was given out.
    pub fn given_out(&self, at: TopicPartition) -> Option<Offset> {
        self.parts.get(&at).map(|p| p.rows.front().map_or(p.next, |r| r.offset))
    }
    /// Without rows of this partition nothing can be given out.
    pub fn is_lacking(&self, at: TopicPartition) -> bool {
        self.lacking.contains(&at)
    }
    pub fn parts(&self) -> usize {
        self.parts.len()
    }
    /// Bytes held by rows not given out.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
    /// True while rows of a transaction were given out and its end was not.
    pub fn is_inside(&self) -> bool {
        self.open.is_some()
    }
    /// The oldest row that waits.
    pub fn first(&self) -> Option<&Run<R>> {
        let Reverse((_, at)) = self.heads.peek()?;
        self.parts.get(at)?.rows.front()
    }
    /// Rows or cuts wait that were not given out.
    pub fn has_backlog(&self) -> bool {
        !self.heads.is_empty() || !self.cuts.is_empty()
    }

    /// The smallest row.
    fn take(&mut self) -> Option<(TopicPartition, Run<R>)> {
        let mut head = self.heads.peek_mut()?;
        let Reverse((_, at)) = *head;
        let part = self.parts.get_mut(&at)?;
        let row = part.rows.pop_front()?;
        part.bytes -= row.bytes;
        self.bytes -= row.bytes;
        self.open = Some(row.version.commit_seq);
        match part.rows.front() {
            Some(next) => *head = Reverse((next.version, at)),
            None => {
                PeekMut::pop(head);
                self.check_lack(at);
            }
        }
        Some((at, row))
    }

    /// The first cut's ends are now the ones that count.
    fn enter_cut(&mut self) {
        let Some(cut) = self.cuts.front() else { return };
        for (at, end) in &cut.ends {
            let known = self.ends.entry(*at).or_default();
            *known = (*known).max(*end);
        }
        let touched: Vec<_> = cut.ends.keys().copied().collect();
        for at in touched {
            self.check_lack(at);
        }
    }

    fn check_lack(&mut self, at: TopicPartition) {
        let Some(part) = self.parts.get(&at) else { return };
        let lacks = part.rows.is_empty() && self.ends.get(&at).is_some_and(|end| part.next < *end);
        if lacks {
            self.lacking.insert(at);
        } else {
            self.lacking.remove(&at);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use catchwater_base::Rng;
    use catchwater_record::TopicId;

    fn tp(n: u8) -> TopicPartition {
        TopicPartition::new(TopicId([n; 16]), 0)
    }
    fn run(seq: u64, ordinal: u64, offset: u64) -> Run<(u64, u64)> {
        Run {
            version: Version { incarnation: Incarnation(0), commit_seq: CommitSeq(seq), ordinal },
            offset: Offset(offset),
            bytes: 10,
            row: (seq, ordinal),
        }
    }
    fn cut(seq: u64, full: bool, ends: &[(u8, u64)]) -> Cut {
        Cut {
            incarnation: Incarnation(0),
            commit_seq: CommitSeq(seq),
            native: Native::sqlite(seq),
            commit_time: Wall::from_micros(seq as i64),
            written: Wall::from_micros(seq as i64),
            full,
            ends: ends.iter().map(|(p, o)| (tp(*p), Offset(*o))).collect(),
        }
    }
    fn story(g: &mut Regroup<(u64, u64)>) -> String {
        let mut out = String::new();
        loop {
            match g.poll() {
                Step::Row(_, r) => out += &format!("{}.{} ", r.row.0, r.row.1),
                Step::TxnEnd(s) => out += &format!("end{s} "),
                Step::CutEnd(c) => out += &format!("cut{} ", c.seq),
                Step::Wait => return out.trim_end().to_owned(),
            }
        }
    }

    #[test]
    fn a_transaction_over_two_partitions_waits_for_both_and_for_its_cut() {
        let mut g = Regroup::new(Incarnation(0), None, Offset(0), true);
        g.subscribe(tp(1), Offset(0), true);
        g.subscribe(tp(2), Offset(0), true);
        g.add_rows(tp(1), [run(1, 0, 0), run(1, 2, 1), run(2, 0, 2)], Offset(3)).unwrap();
        assert_eq!(story(&mut g), "", "no cut yet");
        g.add_cut(Offset(0), &cut(1, false, &[(1, 2), (2, 1)])).unwrap();
        assert_eq!(story(&mut g), "", "partition 2 is not read to the cut");
        g.add_rows(tp(2), [run(1, 1, 0)], Offset(1)).unwrap();
        assert_eq!(story(&mut g), "1.0 1.1 1.2 end1 cut1");
        assert_eq!(g.offsets(tp(9)), vec![(tp(1), Offset(2)), (tp(2), Offset(1)), (tp(9), Offset(1))]);
        g.add_cut(Offset(1), &cut(2, false, &[(1, 3)])).unwrap();
        assert_eq!(story(&mut g), "2.0 end2 cut2");
    }

    #[test]
    fn what_the_sink_holds_is_skipped_and_a_late_table_is_refused() {
        let mut g = Regroup::new(Incarnation(0), Some(CommitSeq(1)), Offset(5), true);
        g.subscribe(tp(1), Offset(1), true);
        g.subscribe(tp(2), Offset(0), false);
        // The batch begins before the asked offset.
        g.add_rows(tp(1), [run(1, 0, 0), run(1, 1, 1), run(2, 0, 2)], Offset(3)).unwrap();
        g.add_cut(Offset(5), &cut(2, false, &[(1, 3)])).unwrap();
        assert_eq!(story(&mut g), "2.0 end2 cut2");
        assert!(matches!(
            g.add_rows(tp(2), [run(1, 5, 0)], Offset(1)),
            Err(OrderError::LateTable { seq: CommitSeq(1), .. })
        ));
    }

    #[test]
    fn a_partial_cut_without_base_is_not_trusted() {
        let mut g = Regroup::new(Incarnation(0), None, Offset(7), false);
        g.subscribe(tp(1), Offset(0), true);
        g.subscribe(tp(2), Offset(0), true);
        g.add_rows(tp(1), [run(3, 0, 0)], Offset(1)).unwrap();
        g.add_cut(Offset(7), &cut(3, false, &[(1, 1)])).unwrap();
        assert_eq!(story(&mut g), "", "partition 2 may have rows of 3");
        g.add_cut(Offset(8), &cut(4, true, &[(1, 1), (2, 1)])).unwrap();
        g.add_rows(tp(2), [run(2, 0, 0)], Offset(1)).unwrap();
        assert_eq!(story(&mut g), "2.0 end2 3.0 end3 cut4");
    }

    #[test]
    fn descending_versions_and_other_incarnations_are_errors() {
        let mut g = Regroup::new(Incarnation(0), None, Offset(0), true);
        g.subscribe(tp(1), Offset(0), true);
        g.add_rows(tp(1), [run(2, 1, 0)], Offset(1)).unwrap();
        assert!(matches!(g.add_rows(tp(1), [run(2, 1, 1)], Offset(2)), Err(OrderError::NotAscending { .. })));
        let mut other = cut(3, true, &[]);
        other.incarnation = Incarnation(1);
        assert!(matches!(g.add_cut(Offset(0), &other), Err(OrderError::Incarnation { .. })));
    }

    #[test]
    fn many_waiting_cuts_are_merged_and_none_is_lost() {
        let mut g = Regroup::new(Incarnation(0), None, Offset(0), true);
        g.subscribe(tp(1), Offset(0), true);
        let n = 3 * CUTS_MAX as u64;
        for i in 1..=n {
            g.add_cut(Offset(i - 1), &cut(i, false, &[(1, i)])).unwrap();
        }
        assert!(g.cuts.len() <= CUTS_MAX);
        g.add_rows(tp(1), (1..=n).map(|i| run(i, 0, i - 1)), Offset(n)).unwrap();
        let story = story(&mut g);
        assert!(story.ends_with(&format!("{n}.0 end{n} cut{n}")), "{}", &story[story.len() - 60..]);
    }

    /// Random source, random interleaving of arrivals, restarts at random boundaries: the rows given out are the source's
    /// history, each once, transactions whole.
    #[test]
    fn random_arrivals_and_restarts_give_the_history_in_order() {
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let parts = rng.between(1, 4) as u8;
            let mut logs: Vec<Vec<Run<(u64, u64)>>> = vec![Vec::new(); usize::from(parts)];
            let (mut cuts, mut history): (Vec<Cut>, Vec<(u64, u64)>) = (Vec::new(), Vec::new());
            let mut seq = 0;
            let mut said = vec![0u64; usize::from(parts)];
            for _ in 0..rng.between(1, 30) {
                seq += rng.between(1, 2);
                for ordinal in 0..rng.between(1, 6) {
                    let p = rng.below(u64::from(parts)) as usize;
                    let offset = logs[p].len() as u64;
                    logs[p].push(run(seq, ordinal, offset));
                    history.push((seq, ordinal));
                }
                if rng.chance(600_000) {
                    let full = rng.chance(200_000);
                    let mut ends = Vec::new();
                    for p in 0..parts {
                        let end = logs[usize::from(p)].len() as u64;
                        if full || said[usize::from(p)] != end {
                            said[usize::from(p)] = end;
                            ends.push((p, end));
                        }
                    }
                    cuts.push(cut(seq, full, &ends));
                }
            }
            let ends: Vec<_> = (0..parts).map(|p| (p, logs[usize::from(p)].len() as u64)).collect();
            cuts.push(cut(seq, true, &ends));

            let (mut given, mut mark): (Vec<(u64, u64)>, Option<CommitSeq>) = (Vec::new(), None);
            let mut offsets: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
            'life: loop {
                let start = offsets.get(&tp(99)).copied().unwrap_or_default();
                let mut g = Regroup::new(Incarnation(0), mark, start, true);
                for p in 0..parts {
                    g.subscribe(tp(p), offsets.get(&tp(p)).copied().unwrap_or_default(), true);
                }
                let mut open: Vec<(u64, u64)> = Vec::new();
                for _ in 0..100_000 {
                    if rng.chance(300_000) {
                        let at = g.cuts_next().0;
                        if let Some(c) = cuts.get(at as usize) {
                            g.add_cut(Offset(at), c).unwrap();
                        }
                    } else {
                        let wanted = g.wanted(25);
                        if !wanted.is_empty() {
                            let (at, next, _) = wanted[rng.below(wanted.len() as u64) as usize];
                            let log = &logs[usize::from(at.topic.0[0])];
                            let n = rng.between(1, 3) as usize;
                            let rows: Vec<_> = log.iter().skip(next.0 as usize).take(n).cloned().collect();
                            let end = Offset(next.0 + rows.len() as u64);
                            g.add_rows(at, rows, end).unwrap();
                        }
                    }
                    loop {
                        match g.poll() {
                            Step::Row(_, r) => open.push(r.row),
                            Step::TxnEnd(s) => {
                                assert!(open.iter().all(|r| r.0 == s.0), "seed {seed}");
                                given.append(&mut open);
                                mark = Some(s);
                                offsets = g.offsets(tp(99)).into_iter().collect();
                                if rng.chance(50_000) {
                                    continue 'life;
                                }
                            }
                            Step::CutEnd(c) => {
                                assert!(open.is_empty());
                                mark = Some(c.seq);
                                offsets = g.offsets(tp(99)).into_iter().collect();
                                if given.len() == history.len() && c.seq.0 == seq {
                                    break 'life;
                                }
                            }
                            Step::Wait => break,
                        }
                    }
                }
                panic!("seed {seed}: stuck at {mark:?} of {seq}");
            }
            assert_eq!(given, history, "seed {seed}");
        }
    }
}
