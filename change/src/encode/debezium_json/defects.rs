//! Pure. What Debezium 3.7.0.Final writes where it is wrong: `compat.defects: true` asks for these bytes
//! (`docs/debezium.md`, "Differences"; `docs/decisions/compat-defects.md`).
//!
//! Everything that differs between the two settings inside one record is decided here and below this folder. A function that
//! returns `false` or `None` has written nothing: the value has no defect, or Debezium's task stops at it and there is no
//! record of its to equal. Whatever stands in a record instead of its value is in `cw.exact`, so sinks do not see any of it.
//! Source: recordings of a real Debezium 3.7.0.Final (`tests/golden`, and the differential test of the PostgreSQL
//! connector), in brackets the Java that does it.

mod array;
mod cut;
mod default;
mod interval;
mod same;
mod shape;
mod time;
mod uuid;

use super::structured::{self, Days};
use super::value::{Placeholder, bare, fixed_scale, put_typed, put_value as put_shown};
use super::{Options, Piece, nothing};
use crate::calendar;
use crate::encode::form::{DecimalMode, Form, TimeMode, Unit};
use crate::event::{RowChange, SnapshotMark};
use crate::json;
use crate::row::{Cell, Row};
use crate::schema::{Column, KeyFrom, TableSchema, Type};
use crate::value::{Decimal, Value};
pub use cut::cut_units;
pub(super) use cut::{Cuts, Spot, parameters};
pub(super) use default::put as put_default;
pub(super) use shape::shape;
pub(super) use time::{by_fields, by_julian};

/// How a row reached Debezium: its snapshots read through JDBC, its stream through a parser of its own, and they err
/// differently.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Road {
    Jdbc,
    Stream,
}

impl Road {
    pub(super) fn of(change: &RowChange) -> Self {
        if change.snapshot == SnapshotMark::No { Road::Stream } else { Road::Jdbc }
    }
}

/// PostgreSQL keeps a scale in eleven bits with a sign, the driver reads them without (`TypeInfoCache.getScale`).
const SCALE_SPAN: i32 = 2048;
/// What an object's default text is when nobody wrote one (`Object.toString`): another number in each run.
const ADDRESS: &str = "@7f31245a";

/// Writes a value as Debezium does where that is another form than ours.
pub(super) fn put_value(out: &mut Vec<u8>, options: &Options, column: &Column, value: &Value, road: Road) -> bool {
    let form = &options.form;
    let native = column.native_type.as_str();
    let from = out.len();
    if is_lost(options, column, road) {
        nothing::put(out, options, false, column);
        return &out[from..] != b"null" || super::schema::is_optional(column);
    }
    let by = if road == Road::Jdbc { Days::Jdbc } else { Days::Stream };
    let done = match (&column.kind, value) {
        (kind, value) if form.time == TimeMode::Structured && structured::shape(kind).is_some() => {
            structured::put_defect(out, kind, native, value, by)
        }
        (Type::Date, Value::Date(days)) => time::put_date(out, form, *days, road),
        (Type::Time { zone: false, .. }, Value::Time(micros)) => time::put_time(out, form, *micros),
        (Type::Timestamp { digits }, Value::Timestamp(micros)) => time::put_timestamp(out, form, *digits, *micros),
        (Type::Timestamp { digits }, Value::Text(t)) => time::put_far(out, form, *digits, t.as_str()),
        (Type::Decimal { .. }, Value::Decimal(d)) => put_decimal(out, form, &column.kind, native, d),
        (Type::Interval, Value::Interval { months, days, micros }) => interval::put(out, form, *months, *days, *micros),
        // No bit is a null, with all that becomes of one.
        (Type::Bits { length: 1, varying: true }, Value::Text(t)) if t.as_str().is_empty() => {
            nothing::put(out, options, options.value_defaults, column);
            true
        }
        (_, value) if is_domain_array(column) => array::put_unknown(out, form, &column.native_type, value),
        (Type::Array { element }, value) => array::put(out, form, element, native, value),
        (Type::Other, Value::Text(t)) => put_other(out, options, native, t.as_str()),
        _ => false,
    };
    // A null in a required field stops Debezium's task: there is nothing to equal.
    if done && &out[from..] == b"null" && !super::schema::is_optional(column) {
        out.truncate(from);
        return false;
    }
    done
}

/// The parser of its stream has no values of type `name`, unless unknown types are asked for.
pub(super) fn is_lost(options: &Options, column: &Column, road: Road) -> bool {
    let is_name = matches!(column.kind, Type::Text { .. }) && column.native_type == "name";
    (is_name || is_dotted(&column.native_type)) && road == Road::Stream && !options.unknown_types
}

/// Its snapshot has no column of a type that it does not find by its name.
pub(super) fn is_missing(options: &Options, column: &Column, road: Road) -> bool {
    options.defects && road == Road::Jdbc && !options.unknown_types && is_dotted(&column.native_type)
}

/// A default of such a column is not found either.
pub(super) fn has_no_default(options: &Options, column: &Column) -> bool {
    options.defects && !options.unknown_types && is_dotted(&column.native_type)
}

/// True for `z."a.b"`, which it takes for three names; a type of `public` goes by its own name there.
fn is_dotted(native: &str) -> bool {
    let (schema, name) = match native.strip_prefix('"') {
        Some(quoted) => match quoted.find("\".") {
            Some(at) => (&quoted[..at], &quoted[at + 2..]),
            None => return false,
        },
        None => match native.split_once('.') {
            Some(both) => both,
            None => return false,
        },
    };
    schema != "public" && name.starts_with('"') && name.contains('.')
}

fn put_decimal(out: &mut Vec<u8>, form: &Form, kind: &Type, native: &str, value: &Decimal) -> bool {
    match (value, form.decimal, wide_scale(kind)) {
        (Decimal::Finite { .. }, DecimalMode::Double, _) | (Decimal::Finite { .. }, _, None) => false,
        // `SpecialValueDecimal.fromLogical` throws, the field stays empty.
        (Decimal::NaN | Decimal::Infinity | Decimal::NegInfinity, DecimalMode::Precise, _) => {
            out.extend_from_slice(b"null");
            true
        }
        (Decimal::NaN | Decimal::Infinity | Decimal::NegInfinity, ..) => false,
        (value, mode, Some(scale)) => {
            debug_assert!(fixed_scale(form, kind, native).is_some());
            let Some(wide) = value.rescale(scale) else { return false };
            match (mode, &wide) {
                (DecimalMode::Precise, Decimal::Finite { unscaled, .. }) => json::put_base64(out, unscaled),
                _ => json::put_string(out, &wide.to_string()),
            }
            true
        }
    }
}

/// Puts entries into the order in which a `java.util.HashMap` of these keys gives them out, but for keys that meet in one of
/// its buckets: they stay as they are, there they come as they were put in.
pub(super) fn as_java_map<T>(entries: &mut [(&String, T)]) {
    let mut buckets: u32 = 16;
    while entries.len() as u32 > buckets / 4 * 3 {
        buckets *= 2;
    }
    entries.sort_by_key(|(key, _)| {
        let hash = key.encode_utf16().fold(0u32, |h, unit| h.wrapping_mul(31).wrapping_add(u32::from(unit)));
        (hash ^ (hash >> 16)) & (buckets - 1)
    });
}

/// The scale that Debezium believes a column with a negative one has.
pub(super) fn wide_scale(kind: &Type) -> Option<i32> {
    match kind {
        Type::Decimal { precision: 1.., scale: scale @ ..0 } => Some(scale + SCALE_SPAN),
        _ => None,
    }
}

fn put_other(out: &mut Vec<u8>, options: &Options, native: &str, text: &str) -> bool {
    match native {
        "int2vector" | "oidvector" => {
            out.extend_from_slice(if text.is_empty() { b"null" } else { b"[]" });
            true
        }
        _ if native.ends_with("[]") => array::put_delimited(out, native, text),
        _ if !is_known(native) => {
            let kind = Type::Bytes;
            put_typed(out, &options.form, &kind, "bytea", &Value::Bytes(text.as_bytes().to_vec().into()));
            true
        }
        _ => false,
    }
}

/// Types without a form of their own here that Debezium knows; it has the others as bytes, whatever
/// `binary.handling.mode` says.
pub fn is_known(native: &str) -> bool {
    const KNOWN: [&str; 29] = [
        "hstore",
        "ltree",
        "tsvector",
        "inet",
        "cidr",
        "macaddr",
        "macaddr8",
        "int4range",
        "int8range",
        "numrange",
        "tsrange",
        "tstzrange",
        "daterange",
        "point",
        "line",
        "lseg",
        "box",
        "path",
        "polygon",
        "circle",
        "money",
        "geometry",
        "geography",
        "vector",
        "halfvec",
        "sparsevec",
        "isbn",
        "int2vector",
        "oidvector",
    ];
    KNOWN.contains(&bare(native))
}

/// True for arrays of a domain: to Debezium a type it does not know. (The column's kind is what the domain stands on, its
/// name the domain's, unless what it stands on is known by its name alone.)
pub fn is_domain_array(column: &Column) -> bool {
    let Some(native) = column.native_type.strip_suffix("[]") else { return false };
    if !column.domain.is_empty() {
        return true;
    }
    let Type::Array { element } = &column.kind else { return false };
    let name = native.split('(').next().unwrap_or(native);
    let plain: &[&str] = match &**element {
        Type::Bool => &["boolean"],
        Type::Int { .. } => &["smallint", "integer", "bigint", "oid"],
        Type::Float { .. } => &["real", "double precision"],
        Type::Decimal { .. } => &["numeric", "money"],
        Type::Bytes => &["bytea"],
        Type::Date => &["date"],
        Type::Uuid => &["uuid"],
        Type::Json { .. } => &["json", "jsonb"],
        Type::Xml => &["xml"],
        Type::Interval => &["interval"],
        Type::Time { .. } | Type::Timestamp { .. } | Type::Instant { .. } => {
            return !(name.starts_with("time") && (name == "time" || name.contains([' ', 's'])));
        }
        Type::Text { .. } => {
            return !["text", "character varying", "character", "\"char\"", "name", "bpchar"].contains(&name)
                && bare(name) != "citext";
        }
        Type::Bits { .. } => &["bit", "bit varying"],
        _ => return false,
    };
    !plain.contains(&name)
}

/// The placeholder of a value that was not sent, where ours is null or the text itself.
pub(super) fn put_unavailable(out: &mut Vec<u8>, form: &Form, column: &Column, placeholder: &Placeholder) -> bool {
    let Type::Array { element } = &column.kind else { return false };
    match &**element {
        // Its bytes are the items (`UnchangedToastedReplicationMessageColumn`: `_int4`, `_int8`, `_date`).
        Type::Date if form.time.timestamp(6) == Unit::Iso => return false,
        Type::Int { bits: 32 | 64, .. } | Type::Date if column.native_type != "oid[]" => {
            out.push(b'[');
            for (i, byte) in placeholder.bytes.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                json::put_i64(out, i64::from(*byte as i8));
            }
            out.push(b']');
        }
        // `UUID.nameUUIDFromBytes`.
        Type::Uuid => {
            out.push(b'[');
            json::put_string(out, &uuid::name_uuid(&placeholder.bytes));
            out.push(b']');
        }
        _ if matches!(
            bare(&column.native_type).trim_end_matches("[]"),
            "text" | "character varying" | "json" | "jsonb"
        ) =>
        {
            return false;
        }
        _ => out.extend_from_slice(b"null"),
    }
    true
}

/// Under an index identity the key is the primary key still, which old rows do not have; without a primary key it is that of
/// the first unique index, NULL or not. `None` = the table's own key.
pub(super) fn key_columns(table: &TableSchema) -> Option<&[u16]> {
    let (name, columns) = table.unique.first()?;
    (table.key_from != KeyFrom::MessageKeyColumns && name.is_empty()).then_some(columns)
}

/// True if the column at that place is part of Debezium's key: masks and cuts are of the row, not of the key beside it.
pub fn is_key_there(table: &TableSchema, at: usize) -> bool {
    table.is_key(at) || key_columns(table).is_some_and(|key| key.iter().any(|k| usize::from(*k) == at))
}

/// True if an update moves its row to another key, as Debezium sees it: what was not sent is zero, or the default.
fn key_changed(options: &Options, change: &RowChange, key: &[u16]) -> bool {
    let (Some(before), Some(after)) = (&change.before, &change.after) else { return false };
    let put = |out: &mut Vec<u8>, row: &Row, column: &Column, at: usize| match row.cells.get(at) {
        Some(Cell::Value(v)) => drop(put_shown(out, &options.form, column, v)),
        _ => nothing::put(out, options, options.key_defaults, column),
    };
    key.iter().map(|k| usize::from(*k)).any(|at| {
        let Some(column) = change.table.columns.get(at) else { return false };
        let (mut old, mut new) = (Vec::new(), Vec::new());
        put(&mut old, before, column, at);
        put(&mut new, after, column, at);
        old != new
    })
}

/// The records of an update. What `skipped.operations` names is left out of the halves of a change of the key, too.
pub(super) fn pieces(options: &Options, change: &RowChange) -> &'static [Piece] {
    use Piece::{NewKey, OldKey, Tombstone, Whole};
    let changed = match key_columns(&change.table) {
        Some(key) => key_changed(options, change, key),
        None => super::key_changed_in(change, |column| !is_lost(options, column, Road::of(change))),
    };
    match (changed, options.skips_deletes, options.skips_creates, options.tombstones) {
        (false, ..) => &[Whole],
        (true, true, ..) => &[NewKey],
        (true, false, true, true) => &[OldKey, Tombstone],
        (true, false, true, false) => &[OldKey],
        (true, false, false, true) => &[OldKey, Tombstone, NewKey],
        (true, false, false, false) => &[OldKey, NewKey],
    }
}

/// True if two records of one row always have one key: then a topic may be compacted by it.
pub fn keys_hold(table: &TableSchema) -> bool {
    let plain = |kind: &Type| match kind {
        Type::Bool | Type::Int { .. } | Type::Float { .. } | Type::Uuid | Type::Bytes | Type::Enum { .. } => true,
        Type::Json { .. } | Type::Xml | Type::Text { .. } | Type::Instant { .. } => true,
        Type::Decimal { scale, .. } => *scale >= 0,
        _ => false,
    };
    let holds =
        |column: &Column| plain(&column.kind) && column.native_type != "name" && !is_dotted(&column.native_type);
    key_columns(table).is_none() && table.key.iter().all(|k| table.columns.get(usize::from(*k)).is_some_and(holds))
}

/// The name that Debezium counts a logical message under, in a transaction's END.
pub(super) fn message_collection(number: u64) -> String {
    format!("io.debezium.connector.postgresql.LogicalDecodingMessageMonitor$LogicalDecodingMessageId@{number:x}")
}

/// In the headers of a changed key: a moment of `connect` mode as Connect prints a `java.util.Date`, without quotes: before
/// 1970-01-02 its time alone, at midnight its date alone (`Values.dateFormatFor`).
pub(super) fn put_moment(out: &mut Vec<u8>, form: &Form, column: &Column, value: &Value) -> bool {
    const DAY_MS: i64 = 86_400_000;
    let millis = match (&column.kind, value) {
        _ if form.time != TimeMode::Connect => return false,
        (Type::Date, Value::Date(days)) if !matches!(*days, i32::MAX | i32::MIN) => i64::from(*days) * DAY_MS,
        (Type::Time { zone: false, .. }, Value::Time(micros)) => micros / 1000,
        (Type::Timestamp { .. }, Value::Timestamp(us)) if !matches!(*us, i64::MAX | i64::MIN) => us.div_euclid(1000),
        _ => return false,
    };
    // A date beyond what microseconds have room for.
    let Some(micros) = millis.checked_mul(1000) else { return false };
    let text = calendar::instant_text(micros, 3);
    let shown = match text.split_once('T') {
        Some((_, clock)) if millis < DAY_MS => clock,
        Some((date, _)) if millis % DAY_MS == 0 => date,
        _ => &text,
    };
    out.extend_from_slice(shown.as_bytes());
    true
}

/// There also: of a text only quotes and backslashes are escaped, and what is no number has no quotes.
pub(super) fn put_escaped(out: &mut Vec<u8>, column: &Column, value: &[u8]) {
    match json::parse(value) {
        Ok(json::Node::String(text)) if matches!(column.kind, Type::Float { .. } | Type::Decimal { .. }) => {
            let is_text = text.parse::<f64>().is_ok_and(f64::is_finite);
            match is_text {
                true => out.extend_from_slice(value),
                false => out.extend_from_slice(text.as_bytes()),
            }
        }
        Ok(json::Node::String(text)) => {
            out.push(b'"');
            for c in text.chars() {
                if matches!(c, '"' | '\\') {
                    out.push(b'\\');
                }
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            out.push(b'"');
        }
        _ => out.extend_from_slice(value),
    }
}

#[cfg(test)]
mod tests;
