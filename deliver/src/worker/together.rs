//! Rows that wait for others of their transaction: a group that holds a refused row is written change by change, and
//! there a row is refused, too, whose parent comes later, or whose value another row still has to give up. Such rows wait
//! until the rest is written, and are tried with those that they need ([`crate::together`]). What is refused even so is set
//! aside.
//!
//! No later row of their keys, and no truncate, overtakes them. They belong to the open transaction: where a state comes in
//! parts, they wait for its last one.

use super::letters::Letter;
use super::{Session, Trouble, Worker};
use crate::batch::fold;
use crate::error::{Failure, code};
use crate::park::{Bisect, KEYS_MAX, KeyOf, keys_of};
use crate::sink::{Apply, Group, SinkClass, SinkError};
use crate::together::sets;
use catchwater_base::crash_point;
use catchwater_change::Version;
use catchwater_record::{CommitSeq, Offset, TopicPartition};
use std::collections::{BTreeMap, BTreeSet};

/// Of more sets of one transaction than these no pairs are tried.
const PAIRS_OF_MAX: usize = 24;

/// What was refused alone: the applies of one change, or of one key's dead letters.
pub(super) struct Unit {
    pub applies: Vec<Apply>,
    pub version: Version,
    /// Where it stands in the log.
    pub from: Option<(TopicPartition, Offset)>,
    /// Those of the same number may have to give each other a value.
    pub swap: Option<u64>,
    pub error: SinkError,
}

/// A set that was refused.
struct Failed {
    set: Vec<usize>,
    error: SinkError,
    row: Vec<KeyOf>,
}

impl Worker {
    /// Puts a change behind the others of its transaction.
    pub(super) fn waits(&self, session: &mut Session<'_>, unit: Unit) -> Result<(), Trouble> {
        session.waiting.push(unit);
        if session.waiting.len() <= KEYS_MAX {
            return Ok(());
        }
        Err(Trouble::Fatal(Failure::new(
            code::TOO_MANY_REFUSED,
            format!("more than {KEYS_MAX} rows of one transaction are refused for want of others"),
            "repair the target, or let its foreign keys be DEFERRABLE",
        )))
    }

    /// What waits is written, or set aside.
    pub(super) async fn write_waiting(&mut self, session: &mut Session<'_>) -> Result<(), Trouble> {
        if session.waiting.is_empty() {
            return Ok(());
        }
        let mut units = std::mem::take(&mut session.waiting);
        units.sort_by_key(|u| u.version);
        let mut refused = self.write_together(session, units).await?;
        refused.sort_by_key(|u| u.version);
        for Unit { applies, version, from, error, .. } in refused {
            let Some((at, offset)) = from else { continue };
            if !self.set_aside(session, &applies, version, (at, offset)) {
                self.may_refuse(&error)?;
                let keys = keys_of(&applies);
                let letter = Letter { at, offset, version, code: error.code, what: error.what, keys };
                self.post(session, letter)?;
            }
            session.uncount(&applies);
        }
        Ok(())
    }

    /// Writes units into the open transaction, in the order of the list, those that need each other as one. Those that are
    /// refused come back, each with its error and with those of the same keys behind it.
    pub(super) async fn write_together(
        &mut self,
        session: &mut Session<'_>,
        units: Vec<Unit>,
    ) -> Result<Vec<Unit>, Trouble> {
        let mut units: Vec<Option<Unit>> = units.into_iter().map(Some).collect();
        let mut left = sets_of(&units, (0..units.len()).collect());
        let (mut refused, mut gone): (Vec<Unit>, BTreeSet<KeyOf>) = Default::default();
        let mut told = 0;
        while !left.is_empty() {
            let before = left.iter().map(Vec::len).sum::<usize>();
            let mut failed = self.round(session, &units, &left).await?;
            let helped = failed.iter().map(|f| f.set.len()).sum::<usize>() < before;
            if !helped && !self.joined(session, &units, &mut failed).await? {
                let parts = loosened(&mut units, &mut failed);
                if parts.is_empty() {
                    refuse(&mut units, &mut failed, &mut refused);
                    gone.extend(refused[told..].iter().flat_map(|u| keys_of(&u.applies)));
                }
                failed.extend(parts);
            }
            // Nothing overtakes.
            for Failed { set, .. } in &mut failed {
                set.retain(|n| {
                    let Some(unit) = &units[*n] else { return false };
                    let keys = keys_of(&unit.applies);
                    if !keys.iter().any(|k| gone.contains(k)) {
                        return true;
                    }
                    gone.extend(keys);
                    refused.extend(units[*n].take());
                    false
                });
            }
            let count = refused.len();
            left = failed.into_iter().map(|f| f.set).filter(|set| !set.is_empty()).collect();
            if count > told {
                // Without what is gone, what hung together by it does so no more.
                left = sets_of(&units, left.concat());
            }
            told = count;
        }
        Ok(refused)
    }

    /// Tries each set once; those that are refused, with their errors.
    async fn round(
        &mut self,
        session: &mut Session<'_>,
        units: &[Option<Unit>],
        sets: &[Vec<usize>],
    ) -> Result<Vec<Failed>, Trouble> {
        let (mut bisect, mut failed) = (Bisect::new(sets.len()), Vec::new());
        while let Some(range) = bisect.take() {
            let all: Vec<usize> = sets[range.clone()].iter().flatten().copied().collect();
            if let Some((error, row)) = self.attempt(session, units, all).await?
                && let Some(n) = bisect.refused(range)
            {
                failed.push(Failed { set: sets[n].clone(), error, row });
            }
        }
        Ok(failed)
    }

    /// Writes units as one, in the order of the list. `Some` = refused, with the keys of the row that was refused by itself; none of
    /// a foreign key that is looked at behind them all.
    async fn attempt(
        &mut self,
        session: &mut Session<'_>,
        units: &[Option<Unit>],
        mut set: Vec<usize>,
    ) -> Result<Option<(SinkError, Vec<KeyOf>)>, Trouble> {
        set.sort_unstable();
        let applies = fold(set.iter().filter_map(|n| units[*n].as_ref()).flat_map(|u| u.applies.clone()).collect());
        let (Some(first), Some(last)) = (applies.first(), applies.last()) else { return Ok(None) };
        let (first_seq, last_seq) = (first.version.commit_seq, last.version.commit_seq);
        let group = Group {
            first_seq,
            last_seq,
            applies,
            source_order: true,
            guarded: true,
            together: true,
            ..Group::default()
        };
        crash_point!("deliver.before_group");
        session.lane_open = true;
        session.wrote_at = self.now().mono;
        let work = session.lane.write(&group);
        match session.flight.beside(work).await {
            Ok(()) => Ok(None),
            Err(e) if e.class == SinkClass::Row => {
                let row = e.at.and_then(|at| group.applies.get(at..=at)).map(keys_of).unwrap_or_default();
                Ok(Some((e, row)))
            }
            Err(e) => Err(Trouble::Sink(e, None)),
        }
    }

    /// What needs what is not all seen in the rows: which rows refer to one that is deleted, and who holds a value, stands in the
    /// target. So of what is left of one transaction all is tried as one, and then two by two. True = something was written.
    async fn joined(
        &mut self,
        session: &mut Session<'_>,
        units: &[Option<Unit>],
        failed: &mut Vec<Failed>,
    ) -> Result<bool, Trouble> {
        let mut of: BTreeMap<CommitSeq, Vec<usize>> = BTreeMap::new();
        for (i, f) in failed.iter().enumerate().filter(|(_, f)| f.error.others.is_some()) {
            let first = f.set.iter().find_map(|n| units[*n].as_ref());
            // Dead letters are all tried at one place.
            let seq = first.filter(|u| u.from.is_some()).map_or(CommitSeq(0), |u| u.version.commit_seq);
            of.entry(seq).or_default().push(i);
        }
        let mut done: BTreeSet<usize> = BTreeSet::new();
        for places in of.into_values().filter(|p| p.len() > 1) {
            let mut tries = vec![places.clone()];
            if (3..=PAIRS_OF_MAX).contains(&places.len()) {
                let pairs = places.iter().enumerate().flat_map(|(n, a)| places[n + 1..].iter().map(|b| vec![*a, *b]));
                tries.extend(pairs);
            }
            for places in tries {
                if places.iter().any(|i| done.contains(i)) {
                    continue;
                }
                let all = places.iter().flat_map(|i| failed[*i].set.iter().copied()).collect();
                if self.attempt(session, units, all).await?.is_none() {
                    done.extend(places);
                }
            }
        }
        let mut i = 0;
        failed.retain(|_| {
            i += 1;
            !done.contains(&(i - 1))
        });
        Ok(!done.is_empty())
    }
}

/// Sets that no row of theirs refused by itself, without what is only thought: that all of them want each other's values. Those
/// that fall apart by it.
fn loosened(units: &mut [Option<Unit>], failed: &mut [Failed]) -> Vec<Failed> {
    let mut parts = Vec::new();
    for f in failed.iter_mut().filter(|f| f.row.is_empty() && f.set.len() > 1) {
        f.set.iter().for_each(|n| units[*n].iter_mut().for_each(|u| u.swap = None));
        let smaller = sets_of(units, f.set.clone());
        if smaller.len() > 1 {
            f.set.clear();
            parts.extend(smaller.into_iter().map(|set| Failed { set, error: f.error.clone(), row: Vec::new() }));
        }
    }
    parts
}

/// Nothing helped anybody: what has a row that is refused by itself goes on without it, of the rest all is refused.
fn refuse(units: &mut [Option<Unit>], failed: &mut [Failed], refused: &mut Vec<Unit>) {
    for Failed { set, error, row } in failed {
        let is_it = |n: &usize| {
            let of = units[*n].as_ref().map(|u| keys_of(&u.applies)).unwrap_or_default();
            row.is_empty() || of.iter().any(|k| row.contains(k))
        };
        let (out, rest): (Vec<usize>, Vec<usize>) = set.iter().copied().partition(is_it);
        *set = rest;
        let out = out.into_iter().filter_map(|n| units[n].take());
        refused.extend(out.map(|unit| Unit { error: error.clone(), ..unit }));
    }
}

/// Of the units of these places, what needs each other as one.
fn sets_of(units: &[Option<Unit>], mut places: Vec<usize>) -> Vec<Vec<usize>> {
    places.sort_unstable();
    let of: Vec<(usize, &Unit)> = places.iter().filter_map(|n| Some((*n, units[*n].as_ref()?))).collect();
    let applies: Vec<&[Apply]> = of.iter().map(|(_, u)| &u.applies[..]).collect();
    let swaps: Vec<Option<u64>> = of.iter().map(|(_, u)| u.swap).collect();
    let sets = sets(&applies, &swaps);
    sets.into_iter().map(|set| set.into_iter().map(|n| of[n].0).collect()).collect()
}
