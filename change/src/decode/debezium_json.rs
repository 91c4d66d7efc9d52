//! Pure. Debezium's JSON → event, the inverse of [`crate::encode::debezium_json`] for our own records.
//!
//! Walk: row-change 14/17
//!
//! `decode(encode(x)) == x` for every change; a change of a key comes back as the delete and the creation it was written
//! as. Reads `{schema, payload}` and bare values alike. Foreign bytes: bounded nesting, no panic, a cell that does not
//! fit its column is an error with the column's name and never with its content.

use crate::calendar;
use crate::encode::debezium_json::FLAT_HEADER;
use crate::encode::debezium_json::extension;
use crate::encode::debezium_json::snapshot_text;
use crate::encode::debezium_json::structured;
use crate::encode::debezium_json::value::{
    INFINITE_MS, INFINITY, MINUS_INFINITE_MS, MINUS_INFINITY, decimal_of_double, fixed_scale, parse_iso_interval,
};
use crate::encode::form::{BinaryMode, DecimalMode, FORM_HEADER, Form, IntervalMode, TimeMode, Unit};
use crate::event::{Event, Op, RowChange, SnapshotMark, SourceInfo};
use crate::exact::{self, EXACT_HEADER, Exact, ExactCell, ExactError, OUTSIDE_KEY};
use crate::json::{self, JsonError, Node};
use crate::row::{Cell, Row};
use crate::schema::{Column, TableSchema, Type};
use crate::stamp::{STAMP_HEADER, Stamp, StampError, flag};
use crate::value::{Decimal, Value};
use bytes::Bytes;
use std::sync::Arc;

mod rows;

/// What a record says.
#[derive(Clone, PartialEq, Debug)]
pub enum Decoded {
    Event(Event),
    /// Nothing beyond the delete before it.
    Tombstone(Stamp),
}

/// Why a record is no event.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum DecodeError {
    #[error("the record has no cw.stamp header")]
    NoStamp,
    #[error("cw.stamp: {0}")]
    Stamp(#[from] StampError),
    #[error("cw.exact: {0}")]
    Exact(String),
    #[error("{0}")]
    Form(#[from] crate::encode::form::UnknownForm),
    #[error("value: {0}")]
    Json(#[from] JsonError),
    #[error("value has no {0}")]
    Missing(&'static str),
    #[error("operation is not known")]
    Op,
    #[error("column {column} does not hold a {kind}")]
    Cell { column: String, kind: &'static str },
    #[error("transforms of the source changed the record: it is no row any more")]
    Transformed,
}

impl From<ExactError> for DecodeError {
    fn from(e: ExactError) -> Self {
        DecodeError::Exact(e.to_string())
    }
}

/// The stamp among a record's headers; `None` = the record is not ours.
pub fn stamp<'h>(headers: impl IntoIterator<Item = (&'h [u8], Option<&'h [u8]>)>) -> Option<Result<Stamp, StampError>> {
    headers.into_iter().find(|(k, _)| *k == STAMP_HEADER).map(|(_, v)| Stamp::decode(v.unwrap_or_default()))
}

/// Decodes one record. `schema` is the one [`Stamp::schema_no`] names; find it with [`stamp`] first.
pub fn decode<'h>(
    value: Option<&[u8]>,
    headers: impl IntoIterator<Item = (&'h [u8], Option<&'h [u8]>)> + Clone,
    schema: &Arc<TableSchema>,
) -> Result<Decoded, DecodeError> {
    let stamp = stamp(headers.clone()).ok_or(DecodeError::NoStamp)??;
    if stamp.flags & flag::TRANSFORMED != 0 {
        return Err(DecodeError::Transformed);
    }
    let flat = headers.clone().into_iter().find(|(k, _)| *k == FLAT_HEADER).map(|(_, v)| v.unwrap_or_default());
    if value.is_none() && flat.is_none() {
        return Ok(Decoded::Tombstone(stamp));
    }
    let form = match headers.clone().into_iter().find(|(k, _)| *k == FORM_HEADER) {
        Some((_, v)) => Form::decode(v.unwrap_or_default())?,
        None => Form::default(),
    };
    let marks = match headers.into_iter().find(|(k, _)| *k == EXACT_HEADER) {
        Some((_, v)) => exact::decode(v.unwrap_or_default())?,
        None => Vec::new(),
    };
    if let Some(before) = flat {
        return flat_event(value, before, stamp, schema, &form, &marks).map(Decoded::Event);
    }
    let node = json::parse(value.unwrap_or_default())?;
    let node = node.get("payload").unwrap_or(&node);
    let op = node.get("op").and_then(Node::as_str).and_then(|o| o.bytes().next()).and_then(Op::from_letter);
    let op = op.ok_or(DecodeError::Op)?;
    let before = row(node.get("before"), schema, &form, &marks, false)?;
    let after = row(node.get("after"), schema, &form, &marks, true)?;
    let source = node.get("source").ok_or(DecodeError::Missing("source"))?;
    let change = RowChange {
        table: schema.clone(),
        op,
        before,
        after,
        snapshot: snapshot(source.get("snapshot").and_then(Node::as_str).unwrap_or("false")),
        info: info(source),
    };
    Ok(Decoded::Event(Event { change, stamp }))
}

/// The rows of a change alone, much cheaper than [`decode`]: operation and rows are the same, `snapshot` and `info` are
/// not read. `value` is the record's, of which texts become slices; `stamp` its stamp.
///
/// # Errors
/// As [`decode`], but bytes behind the rows are not looked at; a tombstone has no value.
pub fn rows<'h>(
    value: Option<&Bytes>,
    headers: impl IntoIterator<Item = (&'h [u8], Option<&'h [u8]>)> + Clone,
    stamp: &Stamp,
    schema: &Arc<TableSchema>,
) -> Result<RowChange, DecodeError> {
    let (mut form, mut marks, mut flat) = (None, None, false);
    for (key, header) in headers.clone() {
        match key {
            FORM_HEADER if form.is_none() => form = Some(Form::decode(header.unwrap_or_default())?),
            EXACT_HEADER if marks.is_none() => marks = Some(exact::decode(header.unwrap_or_default())?),
            FLAT_HEADER => flat = true,
            _ => {}
        }
    }
    let is_row = !flat && stamp.flags & flag::TRANSFORMED == 0;
    if let (true, Some(value), Some(op)) = (is_row, value, Op::from_letter(stamp.op))
        && let Some((before, after)) = rows::read(value, schema, &form.unwrap_or_default(), &marks.unwrap_or_default())
    {
        let (snapshot, info) = (SnapshotMark::No, SourceInfo::None);
        return Ok(RowChange { table: schema.clone(), op, before, after, snapshot, info });
    }
    match decode(value.map(|v| &v[..]), headers, schema)? {
        Decoded::Event(event) => Ok(event.change),
        Decoded::Tombstone(_) => Err(DecodeError::Missing("rows")),
    }
}

/// A row without its envelope: the stamp says what became of it, the header what it was before.
fn flat_event(
    value: Option<&[u8]>,
    before: &[u8],
    stamp: Stamp,
    schema: &Arc<TableSchema>,
    form: &Form,
    marks: &[ExactCell],
) -> Result<Event, DecodeError> {
    let op = Op::from_letter(stamp.op).ok_or(DecodeError::Op)?;
    let before = if before.is_empty() { Node::Null } else { json::parse(before)? };
    let before = row(Some(&before), schema, form, marks, false)?;
    let after = match (op, value) {
        (Op::Delete | Op::Truncate, _) => None,
        (_, None) => return Err(DecodeError::Missing("row")),
        (_, Some(value)) => {
            let node = json::parse(value)?;
            // A row may itself have columns of these names, and no others.
            let is_both = |n: &Node<'_>| matches!(n, Node::Object(m) if m.len() == 2 && m[0].0 == "schema" && m[1].0 == "payload");
            let has_both = ["schema", "payload"].iter().all(|n| schema.column(n).is_some());
            let framed = is_both(&node) && (!has_both || node.get("payload").is_some_and(is_both));
            row(if framed { node.get("payload") } else { Some(&node) }, schema, form, marks, true)?
        }
    };
    let snapshot = if stamp.flags & flag::SNAPSHOT != 0 { SnapshotMark::Middle } else { SnapshotMark::No };
    let txid = stamp.txn.as_ref().and_then(|t| std::str::from_utf8(&t.0).ok()?.parse().ok());
    let info = match txid {
        Some(txid) => SourceInfo::Postgres { lsn: None, txid: Some(txid), last_commit_lsn: None },
        None => SourceInfo::None,
    };
    let change = RowChange { table: schema.clone(), op, before, after, snapshot, info };
    Ok(Event { change, stamp })
}

fn snapshot(text: &str) -> SnapshotMark {
    use SnapshotMark::*;
    [First, FirstInCollection, Middle, LastInCollection, Last, Incremental]
        .into_iter()
        .find(|m| snapshot_text(*m) == text)
        .unwrap_or(No)
}

fn info(source: &Node<'_>) -> SourceInfo {
    match source.get("connector").and_then(Node::as_str) {
        _ if source.get("lsn").is_some() => {
            let sequence =
                source.get("sequence").and_then(Node::as_str).and_then(|s| match json::parse(s.as_bytes()) {
                    Ok(Node::Array(parts)) => parts.first().and_then(Node::as_str).and_then(|t| t.parse().ok()),
                    _ => None,
                });
            SourceInfo::Postgres {
                lsn: source.get("lsn").and_then(Node::as_u64),
                txid: source.get("txId").and_then(Node::as_u64).and_then(|t| u32::try_from(t).ok()),
                last_commit_lsn: sequence,
            }
        }
        Some("sqlite") => match source.get("seq").and_then(Node::as_u64) {
            Some(seq) => SourceInfo::Sqlite { seq },
            None => SourceInfo::None,
        },
        _ => SourceInfo::None,
    }
}

fn row(
    node: Option<&Node<'_>>,
    schema: &TableSchema,
    form: &Form,
    marks: &[ExactCell],
    after: bool,
) -> Result<Option<Row>, DecodeError> {
    let members = match node {
        None | Some(Node::Null) => return Ok(None),
        Some(Node::Object(members)) => members,
        Some(_) => return Err(DecodeError::Missing(if after { "row in after" } else { "row in before" })),
    };
    let mut cells = Vec::with_capacity(schema.columns.len());
    for (at, column) in schema.columns.iter().enumerate() {
        // Members stand in the order of the columns, but for those left out.
        let found = members
            .get(at)
            .filter(|(k, _)| *k == column.name)
            .or_else(|| members.iter().rev().find(|(k, _)| *k == column.name));
        let Some((_, node)) = found else {
            cells.push(Cell::Absent);
            continue;
        };
        cells.push(cell(node, mark(marks, schema, at, after), column, form)?);
    }
    Ok(Some(Row { cells }))
}

fn cell(node: &Node<'_>, what: Option<&Exact>, column: &Column, form: &Form) -> Result<Cell, DecodeError> {
    Ok(match what {
        Some(Exact::Unavailable) => Cell::Unavailable,
        Some(Exact::Absent) => Cell::Absent,
        Some(Exact::Null) => Cell::Null,
        Some(Exact::Text(text)) => Cell::Value(exact::value_of(&column.kind, text).ok_or_else(|| wrong(column))?),
        None => return cell_of(node, column, form),
    })
}

/// Of a cell that the header says nothing of.
fn cell_of(node: &Node<'_>, column: &Column, form: &Form) -> Result<Cell, DecodeError> {
    if *node == Node::Null {
        return Ok(Cell::Null);
    }
    Ok(Cell::Value(value(node, form, &column.kind, &column.native_type).ok_or_else(|| wrong(column))?))
}

/// What the header says of a column.
fn mark<'m>(marks: &'m [ExactCell], schema: &TableSchema, at: usize, after: bool) -> Option<&'m Exact> {
    let of =
        |column: usize| marks.iter().find(|m| m.after == after && usize::from(m.column) == column).map(|m| &m.what);
    of(at).or_else(|| if schema.is_key(at) { None } else { of(usize::from(OUTSIDE_KEY)) })
}

fn wrong(column: &Column) -> DecodeError {
    let kind = match &column.kind {
        Type::Bool => "boolean",
        Type::Int { .. } => "whole number",
        Type::Float { .. } => "number",
        Type::Decimal { .. } => "decimal",
        Type::Bytes => "base64 text",
        Type::Array { .. } => "array",
        _ => "value of its type",
    };
    DecodeError::Cell { column: column.name.clone(), kind }
}

fn value(node: &Node<'_>, form: &Form, kind: &Type, native: &str) -> Option<Value> {
    let text = || node.as_str().map(|s| Value::Text(s.into()));
    if form.time == TimeMode::Structured
        && let Some(value) = structured::read(node, kind)
    {
        return Some(value);
    }
    Some(match kind {
        Type::Bool => match node {
            Node::Bool(v) => Value::Bool(*v),
            _ => return None,
        },
        Type::Int { unsigned: false, .. } => Value::Int(node.as_i64()?),
        Type::Int { unsigned: true, .. } => Value::UInt(node.as_u64()?),
        Type::Float { bits: 32 } => Value::Float32(float_text(node)?.parse().ok()?),
        Type::Float { .. } => Value::Float64(float_text(node)?.parse().ok()?),
        Type::Decimal { .. } => Value::Decimal(decimal(node, form, fixed_scale(form, kind, native))?),
        Type::Bytes => Value::Bytes(
            match form.binary {
                BinaryMode::Bytes | BinaryMode::Base64 => json::from_base64(node.as_str()?)?,
                BinaryMode::Base64UrlSafe => json::from_base64(&node.as_str()?.replace('-', "+").replace('_', "/"))?,
                BinaryMode::Hex => json::from_hex(node.as_str()?)?,
            }
            .into(),
        ),
        Type::Date if form.time.timestamp(6) == Unit::Iso => Value::Date(match node.as_str()? {
            INFINITY => i32::MAX,
            MINUS_INFINITY => i32::MIN,
            text => i32::try_from(calendar::parse_date(text.strip_suffix('Z')?)?).ok()?,
        }),
        Type::Date => Value::Date(i32::try_from(node.as_i64()?).ok()?),
        Type::Time { digits, zone: false } => Value::Time(match form.time.time(*digits) {
            Unit::Iso => calendar::parse_clock(node.as_str()?.strip_suffix('Z')?)?,
            unit => micros(node.as_i64()?, unit)?,
        }),
        Type::Timestamp { digits } => Value::Timestamp(match (form.time.timestamp(*digits), node) {
            (Unit::Iso, node) => match node.as_str()? {
                INFINITY => i64::MAX,
                MINUS_INFINITY => i64::MIN,
                text => calendar::parse_instant(text)?,
            },
            (unit, node) => match (unit, node.as_i64()?) {
                (Unit::Millis, INFINITE_MS) => i64::MAX,
                (Unit::Millis, MINUS_INFINITE_MS) => i64::MIN,
                (Unit::Nanos, v @ (i64::MAX | i64::MIN)) => v,
                (unit, v) => micros(v, unit)?,
            },
        }),
        Type::Instant { .. } => Value::Instant(match node.as_str()? {
            "infinity" => i64::MAX,
            "-infinity" => i64::MIN,
            text => calendar::parse_instant(text)?,
        }),
        Type::Interval if form.interval == IntervalMode::String => parse_iso_interval(node.as_str()?)?,
        Type::Interval => Value::Interval { months: 0, days: 0, micros: node.as_i64()? },
        Type::Json { .. } => Value::Json(node.as_str()?.into()),
        Type::Bits { length, varying } => match node {
            Node::Bool(v) => Value::Text(if *v { "1" } else { "0" }.into()),
            _ => Value::Text(bits(node.as_str()?, if *varying { 0 } else { *length })?.into()),
        },
        Type::Array { element } => match node {
            Node::Array(items) => {
                let native = native.strip_suffix("[]").unwrap_or(native);
                let items = items.iter().map(|item| match item {
                    Node::Null => Some(None),
                    item => value(item, form, element, native).map(Some),
                });
                Value::Array(items.collect::<Option<_>>()?)
            }
            _ => text()?,
        },
        Type::Other => match extension::read(node, native) {
            Some(text) => Value::Text(text.into()),
            None => text()?,
        },
        Type::Text { .. } | Type::Uuid | Type::Enum { .. } | Type::Xml | Type::Time { .. } => text()?,
    })
}

/// A number, or one of the three words for what is none.
fn float_text<'n>(node: &'n Node<'_>) -> Option<&'n str> {
    match node {
        Node::Number(n) => Some(n),
        Node::String(s) if matches!(s.as_ref(), "NaN" | "Infinity" | "-Infinity") => Some(s),
        _ => None,
    }
}

fn micros(v: i64, unit: Unit) -> Option<i64> {
    match unit {
        Unit::Millis => v.checked_mul(1000),
        Unit::Nanos => Some(v.div_euclid(1000)),
        Unit::Micros | Unit::Iso => Some(v),
    }
}

fn decimal(node: &Node<'_>, form: &Form, fixed: Option<i32>) -> Option<Decimal> {
    match form.decimal {
        DecimalMode::String => match node.as_str()? {
            "NAN" => Some(Decimal::NaN),
            "POSITIVE_INFINITY" => Some(Decimal::Infinity),
            "NEGATIVE_INFINITY" => Some(Decimal::NegInfinity),
            text => Decimal::parse(text).ok(),
        },
        DecimalMode::Double => decimal_of_double(float_text(node)?, fixed),
        DecimalMode::Precise => match (fixed, node) {
            (Some(scale), _) => Some(Decimal::Finite { unscaled: json::from_base64(node.as_str()?)?.into(), scale }),
            (None, Node::String(text)) => Decimal::parse(text).ok(),
            (None, _) => {
                let scale = i32::try_from(node.get("scale")?.as_i64()?).ok()?;
                Some(Decimal::Finite { unscaled: json::from_base64(node.get("value")?.as_str()?)?.into(), scale })
            }
        },
    }
}

/// `length` 0 = as many bits as there are.
fn bits(text: &str, length: u32) -> Option<String> {
    let bytes = json::from_base64(text)?;
    let all: String = bytes.iter().rev().map(|b| format!("{b:08b}")).collect();
    let all = all.trim_start_matches('0');
    if length as usize > 8 * 1024 * 1024 {
        return None;
    }
    Some(format!("{all:0>width$}", width = length as usize))
}
