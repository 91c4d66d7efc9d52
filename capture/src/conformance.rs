//! The suite every [`Source`] passes: named cases for the clauses S1–S11 of `source` (S12, foreign bytes, belongs to each
//! connector's own tests and fuzz targets). A connector's test implements [`Probe`] for its system and calls [`run`]. A
//! case that fails panics with its clause.
//!
//! Each case has a database of its own with the tables [`ITEM`] and [`OTHER`], empty, both `(id integer key, v text)`.
//! What a system cannot be asked is declared by [`Probe::unmet`] with a reason, and printed; whatever is not declared is
//! asked.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod reader;

use reader::{Reader, Unit, ends, whole};

use crate::source::*;
use bytes::Bytes;
use catchwater_base::{Rng, Wall};
use catchwater_change::{Cell, Native, Op, Row, RowChange, TableSchema, Value};
use catchwater_record::TxnId;
use catchwater_runtime::{Fut, time};
use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

pub const ITEM: &str = "item";
pub const OTHER: &str = "other";

/// Text that no error may repeat.
const SECRET: &str = "s3cret-row-value";
/// Nothing of a healthy source takes longer.
const LIMIT: Duration = Duration::from_secs(60);
/// A silent source speaks every second (S11); the rest is for a loaded machine.
const IDLE: Duration = Duration::from_millis(1_800);
const ROOM: usize = 64 * 1024;

/// What a statement of the application does to a row of table `.0`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    Insert(&'static str, i64, String),
    Update(&'static str, i64, String),
    Delete(&'static str, i64),
    Truncate(&'static str),
}

/// What may be asked of a system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// A transaction is held open ([`Probe::begin`], [`Probe::end`]).
    OpenTxn,
    /// And another one commits beside it.
    Beside,
    Savepoint,
    /// A table gets a column ([`Probe::add_column`]).
    Reshape,
    /// The connection breaks ([`Probe::cut`]).
    Cut,
    Restart,
    /// S7: there is a `row.max.bytes`.
    LargeRow,
    /// S8: something that may bear rows and is not known ([`Probe::unknown`]).
    Unknown,
}

/// What the suite needs of a system besides its source.
pub trait Probe: Send {
    /// What this system cannot be asked, and why.
    fn unmet(&self) -> Vec<(Ask, &'static str)>;
    /// The cases that follow work on a new database.
    fn fresh(&mut self) -> Fut<'_, ()>;
    /// A source of its own on the database, not opened; each one the successor of those before.
    fn source(&mut self) -> Box<dyn Source>;
    /// One transaction.
    fn commit<'a>(&'a mut self, changes: &'a [Change]) -> Fut<'a, ()>;
    /// One transaction that does not commit.
    fn roll_back<'a>(&'a mut self, changes: &'a [Change]) -> Fut<'a, ()>;
    /// One transaction: `kept`, then `undone` behind a savepoint and back to it, commit.
    fn savepoint<'a>(&'a mut self, kept: &'a [Change], undone: &'a [Change]) -> Fut<'a, ()>;
    /// Begins a transaction that stays open, on a connection of its own.
    fn begin<'a>(&'a mut self, changes: &'a [Change]) -> Fut<'a, ()>;
    /// Commits it, or rolls it back.
    fn end(&mut self, commit: bool) -> Fut<'_, ()>;
    /// Adds a column `extra` to [`ITEM`].
    fn add_column(&mut self) -> Fut<'_, ()>;
    /// Breaks the connections of the open source.
    fn cut(&mut self) -> Fut<'_, ()>;
    fn restart(&mut self) -> Fut<'_, ()>;
    /// `row.max.bytes` of the sources given out.
    fn row_bytes_max(&self) -> usize {
        0
    }
    /// Makes the system send something that may bear rows and is not known.
    fn unknown(&mut self) -> Fut<'_, ()>;
    /// May the system have forgotten what is at and before this position?
    fn forgot<'a>(&'a mut self, upto: &'a Native) -> Fut<'a, bool>;
    /// How long the server bears a client that does not answer; `None` = for ever.
    fn patience(&self) -> Option<Duration> {
        None
    }
    /// What is on the server now besides what the options leave there: temporary slots, connections, snapshots, locks.
    fn leftovers(&mut self) -> Fut<'_, Vec<String>>;
}

/// Runs all cases.
pub async fn run(probe: &mut dyn Probe) {
    for (ask, why) in probe.unmet() {
        eprintln!("conformance: {ask:?} is not asked: {why}");
    }
    stories(probe).await;
    nothing_of_what_is_open_or_undone(probe).await;
    a_large_transaction_through_small_room(probe).await;
    snapshot_and_stream_meet(probe).await;
    shapes_come_first(probe).await;
    only_the_confirmed_is_forgotten(probe).await;
    cancelled_reads(probe).await;
    nobody_calls(probe).await;
    a_row_too_large(probe).await;
    what_is_not_known(probe).await;
    errors_have_classes(probe).await;
    broken_connections(probe).await;
    close_leaves_nothing(probe).await;
    silence(probe).await;
}

fn may(probe: &dyn Probe, ask: Ask) -> bool {
    !probe.unmet().iter().any(|(a, _)| *a == ask)
}

fn insert(table: &'static str, id: i64) -> Change {
    Change::Insert(table, id, format!("v{id}"))
}

/// A change as the suite compares it.
fn show(change: &Change) -> String {
    match change {
        Change::Insert(t, id, v) => format!("c {t} {id} {v}"),
        Change::Update(t, id, v) => format!("u {t} {id} {v}"),
        Change::Delete(t, id) => format!("d {t} {id}"),
        Change::Truncate(t) => format!("t {t}"),
    }
}

fn show_all(changes: &[Change]) -> Vec<String> {
    changes.iter().map(show).collect()
}

fn cell(row: &Row, table: &TableSchema, column: &str) -> String {
    let at = table.columns.iter().position(|c| c.name == column).expect("the suite's tables have this column");
    match row.cells.get(at) {
        Some(Cell::Value(Value::Int(i))) => i.to_string(),
        Some(Cell::Value(Value::Text(t))) => t.to_string(),
        other => panic!("{}.{column}: {other:?}", table.name),
    }
}

fn show_row(row: &RowChange) -> String {
    let (op, name) = (row.op.letter(), &row.table.name);
    match (row.op, &row.before, &row.after) {
        (Op::Truncate, ..) => format!("{op} {name}"),
        (Op::Delete, Some(old), None) => format!("{op} {name} {}", cell(old, &row.table, "id")),
        (_, _, Some(new)) => format!("{op} {name} {} {}", cell(new, &row.table, "id"), cell(new, &row.table, "v")),
        other => panic!("S1 a row that is nothing: {other:?}"),
    }
}

/// Random transactions: what they do, in order.
fn random(rng: &mut Rng, truncate: bool, rows: &mut BTreeSet<(&'static str, i64)>) -> Vec<Change> {
    let mut out = Vec::new();
    for _ in 0..1 + rng.below(6) {
        let (table, id) = ([ITEM, OTHER][rng.below(2) as usize], rng.below(12) as i64);
        let text = format!("r{}", rng.below(1_000));
        if truncate && rng.below(40) == 0 {
            rows.retain(|(t, _)| *t != table);
            out.push(Change::Truncate(table));
        } else if rows.insert((table, id)) {
            out.push(Change::Insert(table, id, text));
        } else if rng.below(3) == 0 {
            rows.remove(&(table, id));
            out.push(Change::Delete(table, id));
        } else {
            out.push(Change::Update(table, id, text));
        }
    }
    out
}

async fn stories(probe: &mut dyn Probe) {
    probe.fresh().await;
    let mut rng = Rng::new(11);
    let mut reader = Reader::fresh(probe).await.with_room(700);
    let abilities = reader.source.capabilities();
    let (mut rows, mut want) = (BTreeSet::new(), Vec::new());
    for n in 0..60 {
        let mut after = rows.clone();
        let changes = random(&mut rng, abilities.truncate, &mut after);
        if rng.below(5) == 0 {
            probe.roll_back(&changes).await;
        } else {
            probe.commit(&changes).await;
            rows = after;
            want.push(changes);
        }
        // Read as it goes, too: a source that closes units by looking closes some early.
        if n % 20 == 10 {
            let count = want.iter().map(Vec::len).sum();
            reader.rows(count).await;
        }
    }
    let count: usize = want.iter().map(Vec::len).sum();
    let first = reader.rows(count).await.to_vec();
    whole(abilities.superset, &first, &want);
    let ids: BTreeSet<&TxnId> = first.iter().map(|u| &u.txn).collect();
    assert_eq!(ids.len(), first.len(), "S3 each transaction its own id");
    let (from, known) = (reader.opened.native.clone(), reader.opened.identity.clone());
    reader.close().await;
    // Again, from each of some positions: the same, from there on.
    for at in [0, 1, first.len() / 2, first.len() - 1] {
        let after = if at == 0 { &from } else { &first[at - 1].native };
        let mut again = Reader::after(probe, after, &known).await.expect("S2 nothing was confirmed");
        let left: usize = first[at..].iter().map(|u| u.rows.len()).sum();
        assert_eq!(again.rows(left).await, &first[at..], "S2 S3 reading again from {at}");
        // Not closed: the next one is its successor.
        if at != 1 {
            again.close().await;
        }
    }
    // From the last: only what comes later.
    let last = first[first.len() - 1].native.clone();
    let mut end = Reader::after(probe, &last, &known).await.expect("S2 from the newest position");
    probe.commit(&[insert(ITEM, 900)]).await;
    let units = end.rows(1).await;
    whole(abilities.superset, units, &[vec![insert(ITEM, 900)]]);
    end.close().await;
}

async fn nothing_of_what_is_open_or_undone(probe: &mut dyn Probe) {
    probe.fresh().await;
    let mut reader = Reader::fresh(probe).await;
    let superset = reader.source.capabilities().superset;
    let mut want = vec![vec![insert(ITEM, 1)]];
    probe.commit(&want[0]).await;
    if may(probe, Ask::Savepoint) {
        let kept = vec![insert(ITEM, 10), insert(OTHER, 10)];
        probe.savepoint(&kept, &[insert(ITEM, 11), Change::Delete(ITEM, 1)]).await;
        want.push(kept);
    }
    if may(probe, Ask::OpenTxn) {
        let open = vec![insert(ITEM, 20), insert(OTHER, 20)];
        let count = want.iter().map(Vec::len).sum();
        reader.rows(count).await;
        probe.begin(&open).await;
        if may(probe, Ask::Beside) {
            want.push(vec![insert(ITEM, 21)]);
            probe.commit(&[insert(ITEM, 21)]).await;
        }
        let count = want.iter().map(Vec::len).sum();
        reader.rows(count).await;
        reader.idle().await;
        whole(superset, &reader.units, &want);
        probe.end(true).await;
        want.push(open);
        let count = want.iter().map(Vec::len).sum();
        reader.rows(count).await;
        probe.begin(&[insert(ITEM, 30)]).await;
        probe.end(false).await;
    }
    probe.roll_back(&[insert(ITEM, 31), insert(OTHER, 31)]).await;
    want.push(vec![insert(ITEM, 40)]);
    probe.commit(&[insert(ITEM, 40)]).await;
    let count = want.iter().map(Vec::len).sum();
    reader.rows(count).await;
    reader.idle().await;
    whole(superset, &reader.units, &want);
    reader.close().await;
}

async fn a_large_transaction_through_small_room(probe: &mut dyn Probe) {
    probe.fresh().await;
    // Room for one item: each call gives one or a few, and goes on where it was.
    let mut reader = Reader::fresh(probe).await.with_room(1);
    let superset = reader.source.capabilities().superset;
    let want: Vec<Change> = (0..1_500).map(|id| insert(ITEM, id)).collect();
    probe.commit(&want).await;
    let units = reader.rows(want.len()).await;
    whole(superset, units, &[want]);
    reader.close().await;
}

async fn snapshot_and_stream_meet(probe: &mut dyn Probe) {
    probe.fresh().await;
    let there: Vec<Change> = (0..30).map(|id| insert(ITEM, id)).collect();
    probe.commit(&there).await;
    probe.commit(&[insert(OTHER, 1)]).await;
    let mut reader = Reader::fresh(probe).await;
    let abilities = reader.source.capabilities();
    let later = vec![insert(ITEM, 100), Change::Update(ITEM, 3, "later".into()), Change::Delete(ITEM, 4)];
    probe.commit(&later).await;
    if abilities.has_snapshot {
        let mut snapshot = reader.source.snapshot().expect("S2 has_snapshot");
        let chunks = ends("plan", snapshot.plan(&reader.opened.tables)).await.expect("S9 plan");
        let mut got = BTreeSet::new();
        for chunk in &chunks {
            let mut rows = Vec::new();
            let end = ends("read", snapshot.read(chunk, &mut rows)).await.expect("S9 read");
            assert_eq!(end.view, View::Exported, "S2 the first snapshot is of the stream's start");
            for row in rows {
                assert_eq!(row.op, Op::Read, "S2 snapshot rows are reads");
                assert_eq!(row.table, chunk.table, "S4 of the shape the chunk names");
                assert!(got.insert(show_row(&row)), "S2 a row twice");
            }
        }
        ends("close", snapshot.close()).await;
        let want = there.iter().chain(&[insert(OTHER, 1)]).map(|c| show(c).replacen('c', "r", 1)).collect();
        assert_eq!(got, want, "S2 the rows of the stream's start, not one later");
    }
    let units = reader.rows(later.len()).await;
    whole(abilities.superset, units, &[later]);
    reader.close().await;
}

async fn shapes_come_first(probe: &mut dyn Probe) {
    if !may(probe, Ask::Reshape) {
        return;
    }
    probe.fresh().await;
    let mut reader = Reader::fresh(probe).await;
    let (from, known) = (reader.opened.native.clone(), reader.opened.identity.clone());
    let has = |tables: &[Arc<TableSchema>]| {
        tables.iter().any(|t| t.name == ITEM && t.columns.iter().any(|c| c.name == "extra"))
    };
    probe.commit(&[insert(ITEM, 1)]).await;
    reader.rows(1).await;
    assert!(!has(&reader.shapes), "S4 the shape is the one of the row's time");
    probe.add_column().await;
    probe.commit(&[insert(ITEM, 2)]).await;
    // A source that reads again what it may have missed gives updates of it; the rows that were made come in order.
    let created = ["c item 1 v1", "c item 2 v2"];
    assert_eq!(reader.created(2).await, created, "S4 around a change of shape");
    assert!(has(&reader.shapes), "S4 a change of shape is told");
    let units = reader.units.clone();
    reader.close().await;
    // The catalogue has moved on; the first row has not.
    let mut again = Reader::after(probe, &from, &known).await.expect("S2 after a change of shape");
    assert_eq!(again.created(2).await, created, "S4 around a change of shape, again");
    assert_eq!(again.units, units, "S3 around a change of shape");
    again.close().await;
}

trait Rows {
    fn concat_rows(&self) -> Vec<String>;
}

impl Rows for [Unit] {
    fn concat_rows(&self) -> Vec<String> {
        self.iter().flat_map(|u| u.rows.iter().cloned()).collect()
    }
}

async fn only_the_confirmed_is_forgotten(probe: &mut dyn Probe) {
    probe.fresh().await;
    let mut reader = Reader::fresh(probe).await;
    let known = reader.opened.identity.clone();
    for id in 0..6 {
        probe.commit(&[insert(ITEM, id)]).await;
        // One by one, so that there are six units however they are cut.
        reader.rows(id as usize + 1).await;
    }
    reader.idle().await;
    let all = reader.units.clone();
    assert_eq!(all.len(), 6, "S1");
    assert!(!probe.forgot(&all[0].native).await, "S5 reading forgets nothing");
    reader.source.confirm(&all[3].native);
    reader.source.confirm(&all[1].native); // Never back.
    let forgets = async {
        while !probe.forgot(&all[3].native).await {
            reader.next().await.unwrap_or_else(|e| panic!("S9 {e}"));
        }
    };
    ends("S5 forgetting", forgets).await;
    reader.idle().await;
    assert!(!probe.forgot(&all[4].native).await, "S5 and nothing more");
    assert_eq!(reader.units, all, "S5 confirming gives nothing again");
    reader.close().await;
    let mut rest = Reader::after(probe, &all[3].native, &known).await.expect("S5 from the confirmed position");
    assert_eq!(rest.rows(2).await, &all[4..], "S5 what was not confirmed is there");
    rest.close().await;
    match Reader::after(probe, &all[0].native, &known).await {
        Err(e) => assert_eq!(e.class, SourceClass::Gap, "S2 S9 before what is forgotten: {e}"),
        Ok(_) => panic!("S2 a start before what is forgotten is a gap"),
    }
    // The refused start did no harm.
    let mut rest = Reader::after(probe, &all[3].native, &known).await.expect("S2 a refused start changes nothing");
    assert_eq!(rest.rows(2).await, &all[4..], "S2");
    rest.close().await;
}

/// Polls at most `times`, then drops the call.
async fn polled<T>(times: u64, call: impl Future<Output = T>) -> Option<T> {
    let mut call = std::pin::pin!(call);
    let mut left = times;
    std::future::poll_fn(|cx| match call.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending if left <= 1 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

/// Calls that are dropped at whatever await they stand.
async fn dropped_calls(reader: &mut Reader, rng: &mut Rng, count: u64) {
    for _ in 0..count {
        let next = reader.source.next(&mut reader.out);
        let answer = match rng.below(2) {
            0 => polled(1 + rng.below(3), time::timeout(IDLE, next)).await.and_then(Result::ok),
            _ => time::timeout(Duration::from_millis(rng.below(4)), next).await.ok(),
        };
        if let Some(Err(e)) = answer {
            panic!("S6 S9 {e}");
        }
        // What stands in the batch was given, whether the call ended or not.
        reader.look();
    }
}

async fn cancelled_reads(probe: &mut dyn Probe) {
    probe.fresh().await;
    let mut reader = Reader::fresh(probe).await.with_room(500);
    let superset = reader.source.capabilities().superset;
    let mut rng = Rng::new(5);
    let mut want = Vec::new();
    for n in 0..40i64 {
        let changes: Vec<Change> = (0..4).flat_map(|i| [insert(ITEM, n * 4 + i), insert(OTHER, n * 4 + i)]).collect();
        probe.commit(&changes).await;
        want.push(changes);
        let count = rng.below(8);
        ends("S6 cancelled reads", dropped_calls(&mut reader, &mut rng, count)).await;
    }
    let count = 40 * 8;
    reader.rows(count).await;
    whole(superset, &reader.units, &want);
    if may(probe, Ask::Reshape) {
        // A new shape may have to be asked for: that is an await, too.
        probe.add_column().await;
        probe.commit(&[insert(ITEM, 1_000)]).await;
        ends("S6 cancelled reads", dropped_calls(&mut reader, &mut rng, 60)).await;
        let created = reader.created(count + 1).await;
        assert_eq!(created[count..], ["c item 1000 v1000"], "S6 across a change of shape");
    }
    reader.close().await;
}

async fn nobody_calls(probe: &mut dyn Probe) {
    let Some(patience) = probe.patience() else { return };
    probe.fresh().await;
    let mut reader = Reader::fresh(probe).await;
    let superset = reader.source.capabilities().superset;
    let want: Vec<Change> = (0..500).map(|id| Change::Insert(ITEM, id, "x".repeat(2_000))).collect();
    probe.commit(&want).await;
    // Not a synchronisation: the time is what is tested.
    time::sleep(patience * 2).await;
    let units = reader.rows(want.len()).await;
    whole(superset, units, &[want]);
    reader.close().await;
}

async fn a_row_too_large(probe: &mut dyn Probe) {
    if !may(probe, Ask::LargeRow) {
        return;
    }
    probe.fresh().await;
    let mut reader = Reader::fresh(probe).await;
    let known = reader.opened.identity.clone();
    probe.commit(&[insert(ITEM, 1)]).await;
    let before = reader.rows(1).await[0].clone();
    let large = SECRET.repeat(probe.row_bytes_max() / SECRET.len() + 2);
    probe.commit(&[insert(ITEM, 2), Change::Insert(ITEM, 3, large)]).await;
    for _ in 0..2 {
        let e = reader.failure().await;
        assert_eq!(e.class, SourceClass::RowTooLarge, "S7 {e}");
        assert!(!format!("{e:?}").contains(SECRET), "S7 no row value in an error");
        assert!(!reader.units.concat_rows().contains(&"c item 2 v2".into()), "S1 nothing of its transaction is whole");
        reader.close().await;
        // It is no accident of this connection.
        reader = Reader::after(probe, &before.native, &known).await.expect("S2 before the large row");
    }
    reader.close().await;
}

async fn what_is_not_known(probe: &mut dyn Probe) {
    if !may(probe, Ask::Unknown) {
        return;
    }
    probe.fresh().await;
    let mut reader = Reader::fresh(probe).await;
    probe.commit(&[insert(ITEM, 1)]).await;
    reader.rows(1).await;
    probe.unknown().await;
    let e = reader.failure().await;
    assert_eq!(e.class, SourceClass::Unknown, "S8 {e}");
    assert!(!e.is_retry() && !e.what.is_empty(), "S8 fatal, with its place");
    assert_eq!(reader.units.len(), 1, "S8 nothing of it is given out");
    reader.close().await;
}

async fn errors_have_classes(probe: &mut dyn Probe) {
    probe.fresh().await;
    let mut closed = probe.source();
    let mut out = EventBatch::new(ROOM);
    let e = ends("next", closed.next(&mut out)).await.expect_err("S9 next of a source that is not open");
    assert_eq!(e.class, SourceClass::Bug, "S9 {e}");
    let known = ends("identify", closed.identify()).await.expect("S9 identify");
    assert_eq!(ends("identify", closed.identify()).await.as_ref(), Ok(&known), "S9 identify reads only");
    ends("close", closed.close()).await;
    let mut reader = Reader::fresh(probe).await;
    let (from, known) = (reader.opened.native.clone(), reader.opened.identity.clone());
    probe.commit(&[insert(ITEM, 1)]).await;
    reader.rows(1).await;
    reader.close().await;
    // Another server than the log knows.
    let mut other = known.clone();
    let own = [identity_tag::SYSTEM_ID, identity_tag::SERVER_UUID, identity_tag::SQLITE_UUID];
    let tag = own.into_iter().find(|t| known.tags.contains_key(t)).expect("S9 an identity says who the server is");
    let flipped: Vec<u8> = known.tags[&tag].iter().map(|b| b ^ 0xff).collect();
    other.tags.insert(tag, Bytes::from(flipped));
    match Reader::after(probe, &from, &other).await {
        Err(e) => assert_eq!(e.class, SourceClass::Identity, "S9 another server: {e}"),
        Ok(_) => panic!("S9 another server's position is refused"),
    }
    // A position of another system.
    let foreign = Native::new(Bytes::from_static(&[0xfe, 1, 2, 3])).expect("a short native");
    match Reader::after(probe, &foreign, &known).await {
        Err(e) => assert!(!e.is_retry(), "S9 a position of another system: {e} ({:?})", e.class),
        Ok(_) => panic!("S9 a position of another system is refused"),
    }
    let mut again = Reader::after(probe, &from, &known).await.expect("S2 refused starts change nothing");
    assert_eq!(again.rows(1).await.concat_rows(), ["c item 1 v1"], "S2");
    again.close().await;
}

async fn broken_connections(probe: &mut dyn Probe) {
    for ask in [Ask::Cut, Ask::Restart] {
        if !may(probe, ask) {
            continue;
        }
        probe.fresh().await;
        let mut reader = Reader::fresh(probe).await;
        let superset = reader.source.capabilities().superset;
        let known = reader.opened.identity.clone();
        let mut want = Vec::new();
        let mut got: Vec<Unit> = Vec::new();
        for n in 0..4 {
            let changes = vec![insert(ITEM, n), insert(OTHER, n)];
            probe.commit(&changes).await;
            want.push(changes);
            if n % 2 == 0 {
                reader.rows(2).await;
            }
            match ask {
                Ask::Cut => probe.cut().await,
                _ => probe.restart().await,
            }
            let e = reader.failure().await;
            assert!(e.is_retry(), "S9 a broken connection is retried: {e} ({:?})", e.class);
            got.append(&mut reader.units);
            let after = got.last().map_or(reader.opened.native.clone(), |u| u.native.clone());
            reader.close().await;
            reader = Reader::after(probe, &after, &known).await.expect("S2 after a broken connection");
        }
        let have: usize = got.iter().map(|u| u.rows.len()).sum();
        reader.rows(want.len() * 2 - have).await;
        got.append(&mut reader.units);
        whole(superset, &got, &want);
        reader.close().await;
    }
}

async fn close_leaves_nothing(probe: &mut dyn Probe) {
    probe.fresh().await;
    probe.commit(&[insert(ITEM, 1)]).await;
    let mut reader = Reader::fresh(probe).await;
    let (from, known) = (reader.opened.native.clone(), reader.opened.identity.clone());
    // In the middle of everything: an export that was taken and not read, and a transaction half given.
    let mut snapshot = match reader.source.capabilities().has_snapshot {
        true => Some(reader.source.snapshot().expect("S10 snapshot")),
        false => None,
    };
    probe.commit(&(10..400).map(|id| insert(ITEM, id)).collect::<Vec<_>>()).await;
    let mut reader = reader.with_room(1);
    while reader.open.is_none() {
        reader.next().await.unwrap_or_else(|e| panic!("S9 {e}"));
    }
    if let Some(snapshot) = &mut snapshot {
        ends("close", snapshot.close()).await;
    }
    ends("close", reader.source.close()).await;
    ends("close", reader.source.close()).await;
    drop((snapshot, reader));
    leaves_nothing(probe).await;
    // What the options say is kept: the position is there.
    let mut again = Reader::after(probe, &from, &known).await.expect("S10 what keeps the position stays");
    again.rows(390).await;
    // A source that is dropped leaves nothing either, once the server has noticed.
    drop(again);
    leaves_nothing(probe).await;
    // Never opened, only asked.
    let mut asked = probe.source();
    let _ = ends("preflight", asked.preflight()).await;
    let _ = ends("identify", asked.identify()).await;
    ends("close", asked.close()).await;
    drop(asked);
    leaves_nothing(probe).await;
}

async fn leaves_nothing(probe: &mut dyn Probe) {
    let mut left = probe.leftovers().await;
    for _ in 0..1_000 {
        if left.is_empty() {
            return;
        }
        // A server notices the end of a connection in its own time.
        time::sleep(Duration::from_millis(10)).await;
        left = probe.leftovers().await;
    }
    panic!("S10 left behind: {left:?}");
}

async fn silence(probe: &mut dyn Probe) {
    probe.fresh().await;
    let mut reader = Reader::fresh(probe).await;
    let superset = reader.source.capabilities().superset;
    let known = reader.opened.identity.clone();
    probe.commit(&[insert(ITEM, 1)]).await;
    reader.rows(1).await;
    reader.idle().await;
    for _ in 0..3 {
        let before = reader.idles;
        let next = time::timeout(IDLE, reader.source.next(&mut reader.out)).await;
        next.expect("S11 a silent source reports every second").unwrap_or_else(|e| panic!("S9 {e}"));
        reader.look();
        assert!(reader.idles > before, "S11 and it reports idle");
    }
    // An idle position may be confirmed and resumed from.
    let at = reader.upto.clone();
    reader.source.confirm(&at);
    reader.close().await;
    let mut again = Reader::after(probe, &at, &known).await.expect("S11 S2 after an idle position");
    probe.commit(&[insert(ITEM, 2)]).await;
    let units = again.rows(1).await;
    whole(superset, units, &[vec![insert(ITEM, 2)]]);
    again.close().await;
}
