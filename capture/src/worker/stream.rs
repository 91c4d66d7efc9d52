//! The stream: transactions as the source gives them out, whole and in commit order.
//!
//! A transaction is held until its end is known or it grows above `txn_bytes`; then its rows leave, the newest held back,
//! so that the last record can say that it is the last. Snapshot chunks are placed at the boundaries between.

use super::session::Driven;
use super::start::Begun;
use crate::backfill::When;
use crate::emit::{Boundary, Counted, Made, Place, Unit};
use crate::error::{End, Trouble, code};
use crate::reading::SnapshotMode;
use crate::resume::HistoryError;
use crate::source::{EventBatch, Item, Progress, Source, SourceClass};
use crate::status::State;
use crate::track::Mark;
use catchwater_base::{Wall, crash_point, log};
use catchwater_change::encode::debezium_json::{Counts, key_changed};
use catchwater_change::stamp::flag;
use catchwater_change::{Native, Op, RowChange, SourceInfo, TableSchema};
use catchwater_record::{CommitSeq, TopicId, TxnId};
use catchwater_runtime::time;
use std::sync::Arc;
use std::time::Duration;

/// Changes between two turns of the loop.
const TURN: usize = 256;

/// Changes that room is kept for between two transactions.
const SPARE_MAX: usize = 1024;

/// A transaction whose end has not come.
pub(super) struct OpenTxn {
    id: TxnId,
    commit_time: Wall,
    xid: Option<u64>,
    first_lsn: Option<u64>,
    rows: Vec<RowChange>,
    bytes: usize,
    /// Of the largest change.
    largest: usize,
    /// Given once rows left before the end was known.
    seq: Option<CommitSeq>,
    ordinal: u64,
    /// With a transaction topic: what was counted so far.
    counts: Counts,
}

/// What the stream remembers between items.
pub(super) struct Stream {
    txn: Option<OpenTxn>,
    /// End of the newest transaction, or where the source is idle.
    pub at: Native,
    pub made: Vec<Made>,
    /// Room for the rows of the next transaction.
    spare: Vec<RowChange>,
    /// Of the transaction, to be said at its end.
    odd: super::events::Odd,
}

pub(super) async fn work(begun: &mut Begun<'_>, source: &mut dyn Source) -> Result<(), Trouble> {
    let mut stream = Stream {
        txn: None,
        at: begun.opened.native.clone(),
        made: Vec::new(),
        spare: Vec::new(),
        odd: Default::default(),
    };
    let mut fill = super::fill::begin(begun, source, &mut stream).await?;
    let mut ad_hoc = super::adhoc::AdHoc::begin(begun).await?;
    if begun.session.is_stopping() {
        return end(begun, source).await;
    }
    if begun.reads_again {
        ad_hoc.read_again(begun).await?;
        begun.reads_again = false;
    }
    let once = begun.session.config.snapshot == SnapshotMode::InitialOnly;
    if once && fill.is_none() && begun.resume.is_caught_up() && ad_hoc.is_empty() {
        return complete(begun).await;
    }
    begun.session.status.update(|s| s.state = if fill.is_some() { State::Snapshot } else { State::Streaming });
    let mut batch = EventBatch::new(begun.session.config.limits.read_bytes);
    begun.pass_holes();
    loop {
        begun.session.make_room().await?;
        enum Work {
            Read(Result<Progress, crate::source::SourceError>),
            Filled,
            AdHoc,
        }
        let (status, now) = (begun.session.status.clone(), begun.session.now().mono);
        let driven = {
            let read = source.next(&mut batch);
            let filled = async {
                match &mut fill {
                    Some(fill) => fill.ready().await,
                    None => std::future::pending().await,
                }
            };
            let (mut read, mut filled) = (std::pin::pin!(read), std::pin::pin!(filled));
            let mut asked = std::pin::pin!(ad_hoc.ready(&status, now));
            let both = std::future::poll_fn(|cx| {
                if let std::task::Poll::Ready(done) = read.as_mut().poll(cx) {
                    return std::task::Poll::Ready(Work::Read(done));
                }
                if filled.as_mut().poll(cx).is_ready() {
                    return std::task::Poll::Ready(Work::Filled);
                }
                asked.as_mut().poll(cx).map(|()| Work::AdHoc)
            });
            begun.session.drive(both).await?
        };
        let mut over = false;
        let mut failed = None;
        match driven {
            Driven::Confirm(native) => {
                crash_point!("source.before_confirm");
                source.confirm(&native);
                crash_point!("source.after_confirm");
                begun.session.confirmed(native);
            }
            Driven::Stop => over = true,
            Driven::Done(Work::Read(Ok(Progress::End))) => over = true,
            Driven::Done(Work::Read(Ok(Progress::Items)) | Work::Filled | Work::AdHoc) => {}
            Driven::Done(Work::Read(Err(e))) => failed = Some(e),
        }
        // A dropped `next` keeps what it had added (S6).
        let mut items = std::mem::take(&mut batch.items);
        for item in items.drain(..) {
            crash_point!("capture.before_boundary");
            let taken = match item {
                // Nearly all items: without the future that the others need.
                Item::Row(row) if stream.takes(begun, &row) => match stream.add(begun, row)? {
                    true => stream.spill(begun).await.map(|()| false),
                    false => Ok(false),
                },
                item => stream.take(begun, item).await,
            };
            if matches!(&taken, Err(Trouble::End(End::Failed { code, .. })) if matches!(code.0, code::APPEND | code::OUTBOX))
            {
                bring_in(begun).await;
            }
            let boundary = taken?;
            crash_point!("capture.after_boundary");
            if boundary {
                begun.pass_holes();
                ad_hoc.note_moved(begun);
                ad_hoc.ask_again(begun);
            }
            if boundary && let Some(running) = &mut fill {
                running.place(begun, &mut stream).await?;
            }
            if boundary && ad_hoc.waits_for_a_boundary(begun, &stream.at) {
                ad_hoc.turn(begun, source, &mut stream, fill.is_none()).await?;
            }
        }
        batch.items = items;
        batch.clear();
        if let Some(running) = &mut fill {
            if stream.txn.is_none() {
                running.place(begun, &mut stream).await?;
            }
            if running.is_done() {
                running.close().await;
                fill = None;
                begun.session.status.update(|s| s.state = State::Streaming);
            }
        }
        if fill.is_none() && stream.is_between() && begun.resume.is_caught_up() && !begun.late.others.is_empty() {
            fill = Some(super::fill::begin_late(begun, source, ad_hoc.take_number())?);
        }
        ad_hoc.turn(begun, source, &mut stream, fill.is_none()).await?;
        let (lag, since, slot) = (source.lag_bytes(), source.behind_since(), source.slot());
        begun.session.status.update(|s| (s.lag_bytes, s.behind_since, s.slot) = (lag, since, slot));
        if let Some(e) = failed {
            if e.class == SourceClass::RowTooLarge {
                bring_in(begun).await;
            }
            return Err(e.into());
        }
        let is_read = once && fill.is_none() && ad_hoc.is_empty();
        if is_read && stream.is_between() && begun.resume.is_caught_up() {
            return complete(begun).await;
        }
        if over {
            if let Some(mut running) = fill.take() {
                running.aborted(begun);
                running.close().await;
            }
            return end(begun, source).await;
        }
    }
}

impl Begun<'_> {
    /// Between transactions, once everything that was in the log has come again.
    fn pass_holes(&mut self) {
        if self.resume.is_caught_up() {
            let seq = self.resume.pass_holes();
            self.session.track.passed(seq);
        }
    }
}

/// A row that cannot be read or written stops the source: what came before it is appended and checkpointed first, so that
/// nothing is left to be replayed, and its table may be left out.
async fn bring_in(begun: &mut Begun<'_>) {
    let limit = u64::from(begun.session.config.limits.emit.append_timeout_ms);
    let finished = time::timeout(Duration::from_millis(limit), begun.session.finish()).await;
    if !matches!(finished, Ok(Ok(()))) {
        log!(Warn, "capture.not_checkpointed", "what came before the row that is too large is not all in the log");
    }
}

/// A clean end: everything read is appended, cut, checkpointed; then the source is told.
async fn end(begun: &mut Begun<'_>, source: &mut dyn Source) -> Result<(), Trouble> {
    begun.session.finish().await?;
    if let Some(native) = begun.session.take_confirm() {
        source.confirm(&native);
        begun.session.confirmed(native);
    }
    Err(Trouble::Stop)
}

/// The tables were to be read, and no change: they are appended, cut, checkpointed.
async fn complete(begun: &mut Begun<'_>) -> Result<(), Trouble> {
    begun.session.finish().await?;
    Err(Trouble::Complete)
}

impl Stream {
    /// [`Stream::add`] is all that is to be done with the row.
    fn takes(&self, begun: &Begun<'_>, row: &RowChange) -> bool {
        self.txn.is_some() && begun.hears(&row.table)
    }

    /// Puts a row to its transaction; true = that is large, and is to be sent before its end is known.
    fn add(&mut self, begun: &Begun<'_>, row: RowChange) -> Result<bool, Trouble> {
        let Some(txn) = &mut self.txn else { return Err(contract("a row outside of a transaction")) };
        // Before anything is counted: the last record of a transaction says that it is the last.
        let numbered = begun.numbered.get(&(Arc::as_ptr(&row.table) as usize));
        if let Some(n) = numbered.filter(|n| begun.session.emitter.leaves_out(&row, &n.table)) {
            if let Some(how) = begun.session.emitter.odd_update(&n.table, row.op) {
                self.odd.update(&n.table, &row, how)?;
            }
            if begun.transactions.is_none() || !begun.session.emitter.leaves_counted(&row, &n.table) {
                return Ok(false);
            }
        }
        let bytes = row.before.as_ref().map_or(0, |r| r.bytes()) + row.after.as_ref().map_or(0, |r| r.bytes());
        txn.largest = txn.largest.max(bytes);
        txn.bytes += bytes + 64;
        txn.rows.push(row);
        Ok(txn.bytes > begun.session.config.limits.txn_bytes)
    }

    /// Takes one item; true at a boundary between transactions.
    async fn take(&mut self, begun: &mut Begun<'_>, item: Item) -> Result<bool, Trouble> {
        match item {
            Item::Begin { txn, commit_time, xid, first_lsn } => {
                if self.txn.is_some() {
                    return Err(contract("a transaction begins inside another"));
                }
                self.txn = Some(OpenTxn {
                    id: txn,
                    commit_time,
                    xid,
                    first_lsn,
                    rows: std::mem::take(&mut self.spare),
                    bytes: 0,
                    largest: 0,
                    seq: None,
                    ordinal: 0,
                    counts: Counts::default(),
                });
            }
            Item::Schema(table) => {
                begun.ensure_tables(std::slice::from_ref(&table)).await?;
                if let Some(no) = begun.number_of(&table) {
                    *begun.described.entry(no).or_default() += 1;
                }
            }
            Item::Again(table) => begun.again.push(table),
            Item::Row(row) => {
                if !begun.hears(&row.table) {
                    match row.op {
                        Op::Message => begun.ensure_messages(row.table.clone()).await?,
                        _ => begun.ensure_tables(std::slice::from_ref(&row.table)).await?,
                    }
                }
                if self.add(begun, row)? {
                    self.spill(begun).await?;
                }
            }
            Item::Commit { native, txn, commit_time } => {
                let open = self.txn.take().ok_or_else(|| contract("a commit without its beginning"))?;
                if open.id != txn {
                    return Err(contract("a commit of another transaction than the one that began"));
                }
                self.commit(begun, open, native, commit_time).await?;
                return Ok(true);
            }
            Item::Idle(native) => {
                if self.txn.is_some() {
                    return Err(contract("idle inside a transaction"));
                }
                if native > self.at {
                    self.at = native.clone();
                    if begun.resume.is_caught_up() {
                        begun.session.track.idle(native);
                    }
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Sends the rows of a large transaction whose end is not known yet; the newest stays.
    async fn spill(&mut self, begun: &mut Begun<'_>) -> Result<(), Trouble> {
        let Some(mut txn) = self.txn.take() else { return Ok(()) };
        let kept = txn.rows.pop();
        let rows = std::mem::take(&mut txn.rows);
        txn.bytes = 0;
        if !rows.is_empty() {
            fit(begun, &rows, txn.largest)?;
            begun.prepare(&rows).await?;
            let seq = match txn.seq {
                Some(seq) => seq,
                None => begun.resume.assign(&txn.id).map_err(history)?,
            };
            txn.seq = Some(seq);
            let unit = self.unit(begun, seq, None, &txn.id, txn.commit_time);
            let when = When::Now { xid: txn.xid, native: self.at.clone() };
            txn.ordinal += self.begin_boundary(begun, &unit, &rows, txn.first_lsn, txn.ordinal, &mut txn.counts);
            let counted = begun.transactions.is_some().then_some(&mut txn.counts);
            txn.ordinal = self.put_rows(begun, &unit, rows, txn.ordinal, false, Some(when), counted).await?;
        }
        txn.rows.extend(kept);
        self.txn = Some(txn);
        Ok(())
    }

    fn unit(&self, begun: &Begun<'_>, seq: CommitSeq, native: Option<Native>, txn: &TxnId, commit_time: Wall) -> Unit {
        let flags = if begun.superset { flag::SUPERSET } else { 0 };
        Unit { seq, native, txn: txn.clone(), commit_time, flags }
    }

    async fn commit(
        &mut self,
        begun: &mut Begun<'_>,
        mut txn: OpenTxn,
        native: Native,
        commit_time: Wall,
    ) -> Result<(), Trouble> {
        if txn.seq.is_none() && !begun.resume.is_new(&native) {
            return Ok(());
        }
        if native < self.at {
            return Err(contract("a transaction ends below one that came before"));
        }
        self.at = native.clone();
        let rows = txn.rows;
        // Debezium says of a transaction that its slot sent that it begins and ends, whatever is left of it.
        let emitter = &begun.session.emitter;
        let told = begun.transactions.is_some() && emitter.has_defects() && txn.first_lsn.is_some();
        if rows.is_empty() && txn.seq.is_none() && !told {
            self.odd.tell(begun);
            if begun.resume.is_caught_up() {
                begun.session.track.idle(native);
            }
            return Ok(());
        }
        fit(begun, &rows, txn.largest)?;
        begun.prepare(&rows).await?;
        let seq = match txn.seq {
            Some(seq) => seq,
            None => begun.resume.assign(&txn.id).map_err(history)?,
        };
        let unit = self.unit(begun, seq, Some(native.clone()), &txn.id, commit_time);
        let when = When::Now { xid: txn.xid, native: native.clone() };
        txn.ordinal += self.begin_boundary(begun, &unit, &rows, txn.first_lsn, txn.ordinal, &mut txn.counts);
        // A message of no transaction has no boundaries.
        let boundaries = begun.transactions.filter(|_| !is_alone(&rows));
        let counted = boundaries.is_some().then_some(&mut txn.counts);
        let ends = counted.is_none();
        let ordinal = self.put_rows(begun, &unit, rows, txn.ordinal, ends, Some(when), counted).await?;
        if let Some(at) = boundaries {
            // Debezium names the end by itself.
            if begun.session.emitter.has_defects()
                && let Some(lsn) = native.as_postgres()
            {
                txn.counts.id = format!("{}:{lsn}", String::from_utf8_lossy(&unit.txn.0));
            }
            let end = Boundary { counts: &txn.counts, ordinal, is_end: true };
            let session = &mut begun.session;
            let now = session.now();
            session.emitter.put_boundary(now, &unit, at, end, &mut session.track);
        }
        if let Some(xid) = txn.xid {
            begun.touched.committed(xid);
        }
        begun.backfill.ended(seq, &native);
        begun.resume.ended(seq, &native).map_err(history)?;
        crash_point!("capture.before_track");
        begun.session.track.completed(Mark { seq, native, commit_time });
        crash_point!("capture.after_track");
        self.odd.tell(begun);
        Ok(())
    }

    /// With a transaction topic, before the first record of a transaction: says that it begins. Returns its records.
    fn begin_boundary(
        &self,
        begun: &mut Begun<'_>,
        unit: &Unit,
        rows: &[RowChange],
        first_lsn: Option<u64>,
        ordinal: u64,
        counts: &mut Counts,
    ) -> u64 {
        let (Some(at), 0) = (begun.transactions, ordinal) else { return 0 };
        if is_alone(rows) {
            return 0;
        }
        let txn = String::from_utf8_lossy(&unit.txn.0);
        // As Debezium: where the transaction begins, whether its first change is among the records or not.
        let of_row = match rows.first().map(|first| &first.info) {
            Some(SourceInfo::Postgres { lsn, .. }) => *lsn,
            _ => None,
        };
        counts.id = match first_lsn.or(of_row) {
            Some(lsn) => format!("{txn}:{lsn}"),
            None => txn.into_owned(),
        };
        let session = &mut begun.session;
        let now = session.now();
        let begin = Boundary { counts, ordinal: 0, is_end: false };
        session.emitter.put_boundary(now, unit, at, begin, &mut session.track);
        1
    }

    /// Makes records of changes and puts them into batches. Returns the next ordinal.
    #[allow(clippy::too_many_arguments)]
    pub async fn put_rows(
        &mut self,
        begun: &mut Begun<'_>,
        unit: &Unit,
        mut rows: Vec<RowChange>,
        mut ordinal: u64,
        ends: bool,
        when: Option<When>,
        mut counted: Counted<'_>,
    ) -> Result<u64, Trouble> {
        let count = rows.len();
        let snapshot = unit.flags & flag::SNAPSHOT != 0;
        if when.is_none() {
            begun.prepare(&rows).await?;
        }
        let mut replayed = 0;
        // One look at the clock for a turn, which takes well under a millisecond.
        let mut now = begun.session.now();
        for (i, mut row) in rows.drain(..).enumerate() {
            if i > 0 && i.is_multiple_of(TURN) {
                begun.session.make_room().await?;
                now = begun.session.now();
            }
            crash_point!("capture.before_route");
            let Some(numbered) = begun.numbered.get(&(Arc::as_ptr(&row.table) as usize)) else {
                return Err(contract("a row of a table that was not described"));
            };
            let (table_no, partitions) = (numbered.table.table_no, numbered.partitions);
            let given = std::mem::replace(&mut row.table, numbered.table.clone());
            if counted.is_some() && begun.session.emitter.count_left_out(&row, &mut counted) {
                continue;
            }
            if let Some(target) = begun.target(&row)? {
                let place = Place { ordinal, last: ends && i + 1 == count };
                let session = &mut begun.session;
                let before = session.emitter.bytes();
                let put = session.emitter.put_event(
                    now,
                    unit,
                    place,
                    &row,
                    target,
                    counted.as_deref_mut(),
                    &mut session.track,
                );
                let put = put.map_err(|e| Trouble::fail(code::ENCODE, e.to_string(), ""))?;
                session.wrote(session.emitter.bytes().saturating_sub(before) as u64);
                self.odd.no_json(put.is_no_json);
                replayed += u64::from(put.replayed);
                ordinal += 1;
                continue;
            }
            let is_row = row.op != Op::Message;
            let filled =
                when.is_some() && is_row && super::unchanged::fill(begun, unit, ordinal, &mut row, partitions).await?;
            let again = when.is_some() && is_row && begun.backfill.begins_again(table_no);
            if let Some(when) = when.as_ref().filter(|_| again) {
                let kept = RowChange { table: given, ..row.clone() };
                begun.backfill.emitted_again(table_no, unit.seq, kept, when.clone());
            }
            crash_point!("capture.after_route");
            let comes = again || when.is_some() && row_comes(begun, &row)?;
            let more = if comes { flag::ROW_COMES } else { 0 } | if filled { flag::FILLED } else { 0 };
            let marked = (more != 0).then(|| Unit { flags: unit.flags | more, ..unit.clone() });
            let unit = marked.as_ref().unwrap_or(unit);
            let place = Place { ordinal, last: ends && i + 1 == count };
            let is_watched = begun.touched.watches(table_no) || begun.backfill.watches(table_no);
            let session = &mut begun.session;
            let before = session.emitter.bytes();
            self.made.clear();
            crash_point!("capture.before_encode");
            let first = ordinal;
            ordinal += session
                .emitter
                .put(
                    now,
                    unit,
                    place,
                    &row,
                    partitions,
                    counted.as_deref_mut(),
                    &mut session.track,
                    &mut replayed,
                    is_watched.then_some(&mut self.made),
                )
                .map_err(|e| Trouble::fail(code::ENCODE, e.to_string(), ""))?;
            crash_point!("capture.after_encode");
            if is_row {
                super::unchanged::remember(begun, unit, first, &row, partitions);
            }
            let session = &mut begun.session;
            session.wrote(session.emitter.bytes().saturating_sub(before) as u64);
            if when.is_some() {
                super::adhoc::look(begun, unit.seq, &row);
                super::adhoc::look_for_moved(begun, unit.seq, &row);
            }
            if let Some(when) = when.as_ref().filter(|_| is_row) {
                self.watch(begun, &row.table, row.op, when)?;
            }
        }
        if rows.capacity() <= SPARE_MAX {
            self.spare = rows;
        }
        begun.session.status.update(|s| {
            s.rows += count as u64;
            if snapshot {
                s.snapshot_rows += count as u64;
            }
            if replayed > 0 {
                s.replayed += 1;
            }
        });
        Ok(ordinal)
    }

    /// A unit of a first snapshot, whose records were made where its rows were read.
    pub async fn put_made(
        &mut self,
        begun: &mut Begun<'_>,
        unit: &Unit,
        made: crate::bulk::Made,
        topic: TopicId,
    ) -> Result<(), Trouble> {
        let Some(first) = made.first else { return Ok(()) };
        self.put_rows(begun, unit, vec![first], 0, made.rows == 1, None, None).await?;
        for page in made.pages {
            begun.session.make_room().await?;
            let records = u64::from(page.records());
            let session = &mut begun.session;
            let bytes = session.emitter.put_page(unit, topic, page, &mut session.track);
            session.wrote(bytes as u64);
            session.status.update(|s| (s.rows, s.snapshot_rows) = (s.rows + records, s.snapshot_rows + records));
            crash_point!("capture.after_page");
        }
        if let Some(last) = made.last {
            self.put_rows(begun, unit, vec![last], made.rows - 1, true, None, None).await?;
        }
        Ok(())
    }

    /// What the stream emits counts for the chunks that are still to come.
    fn watch(&self, begun: &mut Begun<'_>, table: &TableSchema, op: Op, when: &When) -> Result<(), Trouble> {
        if begun.touched.watches(table.table_no) {
            if op == Op::Truncate {
                begun.touched.truncated(table.table_no, when);
            }
            let keyed = self.made.iter().filter_map(|m| Some((m.key.as_ref()?, m.whole)));
            keyed.for_each(|(key, whole)| begun.touched.emitted(table.table_no, key, whole, when));
        }
        if !begun.backfill.watches(table.table_no) {
            return Ok(());
        }
        if op == Op::Truncate {
            begun.backfill.truncated(table.table_no, when.clone());
        }
        for made in &self.made {
            if let Some(key) = &made.key {
                let done = begun.backfill.emitted(table.table_no, key, made.whole, when.clone());
                done.map_err(|e| Trouble::fail(code::CONTRACT, e.to_string(), "begin the source again"))?;
            }
        }
        Ok(())
    }

    pub fn is_between(&self) -> bool {
        self.txn.is_none()
    }
}

/// All of them make records that the log takes.
fn fit(begun: &Begun<'_>, rows: &[RowChange], largest: usize) -> Result<(), Trouble> {
    if !begun.session.emitter.may_be_too_large(largest) {
        return Ok(());
    }
    for row in rows {
        let bytes = row.before.as_ref().map_or(0, |r| r.bytes()) + row.after.as_ref().map_or(0, |r| r.bytes());
        let emitter = &begun.session.emitter;
        let large = emitter.too_large(row, bytes).map_err(|e| Trouble::fail(code::ENCODE, e.to_string(), ""))?;
        if let Some(bytes) = large {
            let most = begun.session.config.limits.emit.record_bytes_max;
            let what = format!("a row of {} makes a record of {bytes} bytes, above {most}", row.table.qualified());
            let next = "leave the table out of `tables` (catchwater apply), or keep such values elsewhere";
            return Err(Trouble::fail(code::APPEND, what, next));
        }
    }
    Ok(())
}

/// An incomplete update of a row that a chunk will bring. Not one to a new key: that key's chunk may be done.
fn row_comes(begun: &Begun<'_>, row: &RowChange) -> Result<bool, Trouble> {
    let partial = || row.after.as_ref().is_some_and(|r| !r.is_whole());
    let table_no = row.table.table_no;
    if row.op == Op::Update && partial() && begun.late.open.contains(&table_no) {
        // Whatever has no record in the log comes by its chunk, at its new key too (`adhoc::moved`); what the log has and
        // cannot say for want of memory is read by its key as well.
        return Ok(true);
    }
    if row.op != Op::Update || !partial() || !begun.backfill.watches(row.table.table_no) || key_changed(row) {
        return Ok(false);
    }
    let key = begun.session.emitter.key(row).map_err(|e| Trouble::fail(code::ENCODE, e.to_string(), ""))?;
    Ok(key.is_some_and(|key| begun.backfill.row_comes(row.table.table_no, &key)))
}

/// A logical message of no transaction, which is a unit of its own.
fn is_alone(rows: &[RowChange]) -> bool {
    matches!(rows, [RowChange { op: Op::Message, info: SourceInfo::Postgres { txid: None, .. }, .. }])
}

fn contract(what: &str) -> Trouble {
    Trouble::fail(code::CONTRACT, format!("the source broke its contract: {what}"), "report it")
}

fn history(e: HistoryError) -> Trouble {
    Trouble::fail(
        code::HISTORY,
        format!("another history than the log's: {e}"),
        "the source was restored, failed over or swapped; compare by hand; the source must be read again",
    )
}
