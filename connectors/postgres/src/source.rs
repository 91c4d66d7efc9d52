//! PostgreSQL as a source: logical replication by pgoutput in the highest version of its protocol that the
//! server speaks; text, or binary where the types allow it.
//!
//! [`PgSource`] is the shell around `stream` (the connection's task), `decode` and `values` (pure): it gives out whole
//! transactions as they come, in commit order. A transaction is on the wire only after its commit (S1), or is
//! held back in `large` until then. `next` keeps its
//! place in `self` and awaits nothing but a channel and the catalogue, so it can be dropped at any await (S6).
//!
//! Names, identity and the checks before every start: `open`. Source: capture.md 8.3.

mod ack;
mod ahead;
mod autoset;
mod beat;
mod config;
pub mod decode;
mod detach;
mod entries;
mod errors;
pub mod former;
mod head;
mod large;
mod late;
mod leaves;
mod login;
mod open;
mod pace;
mod preflight;
mod remade;
pub mod signal_file;
mod slot;
pub mod snapshot;
mod stream;
mod stretch;
pub mod taken;
mod timeline;
mod transport;
pub mod values;
mod view;

use crate::catalog::{self, Wanted};
use crate::codes::source as code;
use crate::fault::Fault;
use crate::session::Session;
use crate::types::{self, schema::PgTypes};
use ahead::Ahead;
use bytes::Bytes;
use catchwater_base::{Clock, Mono, Wall, crash_point};
use catchwater_capture::source::{
    Capabilities, EventBatch, Finding, Identity, Item, Opened, Progress, SlotState, Snapshot, Source, SourceClass,
    SourceError, Start,
};
use catchwater_change::{Cell, Native, Op, Row, RowChange, SnapshotMark, SourceInfo, TableSchema, Value};
use catchwater_record::TxnId;
use catchwater_runtime::Fut;
use catchwater_runtime::spawn::Task;
use catchwater_runtime::time::{SystemClock, timeout};
pub use config::{ROW_BYTES_MAX, SourceConfig};
use decode::{Message, OldTuple};
use entries::{Entries, warn_written, was_away};
pub(crate) use errors::source_error;
pub use errors::url_error;
use errors::{broken, large_error, not_open, not_understood, row_error, stream_error};
pub use head::{captured, head, is_slot_held};
pub use large::Limits as LargeLimits;
use large::{Large, Replay};
use late::Late;
use leaves::Leaves;
use remade::{Guess, Remade};
use snapshot::Export;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use stream::Stream;
use taken::{Part, Taken};

/// First byte of every native position of PostgreSQL.
pub const SYSTEM: u8 = 1;
/// How long the catalogue may lag behind the stream before its word on a new column is taken as it is.
const CATALOGUE_LATE_MAX: Duration = Duration::from_secs(2);
/// A server that does not say within this where it stands has said nothing.
const LOOK_LIMIT: Duration = Duration::from_secs(2);
/// Prefix of our own logical messages: they give the stream something to end a view or an idle time with.
pub const OWN_PREFIX: &str = "catchwater";
/// Connections that read the first snapshot.
const READERS_MAX: usize = 16;

/// The source; not open, it has no connection.
pub struct PgSource {
    config: SourceConfig,
    open: Option<Running>,
    /// From `open(Fresh)` until the first reader of the snapshot takes it.
    export: Option<Arc<Export>>,
    /// Readers hold it; with the last one closed the server may clean up behind it.
    lent: Weak<Export>,
}

/// A stream that was opened.
struct Running {
    stream: Stream,
    /// Rest of the block in work.
    block: Bytes,
    /// Commits whose record begins below this were given out before.
    from: u64,
    txn: Option<OpenTxn>,
    /// Until the first transaction after a take-over: what of it was given out before.
    taken: Option<Part>,
    /// Transactions that the server streams while they are open.
    large: Large,
    /// One of them that is committed: `txn` is it.
    replay: Option<Ending>,
    /// `None` until the first commit of a slot that was made now, as in Debezium.
    last_commit_lsn: Option<u64>,
    idle: u64,
    /// Newest 64-bit transaction id seen: the wire's 32 bits are completed by it.
    xid: u64,
    tables: BTreeMap<u32, Known>,
    /// What logical messages are of.
    messages: Arc<TableSchema>,
    /// When the server sent the message in work, microseconds since 2000.
    sent: i64,
    /// Described on the wire, not captured.
    strangers: BTreeMap<u32, String>,
    remade: Remade,
    types: PgTypes,
    /// Types of the tables' columns whose binary form is known: what COPY gives in binary.
    copied: Arc<BTreeSet<u32>>,
    /// Columns come in the binary format.
    binary: bool,
    sql: Session,
    /// The server's end of WAL, as far as it told.
    end: u64,
    version: i32,
    clock: SystemClock,
    /// What the server holds that has not come.
    ahead: Ahead,
    /// When the publication was last compared.
    compared: Mono,
    /// What brought the tables, as it was known then.
    entries: Entries,
    late: Late,
    /// Partitions whose rows come under their root.
    leaves: Leaves,
    slot: Option<SlotState>,
    _tasks: [Option<Task<()>>; 2],
}

struct Ending {
    replay: Replay,
    end_lsn: u64,
}

struct Logical {
    transactional: bool,
    lsn: u64,
    prefix: String,
    content: Bytes,
}

struct OpenTxn {
    xid: u64,
    id: TxnId,
    time: Wall,
    /// Given out before the restart.
    skip: bool,
    /// Of its rows, by another.
    had: Option<Part>,
}

struct Known {
    schema: Arc<TableSchema>,
    /// Of what the wire says.
    body: [u8; 16],
    /// `Item::Schema` was given out since `open`.
    told: bool,
    /// It came by the stream, and no row did: a partition is described beside its root, under which its rows come.
    waits: bool,
}

impl PgSource {
    /// No I/O yet.
    pub fn new(config: SourceConfig) -> Self {
        PgSource { config, open: None, export: None, lent: Weak::new() }
    }

    async fn next_now(&mut self, out: &mut EventBatch) -> Result<Progress, SourceError> {
        let config = &self.config;
        let running = self.open.as_mut().ok_or_else(not_open)?;
        let before = out.items.len();
        loop {
            while out.room() > 0 && running.has_work() {
                if running.replay.is_some() {
                    running.replay_step(config, out).await?;
                } else {
                    running.large.settle().await.map_err(large_error)?;
                    running.step(config, out).await?;
                }
            }
            if out.room() == 0 && running.has_work() {
                return Ok(Progress::Items);
            }
            if out.items.len() == before {
                running.compare_publication(config, out).await?;
            }
            let block = match running.stream.blocks.try_recv() {
                Ok(block) => block,
                Err(_) if out.items.len() > before => return Ok(Progress::Items),
                Err(_) => match running.heard(config).await {
                    Some(Some(block)) => block,
                    Some(None) => Err(Fault::Closed("the stream has ended".into())),
                    // Nothing came, but there is something to tell.
                    None => return Ok(Progress::Items),
                },
            };
            running.block = block.map_err(|fault| stream_error(config, fault))?;
        }
    }
}

impl Running {
    fn has_work(&self) -> bool {
        self.replay.is_some() || !self.block.is_empty()
    }

    /// Gives out one message of a committed transaction that was streamed, or its end.
    async fn replay_step(&mut self, config: &SourceConfig, out: &mut EventBatch) -> Result<(), SourceError> {
        // Out of `self` only between awaits: a dropped future leaves it in its place.
        let Some(ending) = self.replay.as_mut() else { return Ok(()) };
        let end_lsn = ending.end_lsn;
        match ending.replay.peek().await.map_err(large_error)? {
            None => {
                self.replay = None;
                self.commit(end_lsn, out)
            }
            Some(held) => {
                let message = decode::message(held.body.clone()).map_err(not_understood)?;
                self.message(config, held.start, message, out).await?;
                if let Some(ending) = self.replay.as_mut() {
                    ending.replay.take(held);
                }
                Ok(())
            }
        }
    }

    fn begin(
        &mut self,
        lsn: u64,
        time: i64,
        xid: u32,
        first_lsn: Option<u64>,
        out: &mut EventBatch,
    ) -> Result<(), SourceError> {
        if self.txn.is_some() {
            return Err(broken("a transaction begins inside another"));
        }
        self.xid = widen(self.xid, xid);
        let id = TxnId(Bytes::from(xid.to_string()));
        let time = Wall::from_micros(time.saturating_add(decode::POSTGRES_EPOCH_MICROS));
        // The commit record begins at `lsn`; positions are ends, and records do not overlap.
        let skip = lsn < self.from;
        if !skip {
            out.push(Item::Begin { txn: id.clone(), commit_time: time, xid: Some(self.xid), first_lsn });
        }
        // Only the first one behind the position may be that of the row at which a take-over begins.
        let had = if skip { None } else { self.taken.take().filter(|part| part.xid == xid) };
        self.txn = Some(OpenTxn { xid: self.xid, id, time, skip, had });
        Ok(())
    }

    fn commit(&mut self, end_lsn: u64, out: &mut EventBatch) -> Result<(), SourceError> {
        let txn = self.txn.take().ok_or_else(|| broken("a commit without a begin"))?;
        self.last_commit_lsn = Some(end_lsn);
        self.idle = self.idle.max(end_lsn);
        if !txn.skip {
            out.push(Item::Commit { native: Native::postgres(end_lsn), txn: txn.id, commit_time: txn.time });
        }
        Ok(())
    }

    /// Takes one message of the block. The block moves on only after everything that awaits is done.
    async fn step(&mut self, config: &SourceConfig, out: &mut EventBatch) -> Result<(), SourceError> {
        let mut rest = self.block.clone();
        let frame = transport::frame_of_block(&mut rest).map_err(|fault| stream_error(config, fault))?;
        let Some(frame) = frame else {
            self.block.clear();
            return Ok(());
        };
        match frame.tag {
            b'd' => match decode::frame(frame.body).map_err(not_understood)? {
                decode::Frame::KeepAlive { end, .. } => self.keep_alive(end, out),
                decode::Frame::Data { start, sent, body } => {
                    self.sent = sent;
                    crash_point!("source.before_decode");
                    if self.large.is_inside() && decode::is_held(&body) {
                        self.large.hold(start, &body).map_err(large_error)?;
                        self.end = self.end.max(start);
                        self.block = rest;
                        return Ok(());
                    }
                    let message = decode::message(body).map_err(not_understood)?;
                    crash_point!("source.after_decode");
                    self.message(config, start, message, out).await?;
                }
            },
            b'E' => return Err(stream_error(config, transport::error_of(&frame.body))),
            b'c' | b'C' | b'Z' => {
                return Err(stream_error(config, Fault::Closed("the server ended the stream".into())));
            }
            b'N' | b'S' => {}
            tag => {
                let what = format!("message 0x{tag:02x} inside the replication stream");
                return Err(SourceError::new(SourceClass::Unknown, code::NOT_UNDERSTOOD, what, ""));
            }
        }
        self.block = rest;
        Ok(())
    }

    /// A table that is dropped leaves the publication without a word in the stream, and one made again under its name is
    /// not in it: without this look its changes would be missing in silence.
    async fn compare_publication(&mut self, config: &SourceConfig, out: &mut EventBatch) -> Result<(), SourceError> {
        let now = self.clock.now().mono;
        if now.since(self.compared) < config.compare_every || self.txn.is_some() {
            return Ok(());
        }
        if self.sql.client.is_closed() {
            self.sql = login::session(config).await?;
        }
        let found = open::publication(config, &self.sql, self.version).await?;
        let missing = |what: String| {
            let next = "changes made since then are not in the stream: the source must be read again";
            Err(SourceError::new(SourceClass::Config, code::PUBLICATION, what, next))
        };
        let Some(found) = found else {
            return missing(format!("publication {} was dropped", config.publication()));
        };
        if !found.complete || found.filtered {
            return missing(format!("publication {} publishes less than it did", config.publication()));
        }
        let lost = self.tables.values().map(|k| k.schema.qualified()).find(|name| !found.tables.contains(name));
        // A table may be renamed or dropped on purpose; what the file names, or a pattern takes still, must be there.
        let lost = lost.filter(|name| config.tables.iter().any(|t| t.to_string() == *name));
        let shown = late::patterned(config, &self.sql).await?;
        let taken_out =
            |(oid, name): &(&u32, &String)| self.entries.of.contains_key(oid) && !found.tables.contains(name);
        let lost = lost.or_else(|| shown.iter().find(taken_out).map(|(_, name)| name.clone()));
        if let Some(name) = lost {
            return missing(format!("table {name} is not in publication {} any more", config.publication()));
        }
        let known = |oid: u32| self.tables.contains_key(&oid);
        let joined = self.late.look(config, &self.sql, &found, &shown, known).await?;
        // What it says of a table that came is at hand from now on, whether a row of it comes or not.
        let is_new = |(oid, name): &(&u32, &String)| !known(**oid) && (joined || found.tables.contains(name));
        let new: Vec<u32> = shown.iter().filter(is_new).map(|(oid, _)| *oid).collect();
        let mut relations: BTreeSet<u32> = self.tables.keys().copied().collect();
        relations.extend(&new);
        let relations: Vec<u32> = relations.into_iter().collect();
        let entries = Entries::of(config, &self.sql, self.version, found.oid, &relations).await?;
        if let Some(relation) = Entries::was_away(&self.entries, &entries) {
            let name = self.tables.get(&relation).map_or_else(|| relation.to_string(), |k| k.schema.qualified());
            return Err(was_away(config, &name));
        }
        if self.entries.written_by != entries.written_by {
            warn_written(config);
        }
        let published: Vec<u32> = new.into_iter().filter(|oid| entries.of.contains_key(oid)).collect();
        self.entries.learn(entries);
        self.announce(config, &published, found.generated, out).await?;
        let roots: Vec<u32> = self.tables.keys().copied().collect();
        let leaves = Leaves::look(config, &self.sql, &roots).await?;
        self.leaves.learn(config, &self.sql, leaves, Some(self.end)).await?;
        // For people to see; a server that does not answer this is asked again.
        self.slot = open::slot_state(config, &self.sql).await;
        self.compared = now;
        Ok(())
    }

    /// The next block; `None` = none came, and how far the source is behind was looked at.
    async fn heard(&mut self, config: &SourceConfig) -> Option<Option<Result<Bytes, Fault>>> {
        let pause = self.ahead.pause(self.clock.now().mono);
        // Cancel-safe, and so is a look: it is made again later.
        if let Ok(block) = timeout(pause, self.stream.blocks.recv()).await {
            self.ahead.heard(self.clock.now().mono);
            return Some(block);
        }
        // A call that is dropped in the middle of the look asks no sooner again: the stream goes first.
        self.ahead.heard(self.clock.now().mono);
        if self.sql.client.is_closed()
            && let Ok(session) = login::session(config).await
        {
            self.sql = session;
        }
        let head = timeout(LOOK_LIMIT, head::wal_end(&self.sql)).await.ok().flatten();
        self.ahead.looked(self.clock.now(), head, self.end);
        None
    }

    fn keep_alive(&mut self, end: u64, out: &mut EventBatch) {
        self.end = self.end.max(end);
        self.ahead.reached(self.end);
        if self.txn.is_some() {
            return; // inside a transaction the server is not past it
        }
        self.idle = self.idle.max(end);
        let idle = Item::Idle(Native::postgres(self.idle));
        match out.items.last_mut() {
            Some(last @ Item::Idle(_)) => *last = idle,
            _ => out.push(idle),
        }
    }

    async fn message(
        &mut self,
        config: &SourceConfig,
        start: u64,
        message: Message,
        out: &mut EventBatch,
    ) -> Result<(), SourceError> {
        self.end = self.end.max(start);
        match message {
            Message::Begin { final_lsn, time, xid } => self.begin(final_lsn, time, xid, Some(start), out)?,
            Message::Commit { end_lsn, .. } => self.commit(end_lsn, out)?,
            Message::StreamStart { xid } => {
                if self.txn.is_some() {
                    return Err(broken("a block of an open transaction inside another transaction"));
                }
                self.large.start(xid).map_err(large_error)?;
            }
            Message::StreamStop => self.large.stop().map_err(large_error)?,
            Message::StreamAbort { xid, sub } => self.large.abort(xid, sub),
            Message::StreamCommit { xid, lsn, end_lsn, time } => {
                if self.large.is_inside() {
                    return Err(broken("a commit inside a block of an open transaction"));
                }
                let replay = self.large.commit(xid).map_err(large_error)?;
                self.begin(lsn, time, xid, None, out)?;
                self.replay = Some(Ending { replay, end_lsn });
            }
            Message::Relation(relation) => self.relation(config, relation, out).await?,
            Message::Insert { oid, new } => {
                let Some((table, info)) = self.row_of(config, oid, start, out)? else { return Ok(()) };
                row_fits(config, &table, new.bytes())?;
                crash_point!("source.before_values");
                let after = values::new_row(&table, &new, None).map_err(row_error)?;
                crash_point!("source.after_values");
                push(out, table, Op::Create, None, Some(after), info);
            }
            Message::Update { oid, old, new } => {
                let Some((table, info)) = self.row_of(config, oid, start, out)? else { return Ok(()) };
                row_fits(config, &table, new.bytes())?;
                crash_point!("source.before_values");
                let before = old.as_ref().map(|o| values::old_row(&table, o)).transpose().map_err(row_error)?;
                let full = matches!(old, Some(OldTuple::Full(_)));
                let known = before.as_ref().filter(|_| full);
                let after = values::new_row(&table, &new, known).map_err(row_error)?;
                crash_point!("source.after_values");
                push(out, table, Op::Update, before, Some(after), info);
            }
            Message::Delete { oid, old } => {
                let Some((table, info)) = self.row_of(config, oid, start, out)? else { return Ok(()) };
                crash_point!("source.before_values");
                let before = values::old_row(&table, &old).map_err(row_error)?;
                crash_point!("source.after_values");
                push(out, table, Op::Delete, Some(before), None, info);
            }
            Message::Truncate { oids } => {
                self.leaves.truncated(&oids);
                for oid in oids {
                    if let Some((table, info)) = self.row_of(config, oid, start, out)? {
                        push(out, table, Op::Truncate, None, None, info);
                    }
                }
            }
            Message::Logical { transactional, lsn, prefix, content } => {
                self.logical(config, start, Logical { transactional, lsn, prefix, content }, out)?;
            }
            // Origins say where a row came from before, types precede their Relation.
            Message::Origin { .. } | Message::Type { .. } => {}
        }
        Ok(())
    }

    /// A message of the application (`pg_logical_emit_message`): at its place in its transaction, or, not transactional,
    /// a unit of its own at its place in the WAL; resuming after the end of its record gives what follows.
    fn logical(
        &mut self,
        config: &SourceConfig,
        start: u64,
        message: Logical,
        out: &mut EventBatch,
    ) -> Result<(), SourceError> {
        let Logical { transactional, lsn, prefix, content } = message;
        if prefix == OWN_PREFIX {
            return Ok(());
        }
        row_fits(config, &self.messages, content.len())?;
        let change = |txid, lsn, last_commit_lsn| RowChange {
            table: self.messages.clone(),
            op: Op::Message,
            before: None,
            after: Some(Row::new(vec![
                Cell::Value(Value::Text(prefix.as_str().into())),
                Cell::Value(Value::Bytes(content.clone())),
            ])),
            snapshot: SnapshotMark::No,
            info: SourceInfo::Postgres { lsn: Some(lsn), txid, last_commit_lsn },
        };
        if transactional {
            let txn = self.txn.as_mut().ok_or_else(|| broken("a transactional message outside of a transaction"))?;
            let had = txn.had.as_mut().is_some_and(|part| part.had(start));
            let txn = &*txn;
            if !txn.skip && !had {
                out.push(Item::Row(change(Some(txn.xid as u32), start, self.last_commit_lsn)));
            }
            return Ok(());
        }
        if self.txn.is_some() {
            return Err(broken("a message of no transaction inside of one"));
        }
        if lsn <= self.from {
            return Ok(());
        }
        let row = change(None, lsn, Some(lsn));
        let txn = TxnId(Bytes::from(format!("message:{lsn}")));
        let commit_time = Wall::from_micros(self.sent.saturating_add(decode::POSTGRES_EPOCH_MICROS));
        out.push(Item::Begin { txn: txn.clone(), commit_time, xid: None, first_lsn: None });
        out.push(Item::Row(row));
        out.push(Item::Commit { native: Native::postgres(lsn), txn, commit_time });
        self.last_commit_lsn = Some(lsn);
        self.idle = self.idle.max(lsn);
        Ok(())
    }

    /// A table's shape. The catalogue is asked only when the shape is new.
    async fn relation(
        &mut self,
        config: &SourceConfig,
        relation: decode::Relation,
        out: &mut EventBatch,
    ) -> Result<(), SourceError> {
        let fingerprint = catalog::fingerprint(&relation.body, config.without_identity);
        let known = self.tables.get(&relation.oid);
        let is_known = known.is_some_and(|k| k.body == fingerprint);
        if !is_known || self.has_dropped(config, relation.oid).await? {
            let known = self.tables.get(&relation.oid);
            if known.is_none() && !self.is_wanted(config, &relation) {
                // A row under it, and it is no partition that is described beside its root: somebody widened the publication.
                self.strangers.insert(relation.oid, format!("{}.{}", relation.namespace, relation.name));
                return Ok(());
            }
            if self.sql.client.is_closed() {
                self.sql = login::session(config).await?;
            }
            let mut found = self.catalogue_of(config, &relation).await?;
            found.iter_mut().for_each(|t| t.generated_read = config.without_identity);
            let current = found.first();
            let unknown = catalog::unknown_columns(&relation, current);
            let texts = if unknown.is_empty() {
                Vec::new()
            } else {
                let oids = unknown.iter().map(|(oid, _)| *oid).collect();
                let loaded = catalog::load_types(&self.sql.client, oids, &mut self.types).await;
                loaded.map_err(|fault| source_error(config, fault))?;
                let texts = catalog::type_texts(&self.sql.client, &unknown).await;
                texts.map_err(|fault| source_error(config, fault))?
            };
            if self.binary && !relation.columns.iter().all(|c| types::binary::fits(&self.types, c.type_oid)) {
                return Err(late::text_from_now_on(config, &format!("{}.{}", relation.namespace, relation.name)));
            }
            let guess = self.guess(config, &relation, current).await?;
            let at = (guess != Guess::Today).then_some(self.xid as u32);
            let mut schema = catalog::merge(&relation, current, &self.types, &texts, at);
            if schema.database.is_empty() {
                schema.database = config.connect.database.clone();
            }
            self.learn(relation.oid, schema, fingerprint, guess);
        }
        if let Some(known) = self.tables.get_mut(&relation.oid)
            && !known.told
            && !known.waits
        {
            known.told = true;
            out.push(Item::Schema(known.schema.clone()));
        }
        self.again(relation.oid).into_iter().for_each(|item| out.push(item));
        Ok(())
    }

    /// What the catalogue says of a table that the open transaction may have changed. A commit is in the stream before views
    /// show it (capture.md 7.4), as long as a synchronous standby lags: a catalogue that lacks a column of the stream is asked
    /// again until it shows the transaction. If it still lacks the column then, it is newer than the stream.
    async fn catalogue_of(
        &mut self,
        config: &SourceConfig,
        relation: &decode::Relation,
    ) -> Result<Vec<catalog::CatalogTable>, SourceError> {
        let failed = |fault| source_error(config, fault);
        let oids = [relation.oid];
        let until = Instant::now() + CATALOGUE_LATE_MAX;
        let mut pause = Duration::from_millis(1);
        let mut found = catalog::load(&self.sql.client, Wanted::Oids(&oids), &mut self.types).await.map_err(failed)?;
        let misleads = |found: Option<&catalog::CatalogTable>| {
            !catalog::unknown_columns(relation, found).is_empty() || found.is_some_and(|t| !t.is_in_order(relation))
        };
        while misleads(found.first()) && Instant::now() < until {
            let sql = "SELECT pg_catalog.pg_visible_in_snapshot($1::pg_catalog.text::pg_catalog.xid8, pg_catalog.pg_current_snapshot())";
            let row = self.sql.client.query_one(sql, &[&self.xid.to_string()]).await;
            let is_shown: bool = row.map_err(|e| failed(e.into()))?.get(0);
            found = catalog::load(&self.sql.client, Wanted::Oids(&oids), &mut self.types).await.map_err(failed)?;
            if is_shown {
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        Ok(found)
    }

    fn is_wanted(&self, config: &SourceConfig, relation: &decode::Relation) -> bool {
        // A table dropped and made again under its name keeps being captured.
        config.captures(&relation.namespace, &relation.name)
    }

    /// `None` = the transaction was given out before the restart.
    fn row_of(
        &mut self,
        config: &SourceConfig,
        oid: u32,
        start: u64,
        out: &mut EventBatch,
    ) -> Result<Option<(Arc<TableSchema>, SourceInfo)>, SourceError> {
        let txn = self.txn.as_mut().ok_or_else(|| broken("a row outside of a transaction"))?;
        if txn.skip || txn.had.as_mut().is_some_and(|part| part.had(start)) {
            return Ok(None);
        }
        if let Some(known) = self.tables.get_mut(&oid)
            && known.waits
        {
            (known.told, known.waits) = (true, false);
            out.push(Item::Schema(known.schema.clone()));
            self.again(oid).into_iter().for_each(|item| out.push(item));
        }
        let txn = self.txn.as_ref().ok_or_else(|| broken("a row outside of a transaction"))?;
        let known = self.tables.get(&oid).filter(|k| k.told);
        if known.is_none()
            && let Some(name) = self.strangers.get(&oid)
        {
            if config.taken.is_some() || config.former.meant_full(name) {
                return Ok(None);
            }
            return Err(SourceError::new(
                SourceClass::Config,
                code::PUBLICATION,
                format!(
                    "publication {} carries table {name}, which this source does not capture",
                    config.publication()
                ),
                "take the table out of the publication, or add it to the source",
            ));
        }
        let table = known.ok_or_else(|| broken("a row of a table that was not described"))?.schema.clone();
        let info = SourceInfo::Postgres {
            lsn: Some(start),
            txid: Some(txn.xid as u32),
            last_commit_lsn: self.last_commit_lsn,
        };
        Ok(Some((table, info)))
    }
}

fn push(
    out: &mut EventBatch,
    table: Arc<TableSchema>,
    op: Op,
    before: Option<catchwater_change::Row>,
    after: Option<catchwater_change::Row>,
    info: SourceInfo,
) {
    out.push(Item::Row(RowChange { table, op, before, after, snapshot: SnapshotMark::No, info }));
}

/// The 64-bit id nearest to `near` that ends in the wire's 32 bits.
fn widen(near: u64, xid: u32) -> u64 {
    const EPOCH: u64 = 1 << 32;
    let same = (near & !(EPOCH - 1)) | u64::from(xid);
    if same > near && same - near > EPOCH / 2 && same >= EPOCH {
        same - EPOCH
    } else if same < near && near - same > EPOCH / 2 {
        same + EPOCH
    } else {
        same
    }
}

fn row_fits(config: &SourceConfig, table: &TableSchema, bytes: usize) -> Result<(), SourceError> {
    if bytes <= config.row_bytes_max {
        return Ok(());
    }
    Err(SourceError::new(
        SourceClass::RowTooLarge,
        code::ROW_TOO_LARGE,
        format!("a row of {} has {bytes} bytes, above row.max.bytes = {}", table.qualified(), config.row_bytes_max),
        "leave the table out of `tables` (catchwater apply), or keep such values elsewhere",
    ))
}

impl Source for PgSource {
    fn capabilities(&self) -> Capabilities {
        Capabilities { superset: false, truncate: true, has_snapshot: true, has_stretches: true }
    }

    fn preflight(&mut self) -> Fut<'_, Vec<Finding>> {
        Box::pin(preflight::run(&self.config))
    }

    fn identify(&mut self) -> Fut<'_, Result<Identity, SourceError>> {
        Box::pin(open::identify(&self.config))
    }

    fn open(&mut self, start: Start, known: Option<Identity>) -> Fut<'_, Result<Opened, SourceError>> {
        Box::pin(async move {
            self.shut().await;
            match start {
                Start::Fresh => self.open_fresh(known).await,
                Start::After(native) => self.open_after(native, known).await,
            }
        })
    }

    fn next<'a>(&'a mut self, out: &'a mut EventBatch) -> Fut<'a, Result<Progress, SourceError>> {
        Box::pin(self.next_now(out))
    }

    fn confirm(&mut self, upto: &Native) {
        if let (Some(running), Some(lsn), false) = (&self.open, upto.as_postgres(), self.config.reading.unconfirmed) {
            running.stream.confirm(lsn);
        }
    }

    fn snapshot(&mut self) -> Result<Box<dyn Snapshot>, SourceError> {
        let export = self.export.take().or_else(|| self.lent.upgrade());
        self.lent = export.as_ref().map_or_else(Weak::new, Arc::downgrade);
        let types = self.open.as_ref().map(|running| running.copied.clone()).unwrap_or_default();
        Ok(Box::new(snapshot::PgSnapshot::new(self.config.clone(), export, types)))
    }

    fn statements(&self) -> BTreeSet<String> {
        self.config.reading.snapshot_selects.keys().cloned().collect()
    }

    fn readers_max(&self) -> usize {
        READERS_MAX
    }

    fn lag_bytes(&self) -> Option<u64> {
        let running = self.open.as_ref()?;
        Some(running.end.max(running.ahead.head()).saturating_sub(running.stream.confirmed()))
    }

    fn behind_since(&self) -> Option<Wall> {
        self.open.as_ref()?.ahead.since()
    }

    fn slot(&self) -> Option<SlotState> {
        self.open.as_ref()?.slot.clone()
    }

    fn close(&mut self) -> Fut<'_, ()> {
        Box::pin(self.shut())
    }

    fn detach<'a>(&'a mut self, identity: &'a Identity, _opened: bool) -> Fut<'a, Result<(), SourceError>> {
        Box::pin(async move {
            self.shut().await;
            detach::run(&self.config, identity).await
        })
    }

    fn detach_sql(&self, identity: &Identity, _opened: bool) -> String {
        detach::sql(&self.config, identity)
    }
}

impl PgSource {
    async fn shut(&mut self) {
        self.export = None;
        self.lent = Weak::new();
        if let Some(running) = self.open.take() {
            running.stream.end().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transaction_ids_widen_over_the_wrap() {
        assert_eq!(widen(1000, 900), 900);
        assert_eq!(widen(1000, 1100), 1100);
        assert_eq!(widen((1 << 32) + 5, 7), (1 << 32) + 7);
        assert_eq!(widen((1 << 32) - 5, 7), (1 << 32) + 7);
        assert_eq!(widen((1 << 32) + 5, u32::MAX - 3), (1 << 32) - 4);
        assert_eq!(widen(3, u32::MAX), u64::from(u32::MAX));
    }
}
