//! The disk of one life of the node: the machine's, with delays, and gone for the node once it is dead.

use catchwater_runtime::sim::{Host, draw, note, thread::pause};
use catchwater_storage::disk::faulty::FaultyDisk;
use catchwater_storage::disk::{Disk, DiskDone, DiskError, DiskFault, DiskOp, FilePath, Hot};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How slow the machine's disk is at present; shared by all lives of the node.
#[derive(Default)]
pub struct Pace {
    /// Most that a sync takes, ms.
    sync_ms: AtomicU64,
}

impl Pace {
    pub fn set_sync_ms(&self, most: u64) {
        self.sync_ms.store(most, Ordering::Relaxed);
    }
}

/// See the file head.
pub struct LifeDisk {
    pub inner: Arc<FaultyDisk>,
    pub host: Arc<Host>,
    pub pace: Arc<Pace>,
}

impl LifeDisk {
    fn gone(&self, op: &DiskOp) -> Option<DiskError> {
        let gone = DiskError { op: op.name(), path: op.path().clone(), kind: DiskFault::Io };
        self.host.is_dead().then_some(gone)
    }

    /// In a thread of the node; a task never waits for a disk.
    fn delay(&self, op: &DiskOp) -> u64 {
        let most = self.pace.sync_ms.load(Ordering::Relaxed);
        match op {
            DiskOp::Fdatasync { .. } | DiskOp::SyncDir { .. } | DiskOp::SyncFs { .. } | DiskOp::WriteDirect { .. } => {
                1 + draw(most)
            }
            DiskOp::Write { .. } | DiskOp::Read { .. } if draw(20) == 0 => 1 + draw(most),
            _ => 0,
        }
    }
}

impl Disk for LifeDisk {
    fn run(&self, op: DiskOp) -> Result<DiskDone, DiskError> {
        let name = op.name();
        if let Some(gone) = self.gone(&op) {
            return Err(gone);
        }
        let delay_ms = self.delay(&op);
        // Some of it behind: done, and not yet known to be done.
        let before_ms = draw(delay_ms + 1);
        pause(Duration::from_millis(before_ms));
        if let Some(gone) = self.gone(&op) {
            return Err(gone);
        }
        let done = self.inner.run(op);
        note(name, u64::from(done.is_ok()));
        pause(Duration::from_millis(delay_ms - before_ms));
        done
    }

    fn try_hot(&self, path: &FilePath, at: u64, buf: &mut [u8]) -> Hot {
        if draw(4) == 0 { Hot::Cold } else { self.inner.try_hot(path, at, buf) }
    }
}
