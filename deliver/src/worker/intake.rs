//! What is asked of the log, and what comes back: rows to the merge, TABLE records to the book, cuts to both.
//!
//! Walk: row-change 14/17

use super::flight::{Cargo, Landed, Size};
use super::{PAUSE_MS, Session, Trouble, Worker};
use crate::error::{Failure, ahead, denied, rebuild};
use crate::regroup::OrderError;
use crate::status::State;
use crate::wire::{WireError, records};
use bytes::Bytes;
use catchwater_client::{Fetch, FetchPart, Isolation, LogError, PartitionError};
use catchwater_record::{Offset, TopicPartition};
use std::collections::BTreeMap;

/// Room asked for where the merge is held up: above the largest batch a topic may hold.
pub(super) const LACKING_BYTES: usize = 65 << 20;
pub(super) const INTERNAL_BYTES: u32 = 1 << 20;
/// Most that is asked of a partition at a time. A fetch is held as it came beside the rows that are made of it, and what is
/// compressed becomes several times as much at once; more in one answer spares next to nothing.
const FETCH_BYTES_MAX: usize = 4 << 20;
/// A batch of a capture: of a partition that holds up the merge so much is taken, however small its share is.
const BATCH_BYTES: usize = 5 << 18;
pub(super) const FETCH_WAIT_MS: u32 = 500;
/// With nothing known to be missing, only a cut can bring anything: partitions with rows are looked at so often all the same,
/// for errors (a topic that is gone) and for how far they reach.
const LOOK_EVERY_MS: u64 = 500;

/// How much records grow when they are decompressed: a fetch of four megabytes may hold two hundred.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Growth {
    /// Bytes decompressed for each one stored; `None` = nothing was seen yet.
    factor: Option<f64>,
}

impl Growth {
    /// The newest counts as much as all before it. What is stored larger than it is (headers of batches) counts as the same.
    fn see(&mut self, size: Size) {
        if size.stored > 0 {
            let newest = (size.grown as f64 / size.stored as f64).max(1.0);
            self.factor = Some(self.factor.map_or(newest, |before| (before + newest) / 2.0));
        }
    }

    /// Bytes to ask for, so that about `space` are there when they are decompressed.
    fn stored(&self, space: usize) -> usize {
        ((space as f64 / self.factor.unwrap_or(1.0)) as usize).max(1)
    }
}

fn wire(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl Worker {
    /// Where all that is known to be there was read, no row can be given out before the next cut: then the fetch waits for
    /// that alone, and not for each append of rows, of which there may be many between two cuts.
    pub(super) fn want(&self, session: &mut Session<'_>) -> (Fetch, BTreeMap<TopicPartition, usize>) {
        let now = self.now().mono;
        let waits_for_a_cut = now < session.look_at && !session.is_behind();
        if !waits_for_a_cut {
            session.look_at = now.plus_millis(LOOK_EVERY_MS);
        }
        let credit = self.share.bytes(self.config.credit_bytes);
        let share = (credit / (session.regroup.parts() + 1)).max(1);
        let room = credit.saturating_sub(session.held_bytes());
        let mut parts = Vec::new();
        let mut lacking = Vec::new();
        let mut rooms = BTreeMap::new();
        for (at, offset, space) in session.regroup.wanted(share) {
            let lacks = session.regroup.is_lacking(at);
            if !lacks && (room == 0 || waits_for_a_cut) {
                continue;
            }
            // As large as it is in memory; of the log so much less is asked as it is stored smaller there.
            let space = if lacks { share.max(BATCH_BYTES) } else { space };
            let space = space.min(FETCH_BYTES_MAX);
            rooms.insert(at, space);
            let part = FetchPart { at, offset, max_bytes: wire(self.growth.stored(space)) };
            if lacks { lacking.push(part) } else { parts.push(part) }
        }
        // First those that hold up the merge, then the small internal ones: a first batch comes whatever its size, and of
        // two that lack the one without rows is the first of the next fetch.
        let mut all = lacking;
        for (at, offset) in
            [(session.internal.cuts, session.regroup.cuts_next()), (session.internal.captures, self.book.next)]
        {
            all.push(FetchPart { at, offset, max_bytes: INTERNAL_BYTES });
        }
        all.append(&mut parts);
        let fetch = Fetch {
            parts: all,
            isolation: Isolation::Committed,
            min_bytes: 1,
            max_wait_ms: FETCH_WAIT_MS,
            credit_bytes: wire(room.max(LACKING_BYTES)),
        };
        (fetch, rooms)
    }

    pub(super) async fn handle_fetched(
        &mut self,
        session: &mut Session<'_>,
        landed: Result<Vec<Landed>, LogError>,
    ) -> Result<(), Trouble> {
        let fetched = match landed {
            Ok(f) => f,
            Err(e @ (LogError::Denied | LogError::Unsupported | LogError::NoTopic(_))) => return Err(Trouble::Log(e)),
            Err(e) => {
                let wait = self.retry.wait();
                session.paused_until = self.now().mono.plus_millis(wait);
                self.status.update(|s| {
                    s.state = State::Retrying;
                    s.last_error = Some(denied(&e.to_string()));
                });
                return Ok(());
            }
        };
        session.has_looked = true;
        let (captures, cuts) = (session.internal.captures, session.internal.cuts);
        // TABLE records first: rows and cuts of the same fetch may need them.
        for f in fetched.iter().filter(|f| f.at == captures) {
            if let Ok(Cargo::Stored(bytes)) = &f.what {
                self.read_captures(f.at, bytes)?;
            }
        }
        for f in fetched {
            let at = f.at;
            if at == captures {
                continue;
            }
            let cargo = match f.what {
                Ok(cargo) => cargo,
                Err(PartitionError::OutOfRange) if at == cuts => {
                    session.regroup.cuts_lost(f.bounds.log_start);
                    continue;
                }
                Err(PartitionError::OutOfRange) => {
                    let lost = session.regroup.next(at).is_some_and(|n| n < f.bounds.log_start);
                    return Err(Trouble::Fatal(if lost { rebuild(at) } else { ahead(at, "the log is shorter") }));
                }
                Err(PartitionError::Denied) => return Err(Trouble::Log(LogError::Denied)),
                Err(PartitionError::NoTopic) => return Err(Trouble::Log(LogError::NoTopic(at))),
                Err(PartitionError::NotLeader | PartitionError::Storage(_) | PartitionError::Bug(_)) => {
                    session.paused_until = self.now().mono.plus_millis(PAUSE_MS);
                    continue;
                }
            };
            match cargo {
                Cargo::Unreadable(e) => return Err(e.into()),
                Cargo::Stored(bytes) => self.read_cuts(session, &bytes).await?,
                Cargo::Rows { runs, next, size, foreign } => {
                    self.growth.see(size);
                    if session.thin.fetched(at, f.from, &f.bounds.thinned).is_err() {
                        // Deletes went while this session read: the next one begins at the mark, and judges anew.
                        return Err(Trouble::NotReady);
                    }
                    session.regroup.add_rows(at, runs, next).map_err(|e| self.disorder(&e))?;
                    session.ends.insert(at, f.bounds.lso);
                    if foreign > 0 {
                        self.status.update(|s| s.foreign += foreign);
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) async fn read_cuts(&mut self, session: &mut Session<'_>, bytes: &Bytes) -> Result<(), Trouble> {
        let at = session.internal.cuts;
        let (found, next) = records(at, session.regroup.cuts_next(), bytes)?;
        for record in found {
            let (Some(key), Some(value)) = (&record.key, &record.value) else { continue };
            let (capture, cut) =
                self.deps.wire.cut(key, value).map_err(|why| WireError::Record { at, offset: record.offset, why })?;
            // Those of an earlier incarnation speak of topics that are gone.
            if capture == self.config.capture && cut.incarnation >= self.config.incarnation {
                session.pending_cuts.push_back((record.offset, cut));
            }
        }
        self.enter_cuts(session).await?;
        session.regroup.cuts_read(next);
        Ok(())
    }

    pub(super) fn disorder(&self, e: &OrderError) -> Trouble {
        Trouble::Fatal(Failure::order(e, |at| match self.book.schemas.values().rev().find(|s| s.topic == at.topic) {
            Some(schema) => format!("table {}", schema.qualified()),
            None => at.to_string(),
        }))
    }

    /// Cuts enter once the partitions they name are known.
    pub(super) async fn enter_cuts(&mut self, session: &mut Session<'_>) -> Result<(), Trouble> {
        while let Some((offset, cut)) = session.pending_cuts.pop_front() {
            let unknown = cut.ends.iter().any(|(at, end)| {
                *end > Offset::ZERO && !session.regroup.is_subscribed(*at) && self.book.takes(at.topic) != Some(false)
            });
            if unknown {
                self.read_book(session.internal).await?;
                self.subscribe(session, &BTreeMap::new()).await?;
                self.book.grown = true;
            }
            session.regroup.add_cut(offset, &cut).map_err(|e| self.disorder(&e))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_is_asked_of_what_grows() {
        let mut growth = Growth::default();
        assert_eq!(growth.stored(4 << 20), 4 << 20);
        for _ in 0..20 {
            growth.see(Size { stored: 1 << 20, grown: 50 << 20 });
        }
        let asked = growth.stored(4 << 20);
        assert!((83_000..85_000).contains(&asked), "{asked}");
        growth.see(Size::default());
        assert_eq!(growth.stored(4 << 20), asked, "an empty fetch says nothing");
        for _ in 0..40 {
            growth.see(Size { stored: 1000, grown: 940 });
        }
        assert!(growth.stored(4 << 20) > (4 << 20) - 100);
    }
}
