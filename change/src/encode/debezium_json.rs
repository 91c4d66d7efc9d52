//! Pure. Event → key, value and headers in Debezium's JSON: envelope `before, after, source, transaction, op, ts_ms, ts_us,
//! ts_ns`, default representations, field order included.
//!
//! Walk: row-change 7/17
//!
//! One change gives one record, a delete two (`d`, tombstone), a change of the key three (`d` of the old key with
//! `__debezium.newkey`, tombstone, `c` of the new key with `__debezium.oldkey`); each has an ordinal of its own, so a
//! crash between them loses none and repeats none. How many is a function of the change alone (capture.md 4.5 R7).
//!
//! Rule where Debezium is lossy or wrong (capture.md 6): the right value in the nearest legal form, and what that form
//! cannot say in the header `cw.exact`; `decode` gives back the very same change. Source: the recordings under
//! `tests/golden` (Debezium 3.7.0.Final).

use crate::calendar;
use crate::event::{Op, RowChange, SnapshotMark, SourceInfo};
use crate::exact::{self, Exact, ExactCell, OUTSIDE_KEY};
use crate::json;
use crate::row::{Cell, Row};
use crate::schema::{Column, TableSchema, Type};
use crate::stamp::{STAMP_HEADER, Stamp, flag};
use crate::value::{Decimal, Value};
use bytes::Bytes;
use catchwater_base::Wall;

/// What stands for a value that exists but was not sent.
pub const UNAVAILABLE: &str = "__debezium_unavailable_value";
pub const NEW_KEY_HEADER: &[u8] = b"__debezium.newkey";
pub const OLD_KEY_HEADER: &[u8] = b"__debezium.oldkey";
/// Milliseconds of a timestamp that is infinite. Source: `time-adaptive` recording, `ts3`.
pub(crate) const INFINITE_MS: i64 = 9_223_372_036_825_200_000;
pub(crate) const MINUS_INFINITE_MS: i64 = -9_223_372_036_832_400_000;
/// 30.4375 days. Source: Debezium `MicroDuration.DAYS_PER_MONTH_AVG`.
const MONTH_US: i128 = 2_629_800_000_000;
const DAY_US: i128 = 86_400_000_000;

/// What is the same for all records of a source.
#[derive(Clone, Debug)]
pub struct Encoder {
    /// `source.connector`: `postgresql`, `sqlite`.
    pub connector: &'static str,
    /// `source.version`.
    pub version: String,
    /// Logical name = topic prefix.
    pub name: String,
    /// A tombstone after each delete.
    pub tombstones: bool,
}

/// One record to be made of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece {
    /// The change as it is.
    Whole,
    /// The delete of the old key, when the key changed.
    OldKey,
    /// Null value for the old key.
    Tombstone,
    /// The creation under the new key.
    NewKey,
}

/// A finished record, ready for a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Encoded {
    pub key: Option<Bytes>,
    /// `None` = tombstone.
    pub value: Option<Bytes>,
    pub headers: Vec<(Bytes, Bytes)>,
}

impl Encoded {
    /// Rough size on the wire, bytes.
    pub fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(k, v)| k.len() + v.len() + 4).sum();
        32 + self.key.as_ref().map_or(0, Bytes::len) + self.value.as_ref().map_or(0, Bytes::len) + headers
    }
}

/// Why a change cannot become a record.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum EncodeError {
    #[error("table {table}: the row has {cells} cells, its schema {columns} columns")]
    Shape { table: String, cells: usize, columns: usize },
    #[error("table {table}: key column {column} was not sent")]
    NoKey { table: String, column: String },
    #[error("table {table}: a {op} without its row")]
    NoRow { table: String, op: char },
}

impl Encoder {
    pub fn new(connector: &'static str, name: impl Into<String>) -> Self {
        Encoder { connector, version: "3.7.0.Final".into(), name: name.into(), tombstones: true }
    }

    /// The records a change becomes, in their order; at least one.
    pub fn pieces(&self, change: &RowChange) -> &'static [Piece] {
        match change.op {
            Op::Delete if !change.table.key.is_empty() && self.tombstones => &[Piece::Whole, Piece::Tombstone],
            Op::Update if key_changed(change) && self.tombstones => &[Piece::OldKey, Piece::Tombstone, Piece::NewKey],
            Op::Update if key_changed(change) => &[Piece::OldKey, Piece::NewKey],
            _ => &[Piece::Whole],
        }
    }

    /// Letter of the stamp for a piece: the operation, `b` for a tombstone.
    pub fn letter(change: &RowChange, piece: Piece) -> u8 {
        match piece {
            Piece::Whole => change.op.letter() as u8,
            Piece::OldKey => b'd',
            Piece::Tombstone => b'b',
            Piece::NewKey => b'c',
        }
    }

    /// The key a piece travels under, as JSON without schema: what the partition is chosen by. `None` = keyless.
    pub fn key(&self, change: &RowChange, piece: Piece) -> Result<Option<Bytes>, EncodeError> {
        if change.table.key.is_empty() || change.op == Op::Truncate {
            return Ok(None);
        }
        let old = matches!(piece, Piece::OldKey | Piece::Tombstone) || change.op == Op::Delete;
        key_json(change, old).map(|k| Some(k.into()))
    }

    /// Makes the record. `stamp` is complete but for INCOMPLETE, which is set here; `processed` = time of processing.
    pub fn encode(
        &self,
        change: &RowChange,
        piece: Piece,
        mut stamp: Stamp,
        processed: Wall,
    ) -> Result<Encoded, EncodeError> {
        let key = self.key(change, piece)?;
        let mut headers = Vec::with_capacity(3);
        if piece != Piece::Whole && change.op == Op::Update {
            let old = piece == Piece::NewKey;
            let header = if old { OLD_KEY_HEADER } else { NEW_KEY_HEADER };
            headers.push((Bytes::from_static(header), Bytes::from(key_json(change, old)?)));
        }
        let mut marks = Vec::new();
        let value = match piece {
            Piece::Tombstone => None,
            _ => Some(self.value(change, piece, &stamp, processed, &mut marks)?),
        };
        if marks.iter().any(|m| m.after && m.what == Exact::Unavailable) {
            stamp.flags |= flag::INCOMPLETE;
        }
        headers.push((Bytes::from_static(STAMP_HEADER), stamp.encode()));
        if !marks.is_empty() {
            headers.push((Bytes::from_static(exact::EXACT_HEADER), exact::encode(&marks)));
        }
        Ok(Encoded { key, value, headers })
    }

    fn value(
        &self,
        change: &RowChange,
        piece: Piece,
        stamp: &Stamp,
        processed: Wall,
        marks: &mut Vec<ExactCell>,
    ) -> Result<Bytes, EncodeError> {
        let table = &*change.table;
        let missing = || EncodeError::NoRow { table: table.qualified(), op: change.op.letter() };
        let (before, after) = match piece {
            Piece::OldKey => (change.before.as_ref(), None),
            Piece::NewKey => (None, change.after.as_ref()),
            _ => (change.before.as_ref(), change.after.as_ref()),
        };
        match Self::letter(change, piece) {
            b'd' if before.is_none() => return Err(missing()),
            b'c' | b'u' | b'r' if after.is_none() => return Err(missing()),
            _ => {}
        }
        let mut out = Vec::with_capacity(512);
        out.extend_from_slice(b"{\"before\":");
        put_row(&mut out, table, before, false, marks)?;
        out.extend_from_slice(b",\"after\":");
        put_row(&mut out, table, after, true, marks)?;
        out.extend_from_slice(b",\"source\":");
        self.put_source(&mut out, change, stamp);
        out.extend_from_slice(b",\"transaction\":null,\"op\":\"");
        out.push(Self::letter(change, piece));
        out.extend_from_slice(b"\",\"ts_ms\":");
        put_three_times(&mut out, processed);
        out.push(b'}');
        Ok(out.into())
    }

    fn put_source(&self, out: &mut Vec<u8>, change: &RowChange, stamp: &Stamp) {
        let table = &*change.table;
        let time = stamp.commit_time;
        out.extend_from_slice(b"{\"version\":");
        json::put_string(out, &self.version);
        out.extend_from_slice(b",\"connector\":");
        json::put_string(out, self.connector);
        out.extend_from_slice(b",\"name\":");
        json::put_string(out, &self.name);
        out.extend_from_slice(b",\"ts_ms\":");
        json::put_i64(out, time.as_millis());
        out.extend_from_slice(b",\"snapshot\":");
        json::put_string(out, snapshot_text(change.snapshot));
        out.extend_from_slice(b",\"db\":");
        json::put_string(out, &table.database);
        out.extend_from_slice(b",\"sequence\":");
        put_sequence(out, &change.info);
        out.extend_from_slice(b",\"ts_us\":");
        json::put_i64(out, time.as_micros());
        out.extend_from_slice(b",\"ts_ns\":");
        json::put_i64(out, time.as_micros().saturating_mul(1000));
        out.extend_from_slice(b",\"schema\":");
        json::put_string(out, &table.schema);
        out.extend_from_slice(b",\"table\":");
        json::put_string(out, &table.name);
        match &change.info {
            SourceInfo::Postgres { lsn, txid, .. } => {
                out.extend_from_slice(b",\"txId\":");
                put_option(out, txid.map(u64::from));
                out.extend_from_slice(b",\"lsn\":");
                put_option(out, *lsn);
                out.extend_from_slice(b",\"xmin\":null,\"origin\":null,\"origin_lsn\":null");
            }
            SourceInfo::Sqlite { seq } => {
                out.extend_from_slice(b",\"seq\":");
                json::put_u64(out, *seq);
            }
            SourceInfo::None => {}
        }
        out.push(b'}');
    }
}

fn put_three_times(out: &mut Vec<u8>, at: Wall) {
    json::put_i64(out, at.as_millis());
    out.extend_from_slice(b",\"ts_us\":");
    json::put_i64(out, at.as_micros());
    out.extend_from_slice(b",\"ts_ns\":");
    json::put_i64(out, at.as_micros().saturating_mul(1000));
}

fn put_option(out: &mut Vec<u8>, v: Option<u64>) {
    match v {
        Some(v) => json::put_u64(out, v),
        None => out.extend_from_slice(b"null"),
    }
}

/// `"[null,\"64636392\"]"`: a JSON array as text.
fn put_sequence(out: &mut Vec<u8>, info: &SourceInfo) {
    let SourceInfo::Postgres { lsn, last_commit_lsn, .. } = info else {
        out.extend_from_slice(b"null");
        return;
    };
    let part = |lsn: &Option<u64>| lsn.map_or("null".to_owned(), |l| format!("\"{l}\""));
    json::put_string(out, &format!("[{},{}]", part(last_commit_lsn), part(lsn)));
}

pub(crate) fn snapshot_text(mark: SnapshotMark) -> &'static str {
    match mark {
        SnapshotMark::No => "false",
        SnapshotMark::First => "first",
        SnapshotMark::FirstInCollection => "first_in_data_collection",
        SnapshotMark::Middle => "true",
        SnapshotMark::LastInCollection => "last_in_data_collection",
        SnapshotMark::Last => "last",
        SnapshotMark::Incremental => "incremental",
    }
}

/// True if an update moves its row to another key. A before image without a key cell says it did not.
pub fn key_changed(change: &RowChange) -> bool {
    let (Some(before), Some(after)) = (&change.before, &change.after) else { return false };
    change.table.key.iter().any(|k| {
        let at = usize::from(*k);
        match (before.cells.get(at), after.cells.get(at)) {
            (Some(Cell::Value(b)), Some(Cell::Value(a))) => b != a,
            (Some(Cell::Null), Some(Cell::Value(_))) | (Some(Cell::Value(_)), Some(Cell::Null)) => true,
            _ => false,
        }
    })
}

fn key_json(change: &RowChange, old: bool) -> Result<Vec<u8>, EncodeError> {
    let table = &*change.table;
    let (first, second) = match old {
        true => (&change.before, &change.after),
        false => (&change.after, &change.before),
    };
    let mut out = Vec::with_capacity(32);
    out.push(b'{');
    for (i, k) in table.key.iter().enumerate() {
        let at = usize::from(*k);
        let sent = |row: &Option<Row>| {
            row.as_ref().and_then(|r| r.cells.get(at)).filter(|c| matches!(c, Cell::Value(_) | Cell::Null)).cloned()
        };
        let column = table.columns.get(at);
        let name = column.map_or("", |c| c.name.as_str());
        let cell = sent(first)
            .or_else(|| sent(second))
            .ok_or_else(|| EncodeError::NoKey { table: table.qualified(), column: name.to_owned() })?;
        if i > 0 {
            out.push(b',');
        }
        json::put_string(&mut out, name);
        out.push(b':');
        match (cell, column) {
            (Cell::Value(v), Some(c)) => {
                put_value(&mut out, c, &v);
            }
            _ => out.extend_from_slice(b"null"),
        }
    }
    out.push(b'}');
    Ok(out)
}

fn put_row(
    out: &mut Vec<u8>,
    table: &TableSchema,
    row: Option<&Row>,
    after: bool,
    marks: &mut Vec<ExactCell>,
) -> Result<(), EncodeError> {
    let Some(row) = row else {
        out.extend_from_slice(b"null");
        return Ok(());
    };
    if row.cells.len() != table.columns.len() {
        let (cells, columns) = (row.cells.len(), table.columns.len());
        return Err(EncodeError::Shape { table: table.qualified(), cells, columns });
    }
    let key_alone = if after { None } else { key_alone(table, row) };
    if let Some(what) = &key_alone {
        marks.push(ExactCell { after, column: OUTSIDE_KEY, what: what.clone() });
    }
    out.push(b'{');
    let mut first = true;
    for (at, (cell, column)) in row.cells.iter().zip(&table.columns).enumerate() {
        // In an after image a column that is not captured is left out, as Debezium does; a generated one also before.
        if *cell == Cell::Absent && (after || column.generated) {
            continue;
        }
        if !first {
            out.push(b',');
        }
        first = false;
        json::put_string(out, &column.name);
        out.push(b':');
        let what = match cell {
            Cell::Null => {
                out.extend_from_slice(b"null");
                None
            }
            Cell::Value(v) => (!put_value(out, column, v)).then(|| Exact::Text(exact::text_of(&column.kind, v))),
            Cell::Unavailable => {
                if after {
                    put_unavailable(out, &column.kind);
                } else {
                    out.extend_from_slice(b"null");
                }
                (key_alone.is_none() || table.is_key(at)).then_some(Exact::Unavailable)
            }
            Cell::Absent => {
                out.extend_from_slice(b"null");
                (key_alone.is_none() || table.is_key(at)).then_some(Exact::Absent)
            }
        };
        if let Some(what) = what {
            marks.push(ExactCell { after, column: at as u16, what });
        }
    }
    out.push(b'}');
    Ok(())
}

/// The one kind of gap that fills every column outside the key of a before image.
fn key_alone(table: &TableSchema, row: &Row) -> Option<Exact> {
    let mut found = None;
    for (at, (cell, column)) in row.cells.iter().zip(&table.columns).enumerate() {
        if table.is_key(at) || (column.generated && *cell == Cell::Absent) {
            continue;
        }
        let what = match cell {
            Cell::Unavailable => Exact::Unavailable,
            Cell::Absent => Exact::Absent,
            _ => return None,
        };
        if found.get_or_insert(what.clone()) != &what {
            return None;
        }
    }
    found
}

fn put_unavailable(out: &mut Vec<u8>, kind: &Type) {
    match kind {
        Type::Bytes => json::put_base64(out, UNAVAILABLE.as_bytes()),
        Type::Array { element } if exact::carries_text(element) || matches!(**element, Type::Json { .. }) => {
            out.push(b'[');
            json::put_string(out, UNAVAILABLE);
            out.push(b']');
        }
        Type::Json { .. } => json::put_string(out, UNAVAILABLE),
        k if exact::carries_text(k) && !matches!(k, Type::Bits { .. }) => json::put_string(out, UNAVAILABLE),
        _ => out.extend_from_slice(b"null"),
    }
}

/// Writes a value in its column's default form; true if `decode` gives the same value back from it alone.
fn put_value(out: &mut Vec<u8>, column: &Column, value: &Value) -> bool {
    put_typed(out, &column.kind, &column.native_type, value)
}

fn put_typed(out: &mut Vec<u8>, kind: &Type, native: &str, value: &Value) -> bool {
    match (kind, value) {
        (Type::Bool, Value::Bool(v)) => put_bool(out, *v),
        (Type::Int { unsigned: false, .. }, Value::Int(v)) => {
            json::put_i64(out, *v);
            true
        }
        (Type::Int { unsigned: true, .. }, Value::UInt(v)) => {
            json::put_u64(out, *v);
            true
        }
        (Type::Float { bits: 32 }, Value::Float32(v)) => {
            json::put_f32(out, *v);
            !v.is_nan() || v.to_bits() == f32::NAN.to_bits()
        }
        (Type::Float { bits: 64 }, Value::Float64(v)) => {
            json::put_f64(out, *v);
            !v.is_nan() || v.to_bits() == f64::NAN.to_bits()
        }
        (Type::Decimal { .. }, Value::Decimal(d)) => put_decimal(out, fixed_scale(kind, native), d),
        (Type::Bytes, Value::Bytes(b)) => {
            json::put_base64(out, b);
            true
        }
        (Type::Date, Value::Date(d)) => {
            json::put_i64(out, i64::from(*d));
            true
        }
        (Type::Time { digits, zone: false }, Value::Time(us)) => put_scaled(out, *us, *digits),
        (Type::Time { zone: true, .. }, Value::Text(t)) => {
            let utc = calendar::zoned_time_utc(t.as_str());
            json::put_string(out, utc.as_deref().unwrap_or(t.as_str()));
            utc.is_none_or(|u| u == t.as_str())
        }
        (Type::Timestamp { digits }, Value::Timestamp(us)) => match *us {
            i64::MAX if *digits <= 3 => {
                json::put_i64(out, INFINITE_MS);
                true
            }
            i64::MIN if *digits <= 3 => {
                json::put_i64(out, MINUS_INFINITE_MS);
                true
            }
            us => put_scaled(out, us, *digits),
        },
        (Type::Instant { digits }, Value::Instant(us)) => {
            match *us {
                i64::MAX => json::put_string(out, "infinity"),
                i64::MIN => json::put_string(out, "-infinity"),
                us => json::put_string(out, &calendar::instant_text(us, *digits)),
            }
            true
        }
        (Type::Interval, Value::Interval { months, days, micros }) => {
            let all = i128::from(*months) * MONTH_US + i128::from(*days) * DAY_US + i128::from(*micros);
            let clamped = all.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
            json::put_i64(out, clamped);
            *months == 0 && *days == 0
        }
        (Type::Json { .. }, Value::Json(t)) => {
            json::put_string(out, t.as_str());
            true
        }
        (Type::Bits { length, varying }, Value::Text(t)) => put_bits(out, *length, *varying, t.as_str()),
        (Type::Other, Value::Text(t)) if geometry::put(out, native, t.as_str()) => false,
        (Type::Other, Value::Text(t)) if native == "hstore" => put_hstore(out, t.as_str()),
        (k, Value::Text(t)) if exact::carries_text(k) => {
            json::put_string(out, t.as_str());
            true
        }
        (Type::Array { element }, Value::Array(items)) => {
            let native = native.strip_suffix("[]").unwrap_or(native);
            let mut same = true;
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                match item {
                    None => out.extend_from_slice(b"null"),
                    Some(v) => same &= put_typed(out, element, native, v),
                }
            }
            out.push(b']');
            same
        }
        // An array that is no vector travels as text.
        (Type::Array { .. }, Value::Text(t)) => {
            json::put_string(out, t.as_str());
            true
        }
        _ => {
            put_by_itself(out, value);
            false
        }
    }
}

fn put_bool(out: &mut Vec<u8>, v: bool) -> bool {
    out.extend_from_slice(if v { b"true" } else { b"false" });
    true
}

/// Milliseconds up to three digits, microseconds above.
fn put_scaled(out: &mut Vec<u8>, micros: i64, digits: u32) -> bool {
    if digits > 3 {
        json::put_i64(out, micros);
        return true;
    }
    json::put_i64(out, micros.div_euclid(1000));
    micros.rem_euclid(1000) == 0
}

/// The scale all values of the column share: `org.apache.kafka.connect.data.Decimal`; `None` = each has its own.
pub(crate) fn fixed_scale(kind: &Type, native: &str) -> Option<i32> {
    match kind {
        Type::Decimal { precision: 1.., scale } => Some(*scale),
        // Two fraction digits unless the server's lc_monetary says otherwise (`money.fraction.digits`).
        Type::Decimal { scale, .. } if native == "money" => Some(if *scale > 0 { *scale } else { 2 }),
        _ => None,
    }
}

fn put_decimal(out: &mut Vec<u8>, fixed: Option<i32>, value: &Decimal) -> bool {
    let Decimal::Finite { unscaled, scale } = value else {
        // The schema type has no room for these; a number reader fails loudly instead of reading a null.
        json::put_string(out, &value.to_string());
        return fixed.is_none();
    };
    match fixed {
        None => {
            out.extend_from_slice(b"{\"scale\":");
            json::put_i64(out, i64::from(*scale));
            out.extend_from_slice(b",\"value\":");
            json::put_base64(out, unscaled);
            out.push(b'}');
            true
        }
        Some(want) if want == *scale => {
            json::put_base64(out, unscaled);
            true
        }
        Some(want) => {
            match value.rescale(want) {
                Some(Decimal::Finite { unscaled, .. }) => json::put_base64(out, &unscaled),
                _ => json::put_string(out, &value.to_string()),
            }
            false
        }
    }
}

/// Little-endian bytes without leading zeros, as `java.util.BitSet.toByteArray`; one bit is a boolean.
fn put_bits(out: &mut Vec<u8>, length: u32, varying: bool, text: &str) -> bool {
    if !text.bytes().all(|b| matches!(b, b'0' | b'1')) {
        json::put_string(out, text);
        return false;
    }
    let whole = text.len() == length as usize;
    if length == 1 && !varying {
        return put_bool(out, text == "1") && whole;
    }
    let mut bytes: Vec<u8> =
        text.as_bytes().rchunks(8).map(|bits| bits.iter().fold(0u8, |byte, bit| byte << 1 | (bit - b'0'))).collect();
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    json::put_base64(out, &bytes);
    if varying { !text.starts_with('0') } else { whole }
}

/// A value in a column of another kind (SQLite stores what it is given).
fn put_by_itself(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Bool(v) => {
            put_bool(out, *v);
        }
        Value::Int(v) | Value::Time(v) | Value::Timestamp(v) => json::put_i64(out, *v),
        Value::UInt(v) => json::put_u64(out, *v),
        Value::Decimal(d) => json::put_string(out, &d.to_string()),
        Value::Float32(v) => json::put_f32(out, *v),
        Value::Float64(v) => json::put_f64(out, *v),
        Value::Text(t) | Value::Json(t) => json::put_string(out, t.as_str()),
        Value::Bytes(b) => json::put_base64(out, b),
        Value::Date(v) => json::put_i64(out, i64::from(*v)),
        Value::Instant(v) => json::put_string(out, &calendar::instant_text(*v, 6)),
        Value::Interval { months, days, micros } => {
            json::put_string(out, &exact::interval_text(*months, *days, *micros));
        }
        Value::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                match item {
                    None => out.extend_from_slice(b"null"),
                    Some(v) => put_by_itself(out, v),
                }
            }
            out.push(b']');
        }
    }
}

/// `"k 1"=>"v", "k2"=>NULL` → JSON text of an object.
fn put_hstore(out: &mut Vec<u8>, text: &str) -> bool {
    let Some(pairs) = parse_hstore(text) else {
        json::put_string(out, text);
        return true;
    };
    let mut object = Vec::new();
    object.push(b'{');
    for (i, (key, value)) in pairs.iter().enumerate() {
        if i > 0 {
            object.push(b',');
        }
        json::put_string(&mut object, key);
        object.push(b':');
        match value {
            Some(v) => json::put_string(&mut object, v),
            None => object.extend_from_slice(b"null"),
        }
    }
    object.push(b'}');
    json::put_string(out, std::str::from_utf8(&object).unwrap_or("{}"));
    false
}

fn parse_hstore(text: &str) -> Option<Vec<(String, Option<String>)>> {
    fn quoted(rest: &mut &str) -> Option<String> {
        *rest = rest.strip_prefix('"')?;
        let mut out = String::new();
        let mut chars = rest.char_indices();
        while let Some((i, c)) = chars.next() {
            match c {
                '"' => {
                    *rest = &rest[i + 1..];
                    return Some(out);
                }
                '\\' => out.push(chars.next()?.1),
                c => out.push(c),
            }
        }
        None
    }
    let mut rest = text;
    let mut out = Vec::new();
    while !rest.is_empty() {
        let key = quoted(&mut rest)?;
        rest = rest.strip_prefix("=>")?;
        let value = match rest.strip_prefix("NULL") {
            Some(tail) => {
                rest = tail;
                None
            }
            None => Some(quoted(&mut rest)?),
        };
        out.push((key, value));
        rest = match rest.strip_prefix(", ") {
            Some(tail) => tail,
            None if rest.is_empty() => rest,
            None => return None,
        };
    }
    Some(out)
}

mod geometry;

#[cfg(test)]
mod tests;
