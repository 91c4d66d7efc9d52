//! A disk on which what cannot be read is not there: a bad sector is the trouble of the group whose file it is in. What is
//! not there is made again where something vouches for it, and closes its group where nothing does; nothing is believed.
//!
//! Not for slots: an unreadable one may be the newer, so its reader must know.

use crate::disk::{Disk, DiskDone, DiskError, DiskFault, DiskOp, FilePath, Hot};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// So often a read is tried; unlike a write or a sync that failed, it loses nothing.
const READS: u32 = 3;

/// See the file head.
pub(crate) struct Forgiving<'a> {
    disk: &'a dyn Disk,
    unreadable: Mutex<BTreeSet<FilePath>>,
}

fn is_unreadable(error: &DiskError) -> bool {
    matches!(error.kind, DiskFault::Io | DiskFault::TooLong)
}

impl<'a> Forgiving<'a> {
    pub(crate) fn new(disk: &'a dyn Disk) -> Self {
        Forgiving { disk, unreadable: Mutex::default() }
    }

    /// Files of which a read gave an error.
    pub(crate) fn unreadable(&self) -> Vec<FilePath> {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

impl Disk for Forgiving<'_> {
    fn run(&self, op: DiskOp) -> Result<DiskDone, DiskError> {
        if !matches!(op, DiskOp::Read { .. }) {
            return self.disk.run(op);
        }
        // A group that is closed stays so until somebody repairs it: an error that passes must not do that.
        for _ in 1..READS {
            match self.disk.run(op.clone()) {
                Err(e) if is_unreadable(&e) => {}
                other => return other,
            }
        }
        self.disk.run(op).map_err(|e| {
            if !is_unreadable(&e) {
                return e;
            }
            self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).insert(e.path.clone());
            DiskError { kind: DiskFault::NotFound, ..e }
        })
    }

    fn try_hot(&self, file: &FilePath, at: u64, buf: &mut [u8]) -> Hot {
        self.disk.try_hot(file, at, buf)
    }
}
