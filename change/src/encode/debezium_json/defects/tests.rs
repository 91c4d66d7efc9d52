//! Values and what a real Debezium 3.7.0.Final wrote for them.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::encode::debezium_json::schema::Shape;
use crate::encode::debezium_json::{Encoder, Mask, Masks, Parameters};
use crate::encode::form::{BinaryMode, Form, TimeMode};
use crate::event::{Op, SourceInfo};

fn column(kind: Type, native: &str) -> Column {
    Column {
        id: 1,
        name: "c".into(),
        native_type: native.into(),
        domain: String::new(),
        native_id: 0,
        modifier: -1,
        kind,
        nullable: Some(true),
        generated: false,
        identity: false,
        default: String::new(),
        missing: None,
        comment: String::new(),
    }
}

/// Text of the value under the form; `-` = as without the defects.
fn shown(time: TimeMode, decimal: DecimalMode, kind: &Type, native: &str, value: &Value, road: Road) -> String {
    let form = Form { time, decimal, ..Form::default() };
    let options = Options { form, defects: true, unknown_types: false, ..Options::default() };
    let mut out = Vec::new();
    match put_value(&mut out, &options, &column(kind.clone(), native), value, road) {
        true => String::from_utf8_lossy(&out).into_owned(),
        false => {
            assert!(out.is_empty(), "nothing is written");
            "-".into()
        }
    }
}

#[test]
fn single_values() {
    use TimeMode::{Adaptive, IsoString, Nanos};
    let ts = Type::Timestamp { digits: 6 };
    let number = Type::Decimal { precision: 0, scale: 0 };
    let wide = Type::Decimal { precision: 6, scale: -2 };
    let text = |t: &str| Value::Text(t.into());
    for (time, kind, native, value, jdbc, stream) in [
        (Adaptive, Type::Date, "date", Value::Date(i32::MAX), "-622191234", "2146033979"),
        (Adaptive, Type::Date, "date", Value::Date(i32::MIN), "-625821272", "-2147472691"),
        (IsoString, Type::Date, "date", Value::Date(i32::MAX), "\"+292278994-08-16Z\"", "\"+5877611-06-21Z\""),
        (IsoString, Type::Date, "date", Value::Date(i32::MIN), "\"+292269055-12-02Z\"", "\"-5877611-06-22Z\""),
        (Adaptive, Type::Date, "date", Value::Date(-141_432), "-141422", "-"),
        (Adaptive, Type::Date, "date", Value::Date(7), "-", "-"),
        (IsoString, ts.clone(), "", Value::Timestamp(i64::MAX), "\"+292278994-08-16T23:00:00Z\"", "same"),
        (Nanos, ts.clone(), "", Value::Timestamp(-62_135_596_800_000_000), "null", "same"),
        (Nanos, ts.clone(), "", Value::Timestamp(i64::MIN), "-", "-"),
        (Adaptive, ts.clone(), "", text("294276-12-31 23:59:59.999999"), "-9223372036853775810", "same"),
        (Adaptive, ts.clone(), "", text("294276-01-01 00:00:00"), "9223372036854775807", "same"),
        (Adaptive, Type::Timestamp { digits: 3 }, "", text("294276-01-01 00:00:00"), "-", "-"),
        (IsoString, Type::Time { digits: 6, zone: false }, "", Value::Time(86_400_000_000), "\"00:00:00Z\"", "same"),
        (Adaptive, Type::Time { digits: 6, zone: false }, "", Value::Time(86_400_000_000), "-", "-"),
        (Adaptive, number.clone(), "numeric", Value::Decimal(Decimal::NaN), "null", "same"),
        (Adaptive, number, "numeric", Value::Decimal(Decimal::parse("1").unwrap_or(Decimal::NaN)), "-", "-"),
        (
            Adaptive,
            wide,
            "numeric(6,-2)",
            Value::Decimal(Decimal::parse("0").unwrap_or(Decimal::NaN)),
            "\"AA==\"",
            "same",
        ),
        (Adaptive, Type::Text { length: 0 }, "name", text("n"), "-", "null"),
        (Adaptive, Type::Other, "int2vector", text("1 2"), "[]", "same"),
        (Adaptive, Type::Other, "pg_lsn", text("1/2"), "\"MS8y\"", "same"),
        (Adaptive, Type::Other, "inet", text("1.2.3.4"), "-", "-"),
    ] {
        let stream = if stream == "same" { jdbc } else { stream };
        let of = |road| shown(time, DecimalMode::Precise, &kind, native, &value, road);
        assert_eq!((of(Road::Jdbc).as_str(), of(Road::Stream).as_str()), (jdbc, stream), "{kind:?} {value:?}");
    }
    let wide = Type::Decimal { precision: 6, scale: -2 };
    let value = Value::Decimal(Decimal::parse("12300").unwrap_or(Decimal::NaN));
    let text = shown(Adaptive, DecimalMode::String, &wide, "numeric(6,-2)", &value, Road::Stream);
    assert_eq!(text, format!("\"12300.{}\"", "0".repeat(2046)));
}

#[test]
fn a_required_field_keeps_its_value() {
    let options = Options { defects: true, ..Options::default() };
    let mut required = column(Type::Decimal { precision: 0, scale: 0 }, "numeric");
    required.nullable = Some(false);
    let mut out = Vec::new();
    assert!(!put_value(&mut out, &options, &required, &Value::Decimal(Decimal::NaN), Road::Stream));
    assert!(out.is_empty(), "Debezium's task stops there");
}

#[test]
fn arrays() {
    let list = |items: Vec<Option<Value>>| Value::Array(items);
    let text = |t: &str| Value::Text(t.into());
    let of = |element: Type| Type::Array { element: Box::new(element) };
    let int = Type::Int { bits: 32, unsigned: false };
    let time = Type::Time { digits: 6, zone: false };
    let number = Type::Decimal { precision: 0, scale: 0 };
    let strings = "[\"[Ljava.lang.String;@7f31245a\",\"[Ljava.lang.String;@7f31245a\"]";
    for (element, native, value, want) in [
        (int.clone(), "integer[]", text("{{1,2},{3,4},{5,6}}"), "[null,null,null]"),
        (int.clone(), "integer[]", text("{{{1,2},{3,4}}}"), "[null]"),
        (int.clone(), "integer[]", text("[2:3]={1,NULL}"), "[1,null]"),
        (int, "integer[]", list(vec![Some(Value::Int(1))]), "-"),
        (Type::Text { length: 0 }, "text[]", text("{{a,b},{\"c}\",\"d,\\\"\"}}"), strings),
        (Type::Text { length: 0 }, "text[]", text("{{{a}}}"), "[\"[[Ljava.lang.String;@7f31245a\"]"),
        (Type::Text { length: 0 }, "text[]", text("[0:1]={a,\"b\\\\\"}"), "[\"a\",\"b\\\\\"]"),
        (Type::Text { length: 0 }, "citext[]", text("{{a}}"), "[null]"),
        (Type::Uuid, "uuid[]", text("{{a}}"), "[\"[Ljava.util.UUID;@7f31245a\"]"),
        (Type::Other, "inet[]", text("{{1.2.3.4}}"), "[\"[Ljava.lang.Object;@7f31245a\"]"),
        (Type::Time { digits: 6, zone: true }, "time with time zone[]", text("{{08:00:00+02}}"), "null"),
        (Type::Bits { length: 3, varying: false }, "bit(3)[]", list(vec![]), "null"),
        (Type::Enum { labels: vec![] }, "mood[]", list(vec![Some(text("a")), None]), "null"),
        (Type::Enum { labels: vec![] }, "mood[]", list(vec![Some(text("a"))]), "-"),
        (Type::Other, "tsvector[]", list(vec![None]), "null"),
        (Type::Other, "comp[]", list(vec![Some(text("(1,a)"))]), "[\"KDEsYSk=\"]"),
        (Type::Decimal { precision: 0, scale: 0 }, "numeric[]", list(vec![Some(Value::Decimal(Decimal::NaN))]), "null"),
        // Seeds 25, 29, 55 and 58 of the differential test.
        (number.clone(), "numeric(6,2)[]", text("{{{0,-9999.99,NaN}}}"), "null"),
        (number.clone(), "numeric[]", text("{{1,-Infinity}}"), "null"),
        (number, "numeric[]", text("{{1,2}}"), "[null]"),
        (
            Type::Timestamp { digits: 3 },
            "timestamp(3) without time zone[]",
            text("[2:4]={-infinity,infinity,NULL}"),
            "[-9223372036832400000,9223372036825200000,null]",
        ),
        (
            Type::Timestamp { digits: 6 },
            "timestamp[]",
            text("[2:2]={\"294276-01-01 00:00:00\"}"),
            "[9223372036854775807]",
        ),
        (Type::Instant { digits: 6 }, "timestamptz[]", text("[2:2]={infinity}"), "[\"infinity\"]"),
        (
            time,
            "time[]",
            list(vec![Some(Value::Time(45_296_789_012)), None, Some(Value::Time(86_400_000_000))]),
            "[45296789000,null,0]",
        ),
        (
            Type::Date,
            "date[]",
            list(vec![Some(Value::Date(i32::MAX)), Some(Value::Date(-735_160))]),
            "[-622191234,-703383]",
        ),
        (
            Type::Instant { digits: 6 },
            "timestamptz[]",
            list(vec![Some(Value::Instant(i64::MAX)), Some(Value::Instant(i64::MIN))]),
            "[\"infinity\",\"+292269055-12-02T23:00:00.000000Z\"]",
        ),
    ] {
        let found = shown(TimeMode::Adaptive, DecimalMode::Precise, &of(element), native, &value, Road::Stream);
        assert_eq!(found, want, "{native} {value:?}");
    }
    let boxes =
        |t: &str| shown(TimeMode::Adaptive, DecimalMode::Precise, &Type::Other, "box[]", &text(t), Road::Stream);
    assert_eq!((boxes("{(1,2),(0,0)}").as_str(), boxes("{{(1,2),(0,0)}}").as_str()), ("null", "[null]"));
}

#[test]
fn arrays_of_domains_are_told_by_their_names() {
    let of = |element: Type, native: &str| is_domain_array(&column(Type::Array { element: Box::new(element) }, native));
    let text = || Type::Text { length: 0 };
    assert!(
        of(Type::Int { bits: 32, unsigned: false }, "pos[]") && of(text(), "public.code[]") && of(Type::Date, "dd[]")
    );
    let times = ["timestamp without time zone[]", "timestamp(3) without time zone[]"];
    assert!(times.iter().all(|t| !of(Type::Timestamp { digits: 3 }, t)));
    assert!(!of(Type::Time { digits: 6, zone: false }, "time without time zone[]"));
    assert!(
        !of(Type::Instant { digits: 6 }, "timestamp with time zone[]") && of(Type::Instant { digits: 6 }, "moment[]")
    );
    assert!(!of(text(), "character varying(5)[]") && !of(text(), "public.citext[]") && !of(text(), "\"char\"[]"));
    assert!(!of(Type::Decimal { precision: 5, scale: 2 }, "numeric(5,2)[]"));
}

#[test]
fn placeholders_in_arrays() {
    let placeholder = Placeholder { bytes: vec![0, 255], text: "x".into() };
    let of = |element: Type, native: &str| {
        let mut out = Vec::new();
        let column = column(Type::Array { element: Box::new(element) }, native);
        put_unavailable(&mut out, &Form::default(), &column, &placeholder)
            .then(|| String::from_utf8_lossy(&out).into_owned())
    };
    let int = |bits| Type::Int { bits, unsigned: false };
    assert_eq!(of(int(32), "integer[]").as_deref(), Some("[0,-1]"));
    assert_eq!(of(int(16), "smallint[]").as_deref(), Some("null"));
    assert_eq!(of(int(64), "oid[]").as_deref(), Some("null"));
    let text = || Type::Text { length: 0 };
    assert_eq!(of(text(), "character varying(9)[]"), None, "as ours");
    assert_eq!(of(text(), "citext[]").as_deref(), Some("null"));
    assert_eq!(of(Type::Date, "date[]").as_deref(), Some("[0,-1]"));
    assert!(of(Type::Uuid, "uuid[]").is_some());
}

fn encoder(form: Form, cut: &'static [(&'static str, u32)]) -> Encoder {
    let parameters = move |_: &TableSchema, c: &Column| {
        let of = cut.iter().filter(|(name, _)| *name == c.name);
        of.map(|(_, n)| ("truncateLength".to_owned(), n.to_string())).collect::<Vec<_>>()
    };
    let parameters = Parameters::new(parameters);
    Encoder::with("postgresql", "pg", Options { form, parameters, defects: true, ..Options::default() })
}

fn table(columns: Vec<Column>) -> TableSchema {
    let messages = TableSchema::messages("db");
    TableSchema { columns, name: "t".into(), schema: "public".into(), ..messages }
}

fn update(columns: Vec<Column>, before: Vec<Cell>, after: Vec<Cell>) -> RowChange {
    RowChange {
        table: std::sync::Arc::new(table(columns)),
        op: Op::Update,
        before: Some(Row::new(before)),
        after: Some(Row::new(after)),
        snapshot: SnapshotMark::No,
        info: SourceInfo::None,
    }
}

#[test]
fn what_is_a_text_or_bytes_in_the_record_is_cut() {
    let text = |t: &str| Value::Text(t.into());
    let number = || Value::Decimal(Decimal::parse("12345.5").unwrap_or(Decimal::NaN));
    let loose = Type::Decimal { precision: 0, scale: 0 };
    let (strings, bytes) = (
        Form { decimal: DecimalMode::String, time: TimeMode::IsoString, ..Form::default() },
        Form { binary: BinaryMode::Hex, ..Form::default() },
    );
    for (form, kind, native, value, jdbc, stream) in [
        (Form::default(), Type::Instant { digits: 6 }, "timestamptz", Value::Instant(0), "\"197\"", "same"),
        (Form::default(), Type::Time { digits: 6, zone: true }, "timetz", text("08:00:00+02"), "\"06:\"", "same"),
        (Form::default(), Type::Date, "date", Value::Date(7), "-", "same"),
        (strings, Type::Date, "date", Value::Date(7), "\"197\"", "same"),
        (strings, loose.clone(), "numeric", number(), "-", "\"123\""),
        (strings, Type::Decimal { precision: 9, scale: 1 }, "numeric(9,1)", number(), "\"123\"", "same"),
        (Form::default(), Type::Decimal { precision: 9, scale: 1 }, "numeric(9,1)", number(), "-", "same"),
        (Form::default(), Type::Bytes, "bytea", Value::Bytes(vec![1, 2, 3, 4].into()), "\"AQID\"", "same"),
        (bytes, Type::Bytes, "bytea", Value::Bytes(vec![1, 2, 3, 4].into()), "\"010\"", "same"),
        (Form::default(), Type::Other, "pg_lsn", text("1/2345"), "\"MS8y\"", "same"),
        (Form::default(), Type::Float { bits: 64 }, "double precision", Value::Float64(f64::NAN), "-", "same"),
        (Form::default(), Type::Bits { length: 9, varying: false }, "bit(9)", text("101010101"), "-", "same"),
        (Form::default(), Type::Text { length: 0 }, "text", text("ab😀"), "\"ab\"", "same"),
    ] {
        let encoder = encoder(form, &[("c", 3)]);
        let column = column(kind, native);
        let cuts = encoder.cuts(&table(vec![column.clone()]));
        let of = |road| {
            let mut out = Vec::new();
            let done = encoder.put_cut(&mut out, cuts.as_deref(), 0, &column, &value, road);
            if done { String::from_utf8_lossy(&out).into_owned() } else { "-".into() }
        };
        let stream = if stream == "same" { jdbc } else { stream };
        assert_eq!((of(Road::Jdbc).as_str(), of(Road::Stream).as_str()), (jdbc, stream), "{native} {value:?}");
    }
}

#[test]
fn rows_are_compared_as_they_stand_in_the_record() {
    let text = |t: &str| Cell::Value(Value::Text(t.into()));
    let decimal = |t: &str| Cell::Value(Value::Decimal(Decimal::parse(t).unwrap_or(Decimal::NaN)));
    let array = |of: Type| Type::Array { element: Box::new(of) };
    let (int, number) = (Type::Int { bits: 32, unsigned: false }, Type::Decimal { precision: 0, scale: 0 });
    let mut given = column(int.clone(), "integer");
    given.default = "5".into();
    let five = || Cell::Value(Value::Int(5));
    for (column, before, after, same) in [
        (column(int.clone(), "integer"), five(), five(), true),
        (column(int.clone(), "integer"), five(), Cell::Unavailable, true),
        (column(int.clone(), "integer"), Cell::Absent, five(), false),
        // Seed 50: an empty vector and none are both null.
        (column(Type::Other, "int2vector"), text(""), Cell::Null, true),
        (column(Type::Other, "int2vector"), text("1"), text("2 3"), true),
        (column(number.clone(), "numeric"), decimal("NaN"), Cell::Null, true),
        // A default stands in the record only.
        (given, Cell::Null, five(), false),
        (column(array(Type::Text { length: 0 }), "text[]"), text("{{a}}"), text("{{a}}"), false),
        (column(array(Type::Text { length: 0 }), "text[]"), text("{{a}}"), Cell::Unavailable, false),
        (column(array(int), "integer[]"), text("{{1}}"), text("{{2}}"), true),
        (
            column(Type::Instant { digits: 6 }, "cut"),
            Cell::Value(Value::Instant(0)),
            Cell::Value(Value::Instant(9)),
            true,
        ),
        (
            column(Type::Instant { digits: 6 }, "not"),
            Cell::Value(Value::Instant(0)),
            Cell::Value(Value::Instant(9)),
            false,
        ),
    ] {
        let name = if column.native_type == "cut" { "cut" } else { "c" };
        let column = Column { name: name.into(), ..column };
        let change = update(vec![column.clone()], vec![before.clone()], vec![after.clone()]);
        let encoder = encoder(Form::default(), &[("cut", 3)]);
        assert_eq!(encoder.is_unchanged(&change), same, "{} {before:?} {after:?}", column.native_type);
    }
}

#[test]
fn items_of_arrays_are_described_as_debezium_describes_them() {
    let described = |binary, kind: Type, native: &str| {
        let form = Form { binary, ..Form::default() };
        let Some(Shape::Array { items, .. }) = shape(&form, &column(Type::Array { element: Box::new(kind) }, native))
        else {
            return String::new();
        };
        match *items {
            Shape::Plain { kind, parameters, .. } => format!("{kind} {parameters:?}"),
            _ => String::new(),
        }
    };
    let int = || Type::Int { bits: 32, unsigned: false };
    assert!(described(BinaryMode::Bytes, Type::Other, "pg_lsn[]").contains("bytes"));
    assert!(described(BinaryMode::Hex, Type::Other, "pg_lsn[]").contains("string"));
    assert!(described(BinaryMode::Base64, int(), "positive[]").contains("string"));
    let wide = Type::Decimal { precision: 6, scale: -2 };
    assert!(described(BinaryMode::Bytes, wide.clone(), "numeric(6,-2)[]").contains("2046"));
    let value = Value::Array(vec![Some(Value::Decimal(Decimal::parse("12300").unwrap_or(Decimal::NaN))), None]);
    let array = Type::Array { element: Box::new(wide) };
    let of = |mode| shown(TimeMode::Adaptive, mode, &array, "numeric(6,-2)[]", &value, Road::Stream);
    assert_eq!(of(DecimalMode::String), format!("[\"12300.{}\",null]", "0".repeat(2046)));
    assert!(of(DecimalMode::Precise).len() > 1000, "so many digits");
}

/// Source: a real Debezium 3.7.0.Final, `column.mask.with.3.chars`, and a hash, of every text column (2026-11-28).
#[test]
fn a_mask_is_of_the_row_and_of_what_stands_for_a_value() {
    let text = |name: &str, nullable: bool, native: &str| Column {
        name: name.into(),
        nullable: Some(nullable),
        ..column(Type::Text { length: 0 }, native)
    };
    let mut of = table(vec![
        text("k", false, "text"),
        text("r", false, "text"),
        text("o", true, "text"),
        Column { default: "'def'::text".into(), ..text("d", false, "text") },
        text("n", false, "name"),
    ]);
    (of.key, of.key_from, of.identity) = (vec![0], KeyFrom::PrimaryKey, b'd');
    let of = std::sync::Arc::new(of);
    let value = |t: &str| Cell::Value(Value::Text(t.into()));
    let stars: fn(Option<&str>) -> Option<String> = |_| Some("***".into());
    let hash: fn(Option<&str>) -> Option<String> = |t| t.map(|t| format!("#{t}"));
    let shown = |mask: fn(Option<&str>) -> Option<String>, before: Option<Vec<Cell>>, after: Option<Vec<Cell>>| {
        let of_column = move |_: &TableSchema, _: &Column| -> Option<Mask> { Some(std::sync::Arc::new(mask)) };
        let options =
            Options { masks: Masks::new(of_column), defects: true, unknown_types: false, ..Options::default() };
        let change = RowChange {
            table: of.clone(),
            op: if after.is_some() { Op::Update } else { Op::Delete },
            before: before.map(Row::new),
            after: after.map(Row::new),
            snapshot: SnapshotMark::No,
            info: SourceInfo::None,
        };
        let encoder = Encoder::with("postgresql", "pg", options);
        let stamp = crate::encode::debezium_json::tests::stamp(&change, Piece::Whole);
        let made = encoder.encode(&change, Piece::Whole, stamp, catchwater_base::Wall::from_micros(0));
        let made = made.expect("a record");
        let utf8 = |b: &Option<bytes::Bytes>| String::from_utf8_lossy(b.as_deref().unwrap_or_default()).into_owned();
        let value = utf8(&made.value);
        let rows = value.split(",\"source\"").next().unwrap_or_default().to_owned();
        format!("{} {rows}", utf8(&made.key))
    };
    // The source masks what it has, but for the key; a delete under the default identity has the key alone.
    let gone = || Some(vec![value("a"), Cell::Absent, Cell::Absent, Cell::Absent, Cell::Absent]);
    assert_eq!(
        shown(stars, gone(), None),
        r#"{"k":"a"} {"before":{"k":"***","r":"***","o":"***","d":"***","n":"***"},"after":null"#
    );
    assert_eq!(
        shown(hash, gone(), None),
        r##"{"k":"a"} {"before":{"k":"#a","r":"#","o":null,"d":"#def","n":"#"},"after":null"##
    );
    // The third was not sent, as it is unchanged; the stream loses names.
    let now = || Some(vec![value("a"), value("#r"), Cell::Unavailable, value("#d"), value("#n")]);
    assert_eq!(
        shown(hash, None, now()),
        r##"{"k":"a"} {"before":null,"after":{"k":"#a","r":"#r","o":"#__debezium_unavailable_value","d":"#d","n":"#"}"##
    );
}

#[test]
fn a_name_in_the_key_is_the_same_in_all_rows_of_the_stream() {
    let mut of = update(vec![column(Type::Text { length: 0 }, "name")], Vec::new(), Vec::new());
    let value = |t: &str| Row::new(vec![Cell::Value(Value::Text(t.into()))]);
    (of.before, of.after) = (Some(value("a")), Some(value("b")));
    let mut key = (*of.table).clone();
    (key.key, key.columns[0].nullable) = (vec![0], Some(false));
    of.table = std::sync::Arc::new(key);
    let options = |unknown_types| Options { unknown_types, defects: true, ..Options::default() };
    assert_eq!(pieces(&options(false), &of), [Piece::Whole], "theirs is empty in both");
    assert_eq!(pieces(&options(true), &of), [Piece::OldKey, Piece::Tombstone, Piece::NewKey]);
}

#[test]
fn what_is_said_of_numerics_at_the_source() {
    let said = |kind: Type, native: &str, road| {
        let mut of: Vec<(String, String)> = [("length", "9"), ("scale", "-2")]
            .map(|(k, v)| (format!("__debezium.source.column.{k}"), v.to_owned()))
            .to_vec();
        parameters(&mut of, &column(kind, native), road);
        of.into_iter().map(|(_, v)| v).collect::<Vec<_>>().join(" ")
    };
    let number = |precision, scale| Type::Decimal { precision, scale };
    assert_eq!(said(number(0, 0), "numeric", Road::Jdbc), "0");
    assert_eq!(said(number(0, 0), "numeric", Road::Stream), "9 -2");
    assert_eq!(said(number(0, 0), "a_domain", Road::Jdbc), "9 -2");
    assert_eq!(said(number(6, -2), "numeric(6,-2)", Road::Jdbc), "9 2046");
    let array = Type::Array { element: Box::new(number(6, -2)) };
    assert_eq!(said(array, "numeric(6,-2)[]", Road::Stream), "9 2046");
}

#[test]
fn types_with_a_point_in_their_name_are_lost() {
    for (native, lost) in [
        ("z.\"a.b\"", true),
        ("z.\"a.b\"[]", true),
        ("\"s.t\".\"a.b\"", true),
        ("\"a.b\"", false),
        ("public.\"a.b\"", false),
        ("z.mood", false),
        ("\"s.t\".mood", false),
        ("numeric(6,2)", false),
    ] {
        assert_eq!(is_dotted(native), lost, "{native}");
    }
    let labels = Type::Enum { labels: vec!["u".into()] };
    let of = Column { default: "'u'::z.\"a.b\"".into(), native_id: 9, ..column(labels.clone(), "z.\"a.b\"") };
    let required = Column { nullable: Some(false), ..column(Type::Int { bits: 32, unsigned: false }, "z.\"g.h\"") };
    let options = |unknown_types| Options { defects: true, unknown_types, ..Options::default() };
    let written = |column: &Column, value: &Value| {
        let mut out = Vec::new();
        put_value(&mut out, &options(false), column, value, Road::Stream).then(|| String::from_utf8(out).unwrap())
    };
    assert_eq!(written(&of, &Value::Text("u".into())).as_deref(), Some("null"));
    assert_eq!(written(&required, &Value::Int(7)).as_deref(), Some("0"));
    assert!(is_missing(&options(false), &of, Road::Jdbc) && !is_missing(&options(false), &of, Road::Stream));
    assert!(!is_missing(&options(true), &of, Road::Jdbc) && has_no_default(&options(false), &of));
    let whole = Options::default();
    assert!(!is_missing(&whole, &of, Road::Jdbc) && !has_no_default(&whole, &of));
}
