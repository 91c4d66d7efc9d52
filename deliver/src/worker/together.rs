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
use catchwater_record::{Offset, TopicPartition};
use std::collections::BTreeSet;
use std::ops::Range;

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
        let mut left: Vec<Vec<usize>> = {
            let applies: Vec<&[Apply]> = units.iter().flatten().map(|u| &u.applies[..]).collect();
            let swaps: Vec<Option<u64>> = units.iter().flatten().map(|u| u.swap).collect();
            sets(&applies, &swaps)
        };
        let (mut refused, mut gone): (Vec<Unit>, BTreeSet<KeyOf>) = Default::default();
        while !left.is_empty() {
            let before = left.iter().map(Vec::len).sum::<usize>();
            let mut failed = self.round(session, &units, &left).await?;
            if failed.iter().map(|f| f.set.len()).sum::<usize>() == before {
                // Nothing helped anybody: what has a row that is refused by itself goes without it, the rest is refused.
                for Failed { set, error, row } in &mut failed {
                    let is_it = |n: &usize| {
                        let of = units[*n].as_ref().map(|u| keys_of(&u.applies)).unwrap_or_default();
                        row.is_empty() || of.iter().any(|k| row.contains(k))
                    };
                    let (out, rest): (Vec<usize>, Vec<usize>) = set.iter().copied().partition(is_it);
                    *set = rest;
                    for n in out {
                        let Some(unit) = units[n].take() else { continue };
                        gone.extend(keys_of(&unit.applies));
                        refused.push(Unit { error: error.clone(), ..unit });
                    }
                }
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
            left = failed.into_iter().map(|f| f.set).filter(|set| !set.is_empty()).collect();
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
            let applies = applies_of(units, sets, range.clone());
            let (Some(first), Some(last)) = (applies.first(), applies.last()) else { continue };
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
                Ok(()) => {}
                Err(e) if e.class == SinkClass::Row => {
                    if let Some(n) = bisect.refused(range) {
                        // The row that was refused by itself; not known of a key that is looked at behind them all.
                        let row = e.at.and_then(|at| group.applies.get(at..=at)).map(keys_of).unwrap_or_default();
                        failed.push(Failed { set: sets[n].clone(), error: e, row });
                    }
                }
                Err(e) => return Err(Trouble::Sink(e, None)),
            }
        }
        Ok(failed)
    }
}

fn applies_of(units: &[Option<Unit>], sets: &[Vec<usize>], range: Range<usize>) -> Vec<Apply> {
    let mut places: Vec<usize> = sets[range].iter().flatten().copied().collect();
    places.sort_unstable();
    fold(places.iter().filter_map(|n| units[*n].as_ref()).flat_map(|u| u.applies.iter().cloned()).collect())
}
