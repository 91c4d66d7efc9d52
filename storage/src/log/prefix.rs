//! Pure. The log before its first index, as a follower gets it, and a log that begins anew with that.

use super::{Log, LogOpenError};
use crate::capture_pos::Captures;
use crate::entry::PrefixSnapshot;
use crate::format::snap::Snap;
use crate::producer::Producers;
use crate::table::Table;
use crate::txn::Transactions;
use bytes::Bytes;
use catchwater_record::EntryIndex;

impl Log {
    /// What a follower needs that is behind [`Log::first_index`]. The state is that of the newest index that is committed
    /// and durable here, not of the one before the first: what only trimmed entries told stands nowhere else.
    pub fn prefix_snapshot(&self) -> PrefixSnapshot {
        let (at, next_offset, payload) = self.snapshot_payload();
        let index = self.first_index().prev();
        let at = at.max(index);
        let applied = self.conf_states.iter().rev().find(|(i, _)| *i <= at).unwrap_or(&self.conf);
        PrefixSnapshot {
            index,
            term: self.prev_term,
            next_offset: self.table.first_offset(),
            log_start: self.log_start,
            conf: applied.1.clone(),
            conf_index: applied.0,
            epochs: self.epochs.iter().filter(|e| e.index <= index).copied().collect(),
            snap: Bytes::from(Snap { gid: self.gid, index: at, next_offset, ahead: true, payload }.encode()),
        }
    }

    /// May it begin behind this one?
    pub fn can_install(&self, snapshot: &PrefixSnapshot) -> bool {
        self.begun_by(snapshot).is_ok()
    }

    /// The log is void and begins behind `snapshot`; nothing of it is durable yet. Errors leave the log as it was.
    pub fn install(&mut self, snapshot: &PrefixSnapshot) -> Result<(), LogOpenError> {
        *self = self.begun_by(snapshot)?;
        self.settle();
        self.tell_producers();
        Ok(())
    }

    fn begun_by(&self, snapshot: &PrefixSnapshot) -> Result<Log, LogOpenError> {
        let bad = LogOpenError::Snapshot(snapshot.index);
        let snap =
            Snap::decode(&snapshot.snap).filter(|s| s.gid == self.gid && s.index >= snapshot.index).ok_or(bad)?;
        let mut fresh = Log::open_with(
            crate::entry::RecoveredGroup::fresh(
                self.gid,
                crate::entry::GroupSpec {
                    topic: catchwater_record::TopicId::NONE,
                    partition: catchwater_record::PartitionId(0),
                    incarnation: 0,
                    conf: self.conf.1.clone(),
                    conf_index: self.conf.0,
                },
            ),
            self.config.clone(),
        )?;
        fresh.table = Table::new(snapshot.index.next(), snapshot.next_offset, Vec::new());
        fresh.log_start = snapshot.log_start.min(snapshot.next_offset);
        fresh.prev_term = snapshot.term;
        fresh.epochs.clone_from(&snapshot.epochs);
        fresh.commit = snapshot.index;
        fresh.persisted = EntryIndex::ZERO;
        (fresh.producers, fresh.captures) = (Producers::default(), Captures::default());
        fresh.transactions = Transactions::default();
        fresh.read_snapshot(snap.payload, snap.index, snapshot.index).ok_or(bad)?;
        fresh.known = snap.index;
        if snapshot.conf_index > EntryIndex::ZERO {
            fresh.conf = (snapshot.conf_index, snapshot.conf.clone());
        }
        Ok(fresh)
    }
}
