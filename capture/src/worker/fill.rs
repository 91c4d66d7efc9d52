//! The snapshot: everything at the stream's start when the capture begins; what is left of it by chunks beside the stream
//! after a crash.
//!
//! A unit is read as a whole (at most 16 MiB or 50,000 rows), gets a commit sequence, and its CHUNK record is committed
//! before its first row; so a restart knows which numbers are chunks'. Whether a table is complete stands in one record
//! per table. A reader runs in a task of its own with its own connection; of what is left after a crash one unit is read
//! ahead, at the beginning several readers make records of several units at a time (`exported`).
//!
//! A table without a key that was interrupted begins again: one unit that truncates it, brings it as one view shows it,
//! and after that what the stream emitted behind the view. So a reader of the log ends with each row once.

use super::start::{Begun, read_keys, unread, whole_table};
use super::stream::Stream;
use crate::backfill::{Restart, Verdict, may_place};
use crate::bulk::Made;
use crate::emit::Unit;
use crate::error::{Trouble, code};
use crate::notification::{Aggregate, Ended, News};
use crate::source::{Chunk, Expected, Snapshot, Source, SourceError, Stretch, StretchEnd, View};
use crate::status::TableProgress;
use crate::track::Mark;
use bytes::{BufMut, Bytes, BytesMut};
use catchwater_base::{Wall, crash_point, log};
use catchwater_change::checkpoint::{
    ChunkPhase, ChunkRecord, FIRST_SNAPSHOT, Stored, StoredKey, WHOLE_TABLE, chunk_flag,
};
use catchwater_change::stamp::flag;
use catchwater_change::{Native, Op, RowChange, SnapshotMark, TableSchema};
use catchwater_record::{CommitSeq, Offset, TopicPartition, TxnId};
use catchwater_runtime::spawn::{self, Task};
use catchwater_runtime::sync::{Receiver, Sender, bounded};
use exported::BulkAsk;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

mod exported;

/// Questions to a reader that are not answered.
const ASKS_MAX: usize = 2;

pub(super) enum Ask {
    /// With how many readers the units are shared.
    Plan(Vec<Arc<TableSchema>>, usize),
    Read(Box<Chunk>),
    /// A unit of a first snapshot, to be made records of.
    Bulk(Box<BulkAsk>),
    /// Before the first stretch of a table, and one.
    Stretches(Box<Stretch>),
    Stretch(Box<Stretch>),
    /// What the server thinks of its filter.
    Look(Box<Stretch>),
}

pub(super) enum Told {
    Planned(Vec<Chunk>),
    Read(Box<Read>),
    /// The place of the unit in the plan.
    Bulk(usize, Box<Read>),
    Expected(Expected),
    Stretch(Vec<RowChange>, StretchEnd),
    LookedAt,
    Failed(SourceError),
}

/// A unit as it was read.
pub(super) struct Read {
    chunk: Chunk,
    rows: Rows,
    view: View,
}

enum Rows {
    Plain(Vec<RowChange>),
    /// Records already, but for the first and the last row; all of one commit time.
    Made(Box<Made>, Wall),
}

impl Rows {
    fn count(&self) -> u64 {
        match self {
            Rows::Plain(rows) => rows.len() as u64,
            Rows::Made(made, _) => made.rows,
        }
    }
}

/// The reader's handle.
pub(super) struct Reader {
    asks: Sender<Ask>,
    pub told: Receiver<Told>,
    task: Task<()>,
}

impl Reader {
    pub fn start(name: String, mut snapshot: Box<dyn Snapshot>) -> Reader {
        // Two questions may be open, and the task may not have run since they were asked.
        let (asks, mut asked) = bounded::<Ask>(ASKS_MAX);
        let (tell, told) = bounded::<Told>(1);
        let task = spawn::spawn(name, async move {
            while let Some(ask) = asked.recv().await {
                let answer = match ask {
                    Ask::Plan(tables, readers) => {
                        snapshot.share(readers);
                        snapshot.plan(&tables).await.map_or_else(Told::Failed, Told::Planned)
                    }
                    Ask::Read(chunk) => {
                        let mut rows = Vec::new();
                        match snapshot.read(&chunk, &mut rows).await {
                            Ok(end) => {
                                let rows = Rows::Plain(rows);
                                Told::Read(Box::new(Read { chunk: *chunk, rows, view: end.view }))
                            }
                            Err(e) => Told::Failed(e),
                        }
                    }
                    Ask::Bulk(of) => exported::read(&mut *snapshot, *of).await,
                    Ask::Stretches(of) => snapshot.stretches(&of).await.map_or_else(Told::Failed, Told::Expected),
                    Ask::Look(of) => snapshot.look(&of).await.map_or_else(Told::Failed, |()| Told::LookedAt),
                    Ask::Stretch(of) => {
                        let mut rows = Vec::new();
                        match snapshot.stretch(&of, &mut rows).await {
                            Ok(end) => Told::Stretch(rows, end),
                            Err(e) => Told::Failed(e),
                        }
                    }
                };
                if tell.send(answer).await.is_err() {
                    break;
                }
            }
            snapshot.close().await;
        });
        Reader { asks, told, task }
    }

    /// At most [`ASKS_MAX`] questions are open, so there is room.
    pub fn ask(&self, ask: Ask) {
        let _ = self.asks.try_send(ask);
    }

    async fn close(self) {
        drop(self.asks);
        drop(self.told);
        let _ = self.task.join().await;
    }
}

/// Reads the tables as they are at the stream's start, before the stream. Or prepares the rest of a snapshot that was
/// interrupted, to run beside it.
pub(super) async fn begin(
    begun: &mut Begun<'_>,
    source: &mut dyn Source,
    stream: &mut Stream,
) -> Result<Option<Fill>, Trouble> {
    let left = unread(&begun.history);
    if left.is_empty() {
        // As Debezium: a start that has nothing to read says so; a first one of no table begins and ends.
        let config = &begun.session.config;
        match begun.fresh && config.snapshot.reads_first() && begun.has_snapshot {
            true => [News::Started, News::Resolved, News::Completed].iter().for_each(|news| tell(begun, &[], news)),
            false if begun.reads_again => {}
            false => tell(begun, &[], &News::Skipped),
        }
        return Ok(None);
    }
    let tables: Vec<Arc<TableSchema>> = begun
        .opened
        .tables
        .iter()
        .filter(|t| number_of(begun, t).is_some_and(|n| left.contains(&n)))
        .cloned()
        .collect();
    let newest = begun.history.chunks.keys().map(|(snapshot, ..)| *snapshot).max().unwrap_or(0);
    let snapshot = if begun.fresh { FIRST_SNAPSHOT } else { newest + 1 };
    let mut fill = Fill::new(begun, source, snapshot, left, &tables)?;
    tell(begun, &fill.names, &News::Started);
    tell(begun, &fill.names, &News::Resolved);
    if begun.fresh {
        // Large, and over before the stream begins.
        Box::pin(fill.run_exported(begun, source, stream, tables)).await?;
        return Ok(None);
    }
    fill.give_up_old_units(begun);
    for table in &tables {
        let Some(numbered) = begun.numbered.get(&(Arc::as_ptr(table) as usize)) else { continue };
        let is_keyed = !numbered.given.key.is_empty();
        let (numbered, partitions) = (numbered.table.clone(), numbered.partitions);
        if is_keyed {
            begun.backfill.watch(numbered.table_no);
            let log = begun.session.log();
            read_keys(begun, log, &numbered, partitions).await?;
        } else {
            let end = |p| begun.tails.get(&TopicPartition::new(numbered.topic, p)).map_or(Offset::ZERO, |t| t.end);
            let has_records = (0..partitions).any(|p| end(p) > Offset::ZERO);
            begun.backfill.begin_again(numbered.table_no, has_records);
        }
    }
    if let Some(reader) = &fill.reader {
        reader.ask(Ask::Plan(tables, 1));
    }
    Ok(Some(fill))
}

/// Tables that came late and that are not read in the order of a key, beside the stream. They are watched since they came.
pub(super) fn begin_late(begun: &mut Begun<'_>, source: &mut dyn Source, snapshot: u32) -> Result<Fill, Trouble> {
    let tables = std::mem::take(&mut begun.late.others);
    let left: BTreeSet<u32> = tables.iter().filter_map(|t| begun.number_of(t)).collect();
    begun.plan_late(snapshot, &left);
    let fill = Fill::new(begun, source, snapshot, left, &tables)?;
    log!(
        Info,
        "capture.late_table",
        "source {}: {} came later: its rows are read beside the stream",
        begun.session.config.source,
        fill.names.join(", ")
    );
    tell(begun, &fill.names, &News::Started);
    tell(begun, &fill.names, &News::Resolved);
    if let Some(reader) = &fill.reader {
        reader.ask(Ask::Plan(tables, 1));
    }
    Ok(fill)
}

fn sizes(plan: &[Chunk]) -> BTreeMap<String, TableProgress> {
    let mut of: BTreeMap<String, TableProgress> = BTreeMap::new();
    for chunk in plan {
        let table = of.entry(chunk.table.qualified()).or_default();
        (table.units, table.rows_estimate) = (table.units + 1, table.rows_estimate + chunk.rows_estimate);
    }
    of
}

/// The signal table: Debezium does not read it, and does not tell of it.
fn is_signals(begun: &Begun<'_>, table: &str) -> bool {
    begun.session.config.signals.table.as_deref() == Some(table)
}

fn tell(begun: &mut Begun<'_>, tables: &[String], news: &News<'_>) {
    begun.session.notify(Aggregate::Initial, None, tables, news);
}

fn number_of(begun: &Begun<'_>, table: &Arc<TableSchema>) -> Option<u32> {
    begun.numbered.get(&(Arc::as_ptr(table) as usize)).map(|n| n.table.table_no)
}

/// A snapshot in work.
pub(super) struct Fill {
    reader: Option<Reader>,
    snapshot: u32,
    /// Tables that are not complete.
    left: BTreeSet<u32>,
    plan: VecDeque<Chunk>,
    planned: bool,
    /// What the plan says of each table, until the status knows it.
    sizes: BTreeMap<String, TableProgress>,
    /// The reader owes an answer.
    busy: bool,
    ready: Option<Read>,
    failed: Option<SourceError>,
    retries: u32,
    first: bool,
    unit: u32,
    of_table: Option<u32>,
    /// All of it is read at the stream's start, by several readers (`exported`).
    exported: bool,
    /// All tables of this snapshot.
    names: Vec<String>,
    /// Rows that were read since it began, of tables that are begun.
    scanned: BTreeMap<u32, u64>,
}

impl Fill {
    fn new(
        begun: &Begun<'_>,
        source: &mut dyn Source,
        snapshot: u32,
        left: BTreeSet<u32>,
        tables: &[Arc<TableSchema>],
    ) -> Result<Fill, Trouble> {
        let name = format!("capture.{}.snapshot", begun.session.config.source);
        let mut reader = source.snapshot()?;
        let is_late = |t: &&Arc<TableSchema>| begun.number_of(t).is_some_and(|no| begun.late.came.contains(&no));
        let late: Vec<Arc<TableSchema>> = tables.iter().filter(is_late).cloned().collect();
        reader.joined(&late);
        Ok(Fill {
            reader: Some(Reader::start(name, reader)),
            snapshot,
            left,
            plan: VecDeque::new(),
            planned: false,
            sizes: BTreeMap::new(),
            busy: true,
            ready: None,
            failed: None,
            retries: 0,
            first: true,
            unit: 0,
            of_table: None,
            exported: begun.fresh && snapshot == FIRST_SNAPSHOT,
            names: tables.iter().map(|t| t.qualified()).collect(),
            scanned: BTreeMap::new(),
        })
    }

    /// Waits until there is something to do. Cancel-safe.
    pub async fn ready(&mut self) {
        if !self.busy || self.ready.is_some() {
            return std::future::pending().await;
        }
        let told = match &mut self.reader {
            Some(reader) => reader.told.recv().await,
            None => return std::future::pending().await,
        };
        self.busy = false;
        match told {
            Some(Told::Planned(chunks)) => {
                self.sizes = sizes(&chunks);
                self.plan = chunks.into();
                self.planned = true;
                if !self.exported {
                    self.ask_next();
                }
            }
            Some(Told::Read(read)) => self.ready = Some(*read),
            Some(Told::Failed(e)) => self.failed = Some(e),
            Some(Told::Bulk(..) | Told::Expected(_) | Told::Stretch(..) | Told::LookedAt) | None => {
                let what = "the snapshot reader ended";
                self.failed = Some(SourceError::new(crate::source::SourceClass::Retry, code::LOG, what, ""));
            }
        }
    }

    fn ask_next(&mut self) {
        if self.busy {
            return;
        }
        if let Some(chunk) = self.plan.pop_front() {
            self.ask(chunk);
        }
    }

    fn ask(&mut self, chunk: Chunk) {
        if let Some(reader) = &self.reader {
            reader.ask(Ask::Read(Box::new(chunk)));
            self.busy = true;
        }
    }

    pub fn is_done(&self) -> bool {
        self.planned && !self.busy && self.ready.is_none() && self.plan.is_empty() && self.left.is_empty()
    }

    /// A clean end before its own.
    pub fn aborted(&self, begun: &mut Begun<'_>) {
        tell(begun, &self.names, &News::Aborted(None));
    }

    pub async fn close(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.close().await;
        }
    }

    fn tell_sizes(&mut self, begun: &Begun<'_>) {
        if !self.sizes.is_empty() {
            let sizes = std::mem::take(&mut self.sizes);
            begun.session.status.update(|s| s.snapshot_tables = sizes);
        }
    }

    fn give_up_old_units(&self, begun: &mut Begun<'_>) {
        let mut given_up = Vec::new();
        for ((snapshot, table, unit), chunk) in &begun.history.chunks {
            let own = chunk.flags & chunk_flag::AD_HOC == 0 && self.left.contains(table);
            if *unit != WHOLE_TABLE && chunk.phase == ChunkPhase::Open && own {
                let key = StoredKey::Chunk { snapshot: *snapshot, table: *table, unit: *unit };
                given_up.push((key, Stored::Chunk(ChunkRecord { phase: ChunkPhase::GivenUp, ..chunk.clone() })));
            }
        }
        begun.session.store(given_up);
    }

    /// Places the unit that was read, if the stream stands where it may.
    pub async fn place(&mut self, begun: &mut Begun<'_>, stream: &mut Stream) -> Result<(), Trouble> {
        if let Some(e) = self.failed.take() {
            return Err(e.into());
        }
        self.tell_sizes(begun);
        let may = |view: &View| stream.is_between() && begun.resume.is_caught_up() && may_place(view, &stream.at);
        if !self.ready.as_ref().is_some_and(|r| may(&r.view)) {
            if self.planned && !self.busy && self.ready.is_none() && self.plan.is_empty() {
                self.complete_rest(begun);
            }
            return Ok(());
        }
        let Some(Read { chunk, rows, view }) = self.ready.take() else { return Ok(()) };
        // Readers make records of the rows at a capture's beginning only.
        let Rows::Plain(mut rows) = rows else { return Ok(()) };
        begun.ensure_read(&chunk.table).await?;
        let Some(table_no) = number_of(begun, &chunk.table) else { return Ok(()) };
        crash_point!("capture.before_window");
        let mut keys = Vec::with_capacity(rows.len());
        for row in &rows {
            let key = begun.session.emitter.key(row);
            keys.push(key.map_err(|e| Trouble::fail(code::ENCODE, e.to_string(), ""))?);
        }
        let restart = match chunk.unit {
            0 => begun.backfill.restart(table_no, &view),
            _ => Restart::No,
        };
        let verdict = match restart {
            Restart::Again => Verdict::Again,
            _ => begun.backfill.decide(table_no, &keys, &view),
        };
        let keep = match verdict {
            Verdict::Rows(keep) => keep,
            Verdict::Again if self.retries < begun.session.config.limits.chunk_retries => {
                self.retries += 1;
                self.ask(chunk);
                return Ok(());
            }
            Verdict::Again => {
                return Err(Trouble::retry(code::CONTRACT, "the snapshot's view stays behind the stream"));
            }
        };
        crash_point!("capture.after_window");
        self.retries = 0;
        let mut kept = keep.iter();
        rows.retain(|_| kept.next().copied().unwrap_or(true));
        self.ask_next();
        let at = stream.at.clone();
        let read = Read { chunk, rows: Rows::Plain(rows), view };
        self.write(begun, stream, read, at, false, restart).await
    }

    /// Commits the CHUNK record, then appends the rows as one unit.
    async fn write(
        &mut self,
        begun: &mut Begun<'_>,
        stream: &mut Stream,
        read: Read,
        at: Native,
        last_of_all: bool,
        restart: Restart,
    ) -> Result<(), Trouble> {
        let Read { chunk, mut rows, view } = read;
        if !begun.hears(&chunk.table) {
            begun.ensure_read(&chunk.table).await?;
        }
        let Some(numbered) = begun.numbered.get(&(Arc::as_ptr(&chunk.table) as usize)) else { return Ok(()) };
        let table = numbered.table.clone();
        let begins = self.of_table.replace(table.table_no) != Some(table.table_no);
        let read_rows = rows.count();
        let ends = match &mut rows {
            Rows::Plain(rows) => rows.iter_mut().zip(0..).collect(),
            Rows::Made(made, _) => {
                let last = made.last.iter_mut().map(|r| (r, read_rows - 1));
                made.first.iter_mut().map(|r| (r, 0)).chain(last).collect::<Vec<_>>()
            }
        };
        for (row, at) in ends {
            // A row may hold other Arcs of the same table than the chunk does.
            row.table = chunk.table.clone();
            (row.op, row.before) = (Op::Read, None);
            let last = at + 1 == read_rows;
            row.snapshot = match self.exported {
                true => self.mark(at == 0 && begins, last && chunk.last_of_table, last && last_of_all),
                false => SnapshotMark::Incremental,
            };
        }
        self.scans(begun, &table, read_rows);
        if let (Restart::From { truncate, later }, Rows::Plain(rows)) = (restart, &mut rows) {
            begin_again(rows, &chunk, truncate, later);
        }
        let key = StoredKey::Chunk { snapshot: self.snapshot, table: table.table_no, unit: self.unit };
        self.unit += 1;
        let mut seq = CommitSeq(begun.resume.next().0.saturating_sub(1));
        if rows.count() > 0 {
            seq = begun.resume.assign_chunk();
            let mut flags = 0;
            if chunk.last_of_table {
                flags |= chunk_flag::LAST_OF_TABLE;
            }
            if table.key.is_empty() && !self.exported {
                flags |= chunk_flag::AGAIN;
            }
            let record = ChunkRecord {
                phase: ChunkPhase::Open,
                method: chunk.method as u8,
                flags,
                incarnation: begun.session.config.incarnation,
                commit_seq: seq,
                schema_no: table.schema_no,
                rows: read_rows,
                lower: chunk.lower.clone(),
                upper: chunk.upper.clone(),
                view: encode_view(&view),
                filter: String::new(),
            };
            begun.session.store([(key, Stored::Chunk(record.clone()))]);
            begun.session.flush_stored().await?;
            crash_point!("capture.before_chunk");
            let commit_time = match &rows {
                Rows::Plain(_) => begun.session.now().wall,
                Rows::Made(_, time) => *time,
            };
            let txn = self.txn(table.table_no, self.unit - 1);
            let unit = Unit { seq, native: Some(at.clone()), txn, commit_time, flags: flag::SNAPSHOT };
            match rows {
                Rows::Plain(rows) => drop(stream.put_rows(begun, &unit, rows, 0, true, None, None).await?),
                Rows::Made(made, _) => stream.put_made(begun, &unit, *made, table.topic).await?,
            }
            crash_point!("capture.after_chunk");
            begun.session.track.completed(Mark { seq, native: at, commit_time });
            let finished = ChunkRecord { phase: ChunkPhase::Finished, ..record };
            begun.session.finished.push((seq, key, Stored::Chunk(finished)));
        }
        begun.session.status.update(|s| {
            s.snapshot_units_done += 1;
            let of = s.snapshot_tables.entry(chunk.table.qualified()).or_default();
            (of.rows, of.units_done) = (of.rows + read_rows, of.units_done + 1);
            of.units = of.units.max(of.units_done);
        });
        if chunk.last_of_table {
            self.complete(begun, table.table_no, table.schema_no, seq);
        }
        Ok(())
    }

    /// Counts rows of the table, and tells of it when they are its first.
    fn scans(&mut self, begun: &mut Begun<'_>, table: &TableSchema, rows: u64) {
        if let Some(scanned) = self.scanned.get_mut(&table.table_no) {
            *scanned += rows;
            return;
        }
        self.scanned.insert(table.table_no, rows);
        let name = table.qualified();
        if !is_signals(begun, &name) {
            let read: Vec<String> = self.names.iter().filter(|t| !is_signals(begun, t)).cloned().collect();
            tell(begun, &read, &News::Table { table: &name, chunk: None });
        }
    }

    /// The table's snapshot is complete once everything up to `seq` is durable. The record says so with the number: a sink
    /// shows nothing of a first snapshot before all tables it takes are whole.
    fn complete(&mut self, begun: &mut Begun<'_>, table_no: u32, schema_no: u32, seq: CommitSeq) {
        if !self.left.remove(&table_no) {
            return;
        }
        begun.backfill.done(table_no);
        let of = begun.numbered.values().find(|n| n.table.table_no == table_no).map(|n| n.table.clone());
        if let Some(table) = of {
            self.scans(begun, &table, 0);
            let rows = self.scanned.get(&table_no).copied().unwrap_or(0);
            let name = table.qualified();
            if !is_signals(begun, &name) {
                tell(begun, &self.names, &News::Scanned { table: &name, rows, of: None, ended: Ended::Succeeded });
            }
        }
        if self.left.is_empty() {
            tell(begun, &self.names, &News::Completed);
        }
        let planned: Vec<u32> = begun
            .history
            .chunks
            .iter()
            .filter(|((_, table, unit), _)| *table == table_no && *unit == WHOLE_TABLE)
            .filter(|(_, c)| c.flags & chunk_flag::AD_HOC == 0)
            .map(|((snapshot, ..), _)| *snapshot)
            .collect();
        for snapshot in planned {
            let key = StoredKey::Chunk { snapshot, table: table_no, unit: WHOLE_TABLE };
            let record = whole_table(&begun.session.config, ChunkPhase::Finished, schema_no, seq);
            begun.session.finished.push((seq, key, Stored::Chunk(record)));
        }
        begun.session.hurry |= self.left.is_empty();
    }

    /// Tables of which the plan says nothing have no rows, or are gone.
    fn complete_rest(&mut self, begun: &mut Begun<'_>) {
        let seq = CommitSeq(begun.resume.next().0.saturating_sub(1));
        for table_no in self.left.clone() {
            self.complete(begun, table_no, 0, seq);
        }
    }

    /// Debezium's `source.snapshot` of a row of a first snapshot, by what it is.
    fn mark(&mut self, first_of_table: bool, last_of_table: bool, last_of_all: bool) -> SnapshotMark {
        if last_of_all {
            SnapshotMark::Last
        } else if std::mem::take(&mut self.first) {
            SnapshotMark::First
        } else if last_of_table {
            SnapshotMark::LastInCollection
        } else if first_of_table {
            SnapshotMark::FirstInCollection
        } else {
            SnapshotMark::Middle
        }
    }

    /// What stands for a transaction's id in the records of a unit.
    fn txn(&self, table_no: u32, unit: u32) -> TxnId {
        TxnId(Bytes::from(format!("chunk {}/{table_no}/{unit}", self.snapshot)))
    }
}

/// Truncate, the rows of the view, and what came behind it: together the table as the log has it to be now.
fn begin_again(rows: &mut Vec<RowChange>, chunk: &Chunk, truncate: bool, later: Vec<RowChange>) {
    if truncate {
        let info = rows.first().map(|r| r.info.clone()).unwrap_or_default();
        let first = RowChange {
            table: chunk.table.clone(),
            op: Op::Truncate,
            before: None,
            after: None,
            snapshot: SnapshotMark::First,
            info,
        };
        rows.insert(0, first);
    }
    rows.extend(later.into_iter().map(|change| RowChange { snapshot: SnapshotMark::Incremental, ..change }));
}

/// `00` exported · `01 | xmin u64 | xmax u64 | n × xid u64 | place bytes` · `02 | native bytes`.
pub(super) fn encode_view(view: &View) -> Bytes {
    let mut out = BytesMut::new();
    let native = |out: &mut BytesMut, n: &Native| {
        out.put_u32(n.as_bytes().len() as u32);
        out.put_slice(n.as_bytes());
    };
    match view {
        View::Exported => out.put_u8(0),
        View::Visibility { xmin, xmax, running, place } => {
            out.put_u8(1);
            out.put_u64(*xmin);
            out.put_u64(*xmax);
            out.put_u32(running.len() as u32);
            running.iter().for_each(|x| out.put_u64(*x));
            native(&mut out, place);
        }
        View::Exact(at) => {
            out.put_u8(2);
            native(&mut out, at);
        }
    }
    out.freeze()
}
