//! Cases on tables that a user made: second unique keys, foreign keys, keys that change. Only of targets that speak SQL.

use super::*;

/// Tables made by a user's SQL, in which `{0}`, `{1}` … stand for their quoted names; the first of `sql` that the target
/// takes. `None` = it speaks no SQL.
async fn owned(probe: &mut dyn Probe, what: &str, tables: &[Arc<TableSchema>], sql: &[&str]) -> Option<Owned> {
    let names: Vec<TargetName> = tables.iter().map(|t| probe.name(&t.name)).collect();
    let quoted = |n: &str| format!("\"{}\"", n.replace('"', "\"\""));
    let mut why = Vec::new();
    for text in sql {
        let mut text = (*text).to_owned();
        for (i, name) in names.iter().enumerate() {
            let schema = if name.schema.is_empty() { String::new() } else { format!("{}.", quoted(&name.schema)) };
            text = text.replace(&format!("{{{i}}}"), &format!("{schema}{}", quoted(&name.name)));
        }
        match probe.sql(&text).await? {
            Ok(()) => {
                why.clear();
                break;
            }
            Err(e) => why.push(e),
        }
    }
    assert!(why.is_empty(), "tables of a user: {why:?}");
    let plans = tables.iter().zip(names).map(|(t, name)| plan_of(t.clone(), name)).collect();
    let mut owned = Owned { pipeline: what.to_owned(), fence: 100, plans, sink: probe.sink() };
    owned.open().await;
    Some(owned)
}

struct Owned {
    pipeline: String,
    fence: i64,
    plans: Vec<Arc<TargetPlan>>,
    sink: Box<dyn Sink>,
}

impl Owned {
    /// What the target holds, as a new owner hears it.
    async fn open(&mut self) -> Option<u64> {
        self.fence += 1;
        let claim = Claim {
            pipeline: self.pipeline.as_str().into(),
            sink: "sink".into(),
            source: "src".into(),
            cluster: [7; 16],
            fence: self.fence,
            incarnation: Incarnation(3),
        };
        self.sink.open(claim).await.expect("open").mark.map(|m| m.seq.0)
    }

    fn group(&self, seq: u64, whats: &[(usize, What)], source_order: bool) -> Group {
        let version = |i| Version { incarnation: Incarnation(3), commit_seq: CommitSeq(seq), ordinal: i };
        let applies = whats
            .iter()
            .zip(0..)
            .map(|((table, what), i)| Apply {
                table: self.plans[*table].clone(),
                what: what.clone(),
                version: version(i),
            })
            .collect();
        Group { first_seq: CommitSeq(seq), last_seq: CommitSeq(seq), applies, source_order, ..Group::default() }
    }

    /// As the worker does it: folded, and as the source did it when a row is refused.
    async fn apply(&mut self, lane: &mut Box<dyn Lane>, seq: u64, folded: &[(usize, What)], whole: &[(usize, What)]) {
        let first = match lane.write(&self.group(seq, folded, false)).await {
            Ok(()) => lane.commit(&mark(seq)).await.map(|_| ()),
            Err(e) => Err(e),
        };
        if let Err(e) = first {
            assert_eq!(e.class, SinkClass::Row, "{e}");
            lane.abort().await;
            lane.write(&self.group(seq, whole, true)).await.expect("in the order of the source");
            assert_eq!(lane.commit(&mark(seq)).await.expect("commit"), Ack::Durable);
        }
    }

    async fn rows(&self, probe: &mut dyn Probe, table: usize) -> String {
        let plan = &self.plans[table];
        let columns: Vec<String> = plan.columns.iter().map(|(_, n)| n.clone()).collect();
        let rows = probe.rows(&plan.target, &columns).await;
        let line =
            |r: &Vec<Option<String>>| r.iter().map(|c| c.as_deref().unwrap_or("NULL")).collect::<Vec<_>>().join(",");
        rows.iter().map(line).collect::<Vec<_>>().join(" ")
    }
}

/// Both forms of one list.
async fn both(owned: &mut Owned, lane: &mut Box<dyn Lane>, seq: u64, whats: &[(usize, What)]) {
    owned.apply(lane, seq, whats, whats).await;
}

pub(super) async fn second_unique_keys(probe: &mut dyn Probe, prefix: &str) {
    let name = format!("{prefix}_unique");
    let sql = "CREATE TABLE {0} (id bigint PRIMARY KEY, a text UNIQUE, b text)";
    let Some(mut owned) = owned(probe, &name, &[schema(&name, &["id"])], &[sql]).await else { return };
    let mut lane = owned.sink.lane().await.expect("lane");
    let set = |id, a: &str| (0, up(id, a, "b"));
    both(
        &mut owned,
        &mut lane,
        1,
        &[set(1, "x"), set(2, "y"), (0, What::Upsert(Row::new(vec![int(5), Cell::Null, Cell::Null])))],
    )
    .await;
    // NULL is not equal to NULL.
    both(&mut owned, &mut lane, 2, &[(0, What::Upsert(Row::new(vec![int(6), Cell::Null, Cell::Null])))]).await;
    // Two rows swap a value over a third one: folded, the way there is gone.
    let swap = [set(1, "free"), set(2, "x"), set(1, "y")];
    owned.apply(&mut lane, 3, &[set(1, "y"), set(2, "x")], &swap).await;
    assert_eq!(owned.rows(probe, 0).await, "1,y,b 2,x,b 5,NULL,NULL 6,NULL,NULL", "unique swap");
    // A value that a delete gives up and an insert takes, and one that moves with its row to another key.
    both(&mut owned, &mut lane, 4, &[(0, del(1)), set(3, "y")]).await;
    both(&mut owned, &mut lane, 5, &[(0, del(3)), set(4, "y")]).await;
    assert_eq!(owned.rows(probe, 0).await, "2,x,b 4,y,b 5,NULL,NULL 6,NULL,NULL", "given up and taken");
    // One that another row holds is refused, and never written over it.
    let taken = [(0, up(9, "x", SECRET))];
    for source_order in [false, true] {
        let mut group = owned.group(6, &taken, source_order);
        let e = lane.write(&group).await.expect_err("the value is taken");
        assert_eq!(e.class, SinkClass::Row, "{e}");
        assert!(!format!("{e:?}").contains(SECRET), "C12: {e}");
        lane.abort().await;
        group.guarded = true;
        lane.write(&group).await.expect_err("C6");
        let good = Group { guarded: true, ..owned.group(6, &[set(10, "z")], true) };
        lane.write(&good).await.expect("C6: the transaction goes on");
        lane.abort().await;
    }
    assert_eq!(owned.rows(probe, 0).await, "2,x,b 4,y,b 5,NULL,NULL 6,NULL,NULL");
    drop(lane);
    owned.sink.shutdown().await;
}

/// `p (id, a NOT NULL UNIQUE, b UNIQUE)`, `c (id, a → p (a), b → p (b))`. The source checks its unique keys at its commit.
pub(super) async fn swapped_values(probe: &mut dyn Probe, prefix: &str) {
    let names = [format!("{prefix}_sp"), format!("{prefix}_sc")];
    let ints = |name: &String| table("", name, &[("id", INT), ("a", INT), ("b", INT)], &["id"]);
    let sql = "CREATE TABLE {0} (id bigint PRIMARY KEY, a bigint NOT NULL UNIQUE CHECK (a > 0), b bigint UNIQUE); \
         CREATE TABLE {1} (id bigint PRIMARY KEY, a bigint REFERENCES {0}(a), b bigint REFERENCES {0}(b))";
    let Some(mut owned) = owned(probe, &names[0], &[ints(&names[0]), ints(&names[1])], &[sql]).await else { return };
    let mut lane = owned.sink.lane().await.expect("lane");
    let row = |t: usize, id, a, b| (t, What::Upsert(Row::new(vec![int(id), int(a), int(b)])));
    let part = |id, a| (0, What::Update(Row::new(vec![int(id), int(a), Cell::Unavailable])));
    let p = |id, a, b| row(0, id, a, b);
    let mut seq = 1;
    let rows = [p(1, 10, 100), p(2, 20, 200), p(3, 30, 300), row(1, 1, 10, 100), row(1, 2, 20, 300)];
    both(&mut owned, &mut lane, seq, &rows).await;
    let back = [p(1, 10, 100), p(2, 20, 200), p(3, 30, 300)];
    for source_order in [false, true] {
        for (whats, want) in [
            (&[p(1, 20, 100), p(2, 10, 200)][..], "1,20,100 2,10,200 3,30,300"),
            (&[p(1, 20, 200), p(2, 10, 100)], "1,20,200 2,10,100 3,30,300"),
            (&[p(1, 20, 200), p(2, 30, 300), p(3, 10, 100)], "1,20,200 2,30,300 3,10,100"),
            // Values that were not sent stay.
            (&[part(1, 20), part(2, 10)], "1,20,100 2,10,200 3,30,300"),
            // There and back and there; a new row takes what another gives up behind it.
            (
                &[p(1, 20, 100), p(2, 10, 200), p(1, 10, 100), p(2, 20, 200), p(1, 20, 100), p(2, 10, 200)],
                "1,20,100 2,10,200 3,30,300",
            ),
            (&[p(4, 30, 300), p(3, 31, 301)], "1,10,100 2,20,200 3,31,301 4,30,300"),
            (&[p(1, 30, 300), (0, del(3)), p(3, 10, 100)], "1,30,300 2,20,200 3,10,100"),
        ] {
            if !source_order && whats.len() == 6 {
                continue; // a folded group has each key once
            }
            seq += 1;
            lane.write(&owned.group(seq, whats, source_order)).await.expect("values are swapped");
            lane.commit(&mark(seq)).await.expect("values are swapped");
            assert_eq!(owned.rows(probe, 0).await, want, "{source_order}");
            seq += 1;
            let all: Vec<_> = [(0, del(4))].into_iter().chain(back.clone()).collect();
            lane.write(&owned.group(seq, &all, source_order)).await.expect("and back");
            lane.commit(&mark(seq)).await.expect("and back");
            assert_eq!(owned.rows(probe, 0).await, "1,10,100 2,20,200 3,30,300");
        }
        // Nobody gives up what the third one wants, beside two that swap; and one of the two alone.
        for taken in [&[p(1, 20, 100), p(2, 10, 200), p(5, 30, 500)][..], &[p(1, 20, 100)]] {
            let group = Group { guarded: true, ..owned.group(seq + 1, taken, source_order) };
            let e = lane.write(&group).await.expect_err("the value is taken");
            assert!(e.class == SinkClass::Row && e.others.is_some(), "{e:?}");
            let group = Group { together: true, source_order: true, ..group };
            let e = lane.write(&group).await.expect_err("the value is taken");
            assert!(e.class == SinkClass::Row && e.at == Some(taken.len() - 1), "which one: {e:?}");
            lane.abort().await;
        }
    }
    assert_eq!(owned.rows(probe, 1).await, "1,10,100 2,20,300", "what refers to them is as it was");
    drop(lane);
    owned.sink.shutdown().await;
}

pub(super) async fn changed_keys(probe: &mut dyn Probe, prefix: &str) {
    let name = format!("{prefix}_moved");
    let sql = "CREATE TABLE {0} (id bigint PRIMARY KEY, a text, b text)";
    let Some(mut owned) = owned(probe, &name, &[schema(&name, &["id"])], &[sql]).await else { return };
    let mut lane = owned.sink.lane().await.expect("lane");
    let part = |id, a: &str| (0, What::Update(Row::new(vec![int(id), text(a), Cell::Unavailable])));
    both(&mut owned, &mut lane, 1, &[(0, up(1, "a", "B1")), (0, up(5, "a", "B5"))]).await;
    // A row that moves takes along what was not sent, also over a key that is free for a moment.
    both(&mut owned, &mut lane, 2, &[(0, del(1)), part(2, "moved")]).await;
    assert_eq!(owned.rows(probe, 0).await, "2,moved,B1 5,a,B5", "what was not sent moves with its row");
    // A delete, and an update of a row that is there, are just that.
    both(&mut owned, &mut lane, 3, &[(0, up(9, "x", "B9")), (0, del(9)), part(5, "updated")]).await;
    both(&mut owned, &mut lane, 4, &[(0, del(2)), (0, up(3, "whole", "row"))]).await;
    assert_eq!(owned.rows(probe, 0).await, "3,whole,row 5,updated,B5");
    // The row that should move is not there.
    let lost = owned.group(5, &[(0, del(77)), part(78, SECRET)], true);
    let e = match lane.write(&lost).await {
        Err(e) => e,
        Ok(()) => lane.commit(&mark(5)).await.expect_err("nothing is made up"),
    };
    assert!(e.class == SinkClass::Row && !format!("{e:?}").contains(SECRET), "{e:?}");
    lane.abort().await;
    drop(lane);
    owned.sink.shutdown().await;
}

/// `p (id, a → c)`, `c (id, a → p, b → c)`.
pub(super) async fn foreign_keys(probe: &mut dyn Probe, prefix: &str) {
    for (n, rule) in ["", "DEFERRABLE INITIALLY DEFERRED"].into_iter().enumerate() {
        let names = [format!("{prefix}_p{n}"), format!("{prefix}_c{n}")];
        let ints = |name: &String| table("", name, &[("id", INT), ("a", INT), ("b", INT)], &["id"]);
        let tables = [ints(&names[0]), ints(&names[1])];
        let child = format!(
            "CREATE TABLE {{1}} (id bigint PRIMARY KEY, a bigint REFERENCES {{0}}(id) {rule}, b bigint REFERENCES {{1}}(id) {rule})"
        );
        // Where a table may refer to one that comes later, and where it may not.
        let ahead = format!(
            "CREATE TABLE {{0}} (id bigint PRIMARY KEY, a bigint REFERENCES {{1}}(id) {rule}, b bigint); {child}"
        );
        let after = format!(
            "CREATE TABLE {{0}} (id bigint PRIMARY KEY, a bigint, b bigint); {child}; ALTER TABLE {{0}} ADD FOREIGN KEY (a) REFERENCES {{1}}(id) {rule}"
        );
        let Some(mut owned) = owned(probe, &names[0], &tables, &[&ahead, &after]).await else { return };
        let mut lane = owned.sink.lane().await.expect("lane");
        let row = |t: usize, id, a: Option<i64>, b: Option<i64>| {
            (t, What::Upsert(Row::new(vec![int(id), a.map_or(Cell::Null, int), b.map_or(Cell::Null, int)])))
        };
        let gone = |t: usize, id| (t, del(id));
        let (p, c) = (|id| row(0, id, None, None), |id, a| row(1, id, Some(a), None));
        let mut seq = 0;
        for source_order in [false, true] {
            // A parent and its child in one transaction, both orders, there and away again.
            for pair in [[p(1), c(1, 1)], [c(1, 1), p(1)]] {
                for whats in [pair, [gone(0, 1), gone(1, 1)], [p(1), c(1, 1)], [gone(1, 1), gone(0, 1)]] {
                    seq += 1;
                    lane.write(&owned.group(seq, &whats, source_order)).await.expect("parent and child");
                    lane.commit(&mark(seq)).await.expect("parent and child");
                }
            }
            assert_eq!((owned.rows(probe, 0).await, owned.rows(probe, 1).await), (String::new(), String::new()));
        }
        // A row of its own table that comes first, a circle of rows, a circle of tables.
        let own = [row(1, 10, None, Some(11)), row(1, 11, None, Some(10))];
        let round = [row(0, 20, Some(20), None), row(1, 20, Some(20), Some(20))];
        seq += 1;
        both(&mut owned, &mut lane, seq, &own).await;
        seq += 1;
        both(&mut owned, &mut lane, seq, &round).await;
        assert_eq!(owned.rows(probe, 0).await, "20,20,NULL");
        assert_eq!(owned.rows(probe, 1).await, "10,NULL,11 11,NULL,10 20,20,20");
        // A parent that moves to another key with its child.
        seq += 1;
        let moves = [gone(0, 20), row(0, 21, Some(20), None), row(1, 20, Some(21), Some(20))];
        both(&mut owned, &mut lane, seq, &moves).await;
        assert_eq!(
            (owned.rows(probe, 0).await, owned.rows(probe, 1).await.contains("20,21,20")),
            ("21,20,NULL".into(), true)
        );
        // A parent that never comes, and one that goes while its child stays.
        for orphan in [[c(30, 31), p(32)], [row(1, 30, None, Some(39)), p(32)], [gone(0, 21), p(32)]] {
            for source_order in [false, true] {
                let e = match lane.write(&owned.group(seq + 1, &orphan, source_order)).await {
                    Err(e) => e,
                    Ok(()) => lane.commit(&mark(seq + 1)).await.expect_err("a child without its parent"),
                };
                assert_eq!(e.class, SinkClass::Row, "{e}");
                lane.abort().await;
            }
        }
        assert_eq!(owned.rows(probe, 0).await, "21,20,NULL", "nothing of it stays");
        // Truncates of one transaction, in either order, and rows behind them.
        for whats in [
            [(0, What::Truncate), (1, What::Truncate), p(40), c(40, 40)],
            [(1, What::Truncate), (0, What::Truncate), c(41, 41), p(41)],
        ] {
            seq += 1;
            lane.write(&owned.group(seq, &whats, true)).await.expect("truncates");
            lane.commit(&mark(seq)).await.expect("truncates");
        }
        assert_eq!(
            (owned.rows(probe, 0).await, owned.rows(probe, 1).await),
            ("41,NULL,NULL".into(), "41,41,NULL".into())
        );
        drop(lane);
        assert_eq!(owned.open().await, Some(seq), "C1");
        owned.sink.shutdown().await;
    }
}
