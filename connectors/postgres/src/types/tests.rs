//! Text forms, kinds, and what foreign text does.
#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

fn round(kind: &Type, text: &str) -> (Value, String) {
    let value = decode(kind, Bytes::copy_from_slice(text.as_bytes())).unwrap();
    let back = literal(&value);
    (value, back)
}

const INT: Type = Type::Int { bits: 64, unsigned: false };

#[test]
fn texts_of_the_server_come_back_as_they_were() {
    let ts = Type::Timestamp { digits: 6 };
    let tz = Type::Instant { digits: 6 };
    let time = Type::Time { digits: 6, zone: false };
    let array = |element: Type| Type::Array { element: Box::new(element) };
    for (kind, text) in [
        (Type::Bool, "t"),
        (Type::Bool, "f"),
        (INT, "-9223372036854775808"),
        (Type::Float { bits: 64 }, "NaN"),
        (Type::Float { bits: 64 }, "-Infinity"),
        (Type::Decimal { precision: 0, scale: 0 }, "12345678901234567890.12300"),
        (Type::Decimal { precision: 0, scale: 0 }, "NaN"),
        (Type::Decimal { precision: 0, scale: 0 }, "-Infinity"),
        (Type::Bytes, "\\x00ff10"),
        (Type::Bytes, "\\x"),
        (Type::Date, "2024-02-29"),
        (Type::Date, "10000-01-01"),
        (Type::Date, "0044-03-15 BC"),
        (Type::Date, "4713-01-01 BC"),
        (Type::Date, "5874897-12-31"),
        (Type::Date, "infinity"),
        (Type::Date, "-infinity"),
        (time.clone(), "24:00:00"),
        (time, "00:00:00.000001"),
        (ts.clone(), "1969-12-31 23:59:59.999999"),
        (ts.clone(), "0001-01-01 00:00:00 BC"),
        (ts.clone(), "infinity"),
        (ts.clone(), "294276-12-31 23:59:59.999999"),
        (tz.clone(), "2024-06-01 12:00:00.5+00"),
        (tz.clone(), "4713-11-24 00:00:00+00 BC"),
        (tz, "-infinity"),
        (Type::Json { binary: true }, "{\"a\": [1, 2.50]}"),
        (array(INT), "{1,NULL,-3}"),
        (array(INT), "{}"),
        (array(INT), "{{1,2},{3,4}}"),
        (array(INT), "[2:3]={1,2}"),
        (Type::Bits { length: 3, varying: false }, "101"),
        (Type::Other, "anything (1,2)"),
    ] {
        assert_eq!(round(&kind, text).1, text, "{kind:?}");
    }
}

#[test]
fn values_have_the_form_the_contract_names() {
    let v = |kind: Type, text: &str| round(&kind, text).0;
    assert_eq!(v(Type::Date, "1970-01-02"), Value::Date(1));
    assert_eq!(v(Type::Date, "infinity"), Value::Date(i32::MAX));
    assert_eq!(v(Type::Instant { digits: 6 }, "1970-01-01 00:00:01+00"), Value::Instant(1_000_000));
    assert_eq!(
        v(Type::Interval, "1 year 2 mons -3 days -04:05:06.789"),
        Value::Interval { months: 14, days: -3, micros: -(((4 * 60 + 5) * 60 + 6) * 1_000_000 + 789_000) }
    );
    assert_eq!(v(Type::Interval, "00:00:00"), Value::Interval { months: 0, days: 0, micros: 0 });
    assert_eq!(v(Type::Interval, "infinity"), Value::Text("infinity".into()));
    // Beyond i64 microseconds since 1970: text, not a wrong number.
    assert_eq!(
        v(Type::Timestamp { digits: 6 }, "294276-12-31 23:59:59.999999"),
        Value::Text("294276-12-31 23:59:59.999999".into())
    );
    let text = Type::Array { element: Box::new(Type::Text { length: 0 }) };
    let t = |s: &str| Some(Value::Text(s.into()));
    assert_eq!(
        v(text, "{a,\"NULL\",NULL,\"b,\\\"c\\\\\",\"\"}"),
        Value::Array(vec![t("a"), t("NULL"), None, t("b,\"c\\"), t("")])
    );
    assert!(matches!(v(Type::Array { element: Box::new(INT) }, "{{1}}"), Value::Text(_)));
    assert_eq!(decode(&Type::Text { length: 0 }, Bytes::from_static(b"\xff")), Err(NotUtf8));
}

#[test]
fn every_type_of_the_catalogue_has_a_kind() {
    use schema::{PgType, PgTypes, kind, oid};
    let t = |oid, kind, category, element, base| PgType {
        text: String::new(),
        oid,
        name: String::new(),
        kind,
        category,
        element,
        delimiter: b',',
        base,
        base_modifier: -1,
        labels: vec!["a".into()],
        sends: true,
        attributes: Vec::new(),
    };
    let types: PgTypes = [
        t(1007, b'b', b'A', 23, 0),
        t(20000, b'e', b'E', 0, 0),
        t(20001, b'd', b'N', 0, 1700),
        t(20002, b'd', b'A', 0, 1007),
        t(20003, b'd', b'N', 0, 20003),
    ]
    .into_iter()
    .map(|t| (t.oid, t))
    .collect();
    assert_eq!(kind(&types, oid::NUMERIC, ((12 << 16) | 2) + 4), Type::Decimal { precision: 12, scale: 2 });
    assert_eq!(kind(&types, oid::NUMERIC, ((3 << 16) | (2048 - 5)) + 4), Type::Decimal { precision: 3, scale: -5 });
    assert_eq!(kind(&types, 20001, -1), Type::Decimal { precision: 0, scale: 0 });
    assert_eq!(kind(&types, 20000, -1), Type::Enum { labels: vec!["a".into()] });
    assert_eq!(kind(&types, 20002, -1), Type::Array { element: Box::new(Type::Int { bits: 32, unsigned: false }) });
    assert_eq!(kind(&types, 20003, -1), Type::Other, "a circle ends");
    assert_eq!(kind(&types, 999_999, -1), Type::Other);
}

#[test]
fn mapped_types_are_safe_text() {
    use schema::mapped;
    assert_eq!(mapped(&Type::Int { bits: 32, unsigned: true }), "bigint");
    assert_eq!(mapped(&Type::Int { bits: 64, unsigned: true }), "numeric(20)");
    assert_eq!(mapped(&Type::Decimal { precision: 12, scale: 2 }), "numeric(12,2)");
    assert_eq!(mapped(&Type::Decimal { precision: 3, scale: -2 }), "numeric");
    assert_eq!(mapped(&Type::Enum { labels: vec!["'; drop".into()] }), "text");
    assert_eq!(mapped(&Type::Array { element: Box::new(Type::Bool) }), "boolean[]");
}

proptest! {
    #[test]
    fn timestamps_round_trip(micros in -210_866_803_200_000_000i64..9_223_372_036_854_775_000) {
        let text = time::print_timestamp(micros, time::Zone::Utc);
        prop_assert_eq!(time::parse_timestamp(&text, time::Zone::Utc), Some(micros), "{}", text);
    }
    #[test]
    fn dates_round_trip(days in -2_440_588i32..2_145_042_541) {
        let text = time::print_date(days);
        prop_assert_eq!(time::parse_date(&text), Some(days), "{}", text);
    }
    #[test]
    fn floats_round_trip(bits in any::<u64>()) {
        let v = f64::from_bits(bits);
        let text = literal(&Value::Float64(v));
        let Value::Float64(back) = decode(&Type::Float { bits: 64 }, Bytes::from(text.into_bytes())).unwrap() else { panic!() };
        prop_assert!(back.to_bits() == bits || (back.is_nan() && v.is_nan()));
    }
    #[test]
    fn text_arrays_round_trip(items in prop::collection::vec(prop::option::of(".{0,8}"), 0..6)) {
        let value = Value::Array(items.iter().map(|i| i.as_ref().map(|t| Value::Text(t.as_str().into()))).collect());
        let kind = Type::Array { element: Box::new(Type::Text { length: 0 }) };
        prop_assert_eq!(decode(&kind, Bytes::from(literal(&value).into_bytes())).unwrap(), value);
    }
    #[test]
    fn foreign_text_never_panics(text in ".{0,40}") {
        for kind in [
            Type::Bool, INT, Type::Float { bits: 64 }, Type::Decimal { precision: 0, scale: 0 }, Type::Bytes, Type::Date,
            Type::Time { digits: 6, zone: false }, Type::Timestamp { digits: 6 }, Type::Instant { digits: 6 },
            Type::Interval, Type::Array { element: Box::new(INT) },
        ] {
            let _ = decode(&kind, Bytes::copy_from_slice(text.as_bytes()));
        }
    }
    #[test]
    fn hostile_dates_never_panic(text in "[0-9:. +-]{0,30}( BC)?") {
        let _ = time::parse_date(&text);
        let _ = time::parse_time(&text);
        let _ = time::parse_timestamp(&text, time::Zone::None);
        let _ = time::parse_interval(&text);
    }
}

proptest! {
    /// The way without a slice of the frame gives what the other gives, or nothing.
    #[test]
    fn plain_columns_are_as_others(text in "[-+]?[0-9]{0,21}[.]?[0-9]{0,3}|[tf]|NaN|-?Infinity|2024-0[0-9]-[0-3][0-9]( 1[0-9]:00:0[0-9](\\+00)?)?") {
        let kinds = [
            Type::Bool,
            INT,
            Type::Int { bits: 64, unsigned: true },
            Type::Float { bits: 32 },
            Type::Float { bits: 64 },
            Type::Decimal { precision: 0, scale: 0 },
            Type::Date,
            Type::Time { digits: 6, zone: false },
            Type::Timestamp { digits: 6 },
            Type::Instant { digits: 6 },
            Type::Text { length: 0 },
        ];
        for kind in kinds {
            // As text: NaN is not NaN.
            let same = |v: &Value| format!("{v:?}") == format!("{:?}", round(&kind, &text).0);
            prop_assert!(decode_plain(&kind, text.as_bytes()).as_ref().is_none_or(same), "{kind:?}");
        }
    }
}

#[test]
fn most_columns_go_the_plain_way() {
    for (kind, text) in [
        (Type::Bool, "t"),
        (INT, "-12"),
        (Type::Float { bits: 64 }, "0.25"),
        (Type::Decimal { precision: 12, scale: 2 }, "10.50"),
        (Type::Instant { digits: 6 }, "2024-06-01 12:00:00.5+00"),
    ] {
        assert!(decode_plain(&kind, text.as_bytes()).is_some(), "{kind:?}");
    }
    assert_eq!(decode_plain(&INT, b"1\xff"), None);
}
