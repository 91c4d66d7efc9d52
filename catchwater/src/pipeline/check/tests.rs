//! Wrong files, each with the exact code, line, column and suggestion; and that no mutilated file panics.

use super::*;
use catchwater_base::Rng;

const GOOD: &str = "\
version: 1
pipeline: shop
owner: team
sources:
  shop:
    postgres:
      url: \"postgres://u@127.0.0.1:5432/a\"
      tables: [public.orders, customers]
      slot: my_slot
    snapshot: { mode: initial }
    envelope: debezium
  lite:
    sqlite: { file: a.db, tables: [t] }
sinks:
  copy:
    from: [shop.public.orders, shop.customers]
    postgres: { url: \"postgres://u:${env:PW}@127.0.0.1/b\", schema: replica }
    mode: upsert
    tables:
      shop.public.orders: { name: orders2 }
    batch: { rows: 10000, bytes: 8MiB, linger: 20ms }
    on_schema_change: additive
  local:
    from: lite
    sqlite: { file: b.db }
";

fn errors(text: &str) -> Vec<Finding> {
    check(text.as_bytes(), Options { plain_secrets: false }).1.into_iter().filter(Finding::is_error).collect()
}

#[test]
fn properties_that_lean_on_each_other_are_right_together_and_wrong_alone() {
    for (one, other) in [
        ("heartbeat.action.query: SELECT 1", "heartbeat.interval.ms: \"1000\""),
        ("notification.enabled.channels: sink", "notification.sink.topic.name: told"),
    ] {
        let with = |block: String| errors(&GOOD.replace("envelope: debezium", &format!("debezium: {{ {block} }}")));
        assert_eq!(with(format!("{one}, {other}")), vec![]);
        assert_eq!(with(one.to_owned()).len(), 1, "{one}");
    }
}

#[test]
fn a_good_file_becomes_a_typed_pipeline() {
    let (pipeline, findings) = check(GOOD.as_bytes(), Options { plain_secrets: false });
    assert_eq!(findings, vec![]);
    let p = pipeline.expect("no error");
    assert_eq!(p.name, "shop");
    assert_eq!(p.sources["shop"].table_names("shop.*", "shop"), ["public.orders", "public.customers"]);
    let sink = &p.sinks["copy"];
    assert_eq!(sink.lanes, None);
    let (lanes, _) =
        check(GOOD.replace("mode: upsert", "apply: { lanes: 2 }").as_bytes(), Options { plain_secrets: false });
    assert_eq!(lanes.expect("no error").sinks["copy"].lanes, Some(2));
    assert_eq!((sink.batch_rows, sink.batch_bytes, sink.linger_ms), (Some(10_000), Some(8 << 20), Some(20)));
    assert_eq!((sink.mode.as_str(), sink.park), ("upsert", None));
    let parks = |with: &str| {
        let text = GOOD.replace("mode: upsert", &format!("mode: soft_delete\n    on_error: {{ {with} }}"));
        let (pipeline, findings) = check(text.as_bytes(), Options { plain_secrets: false });
        assert_eq!(findings, vec![]);
        let sink = pipeline.expect("no error").sinks["copy"].clone();
        assert_eq!(sink.mode, "soft_delete");
        sink.park
    };
    assert_eq!(
        [parks("row: stop"), parks("row: park_key"), parks("row: park_key, max: 1/10")],
        [None, Some((25, 1000)), Some((1, 10))]
    );
    assert_eq!(sink.target_name("shop.public.orders"), "orders2");
    assert_eq!(sink.target_name("shop.public.customers"), "customers");
    assert_eq!(p.sinks["local"].source(), "lite");
}

/// One replacement in the good file gives exactly this error.
#[test]
fn one_mistake_gives_one_message_at_its_place() {
    #[rustfmt::skip]
    let cases: &[(&str, &str, &str, usize, usize, &str)] = &[
        // what stands there, what is written instead, code, line, column, part of message or suggestion
        ("version: 1", "version: 2", codes::BAD_VALUE, 1, 10, "reads 1"),
        ("version: 1", "version: one", codes::BAD_VALUE, 1, 10, "reads 1"),
        ("version: 1", "version: [1]", codes::WRONG_TYPE, 1, 10, "a list"),
        ("version: 1\n", "versoin: 1\n", codes::UNKNOWN_FIELD, 1, 1, "`version`"),
        ("pipeline: shop", "pipeline: Shop", codes::NAME, 2, 11, "`shop`"),
        ("pipeline: shop", "pipeline: 9lives", codes::NAME, 2, 11, "no name"),
        ("pipeline: shop", "pipeline:", codes::WRONG_TYPE, 2, 1, "nothing"),
        ("pipeline: shop", "pipeline: { a: b }", codes::WRONG_TYPE, 2, 11, "a mapping"),
        ("owner: team", "ownr: team", codes::UNKNOWN_FIELD, 3, 1, "`owner`"),
        ("owner: team", "streams: {}", codes::UNKNOWN_FIELD, 3, 1, "not of this version"),
        ("owner: team", "views: {}", codes::UNKNOWN_FIELD, 3, 1, "not of this version"),
        ("owner: team", "owner: [team]", codes::WRONG_TYPE, 3, 8, "a list"),
        ("    postgres:\n      url", "    postgers:\n      url", codes::UNKNOWN_FIELD, 6, 5, "`postgres`"),
        ("    postgres:\n      url", "    postgresql:\n      url", codes::UNKNOWN_FIELD, 6, 5, "`postgres`"),
        ("    postgres:\n      url", "    mysql:\n      url", codes::UNKNOWN_FIELD, 6, 5, "not of this version"),
        ("      url: \"postgres://u@127.0.0.1:5432/a\"", "      uri: \"postgres://u@127.0.0.1:5432/a\"", codes::UNKNOWN_FIELD, 7, 7, "`url`"),
        ("\"postgres://u@127.0.0.1:5432/a\"", "\"mysql://u@127.0.0.1/a\"", codes::BAD_VALUE, 7, 12, "postgres://"),
        ("\"postgres://u@127.0.0.1:5432/a\"", "\"postgres://u:secret@127.0.0.1/a\"", codes::SECRET, 7, 12, "${env:NAME}"),
        ("\"postgres://u@127.0.0.1:5432/a\"", "\"postgres://u@127.0.0.1/a?password=x\"", codes::SECRET, 7, 12, "${env:NAME}"),
        ("\"postgres://u@127.0.0.1:5432/a\"", "\"postgres://u:${secret:x}@h/a\"", codes::REFERENCE, 7, 12, "${env:NAME}"),
        ("\"postgres://u@127.0.0.1:5432/a\"", "\"postgres://u:${PW}@h/a\"", codes::REFERENCE, 7, 12, "${env:NAME}"),
        ("\"postgres://u@127.0.0.1:5432/a\"", "\"postgres://u:${env:PW@h/a\"", codes::REFERENCE, 7, 12, "without `}`"),
        ("\"postgres://u@127.0.0.1:5432/a\"", "5432", codes::BAD_VALUE, 7, 12, "postgres://"),
        ("tables: [public.orders, customers]", "tables: []", codes::BAD_VALUE, 8, 15, "empty"),
        ("tables: [public.orders, customers]", "tables: [public.orders, { a: b }, customers]", codes::WRONG_TYPE, 8, 31, "a mapping"),
        ("tables: [public.orders, customers]\n", "tables: { public.orders: x }\n", codes::WRONG_TYPE, 8, 7, "a list of texts"),
        ("      slot: my_slot", "      solt: my_slot", codes::UNKNOWN_FIELD, 9, 7, "`slot`"),
        ("      slot: my_slot", "      slot: \"\"", codes::BAD_VALUE, 9, 13, "empty"),
        ("{ name: orders2 }", "{ name: orders2, select: { drop: [note], keep: [id] } }", codes::BAD_VALUE, 20, 54, "exclude each other"),
        ("{ name: orders2 }", "{ name: orders2, select: {} }", codes::MISSING_FIELD, 20, 44, "`keep` or `drop`"),
        ("{ name: orders2 }", "{ name: orders2, select: { dorp: [note] } }", codes::UNKNOWN_FIELD, 20, 54, "`drop`"),
        ("{ name: orders2 }", "{ name: orders2, select: { drop: [] } }", codes::BAD_VALUE, 20, 60, "empty"),
        ("{ name: orders2 }", "{ columns: { total: { tpye: int } } }", codes::UNKNOWN_FIELD, 20, 49, "`type`"),
        ("{ name: orders2 }", "{ columns: { total: { type: \"int; DROP TABLE x\" } } }", codes::BAD_VALUE, 20, 55, "no type"),
        ("{ name: orders2 }", "{ columns: { a: { name: x }, b: { name: x } } }", codes::BAD_VALUE, 20, 59, "would be `x`"),
        ("{ name: orders2 }", "{ select: { drop: [a] }, columns: { a: { name: x } } }", codes::BAD_VALUE, 20, 63, "left out"),
        ("    mode: upsert", "    names: folded", codes::BAD_VALUE, 18, 12, "`fold`"),
        ("mode: initial", "mode: initail", codes::BAD_VALUE, 10, 23, "`initial`"),
        ("mode: initial", "mode: custom", codes::BAD_VALUE, 10, 23, "no_data"),
        ("mode: initial", "mod: initial", codes::UNKNOWN_FIELD, 10, 17, "`mode`"),
        ("snapshot: { mode: initial }", "snapshot: initial", codes::WRONG_TYPE, 10, 15, "a mapping"),
        ("    snapshot: { mode", "    snapshto: { mode", codes::UNKNOWN_FIELD, 10, 5, "`snapshot`"),
        ("envelope: debezium", "envelope: compact", codes::BAD_VALUE, 11, 15, "`debezium`"),
        ("envelope: debezium", "debezium: { decimal.handling.mode: exact }", codes::BAD_VALUE, 11, 40, "precise, double, string"),
        ("envelope: debezium", "debezium: { decimal.handlin.mode: precise }", codes::UNKNOWN_FIELD, 11, 17, "`decimal.handling.mode`"),
        ("envelope: debezium", "debezium: { column.include.list: a, column.exclude.list: b }", codes::BAD_VALUE, 11, 41, "one of them"),
        ("envelope: debezium", "debezium: true", codes::WRONG_TYPE, 11, 5, "a mapping of properties"),
        ("{ file: a.db, tables: [t] }", "{ path: a.db, tables: [t] }", codes::UNKNOWN_FIELD, 13, 15, "`file`"),
        ("{ file: a.db, tables: [t] }", "{ tables: [t] }", codes::MISSING_FIELD, 13, 13, "`file`"),
        ("    from: [shop.public.orders, shop.customers]", "    form: [shop.public.orders, shop.customers]", codes::UNKNOWN_FIELD, 16, 5, "`from`"),
        ("    from: [shop.public.orders, shop.customers]", "    topics: [shop.public.orders, shop.customers]", codes::UNKNOWN_FIELD, 16, 5, "`from`"),
        ("[shop.public.orders, shop.customers]", "[shop.public.order, shop.customers]", codes::UNKNOWN_FROM, 16, 12, "`shop.public.orders`"),
        ("[shop.public.orders, shop.customers]", "[shop.public.orders, shpo.customers]", codes::UNKNOWN_FROM, 16, 32, "`shop.customers`"),
        ("[shop.public.orders, shop.customers]", "[shop.public.orders, shop.audit.log]", codes::UNKNOWN_FROM, 16, 32, "captured:"),
        ("[shop.public.orders, shop.customers]", "[shop.*.orders]", codes::BAD_VALUE, 16, 12, "last part"),
        ("[shop.public.orders, shop.customers]", "[]", codes::BAD_VALUE, 16, 11, "empty"),
        ("[shop.public.orders, shop.customers]", "[shop.public.orders, lite.t]", codes::UNKNOWN_FROM, 16, 5, "one source per sink"),
        ("schema: replica }", "shema: replica }", codes::UNKNOWN_FIELD, 17, 60, "`schema`"),
        ("mode: upsert", "mode: upsrt", codes::BAD_VALUE, 18, 11, "`upsert`"),
        ("mode: upsert", "mode: history", codes::BAD_VALUE, 18, 11, "soft_delete"),
        ("mode: upsert", "on_error: { row: park }", codes::BAD_VALUE, 18, 22, "park_key"),
        ("mode: upsert", "on_error: { row: park_key, max: 5 }", codes::BAD_VALUE, 18, 37, "25/1000"),
        ("mode: upsert", "on_error: { row: park_key, max: 6/5 }", codes::BAD_VALUE, 18, 37, "25/1000"),
        ("mode: upsert", "require: exactly_once", codes::UNKNOWN_FIELD, 18, 5, "not of this version"),
        ("      shop.public.orders: { name", "      shop.public.order: { name", codes::UNKNOWN_FROM, 20, 7, "`shop.public.orders`"),
        ("{ name: orders2 }", "{ nmae: orders2 }", codes::UNKNOWN_FIELD, 20, 29, "`name`"),
        ("rows: 10000", "rows: 0", codes::BAD_VALUE, 21, 20, "from 1"),
        ("rows: 10000", "rows: 10_000", codes::BAD_VALUE, 21, 20, "whole number"),
        ("rows: 10000", "row: 10000", codes::UNKNOWN_FIELD, 21, 14, "`rows`"),
        ("bytes: 8MiB", "bytes: 8", codes::BAD_VALUE, 21, 34, "unit"),
        ("bytes: 8MiB", "bytes: 8mb", codes::BAD_VALUE, 21, 34, "unit"),
        ("linger: 20ms", "linger: 20", codes::BAD_VALUE, 21, 48, "unit"),
        ("    batch: {", "    bach: {", codes::UNKNOWN_FIELD, 21, 5, "`batch`"),
        ("on_schema_change: additive", "on_schema_change: apply", codes::BAD_VALUE, 22, 23, "`additive`"),
        ("  local:\n    from: lite\n", "  local:\n", codes::MISSING_FIELD, 24, 5, "`from`"),
        ("{ file: b.db }", "{ file: a.db }", codes::SAME_SYSTEM, 23, 3, "a source reads"),
        ("    sqlite: { file: b.db }\n", "", codes::COMPONENT, 24, 5, "names no system"),
        ("    sqlite: { file: b.db }\n", "    sqlite: { file: b.db }\n    postgres: { url: \"postgres://h/b\" }\n", codes::COMPONENT, 26, 5, "two systems"),
        ("mode: upsert", "mode: upsert\n    mode: upsert", codes::DUPLICATE, 19, 5, "stands twice"),
        ("owner: team", "owner: &a team", codes::SYNTAX, 3, 8, "anchors"),
        ("owner: team", "owner: !!str team", codes::SYNTAX, 3, 8, "tags"),
        ("owner: team", "owner: *a", codes::SYNTAX, 3, 8, ""),
        ("owner: team", "\towner: team", codes::SYNTAX, 3, 1, "spaces"),
        ("owner: team", "owner: [a, b", codes::SYNTAX, 4, 8, ""),
    ];
    let mut wrong = Vec::new();
    for (good, bad, code, line, column, hint) in cases {
        assert!(GOOD.contains(good), "case without a place: {good}");
        let text = GOOD.replacen(good, bad, 1);
        let found = errors(&text);
        let fits = |f: &Finding| {
            f.code == *code
                && (f.span.line, f.span.column) == (*line, *column)
                && format!("{} {}", f.message, f.suggestions.join(" ")).contains(hint)
        };
        // A misspelt required field is also a missing one; every other mistake gives one message.
        let rest: Vec<&Finding> = found.iter().filter(|f| !fits(f) && f.code != codes::MISSING_FIELD).collect();
        if !found.iter().any(fits) || !rest.is_empty() {
            wrong.push(format!("{bad:?}: wanted {code} {line}:{column} {hint:?}, found {found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn every_error_is_shown_at_once() {
    let text =
        GOOD.replace("mode: initial", "mode: x").replace("mode: upsert", "mode: y").replace("rows: 10000", "rows: z");
    let lines: Vec<usize> = errors(&text).iter().map(|f| f.span.line).collect();
    assert_eq!(lines, [10, 18, 21]);
}

#[test]
fn two_sinks_on_one_table_and_an_unread_source_are_seen() {
    let twice = GOOD.replace("  local:\n    from: lite\n    sqlite: { file: b.db }", "  again:\n    from: shop.public.orders\n    postgres: { url: \"postgres://u:${env:PW}@127.0.0.1/b\", schema: replica }\n    tables: { shop.public.orders: { name: orders2 } }");
    let (pipeline, findings) = check(twice.as_bytes(), Options { plain_secrets: false });
    assert!(pipeline.is_none());
    assert!(findings.iter().any(|f| f.code == codes::SAME_TARGET), "{findings:#?}");
    assert!(findings.iter().any(|f| f.code == codes::UNUSED && !f.is_error()), "{findings:#?}");
}

#[test]
fn a_plain_password_is_a_warning_where_the_caller_allows_it() {
    let text = GOOD.replace("postgres://u@127.0.0.1:5432/a", "postgres://u:pw@127.0.0.1:5432/a");
    let (pipeline, findings) = check(text.as_bytes(), Options { plain_secrets: true });
    assert!(pipeline.is_some());
    assert_eq!(findings.iter().map(|f| (f.code, f.is_error())).collect::<Vec<_>>(), [(codes::SECRET, false)]);
}

/// What a server would refuse, or what would be found at the start of a task only, is said of the file; a reference may be anything.
#[test]
fn urls_and_slots_that_cannot_be_are_seen_in_the_file() {
    let url = "postgres://u@127.0.0.1:5432/a";
    for (bad, said) in [
        ("postgres://u@127.0.0.1:543211/a", "port"),
        ("postgres://u@127.0.0.1:5432/a?sslmod=require", "parameter 'sslmod' is not known"),
        ("postgres://u@127.0.0.1:5432/a?sslmode=verify", "sslmode 'verify'"),
        ("postgres://u:${env:PW}@127.0.0.1:5432/a?sslmode=verify-full", "sslrootcert"),
        ("postgres://${env:USER}:pw@127.0.0.1:5432/a", "a password in plain text"),
    ] {
        let found = errors(&GOOD.replace(url, bad));
        assert!(found.iter().any(|f| f.message.contains(said)), "{bad}: {found:#?}");
    }
    for good in ["${env:URL}", "postgres://${env:U}@${env:HOST}/a?sslmode=${env:MODE}", "postgres://u:${file:pw}@h:1/a"]
    {
        assert_eq!(errors(&GOOD.replace(url, good)), [], "{good}");
    }
    for (slot, fine) in [("cw_1", true), ("1_x", true), ("My-Slot", false), ("ö", false)] {
        let text = GOOD.replace("slot: my_slot", &format!("slot: {slot}"));
        assert_eq!(errors(&text).is_empty(), fine, "{slot}: {:#?}", errors(&text));
    }
}

#[test]
fn tables_of_two_schemas_are_two_tables_of_the_target() {
    let same = |tables: &str, sinks: &str| {
        let text = format!(
            "version: 1\npipeline: p\nsources:\n  shop:\n    postgres: {{ url: 'postgres://h/a', tables: [{tables}] }}\nsinks:\n{sinks}"
        );
        let (_, findings) = check(text.as_bytes(), Options { plain_secrets: true });
        assert!(findings.iter().all(|f| !f.is_error() || f.code == codes::SAME_TARGET), "{findings:#?}");
        findings.iter().any(Finding::is_error)
    };
    let sink = |name: &str, from: &str, schema: &str| {
        format!("  {name}:\n    from: {from}\n    postgres: {{ url: 'postgres://h/b'{schema} }}\n")
    };
    assert!(!same("sales.orders, archive.orders", &sink("copy", "shop", "")));
    assert!(!same("\"sales.*\", \"archive.*\"", &sink("copy", "shop", "")));
    assert!(same("sales.orders, archive.orders", &sink("copy", "shop", ", schema: public")));
    let two = |one: &str, other: &str| sink("a", "shop.sales.orders", one) + &sink("b", "shop.archive.orders", other);
    assert!(!same("sales.orders, archive.orders", &two("", "")));
    assert!(same("sales.orders, archive.orders", &two("", ", schema: sales")));
    let file = "  copy:\n    from: shop\n    sqlite: { file: b.db }\n";
    assert!(same("sales.orders, archive.orders", file));
}

#[test]
fn files_that_are_no_pipeline() {
    for (bytes, code) in [
        (&b""[..], codes::SHAPE),
        (b"# nothing\n", codes::SHAPE),
        (b"- a\n- b\n", codes::WRONG_TYPE),
        (b"just text", codes::WRONG_TYPE),
        (b"a: \xff\n", codes::TEXT),
        (b"version: 1\n---\nversion: 1\n", codes::SYNTAX),
        (b"a: {{{{", codes::SYNTAX),
    ] {
        let (pipeline, findings) = check(bytes, Options { plain_secrets: true });
        assert!(pipeline.is_none());
        assert!(findings.iter().any(|f| f.code == code), "{:?}: {findings:#?}", String::from_utf8_lossy(bytes));
    }
    let deep = "a: ".to_owned() + &"[".repeat(200) + &"]".repeat(200);
    assert!(check(deep.as_bytes(), Options { plain_secrets: true }).0.is_none());
    let large = vec![b'#'; tree_max() + 1];
    assert_eq!(check(&large, Options { plain_secrets: true }).1[0].code, codes::TEXT);
}

fn tree_max() -> usize {
    crate::pipeline::tree::FILE_BYTES_MAX
}

#[test]
fn no_mutilated_file_panics() {
    let mut rng = Rng::new(11);
    for _ in 0..3000 {
        let mut bytes = GOOD.as_bytes().to_vec();
        for _ in 0..rng.between(1, 4) {
            let at = rng.below(bytes.len() as u64) as usize;
            match rng.below(3) {
                0 => bytes[at] = rng.next_u64() as u8,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b"{}[]:,\"'&*!|>%@`#\n\t -"[rng.below(21) as usize]),
            }
        }
        let (pipeline, findings) = check(&bytes, Options { plain_secrets: true });
        assert!(pipeline.is_some() || findings.iter().any(Finding::is_error));
    }
}
