//! Pure. `{"schema":…,"payload":` of keys and values, as Connect's JsonConverter writes it with `schemas.enable=true`.
//!
//! The text of a shape is made once and put in front of each record's payload. Field order: type, parts, optional, name,
//! version, doc, parameters, default, field. Source: recordings `*.schemas.jsonl` (Debezium 3.7.0.Final).

use super::defects::Road;
use super::value::{bare, delimiter, fixed_scale};
use super::{Options, Placed, default, defects, structured};
use crate::encode::form::{BinaryMode, DecimalMode, Form, HstoreMode, IntervalMode, TimeMode, Unit};
use crate::json;
use crate::schema::{Column, TableSchema, Type};
use bytes::Bytes;
use std::borrow::Cow;

/// What stands before the payloads of one shape.
#[derive(Debug)]
pub struct Inline {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    /// Of rows without their envelope, and of the nulls of their deletes.
    pub flat: Vec<u8>,
    pub flat_null: Vec<u8>,
}

/// What stands after a payload.
pub const END: u8 = b'}';

/// A record that is of no table: its payload alone, or behind `schema` and with its end.
pub(super) fn framed(with_schema: bool, schema: &str, payload: &dyn Fn(&mut Vec<u8>)) -> Bytes {
    let mut out = Vec::with_capacity(256);
    if with_schema {
        out.extend_from_slice(schema.as_bytes());
    }
    payload(&mut out);
    if with_schema {
        out.push(END);
    }
    out.into()
}

pub(super) fn inline(
    table: &TableSchema,
    topic: &str,
    connector: &str,
    options: &Options,
    road: Road,
    placed: Option<&Placed>,
) -> Inline {
    let mut key = Vec::new();
    key.extend_from_slice(b"{\"schema\":{\"type\":\"struct\",\"fields\":[");
    let columns = if options.defects { defects::key_columns(table) } else { None };
    let is_there = |c: &&Column| !defects::is_missing(options, c, road);
    let columns = columns.unwrap_or(&table.key).iter().filter_map(|at| table.columns.get(usize::from(*at)));
    for (i, column) in columns.filter(is_there).enumerate() {
        if i > 0 {
            key.push(b',');
        }
        // Debezium says nothing of masks and source types in a key.
        put_column(&mut key, options, column, Vec::new());
    }
    for (name, _) in placed.map_or(&[][..], |p| &p.key_fields) {
        key.extend_from_slice(b",{\"type\":\"string\",\"optional\":false,\"field\":");
        json::put_string(&mut key, name);
        key.push(b'}');
    }
    let own = |of: &str| options.schema_names.schema(&format!("{topic}.{of}")).into_owned();
    let routed =
        |name: fn(&Placed) -> &Option<String>, of| placed.and_then(|p| name(p).clone()).unwrap_or_else(|| own(of));
    key.extend_from_slice(b"],\"optional\":false,\"name\":");
    json::put_string(&mut key, &routed(|p| &p.key_name, "Key"));
    key.extend_from_slice(b"},\"payload\":");

    let mut row = Vec::new();
    row.extend_from_slice(b"{\"type\":\"struct\",\"fields\":[");
    // The stream has no generated columns.
    let shown = table.columns.iter().filter(|c| !c.generated || road == Road::Jdbc).filter(is_there);
    for (i, column) in shown.enumerate() {
        if i > 0 {
            row.push(b',');
        }
        put_column(&mut row, options, column, parameters_of(options, table, column, road));
    }
    let (mut flat, mut flat_null) = (Vec::new(), Vec::new());
    let name = routed(|p| &p.row_name, "Value");
    if let Some(of) = placed.and_then(|p| p.flat.as_deref()) {
        flat.extend_from_slice(b"{\"schema\":");
        flat.extend_from_slice(&row);
        of.put_schema(&mut flat);
        flat.extend_from_slice(b"],\"optional\":false,\"name\":");
        json::put_string(&mut flat, &name);
        flat.extend_from_slice(b"},\"payload\":");
    }
    row.extend_from_slice(b"],\"optional\":true,\"name\":");
    json::put_string(&mut row, &name);
    if !flat.is_empty() {
        flat_null.extend_from_slice(b"{\"schema\":");
        flat_null.extend_from_slice(&row);
        flat_null.extend_from_slice(b"},\"payload\":null");
    }
    let mut value = Vec::with_capacity(row.len() * 2 + 2048);
    value.extend_from_slice(b"{\"schema\":{\"type\":\"struct\",\"fields\":[");
    for image in ["before", "after"] {
        value.extend_from_slice(&row);
        value.extend_from_slice(b",\"field\":");
        json::put_string(&mut value, image);
        value.extend_from_slice(b"},");
    }
    value.extend_from_slice(source(connector).as_bytes());
    value.extend_from_slice(TAIL.as_bytes());
    json::put_string(&mut value, &routed(|p| &p.envelope_name, "Envelope"));
    value.extend_from_slice(b",\"version\":2},\"payload\":");
    Inline { key, value, flat, flat_null }
}

/// What the schema of `source.snapshot` says besides its type.
pub(super) const SNAPSHOTS: &str = concat!(
    r#","name":"io.debezium.data.Enum","version":1,"parameters":{"allowed":"true,first,first_in_data_collection,"#,
    r#"last_in_data_collection,last,false,incremental"}"#
);

const TAIL: &str = concat!(
    r#"{"type":"struct","fields":[{"type":"string","optional":false,"field":"id"},"#,
    r#"{"type":"int64","optional":false,"field":"total_order"},"#,
    r#"{"type":"int64","optional":false,"field":"data_collection_order"}],"#,
    r#""optional":true,"name":"event.block","version":1,"field":"transaction"},"#,
    r#"{"type":"string","optional":false,"field":"op"},{"type":"int64","optional":true,"field":"ts_ms"},"#,
    r#"{"type":"int64","optional":true,"field":"ts_us"},{"type":"int64","optional":true,"field":"ts_ns"}],"#,
    r#""optional":false,"name":"#
);

/// The `source` block's field, a comma behind it.
pub(super) fn source(connector: &str) -> String {
    const COMMON: &str = concat!(
        r#"{"type":"struct","fields":[{"type":"string","optional":false,"field":"version"},"#,
        r#"{"type":"string","optional":false,"field":"connector"},{"type":"string","optional":false,"field":"name"},"#,
        r#"{"type":"int64","optional":false,"field":"ts_ms"},{"type":"string","optional":true,"#,
        r#""name":"io.debezium.data.Enum","version":1,"parameters":{"allowed":"true,first,first_in_data_collection,"#,
        r#"last_in_data_collection,last,false,incremental"},"default":"false","field":"snapshot"},"#,
        r#"{"type":"string","optional":false,"field":"db"},{"type":"string","optional":true,"field":"sequence"},"#,
        r#"{"type":"int64","optional":true,"field":"ts_us"},{"type":"int64","optional":true,"field":"ts_ns"},"#,
        r#"{"type":"string","optional":false,"field":"schema"},{"type":"string","optional":false,"field":"table"}"#
    );
    let own = match connector {
        "postgresql" => concat!(
            r#",{"type":"int64","optional":true,"field":"txId"},{"type":"int64","optional":true,"field":"lsn"},"#,
            r#"{"type":"int64","optional":true,"field":"xmin"},{"type":"string","optional":true,"field":"origin"},"#,
            r#"{"type":"int64","optional":true,"field":"origin_lsn"}"#
        ),
        _ => r#",{"type":"int64","optional":true,"field":"seq"}"#,
    };
    format!(
        r#"{COMMON}{own}],"optional":false,"name":"io.debezium.connector.{connector}.Source","version":1,"field":"source"}},"#
    )
}

/// May the column's field be null?
pub(super) fn is_optional(column: &Column) -> bool {
    // Shapes of these are optional whatever the column says (recording `postgis`).
    let always = ["geometry", "box", "circle", "line", "lseg", "path", "polygon"];
    column.nullable != Some(false) || (column.kind == Type::Other && always.contains(&bare(&column.native_type)))
}

/// May the items of an array of these be null?
pub(super) fn items_optional(element: &Type, native: &str) -> bool {
    let never = *element == Type::Other && matches!(bare(native), "vector" | "halfvec" | "sparsevec" | "tsvector");
    !matches!(element, Type::Enum { .. }) && !never
}

/// `more` = parameters besides the shape's own.
fn put_column(out: &mut Vec<u8>, options: &Options, column: &Column, more: Vec<(String, String)>) {
    put_open(out, options, column, more);
    put_field(out, &column.name);
}

/// Ends a schema that is a field's.
pub(super) fn put_field(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"field\":");
    json::put_string(out, name);
    out.push(b'}');
}

/// What a column's field is in the row's schema, but for its name and the closing brace.
pub(super) fn put_of(out: &mut Vec<u8>, options: &Options, table: &TableSchema, column: &Column, road: Road) {
    put_open(out, options, column, parameters_of(options, table, column, road));
}

fn parameters_of(options: &Options, table: &TableSchema, column: &Column, road: Road) -> Vec<(String, String)> {
    let mut more = options.parameters.0.as_ref().map(|of| of(table, column)).unwrap_or_default();
    if options.defects {
        defects::parameters(&mut more, column, road);
    }
    more
}

fn put_open(out: &mut Vec<u8>, options: &Options, column: &Column, more: Vec<(String, String)>) {
    let optional = is_optional(column);
    let mut shape = shape_of(options, column);
    let mut more: Vec<(Cow<'static, str>, String)> = more.into_iter().map(|(k, v)| (k.into(), v)).collect();
    if let Shape::Plain { parameters, .. } = &mut shape {
        parameters.append(&mut more);
    }
    put_shape(out, &shape, optional);
    put_parameters(out, &more);
    if shape.takes_default() {
        default::put(out, options, column, b",\"default\":");
    }
}

/// A Connect schema, as far as ours go.
pub(super) enum Shape {
    Plain {
        kind: &'static str,
        name: &'static str,
        parameters: Vec<(Cow<'static, str>, String)>,
    },
    /// Text of everything between the braces before `,"optional"`, and of what follows it.
    Fixed {
        before: &'static str,
        after: &'static str,
    },
    Array {
        items: Box<Shape>,
        items_optional: bool,
    },
}

impl Shape {
    fn takes_default(&self) -> bool {
        matches!(self, Shape::Plain { .. })
    }
}

pub(super) fn plain(kind: &'static str, name: &'static str) -> Shape {
    Shape::Plain { kind, name, parameters: Vec::new() }
}

pub(super) fn shape(form: &Form, kind: &Type, native: &str) -> Shape {
    let iso = form.time == TimeMode::IsoString;
    let connect = form.time == TimeMode::Connect;
    if form.time == TimeMode::Structured
        && let Some(shape) = structured::shape(kind)
    {
        return shape;
    }
    match kind {
        Type::Bool => plain("boolean", ""),
        Type::Bits { length: 1, .. } => plain("boolean", ""),
        Type::Int { bits: 0..=16, unsigned: false } => plain("int16", ""),
        Type::Int { bits: 17..=32, unsigned: false } | Type::Int { bits: 0..=16, unsigned: true } => plain("int32", ""),
        Type::Int { .. } => plain("int64", ""),
        Type::Float { bits: 32 } => plain("float", ""),
        Type::Float { .. } => plain("double", ""),
        Type::Decimal { precision, .. } => match (form.decimal, fixed_scale(form, kind, native)) {
            (DecimalMode::Double, _) => plain("double", ""),
            (DecimalMode::String, _) => plain("string", ""),
            (DecimalMode::Precise, None) => Shape::Fixed {
                before: concat!(
                    r#""type":"struct","fields":[{"type":"int32","optional":false,"field":"scale"},"#,
                    r#"{"type":"bytes","optional":false,"field":"value"}]"#
                ),
                after: r#","name":"io.debezium.data.VariableScaleDecimal","version":1,"doc":"Variable scaled decimal""#,
            },
            (DecimalMode::Precise, Some(scale)) => {
                let mut parameters = vec![("scale".into(), scale.to_string())];
                if *precision > 0 {
                    parameters.push(("connect.decimal.precision".into(), precision.to_string()));
                }
                Shape::Plain { kind: "bytes", name: "org.apache.kafka.connect.data.Decimal", parameters }
            }
        },
        Type::Bytes if form.binary == BinaryMode::Bytes => plain("bytes", ""),
        Type::Bytes => plain("string", ""),
        Type::Date if iso => plain("string", "io.debezium.time.IsoDate"),
        Type::Date if connect => plain("int32", "org.apache.kafka.connect.data.Date"),
        Type::Date => plain("int32", "io.debezium.time.Date"),
        Type::Time { zone: true, .. } => plain("string", "io.debezium.time.ZonedTime"),
        Type::Time { .. } if connect => plain("int32", "org.apache.kafka.connect.data.Time"),
        Type::Time { digits, .. } => match form.time.time(*digits) {
            Unit::Millis => plain("int32", "io.debezium.time.Time"),
            Unit::Micros => plain("int64", "io.debezium.time.MicroTime"),
            Unit::Nanos => plain("int64", "io.debezium.time.NanoTime"),
            Unit::Iso => plain("string", "io.debezium.time.IsoTime"),
        },
        Type::Timestamp { .. } if connect => plain("int64", "org.apache.kafka.connect.data.Timestamp"),
        Type::Timestamp { digits } => match form.time.timestamp(*digits) {
            Unit::Millis => plain("int64", "io.debezium.time.Timestamp"),
            Unit::Micros => plain("int64", "io.debezium.time.MicroTimestamp"),
            Unit::Nanos => plain("int64", "io.debezium.time.NanoTimestamp"),
            Unit::Iso => plain("string", "io.debezium.time.IsoTimestamp"),
        },
        Type::Instant { .. } => plain("string", "io.debezium.time.ZonedTimestamp"),
        Type::Interval if form.interval == IntervalMode::String => plain("string", "io.debezium.time.Interval"),
        Type::Interval => plain("int64", "io.debezium.time.MicroDuration"),
        Type::Uuid => plain("string", "io.debezium.data.Uuid"),
        Type::Json { .. } => plain("string", "io.debezium.data.Json"),
        Type::Xml => plain("string", "io.debezium.data.Xml"),
        Type::Enum { labels } => Shape::Plain {
            kind: "string",
            name: "io.debezium.data.Enum",
            parameters: vec![("allowed".into(), labels.join(","))],
        },
        Type::Bits { length, varying } => {
            let length = if *varying && *length == 0 { i32::MAX as u32 } else { *length };
            Shape::Plain {
                kind: "bytes",
                name: "io.debezium.data.Bits",
                parameters: vec![("length".into(), length.to_string())],
            }
        }
        Type::Array { element } => {
            let native = native.strip_suffix("[]").unwrap_or(native);
            Shape::Array {
                items: Box::new(shape(form, element, native)),
                items_optional: items_optional(element, native),
            }
        }
        Type::Text { .. } => plain("string", ""),
        Type::Other => other(form, native),
    }
}

/// Types known by their name alone.
fn other(form: &Form, native: &str) -> Shape {
    const POINT: &str = concat!(
        r#""type":"struct","fields":[{"type":"double","optional":false,"field":"x"},"#,
        r#"{"type":"double","optional":false,"field":"y"},{"type":"bytes","optional":true,"field":"wkb"},"#,
        r#"{"type":"int32","optional":true,"field":"srid"}]"#
    );
    const VECTOR: &str = r#""type":"array","items":{"type":"double","optional":false}"#;
    const SPARSE: &str = concat!(
        r#""type":"struct","fields":[{"type":"int16","optional":false,"field":"dimensions"},{"type":"map","#,
        r#""keys":{"type":"int16","optional":false},"values":{"type":"double","optional":false},"#,
        r#""optional":false,"field":"vector"}]"#
    );
    if let Some(element) = native.strip_suffix("[]")
        && delimiter(element).is_some()
    {
        return Shape::Array { items: Box::new(other(form, element)), items_optional: true };
    }
    match bare(native) {
        "vector" => Shape::Fixed { before: VECTOR, after: r#","name":"io.debezium.data.DoubleVector","version":1"# },
        "halfvec" => Shape::Fixed {
            before: r#""type":"array","items":{"type":"float","optional":false}"#,
            after: r#","name":"io.debezium.data.FloatVector","version":1"#,
        },
        "sparsevec" => Shape::Fixed {
            before: SPARSE,
            after: r#","name":"io.debezium.data.SparseDoubleVector","version":1,"doc":"Sparse double vector""#,
        },
        "geography" => Shape::Fixed {
            before: concat!(
                r#""type":"struct","fields":[{"type":"bytes","optional":false,"field":"wkb"},"#,
                r#"{"type":"int32","optional":true,"field":"srid"}]"#
            ),
            after: r#","name":"io.debezium.data.geometry.Geography","version":1,"doc":"Geography""#,
        },
        "hstore" if form.hstore == HstoreMode::Map => Shape::Fixed {
            before: r#""type":"map","keys":{"type":"string","optional":false},"values":{"type":"string","optional":true}"#,
            after: "",
        },
        "hstore" => plain("string", "io.debezium.data.Json"),
        "ltree" => plain("string", "io.debezium.data.Ltree"),
        "tsvector" => plain("string", "io.debezium.data.Tsvector"),
        "point" => Shape::Fixed {
            before: POINT,
            after: r#","name":"io.debezium.data.geometry.Point","version":1,"doc":"Geometry (POINT)""#,
        },
        "line" => Shape::Fixed {
            before: concat!(
                r#""type":"struct","fields":[{"type":"double","optional":false,"field":"a"},"#,
                r#"{"type":"double","optional":false,"field":"b"},{"type":"double","optional":false,"field":"c"}]"#
            ),
            after: r#","name":"io.debezium.data.geometry.Line","version":1,"doc":"Geometry (LINE)""#,
        },
        "circle" => Shape::Fixed {
            before: concat!(
                r#""type":"struct","fields":[{"type":"struct","fields":[{"type":"double","optional":false,"field":"x"},"#,
                r#"{"type":"double","optional":false,"field":"y"},{"type":"bytes","optional":true,"field":"wkb"},"#,
                r#"{"type":"int32","optional":true,"field":"srid"}],"optional":false,"#,
                r#""name":"io.debezium.data.geometry.Point","version":1,"doc":"Geometry (POINT)","field":"center"},"#,
                r#"{"type":"double","optional":false,"field":"radius"}]"#
            ),
            after: r#","name":"io.debezium.data.geometry.Circle","version":1,"doc":"Geometry (CIRCLE)""#,
        },
        "lseg" | "box" | "path" | "polygon" | "geometry" => Shape::Fixed {
            before: concat!(
                r#""type":"struct","fields":[{"type":"bytes","optional":false,"field":"wkb"},"#,
                r#"{"type":"int32","optional":true,"field":"srid"},{"type":"map","keys":{"type":"string","#,
                r#""optional":false},"values":{"type":"string","optional":false},"optional":true,"field":"extensions"}]"#
            ),
            after: r#","name":"io.debezium.data.geometry.Geometry","version":2,"doc":"Geometry""#,
        },
        _ => plain("string", ""),
    }
}

/// Everything but the closing brace.
fn put_shape(out: &mut Vec<u8>, shape: &Shape, optional: bool) {
    let optional: &[u8] = if optional { b",\"optional\":true" } else { b",\"optional\":false" };
    out.push(b'{');
    match shape {
        Shape::Fixed { before, after } => {
            out.extend_from_slice(before.as_bytes());
            out.extend_from_slice(optional);
            out.extend_from_slice(after.as_bytes());
        }
        Shape::Array { items, items_optional } => {
            out.extend_from_slice(b"\"type\":\"array\",\"items\":");
            put_shape(out, items, *items_optional);
            out.push(b'}');
            out.extend_from_slice(optional);
        }
        Shape::Plain { kind, name, parameters } => {
            out.extend_from_slice(b"\"type\":\"");
            out.extend_from_slice(kind.as_bytes());
            out.push(b'"');
            out.extend_from_slice(optional);
            if !name.is_empty() {
                out.extend_from_slice(b",\"name\":\"");
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(b"\",\"version\":1");
            }
            put_parameters(out, parameters);
        }
    }
}

fn put_parameters(out: &mut Vec<u8>, parameters: &[(Cow<'static, str>, String)]) {
    for (i, (key, value)) in parameters.iter().enumerate() {
        out.extend_from_slice(if i == 0 { b",\"parameters\":{" } else { b"," });
        json::put_string(out, key);
        out.push(b':');
        json::put_string(out, value);
    }
    if !parameters.is_empty() {
        out.push(b'}');
    }
}

fn shape_of(options: &Options, column: &Column) -> Shape {
    let other = if options.defects { defects::shape(&options.form, column) } else { None };
    other.unwrap_or_else(|| shape(&options.form, &column.kind, &column.native_type))
}

/// Connect's type of a column's field.
pub(super) fn kind(options: &Options, column: &Column) -> &'static str {
    match shape_of(options, column) {
        Shape::Plain { kind, .. } => kind,
        Shape::Array { .. } => "array",
        Shape::Fixed { before, .. } => before.split('"').nth(3).unwrap_or("struct"),
    }
}

/// True if the column's schema has room for a default.
pub(super) fn takes_default(options: &Options, column: &Column) -> bool {
    shape_of(options, column).takes_default()
}
