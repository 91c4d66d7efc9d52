//! Tests of a file: what passes, what does not and how it is said, what is no test.

use super::*;
use crate::pipeline::finding::codes;
use crate::pipeline::{Finding, check};
use catchwater_runtime::time::wall;

const GOOD: &str = "\
version: 1
pipeline: shop
sources:
  shop:
    postgres: { url: 'postgres://u@h/a', tables: [public.orders, customers] }
sinks:
  copy:
    from: [shop.public.orders]
    postgres: { url: 'postgres://u@h/b' }
    mode: soft_delete
    tables:
      shop.public.orders: { name: orders2, select: { drop: [note] }, columns: { total: { name: amount } } }
  all:
    from: shop
    sqlite: { file: x.db }
tests:
  - name: deleted orders are kept and notes are not
    given:
      shop.public.orders:
        - { op: c, after: { id: 1, total: 5.00, note: secret } }
        - { op: c, after: { id: 2, total: 7, note: x } }
        - { op: u, after: { id: 2, total: 8, note: !absent } }
        - { op: d, before: { id: 1 } }
    expect:
      copy.orders2:
        - { id: 1, amount: 5, _deleted_at: !any, note: !absent }
        - { id: 2, amount: !approx 8.0, _deleted_at: null }
      all.orders: [ { id: 2, total: 8, note: \"x\" } ]
";

/// Lines and texts of what is not as expected, test by test.
fn ran(text: &str) -> Vec<(String, Vec<(usize, String)>)> {
    let (pipeline, found) = check(text.as_bytes(), Options { plain_secrets: true });
    let pipeline = pipeline.unwrap_or_else(|| panic!("{found:?}"));
    let (root, _) = tree::parse(text.as_bytes()).expect("YAML");
    let mut findings = Vec::new();
    let tests = offline::read(&root, &pipeline, &mut findings);
    assert!(findings.is_empty(), "{findings:?}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut out = Vec::new();
    for test in &tests {
        let wrong = runtime.block_on(one(&pipeline, test));
        out.push((test.name.clone(), wrong.into_iter().map(|w| (w.line, w.what)).collect()));
    }
    out
}

#[test]
fn a_test_passes_or_says_what_is_there_instead() {
    assert_eq!(ran(GOOD), [("deleted orders are kept and notes are not".to_owned(), vec![])]);
    let line = |of: &str| GOOD.lines().position(|l| l.contains(of)).expect("a line") + 1;
    // What is changed, the line that is named, what is said.
    for (from, to, at, words) in [
        ("amount: 5,", "amount: 6,", "amount: 5", "amount is 5.00, expected 6"),
        ("_deleted_at: null", "_deleted_at: !any, x: 1", "!approx", "x is not there, expected 1"),
        ("!approx 8.0", "!approx 8.1", "!approx", "amount is 8, expected about 8.1"),
        ("note: \"x\"", "note: null", "all.orders", "note is 'x', expected NULL"),
        ("note: \"x\"", "note: !absent", "all.orders", "note is 'x', expected no such column"),
        ("[ { id: 2, total: 8, note: \"x\" } ]", "[]", "all.orders", "0 rows expected, 1 there; not expected: { id: 2"),
        ("all.orders: [", "all.order: [", "all.orders", "no table order of what is given; it has: orders"),
        ("mode: soft_delete", "mode: upsert", "copy.orders2:", "2 rows expected, 1 there"),
        ("{ op: u, after: { id: 2,", "{ op: u, after: { id: 3,", "op: d", "CW0679"),
        ("drop: [note]", "drop: [id]", "op: c, after: { id: 1", "CW0694"),
        ("op: d, before: { id: 1 }", "op: d, before: { total: 1 }", "op: d", "without its key id"),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let wrong = ran(&GOOD.replacen(from, to, 1)).remove(0).1;
        let found = wrong.iter().any(|(n, what)| *n == line(at) && what.contains(words));
        assert!(found, "{from} → {to}: {wrong:?}, wanted line {}: {words}", line(at));
    }
}

/// Two loose rows that fit one row each, whatever their order.
#[test]
fn each_expected_row_finds_one_of_its_own() {
    let rows = "[ { total: !any }, { id: 2 } ]";
    let text = GOOD.replace("[ { id: 2, total: 8, note: \"x\" } ]", rows).replace("- { op: d, before: { id: 1 } }", "");
    let text = text.replace("_deleted_at: !any", "_deleted_at: null");
    assert_eq!(ran(&text).remove(0).1, vec![]);
    let text = text.replace(rows, "[ { id: 2 }, { total: 8 } ]");
    assert_eq!(ran(&text).remove(0).1.len(), 1);
}

#[test]
fn what_is_no_test_has_a_place() {
    for (from, to, code, word) in [
        ("expect:", "expct:", codes::UNKNOWN_FIELD, "`expect`"),
        (
            "shop.public.orders:\n        -",
            "shop.public.order:\n        -",
            codes::UNKNOWN_FROM,
            "`shop.public.orders`",
        ),
        ("copy.orders2:\n", "cpoy.orders2:\n", codes::UNKNOWN_FROM, "`copy`"),
        ("op: d, before: { id: 1 }", "op: d", codes::MISSING_FIELD, "needs `before`"),
        ("op: d, before", "op: x, before", codes::BAD_VALUE, "d (delete)"),
        ("!approx 8.0", "!approx eight", codes::BAD_VALUE, "number"),
        ("!any", "!some", codes::SYNTAX, "tags"),
        ("mode: soft_delete", "mode: !any", codes::WRONG_TYPE, "only tests"),
        ("    expect:\n", "    other:\n", codes::MISSING_FIELD, "`expect`"),
        ("id: 1, total: 5.00", "id: [1], total: 5.00", codes::WRONG_TYPE, "a list"),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let (_, findings) = check(GOOD.replacen(from, to, 1).as_bytes(), Options { plain_secrets: true });
        let said = |f: &Finding| f.code == code && format!("{} {:?}", f.message, f.suggestions).contains(word);
        assert!(findings.iter().any(said), "{from} → {to}: {findings:?}");
    }
}

#[test]
fn the_command_ends_with_the_number_of_failures() {
    let dir = std::env::temp_dir().join(format!("catchwater-test.{}.{}", std::process::id(), wall().as_micros()));
    std::fs::create_dir_all(&dir).expect("a folder");
    let file = dir.join("p.yaml");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let run = |text: &str, only: Option<&str>| {
        std::fs::write(&file, text).expect("a file");
        runtime.block_on(super::run(&file, only, Output::Json)).map(|d| d.summary).map_err(|f| (f.code, f.exit as u8))
    };
    assert_eq!(run(GOOD, None), Ok("1 test(s), 1 passed, 0 failed".to_owned()));
    assert_eq!(run(GOOD, Some("nothing")), Ok("0 test(s), 0 passed, 0 failed".to_owned()));
    assert_eq!(run(&GOOD.replace("amount: 5,", "amount: 6,"), None), Err(("CW0352".to_owned(), 1)));
    assert_eq!(run(&GOOD.replace("expect:", "expct:"), None), Err(("CW0312".to_owned(), 2)));
    let _ = std::fs::remove_dir_all(&dir);
}
