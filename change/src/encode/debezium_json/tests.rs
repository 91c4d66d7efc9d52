//! decode(encode(x)) == x over random schemas and rows.

#![allow(clippy::unwrap_used)]
use super::placed::{Placed, Places, SOURCE_FIELDS};
use super::*;
use crate::decode::debezium_json::{Decoded, decode, rows as rows_of};
use crate::encode::form::{BinaryMode, DecimalMode, HstoreMode, IntervalMode, TimeMode};
use crate::event::Event;
use crate::schema::{Column, KeyFrom, Type};
use crate::stamp::{Native, Version};
use crate::value::{Decimal, Value};
use catchwater_record::{CaptureId, CommitSeq, Incarnation, TopicId};
use proptest::prelude::*;

fn column(id: usize, kind: Type) -> Column {
    Column {
        id: id as u32,
        name: format!("c{id}"),
        native_type: "any".into(),
        domain: String::new(),
        native_id: 0,
        modifier: -1,
        kind,
        nullable: Some(id % 3 != 2),
        generated: false,
        identity: false,
        default: if id % 4 == 1 { "'1'".into() } else { String::new() },
        missing: None,
        comment: String::new(),
    }
}

fn table(columns: Vec<Column>, key: Vec<u16>) -> TableSchema {
    TableSchema {
        schema_no: 7,
        table_no: 1,
        native_id: 0,
        database: "db".into(),
        schema: "public".into(),
        name: "t".into(),
        comment: String::new(),
        identity: b'd',
        key_from: KeyFrom::PrimaryKey,
        columns,
        key,
        unique: Vec::new(),
        fingerprint: [0; 16],
        topic: TopicId::NONE,
    }
}

fn leaf() -> impl Strategy<Value = Type> {
    prop_oneof![
        Just(Type::Bool),
        any::<bool>().prop_map(|unsigned| Type::Int { bits: 64, unsigned }),
        prop_oneof![Just(32u32), Just(64)].prop_map(|bits| Type::Float { bits }),
        (0u32..3, 0i32..4).prop_map(|(p, scale)| Type::Decimal { precision: p * 10, scale }),
        Just(Type::Text { length: 0 }),
        Just(Type::Bytes),
        Just(Type::Date),
        (0u32..7, any::<bool>()).prop_map(|(digits, zone)| Type::Time { digits, zone }),
        (0u32..7).prop_map(|digits| Type::Timestamp { digits }),
        (0u32..7).prop_map(|digits| Type::Instant { digits }),
        Just(Type::Interval),
        Just(Type::Uuid),
        Just(Type::Json { binary: true }),
        (1u32..20, any::<bool>()).prop_map(|(length, varying)| Type::Bits { length, varying }),
        Just(Type::Other),
    ]
}

fn kind() -> impl Strategy<Value = Type> {
    prop_oneof![4 => leaf(), 1 => leaf().prop_map(|e| Type::Array { element: Box::new(e) })]
}

fn decimal() -> impl Strategy<Value = Decimal> {
    prop_oneof![
        8 => (any::<i64>(), 0u32..6).prop_map(|(v, scale)| {
            let text = format!("{v}e-{scale}");
            Decimal::parse(&text).unwrap()
        }),
        1 => Just(Decimal::NaN),
        1 => Just(Decimal::Infinity),
        1 => Just(Decimal::NegInfinity),
    ]
}

fn fit(kind: &Type) -> BoxedStrategy<Value> {
    match kind {
        Type::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        Type::Int { unsigned: false, .. } => any::<i64>().prop_map(Value::Int).boxed(),
        Type::Int { .. } => any::<u64>().prop_map(Value::UInt).boxed(),
        Type::Float { bits: 32 } => any::<u32>().prop_map(|b| Value::Float32(f32::from_bits(b))).boxed(),
        Type::Float { .. } => any::<u64>().prop_map(|b| Value::Float64(f64::from_bits(b))).boxed(),
        Type::Decimal { .. } => decimal().prop_map(Value::Decimal).boxed(),
        Type::Bytes => proptest::collection::vec(any::<u8>(), 0..9).prop_map(|b| Value::Bytes(b.into())).boxed(),
        Type::Date => prop_oneof![any::<i32>(), Just(i32::MAX), Just(i32::MIN)].prop_map(Value::Date).boxed(),
        Type::Time { zone: false, .. } => (0i64..=86_400_000_000).prop_map(Value::Time).boxed(),
        Type::Time { .. } => prop_oneof![
            Just("12:34:56.789012+02"),
            Just("00:00:00+00"),
            Just("24:00:00-15:59"),
            Just("nonsense"),
            Just("06:49:56Z")
        ]
        .prop_map(|t| Value::Text(t.into()))
        .boxed(),
        Type::Timestamp { .. } => {
            prop_oneof![any::<i64>(), Just(i64::MAX), Just(i64::MIN)].prop_map(Value::Timestamp).boxed()
        }
        Type::Instant { .. } => prop_oneof![
            (-200_000_000_000_000_000i64..9_000_000_000_000_000_000).prop_map(|v| v),
            Just(i64::MAX),
            Just(i64::MIN)
        ]
        .prop_map(Value::Instant)
        .boxed(),
        Type::Interval => (prop_oneof![Just(0), any::<i32>()], prop_oneof![Just(0), any::<i32>()], any::<i64>())
            .prop_map(|(months, days, micros)| Value::Interval { months, days, micros })
            .boxed(),
        Type::Json { .. } => any::<String>().prop_map(|t| Value::Json(t.into())).boxed(),
        Type::Bits { .. } => "[01]{0,20}".prop_map(|t| Value::Text(t.into())).boxed(),
        Type::Array { element } => prop_oneof![
            4 => proptest::collection::vec(proptest::option::of(fit(element)), 0..4).prop_map(Value::Array),
            1 => any::<String>().prop_map(|t| Value::Text(t.into())),
        ]
        .boxed(),
        _ => any::<String>().prop_map(|t| Value::Text(t.into())).boxed(),
    }
}

fn cell(own: Type) -> impl Strategy<Value = Cell> {
    prop_oneof![
        12 => fit(&own).prop_map(Cell::Value),
        // A value of another kind, as SQLite stores.
        2 => kind().prop_flat_map(|k| fit(&k)).prop_map(Cell::Value),
        2 => Just(Cell::Null),
        1 => Just(Cell::Unavailable),
        1 => Just(Cell::Absent),
    ]
}

fn rows(table: &TableSchema) -> impl Strategy<Value = (Row, Row, bool)> + use<> {
    let one = |table: &TableSchema| {
        let cells: Vec<BoxedStrategy<Cell>> = table
            .columns
            .iter()
            .enumerate()
            .map(|(i, c)| {
                if table.is_key(i) { fit(&c.kind).prop_map(Cell::Value).boxed() } else { cell(c.kind.clone()).boxed() }
            })
            .collect();
        cells.prop_map(|cells| Row { cells })
    };
    (one(table), one(table), any::<bool>())
}

fn change() -> impl Strategy<Value = RowChange> {
    (proptest::collection::vec(kind(), 1..6), 0usize..3, 0u8..5)
        .prop_flat_map(|(kinds, keys, op)| {
            let keys = keys.min(kinds.len());
            let columns: Vec<_> = kinds.into_iter().enumerate().map(|(i, k)| column(i, k)).collect();
            let table = table(columns, (0..keys as u16).collect());
            let rows = rows(&table);
            (Just(Arc::new(table)), rows, Just(op))
        })
        .prop_map(|(table, (mut before, after, alone), op)| {
            let op = [Op::Create, Op::Update, Op::Delete, Op::Read, Op::Truncate][usize::from(op)];
            if alone {
                for (i, c) in before.cells.iter_mut().enumerate() {
                    if !table.is_key(i) {
                        *c = Cell::Absent;
                    }
                }
            }
            let (before, after) = match op {
                Op::Create | Op::Read => (None, Some(after)),
                Op::Update => (Some(before), Some(after)),
                Op::Delete => (Some(before), None),
                Op::Truncate | Op::Message => (None, None),
            };
            let info = SourceInfo::Postgres { lsn: Some(9), txid: Some(3), last_commit_lsn: None };
            RowChange { table, op, before, after, snapshot: SnapshotMark::No, info }
        })
}

/// Every topic's rows lose their envelope, and keys say where they are from.
struct Flattened(Arc<Flat>);

impl Places for Flattened {
    fn table(&self, topic: &str) -> Placed {
        let key_fields = vec![("__from".to_owned(), topic.to_owned())];
        Placed { topic: "all".into(), key_fields, flat: Some(self.0.clone()), ..Placed::default() }
    }
    fn other(&self, topic: &str) -> Result<String, String> {
        Ok(topic.to_owned())
    }
}

/// Every mode, schemas inline or not, with envelope or without.
fn options() -> impl Strategy<Value = Options> {
    let decimal = prop_oneof![Just(DecimalMode::Precise), Just(DecimalMode::Double), Just(DecimalMode::String)];
    let time = prop_oneof![
        Just(TimeMode::Adaptive),
        Just(TimeMode::AdaptiveMicros),
        Just(TimeMode::Connect),
        Just(TimeMode::IsoString),
        Just(TimeMode::Micros),
        Just(TimeMode::Nanos),
        Just(TimeMode::Structured)
    ];
    let binary = prop_oneof![
        Just(BinaryMode::Bytes),
        Just(BinaryMode::Base64),
        Just(BinaryMode::Base64UrlSafe),
        Just(BinaryMode::Hex)
    ];
    let interval = prop_oneof![Just(IntervalMode::Numeric), Just(IntervalMode::String)];
    let hstore = prop_oneof![Just(HstoreMode::Json), Just(HstoreMode::Map)];
    let deletes =
        prop_oneof![Just(Deletes::Drop), Just(Deletes::Null), Just(Deletes::Tombstone), Just(Deletes::Rewrite)];
    let flat = proptest::option::of((deletes, any::<bool>(), proptest::collection::vec(0..SOURCE_FIELDS.len(), 0..4)));
    let switches = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), flat);
    (decimal, time, binary, hstore, interval, 0u8..4, switches).prop_map(
        |(decimal, time, binary, hstore, interval, money_digits, (default, schema, defects, defaults, flat))| {
            let form = Form { decimal, time, binary, hstore, interval, money_digits };
            let form = if default { Form::default() } else { form };
            Options {
                form,
                key_schema: schema,
                value_schema: schema,
                context_headers: schema,
                defects,
                value_defaults: defaults,
                placing: Placing(flat.map(|(deletes, tombstones, fields)| {
                    let added = |(i, at)| Added { name: format!("__{i}"), what: Part::Source(at) };
                    let fields: Vec<Added> = fields.into_iter().enumerate().map(added).collect();
                    let flat = Flat { deletes, tombstones, headers: fields.clone(), fields };
                    Arc::new(Flattened(Arc::new(flat))) as Arc<dyn Places>
                })),
                ..Options::default()
            }
        },
    )
}

pub(super) fn stamp(change: &RowChange, piece: Piece) -> Stamp {
    Stamp {
        op: Encoder::letter(change, piece),
        flags: 0,
        version: Version { incarnation: Incarnation(1), commit_seq: CommitSeq(5), ordinal: 0 },
        total: 0,
        source: CaptureId(1),
        commit_time: Wall::from_micros(1_795_263_085_330_483),
        schema_no: 7,
        native: Native::postgres(77),
        txn: None,
    }
}

/// NaN is equal to itself here, and bit patterns count.
fn same(a: &Event, b: &Event) -> bool {
    format!("{a:?}") == format!("{b:?}") && bits_of(&a.change) == bits_of(&b.change)
}

fn bits_of(change: &RowChange) -> Vec<u64> {
    fn of(v: &Value, out: &mut Vec<u64>) {
        match v {
            Value::Float32(f) => out.push(u64::from(f.to_bits())),
            Value::Float64(f) => out.push(f.to_bits()),
            Value::Array(items) => items.iter().flatten().for_each(|v| of(v, out)),
            _ => {}
        }
    }
    let mut out = Vec::new();
    for row in [&change.before, &change.after].into_iter().flatten() {
        row.cells.iter().filter_map(Cell::value).for_each(|v| of(v, &mut out));
    }
    out
}

fn decoded(encoded: &Encoded, table: &Arc<TableSchema>) -> Decoded {
    let headers: Vec<(&[u8], Option<&[u8]>)> = encoded.headers.iter().map(|(k, v)| (&k[..], v.as_deref())).collect();
    let whole = decode(encoded.value.as_deref(), headers.clone(), table).unwrap();
    if let Decoded::Event(event) = &whole {
        // Who wants the rows alone reads the same.
        let mut change = rows_of(encoded.value.as_ref(), headers, &event.stamp, table).unwrap();
        (change.snapshot, change.info) = (event.change.snapshot, event.change.info.clone());
        let alone = Event { change, stamp: event.stamp.clone() };
        assert!(same(&alone, event), "\n{alone:?}\n{event:?}");
    }
    whole
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn decode_undoes_encode(change in change(), options in options()) {
        let encoder = Encoder::with("postgresql", "pg", options);
        let pieces = encoder.pieces(&change);
        let flat = encoder.options.placing.0.is_some();
        prop_assert!(flat || !pieces.is_empty());
        for piece in pieces {
            let mut stamp = stamp(&change, *piece);
            let encoded = encoder.encode(&change, *piece, stamp.clone(), Wall::from_micros(5)).unwrap();
            if let Some(value) = &encoded.value {
                serde_json::from_slice::<serde_json::Value>(value).unwrap();
            }
            let unavailable = |row: &Option<Row>| row.as_ref().is_some_and(|r| r.cells.contains(&Cell::Unavailable));
            if matches!(piece, Piece::Whole | Piece::NewKey) && unavailable(&change.after) {
                stamp.flags |= flag::INCOMPLETE;
            }
            match (piece, decoded(&encoded, &change.table)) {
                (Piece::Tombstone, Decoded::Tombstone(got)) => prop_assert_eq!(got, stamp),
                (Piece::Tombstone, other) => prop_assert!(false, "{:?}", other),
                (_, Decoded::Event(mut got)) => {
                    let mut want = Event { change: change.clone(), stamp };
                    if flat {
                        // Of the source block the stamp has what is needed.
                        (got.change.info, got.change.snapshot) = (want.change.info.clone(), want.change.snapshot);
                        if want.change.op == Op::Delete {
                            want.change.after = None;
                        }
                    }
                    match piece {
                        Piece::OldKey => (want.change.op, want.change.after) = (Op::Delete, None),
                        Piece::NewKey => (want.change.op, want.change.before) = (Op::Create, None),
                        _ => {}
                    }
                    prop_assert!(same(&got, &want), "\n{:?}\n{:?}", got, want);
                }
                (_, other) => prop_assert!(false, "{:?}", other),
            }
        }
    }

    #[test]
    fn foreign_values_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let t = Arc::new(table(vec![column(0, Type::Bool)], vec![]));
        let change = RowChange { table: t.clone(), op: Op::Truncate, before: None, after: None,
            snapshot: SnapshotMark::No, info: SourceInfo::None };
        let stamp = stamp(&change, Piece::Whole).encode();
        let _ = decode(Some(&bytes), [(STAMP_HEADER, Some(&stamp[..])), (exact::EXACT_HEADER, Some(&bytes[..]))], &t);
    }
}

#[test]
fn a_change_of_the_key_is_three_records_with_the_other_key_in_a_header() {
    let t = Arc::new(table(vec![column(0, Type::Int { bits: 32, unsigned: false }), column(1, Type::Bool)], vec![0]));
    let row = |id| Row { cells: vec![Cell::Value(Value::Int(id)), Cell::Absent] };
    let change = RowChange {
        table: t,
        op: Op::Update,
        before: Some(row(2)),
        after: Some(row(10)),
        snapshot: SnapshotMark::No,
        info: SourceInfo::None,
    };
    let encoder = Encoder::new("postgresql", "pg");
    assert_eq!(encoder.pieces(&change), [Piece::OldKey, Piece::Tombstone, Piece::NewKey]);
    let all: Vec<_> = encoder
        .pieces(&change)
        .iter()
        .map(|p| encoder.encode(&change, *p, stamp(&change, *p), Wall::default()).unwrap())
        .collect();
    let text = |b: &Option<Bytes>| b.as_ref().map(|b| String::from_utf8(b.to_vec()).unwrap());
    assert_eq!(text(&all[0].key).as_deref(), Some("{\"c0\":2}"));
    assert_eq!(all[0].headers[0], (NEW_KEY_HEADER.into(), Some(Bytes::from_static(b"{\"c0\":10}"))));
    assert_eq!((text(&all[1].key).as_deref(), &all[1].value), (Some("{\"c0\":2}"), &None));
    assert_eq!(all[1].headers[0].0, NEW_KEY_HEADER);
    assert_eq!(text(&all[2].key).as_deref(), Some("{\"c0\":10}"));
    assert_eq!(all[2].headers[0], (OLD_KEY_HEADER.into(), Some(Bytes::from_static(b"{\"c0\":2}"))));
    assert!(text(&all[0].value).unwrap().starts_with("{\"before\":{\"c0\":2,\"c1\":null},\"after\":null,\"source\":{"));
}

/// Connect's JsonConverter refuses a record with one null in a required field.
#[test]
fn a_record_with_its_schema_has_no_null_where_a_value_is_required() {
    let moods = Type::Enum { labels: vec!["ok".into()] };
    let mut columns = vec![
        column(0, Type::Int { bits: 32, unsigned: false }),
        column(1, Type::Text { length: 0 }),
        column(2, Type::Decimal { precision: 5, scale: 2 }),
        column(3, Type::Instant { digits: 6 }),
        column(4, Type::Int { bits: 32, unsigned: false }),
        column(5, Type::Array { element: Box::new(moods) }),
        column(6, Type::Bool),
    ];
    for c in &mut columns[1..5] {
        c.nullable = Some(false);
    }
    columns[5].nullable = Some(true);
    columns[4].default = "618".into();
    let t = Arc::new(table(columns, vec![0]));
    let mut cells = vec![Cell::Value(Value::Int(7))];
    cells.resize(7, Cell::Unavailable);
    let change = RowChange {
        table: t.clone(),
        op: Op::Delete,
        before: Some(Row { cells: cells.clone() }),
        after: None,
        snapshot: SnapshotMark::No,
        info: SourceInfo::None,
    };
    let shown = |change: &RowChange, schema: bool, image: &str| {
        let options = Options { value_schema: schema, ..Options::default() };
        let stamp = stamp(change, Piece::Whole);
        let got = Encoder::with("postgresql", "pg", options)
            .encode(change, Piece::Whole, stamp, Wall::from_micros(0))
            .unwrap();
        let Decoded::Event(back) = decoded(&got, &change.table) else { panic!("{got:?}") };
        let back = back.change;
        assert_eq!(
            (&back.before, &back.after),
            (&change.before, &change.after),
            "and it is the same change all the same"
        );
        let text = String::from_utf8(got.value.unwrap().to_vec()).unwrap();
        let from = text.rfind(&format!("\"{image}\":{{")).unwrap() + image.len() + 3;
        text[from..=from + text[from..].find('}').unwrap()].to_owned()
    };
    assert_eq!(
        shown(&change, true, "before"),
        r#"{"c0":7,"c1":"1","c2":"AA==","c3":"1970-01-01T00:00:00Z","c4":618,"c5":null,"c6":null}"#
    );
    assert_eq!(
        shown(&change, false, "before"),
        r#"{"c0":7,"c1":null,"c2":null,"c3":null,"c4":null,"c5":null,"c6":null}"#
    );
    cells[1] = Cell::Value(Value::Text("x".into()));
    cells[2] = Cell::Value(Value::Decimal(Decimal::parse("1.00").unwrap()));
    cells[3] = Cell::Value(Value::Instant(0));
    cells[4] = Cell::Value(Value::Int(1));
    cells[5] = Cell::Value(Value::Array(vec![None, Some(Value::Text("ok".into()))]));
    cells[6] = Cell::Null;
    let change = RowChange { op: Op::Create, before: None, after: Some(Row { cells }), ..change };
    assert!(shown(&change, true, "after").contains(r#""c5":null"#), "its items are required");
    assert!(shown(&change, false, "after").contains(r#""c5":[null,"ok"]"#));
}

#[test]
fn a_delete_without_its_key_is_refused() {
    let t = Arc::new(table(vec![column(0, Type::Bool)], vec![0]));
    let before = Some(Row { cells: vec![Cell::Unavailable] });
    let change =
        RowChange { table: t, op: Op::Delete, before, after: None, snapshot: SnapshotMark::No, info: SourceInfo::None };
    let got = Encoder::new("postgresql", "pg").key(&change, Piece::Whole);
    assert_eq!(got, Err(EncodeError::NoKey { table: "public.t".into(), column: "c0".into() }));
}

/// The digits of a time are made once; where that would be another number they are not.
#[test]
fn a_time_in_three_units() {
    for micros in
        [0, 1, -1, 999, 1_000, 1_795_263_461_270_001, i64::MAX, i64::MIN, i64::MAX / 1_000, i64::MAX / 1_000 + 1]
    {
        let at = Wall::from_micros(micros);
        let mut out = Vec::new();
        super::parts::put_three_times(&mut out, at);
        let want = format!(
            "{},\"ts_us\":{},\"ts_ns\":{}",
            at.as_millis(),
            at.as_micros(),
            at.as_micros().saturating_mul(1000)
        );
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }
}

/// Source: schemas of a real Debezium 3.7.0.Final; defaults as PostgreSQL 17 prints them.
#[test]
fn defaults_of_bits_and_intervals_are_shown() {
    let bits = |length, varying| Type::Bits { length, varying };
    for (kind, native, default, want) in [
        (bits(0, true), "bit varying", "('000011'::\"bit\")::bit varying", "\"Aw==\""),
        (bits(12, true), "bit varying(12)", "('111001000'::\"bit\")::bit varying(12)", "\"yAE=\""),
        (bits(3, false), "bit(3)", "'011'::\"bit\"", "\"Aw==\""),
        (bits(1, false), "bit(1)", "'0'::bit(1)", "false"),
        (Type::Interval, "interval day to second", "'10:00:00'::interval day to second", "36000000000"),
        (Type::Interval, "interval(3)", "'00:00:01.5'::interval(3)", "1500000"),
        (Type::Interval, "interval year to month", "'-3 mons'::interval year to month", "-7889400000000"),
    ] {
        let mut c = column(0, kind);
        (c.native_type, c.default) = (native.into(), default.into());
        let options = Options { key_schema: true, ..Options::default() };
        let shown = super::schema::inline(&table(vec![c], vec![0]), "t", "postgresql", &options, Road::Stream, None);
        let text = String::from_utf8(shown.key).unwrap();
        assert!(text.contains(&format!("\"default\":{want},\"field\"")), "{default}: {text}");
    }
}

#[test]
fn a_point_that_is_no_number_is_a_point() {
    let c = Column { native_type: "point".into(), ..column(0, Type::Other) };
    let mut out = Vec::new();
    put_value(&mut out, &Form::default(), &c, &Value::Text("(NaN,Infinity)".into()));
    // Source: a real Debezium 3.7.0.Final.
    let want = r#"{"x":"NaN","y":"Infinity","wkb":"AQEAAAAAAAAAAAD4fwAAAAAAAPB/","srid":null}"#;
    assert_eq!(String::from_utf8(out).unwrap(), want);
}
