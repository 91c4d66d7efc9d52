//! The first snapshot: all units as they are at the stream's start, made records of by several readers at a time, placed one
//! after the other in the plan's order.
//!
//! ```text
//! plan   0 1 2 3 4 5 6 …            each reader has two units at most: one it reads, one that waits
//! reader A: 0 3 4    B: 1 2 5       what is read before its turn waits in `got`
//! placed 0 1 2 …                    CHUNK record, first row, pages, last row; a crash leaves a prefix of the plan
//! ```
//! So the log looks as with one reader: who takes the tables one after another meets parents before children, the marks
//! of first and last rows stand where they do, and a restart finds units whole but for the last one.
//!
//! Bound: `2 × readers + 1` units in memory, and units are smaller by the number of readers.

use super::super::session::Driven;
use super::super::start::Begun;
use super::super::stream::Stream;
use super::{Ask, Fill, Read, Reader, Rows, Told};
use crate::backfill::Restart;
use crate::bulk::{Bulk, Shared};
use crate::error::{Trouble, code};
use crate::source::{Chunk, Snapshot, Source, SourceClass, SourceError};
use crate::status::State;
use catchwater_base::{Clock, Wall, log};
use catchwater_change::{RowChange, TableSchema};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

/// Readers if nothing is said and there are so many processors.
const READERS: usize = 4;
/// Units that a reader has: the one in work, and one behind it.
const UNITS_PER_READER: usize = super::ASKS_MAX;
/// Rows between two looks at the clock.
const TURN: u64 = 256;

/// A unit to be read.
pub(in crate::worker) struct BulkAsk {
    at: usize,
    chunk: Chunk,
    /// `None` = the rows are handed over as they are.
    bulk: Option<Bulk>,
    commit_time: Wall,
    clock: Arc<dyn Clock>,
}

/// A reader's part: one unit.
pub(super) async fn read(snapshot: &mut dyn Snapshot, ask: BulkAsk) -> Told {
    let BulkAsk { at, chunk, bulk, commit_time, clock } = ask;
    let Some(mut bulk) = bulk else {
        let mut rows = Vec::new();
        return match snapshot.read(&chunk, &mut rows).await {
            Ok(end) => Told::Bulk(at, Box::new(Read { chunk, rows: Rows::Plain(rows), view: end.view })),
            Err(e) => Told::Failed(e),
        };
    };
    let (mut now, mut rows) = (clock.now(), 0u64);
    let mut each = |row: RowChange| {
        rows += 1;
        if rows.is_multiple_of(TURN) {
            now = clock.now();
        }
        bulk.row(now, row).map_err(|e| SourceError::new(SourceClass::Bug, code::ENCODE, e.to_string(), ""))
    };
    match snapshot.read_each(&chunk, &mut each).await {
        Ok(view) => Told::Bulk(at, Box::new(Read { chunk, rows: Rows::Made(Box::new(bulk.end()), commit_time), view })),
        Err(e) => Told::Failed(e),
    }
}

struct Hand {
    reader: Reader,
    /// Units that it was asked for, in their order.
    work: VecDeque<usize>,
    /// It has read one.
    proved: bool,
}

/// The readers and their work.
struct Pool {
    hands: Vec<Hand>,
    plan: Vec<Chunk>,
    /// The next unit that nobody was asked for.
    next: usize,
    /// Units of a reader that failed at its first one.
    again: BTreeSet<usize>,
    got: BTreeMap<usize, Read>,
    placed: usize,
}

impl Pool {
    /// The next unit to ask for, within the bound.
    fn take(&mut self) -> Option<usize> {
        if let Some(at) = self.again.pop_first() {
            return Some(at);
        }
        let bound = self.placed + UNITS_PER_READER * self.hands.len();
        (self.next < self.plan.len().min(bound)).then(|| {
            self.next += 1;
            self.next - 1
        })
    }

    /// Waits for an answer of any reader. Cancel-safe.
    async fn told(&mut self) -> (usize, Option<Told>) {
        poll_fn(|cx| {
            for (i, hand) in self.hands.iter_mut().enumerate().filter(|(_, h)| !h.work.is_empty()) {
                if let Poll::Ready(told) = hand.reader.told.poll_recv(cx) {
                    return Poll::Ready((i, told));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Answers that are there.
    fn told_already(&mut self) -> Option<(usize, Told)> {
        self.hands.iter_mut().enumerate().find_map(|(i, h)| Some((i, h.reader.told.try_recv().ok()?)))
    }

    /// One answer. A reader that cannot even read its first unit (no connection left for it, say) is let go, unless it
    /// is the only one.
    fn handle(&mut self, from: usize, told: Option<Told>, gone: &mut Vec<Reader>) -> Result<(), SourceError> {
        let Some(hand) = self.hands.get_mut(from) else { return Ok(()) };
        match told {
            Some(Told::Bulk(at, read)) => {
                hand.work.retain(|w| *w != at);
                hand.proved = true;
                self.got.insert(at, *read);
                Ok(())
            }
            Some(Told::Failed(e)) if hand.proved || self.hands.len() == 1 || e.class == SourceClass::Bug => Err(e),
            Some(Told::Failed(e)) => {
                log!(Warn, "source.snapshot", "one reader less for the first snapshot: {e}");
                let hand = self.hands.remove(from);
                self.again.extend(hand.work);
                gone.push(hand.reader);
                Ok(())
            }
            _ => Err(SourceError::new(SourceClass::Retry, code::LOG, "the snapshot reader ended", "")),
        }
    }
}

impl Fill {
    pub(super) async fn run_exported(
        &mut self,
        begun: &mut Begun<'_>,
        source: &mut dyn Source,
        stream: &mut Stream,
        tables: Vec<Arc<TableSchema>>,
    ) -> Result<(), Trouble> {
        begun.session.status.update(|s| s.state = State::Snapshot);
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let wanted = begun.session.config.signals.readers.map_or(READERS.min(processors), |n| n as usize);
        let count = wanted.clamp(1, source.readers_max().max(1));
        let mut pool = Pool {
            hands: Vec::new(),
            plan: Vec::new(),
            next: 0,
            again: BTreeSet::new(),
            got: BTreeMap::new(),
            placed: 0,
        };
        let mut gone = Vec::new();
        let result = async {
            if self.planned(begun, &mut pool, tables, count).await? {
                return Ok(());
            }
            let name = format!("capture.{}.snapshot", begun.session.config.source);
            // No more of them than there are units.
            for i in 1..count.min(pool.plan.len()) {
                let reader = Reader::start(format!("{name}.{i}"), source.snapshot()?);
                pool.hands.push(Hand { reader, work: VecDeque::new(), proved: false });
            }
            self.read_exported(begun, stream, &mut pool, &mut gone).await
        }
        .await;
        gone.extend(pool.hands.into_iter().map(|h| h.reader));
        for reader in gone {
            reader.close().await;
        }
        self.close().await;
        result
    }

    /// Asks for the plan; true = the stop came first.
    async fn planned(
        &mut self,
        begun: &mut Begun<'_>,
        pool: &mut Pool,
        tables: Vec<Arc<TableSchema>>,
        count: usize,
    ) -> Result<bool, Trouble> {
        if let Some(reader) = &self.reader {
            reader.ask(Ask::Plan(tables, count));
        }
        while !self.planned {
            match begun.session.drive(self.ready()).await? {
                // The source is told when it streams.
                Driven::Done(()) | Driven::Confirm(_) => {}
                Driven::Stop => {
                    self.aborted(begun);
                    return Ok(true);
                }
            }
            if let Some(e) = self.failed.take() {
                return Err(e.into());
            }
        }
        self.tell_sizes(begun);
        pool.plan = std::mem::take(&mut self.plan).into();
        let own = self.reader.take();
        pool.hands.extend(own.map(|reader| Hand { reader, work: VecDeque::new(), proved: true }));
        Ok(false)
    }

    async fn read_exported(
        &mut self,
        begun: &mut Begun<'_>,
        stream: &mut Stream,
        pool: &mut Pool,
        gone: &mut Vec<Reader>,
    ) -> Result<(), Trouble> {
        while pool.placed < pool.plan.len() {
            while let Some((from, told)) = pool.told_already() {
                pool.handle(from, Some(told), gone)?;
            }
            for depth in 1..=UNITS_PER_READER {
                for hand in 0..pool.hands.len() {
                    if pool.hands[hand].work.len() < depth
                        && let Some(at) = pool.take()
                    {
                        let ask = self.bulk_ask(begun, stream, at, pool.plan[at].clone()).await?;
                        pool.hands[hand].reader.ask(Ask::Bulk(Box::new(ask)));
                        pool.hands[hand].work.push_back(at);
                    }
                }
            }
            if let Some(read) = pool.got.remove(&pool.placed) {
                pool.placed += 1;
                let units = (pool.plan.len() - pool.placed) as u64;
                begun.session.status.update(|s| s.snapshot_units = s.snapshot_units_done + units + 1);
                let (at, last_of_all) = (stream.at.clone(), pool.placed == pool.plan.len());
                self.write(begun, stream, read, at, last_of_all, Restart::No).await?;
            }
            let is_there = pool.got.contains_key(&pool.placed) || pool.placed == pool.plan.len();
            let told = async {
                match is_there {
                    true => None,
                    false => Some(pool.told().await),
                }
            };
            match begun.session.drive(told).await? {
                Driven::Done(Some((from, told))) => pool.handle(from, told, gone)?,
                Driven::Done(None) | Driven::Confirm(_) => {}
                Driven::Stop => {
                    self.aborted(begun);
                    return Ok(());
                }
            }
        }
        self.complete_rest(begun);
        Ok(())
    }

    /// What a reader needs for a unit: all but its number is known.
    async fn bulk_ask(
        &mut self,
        begun: &mut Begun<'_>,
        stream: &Stream,
        at: usize,
        chunk: Chunk,
    ) -> Result<BulkAsk, Trouble> {
        if !begun.hears(&chunk.table) {
            begun.ensure_tables(std::slice::from_ref(&chunk.table)).await?;
        }
        let Some(numbered) = begun.numbered.get(&(Arc::as_ptr(&chunk.table) as usize)) else {
            return Err(Trouble::fail(code::CONTRACT, "a unit of a table that was not described", "report it"));
        };
        let (table, partitions) = (numbered.table.clone(), numbered.partitions);
        let (native, commit_time) = (stream.at.clone(), begun.session.now().wall);
        let rows_estimate = chunk.rows_estimate;
        // Units are placed in the plan's order, each under its place's number.
        let txn = self.txn(table.table_no, at as u32);
        let bulk = begun.session.emitter.bulk(|capture, incarnation, limits| Shared {
            table,
            partitions,
            capture,
            incarnation,
            native,
            txn,
            commit_time,
            limits,
            rows_estimate,
        });
        Ok(BulkAsk { at, chunk, bulk, commit_time, clock: begun.session.clock.clone() })
    }
}
