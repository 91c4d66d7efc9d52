//! The rig that tries to break the built binary on real disks: kills, power cuts, crash points, disk errors, and a ledger of
//! what was acknowledged, kept outside the broker's disk, that judges every restart.
//!
//! Everything is bounded in count and time, seeded, and runs in folders and loop images of its own. A fault that this machine
//! cannot make is a loud SKIP ([`crate::skip`]), never a green run: each round reports the faults it really injected.

pub mod errors;
pub mod flips;
pub mod image;
pub mod kafka;
pub mod kafka_cut;
pub mod kills;
pub mod ledger;
pub mod load;
pub mod names;
pub mod node;
pub mod power;
pub mod soak;
pub mod strace;
mod sys;
pub mod syscalls;
pub mod witness;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder of its own for one run, removed when dropped unless `CW_KEEP_WORK` is set.
#[derive(Debug)]
pub struct Work(PathBuf);

impl Work {
    pub fn new(name: &str) -> Work {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let folder = format!("catchwater-rig.{name}.{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Work(path)
    }

    pub fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if std::env::var_os("CW_KEEP_WORK").is_none() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// What a run did and found. A run without faults is not green, whatever it found.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub seed: u64,
    /// Faults that were really injected.
    pub faults: u64,
    /// Records acknowledged, and records read back and compared, over all cycles.
    pub acked: u64,
    pub compared: u64,
    /// Each in words, with its cycle.
    pub violations: Vec<String>,
    /// What is worth knowing besides: name and figure.
    pub notes: Vec<(String, String)>,
}

impl Outcome {
    pub fn note(&mut self, name: &str, value: impl ToString) {
        self.notes.push((name.to_owned(), value.to_string()));
    }

    /// Adds another run's; its violations say which.
    pub fn merge(&mut self, other: Outcome) {
        let seed = other.seed;
        self.faults += other.faults;
        self.acked += other.acked;
        self.compared += other.compared;
        self.violations.extend(other.violations.into_iter().map(|v| format!("seed {seed}: {v}")));
        for (name, value) in other.notes {
            match self.notes.iter_mut().find(|(n, _)| *n == name) {
                Some((_, have)) => match (have.parse::<u64>(), value.parse::<u64>()) {
                    (Ok(a), Ok(b)) => *have = (a + b).to_string(),
                    _ => *have = format!("{have} {value}"),
                },
                None => self.notes.push((name, value)),
            }
        }
    }

    /// Green: faults were injected, records were acknowledged and compared, nothing was violated.
    pub fn is_green(&self) -> bool {
        self.faults > 0 && self.acked > 0 && self.compared > 0 && self.violations.is_empty()
    }

    /// One line of JSON: what the scoreboard reads.
    pub fn json(&self, what: &str) -> String {
        let notes: serde_json::Map<String, serde_json::Value> =
            self.notes.iter().map(|(k, v)| (k.clone(), serde_json::Value::from(v.clone()))).collect();
        serde_json::json!({
            "rig": what, "seed": self.seed, "faults": self.faults, "acked": self.acked, "compared": self.compared,
            "violations": self.violations.len(), "first": self.violations.first(), "green": self.is_green(), "notes": notes,
        })
        .to_string()
    }
}
