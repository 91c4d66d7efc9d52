//! Pure. One change of one row.

use crate::row::Row;
use crate::schema::TableSchema;
use crate::stamp::Stamp;
use std::sync::Arc;

/// What happened. The letter is Debezium's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Op {
    Create,
    Update,
    Delete,
    /// Read by a snapshot.
    Read,
    Truncate,
    /// No row: a logical message, of the pseudo table [`TableSchema::messages`].
    Message,
}

impl Op {
    pub const fn letter(self) -> char {
        match self {
            Op::Create => 'c',
            Op::Update => 'u',
            Op::Delete => 'd',
            Op::Read => 'r',
            Op::Truncate => 't',
            Op::Message => 'm',
        }
    }
    /// Operations that records of tables have.
    pub fn from_letter(letter: u8) -> Option<Op> {
        Some(match letter {
            b'c' => Op::Create,
            b'u' => Op::Update,
            b'd' => Op::Delete,
            b'r' => Op::Read,
            b't' => Op::Truncate,
            _ => return None,
        })
    }
}

/// Which row of a snapshot this is: Debezium's `source.snapshot`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SnapshotMark {
    #[default]
    No,
    First,
    FirstInCollection,
    Middle,
    LastInCollection,
    Last,
    Incremental,
}

/// What only one system knows of a row's place; goes into the envelope's `source` block.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum SourceInfo {
    #[default]
    None,
    /// `lsn` of the row's own WAL record, `last_commit_lsn` of the transaction before.
    Postgres {
        lsn: Option<u64>,
        txid: Option<u32>,
        last_commit_lsn: Option<u64>,
    },
    Sqlite {
        seq: u64,
    },
}

/// One change as a source gives it out. `before` holds what the source sent (perhaps the key alone, the rest
/// `Absent`/`Unavailable`); `after` is `None` for deletes and truncates.
#[derive(Clone, PartialEq, Debug)]
pub struct RowChange {
    pub table: Arc<TableSchema>,
    pub op: Op,
    pub before: Option<Row>,
    pub after: Option<Row>,
    pub snapshot: SnapshotMark,
    pub info: SourceInfo,
}

/// A change with its stamp: what a record holds.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    pub change: RowChange,
    pub stamp: Stamp,
}
