//! A run of compaction on one group: steps on the caller's thread, switches through the segment writer.

use super::{LogDir, lock};
use catchwater_record::Gid;
use catchwater_runtime::thread::Answer;
use catchwater_storage::compact::{Choice, NatureOf, Policy};
pub use catchwater_storage::compact_run::{CompactError, Stats};
use catchwater_storage::compact_run::{CompactRun, Job, Progress};
use catchwater_storage::log::CompactionInput;
use catchwater_storage::segment::{Replacement, SegmentEvent, group_dir};
use std::time::Duration;

/// How long a switch may take: one manifest behind whatever the segment writer is at.
const SWITCH_LIMIT: Duration = Duration::from_secs(60);
/// What one batch may give out when it is opened, bytes.
const OUTPUT_BYTES_MAX: usize = 64 << 20;

/// Bounds of a run.
#[derive(Clone, Copy, Debug)]
pub struct CompactLimits {
    /// Memory of the map of keys, bytes.
    pub map_bytes_max: u64,
    /// Key of the map's hash: unguessable.
    pub secret: (u64, u64),
    pub nature: NatureOf,
}

/// One run. Dropped before its end it leaves the log as the last switch made it.
pub struct Compaction {
    dir: LogDir,
    gid: Gid,
    /// As the group was opened when the run was planned.
    opened: u64,
    run: CompactRun,
}

impl Compaction {
    /// `alone`: no other replica has this log.
    pub fn new(
        dir: LogDir,
        gid: Gid,
        (choice, input): (Choice, CompactionInput),
        (policy, limits): (Policy, CompactLimits),
        (now_ms, alone): (i64, bool),
    ) -> Self {
        let job = Job {
            gid,
            dir: group_dir(&dir.inner.layout.groups(), gid),
            segments: input.segments,
            dirty_from: choice.dirty_from,
            policy,
            now_ms,
            secret: limits.secret,
            map_bytes_max: limits.map_bytes_max,
            output_bytes_max: OUTPUT_BYTES_MAX,
            producers: input.producers,
            captures: input.captures,
            aborted: input.aborted,
            nature: limits.nature,
            alone,
        };
        Compaction { opened: dir.opened(gid), dir, gid, run: CompactRun::new(job) }
    }

    /// Moves about `budget_bytes` and says how many it were; `Err(stats)` inside `Ok` = the run has come to its end.
    /// Blocking.
    pub fn step(&mut self, budget_bytes: u64) -> Result<Result<u64, Stats>, CompactError> {
        if self.dir.inner.is_over() || self.dir.opened(self.gid) != self.opened {
            return Err(CompactError::Changed);
        }
        match self.run.step(&*self.dir.inner.disk, budget_bytes)? {
            Progress::More(bytes) => Ok(Ok(bytes)),
            Progress::Done(stats) => Ok(Err(stats)),
            Progress::Switch(replacement) => {
                let done = self.dir.switch(self.gid, replacement);
                self.run.switched(done)?;
                Ok(Ok(0))
            }
        }
    }
}

impl LogDir {
    /// Asks the segment writer to put the replacement in force and waits for its word. Blocking.
    fn switch(&self, gid: Gid, replacement: Box<Replacement>) -> bool {
        let answer = Answer::new();
        lock(&self.inner.switches).insert(gid, answer.clone());
        self.inner.tell_segments([SegmentEvent::Switch(gid, replacement)]);
        let done = answer.wait(SWITCH_LIMIT).unwrap_or(false);
        lock(&self.inner.switches).remove(&gid);
        done
    }
}
