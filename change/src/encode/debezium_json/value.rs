//! Pure. One value in its column's form: Debezium's default representation or the one a handling mode asks for.
//!
//! Every writer says whether `decode` gives the same value back from the text alone; if not, `cw.exact` carries it.

use super::{extension, geometry, hstore, structured};
use crate::calendar;
use crate::encode::form::{BinaryMode, DecimalMode, Form, HstoreMode, IntervalMode, TimeMode, Unit};
use crate::exact;
use crate::json;
use crate::schema::{Column, Type};
use crate::value::{Decimal, Value};

/// Milliseconds of a timestamp that is infinite. Source: `time-adaptive` recording, `ts3`.
pub(crate) const INFINITE_MS: i64 = 9_223_372_036_825_200_000;
pub(crate) const MINUS_INFINITE_MS: i64 = -9_223_372_036_832_400_000;
/// Words for what has no number.
pub(crate) const INFINITY: &str = "infinity";
pub(crate) const MINUS_INFINITY: &str = "-infinity";
/// 30.4375 days. Source: Debezium `MicroDuration.DAYS_PER_MONTH_AVG`.
const MONTH_US: i128 = 2_629_800_000_000;
const DAY_US: i128 = 86_400_000_000;

/// What stands for a value that exists but was not sent: `unavailable.value.placeholder`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placeholder {
    pub bytes: Vec<u8>,
    pub text: String,
}

impl Placeholder {
    /// As the property says it: text, or `hex:` and digits. `None` = the digits are none.
    pub fn parse(property: &str) -> Option<Self> {
        let bytes = match property.strip_prefix("hex:") {
            None => property.as_bytes().to_vec(),
            Some(hex) if hex.is_ascii() => {
                let pairs = hex.as_bytes().chunks(2).map(|p| u8::from_str_radix(std::str::from_utf8(p).ok()?, 16).ok());
                pairs.collect::<Option<_>>()?
            }
            Some(_) => return None,
        };
        Some(Placeholder { text: String::from_utf8_lossy(&bytes).into_owned(), bytes })
    }
}

pub(super) fn put_unavailable(out: &mut Vec<u8>, form: &Form, column: &Column, placeholder: &Placeholder) {
    let text = placeholder.text.as_str();
    let kind = &column.kind;
    match kind {
        Type::Bytes if form.binary == BinaryMode::Bytes => json::put_base64(out, &placeholder.bytes),
        Type::Bytes => json::put_string(out, text),
        Type::Decimal { .. } if form.decimal == DecimalMode::String => json::put_string(out, text),
        Type::Interval if form.interval == IntervalMode::String => json::put_string(out, text),
        Type::Other if bare(&column.native_type) == "hstore" => {
            hstore::put(out, form.hstore, &[(text.to_owned(), Some(text.to_owned()))]);
        }
        // A struct or a list has no room for it.
        _ if extension::is_structured(column.native_type.trim_end_matches("[]")) => out.extend_from_slice(b"null"),
        Type::Array { element } if exact::carries_text(element) || matches!(**element, Type::Json { .. }) => {
            out.push(b'[');
            json::put_string(out, text);
            out.push(b']');
        }
        Type::Json { .. } => json::put_string(out, text),
        k if exact::carries_text(k) && !matches!(k, Type::Bits { .. }) => json::put_string(out, text),
        _ => out.extend_from_slice(b"null"),
    }
}

/// Writes a value in its column's form; true if `decode` gives the same value back from it alone.
pub(super) fn put_value(out: &mut Vec<u8>, form: &Form, column: &Column, value: &Value) -> bool {
    put_typed(out, form, &column.kind, &column.native_type, value)
}

pub(super) fn put_typed(out: &mut Vec<u8>, form: &Form, kind: &Type, native: &str, value: &Value) -> bool {
    if form.time == TimeMode::Structured
        && let Some(same) = structured::put(out, kind, native, value)
    {
        return same;
    }
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
        (Type::Decimal { .. }, Value::Decimal(d)) => put_decimal(out, form, fixed_scale(form, kind, native), d),
        (Type::Bytes, Value::Bytes(b)) => {
            match form.binary {
                BinaryMode::Bytes | BinaryMode::Base64 => json::put_base64(out, b),
                BinaryMode::Base64UrlSafe => json::put_base64_url(out, b),
                BinaryMode::Hex => json::put_hex(out, b),
            }
            true
        }
        (Type::Date, Value::Date(d)) => {
            match (form.time.timestamp(6), *d) {
                (Unit::Iso, i32::MAX) => json::put_string(out, INFINITY),
                (Unit::Iso, i32::MIN) => json::put_string(out, MINUS_INFINITY),
                (Unit::Iso, d) => json::put_string(out, &format!("{}Z", calendar::date_text(i64::from(d)))),
                (_, d) => json::put_i64(out, i64::from(d)),
            }
            true
        }
        (Type::Time { digits, zone: false }, Value::Time(us)) => put_time(out, form.time.time(*digits), *us),
        (Type::Time { zone: true, .. }, Value::Text(t)) => {
            let utc = calendar::zoned_time_utc(t.as_str());
            json::put_string(out, utc.as_deref().unwrap_or(t.as_str()));
            utc.is_none_or(|u| u == t.as_str())
        }
        (Type::Timestamp { digits }, Value::Timestamp(us)) => put_timestamp(out, form.time.timestamp(*digits), *us),
        (Type::Instant { digits }, Value::Instant(us)) => {
            match *us {
                i64::MAX => json::put_string(out, "infinity"),
                i64::MIN => json::put_string(out, "-infinity"),
                us => {
                    out.push(b'"');
                    calendar::put_instant(out, us, *digits);
                    out.push(b'"');
                }
            }
            true
        }
        // Beyond what microseconds reach.
        (Type::Timestamp { digits }, Value::Text(t)) => {
            put_wide(out, form.time.timestamp(*digits), t.as_str(), 0);
            false
        }
        (Type::Instant { digits }, Value::Text(t)) => {
            put_wide(out, Unit::Iso, t.as_str(), *digits);
            false
        }
        (Type::Interval, Value::Interval { months, days, micros }) if form.interval == IntervalMode::String => {
            json::put_string(out, &iso_interval(*months, *days, *micros));
            true
        }
        (Type::Interval, Value::Interval { months, days, micros }) => {
            let all = i128::from(*months) * MONTH_US + i128::from(*days) * DAY_US + i128::from(*micros);
            let clamped = all.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
            json::put_i64(out, clamped);
            *months == 0 && *days == 0
        }
        (Type::Json { .. }, Value::Json(t)) | (Type::Text { .. }, Value::Text(t)) => {
            json::put_checked(out, t);
            true
        }
        (Type::Bits { length, varying }, Value::Text(t)) => put_bits(out, *length, *varying, t.as_str()),
        (Type::Other, Value::Text(t)) if geometry::put(out, native, t.as_str()) => false,
        (Type::Other, Value::Text(t)) if native.ends_with("[]") => put_delimited(out, form, native, t.as_str()),
        (Type::Other, Value::Text(t)) if bare(native) == "hstore" => match hstore::parse(t.as_str()) {
            Some(pairs) => {
                hstore::put(out, form.hstore, &pairs);
                false
            }
            None => {
                json::put_string(out, t.as_str());
                form.hstore == HstoreMode::Json
            }
        },
        (k, Value::Text(t)) if exact::carries_text(k) => {
            if *k == Type::Other
                && let Some(same) = extension::put(out, native, t.as_str())
            {
                return same;
            }
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
                    Some(v) => same &= put_typed(out, form, element, native, v),
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

/// A type's name without the schema that an extension was put into, and without its modifier.
pub(super) fn bare(native: &str) -> &str {
    let name = native.split('(').next().unwrap_or(native);
    name.rsplit('.').next().unwrap_or(name)
}

/// What stands between the items of an array that has no commas there: its text is kept, here its items are written.
pub(super) fn delimiter(element: &str) -> Option<char> {
    match bare(element) {
        "box" => Some(';'),
        "geometry" | "geography" => Some(':'),
        _ => None,
    }
}

/// An array of one dimension, item by item; others as the text they are. Neither gives the text back.
fn put_delimited(out: &mut Vec<u8>, form: &Form, native: &str, text: &str) -> bool {
    let element = native.strip_suffix("[]").unwrap_or(native);
    let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).filter(|t| !t.contains(['{', '"', '\\']));
    let (Some(inner), Some(delimiter)) = (inner, delimiter(element)) else {
        json::put_string(out, text);
        return true;
    };
    out.push(b'[');
    for (i, item) in inner.split(delimiter).filter(|t| !t.is_empty()).enumerate() {
        if i > 0 {
            out.push(b',');
        }
        match item {
            "NULL" => out.extend_from_slice(b"null"),
            item => {
                put_typed(out, form, &Type::Other, element, &Value::Text(item.into()));
            }
        }
    }
    out.push(b']');
    false
}

fn put_bool(out: &mut Vec<u8>, v: bool) -> bool {
    out.extend_from_slice(if v { b"true" } else { b"false" });
    true
}

fn put_time(out: &mut Vec<u8>, unit: Unit, micros: i64) -> bool {
    match unit {
        Unit::Iso => json::put_string(out, &format!("{}Z", calendar::clock_text(micros, 0))),
        Unit::Millis => {
            json::put_i64(out, micros.div_euclid(1000));
            return micros.rem_euclid(1000) == 0;
        }
        Unit::Micros => json::put_i64(out, micros),
        Unit::Nanos => json::put_i64(out, micros.saturating_mul(1000)),
    }
    true
}

fn put_timestamp(out: &mut Vec<u8>, unit: Unit, micros: i64) -> bool {
    match (unit, micros) {
        (Unit::Millis, i64::MAX) => json::put_i64(out, INFINITE_MS),
        (Unit::Millis, i64::MIN) => json::put_i64(out, MINUS_INFINITE_MS),
        (Unit::Micros | Unit::Nanos, i64::MAX | i64::MIN) => json::put_i64(out, micros),
        (Unit::Iso, i64::MAX) => json::put_string(out, INFINITY),
        (Unit::Iso, i64::MIN) => json::put_string(out, MINUS_INFINITY),
        (Unit::Iso, _) => json::put_string(out, &calendar::instant_text(micros, 0)),
        (Unit::Nanos, _) => match micros.checked_mul(1000) {
            Some(nanos) => json::put_i64(out, nanos),
            // No nanoseconds before 1677 and after 2262; a number reader fails loudly instead of reading a null.
            None => {
                json::put_string(out, &calendar::instant_text(micros, 0));
                return false;
            }
        },
        (Unit::Millis | Unit::Micros, _) => return put_time(out, unit, micros),
    }
    true
}

/// A moment as the server prints it: milliseconds and ISO text have room for all of them.
fn put_wide(out: &mut Vec<u8>, unit: Unit, text: &str, digits: u32) {
    let micros = calendar::parse_wide(text);
    let millis = micros.and_then(|us| i64::try_from(us.div_euclid(1000)).ok());
    match (unit, millis, micros.and_then(|us| calendar::wide_text(us, digits))) {
        (Unit::Millis, Some(millis), _) => json::put_i64(out, millis),
        (Unit::Iso, _, Some(text)) => json::put_string(out, &text),
        _ => json::put_string(out, text),
    }
}

/// `P1Y2M3DT4H5M6.789S`: each part with its own sign.
fn iso_interval(months: i32, days: i32, micros: i64) -> String {
    let (years, months) = (months / 12, months % 12);
    let (all, fraction) = (micros / 1_000_000, (micros % 1_000_000).unsigned_abs());
    let sign = if micros < 0 && all % 60 == 0 && fraction != 0 { "-" } else { "" };
    let mut seconds = format!("{sign}{}", all % 60);
    if fraction != 0 {
        let text = format!("{fraction:06}");
        seconds = format!("{seconds}.{}", text.trim_end_matches('0'));
    }
    format!("P{years}Y{months}M{days}DT{}H{}M{seconds}S", all / 3600, all / 60 % 60)
}

/// What [`iso_interval`] wrote.
pub(crate) fn parse_iso_interval(text: &str) -> Option<Value> {
    let mut rest = text.strip_prefix('P')?;
    let mut part = |unit: char| -> Option<&str> {
        let (number, tail) = rest.split_once(unit)?;
        rest = tail;
        Some(number)
    };
    let (years, months, days): (i32, i32, i32) =
        (part('Y')?.parse().ok()?, part('M')?.parse().ok()?, part('D')?.parse().ok()?);
    let hours: i128 = part('H')?.strip_prefix('T')?.parse().ok()?;
    let minutes: i128 = part('M')?.parse().ok()?;
    let seconds = part('S')?;
    let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    if fraction.len() > 6 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let fraction: i128 = format!("{fraction:0<6}").parse().ok()?;
    let fraction = if whole.starts_with('-') { -fraction } else { fraction };
    let micros = ((hours * 60 + minutes) * 60 + whole.parse::<i128>().ok()?) * 1_000_000 + fraction;
    let months = years.checked_mul(12)?.checked_add(months)?;
    Some(Value::Interval { months, days, micros: i64::try_from(micros).ok()? })
}

/// The scale all values of the column share: `org.apache.kafka.connect.data.Decimal`; `None` = each has its own.
pub(crate) fn fixed_scale(form: &Form, kind: &Type, native: &str) -> Option<i32> {
    match kind {
        Type::Decimal { precision: 1.., scale } => Some(*scale),
        Type::Decimal { .. } if native == "money" => Some(i32::from(form.money_digits)),
        _ => None,
    }
}

fn put_decimal(out: &mut Vec<u8>, form: &Form, fixed: Option<i32>, value: &Decimal) -> bool {
    match form.decimal {
        DecimalMode::Precise => put_precise(out, fixed, value),
        DecimalMode::Double => {
            let word = match value {
                Decimal::NaN => "NaN",
                Decimal::Infinity => "Infinity",
                Decimal::NegInfinity => "-Infinity",
                Decimal::Finite { .. } => {
                    let from = out.len();
                    json::put_f64(out, value.to_string().parse().unwrap_or(f64::NAN));
                    let text = std::str::from_utf8(&out[from..]).unwrap_or("");
                    return decimal_of_double(text, fixed).as_ref() == Some(value);
                }
            };
            json::put_string(out, word);
            true
        }
        DecimalMode::String => {
            match value {
                // Source: `decimal-special-string` recording.
                Decimal::NaN => json::put_string(out, "NAN"),
                Decimal::Infinity => json::put_string(out, "POSITIVE_INFINITY"),
                Decimal::NegInfinity => json::put_string(out, "NEGATIVE_INFINITY"),
                Decimal::Finite { .. } => json::put_string(out, &value.to_string()),
            }
            true
        }
    }
}

/// The decimal that a number written in `double` mode gives back.
pub(crate) fn decimal_of_double(text: &str, fixed: Option<i32>) -> Option<Decimal> {
    let d = Decimal::parse(text).ok()?;
    match (fixed, &d) {
        (Some(scale), Decimal::Finite { .. }) => d.rescale(scale),
        _ => Some(d),
    }
}

fn put_precise(out: &mut Vec<u8>, fixed: Option<i32>, value: &Decimal) -> bool {
    let Decimal::Finite { unscaled, scale } = value else {
        // The schema type has no room for these; a number reader fails loudly instead of reading a null.
        json::put_string(out, &value.to_string());
        return fixed.is_none();
    };
    match fixed {
        None => {
            // Without trailing zeros, as Debezium: 3.1400 has scale 2.
            let stripped = value.stripped();
            let (unscaled, shown) = match &stripped {
                Some(Decimal::Finite { unscaled, scale }) => (unscaled, scale),
                _ => (unscaled, scale),
            };
            out.extend_from_slice(b"{\"scale\":");
            json::put_i64(out, i64::from(*shown));
            out.extend_from_slice(b",\"value\":");
            json::put_base64(out, unscaled);
            out.push(b'}');
            stripped.is_none()
        }
        Some(want) if want == *scale => {
            json::put_base64(out, unscaled);
            true
        }
        Some(want) => {
            match value.rescale(want).or_else(|| value.rounded(want)) {
                Some(Decimal::Finite { unscaled, .. }) => json::put_base64(out, &unscaled),
                _ => json::put_string(out, &value.to_string()),
            }
            false
        }
    }
}

/// Little-endian bytes without leading zeros, as `java.util.BitSet.toByteArray`; of a column of one bit a boolean.
fn put_bits(out: &mut Vec<u8>, length: u32, varying: bool, text: &str) -> bool {
    if !text.bytes().all(|b| matches!(b, b'0' | b'1')) {
        json::put_string(out, text);
        return false;
    }
    let whole = text.len() == length as usize;
    if length == 1 {
        return put_bool(out, text.contains('1')) && whole;
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
