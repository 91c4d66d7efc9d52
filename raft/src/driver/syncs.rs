//! Threads beside the segment writer that wait for syncs of its files: a sync of one partition holds up neither the
//! writes nor the syncs of the others. They are started when there is something to wait for, and then stay.
//!
//! Each group still has one operation at a time (`storage::segment`): what is ordered there is ordered here.

use super::points::{after_segment, before_segment};
use super::{Inner, lock};
use catchwater_runtime::thread;
use catchwater_storage::disk::{DiskFault, DiskOp};
use catchwater_storage::journal::Token;
use catchwater_storage::segment::SegmentPoint;
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};

/// Syncs under way at one time. More threads gain nothing: measured with files of 16 KiB each, 16 of them do 64 files three
/// times as fast as one, and 32 as fast as 16.
pub(super) const SYNCS_MAX: usize = 16;

/// What waits for a thread, and how many there are.
#[derive(Default)]
pub(super) struct Syncs {
    queue: VecDeque<(Token, DiskOp, SegmentPoint)>,
    threads: usize,
    idle: usize,
}

/// True for an operation that does nothing but wait for the disk.
pub(super) fn only_waits(op: &DiskOp) -> bool {
    matches!(op, DiskOp::Fdatasync { .. } | DiskOp::SyncDir { .. } | DiskOp::SyncFs { .. })
}

/// Hands a sync to one of the threads; its answer comes through the segment writer's inbox.
pub(super) fn begin(inner: &Arc<Inner>, token: Token, op: DiskOp, point: SegmentPoint) {
    let another = {
        let mut syncs = lock(&inner.syncs);
        syncs.queue.push_back((token, op, point));
        let another = syncs.idle < syncs.queue.len() && syncs.threads < SYNCS_MAX;
        syncs.threads += usize::from(another);
        another
    };
    inner.syncs_wake.notify_one();
    if !another {
        return;
    }
    let shared = inner.clone();
    match thread::spawn("cw-sync", move || shared.or_stop("sync the files of", || run(&shared))) {
        Ok(handle) => lock(&inner.threads).push(handle),
        Err(_) => {
            // Out of threads: the others do it; if there are none, this one.
            let last = {
                let mut syncs = lock(&inner.syncs);
                syncs.threads -= 1;
                if syncs.threads == 0 { syncs.queue.pop_back() } else { None }
            };
            if let Some((token, op, point)) = last {
                answer(inner, token, op, point);
            }
        }
    }
}

fn run(inner: &Inner) {
    let mut syncs = lock(&inner.syncs);
    loop {
        if inner.is_over() {
            return;
        }
        match syncs.queue.pop_front() {
            Some((token, op, point)) => {
                drop(syncs);
                answer(inner, token, op, point);
                syncs = lock(&inner.syncs);
            }
            None => {
                syncs.idle += 1;
                syncs = inner.syncs_wake.wait(syncs).unwrap_or_else(PoisonError::into_inner);
                syncs.idle -= 1;
            }
        }
    }
}

fn answer(inner: &Inner, token: Token, op: DiskOp, point: SegmentPoint) {
    before_segment(point);
    let result = inner.run(op);
    // At once, not when the segment writer hears of it: until then the journal would go on to acknowledge.
    if let Err(error) = &result
        && error.kind != DiskFault::NoSpace
    {
        inner.stop(error.clone());
    }
    after_segment(point);
    lock(&inner.segments).done.push((token, result));
    inner.segments_wake.notify_one();
}
