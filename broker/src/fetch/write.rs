//! The bytes of a fetch answer, as they are stored. Walk: produce-fetch 14/14.
//!
//! Batches from memory are handed on by reference; those in files are read in place if the page cache has them, else on a
//! thread that may block, checked against
//! their CRC, and handed on. The envelope is written around them and everything leaves by one vectored write: no record
//! byte is copied on the way from the tail cache to the socket.

use crate::partition::FetchError;
use crate::partition::shell::Partition;
use bytes::Bytes;
use catchwater_base::metric::Counter;
use catchwater_raft::driver::ReadError;
use catchwater_record::BatchView;
use catchwater_record::batch::Codec;
use catchwater_runtime::spawn;
use catchwater_storage::ReadPlan;
use std::sync::Arc;

/// What one answer may read from files without leaving its task, bytes: copying and checking it takes some 200 µs.
const HOT_BYTES_MAX: u64 = 1 << 20;

/// Answers from the tail cache.
pub static READ_TAIL: Counter = Counter::new();
pub static READ_HOT: Counter = Counter::new();
pub static READ_COLD: Counter = Counter::new();

/// Reads all plans, in order. What is in files and in the page cache is read at once; only what must be waited for leaves
/// the task.
pub async fn read(plans: Vec<(Arc<Partition>, ReadPlan)>) -> Vec<Result<Vec<Bytes>, FetchError>> {
    let mut room = HOT_BYTES_MAX;
    let mut out: Vec<Option<Result<Vec<Bytes>, FetchError>>> = Vec::with_capacity(plans.len());
    let mut cold = Vec::new();
    for (i, (partition, plan)) in plans.into_iter().enumerate() {
        let from_files = matches!(plan, ReadPlan::Files(_));
        let bytes = planned_bytes(&plan);
        if matches!(plan, ReadPlan::Tail(_)) {
            READ_TAIL.inc();
        }
        let hot = match plan {
            _ if !from_files => Some(partition.read(plan.clone())),
            _ if bytes <= room => partition.read_hot(&plan),
            _ => None,
        };
        match hot {
            Some(read) => {
                if from_files {
                    room = room.saturating_sub(bytes);
                    READ_HOT.inc();
                }
                out.push(Some(told(read)));
            }
            None => {
                READ_COLD.inc();
                out.push(None);
                cold.push((i, partition, plan));
            }
        }
    }
    if !cold.is_empty() {
        let count = cold.len();
        let places: Vec<usize> = cold.iter().map(|(i, ..)| *i).collect();
        let read = move || cold.into_iter().map(|(_, p, plan)| told(p.read(plan))).collect::<Vec<_>>();
        let failed = |why: String| (0..count).map(|_| Err(FetchError::Bug(why.clone()))).collect();
        let read = spawn::blocking(read).await.unwrap_or_else(failed);
        for (place, result) in places.into_iter().zip(read) {
            out[place] = Some(result);
        }
    }
    out.into_iter().map(|one| one.unwrap_or(Ok(Vec::new()))).collect()
}

fn told(read: Result<Vec<Bytes>, ReadError>) -> Result<Vec<Bytes>, FetchError> {
    match read {
        Ok(batches) => Ok(batches),
        // Retention was faster: the client asks again and learns the new log start.
        Err(ReadError::Gone(_)) => Ok(Vec::new()),
        Err(ReadError::Disk(_) | ReadError::Damaged { .. }) => Err(FetchError::Storage),
    }
}

/// What a plan will give, bytes; one over files that are old may give less.
pub fn planned_bytes(plan: &ReadPlan) -> u64 {
    match plan {
        ReadPlan::Tail(batches) => batches.iter().map(|b| b.len() as u64).sum(),
        ReadPlan::Files(read) => read.bytes,
        ReadPlan::Empty | ReadPlan::OutOfRange => 0,
    }
}

/// Files hold more behind what the plan gives: who reads it catches up, and is answered without waiting for more bytes, as
/// Kafka answers who reads an older segment.
pub fn is_behind(plan: &ReadPlan) -> bool {
    matches!(plan, ReadPlan::Files(read) if read.more)
}

/// Only the first batches of an answer may be larger than what was asked for.
pub fn within(plan: &mut ReadPlan) {
    if let ReadPlan::Files(read) = plan {
        read.at_least_one = false;
    }
}

/// Clients below fetch version 10 do not know zstd (KIP-110).
pub fn holds_zstd(batches: &[Bytes]) -> bool {
    batches.iter().any(|bytes| {
        let mut rest = &bytes[..];
        while let Ok((batch, after)) = BatchView::split(rest) {
            if batch.codec() == Some(Codec::Zstd) {
                return true;
            }
            rest = after;
        }
        false
    })
}
