//! Pure. Records that are no table's: heartbeats, notifications, ends of transactions; and where tables' records go whose keys
//! are made by transforms.

use super::{Boundary, Emitter};
use catchwater_base::Wall;
use catchwater_change::encode::debezium_json::{Counts, EncodeError, Encoded, Notification};
use catchwater_change::{Native, RowChange, Stamp, Version};
use catchwater_record::{CaptureId, CommitSeq, Incarnation, PartitionId};

/// Kinds of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OwnTopic {
    Heartbeats,
    Notifications,
    Transactions,
}

/// Their topics' names, as they are without transforms.
#[derive(Default)]
pub(super) struct Topics {
    heartbeats: String,
    notifications: String,
    transactions: String,
}

impl Emitter {
    /// Says which topic is one of those. The error is a transform that cannot take its records: they are all of one shape, so it
    /// is known before the first.
    pub fn own_topic(&mut self, of: OwnTopic, name: &str, sample: &Notification) -> Result<(), EncodeError> {
        match of {
            OwnTopic::Heartbeats => {
                self.encoder.heartbeat_in(name, Wall::from_micros(0))?;
                self.own.heartbeats = name.to_owned();
            }
            OwnTopic::Notifications => {
                self.encoder.notification_in(name, sample)?;
                self.own.notifications = name.to_owned();
            }
            OwnTopic::Transactions => {
                let stamp = Stamp {
                    op: 0,
                    flags: 0,
                    version: Version { incarnation: Incarnation(0), commit_seq: CommitSeq(0), ordinal: 0 },
                    total: 0,
                    source: CaptureId(0),
                    commit_time: Wall::from_micros(0),
                    schema_no: 0,
                    native: Native::default(),
                    txn: None,
                };
                for ended in [false, true] {
                    self.encoder.boundary_in(name, &Counts::default(), ended, stamp.clone())?;
                }
                self.own.transactions = name.to_owned();
            }
        }
        Ok(())
    }

    /// A record that says that the source is alive.
    pub fn heartbeat(&self, at: Wall) -> Encoded {
        self.encoder.heartbeat_in(&self.own.heartbeats, at).unwrap_or_else(|_| self.encoder.heartbeat(at))
    }

    /// A record that tells how a snapshot goes.
    pub fn notification(&self, of: &Notification) -> Encoded {
        let made = self.encoder.notification_in(&self.own.notifications, of);
        made.unwrap_or_else(|_| self.encoder.notification(of))
    }

    pub(super) fn own_boundary(&self, end: &Boundary<'_>, stamp: Stamp) -> Encoded {
        let made = self.encoder.boundary_in(&self.own.transactions, end.counts, end.is_end, stamp.clone());
        made.unwrap_or_else(|_| self.encoder.boundary(end.counts, end.is_end, stamp))
    }

    /// Of a key without transforms. Where they make other keys, all records stay together, in their order.
    pub(super) fn partition_of(&self, change: &RowChange, key: Option<&[u8]>, partitions: u32) -> PartitionId {
        let own = self.encoder.has_own_keys(&change.table);
        crate::route::partition(key.filter(|_| own), partitions)
    }

    /// True if compaction keeps a record of each row of a table.
    pub fn keeps_keys(&self, table: &catchwater_change::TableSchema) -> bool {
        self.encoder.keeps_keys(table)
    }

    /// True if the keys of a table's records are those of its rows, by which they are found in the log.
    pub fn has_own_keys(&self, table: &catchwater_change::TableSchema) -> bool {
        self.encoder.has_own_keys(table)
    }
}
