//! The suite every [`Sink`] passes: named cases for the clauses C1–C12 of `sink`. A connector's test implements [`Probe`]
//! for its system and calls [`run`]. A case that fails panics with its name and clause.
//!
//! What a sink has to stand, and the test that holds it. *suite*: a case of this file, on the sinks in memory, PostgreSQL and
//! SQLite. *worker*: `worker/tests*`, on the sink in memory alone. *pg*, *sqlite*: tests of the connector.
//!
//! | item | held by |
//! |---|---|
//! | empty open; position equals rows | suite `position_is_what_the_target_holds` |
//! | claim by lower, equal, higher fence; foreign cluster | suite `fences` |
//! | zombie after take-over, and inside an open transaction | suite `zombies` |
//! | lost connection before, in and after COMMIT; kills at each call, in DDL too | worker `storm`; pg `a_commit_that_got_through_after_all_is_found_by_its_number`, `killed_workers_…` (both ends PostgreSQL); sqlite `the_demo_shop_survives_kills_…` |
//! | sink restored to an older state; read-only target | `tests/guards.rs` (PostgreSQL) |
//! | log shorter than the sink; log start above it | worker `a_target_ahead_of_the_log_…`, `a_sink_that_stood_before_deletes_…` |
//! | same group twice; abort, drop, open again at once | suite `the_same_group_twice`, `abort_and_drop_leave_nothing` |
//! | insert, update, delete of one key; delete, then insert, in one group and over two | suite `rows_of_one_key_in_order` |
//! | changed key | suite `changed_keys`; worker `modes_from_the_log_to_the_target` |
//! | values of a unique key swapped by rows of one transaction of a source whose own key is deferred | suite `swapped_values` |
//! | unique swap; values of a second unique key given up, taken, refused | suite `second_unique_keys` |
//! | parent and child in one transaction, both orders; self-reference; circles; orphans; truncates of both | suite `foreign_keys` (keys checked at once and deferred); pg `constraints_hold_in_both_plans_…` |
//! | lanes: groups that meet, that do not, what write sets do not see | worker `lanes`; suite `lanes_side_by_side` |
//! | the same from a source on, under lanes | `tests/cycles.rs` (PostgreSQL) |
//! | keyless with equal rows; partial row, row missing; truncate between rows | suite `tables_without_a_key`, `partial_rows`, `truncate` |
//! | transaction above a group | suite `a_large_transaction_comes_in_parts` |
//! | every type with its limits | pg `every_type_goes_…`; sqlite `every_storage_class_…` |
//! | empty text against NULL, 1 MB text, identifiers of an injection | suite `values_and_names` |
//! | a NUL byte in a text; 1,600 columns | suite `a_byte_of_nothing`, `wide_tables` |
//! | DDL twice; DDL by policy | suite `ddl`; `evolve` |
//! | refused rows, dead letters, parked keys | suite `guarded_writes`; worker `refused`, `letters`; `tests/refused.rs` |
//! | poison rows by kind (too long, out of range, constraint, NULL, encoding, unique); key, column, table, right or disk of the target gone | `tests/bad_target.rs` (PostgreSQL) |
//! | columns left out, renamed, typed | `columns`; `tests/columns.rs` (PostgreSQL) |
//! | rebuild; a lag that grows while the target stands | worker `rebuild`, `lag`; `tests/rebuild.rs`, `tests/lag.rs` (PostgreSQL) |
//!
//! The cases on tables that a user made need a target that speaks SQL: they run on PostgreSQL and SQLite. Held by no test: a
//! connection that is lost at each statement of PostgreSQL; and, for no sink at hand has them, bulk replies with mixed items, throttling, Accepted without Durable.
//!
//! Each case uses a pipeline and tables of its own, so one target serves all of them, and the suite can run against a
//! target that holds other things.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::sink::*;
use crate::testing::table;
use catchwater_base::Wall;
use catchwater_change::{Cell, Column, Native, Row, TableSchema, Type, Value, Version};
use catchwater_record::{CommitSeq, Incarnation, Offset, TopicId, TopicPartition};
use catchwater_runtime::Fut;
use std::sync::Arc;

mod constraints;

/// What the suite needs of a target besides its sink.
pub trait Probe: Send {
    /// A sink of its own on the same target, not opened.
    fn sink(&mut self) -> Box<dyn Sink>;
    /// Where a table of the suite lives.
    fn name(&self, table: &str) -> TargetName;
    /// The committed rows of a table, each column as the target prints it (`None` = NULL; bytes as lower-case hex), sorted.
    fn rows<'a>(&'a mut self, table: &'a TargetName, columns: &'a [String]) -> Fut<'a, Vec<Vec<Option<String>>>>;
    /// Runs statements at the target beside the sink, all of them or none; `None` = it has no SQL, and the cases on tables that
    /// a user made are left out.
    fn sql<'a>(&'a mut self, statements: &'a str) -> Fut<'a, Option<Result<(), String>>> {
        let _ = statements;
        Box::pin(std::future::ready(None))
    }
}

/// Text that no error may repeat (C12).
const SECRET: &str = "s3cret-row-value";

const INT: Type = Type::Int { bits: 64, unsigned: false };
const TEXT: Type = Type::Text { length: 0 };

/// Runs all cases.
pub async fn run(probe: &mut dyn Probe) {
    let prefix = format!("cwc{}", std::process::id());
    position_is_what_the_target_holds(probe, &prefix).await;
    fences(probe, &prefix).await;
    zombies(probe, &prefix).await;
    lanes_side_by_side(probe, &prefix).await;
    rows_of_one_key_in_order(probe, &prefix).await;
    the_same_group_twice(probe, &prefix).await;
    abort_and_drop_leave_nothing(probe, &prefix).await;
    a_large_transaction_comes_in_parts(probe, &prefix).await;
    partial_rows(probe, &prefix).await;
    guarded_writes(probe, &prefix).await;
    rows_that_are_kept(probe, &prefix).await;
    fresh_rows(probe, &prefix).await;
    tables_without_a_key(probe, &prefix).await;
    truncate(probe, &prefix).await;
    ddl(probe, &prefix).await;
    columns_that_old_rows_lack(probe, &prefix).await;
    values_and_names(probe, &prefix).await;
    wide_tables(probe, &prefix).await;
    a_byte_of_nothing(probe, &prefix).await;
    constraints::second_unique_keys(probe, &prefix).await;
    constraints::swapped_values(probe, &prefix).await;
    constraints::changed_keys(probe, &prefix).await;
    constraints::foreign_keys(probe, &prefix).await;
    errors(probe, &prefix).await;
    two_sources_in_one_sink(probe, &prefix).await;
}

/// One case: a pipeline, a table of its own.
struct Case {
    pipeline: String,
    fence: i64,
    plan: Arc<TargetPlan>,
}

fn schema(name: &str, key: &[&str]) -> Arc<TableSchema> {
    table("", name, &[("id", INT), ("a", TEXT), ("b", TEXT)], key)
}

fn plan_of(source: Arc<TableSchema>, target: TargetName) -> Arc<TargetPlan> {
    let columns = source.columns.iter().enumerate().map(|(i, c)| (i as u16, c.name.clone())).collect();
    Arc::new(TargetPlan { key: source.key.clone(), columns, target, source, meets: Meets::default() })
}

impl Case {
    fn claim(&mut self) -> Claim {
        self.fence += 1;
        Claim {
            pipeline: self.pipeline.as_str().into(),
            sink: "sink".into(),
            source: "src".into(),
            cluster: [7; 16],
            fence: self.fence,
            incarnation: Incarnation(3),
        }
    }

    async fn new(probe: &mut dyn Probe, prefix: &str, what: &str, key: &[&str]) -> (Case, Box<dyn Sink>) {
        let name = format!("{prefix}_{what}");
        let source = schema(&name, key);
        let target = probe.name(&name);
        let mut case = Case { pipeline: name, fence: 100, plan: plan_of(source.clone(), target.clone()) };
        let mut sink = probe.sink();
        let claim = case.claim();
        let found = sink.open(claim).await.expect("C1: open of an empty target");
        assert_eq!(found.mark, None, "C1: nothing is held yet");
        sink.apply_ddl(&DdlStep::CreateTable { name: target, like: source, types: Types::new() })
            .await
            .expect("create");
        (case, sink)
    }

    fn group(&self, seq: u64, whats: Vec<What>, source_order: bool) -> Group {
        let applies = whats
            .into_iter()
            .enumerate()
            .map(|(i, what)| Apply {
                table: self.plan.clone(),
                what,
                version: Version { incarnation: Incarnation(3), commit_seq: CommitSeq(seq), ordinal: i as u64 },
            })
            .collect();
        Group { first_seq: CommitSeq(seq), last_seq: CommitSeq(seq), applies, source_order, ..Group::default() }
    }

    async fn rows(&self, probe: &mut dyn Probe) -> String {
        let columns: Vec<String> = self.plan.columns.iter().map(|(_, n)| n.clone()).collect();
        let rows = probe.rows(&self.plan.target, &columns).await;
        rows.iter()
            .map(|r| r.iter().map(|c| c.as_deref().unwrap_or("NULL")).collect::<Vec<_>>().join(","))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

fn mark(seq: u64) -> Mark {
    Mark {
        incarnation: Incarnation(3),
        seq: CommitSeq(seq),
        offsets: vec![
            (TopicPartition::new(TopicId([1; 16]), 0), Offset(seq * 10)),
            (TopicPartition::new(TopicId([2; 16]), 300), Offset(u64::from(u32::MAX) + seq)),
        ],
        native: Native::postgres(0x16b_3748 + seq),
        commit_time: Wall::from_micros(1_700_000_000_123_456),
    }
}

fn text(s: &str) -> Cell {
    Cell::Value(Value::Text(s.into()))
}
fn int(i: i64) -> Cell {
    Cell::Value(Value::Int(i))
}
fn row(id: i64, a: &str, b: &str) -> Row {
    Row::new(vec![int(id), text(a), text(b)])
}
fn up(id: i64, a: &str, b: &str) -> What {
    What::Upsert(row(id, a, b))
}
fn del(id: i64) -> What {
    What::Delete(Row::new(vec![int(id), Cell::Absent, Cell::Absent]))
}

async fn apply(lane: &mut Box<dyn Lane>, group: &Group, seq: u64) -> Result<(), SinkError> {
    lane.write(group).await?;
    assert_eq!(lane.commit(&mark(seq)).await?, Ack::Durable);
    Ok(())
}

async fn position_is_what_the_target_holds(probe: &mut dyn Probe, prefix: &str) {
    let (mut case, mut sink) = Case::new(probe, prefix, "position", &["id"]).await;
    let mut lane = sink.lane().await.expect("lane");
    apply(&mut lane, &case.group(5, vec![up(1, "x", "y")], false), 5).await.expect("first group");
    // A position alone, without rows.
    assert_eq!(lane.commit(&mark(9)).await.expect("position alone"), Ack::Durable);
    drop(lane);
    sink.shutdown().await;
    // C11: at once.
    let mut again = probe.sink();
    let found = again.open(case.claim()).await.expect("C11: open after shutdown");
    let mut want = mark(9);
    want.offsets.sort();
    let got = found.mark.map(|mut m| {
        m.offsets.sort();
        m
    });
    assert_eq!(got, Some(want), "C1: the whole mark comes back");
    assert_eq!(case.rows(probe).await, "1,x,y");
    // The same sink opens again after a lost connection.
    let found = again.open(case.claim()).await.expect("C1: open again");
    assert_eq!(found.mark.map(|m| m.seq), Some(CommitSeq(9)));
    let mut lane = again.lane().await.expect("lane after open again");
    apply(&mut lane, &case.group(10, vec![up(2, "x", "y")], false), 10).await.expect("group after open again");
    drop(lane);
    again.shutdown().await;
}

async fn fences(probe: &mut dyn Probe, prefix: &str) {
    let (mut case, mut sink) = Case::new(probe, prefix, "fences", &["id"]).await;
    let mut other = probe.sink();
    for fence in [case.fence, case.fence - 1] {
        let claim = Claim { fence, ..case.claim() };
        case.fence -= 1;
        let error = other.open(claim).await.expect_err("C2: an equal or lower fence must not win");
        assert_eq!(error.class, SinkClass::Fenced, "C2: {error}");
    }
    let foreign = Claim { cluster: [8; 16], fence: case.fence + 10, ..case.claim() };
    let error = other.open(foreign).await.expect_err("another cluster must not take over");
    assert_eq!(error.class, SinkClass::Config, "{error}");
    other.shutdown().await;
    let mut lane = sink.lane().await.expect("lane");
    apply(&mut lane, &case.group(1, vec![up(1, "x", "y")], false), 1).await.expect("the holder goes on");
    drop(lane);
    sink.shutdown().await;
}

async fn zombies(probe: &mut dyn Probe, prefix: &str) {
    // A lane opened before, writing after the take-over.
    let (mut case, mut old) = Case::new(probe, prefix, "zombie", &["id"]).await;
    let mut zombie = old.lane().await.expect("lane");
    let mut new = probe.sink();
    new.open(case.claim()).await.expect("take-over");
    let error = match zombie.write(&case.group(1, vec![up(66, "z", "z")], false)).await {
        Err(e) => e,
        Ok(()) => zombie.commit(&mark(1)).await.expect_err("C2: a zombie committed"),
    };
    assert_eq!(error.class, SinkClass::Fenced, "C2: {error}");
    zombie.abort().await;
    drop(zombie);
    old.shutdown().await;
    let mut lane = new.lane().await.expect("lane");
    apply(&mut lane, &case.group(1, vec![up(1, "x", "y")], false), 1).await.expect("the new owner works");
    assert_eq!(case.rows(probe).await, "1,x,y", "C2: nothing of the zombie is visible");

    // A lane inside an open transaction while another takes over: it is fenced, or it holds the newcomer up with a bound.
    lane.write(&case.group(2, vec![up(77, "z", "z")], false)).await.expect("write");
    let mut third = probe.sink();
    match third.open(case.claim()).await {
        Ok(found) => {
            assert_eq!(found.mark.map(|m| m.seq), Some(CommitSeq(1)));
            let error = lane.commit(&mark(2)).await.expect_err("C2: a zombie committed");
            assert_eq!(error.class, SinkClass::Fenced, "C2: {error}");
            lane.abort().await;
        }
        Err(error) => {
            assert_eq!(error.class, SinkClass::Environment, "C10: {error}");
            lane.abort().await;
            third.open(case.claim()).await.expect("open once the zombie is gone");
        }
    }
    assert_eq!(case.rows(probe).await, "1,x,y", "C2: nothing of the zombie is visible");
    drop(lane);
    new.shutdown().await;
    third.shutdown().await;
}

async fn lanes_side_by_side(probe: &mut dyn Probe, prefix: &str) {
    let (mut case, mut sink) = Case::new(probe, prefix, "lanes", &["id"]).await;
    if sink.capabilities().lanes_max < 2 {
        sink.shutdown().await;
        return;
    }
    let (mut a, mut b) = (sink.lane().await.expect("lane"), sink.lane().await.expect("a second lane"));
    // The later group is written first, and waits.
    b.write(&case.group(2, vec![up(2, "second", "y")], false)).await.expect("write beside");
    a.write(&case.group(1, vec![up(1, "first", "y")], false)).await.expect("write");
    assert_eq!(case.rows(probe).await, "", "nothing is visible before its turn");
    a.commit(&mark(1)).await.expect("the first turn");
    assert_eq!(case.rows(probe).await, "1,first,y", "a turn shows its own group alone");
    b.commit(&mark(2)).await.expect("the second turn");
    assert_eq!(case.rows(probe).await, "1,first,y 2,second,y");
    // Lanes change places, and one that is rolled back takes nothing of the other with it.
    b.write(&case.group(3, vec![up(1, "third", "y")], false)).await.expect("write");
    a.write(&case.group(4, vec![up(2, "fourth", "y")], false)).await.expect("write beside");
    a.abort().await;
    b.commit(&mark(3)).await.expect("the turn of the other");
    assert_eq!(case.rows(probe).await, "1,third,y 2,second,y", "C7");
    // A take-over fences every lane, and tells the last turn.
    let mut new = probe.sink();
    let found = new.open(case.claim()).await.expect("take-over");
    assert_eq!(found.mark.map(|m| m.seq), Some(CommitSeq(3)), "C1");
    for lane in [&mut a, &mut b] {
        let error = match lane.write(&case.group(4, vec![up(9, "z", "z")], false)).await {
            Err(e) => e,
            Ok(()) => lane.commit(&mark(4)).await.expect_err("C2: a lane of before committed"),
        };
        assert_eq!(error.class, SinkClass::Fenced, "C2: {error}");
        lane.abort().await;
    }
    assert_eq!(case.rows(probe).await, "1,third,y 2,second,y", "C2");
    drop((a, b));
    sink.shutdown().await;
    new.shutdown().await;
}

async fn rows_of_one_key_in_order(probe: &mut dyn Probe, prefix: &str) {
    let (case, mut sink) = Case::new(probe, prefix, "order", &["id"]).await;
    let mut lane = sink.lane().await.expect("lane");
    let whats = vec![up(1, "a", "b"), up(1, "c", "d"), del(1), up(2, "e", "f"), del(2), up(2, "g", "h")];
    apply(&mut lane, &case.group(1, whats, true), 1).await.expect("source order");
    assert_eq!(case.rows(probe).await, "2,g,h", "C5");
    apply(&mut lane, &case.group(2, vec![del(2), up(3, "i", "j")], false), 2).await.expect("folded");
    apply(&mut lane, &case.group(3, vec![up(2, "k", "l"), del(4)], false), 3).await.expect("delete of nothing");
    assert_eq!(case.rows(probe).await, "2,k,l 3,i,j", "C5 over groups");
    let many: Vec<What> = (10..1510).map(|i| up(i, "m", &i.to_string())).collect();
    apply(&mut lane, &case.group(4, many, false), 4).await.expect("many rows");
    let gone: Vec<What> = (10..1509).map(del).collect();
    apply(&mut lane, &case.group(5, gone, false), 5).await.expect("many deletes");
    assert_eq!(case.rows(probe).await, "1509,m,1509 2,k,l 3,i,j");
    drop(lane);
    sink.shutdown().await;
}

async fn the_same_group_twice(probe: &mut dyn Probe, prefix: &str) {
    let (mut case, mut sink) = Case::new(probe, prefix, "twice", &["id"]).await;
    for _ in 0..2 {
        let mut lane = sink.lane().await.expect("lane");
        let group = case.group(1, vec![up(1, "a", "b"), up(2, "c", "d"), del(3)], false);
        apply(&mut lane, &group, 1).await.expect("C4: the same group");
        drop(lane);
        sink.open(case.claim()).await.expect("open again");
    }
    assert_eq!(case.rows(probe).await, "1,a,b 2,c,d", "C4");
    sink.shutdown().await;
}

async fn abort_and_drop_leave_nothing(probe: &mut dyn Probe, prefix: &str) {
    let (mut case, mut sink) = Case::new(probe, prefix, "abort", &["id"]).await;
    let mut lane = sink.lane().await.expect("lane");
    lane.write(&case.group(1, vec![up(1, "a", "b")], false)).await.expect("write");
    lane.abort().await;
    assert_eq!(case.rows(probe).await, "", "C7: abort");
    apply(&mut lane, &case.group(1, vec![up(2, "c", "d")], false), 1).await.expect("the lane works after an abort");
    lane.write(&case.group(2, vec![up(3, "e", "f")], false)).await.expect("write");
    drop(lane);
    sink.shutdown().await;
    let found = sink.open(case.claim()).await.expect("C11: open after a dropped lane");
    assert_eq!(found.mark.map(|m| m.seq), Some(CommitSeq(1)));
    assert_eq!(case.rows(probe).await, "2,c,d", "C7: drop");
    sink.shutdown().await;
}

async fn a_large_transaction_comes_in_parts(probe: &mut dyn Probe, prefix: &str) {
    let (case, mut sink) = Case::new(probe, prefix, "large", &["id"]).await;
    let mut lane = sink.lane().await.expect("lane");
    for part in 0..3 {
        let whats = (0..100).map(|i| up(part * 50 + i, "p", &part.to_string())).collect();
        lane.write(&case.group(1, whats, false)).await.expect("part");
    }
    assert_eq!(case.rows(probe).await, "", "nothing is visible before the commit");
    lane.commit(&mark(1)).await.expect("commit");
    let rows = case.rows(probe).await;
    assert_eq!(rows.split(' ').count(), 200);
    assert!(rows.contains("75,p,1") && rows.contains("120,p,2"), "C5: later parts win");
    drop(lane);
    sink.shutdown().await;
}

async fn partial_rows(probe: &mut dyn Probe, prefix: &str) {
    let (case, mut sink) = Case::new(probe, prefix, "partial", &["id"]).await;
    let mut lane = sink.lane().await.expect("lane");
    apply(&mut lane, &case.group(1, vec![up(1, "a", "b"), up(2, "a", "b")], false), 1).await.expect("rows");
    let set = |id, a: Cell, b: Cell| What::Update(Row::new(vec![int(id), a, b]));
    let whats = vec![
        set(1, text("x"), Cell::Unavailable),
        set(2, Cell::Null, Cell::Unavailable),
        set(2, Cell::Unavailable, text("y")),
    ];
    apply(&mut lane, &case.group(2, whats, true), 2).await.expect("partial rows");
    assert_eq!(case.rows(probe).await, "1,x,b 2,NULL,y", "cells that were not sent stay");
    let error = match lane.write(&case.group(3, vec![set(9, text(SECRET), Cell::Unavailable)], false)).await {
        Err(e) => e,
        Ok(()) => lane.commit(&mark(3)).await.expect_err("an update of a missing row must not be lost"),
    };
    assert_eq!(error.class, SinkClass::Row, "{error}");
    assert!(!format!("{error:?}").contains(SECRET), "C12: {error}");
    lane.abort().await;
    drop(lane);
    sink.shutdown().await;
}

async fn guarded_writes(probe: &mut dyn Probe, prefix: &str) {
    let (case, mut sink) = Case::new(probe, prefix, "guarded", &["id"]).await;
    let mut lane = sink.lane().await.expect("lane");
    let guarded = |whats| Group { guarded: true, ..case.group(1, whats, true) };
    let missing = What::Update(Row::new(vec![int(99), text("x"), Cell::Unavailable]));
    lane.write(&guarded(vec![up(1, "a", "b")])).await.expect("a guarded write");
    for part in [vec![up(2, "a", "b"), missing.clone()], vec![missing.clone()]] {
        let refused = lane.write(&guarded(part)).await.expect_err("C6: a row that fails");
        assert_eq!(refused.class, SinkClass::Row, "C6: {refused}");
    }
    lane.write(&guarded(vec![up(3, "a", "b"), del(1), up(1, "c", "d")])).await.expect("C6: the transaction goes on");
    assert_eq!(case.rows(probe).await, "", "C7: nothing is visible before the commit");
    lane.commit(&mark(1)).await.expect("C6: and commits");
    assert_eq!(case.rows(probe).await, "1,c,d 3,a,b", "C6: what was refused left nothing, all else stands");
    // The next group is an ordinary one.
    apply(&mut lane, &case.group(2, vec![up(2, "e", "f")], false), 2).await.expect("after a guarded group");
    assert_eq!(case.rows(probe).await, "1,c,d 2,e,f 3,a,b");
    drop(lane);
    sink.shutdown().await;
}

async fn rows_that_are_kept(probe: &mut dyn Probe, prefix: &str) {
    let (case, mut sink) = Case::new(probe, prefix, "kept", &["id"]).await;
    let mut lane = sink.lane().await.expect("lane");
    for source_order in [false, true] {
        let (seq, id) = if source_order { (10, 10) } else { (1, 0) };
        let new = |n: i64, a| What::InsertNew(row(id + n, a, "b"));
        apply(&mut lane, &case.group(seq, vec![new(1, "first"), new(2, "first")], source_order), seq)
            .await
            .expect("new");
        let again = vec![new(1, "second"), new(3, "first")];
        apply(&mut lane, &case.group(seq + 1, again, source_order), seq + 1).await.expect("a key that is there");
        let gone = |n: i64| What::Retire(Row::new(vec![int(id + n), Cell::Unavailable, text("gone")]));
        apply(&mut lane, &case.group(seq + 2, vec![gone(2), gone(9)], source_order), seq + 2)
            .await
            .expect("a row that is not there needs no end");
    }
    let rows = case.rows(probe).await;
    assert_eq!(rows, "1,first,b 11,first,b 12,first,gone 13,first,b 2,first,gone 3,first,b");
    let some = vec![What::Upsert(Row::new(vec![int(1), text("x"), Cell::Null]))];
    apply(&mut lane, &case.group(20, some, false), 20).await.expect("a NULL");
    let all = vec![What::RetireAll(Row::new(vec![Cell::Unavailable, Cell::Unavailable, text("all")]))];
    apply(&mut lane, &case.group(21, all, true), 21).await.expect("all that live");
    let rows = case.rows(probe).await;
    assert_eq!(rows, "1,x,all 11,first,b 12,first,gone 13,first,b 2,first,gone 3,first,b", "only what was NULL");
    drop(lane);
    sink.shutdown().await;
}

async fn fresh_rows(probe: &mut dyn Probe, prefix: &str) {
    let (case, mut sink) = Case::new(probe, prefix, "fresh", &["id"]).await;
    let mut lane = sink.lane().await.expect("lane");
    let fresh = |seq, whats| Group { fresh: true, ..case.group(seq, whats, false) };
    let odd = What::Upsert(Row::new(vec![int(2), text("tab\t\\N\nline"), Cell::Null]));
    lane.write(&fresh(1, vec![up(1, "a", "b"), odd])).await.expect("rows of a snapshot");
    // The same table again inside the transaction, with a row that is there: a hint, not a promise.
    lane.write(&fresh(2, vec![up(3, "", "\\."), up(1, "c", "d")])).await.expect("one of them was there");
    lane.commit(&mark(2)).await.expect("commit");
    assert_eq!(case.rows(probe).await, "1,c,d 2,tab\t\\N\nline,NULL 3,,\\.");
    lane.write(&fresh(3, vec![up(4, "a", "b"), up(1, "e", "f")])).await.expect("and in the next transaction");
    lane.commit(&mark(3)).await.expect("commit");
    assert_eq!(case.rows(probe).await, "1,e,f 2,tab\t\\N\nline,NULL 3,,\\. 4,a,b");
    drop(lane);
    sink.shutdown().await;
}

async fn tables_without_a_key(probe: &mut dyn Probe, prefix: &str) {
    let (case, mut sink) = Case::new(probe, prefix, "keyless", &[]).await;
    let mut lane = sink.lane().await.expect("lane");
    let with_null = Row::new(vec![int(2), Cell::Null, text("n")]);
    let whats = vec![
        What::Insert(row(1, "a", "b")),
        What::Insert(row(1, "a", "b")),
        What::Insert(row(1, "a", "b")),
        What::Insert(with_null.clone()),
    ];
    apply(&mut lane, &case.group(1, whats, true), 1).await.expect("inserts");
    let whats = vec![What::DeleteOne(row(1, "a", "b")), What::DeleteOne(with_null)];
    apply(&mut lane, &case.group(2, whats, true), 2).await.expect("deletes");
    assert_eq!(case.rows(probe).await, "1,a,b 1,a,b", "equal rows keep their number");
    drop(lane);
    sink.shutdown().await;
}

async fn truncate(probe: &mut dyn Probe, prefix: &str) {
    let (case, mut sink) = Case::new(probe, prefix, "truncate", &["id"]).await;
    if !sink.capabilities().truncate {
        sink.shutdown().await;
        return;
    }
    let mut lane = sink.lane().await.expect("lane");
    apply(&mut lane, &case.group(1, vec![up(1, "a", "b"), up(2, "a", "b")], false), 1).await.expect("rows");
    apply(&mut lane, &case.group(2, vec![up(3, "a", "b"), What::Truncate, up(4, "c", "d")], true), 2)
        .await
        .expect("truncate between rows");
    assert_eq!(case.rows(probe).await, "4,c,d");
    drop(lane);
    sink.shutdown().await;
}

async fn ddl(probe: &mut dyn Probe, prefix: &str) {
    let (case, mut sink) = Case::new(probe, prefix, "ddl", &["id"]).await;
    let target = case.plan.target.clone();
    let create = DdlStep::CreateTable { name: target.clone(), like: case.plan.source.clone(), types: Types::new() };
    sink.apply_ddl(&create).await.expect("C9: create twice");
    let missing = probe.name(&format!("{prefix}_nowhere"));
    let found = sink.describe(&[target.clone(), missing]).await.expect("describe");
    assert_eq!(found.len(), 2);
    assert_eq!(found[1], None);
    let table = found[0].as_ref().expect("the table is there");
    assert_eq!(table.key, ["id"]);
    assert_eq!(table.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["id", "a", "b"]);
    assert_eq!(table.columns[1].nullable, Some(true));
    let extra = Column { name: "c".into(), nullable: Some(true), ..case.plan.source.columns[1].clone() };
    let add = DdlStep::AddColumns { name: target.clone(), columns: vec![extra], types: Types::new() };
    for _ in 0..2 {
        sink.apply_ddl(&add).await.expect("C9: add twice");
        let found = sink.describe(std::slice::from_ref(&target)).await.expect("describe");
        assert_eq!(found[0].as_ref().map(|t| t.columns.len()), Some(4));
    }
    // A NOT NULL column that the source gave up.
    let strict = format!("{prefix}_strict");
    let mut like = schema(&strict, &["id"]);
    Arc::make_mut(&mut like).columns[1].nullable = Some(false);
    let name = probe.name(&strict);
    sink.apply_ddl(&DdlStep::CreateTable { name: name.clone(), like, types: Types::new() }).await.expect("create");
    for _ in 0..2 {
        sink.apply_ddl(&DdlStep::DropNotNull { name: name.clone(), column: "a".into() })
            .await
            .expect("C9: relax twice");
        let found = sink.describe(std::slice::from_ref(&name)).await.expect("describe");
        let table = found[0].as_ref().expect("there");
        assert_eq!(table.columns[1].nullable, Some(true), "the column takes NULL now");
        assert_eq!(table.key, ["id"], "the key stays");
    }
    sink.shutdown().await;
}

/// What rows of before a column have in it, in a table that is made with it and in one that gets it.
async fn columns_that_old_rows_lack(probe: &mut dyn Probe, prefix: &str) {
    let (case, mut sink) = Case::new(probe, prefix, "old", &["id"]).await;
    let grown = format!("{prefix}_grown");
    let mut like = table("", &grown, &[("id", INT), ("n", INT), ("t", TEXT)], &["id"]);
    let columns = &mut Arc::make_mut(&mut like).columns;
    (columns[1].missing, columns[2].missing) = (Some("7".into()), Some("it's".into()));
    let name = probe.name(&grown);
    sink.apply_ddl(&DdlStep::CreateTable { name: name.clone(), like: like.clone(), types: Types::new() })
        .await
        .expect("create");
    let mut more = Column { name: "m".into(), ..like.columns[1].clone() };
    more.nullable = Some(true);
    sink.apply_ddl(&DdlStep::AddColumns { name: name.clone(), columns: vec![more], types: Types::new() })
        .await
        .expect("add");
    let plan = plan_of(table("", &grown, &[("id", INT)], &["id"]), name.clone());
    let of = Case { pipeline: case.pipeline.clone(), fence: case.fence, plan };
    let mut lane = sink.lane().await.expect("lane");
    apply(&mut lane, &of.group(1, vec![What::Upsert(Row::new(vec![int(1)]))], false), 1).await.expect("an old row");
    drop(lane);
    if probe.sql("SELECT 1").await.is_some() {
        let rows = probe.rows(&name, &["id".into(), "n".into(), "t".into(), "m".into()]).await;
        let want = ["1", "7", "it's", "7"].map(|v| Some(v.to_owned()));
        assert_eq!(rows, [want], "of an old row");
    }
    sink.shutdown().await;
}

async fn values_and_names(probe: &mut dyn Probe, prefix: &str) {
    let (_, mut sink) = Case::new(probe, prefix, "values", &["id"]).await;
    let odd = format!("{prefix} \"od'd\"; DROP TABLE x; --");
    let kinds =
        [("id", INT), ("select", TEXT), ("q\"uo'te`", TEXT), ("Ünï 字", Type::Bytes), ("f", Type::Float { bits: 64 })];
    let source = table("", &odd, &kinds, &["id"]);
    let target = probe.name(&odd);
    sink.apply_ddl(&DdlStep::CreateTable { name: target.clone(), like: source.clone(), types: Types::new() })
        .await
        .expect("odd names");
    let plan = plan_of(source, target);
    let case = Case { pipeline: format!("{prefix}_values"), fence: 101, plan };
    let mut lane = sink.lane().await.expect("lane");
    let whats = vec![
        What::Upsert(Row::new(vec![int(i64::MIN), text(""), Cell::Null, Cell::Null, Cell::Null])),
        What::Upsert(Row::new(vec![
            int(i64::MAX),
            text("'; DROP TABLE x; -- \\ \" $1 ?1"),
            text("snow ☃ 字\n\t{}"),
            Cell::Value(Value::Bytes(vec![0, 1, 254, 255].into())),
            Cell::Value(Value::Float64(0.1)),
        ])),
        What::Upsert(Row::new(vec![
            int(0),
            text(&"x".repeat(1 << 20)),
            text("NULL"),
            Cell::Value(Value::Bytes(vec![].into())),
            Cell::Value(Value::Float64(-1.5e300)),
        ])),
    ];
    apply(&mut lane, &case.group(1, whats, false), 1).await.expect("values");
    let columns: Vec<String> = case.plan.columns.iter().map(|(_, n)| n.clone()).collect();
    let rows = probe.rows(&case.plan.target, &columns).await;
    let find = |id: i64| rows.iter().find(|r| r[0] == Some(id.to_string())).expect("row").clone();
    assert_eq!(find(i64::MIN)[1..], [Some(String::new()), None, None, None], "empty text is not NULL");
    let got = find(i64::MAX);
    assert_eq!(got[1].as_deref(), Some("'; DROP TABLE x; -- \\ \" $1 ?1"));
    assert_eq!(got[2].as_deref(), Some("snow ☃ 字\n\t{}"));
    assert_eq!(got[3].as_deref(), Some("0001feff"));
    assert_eq!(got[4].as_deref().and_then(|f| f.parse::<f64>().ok()), Some(0.1));
    let got = find(0);
    assert_eq!(got[1].as_ref().map(String::len), Some(1 << 20));
    assert_eq!(got[2].as_deref(), Some("NULL"));
    assert_eq!(got[3].as_deref(), Some(""));
    assert_eq!(got[4].as_deref().and_then(|f| f.parse::<f64>().ok()), Some(-1.5e300));
    drop(lane);
    sink.shutdown().await;
}

/// The most columns that a table of PostgreSQL has.
const WIDE: usize = 1600;

async fn wide_tables(probe: &mut dyn Probe, prefix: &str) {
    let (_, mut sink) = Case::new(probe, prefix, "wide", &["id"]).await;
    let name = format!("{prefix}_wide_table");
    let columns: Vec<String> = (1..WIDE).map(|i| format!("c{i}")).collect();
    let kinds: Vec<(&str, Type)> =
        std::iter::once(("id", INT)).chain(columns.iter().map(|c| (c.as_str(), TEXT))).collect();
    let (source, target) = (table("", &name, &kinds, &["id"]), probe.name(&name));
    sink.apply_ddl(&DdlStep::CreateTable { name: target.clone(), like: source.clone(), types: Types::new() })
        .await
        .expect("a wide table");
    let found = sink.describe(std::slice::from_ref(&target)).await.expect("describe");
    assert_eq!(found[0].as_ref().map(|t| t.columns.len()), Some(WIDE));
    let case = Case { pipeline: format!("{prefix}_wide"), fence: 101, plan: plan_of(source, target) };
    let mut lane = sink.lane().await.expect("lane");
    let wide = |id: i64, first: Cell, rest: &str| {
        let rest = (2..WIDE).map(|i| if i % 2 == 0 { text(rest) } else { Cell::Null });
        Row::new([int(id), first].into_iter().chain(rest).collect())
    };
    for source_order in [false, true] {
        let seq = u64::from(source_order) * 3;
        let whats = vec![What::Upsert(wide(1, text("a"), "x")), What::Upsert(wide(2, text("b"), "x"))];
        apply(&mut lane, &case.group(seq + 1, whats, source_order), seq + 1).await.expect("wide rows");
        let whats = vec![What::Update(wide(1, Cell::Unavailable, "y")), What::Upsert(wide(2, text("c"), "y"))];
        apply(&mut lane, &case.group(seq + 2, whats, source_order), seq + 2).await.expect("wide updates");
        let rows =
            probe.rows(&case.plan.target, &["id".into(), "c1".into(), "c2".into(), format!("c{}", WIDE - 1)]).await;
        let rows: Vec<Vec<&str>> =
            rows.iter().map(|r| r.iter().map(|c| c.as_deref().unwrap_or("NULL")).collect()).collect();
        assert_eq!(rows, [["1", "a", "y", "NULL"], ["2", "c", "y", "NULL"]]);
        let gone = What::Delete(Row::new([int(1)].into_iter().chain((1..WIDE).map(|_| Cell::Absent)).collect()));
        apply(&mut lane, &case.group(seq + 3, vec![gone], source_order), seq + 3).await.expect("a wide delete");
    }
    drop(lane);
    sink.shutdown().await;
}

/// A text with a zero byte is stored as it is, or refused as a row: never cut.
async fn a_byte_of_nothing(probe: &mut dyn Probe, prefix: &str) {
    let (case, mut sink) = Case::new(probe, prefix, "nul", &["id"]).await;
    let mut lane = sink.lane().await.expect("lane");
    for (seq, source_order) in [(1, false), (2, true)] {
        match lane.write(&case.group(seq, vec![up(1, "a\0b", SECRET)], source_order)).await {
            Ok(()) => {
                lane.commit(&mark(seq)).await.expect("commit");
                assert_eq!(case.rows(probe).await, format!("1,a\0b,{SECRET}"));
            }
            Err(e) => {
                assert_eq!(e.class, SinkClass::Row, "{e}");
                assert!(!format!("{e:?}").contains(SECRET), "C12: {e}");
                lane.abort().await;
                assert_eq!(case.rows(probe).await, "");
            }
        }
    }
    drop(lane);
    sink.shutdown().await;
}

async fn errors(probe: &mut dyn Probe, prefix: &str) {
    let (case, mut sink) = Case::new(probe, prefix, "errors", &["id"]).await;
    let mut lane = sink.lane().await.expect("lane");
    let lost = plan_of(case.plan.source.clone(), probe.name(&format!("{prefix}_missing")));
    let lost = Case { pipeline: case.pipeline.clone(), fence: case.fence, plan: lost };
    let error = match lane.write(&lost.group(1, vec![up(1, SECRET, "x")], false)).await {
        Err(e) => e,
        Ok(()) => lane.commit(&mark(1)).await.expect_err("the table is missing"),
    };
    assert_eq!(error.class, SinkClass::Schema, "C10: {error}");
    assert!(!format!("{error:?}").contains(SECRET), "C12: {error}");
    lane.abort().await;
    apply(&mut lane, &case.group(1, vec![up(1, "a", "b")], false), 1).await.expect("the lane works after an error");
    assert_eq!(case.rows(probe).await, "1,a,b");
    drop(lane);
    sink.shutdown().await;
}

async fn two_sources_in_one_sink(probe: &mut dyn Probe, prefix: &str) {
    let (mut case, mut sink) = Case::new(probe, prefix, "sources", &["id"]).await;
    let mut lane = sink.lane().await.expect("lane");
    apply(&mut lane, &case.group(7, vec![up(1, "a", "b")], false), 7).await.expect("first source");
    let mut other = probe.sink();
    let claim = Claim { source: "other".into(), ..case.claim() };
    assert_eq!(other.open(claim).await.expect("second source").mark, None, "one position per source");
    apply(&mut lane, &case.group(8, vec![up(2, "a", "b")], false), 8).await.expect("the first source is not fenced");
    drop(lane);
    sink.shutdown().await;
    other.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MemoryTarget;

    struct Memory(MemoryTarget);

    impl Probe for Memory {
        fn sink(&mut self) -> Box<dyn Sink> {
            Box::new(self.0.sink())
        }
        fn name(&self, table: &str) -> TargetName {
            TargetName { schema: String::new(), name: table.into() }
        }
        fn rows<'a>(&'a mut self, table: &'a TargetName, columns: &'a [String]) -> Fut<'a, Vec<Vec<Option<String>>>> {
            let table = self.0.table(table);
            let mut out: Vec<Vec<Option<String>>> = table
                .rows
                .values()
                .chain(&table.bag)
                .map(|r| {
                    columns
                        .iter()
                        .map(|c| match r.get(c) {
                            Some(Cell::Value(Value::Int(i))) => Some(i.to_string()),
                            Some(Cell::Value(Value::Text(t))) => Some(t.to_string()),
                            Some(Cell::Value(Value::Float64(f))) => Some(f.to_string()),
                            Some(Cell::Value(Value::Bytes(b))) => Some(b.iter().map(|b| format!("{b:02x}")).collect()),
                            _ => None,
                        })
                        .collect()
                })
                .collect();
            out.sort();
            Box::pin(std::future::ready(out))
        }
    }

    #[tokio::test]
    async fn the_memory_sink_passes() {
        run(&mut Memory(MemoryTarget::new())).await;
    }
}
