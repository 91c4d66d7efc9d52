//! Pure. Which disks were damaged beyond what a crash does. The last good copy of an entry is never destroyed, else every
//! loss would be excusable: of several voters a minority at most is damaged, of one the node must refuse or have it all.

use catchwater_base::Rng;
use catchwater_storage::disk::memory::{MemoryDisk, SECTOR_BYTES};

pub struct Atlas {
    damaged: Vec<bool>,
    /// Beyond its journal.
    files: Vec<bool>,
}

impl Atlas {
    pub fn new(nodes: usize) -> Self {
        Atlas { damaged: vec![false; nodes], files: vec![false; nodes] }
    }
    pub fn is_damaged(&self, node: usize) -> bool {
        self.damaged[node]
    }
    /// Its files are as they were: with peers, it comes back.
    pub fn files_are_whole(&self, node: usize) -> bool {
        !self.files[node]
    }
    /// May `node` of so many voters be damaged (again)?
    pub fn may_damage(&self, node: usize, voters: usize) -> bool {
        let others = self.damaged.iter().enumerate().filter(|(n, d)| **d && *n != node).count();
        voters == 1 || others < (voters - 1) / 2
    }
    /// Does something to synced bytes of one file of a node that is down, and says what.
    pub fn damage(
        &mut self,
        node: usize,
        disk: &MemoryDisk,
        rest: bool,
        journal: bool,
        rng: &mut Rng,
    ) -> Option<String> {
        if journal && !rest {
            return None;
        }
        let files: Vec<(String, Vec<u8>)> = disk
            .files()
            .into_iter()
            .filter(|(path, bytes)| !bytes.is_empty() && (rest || !path.ends_with(".wal")))
            .filter(|(path, _)| !journal || path.ends_with(".wal"))
            .collect();
        if files.is_empty() {
            return None;
        }
        let pick = |rng: &mut Rng| rng.below(files.len() as u64) as usize;
        let journals: Vec<usize> = (0..files.len()).filter(|n| files[*n].0.ends_with(".wal")).collect();
        let place = match journals.len() {
            n if n > 0 && rng.chance(500_000) => journals[rng.below(n as u64) as usize],
            _ => pick(rng),
        };
        let (path, old) = &files[place];
        // Where something is: most of a journal file are zeros.
        let used = old.iter().rposition(|b| *b != 0).unwrap_or(0) + 1;
        let near = if rng.chance(300_000) { used.saturating_sub(3 * SECTOR_BYTES) } else { 0 };
        let at = near + rng.below((used - near) as u64) as usize;
        let sector = at / SECTOR_BYTES * SECTOR_BYTES..(at / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES).min(old.len());
        let what = match rng.below(6) {
            0..=2 => {
                let bit = rng.below(8);
                disk.damage(path, |bytes| bytes[at] ^= 1 << bit);
                format!("bit {bit} of byte {at} flipped in {path}")
            }
            3 => {
                disk.damage(path, |bytes| bytes[sector.clone()].fill(0));
                format!("bytes {sector:?} zeroed in {path}")
            }
            4 => {
                // A misdirected write: what belongs elsewhere lies here.
                let (from, other) = &files[pick(rng)];
                let place = rng.below(other.len() as u64) as usize / SECTOR_BYTES * SECTOR_BYTES;
                let len = sector.len().min(other.len() - place);
                disk.damage(path, |bytes| {
                    bytes[sector.start..sector.start + len].copy_from_slice(&other[place..place + len])
                });
                format!("{len} bytes of {from} at {place} written over {path} at {}", sector.start)
            }
            _ => {
                disk.damage(path, |bytes| bytes[sector.clone()].fill_with(|| rng.next_u64() as u8));
                format!("bytes {sector:?} garbage in {path}")
            }
        };
        self.damaged[node] = true;
        self.files[node] |= !path.ends_with(".wal");
        Some(what)
    }
}
