//! Faults on top of a [`MemoryDisk`]: errors, a full disk, lying syncs, flipped bits. Seeded; the simulator delays and
//! reorders completions by itself, and calls [`FaultyDisk::power_cut`] and [`FaultyDisk::kill`] when it pleases.
//!
//! A failed write or sync leaves what the kernel leaves: the bytes may be there in part, and a *second* sync says yes
//! without having done anything. So whoever retries loses data, and the tests see it.

use super::memory::{Cut, MemoryDisk};
use super::{Disk, DiskDone, DiskError, DiskFault, DiskOp, FilePath, Hot};
use bytes::Bytes;
use catchwater_base::{Rng, mutant};
use std::sync::{Arc, Mutex, PoisonError};

/// Rates per million operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FaultRates {
    /// A write or sync fails with EIO; the bytes are not made durable.
    pub write_error: u32,
    /// A read fails with EIO; the next one may work.
    pub read_error: u32,
    /// A read gives back one flipped bit.
    pub read_flip: u32,
    /// A write finds no space.
    pub no_space: u32,
}

/// See the file head.
pub struct FaultyDisk {
    inner: Arc<MemoryDisk>,
    state: Mutex<Faults>,
}

struct Faults {
    rates: FaultRates,
    rng: Rng,
    /// Counted down by writes and syncs; at zero the operation fails. For tests that fail each one in turn.
    fail_write_in: Option<u64>,
    writes: u64,
    errors: u64,
}

impl FaultyDisk {
    pub fn new(inner: Arc<MemoryDisk>, rates: FaultRates, seed: u64) -> Self {
        let state = Faults { rates, rng: Rng::new(seed), fail_write_in: None, writes: 0, errors: 0 };
        FaultyDisk { inner, state: Mutex::new(state) }
    }

    pub fn memory(&self) -> &Arc<MemoryDisk> {
        &self.inner
    }
    pub fn set_rates(&self, rates: FaultRates) {
        self.lock().rates = rates;
    }
    /// The n-th write or sync from now fails once (0 = the next).
    pub fn fail_write_in(&self, n: u64) {
        self.lock().fail_write_in = Some(n);
    }
    /// Writes and syncs so far.
    pub fn writes(&self) -> u64 {
        self.lock().writes
    }
    /// Faults injected so far.
    pub fn errors(&self) -> u64 {
        self.lock().errors
    }
    pub fn kill(&self) {
        self.inner.kill();
    }
    pub fn power_cut(&self, cut: Cut) {
        let mut rng = self.lock().rng.fork(0x70);
        self.inner.power_cut(cut, &mut rng);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Faults> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Fault {
    None,
    Fail(DiskFault),
    /// No space; of a write a part that this number draws is there nevertheless.
    Full(u64),
    Flip(u64),
}

impl Faults {
    fn draw(&mut self, op: &DiskOp) -> Fault {
        if op.is_write() {
            self.writes += 1;
            match self.fail_write_in {
                Some(0) => {
                    self.fail_write_in = None;
                    self.errors += 1;
                    return Fault::Fail(DiskFault::Io);
                }
                Some(n) => self.fail_write_in = Some(n - 1),
                None => {}
            }
            let grows = matches!(op, DiskOp::Write { .. } | DiskOp::Fallocate { .. } | DiskOp::CreateNew { .. });
            if grows && self.rates.no_space > 0 && self.rng.chance(self.rates.no_space) {
                self.errors += 1;
                return Fault::Full(self.rng.next_u64());
            }
            if self.rates.write_error > 0 && self.rng.chance(self.rates.write_error) {
                self.errors += 1;
                return Fault::Fail(DiskFault::Io);
            }
        }
        if matches!(op, DiskOp::Read { .. }) {
            if self.rates.read_error > 0 && self.rng.chance(self.rates.read_error) {
                self.errors += 1;
                return Fault::Fail(DiskFault::Io);
            }
            if self.rates.read_flip > 0 && self.rng.chance(self.rates.read_flip) {
                self.errors += 1;
                return Fault::Flip(self.rng.next_u64());
            }
        }
        Fault::None
    }
}

impl Disk for FaultyDisk {
    fn run(&self, op: DiskOp) -> Result<DiskDone, DiskError> {
        if mutant!("no_directory_fsync") && matches!(op, DiskOp::SyncDir { .. }) {
            return Ok(DiskDone::Done);
        }
        if mutant!("fsync_lies") {
            match op {
                DiskOp::Fdatasync { .. } | DiskOp::SyncFs { .. } => return Ok(DiskDone::Done),
                DiskOp::WriteDirect { path, at, buf } => {
                    let bufs = vec![Bytes::copy_from_slice(buf.bytes())];
                    self.inner.run(DiskOp::Write { path, at, bufs })?;
                    return Ok(DiskDone::Buffer(buf));
                }
                _ => {}
            }
        }
        let fault = self.lock().draw(&op);
        match fault {
            Fault::None => self.inner.run(op),
            Fault::Fail(kind) => Err(DiskError { op: op.name(), path: op.path().clone(), kind }),
            Fault::Full(draw) => {
                let error = DiskError { op: op.name(), path: op.path().clone(), kind: DiskFault::NoSpace };
                if let DiskOp::Write { path, at, bufs } = op {
                    let all = bufs.concat();
                    let part = all[..(draw % (all.len() as u64 + 1)) as usize].to_vec();
                    self.inner.run(DiskOp::Write { path, at, bufs: vec![part.into()] })?;
                }
                Err(error)
            }
            Fault::Flip(draw) => match self.inner.run(op)? {
                DiskDone::Read(bytes) if !bytes.is_empty() => {
                    let mut bad = bytes.to_vec();
                    let bit = draw % (bad.len() as u64 * 8);
                    bad[(bit / 8) as usize] ^= 1 << (bit % 8);
                    Ok(DiskDone::Read(Bytes::from(bad)))
                }
                done => Ok(done),
            },
        }
    }

    fn try_hot(&self, path: &FilePath, at: u64, buf: &mut [u8]) -> Hot {
        self.inner.try_hot(path, at, buf)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::disk::DiskExt;

    #[test]
    fn the_chosen_write_fails_once() {
        let disk = FaultyDisk::new(Arc::new(MemoryDisk::new()), FaultRates::default(), 1);
        disk.fail_write_in(1);
        disk.create_new("/f").unwrap();
        assert_eq!(disk.write("/f", 0, Bytes::from_static(b"x")).unwrap_err().kind, DiskFault::Io);
        disk.write("/f", 0, Bytes::from_static(b"x")).unwrap();
        assert_eq!((disk.writes(), disk.errors()), (3, 1));
    }

    #[test]
    fn equal_seeds_fail_at_equal_places() {
        let run = |seed| {
            let rates = FaultRates { write_error: 200_000, ..FaultRates::default() };
            let disk = FaultyDisk::new(Arc::new(MemoryDisk::new()), rates, seed);
            (0..50).map(|i| disk.create_new(&format!("/f{i}")).is_ok()).collect::<Vec<_>>()
        };
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
    }
}
