#![allow(clippy::unwrap_used)]
use super::*;
use crate::connect::read::Schemas;

const ROW: &str = concat!(
    r#"{"schema":{"type":"struct","fields":[{"type":"int32","optional":false,"field":"id"},{"type":"string","optional":true,"#,
    r#""default":"dd","field":"d"},{"type":"int64","optional":true,"name":"io.debezium.time.MicroTimestamp","version":1,"#,
    r#""field":"t"},{"type":"struct","fields":[{"type":"double","optional":false,"field":"x"}],"optional":true,"field":"p"}],"#,
    r#""optional":false,"name":"s.t.Value"},"payload":{"id":1,"d":null,"t":1795263347714000,"p":{"x":1.5}}}"#
);

const AROUND: Around<'_> = Around { topic: "s.t", table: Some("t"), now_ms: 0, defaults: true, defects: false };

fn part(text: &str) -> Part {
    Schemas::default().read(text.as_bytes()).unwrap()
}

fn run(smt: Smt) -> Result<Record, Refused> {
    let record = Record {
        value: part(ROW),
        key: part(r#"{"schema":{"type":"int32","optional":false},"payload":7}"#),
        headers: Vec::new(),
    };
    Step::new(smt).apply(record, &AROUND)
}

fn shown(part: &Part) -> String {
    let mut out = Vec::new();
    if !write::json(&mut out, part, false, false) {
        return "-".into();
    }
    String::from_utf8(out).unwrap()
}

fn texts(of: &[&str]) -> BTreeSet<String> {
    of.iter().map(|t| (*t).to_owned()).collect()
}

#[test]
fn values_are_changed() {
    let side = Side::Value;
    let renames = [("t".to_owned(), "at".to_owned())].into();
    for (smt, want) in [
        (
            Smt::ReplaceField { side, exclude: texts(&["p"]), include: texts(&[]), renames, defaults: true },
            r#"{"id":1,"d":"dd","at":1795263347714000}"#,
        ),
        (
            Smt::MaskField { side, fields: texts(&["id", "t"]), replacement: None, defaults: false },
            r#"{"id":0,"d":null,"t":0,"p":{"x":1.5}}"#,
        ),
        (
            Smt::MaskField { side, fields: texts(&["id"]), replacement: Some("9".into()), defaults: false },
            r#"{"id":9,"d":null,"t":1795263347714000,"p":{"x":1.5}}"#,
        ),
        (
            Smt::Cast { side, casts: [("id".into(), Kind::String)].into(), whole: None, defaults: false },
            r#"{"id":"1","d":null,"t":1795263347714000,"p":{"x":1.5}}"#,
        ),
        (
            Smt::TimestampConverter {
                side,
                field: "t".into(),
                target: Target::Text,
                format: Some(Format::parse("yyyy-MM-dd").unwrap()),
                precision: Precision::Micros,
                defaults: false,
            },
            r#"{"id":1,"d":null,"t":"2026-11-21","p":{"x":1.5}}"#,
        ),
        (Smt::Flatten { side, delimiter: "_".into() }, r#"{"id":1,"d":"dd","t":1795263347714000,"p_x":1.5}"#),
        (Smt::ExtractField { side, path: vec!["p".into(), "x".into()], defaults: true }, "1.5"),
        (
            Smt::HoistField { side: Side::Key, field: "k".into() },
            r#"{"id":1,"d":null,"t":1795263347714000,"p":{"x":1.5}}"#,
        ),
    ] {
        assert_eq!(shown(&run(smt.clone()).unwrap().value), want, "{smt:?}");
    }
    let key = |smt| shown(&run(smt).unwrap().key);
    assert_eq!(key(Smt::HoistField { side: Side::Key, field: "k".into() }), r#"{"k":7}"#);
    assert_eq!(key(Smt::ValueToKey { fields: vec!["d".into(), "id".into()], defaults: true }), r#"{"d":"dd","id":1}"#);
    let insert = |at: &str| Smt::InsertField {
        side,
        topic: Some(Insertion::parse(at)),
        partition: None,
        timestamp: Some(Insertion::parse("w")),
        fixed: Some((Insertion::parse("f!"), "x".into())),
        defaults: false,
    };
    let made = run(insert("of")).unwrap().value;
    assert!(shown(&made).ends_with(r#""p":{"x":1.5},"of":"s.t","w":null,"f":"x"}"#), "{made:?}");
    assert!(run(insert("id")).unwrap_err().contains("two fields"));
}

#[test]
fn each_has_its_way_with_tombstones() {
    let apply = |smt: Smt| Step::new(smt).apply(Record::default(), &AROUND);
    let side = Side::Value;
    let passed = [
        Smt::Cast { side, casts: BTreeMap::new(), whole: Some(Kind::String), defaults: true },
        Smt::Flatten { side, delimiter: ".".into() },
        Smt::ExtractField { side, path: vec!["a".into()], defaults: true },
        Smt::ReplaceField {
            side,
            exclude: texts(&["a"]),
            include: texts(&[]),
            renames: BTreeMap::new(),
            defaults: true,
        },
        Smt::HeaderToValue { fields: vec![("a".into(), "b".into())], moves: true },
    ];
    for smt in passed {
        assert_eq!(apply(smt).unwrap(), Record::default());
    }
    let hoisted = apply(Smt::HoistField { side, field: "f".into() }).unwrap().value;
    let mut out = Vec::new();
    assert!(write::json(&mut out, &hoisted, true, true));
    assert_eq!(String::from_utf8(out).unwrap(), r#"{"schema":null,"payload":{"f":null}}"#, "a map without a schema");
    for smt in [
        Smt::ValueToKey { fields: vec!["id".into()], defaults: true },
        Smt::MaskField { side, fields: texts(&["id"]), replacement: None, defaults: true },
    ] {
        assert!(apply(smt).unwrap_err().contains("tombstone"));
    }
}
