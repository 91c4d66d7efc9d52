#![allow(clippy::unwrap_used)]
use super::*;
use catchwater_change::{SnapshotMark, SourceInfo};

fn table() -> Arc<TableSchema> {
    let mut t = crate::tables::tests::table("public", "t");
    for (name, kind, native) in [
        ("v", Type::Text { length: 10 }, "character varying(10)"),
        ("secret", Type::Text { length: 0 }, "text"),
        ("n", Type::Int { bits: 32, unsigned: false }, "integer"),
        ("q", Type::Other, "tsquery"),
    ] {
        let id = t.columns.len() as u32 + 1;
        let native_type = native.to_owned();
        t.columns.push(Column { id, name: name.into(), kind, native_type, ..t.columns[0].clone() });
    }
    t.unique = vec![("u".into(), vec![1, 2]), ("w".into(), vec![3])];
    Arc::new(t)
}

fn value(t: &str) -> Cell {
    Cell::Value(Value::Text(t.into()))
}

fn row(secret: Cell) -> Row {
    Row::new(vec![Cell::Value(Value::Int(1)), value("abcdefgh"), secret, Cell::Value(Value::Int(5)), value("'a'")])
}

fn pattern(p: &str) -> Option<Pattern> {
    Some(Pattern::parse(p).unwrap())
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.table.columns.iter().map(|c| c.name.as_str()).collect()
}

#[test]
fn lists_leave_columns_out_and_the_key_stays() {
    let given = table();
    let plan = |rules: Rules| rules.plan(&given);
    let exclude = plan(Rules { exclude: pattern("public.t.secret, PUBLIC[.]t[.]id"), ..Rules::default() });
    assert_eq!(names(&exclude), ["id", "v", "n", "q"]);
    assert_eq!(exclude.table.unique, [("w".to_owned(), vec![2])]);
    assert_ne!(exclude.table.fingerprint, given.fingerprint);
    let include = plan(Rules { include: pattern(".*[.]n"), ..Rules::default() });
    assert_eq!((names(&include), include.table.key.clone()), (vec!["id", "n"], vec![0]));
    assert_eq!(include.row(row(Cell::Null)).cells, [Cell::Value(Value::Int(1)), Cell::Value(Value::Int(5))]);
    let unknown = plan(Rules { unknown_types: false, ..Rules::default() });
    assert_eq!(names(&unknown), ["id", "v", "secret", "n"]);
    let other = plan(Rules { exclude: pattern("public.other.v"), ..Rules::default() });
    assert!(Arc::ptr_eq(&other.table, &given), "what the rules do not touch is the same shape");
    // A name of a list is the whole name.
    let part = plan(Rules { exclude: pattern("public.t.sec,t.secret"), ..Rules::default() });
    assert!(Arc::ptr_eq(&part.table, &given));
}

#[test]
fn keys_are_the_columns_that_are_named_in_their_order() {
    let rules = Rules {
        keys: vec![(Pattern::parse("public.t").unwrap(), vec!["n".into(), "v".into()])],
        exclude: pattern("public.t.n"),
        ..Rules::default()
    };
    let plan = rules.plan(&table());
    assert_eq!((plan.table.key.clone(), plan.table.key_from), (vec![3, 1], KeyFrom::MessageKeyColumns));
    let absent = Rules { keys: vec![(Pattern::parse("public.t").unwrap(), vec!["gone".into()])], ..Rules::default() };
    assert_eq!(absent.plan(&table()).table.key, [0]);
}

#[test]
fn columns_are_renamed_and_their_schemas_name_what_they_were() {
    let mut given = (*table()).clone();
    given.columns[1].name = "1st ü".into();
    let given = Arc::new(given);
    let rules = Rules {
        field_names: NameMode::AvroUnicode,
        exclude: pattern("public.t.n"),
        propagate: pattern("public.t.(1st .*|secret)"),
        propagate_types: pattern("public.t.tsquery"),
        masks: vec![(Pattern::parse("public.t.secret").unwrap(), Mask::Stars(3))],
        ..Rules::default()
    };
    let plan = rules.plan(&given);
    assert_eq!(names(&plan), ["id", "_u0031st_u0020_u00fc", "secret", "q"]);
    assert_ne!(plan.table.fingerprint, given.fingerprint);
    assert!(!rules.is_nothing() && rules.has_parameters());
    // Another copy of the rules describes the columns: the one that records are made by.
    let said = |at: usize| {
        let of = rules.clone().parameters(&plan.table, &plan.table.columns[at]);
        of.iter()
            .map(|(k, v)| format!("{k}={v}").replace("__debezium.source.column.", ""))
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(said(0), "");
    assert_eq!(said(1), "type=VARCHAR length=10 scale=0 name=1st ü");
    assert_eq!(said(2), "masked=true", "of what applies to a column the mask is the first");
    assert_eq!(said(3), "type=TSQUERY length=2147483647 scale=0 name=q");
}

/// Source: seed 1004 of the differential test.
#[test]
fn with_the_defects_a_source_type_stands_in_a_hashs_place() {
    for (defects, shown, first) in [(true, "s", "__debezium.source.column.type"), (false, "#", "masked")] {
        let hash = Mask::hash("SHA-256", "salt", true).unwrap();
        let rules = Rules {
            masks: vec![(Pattern::parse("public.t.secret").unwrap(), hash)],
            propagate: pattern(".*"),
            defects,
            ..Rules::default()
        };
        let plan = rules.plan(&table());
        let Cell::Value(Value::Text(text)) = &plan.row(row(value("s"))).cells[2] else { panic!("no text") };
        assert_eq!(if text.as_str().len() == 64 { "#" } else { text.as_str() }, shown);
        assert_eq!(rules.parameters(&plan.table, &plan.table.columns[2])[0].0, first);
    }
}

#[test]
fn two_columns_of_one_name_are_refused() {
    let mut given = (*table()).clone();
    given.columns[1].name = "sec-ret".into();
    given.columns[2].name = "sec ret".into();
    let given = Arc::new(given);
    let plan = |rules: Rules| rules.plan(&given).legal().map(|_| ()).map_err(|e| e.what);
    let avro = Rules { field_names: NameMode::Avro, ..Rules::default() };
    let what = r#"columns "sec-ret" and "sec ret" of table public.t both become "sec_ret""#;
    assert_eq!(plan(avro.clone()), Err(what.to_owned()));
    assert_eq!(plan(Rules { exclude: pattern("public.t.sec ret"), ..avro }), Ok(()), "one of them is left out");
    assert_eq!(plan(Rules { field_names: NameMode::AvroUnicode, ..Rules::default() }), Ok(()));
}

#[test]
fn masks_give_what_debezium_gives() {
    let masked = |mask: Mask, secret: Cell| {
        let rules = Rules { masks: vec![(Pattern::parse("public.t.(secret|n)").unwrap(), mask)], ..Rules::default() };
        let plan = rules.plan(&table());
        let row = plan.row(row(secret));
        assert_eq!(row.cells[3], Cell::Value(Value::Int(5)), "a number is no text");
        let parameters = rules.parameters(&plan.table, &plan.table.columns[2]);
        (row.cells[2].clone(), parameters.first().map(|(k, v)| format!("{k}={v}")))
    };
    let text = "tüp sécret";
    // Source: recordings `columns-mask`, `columns-truncate`, `columns-hash`, `columns-hash-v2`.
    assert_eq!(masked(Mask::Stars(5), value(text)), (value("*****"), Some("masked=true".into())));
    assert_eq!(masked(Mask::Stars(5), Cell::Null).0, value("*****"));
    assert_eq!(masked(Mask::Truncate(3), value(text)), (value("tüp"), Some("truncateLength=3".into())));
    assert_eq!(masked(Mask::Truncate(3), Cell::Null).0, Cell::Null);
    let hash = |v2| Mask::hash("SHA-256", "CzQMA0cB5K", v2).unwrap();
    let (v1, v2) = (
        "4b2245e4ca8e02809cb4f8e96487041f606c3dd9b4a57a4224f7328d31519e7c",
        "90ba7348987cf5288ee07c00af49e35b86c07a983be0b61f9a6ab26ba0ada688",
    );
    assert_eq!(masked(hash(false), value(text)).0, value(v1));
    assert_eq!(masked(hash(true), value(text)).0, value(v2));
    assert_eq!(masked(hash(true), Cell::Null).0, Cell::Null);
    // A column of a length has room for so many digits, in Debezium's copy as in ours.
    let mut narrow = table().columns[1].clone();
    let mut cut = |length| {
        narrow.kind = Type::Text { length };
        hash(true).within(&narrow, false).apply(Some(text))
    };
    assert_eq!((cut(20).as_deref(), cut(0).as_deref(), cut(90).as_deref()), (Some(&v2[..20]), Some(v2), Some(v2)));
    assert_eq!(masked(Mask::Stars(5), Cell::Unavailable).0, Cell::Unavailable);
    let odd = masked(Mask::Stars(5), Cell::Value(Value::Int(4111)));
    assert_eq!(odd.0, Cell::Null, "a value that is no text does not pass unmasked");
}

#[test]
fn rows_that_are_left_out() {
    let change = |op, before: Option<Row>, after: Option<Row>| RowChange {
        table: table(),
        op,
        before,
        after,
        snapshot: SnapshotMark::No,
        info: SourceInfo::None,
    };
    let rules = Rules { skipped: vec!['d'], skip_unchanged: true, exclude: pattern("public.t.n"), ..Rules::default() };
    let shaper = Shaper { rules, plans: Mutex::default() };
    let passes = |c: RowChange| shaper.passes(&shaper.plan(&c.table).change(c));
    let mut other = row(value("s"));
    other.cells[3] = Cell::Value(Value::Int(6));
    assert!(!passes(change(Op::Update, Some(row(value("s"))), Some(other.clone()))), "only a left out column changed");
    assert!(passes(change(Op::Update, Some(row(value("s"))), Some(row(value("t"))))));
    assert!(passes(change(Op::Update, None, Some(other.clone()))), "nobody knows whether it changed");
    let mut partial = row(value("s"));
    partial.cells[1] = Cell::Unavailable;
    assert!(passes(change(Op::Update, Some(partial.clone()), Some(partial))));
    assert!(!passes(change(Op::Delete, Some(other.clone()), None)));
    assert!(passes(change(Op::Create, None, Some(other))));
}

#[test]
fn with_defects_masks_and_arrays_are_missed_as_debezium_misses_them() {
    let mut given = (*table()).clone();
    let array = |of: Type| Type::Array { element: Box::new(of) };
    let int = Type::Int { bits: 32, unsigned: false };
    for (name, kind, native) in [
        ("ci", Type::Text { length: 0 }, "public.citext"),
        ("j", Type::Json { binary: true }, "jsonb"),
        ("e", Type::Enum { labels: vec![] }, "mood"),
        ("iv", array(Type::Interval), "interval[]"),
        ("dom", array(int.clone()), "positive[]"),
        ("ints", array(int), "integer[]"),
    ] {
        let (name, native_type) = (name.to_owned(), native.to_owned());
        given.columns.push(Column { name, kind, native_type, ..given.columns[0].clone() });
    }
    let given = Arc::new(given);
    let plan = |defects, unknown_types| {
        let masks = vec![(Pattern::parse("public.t.(ci|j|e|v)").unwrap(), Mask::Stars(3))];
        Rules { masks, defects, unknown_types, ..Rules::default() }.plan(&given)
    };
    let masked = |plan: &Plan| -> Vec<String> {
        let both = plan.table.columns.iter().zip(&plan.masks);
        both.filter(|(_, m)| m.is_some()).map(|(c, _)| c.name.clone()).collect()
    };
    assert_eq!(masked(&plan(false, true)), ["v", "ci", "j", "e"]);
    assert_eq!(masked(&plan(true, true)), ["v", "e"]);
    let last = |plan: &Plan| names(plan)[4..].join(" ");
    assert_eq!(last(&plan(false, true)), "q ci j e iv dom ints");
    assert_eq!(last(&plan(true, true)), "q ci j e dom ints");
    assert_eq!(last(&plan(true, false)), "ci j e ints");
}

#[test]
fn a_column_without_room_for_more_is_not_said_to_be_cut() {
    let mut given = (*table()).clone();
    given.columns[1].kind = Type::Text { length: 3 };
    let masks = vec![(Pattern::parse("public.t.*").unwrap(), Mask::Truncate(3))];
    let rules = Rules { masks, ..Rules::default() };
    let says = |at: usize| !rules.parameters(&given, &given.columns[at]).is_empty();
    assert_eq!((says(1), says(2), says(3)), (false, true, true));
    let units = Mask::Truncate(3).within(&given.columns[2], true);
    assert_eq!(units.apply(Some("ab😀")).as_deref(), Some("ab"), "Java counts units of UTF-16");
}

#[test]
fn with_defects_the_first_mask_that_names_a_column_is_the_one() {
    let given = table();
    let of = |defects: &str, values: &[(&str, &str)]| {
        let given_too = [("compat.defects", defects)];
        let all = given_too.iter().chain(values).copied();
        let rules = crate::properties::Properties::parse(all).unwrap().rules;
        rules.mask(&given, &given.columns[2]).cloned()
    };
    let both = [("column.mask.with.5.chars", "public.t.secret"), ("column.truncate.to.3.chars", "public.t.secret")];
    assert_eq!((of("false", &both), of("true", &both)), (Some(Mask::Stars(5)), Some(Mask::Truncate(3))));
}

/// Items of transactions `(xid, [(op, lsn)])`, each with the commit before it.
fn followed(transactions: &[(u32, &[(Op, u64)])]) -> Vec<String> {
    let (mut sent, mut out, mut last) = (Sent::default(), Vec::new(), None);
    for (xid, rows) in transactions {
        let txn = catchwater_record::TxnId(xid.to_string().into_bytes().into());
        let commit_time = catchwater_base::Wall::from_micros(0);
        let first_lsn = rows.first().map(|(_, lsn)| *lsn);
        sent.begin(Item::Begin { txn: txn.clone(), commit_time, xid: Some(u64::from(*xid)), first_lsn });
        for (op, lsn) in *rows {
            let info = SourceInfo::Postgres { lsn: Some(*lsn), txid: Some(*xid), last_commit_lsn: last };
            let (snapshot, after) = (SnapshotMark::No, Some(row(Cell::Null)));
            let mut change = RowChange { table: table(), op: *op, before: None, after, snapshot, info };
            let is_sent = *op != Op::Create;
            out.extend(sent.row(&mut change, is_sent).map(|item| shown(item, *xid)));
            if let (SourceInfo::Postgres { last_commit_lsn, .. }, true) = (&change.info, is_sent) {
                out.push(format!("{lsn} after {last_commit_lsn:?}"));
            }
        }
        out.extend(sent.commit().map(|item| shown(item, *xid)));
        let native = Native::postgres(rows.last().map_or(0, |(_, lsn)| lsn + 5));
        last = native.as_postgres();
        out.push(shown(Item::Commit { native, txn, commit_time }, *xid));
    }
    out
}

fn shown(item: Item, xid: u32) -> String {
    match item {
        Item::Begin { first_lsn, .. } => format!("begin {xid} {first_lsn:?}"),
        _ => format!("end {xid}"),
    }
}

#[test]
fn what_a_publication_leaves_out_is_no_transaction() {
    // Seeds 52 and 56 of the differential test: creations are skipped.
    let found = followed(&[
        (1, &[(Op::Create, 10)]),
        (2, &[(Op::Create, 20), (Op::Update, 21)]),
        (3, &[(Op::Create, 30)]),
        (4, &[(Op::Update, 40), (Op::Create, 41)]),
    ]);
    let want = [
        "begin 1 None",
        "end 1",
        "begin 2 Some(21)",
        "21 after None",
        "end 2",
        "begin 3 None",
        "end 3",
        "begin 4 Some(40)",
        "40 after Some(26)",
        "end 4",
    ];
    assert_eq!(found, want);
}

#[test]
fn what_is_skipped_by_default_is_published_and_what_is_named_is_not() {
    let of = |values: &[(&str, &str)]| {
        let rules = crate::properties::Properties::parse(values.iter().copied()).unwrap().rules;
        (rules.skipped.iter().collect::<String>(), rules.unpublished)
    };
    assert_eq!(of(&[]), (String::new(), false));
    assert_eq!(of(&[("compat.defects", "true")]), ("t".into(), false));
    assert_eq!(of(&[("compat.defects", "true"), ("skipped.operations", "t")]), ("t".into(), true));
}

#[test]
fn with_the_defects_the_key_and_what_jdbc_has_no_text_of_stay_whole() {
    let mut given = (*table()).clone();
    given.columns[0].kind = Type::Text { length: 0 };
    given.columns[0].native_type = "text".into();
    given.columns[4].native_type = "public.ltree".into();
    given.columns[2].native_type = "\"char\"".into();
    let given = Arc::new(given);
    let hash = Mask::hash("SHA-256", "s", true).unwrap();
    let rules =
        |defects| Rules { masks: vec![(Pattern::parse(".*").unwrap(), hash.clone())], defects, ..Rules::default() };
    let lengths = |defects| {
        let plan = rules(defects).plan(&given);
        assert_ne!(plan.table.fingerprint, given.fingerprint);
        let row = Row::new(vec![value("k"), value("v"), value("c"), Cell::Null, value("A.b")]);
        let length = |c: &Cell| if let Cell::Value(Value::Text(t)) = c { t.as_str().len() } else { 0 };
        plan.row(row).cells.iter().map(length).collect::<Vec<_>>()
    };
    assert_eq!(lengths(true), [1, 10, 1, 0, 3], "key and ltree in clear, a digit for a `char`");
    assert_eq!(lengths(false), [64, 10, 1, 0, 64]);
    // The encoder is told of what is left to it.
    let mut options = Options::default();
    rules(true).tell(&mut options);
    let mask = options.masks.0.unwrap();
    assert_eq!(mask(&given, &given.columns[0]).unwrap()(Some("k")).unwrap().len(), 64);
    assert!(mask(&given, &given.columns[4]).is_none());
}
