//! Pure. Transactions as a slot gives them that never sends the operations `skipped.operations` names: Debezium's publication
//! leaves them out (`publish = '…'`), so that a transaction of nothing else is not there, one of them begins at its first
//! other change, and `sequence` names the commit of one that was there.

use crate::source::Item;
use catchwater_change::{Op, RowChange, SourceInfo};

#[derive(Default)]
pub(super) struct Sent {
    /// The beginning of a transaction of which nothing was sent so far.
    begun: Option<Item>,
    hidden: bool,
    shown: bool,
    /// What the rows behind a transaction that is not there name as the commit before them.
    last_commit: Option<Option<u64>>,
}

impl Sent {
    pub fn begin(&mut self, begin: Item) {
        *self = Sent { begun: Some(begin), last_commit: self.last_commit, ..Sent::default() };
    }

    /// Before a row: the beginning of its transaction, if it goes out now.
    pub fn row(&mut self, change: &mut RowChange, is_sent: bool) -> Option<Item> {
        let is_message = change.op == Op::Message;
        let mut here = None;
        if let SourceInfo::Postgres { lsn, txid, last_commit_lsn } = &mut change.info {
            here = *lsn;
            // A message of no transaction is its own commit.
            if !(is_message && txid.is_none()) {
                *last_commit_lsn = *self.last_commit.get_or_insert(*last_commit_lsn);
            }
        }
        if !is_sent {
            self.hidden = true;
            return None;
        }
        self.shown = true;
        let hidden = self.hidden;
        self.begun.take().map(|begin| match begin {
            Item::Begin { txn, commit_time, xid, .. } if hidden => {
                Item::Begin { txn, commit_time, xid, first_lsn: here }
            }
            begin => begin,
        })
    }

    /// Before a commit: the beginning, if nothing was sent. It has no place then, unless it held nothing at all.
    pub fn commit(&mut self) -> Option<Item> {
        let hidden = self.hidden;
        if self.shown || !hidden {
            self.last_commit = None;
        }
        self.begun.take().map(|begin| match begin {
            Item::Begin { txn, commit_time, xid, .. } if hidden => {
                Item::Begin { txn, commit_time, xid, first_lsn: None }
            }
            begin => begin,
        })
    }
}
