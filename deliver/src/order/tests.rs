//! Write sets: what meets and what does not.

use super::*;
use crate::plan;
use crate::sink::{ForeignKey, TargetPlan};
use crate::testing::table;
use catchwater_base::Rng;
use catchwater_change::{Cell, Value, Version};
use std::sync::Arc;

const INT: Type = Type::Int { bits: 64, unsigned: false };

fn name(n: &str) -> TargetName {
    TargetName { schema: "s".into(), name: n.into() }
}

fn target(n: &str, like: &TableSchema, unique: &[&str], parent: Option<&str>) -> TargetTable {
    TargetTable {
        name: name(n),
        columns: like.columns.clone(),
        key: like.key.iter().map(|k| like.columns[usize::from(*k)].name.clone()).collect(),
        unique: unique.iter().map(|u| vec![(*u).to_owned()]).collect(),
        foreign_keys: parent
            .map(|p| ForeignKey {
                columns: vec!["up".into()],
                parent: name(p),
                parent_columns: vec!["id".into()],
                at_commit: false,
            })
            .into_iter()
            .collect(),
        opaque: false,
    }
}

struct Tables {
    parent: Arc<TargetPlan>,
    child: Arc<TargetPlan>,
}

fn tables() -> Tables {
    let parent = table("s", "parent", &[("id", INT), ("code", INT)], &["id"]);
    let child = table("s", "child", &[("id", INT), ("up", INT)], &["id"]);
    Tables {
        parent: Arc::new(plan::plan(&parent, &target("parent", &parent, &["code"], None)).unwrap()),
        child: Arc::new(plan::plan(&child, &target("child", &child, &[], Some("parent"))).unwrap()),
    }
}

fn row(cells: [Option<i64>; 2]) -> Row {
    Row::new(cells.iter().map(|c| c.map_or(Cell::Null, |v| Cell::Value(Value::Int(v)))).collect())
}

fn set(whats: Vec<(&Arc<TargetPlan>, What)>) -> WriteSet {
    let applies: Vec<Apply> =
        whats.into_iter().map(|(t, what)| Apply { table: t.clone(), what, version: Version::default() }).collect();
    WriteSet::of(&applies)
}

#[test]
fn keys_unique_values_and_parents_meet() {
    let Tables { parent, child } = &tables();
    let up = |t, a, b| set(vec![(t, What::Upsert(row([Some(a), b])))]);
    let gone = |t, a| set(vec![(t, What::Delete(row([Some(a), None])))]);
    for (a, b, want, why) in [
        (up(parent, 1, Some(10)), up(parent, 1, Some(11)), true, "one key"),
        (up(parent, 1, Some(10)), up(parent, 2, Some(10)), true, "one value of the second unique key"),
        (up(parent, 1, Some(10)), up(parent, 2, Some(11)), false, "different rows"),
        (up(parent, 1, None), up(parent, 2, None), false, "NULL is not unique"),
        (up(parent, 1, Some(1)), up(child, 1, None), false, "equal numbers of two tables"),
        (up(parent, 1, Some(1)), up(child, 9, Some(1)), true, "a parent and its child"),
        (gone(parent, 1), up(child, 9, Some(1)), true, "a parent that goes and a child that comes"),
        (gone(parent, 1), up(child, 9, Some(2)), false, "another parent"),
        (up(child, 8, Some(1)), up(child, 9, Some(1)), false, "two children of one parent"),
        (set(vec![(parent, What::Truncate)]), up(parent, 5, None), true, "a truncate and a row"),
        (set(vec![(parent, What::Truncate)]), up(child, 5, None), true, "a truncate and a table that refers to it"),
        (set(vec![(child, What::Truncate)]), up(parent, 5, None), false, "the parent does not need the child"),
        (set(vec![]), up(parent, 5, None), false, "nothing"),
    ] {
        assert_eq!(a.meets(&b), want, "{why}");
        assert_eq!(b.meets(&a), want, "{why}, the other way");
    }
}

#[test]
fn a_reference_that_the_commit_checks_meets_its_parent_only_as_a_table() {
    let Tables { parent, child } = &tables();
    let mut at = target("child", &child.source, &[], Some("parent"));
    at.foreign_keys[0].at_commit = true;
    let child = &Arc::new(plan::plan(&child.source, &at).unwrap());
    let up = |t, a, b| set(vec![(t, What::Upsert(row([Some(a), b])))]);
    assert!(!up(parent, 1, Some(1)).meets(&up(child, 9, Some(1))));
    assert!(set(vec![(parent, What::Truncate)]).meets(&up(child, 9, Some(1))));
}

#[test]
fn what_cannot_be_told_apart_is_one() {
    let other = table("s", "o", &[("id", Type::Other), ("a", INT)], &["id"]);
    let p = plan::plan(&other, &target("o", &other, &[], None)).unwrap();
    assert!(p.meets.whole, "equality of the key's type is not known");
    let plain = table("s", "p", &[("id", INT), ("a", INT)], &["id"]);
    let mut at = target("p", &plain, &[], None);
    assert!(!plan::plan(&plain, &at).unwrap().meets.whole);
    at.opaque = true;
    let p = Arc::new(plan::plan(&plain, &at).unwrap());
    let up = |a| set(vec![(&p, What::Upsert(row([Some(a), None])))]);
    assert!(up(1).meets(&up(2)));
    // Deletes by such a key keep their place among the upserts of their group.
    let p = Arc::new(plan::plan(&other, &target("o", &other, &[], None)).unwrap());
    let apply = |what| Apply { table: p.clone(), what, version: Version::default() };
    assert!(needs_source_order(&[apply(What::Delete(row([Some(1), None])))]));
    assert!(!needs_source_order(&[apply(What::Upsert(row([Some(1), None])))]));
}

#[test]
fn inserts_without_a_key_meet_only_deletes() {
    let bag = table("s", "b", &[("a", INT), ("b", INT)], &[]);
    let p = Arc::new(plan::plan(&bag, &target("b", &bag, &[], None)).unwrap());
    let insert = || set(vec![(&p, What::Insert(row([Some(1), None])))]);
    assert!(!insert().meets(&insert()));
    assert!(insert().meets(&set(vec![(&p, What::DeleteOne(row([Some(1), None])))])));
}

#[test]
fn common_values_are_found_wherever_they_stand() {
    let mut rng = Rng::new(4);
    for _ in 0..2000 {
        let mut list = || {
            let mut l: Vec<u64> = (0..rng.below(12)).map(|_| rng.below(40)).collect();
            l.sort_unstable();
            l.dedup();
            l
        };
        let (a, b) = (list(), list());
        assert_eq!(have_common(&a, &b), a.iter().any(|v| b.contains(v)), "{a:?} {b:?}");
    }
}
