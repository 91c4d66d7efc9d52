//! The fetch that is on its way while the sink works: bytes of the log → rows, decoded beside the sink's waiting.
//!
//! A flight is polled by the worker's own task, never spawned: with the worker it ends. It decodes a few rows at a time
//! and lets others run in between.

use super::lanes::Lanes;
use crate::regroup::Run;
use crate::wire::{RawRecord, Taken, Wire, WireError, records_in};
use bytes::Bytes;
use catchwater_base::{Clock, Wall};
use catchwater_change::{RowChange, Stamp, TableSchema};
use catchwater_client::{Bounds, Fetch, Fetched, LogClient, LogError, PartitionError};
use catchwater_record::{CaptureId, Offset, TopicPartition};
use catchwater_runtime::Fut;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Rows decoded between two looks at the other futures.
const ROWS_PER_BREATH: usize = 64;

/// One partition of a fetch.
pub(super) struct Landed {
    pub at: TopicPartition,
    /// Offset asked for.
    pub from: Offset,
    pub bounds: Bounds,
    pub what: Result<Cargo, PartitionError>,
}

pub(super) enum Cargo {
    /// Of an internal partition: as stored.
    Stored(Bytes),
    Rows {
        runs: Vec<Run<Held>>,
        next: Offset,
        size: Size,
        /// Records without a stamp.
        foreign: u64,
    },
    Unreadable(WireError),
}

/// Of what was taken of a fetch, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Size {
    pub stored: usize,
    /// Decompressed.
    pub grown: usize,
}

/// A row that waits for its turn.
pub(super) struct Held {
    pub stamp: Stamp,
    /// When the capture made its record, and when our fetch came back with it.
    pub captured: Wall,
    pub read: Wall,
    pub content: Content,
}

pub(super) enum Content {
    Row(Box<RowChange>),
    /// Its schema was not known yet when it was fetched, or it cannot be decoded: it is tried again at its turn.
    Raw(Box<RawRecord>),
}

/// What a flight needs to decode.
pub(super) struct Decoding {
    /// Bytes of records, decompressed, that are taken of each partition; the rest is asked for again.
    pub room: BTreeMap<TopicPartition, usize>,
    pub wire: Arc<dyn Wire>,
    pub schemas: Arc<BTreeMap<u32, Arc<TableSchema>>>,
    pub capture: CaptureId,
    pub clock: Arc<dyn Clock>,
    /// Partitions whose bytes are wanted as stored.
    pub internal: [TopicPartition; 2],
}

type Going<'a> = Fut<'a, Result<Vec<Landed>, LogError>>;

#[derive(Default)]
pub(super) struct Flight<'a> {
    pub going: Option<Going<'a>>,
    pub landed: Option<Result<Vec<Landed>, LogError>>,
    /// Groups that move at the same time.
    pub lanes: Lanes,
}

impl<'a> Flight<'a> {
    pub fn start(&mut self, log: &'a Arc<dyn LogClient>, want: Fetch, decoding: Decoding) {
        self.going = Some(Box::pin(fly(log, want, decoding)));
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) {
        self.lanes.poll(cx);
        if let Some(going) = &mut self.going
            && let Poll::Ready(result) = going.as_mut().poll(cx)
        {
            self.going = None;
            self.landed = Some(result);
        }
    }

    /// Runs `work` to its end and the flight beside it. Cancel-safe if `work` is.
    pub async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            // The work first: while the target computes there is time for the rest.
            let done = work.as_mut().poll(cx);
            if done.is_pending() {
                self.poll(cx);
            }
            done
        })
        .await
    }

    /// Lets others run, and the flight move.
    pub async fn breathe(&mut self) {
        let mut yielded = false;
        poll_fn(|cx| {
            self.poll(cx);
            again(cx, &mut yielded)
        })
        .await;
    }
}

/// Pending once, and woken at once.
fn again(cx: &mut Context<'_>, yielded: &mut bool) -> Poll<()> {
    if std::mem::replace(yielded, true) {
        return Poll::Ready(());
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

async fn fly(log: &Arc<dyn LogClient>, want: Fetch, decoding: Decoding) -> Result<Vec<Landed>, LogError> {
    let asked: BTreeMap<_, _> = want.parts.iter().map(|p| (p.at, p.offset)).collect();
    let fetched = log.fetch(want).await?;
    let mut out = Vec::with_capacity(fetched.len());
    for Fetched { at, bounds, batches, .. } in fetched {
        let from = asked.get(&at).copied().unwrap_or(Offset::ZERO);
        let room = decoding.room.get(&at).copied().unwrap_or(usize::MAX);
        let what = match batches {
            Err(e) => Err(e),
            Ok(bytes) if decoding.internal.contains(&at) => Ok(Cargo::Stored(bytes)),
            Ok(bytes) => match records_in(at, from, &bytes, room) {
                Ok(taken) => Ok(decode(at, taken, &decoding).await),
                Err(e) => Ok(Cargo::Unreadable(e)),
            },
        };
        out.push(Landed { at, from, bounds, what });
    }
    Ok(out)
}

/// Records of a table's topic → rows of the merge. Tombstones, schema changes and messages are no rows.
async fn decode(at: TopicPartition, taken: Taken, decoding: &Decoding) -> Cargo {
    let Taken { records: found, next, stored, grown } = taken;
    let size = Size { stored, grown };
    let (mut runs, mut foreign) = (Vec::with_capacity(found.len()), 0);
    let read = decoding.clock.now().wall;
    for (i, record) in found.into_iter().enumerate() {
        if i % ROWS_PER_BREATH == ROWS_PER_BREATH - 1 {
            let mut yielded = false;
            poll_fn(|cx| again(cx, &mut yielded)).await;
        }
        let Some(stamp) = &record.stamp else {
            foreign += 1;
            continue;
        };
        let offset = record.offset;
        let stamp = match Stamp::decode_slice(stamp) {
            Ok(stamp) => stamp,
            Err(e) => return Cargo::Unreadable(WireError::Record { at, offset, why: e.to_string() }),
        };
        if stamp.source != decoding.capture || matches!(stamp.op, b'b' | b's' | b'm') {
            continue;
        }
        let (bytes, captured) = (record.bytes(), Wall::from_micros(record.timestamp_ms.saturating_mul(1000)));
        let decoded =
            decoding.schemas.get(&stamp.schema_no).and_then(|schema| decoding.wire.row(&record, &stamp, schema).ok());
        let (bytes, content) = match decoded {
            Some(row) => (bytes.max(row_bytes(&row)), Content::Row(Box::new(row))),
            None => (bytes, Content::Raw(Box::new(record))),
        };
        runs.push(Run { version: stamp.version, offset, bytes, row: Held { stamp, captured, read, content } });
    }
    Cargo::Rows { runs, next, size, foreign }
}

fn row_bytes(row: &RowChange) -> usize {
    let of = |r: &Option<catchwater_change::Row>| r.as_ref().map_or(0, catchwater_change::Row::bytes);
    256 + of(&row.before) + of(&row.after)
}
