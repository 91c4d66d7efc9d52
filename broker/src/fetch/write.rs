//! The bytes of a fetch answer, as they are stored. Walk: produce-fetch 14/14.
//!
//! Batches from memory are handed on by reference; those in files are read on a thread that may block, checked against
//! their CRC, and handed on. The envelope is written around them and everything leaves by one vectored write: no record
//! byte is copied on the way from the tail cache to the socket.

use crate::partition::FetchError;
use crate::partition::shell::Partition;
use bytes::Bytes;
use catchwater_raft::driver::ReadError;
use catchwater_record::BatchView;
use catchwater_record::batch::Codec;
use catchwater_runtime::spawn;
use catchwater_storage::ReadPlan;
use std::sync::Arc;

/// Reads all plans, in order. Only what is in files leaves the task.
pub async fn read(plans: Vec<(Arc<Partition>, ReadPlan)>) -> Vec<Result<Vec<Bytes>, FetchError>> {
    if plans.iter().all(|(_, plan)| !matches!(plan, ReadPlan::Files(_))) {
        return plans.into_iter().map(|(partition, plan)| one(&partition, plan)).collect();
    }
    let count = plans.len();
    let read = move || plans.into_iter().map(|(partition, plan)| one(&partition, plan)).collect::<Vec<_>>();
    spawn::blocking(read).await.unwrap_or_else(|why| (0..count).map(|_| Err(FetchError::Bug(why.clone()))).collect())
}

fn one(partition: &Partition, plan: ReadPlan) -> Result<Vec<Bytes>, FetchError> {
    match partition.read(plan) {
        Ok(batches) => Ok(batches),
        // Retention was faster: the client asks again and learns the new log start.
        Err(ReadError::Gone(_)) => Ok(Vec::new()),
        Err(ReadError::Disk(_) | ReadError::Damaged { .. }) => Err(FetchError::Storage),
    }
}

/// What a plan will give, bytes.
pub fn planned_bytes(plan: &ReadPlan) -> u64 {
    match plan {
        ReadPlan::Tail(batches) => batches.iter().map(|b| b.len() as u64).sum(),
        ReadPlan::Files(ranges) => ranges.iter().map(|r| u64::from(r.len)).sum(),
        ReadPlan::Empty | ReadPlan::OutOfRange => 0,
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
