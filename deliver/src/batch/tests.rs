//! Folding and group limits.

use super::*;
use crate::sink::TargetName;
use crate::testing::table;
use catchwater_base::Rng;
use catchwater_change::{SnapshotMark, SourceInfo, Type, Value};

const INT: Type = Type::Int { bits: 64, unsigned: false };

fn plan(key: &[&str]) -> Arc<TargetPlan> {
    let source = table("", "t", &[("id", INT), ("a", INT), ("b", INT)], key);
    Arc::new(TargetPlan {
        columns: vec![(0, "id".into()), (1, "a".into()), (2, "b".into())],
        key: source.key.clone(),
        source,
        target: TargetName { schema: String::new(), name: "t".into() },
        meets: Default::default(),
    })
}
fn row(cells: &[Option<i64>]) -> Row {
    Row::new(cells.iter().map(|c| c.map_or(Cell::Unavailable, |v| Cell::Value(Value::Int(v)))).collect())
}
fn full(id: i64, a: i64, b: i64) -> Row {
    row(&[Some(id), Some(a), Some(b)])
}
fn version(n: u64) -> Version {
    Version { commit_seq: CommitSeq(1), ordinal: n, ..Version::default() }
}
fn apply(plan: &Arc<TargetPlan>, n: u64, what: What) -> Apply {
    Apply { table: plan.clone(), what, version: version(n) }
}
fn folded(plan: &Arc<TargetPlan>, whats: Vec<What>) -> String {
    let applies = whats.into_iter().enumerate().map(|(i, w)| apply(plan, i as u64, w)).collect();
    let show = |r: &Row| {
        r.cells
            .iter()
            .map(|c| c.value().map_or("?".into(), |v| format!("{v:?}").replace("Int", "")))
            .collect::<String>()
    };
    fold(applies)
        .iter()
        .map(|a| match &a.what {
            What::Upsert(r) => format!("up{} ", show(r)),
            What::Update(r) => format!("set{} ", show(r)),
            What::Delete(r) => format!("del{} ", show(r)),
            other => format!("{other:?} "),
        })
        .collect::<String>()
        .trim_end()
        .to_owned()
}

#[test]
fn fold_table() {
    let p = plan(&["id"]);
    let up = |id, a, b| What::Upsert(full(id, a, b));
    let set = |id, a: Option<i64>, b: Option<i64>| What::Update(row(&[Some(id), a, b]));
    let del = |id| What::Delete(full(id, 0, 0));
    for (whats, want) in [
        (vec![up(1, 1, 1), up(1, 2, 2)], "up(1)(2)(2)"),
        (vec![up(1, 1, 1), set(1, Some(5), None)], "up(1)(5)(1)"),
        (vec![set(1, Some(5), None), set(1, None, Some(6))], "up(1)(5)(6)"),
        (vec![set(1, Some(5), None), set(1, Some(7), None)], "set(1)(7)?"),
        (vec![up(1, 1, 1), del(1)], "del(1)(0)(0)"),
        (vec![del(1), up(1, 3, 3)], "up(1)(3)(3)"),
        // A parent that comes first stays first, a delete that comes last stays last.
        (vec![up(1, 1, 1), up(2, 2, 2), up(1, 9, 9)], "up(1)(9)(9) up(2)(2)(2)"),
        (vec![up(1, 1, 1), up(2, 2, 2), del(1)], "up(2)(2)(2) del(1)(0)(0)"),
    ] {
        assert_eq!(folded(&p, whats), want);
    }
}

#[test]
fn groups_close_at_limits_and_at_once_without_lag() {
    let p = plan(&["id"]);
    let limits = BatchLimits { rows: 2, bytes: 1000, linger_ms: 20 };
    let mut b = Batch::new(limits);
    let t = Mono::from_millis;
    let one = |n| [apply(&p, n, What::Upsert(full(n as i64, 0, 0)))];
    assert_eq!(b.verdict(t(0), true, false), Verdict::More, "empty");
    b.push(t(0), CommitSeq(1), 10, one(1));
    assert_eq!(b.verdict(t(50), true, false), Verdict::More, "inside its transaction");
    b.end_txn(CommitSeq(1));
    assert_eq!(b.verdict(t(1), true, false), Verdict::Close, "nothing behind it");
    assert_eq!(b.verdict(t(1), true, true), Verdict::More, "more is coming");
    assert_eq!(b.verdict(t(20), true, true), Verdict::Close, "linger");
    b.push(t(1), CommitSeq(2), 10, one(2));
    assert_eq!(b.verdict(t(1), false, true), Verdict::More, "full, but its last transaction may end it");
    b.push(t(1), CommitSeq(2), 10, one(3));
    b.push(t(1), CommitSeq(2), 10, one(4));
    assert_eq!(b.verdict(t(1), false, true), Verdict::Part, "a large transaction");
    let part = b.take(false);
    assert_eq!((part.group.first_seq, part.group.last_seq, part.rows), (CommitSeq(1), CommitSeq(2), 4));
    assert!(!b.is_whole());
    assert_eq!(b.verdict(t(2), true, false), Verdict::More);
    b.end_txn(CommitSeq(2));
    assert_eq!(b.verdict(t(2), false, true), Verdict::Close, "the large transaction ends, though nothing is left");
    assert!(b.take(false).group.applies.is_empty());
    assert_eq!(b.verdict(t(90), true, false), Verdict::More);
    b.push(t(90), CommitSeq(3), 2000, one(3));
    assert_eq!(b.verdict(t(90), false, true), Verdict::Part, "bytes");
}

fn change(op: Op, before: Option<Row>, after: Option<Row>, p: &TargetPlan) -> RowChange {
    RowChange { table: p.source.clone(), op, before, after, snapshot: SnapshotMark::No, info: SourceInfo::None }
}

#[test]
fn changes_become_applies() {
    let (keyed, bare) = (plan(&["id"]), plan(&[]));
    let of = |p: &Arc<TargetPlan>, op, before, after| {
        applies_of(change(op, before, after, p), p, version(0)).map(|a| {
            a.iter()
                .map(|a| match &a.what {
                    What::Upsert(_) => "upsert",
                    What::Update(_) => "update",
                    What::Delete(_) => "delete",
                    What::Truncate => "truncate",
                    What::Insert(_) => "insert",
                    What::DeleteOne(_) => "delete-one",
                    What::Clear => "clear",
                    What::InsertNew(_) | What::Retire(_) | What::RetireAll(_) => "of a mode",
                })
                .collect::<Vec<_>>()
                .join("+")
        })
    };
    let (r, other, part) = (full(1, 2, 3), full(9, 2, 3), row(&[Some(1), None, Some(3)]));
    assert_eq!(of(&keyed, Op::Create, None, Some(r.clone())).as_deref(), Ok("upsert"));
    assert_eq!(of(&keyed, Op::Read, None, Some(r.clone())).as_deref(), Ok("upsert"));
    assert_eq!(of(&keyed, Op::Update, None, Some(part.clone())).as_deref(), Ok("update"));
    assert_eq!(of(&keyed, Op::Update, Some(other.clone()), Some(r.clone())).as_deref(), Ok("delete+upsert"));
    assert_eq!(of(&keyed, Op::Update, Some(r.clone()), Some(r.clone())).as_deref(), Ok("upsert"));
    assert_eq!(of(&keyed, Op::Delete, Some(part.clone()), None).as_deref(), Ok("delete"));
    assert_eq!(of(&keyed, Op::Truncate, None, None).as_deref(), Ok("truncate"));
    assert_eq!(of(&bare, Op::Create, None, Some(r.clone())).as_deref(), Ok("insert"));
    assert_eq!(of(&bare, Op::Update, Some(other), Some(r.clone())).as_deref(), Ok("delete-one+insert"));
    assert_eq!(of(&bare, Op::Delete, Some(r), None).as_deref(), Ok("delete-one"));
    assert!(of(&bare, Op::Delete, Some(part), None).is_err());
    assert!(of(&keyed, Op::Delete, None, None).is_err());
}

#[test]
fn a_value_given_up_and_taken_in_one_group_needs_source_order() {
    let mut p = plan(&["id"]);
    let inner = Arc::make_mut(&mut p);
    Arc::make_mut(&mut inner.source).unique = vec![("u".into(), vec![1])];
    let up = |n, id, a| apply(&p, n, What::Upsert(full(id, a, 0)));
    assert!(!order::needs_source_order(&[up(0, 1, 1), up(1, 2, 2), up(2, 1, 3)]));
    assert!(order::needs_source_order(&[up(0, 1, 1), up(1, 2, 1)]));
    assert!(order::needs_source_order(&[apply(&p, 0, What::Truncate)]));
}

/// Folded or not, a table ends up the same.
#[test]
fn folding_never_changes_the_result() {
    use std::collections::BTreeMap;
    let p = plan(&["id"]);
    fn run(applies: &[Apply]) -> BTreeMap<i64, Vec<Cell>> {
        let mut out: BTreeMap<i64, Vec<Cell>> = BTreeMap::new();
        for a in applies {
            let id = |r: &Row| match r.cells[0] {
                Cell::Value(Value::Int(i)) => i,
                _ => panic!(),
            };
            match &a.what {
                What::Upsert(r) => {
                    out.insert(id(r), r.cells.clone());
                }
                What::Update(r) => {
                    if let Some(have) = out.get_mut(&id(r)) {
                        for (h, c) in have.iter_mut().zip(&r.cells) {
                            if !matches!(c, Cell::Unavailable) {
                                *h = c.clone();
                            }
                        }
                    }
                }
                What::Delete(r) => {
                    out.remove(&id(r));
                }
                _ => panic!(),
            }
        }
        out
    }
    for seed in 0..500 {
        let mut rng = Rng::new(seed);
        let mut there = std::collections::BTreeSet::new();
        let start: Vec<Apply> = (0..3).map(|i| apply(&p, 0, What::Upsert(full(i, 7, 7)))).collect();
        there.extend(0..3i64);
        let mut tail = Vec::new();
        for n in 0..rng.between(1, 30) {
            let id = rng.below(5) as i64;
            let what = match rng.below(3) {
                0 if there.remove(&id) => What::Delete(full(id, 0, 0)),
                1 if there.contains(&id) => What::Update(row(&[
                    Some(id),
                    rng.chance(500_000).then_some(n as i64),
                    rng.chance(500_000).then_some(n as i64),
                ])),
                _ => {
                    there.insert(id);
                    What::Upsert(full(id, n as i64, n as i64))
                }
            };
            tail.push(apply(&p, n, what));
        }
        let plain = run(&[start.clone(), tail.clone()].concat());
        let folded = fold(tail);
        assert_eq!(run(&[start, folded.clone()].concat()), plain, "seed {seed}");
        let mut keys = std::collections::BTreeSet::new();
        for a in &folded {
            let (What::Upsert(r) | What::Update(r) | What::Delete(r)) = &a.what else { panic!() };
            assert!(keys.insert(format!("{:?}", r.cells[0])), "seed {seed}: a key comes twice");
        }
    }
}
