//! Pure. `source.xmin`: what the slot was last asked for, shared by the one who asks and those who write records.

use crate::event::SnapshotMark;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// 0 = nothing is known, or nobody asks. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Xmin(Arc<AtomicU64>);

impl Xmin {
    pub fn set(&self, xmin: u64) {
        self.0.store(xmin, Ordering::Relaxed);
    }

    /// For a record; those of a snapshot of whole tables have none.
    pub(super) fn of(&self, mark: SnapshotMark) -> Option<u64> {
        match mark {
            SnapshotMark::No | SnapshotMark::Incremental => Some(self.0.load(Ordering::Relaxed)).filter(|x| *x > 0),
            _ => None,
        }
    }
}

impl PartialEq for Xmin {
    /// What it holds is no part of what a source is told.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Xmin {}
