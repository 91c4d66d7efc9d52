//! A group is opened again from disk while the directory goes on: after a panic in it, what its memory holds is not to be
//! trusted, what was acknowledged is durable all the same.
//! ```text
//!  its events go to nobody ─▶ marker through the journal: all it queued is durable, and on its way to files
//!     ─▶ the segment writer places and syncs it, and lets go ─▶ its files are read as at a start ─▶ back to the segment writer
//! ```
//! Between two groups nothing is shared but the threads: the others are appended to, flushed and read meanwhile.

use super::{Inner, LogDir, Slot, lock};
use catchwater_base::crash_point;
use catchwater_record::Gid;
use catchwater_runtime::thread::Answer;
use catchwater_storage::journal::{Head, JournalBatch};
use catchwater_storage::recover::{RecoverError, reopen};
use catchwater_storage::relaxed::RelaxedEvent;
use catchwater_storage::segment::SegmentEvent;
use catchwater_storage::{RecoveredGroup, Verdict};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// In the tags of markers; `catchwater_storage::relaxed::OWN_TAG` is the bit above.
const MARKER: u64 = 1 << 62;
/// How often somebody who waits looks whether the directory still works.
const LOOK: Duration = Duration::from_millis(100);

/// Why a group did not come back.
#[derive(Debug, thiserror::Error)]
pub enum ReopenError {
    #[error("the log directory has stopped")]
    Stopped,
    #[error("it is being opened again already, or it is gone")]
    Busy,
    #[error("what is on the disk is {0:?}: it stays as it is")]
    Verdict(Verdict),
    #[error(transparent)]
    Recover(#[from] RecoverError),
}

/// Groups that are on their way, and who waits for each.
#[derive(Default)]
pub(super) struct Reopening {
    waiting: BTreeMap<Gid, (Arc<Answer<Head>>, Option<Head>)>,
}

impl Reopening {
    pub(super) fn is_marker(tag: u64) -> bool {
        tag & (1 << 63 | MARKER) == MARKER
    }
}

impl LogDir {
    /// Reads a group again whose replica is no longer to be trusted. It hears nothing more from now on and must persist
    /// nothing more; attach the one that is made from the answer. Bounds of its segments and its durability are to be told
    /// again. Blocking, on the disk and on whatever of the group is queued.
    pub fn reopen(&self, gid: Gid) -> Result<RecoveredGroup, ReopenError> {
        let inner = &*self.inner;
        let left = Answer::new();
        {
            let mut reopening = lock(&inner.reopening);
            if reopening.waiting.contains_key(&gid) || lock(&inner.replicas).get(&gid).is_none() {
                return Err(ReopenError::Busy);
            }
            reopening.waiting.insert(gid, (left.clone(), None));
        }
        let done = self.reopen_with(gid, &left);
        lock(&inner.reopening).waiting.remove(&gid);
        done
    }

    fn reopen_with(&self, gid: Gid, left: &Answer<Head>) -> Result<RecoveredGroup, ReopenError> {
        let inner = &*self.inner;
        if let Some(slot) = lock(&inner.replicas).get_mut(&gid) {
            *slot = Slot::Closed;
        }
        *lock(&inner.opened).entry(gid).or_insert(0) += 1;
        crash_point!("reopen.before_leave");
        inner.relaxed(RelaxedEvent::Dropped(gid));
        inner.queue(JournalBatch { gid, tag: Some(MARKER), ..JournalBatch::default() });
        let head = loop {
            match left.wait(LOOK) {
                Some(head) => break head,
                None if inner.is_over() => return Err(ReopenError::Stopped),
                None => {}
            }
        };
        crash_point!("reopen.before_read");
        let read = reopen(&*inner.disk, &inner.layout, gid, head);
        crash_point!("reopen.after_read");
        if lock(&inner.replicas).get(&gid).is_none() {
            // Dropped meanwhile. If the segment writer knew nothing of it then, it is told once more, now that it does.
            if let Ok((_, files)) = read {
                inner.tell_segments([SegmentEvent::Open(Box::new(files))]);
                inner.queue(JournalBatch { gid, drop: true, ..JournalBatch::default() });
            }
            return Err(ReopenError::Busy);
        }
        let (group, files) = read?;
        if files.quarantine.is_some() {
            lock(&inner.shut).insert(gid, group.spec.clone());
            return Err(ReopenError::Verdict(group.verdict));
        }
        let loose = files.loose;
        let last = group.last_index();
        inner.tell_segments([SegmentEvent::Open(Box::new(files))]);
        if let Some(loose) = loose {
            inner.relaxed(RelaxedEvent::Found(gid, loose, last));
        }
        if let Some(slot) = lock(&inner.replicas).get_mut(&gid) {
            *slot = Slot::Waiting(Vec::new());
        }
        Ok(group)
    }

    /// How often the group was opened again: whoever works on its files beside the segment writer gives up when it changes.
    pub(super) fn opened(&self, gid: Gid) -> u64 {
        lock(&self.inner.opened).get(&gid).copied().unwrap_or(0)
    }
}

impl Inner {
    /// The marker of a group is durable, and everything before it is queued for segments.
    pub(super) fn marked(&self, gid: Gid, head: Head) {
        if let Some((_, kept)) = lock(&self.reopening).waiting.get_mut(&gid) {
            *kept = Some(head);
            self.tell_segments([SegmentEvent::Leave(gid)]);
        }
    }

    /// The segment writer knows nothing of the group any more.
    pub(super) fn left(&self, gid: Gid) {
        if let Some((answer, Some(head))) = lock(&self.reopening).waiting.get_mut(&gid) {
            answer.give(std::mem::take(head));
        }
    }
}
