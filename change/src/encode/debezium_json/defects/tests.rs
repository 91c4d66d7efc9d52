//! Values and what a real Debezium 3.7.0.Final wrote for them.

use super::*;
use crate::encode::form::{Form, TimeMode};

fn column(kind: Type, native: &str) -> Column {
    Column {
        id: 1,
        name: "c".into(),
        native_type: native.into(),
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
