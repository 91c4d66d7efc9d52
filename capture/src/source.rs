//! The contract between a database connector and the capture worker. One source = one capture = one lease = one worker.
//!
//! Clauses (cases in `conformance`): **S1** whole transactions in commit order, nothing of what was rolled back.
//! **S2** `open(After(n))` gives the first transaction that commits after n and all later ones, or fails with `Gap`.
//! **S3** re-reading gives the same transactions with equal ids and the same rows in the same order. **S4** a table's
//! `Schema` precedes its first row and each change of shape. **S5** after `confirm(n)` the source may forget what is
//! ≤ n and nothing more. **S6** `next` is cancel-safe, respects the batch's room, and keep-alives are answered while
//! nobody calls it. **S7** a row above `row.max.bytes` is `RowTooLarge`. **S8** what may bear rows and is not known is
//! `Unknown`, fatal. **S9** each error has a class. **S10** `close` leaves what the options say and nothing else.
//! **S11** a silent source reports `Idle(position)` at least every second. **S12** replies of the server are foreign.

use bytes::Bytes;
use catchwater_base::Wall;
use catchwater_change::{Native, RowChange, TableSchema, Value};
use catchwater_record::{ErrorCode, TxnId};
use catchwater_runtime::Fut;
use std::collections::BTreeSet;
use std::sync::Arc;

pub trait Source: Send {
    fn capabilities(&self) -> Capabilities;
    /// Reads only: what is wrong and the SQL that cures it. Errors of the connection itself are findings, too.
    fn preflight(&mut self) -> Fut<'_, Vec<Finding>>;
    /// Reads only: who the server is now, before any slot.
    fn identify(&mut self) -> Fut<'_, Result<Identity, SourceError>>;
    /// `known` = the IDENTITY the log holds. `Fresh` makes slot, publication, triggers; the answer carries the new
    /// identity, which the worker commits before the first row.
    fn open(&mut self, start: Start, known: Option<Identity>) -> Fut<'_, Result<Opened, SourceError>>;
    /// Appends items to `out` until it is full or nothing is there; waits for the first. Cancel-safe. May end with none, at the
    /// first call and then once in seconds, for the worker to look at what the source says of itself ([`Source::lag_bytes`]).
    fn next<'a>(&'a mut self, out: &'a mut EventBatch) -> Fut<'a, Result<Progress, SourceError>>;
    /// Returns at once; the latest wins; monotone.
    fn confirm(&mut self, upto: &Native);
    /// A reader with connections of its own, to be used beside `next`. After `open(Fresh)` it reads at exactly the
    /// stream's start ([`View::Exported`]); later it reads chunk by chunk.
    fn snapshot(&mut self) -> Result<Box<dyn Snapshot>, SourceError>;
    /// Tables, `schema.table`, of which a person's statement says which rows are read: not in the order of their keys.
    fn statements(&self) -> BTreeSet<String> {
        BTreeSet::new()
    }
    /// So many readers may be made that all read at exactly the stream's start, each with a connection of its own.
    fn readers_max(&self) -> usize {
        1
    }
    /// Bytes the server keeps for us that are not confirmed yet (lag); `None` = unknown.
    fn lag_bytes(&self) -> Option<u64> {
        None
    }
    /// Since when, at least, the server holds something that has not come; `None` = not known to.
    fn behind_since(&self) -> Option<Wall> {
        None
    }
    /// What the server keeps for us and how long it still will, as it was looked at within the last half minute; `None` =
    /// it has nothing of the kind, or was not asked yet.
    fn slot(&self) -> Option<SlotState> {
        None
    }
    fn close(&mut self) -> Fut<'_, ()>;
    /// For a log that is thrown away: removes what this log made in the source (slot, publication, triggers), nothing
    /// else. The source is closed. `identity` is the newest that the log holds, `opened` = an `open` has answered with it.
    fn detach<'a>(&'a mut self, identity: &'a Identity, opened: bool) -> Fut<'a, Result<(), SourceError>> {
        let _ = (identity, opened);
        Box::pin(async { Ok(()) })
    }
    /// The SQL that does the same by hand; empty = there is nothing to remove.
    fn detach_sql(&self, identity: &Identity, opened: bool) -> String {
        let _ = (identity, opened);
        String::new()
    }
}

pub trait Snapshot: Send {
    /// Units of at most 16 MiB or 50,000 rows, table by table. After a crash the exported view is gone: chunks, each in a
    /// view of its own, and then a table without a key is one unit (rows that cannot be told apart need one view).
    fn plan(&mut self, tables: &[Arc<TableSchema>]) -> Fut<'_, Result<Vec<Chunk>, SourceError>>;
    fn read<'a>(&'a mut self, chunk: &'a Chunk, out: &'a mut Vec<RowChange>) -> Fut<'a, Result<ChunkEnd, SourceError>>;
    /// As [`Snapshot::read`], each row handed over as it comes. What `each` answers ends the read as its error; what was
    /// handed over before any error counts for nothing.
    fn read_each<'a>(&'a mut self, chunk: &'a Chunk, each: &'a mut Each<'_>) -> Fut<'a, Result<View, SourceError>> {
        Box::pin(async move {
            let mut rows = Vec::new();
            let end = self.read(chunk, &mut rows).await?;
            rows.into_iter().try_for_each(each)?;
            Ok(end.view)
        })
    }
    /// Tables that came to the stream after it began: before the first row of one is read, whoever wrote into it and had not
    /// ended when it came is waited for. Of such a transaction the stream may have a part alone.
    fn joined(&mut self, tables: &[Arc<TableSchema>]) {
        let _ = tables;
    }
    /// Units are that much smaller, because so many readers hold one each.
    fn share(&mut self, readers: usize) {
        let _ = readers;
    }
    /// Before the first stretch of a table: waits until every transaction that committed before this call is visible to
    /// views, and looks whether the stretch can be read.
    fn stretches<'a>(&'a mut self, of: &'a Stretch) -> Fut<'a, Result<Expected, SourceError>> {
        let _ = of;
        Box::pin(async { Err(SourceError::no_stretches()) })
    }
    /// Whether the server takes the stretch's filter as one condition over its table. Reads no row; an error that is none of the
    /// connection says what is wrong with it.
    fn look<'a>(&'a mut self, of: &'a Stretch) -> Fut<'a, Result<(), SourceError>> {
        let _ = of;
        Box::pin(async { Err(SourceError::no_stretches()) })
    }
    /// Rows in the order of their key, each call in a view of its own unless it is held.
    fn stretch<'a>(
        &'a mut self,
        of: &'a Stretch,
        out: &'a mut Vec<RowChange>,
    ) -> Fut<'a, Result<StretchEnd, SourceError>> {
        let _ = (of, out);
        Box::pin(async { Err(SourceError::no_stretches()) })
    }
    fn close(&mut self) -> Fut<'_, ()>;
}

/// Takes rows one by one.
pub type Each<'e> = dyn FnMut(RowChange) -> Result<(), SourceError> + Send + 'e;

/// A part of a table for an ad hoc snapshot.
#[derive(Clone, PartialEq, Debug)]
pub struct Stretch {
    pub table: Arc<TableSchema>,
    /// Begins behind this key, in the server's own text; empty = at the first.
    pub after: Vec<String>,
    /// SQL condition its rows meet; empty = all.
    pub filter: String,
    pub rows_max: u32,
    /// Not a part of the order but these keys, whatever the filter says; empty = the part behind `after`.
    pub keys: Vec<Vec<Value>>,
    /// In the view that the first such call took: it stays until the snapshot is closed.
    pub hold: bool,
    /// `stretches` looks for the greatest key, too, and counts the rows.
    pub to_maximum: bool,
}

/// What a table has, before it is read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Expected {
    /// Estimated, or counted if the greatest key was asked for.
    pub rows: u64,
    /// The greatest key among the rows that meet the filter, if it was asked for; empty = there is none.
    pub maximum: Vec<String>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct StretchEnd {
    pub view: View,
    /// Key of its last row; empty = there is none behind `after`. Of asked-for keys it means nothing.
    pub upto: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Start {
    Fresh,
    After(Native),
}

#[derive(Clone, PartialEq, Debug)]
pub struct Opened {
    pub identity: Identity,
    /// Where the stream begins.
    pub native: Native,
    /// All captured tables, as the catalogue shows them now.
    pub tables: Vec<Arc<TableSchema>>,
}

/// A replication slot, as its server tells of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlotState {
    /// Bytes of its log that the server keeps because of the slot.
    pub retained_bytes: u64,
    /// The server's word: PostgreSQL's `wal_status`.
    pub wal_status: String,
    /// Bytes that may still be written before the slot may lose what it needs; `None` = without limit. Below zero: it may.
    pub safe_bytes: Option<i64>,
}

/// Who a server is: tag → bytes, the tags of `docs/formats/checkpoint.md` kind 5. `system` = first byte of its natives.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Identity {
    pub system: u8,
    pub tags: std::collections::BTreeMap<u8, Bytes>,
}

/// Tags of [`Identity`].
pub mod identity_tag {
    pub const SYSTEM_ID: u8 = 1;
    pub const TIMELINE: u8 = 2;
    pub const TIMELINE_HISTORY: u8 = 3;
    pub const DATABASE: u8 = 4;
    pub const SLOT: u8 = 5;
    /// Present once the slot exists.
    pub const CONSISTENT_POINT: u8 = 6;
    pub const PUBLICATION_OID: u8 = 7;
    pub const PUBLICATION: u8 = 8;
    pub const SERVER_UUID: u8 = 9;
    pub const SERVER_ID: u8 = 10;
    pub const SQLITE_UUID: u8 = 12;
    pub const SERVER_VERSION: u8 = 13;
    /// The publication is ours: it was not there before the slot.
    pub const PUBLICATION_MADE: u8 = 14;
    /// The entries of the publication that brought the captured tables when the source was opened.
    pub const PUBLICATION_ENTRIES: u8 = 15;
    /// The partitions whose rows come under their root, as they were when the source was opened.
    pub const PARTITIONS: u8 = 16;
}

/// One item of the stream, in order.
#[derive(Clone, PartialEq, Debug)]
pub enum Item {
    Begin {
        txn: TxnId,
        commit_time: Wall,
        xid: Option<u64>,
        /// PostgreSQL: where the server says that its changes begin, also those that are not given out; `None` = it does not
        /// say, or nothing is like it.
        first_lsn: Option<u64>,
    },
    Row(RowChange),
    /// Precedes the first row that uses it.
    Schema(Arc<TableSchema>),
    /// Behind the description of a table, in a transaction: which of its columns rows hold is not certain, so they are to be read
    /// once more, behind it.
    Again(Arc<TableSchema>),
    /// The transaction ends; resuming after `native` gives the next one.
    Commit {
        native: Native,
        txn: TxnId,
        commit_time: Wall,
    },
    /// Nothing happened up to here.
    Idle(Native),
}

/// Items with a bound: a source stops filling when [`EventBatch::room`] is 0.
#[derive(Debug)]
pub struct EventBatch {
    pub items: Vec<Item>,
    bytes: usize,
    bytes_max: usize,
}

impl EventBatch {
    pub fn new(bytes_max: usize) -> Self {
        EventBatch { items: Vec::new(), bytes: 0, bytes_max }
    }
    /// Bytes that may still be added; one item may exceed it.
    pub fn room(&self) -> usize {
        self.bytes_max.saturating_sub(self.bytes)
    }
    pub fn push(&mut self, item: Item) {
        self.bytes += match &item {
            Item::Row(r) => {
                128 + r.before.as_ref().map_or(0, |x| x.bytes()) + r.after.as_ref().map_or(0, |x| x.bytes())
            }
            _ => 64,
        };
        self.items.push(item);
    }
    pub fn clear(&mut self) {
        self.items.clear();
        self.bytes = 0;
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Items were added.
    Items,
    /// The stream is over (never for a database that lives).
    End,
}

/// A unit of a snapshot: a transaction of its own commit_seq.
#[derive(Clone, PartialEq, Debug)]
pub struct Chunk {
    pub table: Arc<TableSchema>,
    pub unit: u32,
    pub method: ChunkMethod,
    /// Bounds in the server's own text form: key columns (chunked: `lower <= key < upper`), one ctid (exported);
    /// empty = open.
    pub lower: Vec<String>,
    pub upper: Vec<String>,
    pub last_of_table: bool,
    pub rows_estimate: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ChunkMethod {
    Exported = 0,
    Chunked = 1,
}

#[derive(Clone, PartialEq, Debug)]
pub struct ChunkEnd {
    pub view: View,
    pub rows: u64,
}

/// What a chunk's source snapshot saw, and where in the stream it may be placed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum View {
    /// Exactly the stream's start.
    Exported,
    /// A transaction is visible iff `xid < xmax` and it is not in `running`; place the chunk at the first boundary
    /// whose native is at or above `place`.
    Visibility { xmin: u64, xmax: u64, running: Vec<u64>, place: Native },
    /// Everything up to this position, nothing after.
    Exact(Native),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// Units are exactly the source's transactions, or may hold several.
    pub superset: bool,
    pub truncate: bool,
    pub has_snapshot: bool,
    /// Its snapshots read tables in the order of their keys ([`Snapshot::stretch`]).
    pub has_stretches: bool,
}

/// One thing preflight found. `sql` is what a person runs to cure it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    pub code: ErrorCode,
    pub severity: Severity,
    pub fault: String,
    pub evidence: String,
    pub cure: String,
    pub sql: Vec<String>,
    /// Time alone may cure it (the server cannot be reached, or is starting): a worker that was begun tries again.
    pub retry: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Severity {
    Error,
    Warning,
}

/// Why a source failed; the class says what the worker does (S9).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what}")]
pub struct SourceError {
    pub class: SourceClass,
    pub code: ErrorCode,
    /// What failed, with values, never with a secret or a row value.
    pub what: String,
    /// The next step for a person; may be empty.
    pub next: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SourceClass {
    /// The connection, the server restarting: retry with back-off.
    Retry,
    /// Changes are lost or another history sits at our position: a person decides.
    Gap,
    /// Another server than the log knows.
    Identity,
    Config,
    Rights,
    /// One row.
    RowTooLarge,
    /// Something that may bear rows and is not understood.
    Unknown,
    Bug,
}

impl SourceError {
    pub fn new(class: SourceClass, code: u16, what: impl Into<String>, next: impl Into<String>) -> Self {
        SourceError { class, code: ErrorCode(code), what: what.into(), next: next.into() }
    }
    fn no_stretches() -> Self {
        let what = "this source has no ad hoc snapshots";
        Self::new(SourceClass::Config, crate::code::SIGNAL, what, "begin the capture under another source name")
    }
    /// True if trying again without a person may help.
    pub fn is_retry(&self) -> bool {
        self.class == SourceClass::Retry
    }
}
