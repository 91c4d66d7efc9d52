//! Pure. Column bytes of the binary format → the very `Value` that the text of the same column gives ([`super::decode`]).
//!
//! Only types whose send function is part of the documented wire format, and whose text is one of our own variants or the
//! same bytes: [`fits`]. A stream asks for binary if all columns of its tables are of such types, so nothing is guessed.
//! Source: PostgreSQL 15, `src/backend/utils/adt/*.c`, the `*send` functions; checked against text by
//! `tests/it/binary.rs` on each server.

use super::schema::{PgTypes, oid};
use super::{NotUtf8, native, time};
use bytes::{Buf, Bytes};
use catchwater_change::value::Text;
use catchwater_change::{Decimal, Type, Value};
use std::fmt::Write as _;

/// Depth of domains over domains we follow.
const DEPTH_MAX: u8 = 8;
/// Digits of a numeric that fit into an `i64` whatever they are.
const SHORT_DIGITS: usize = 18;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BinaryError {
    #[error("text is not UTF-8")]
    NotUtf8,
    #[error("the bytes are not of the column's type")]
    Foreign,
}

impl From<NotUtf8> for BinaryError {
    fn from(_: NotUtf8) -> Self {
        BinaryError::NotUtf8
    }
}

/// True if [`decode`] knows the type.
pub fn fits(types: &PgTypes, oid: u32) -> bool {
    fits_at(types, oid, 0)
}

/// True if a binary COPY may have a column of the type. (A type without a send function fails there; in the stream the
/// server sends its text.)
pub fn copies(types: &PgTypes, oid: u32) -> bool {
    fits(types, oid) && types.get(&oid).is_none_or(|t| t.sends)
}

fn fits_at(types: &PgTypes, of: u32, depth: u8) -> bool {
    match of {
        oid::BOOL | oid::BYTEA | oid::INT2 | oid::INT4 | oid::INT8 | oid::OID | oid::FLOAT4 | oid::FLOAT8 => true,
        oid::NUMERIC | oid::TEXT | oid::NAME | oid::BPCHAR | oid::VARCHAR | oid::UUID => true,
        oid::DATE | oid::TIME | oid::TIMETZ | oid::TIMESTAMP | oid::TIMESTAMPTZ | oid::INTERVAL | oid::MONEY => true,
        oid::JSON | oid::JSONB | oid::BIT | oid::VARBIT | oid::CHAR | oid::XML => true,
        oid::INT2VECTOR | oid::OIDVECTOR => true,
        _ => match types.get(&of) {
            // A domain is sent as what it stands on, an enum by its label, `citext` as a text, an array by its elements
            // (but for those that print without braces or commas).
            // (A domain's name does not say that it is one over `"char"`.)
            Some(t) if t.kind == b'd' && depth < DEPTH_MAX => t.base != oid::CHAR && fits_at(types, t.base, depth + 1),
            Some(t) if t.kind == b'b' && t.category == b'A' && t.element != 0 && depth < DEPTH_MAX => {
                let comma = types.get(&t.element).is_none_or(|e| e.delimiter == b',');
                let odd = matches!(t.element, oid::INT2VECTOR | oid::OIDVECTOR | oid::MONEY)
                    // A domain's name in an array says nothing of what it stands on.
                    || super::schema::stands_on(types, t.element).is_some();
                comma && !odd && fits_at(types, t.element, depth + 1)
            }
            Some(t) if t.kind == b'b' && t.category == b'S' && t.name == "citext" => true,
            // Sent as text, whatever was asked for.
            Some(t) if t.kind == b'b' && !t.sends && depth == 0 => true,
            Some(t) if matches!(t.kind, b'b' | b'r' | b'm') => native::fits(&t.name, of < oid::FIRST_NORMAL),
            Some(t) if t.kind == b'c' => native::is_free(&t.name) && t.attributes.iter().all(|a| is_simple(*a)),
            Some(t) => t.kind == b'e',
            None => false,
        },
    }
}

/// True for an attribute of a composite that is known by its oid alone: built in, and with a variant of its own.
fn is_simple(of: u32) -> bool {
    let known = of < oid::FIRST_NORMAL && !matches!(of, oid::INT2VECTOR | oid::OIDVECTOR | oid::MONEY);
    known && fits(&PgTypes::new(), of)
}

/// An attribute of a composite → its text; its type is told beside it.
pub(super) fn attribute(of: u32, bytes: Bytes) -> Result<String, BinaryError> {
    if !is_simple(of) {
        return Err(BinaryError::Foreign);
    }
    let native = if of == oid::CHAR { "\"char\"" } else { "" };
    let kind = super::schema::kind(&PgTypes::new(), of, -1);
    Ok(super::array::printed(&decode(&kind, native, bytes)?))
}

/// As [`decode`], of those types that need no bytes of their own, nearly all columns of numbers and times; `None` = ask
/// [`decode`]. (A slice of a frame costs two atomic counts.)
pub fn decode_plain(kind: &Type, native: &str, bytes: &[u8]) -> Option<Value> {
    Some(match kind {
        Type::Bool => Value::Bool(*<&[u8; 1]>::try_from(bytes).ok()? != [0]),
        Type::Int { bits: 16, .. } => Value::Int(i64::from(i16::from_be_bytes(bytes.try_into().ok()?))),
        Type::Int { bits: 32, .. } => Value::Int(i64::from(i32::from_be_bytes(bytes.try_into().ok()?))),
        Type::Int { .. } => Value::Int(i64::from_be_bytes(bytes.try_into().ok()?)),
        Type::Float { bits: 32 } => Value::Float32(f32::from_be_bytes(bytes.try_into().ok()?)),
        Type::Float { .. } => Value::Float64(f64::from_be_bytes(bytes.try_into().ok()?)),
        Type::Decimal { .. } if native != "money" => Value::Decimal(numeric(bytes).ok()?),
        Type::Timestamp { .. } => Value::Timestamp(unix(i64::from_be_bytes(bytes.try_into().ok()?))?),
        Type::Instant { .. } => Value::Instant(unix(i64::from_be_bytes(bytes.try_into().ok()?))?),
        _ => return None,
    })
}

/// Column bytes → value.
pub fn decode(kind: &Type, native: &str, bytes: Bytes) -> Result<Value, BinaryError> {
    Ok(match kind {
        Type::Bool => Value::Bool(fixed::<1>(&bytes)? != [0]),
        Type::Int { bits: 16, .. } => Value::Int(i64::from(i16::from_be_bytes(fixed(&bytes)?))),
        Type::Int { bits: 32, .. } => Value::Int(i64::from(i32::from_be_bytes(fixed(&bytes)?))),
        // oid: 32 bits without a sign.
        Type::Int { .. } if bytes.len() == 4 => Value::Int(i64::from(u32::from_be_bytes(fixed(&bytes)?))),
        Type::Int { .. } => Value::Int(i64::from_be_bytes(fixed(&bytes)?)),
        Type::Float { bits: 32 } => Value::Float32(f32::from_be_bytes(fixed(&bytes)?)),
        Type::Float { .. } => Value::Float64(f64::from_be_bytes(fixed(&bytes)?)),
        // Cents: the session's `lc_monetary` is C.
        Type::Decimal { .. } if native == "money" => Value::Decimal(short(i64::from_be_bytes(fixed(&bytes)?), 2)),
        Type::Decimal { .. } => Value::Decimal(numeric(&bytes)?),
        Type::Bytes => Value::Bytes(bytes),
        Type::Date => Value::Date(date(i32::from_be_bytes(fixed(&bytes)?))?),
        Type::Time { zone: false, .. } => Value::Time(i64::from_be_bytes(fixed(&bytes)?)),
        Type::Time { zone: true, .. } => Value::Text(native::timetz(bytes)?.into()),
        Type::Timestamp { .. } => {
            let micros = i64::from_be_bytes(fixed(&bytes)?);
            match unix(micros) {
                Some(v) => Value::Timestamp(v),
                None => Value::Text(time::print_timestamp_2000(micros, time::Zone::None).into()),
            }
        }
        Type::Instant { .. } => {
            let micros = i64::from_be_bytes(fixed(&bytes)?);
            match unix(micros) {
                Some(v) => Value::Instant(v),
                None => Value::Text(time::print_timestamp_2000(micros, time::Zone::Utc).into()),
            }
        }
        Type::Interval => interval(bytes)?,
        Type::Uuid => Value::Text(uuid(fixed(&bytes)?).into()),
        Type::Json { binary: true } => {
            // A version, 1 since jsonb exists, then its text.
            if bytes.first() != Some(&1) {
                return Err(BinaryError::Foreign);
            }
            Value::Json(text(bytes.slice(1..))?)
        }
        Type::Json { binary: false } => Value::Json(text(bytes)?),
        // One byte, 0 = nothing; beyond ASCII as the server prints it from 15 on.
        Type::Text { .. } if native == "\"char\"" => match fixed::<1>(&bytes)? {
            [0] => Value::Text("".into()),
            [b] if b.is_ascii() => Value::Text(text(bytes)?),
            [b] => Value::Text(format!("\\{b:03o}").into()),
        },
        Type::Text { .. } | Type::Enum { .. } => Value::Text(text(bytes)?),
        Type::Bits { .. } => Value::Text(bits(bytes)?.into()),
        Type::Array { element } => {
            super::array::from_binary(element, native.strip_suffix("[]").unwrap_or(native), bytes)?
        }
        Type::Other => Value::Text(native::text(native, bytes)?.into()),
        // Its declaration names no encoding if that is UTF-8, as in its text.
        Type::Xml => Value::Text(text(bytes)?),
    })
}

fn fixed<const N: usize>(bytes: &Bytes) -> Result<[u8; N], BinaryError> {
    <[u8; N]>::try_from(&bytes[..]).map_err(|_| BinaryError::Foreign)
}

fn text(bytes: Bytes) -> Result<Text, BinaryError> {
    Text::from_utf8(bytes).map_err(|_| BinaryError::NotUtf8)
}

/// Days since 2000-01-01.
fn date(days: i32) -> Result<i32, BinaryError> {
    match days {
        i32::MAX | i32::MIN => Ok(days),
        days => days.checked_add(10_957).ok_or(BinaryError::Foreign),
    }
}

/// Microseconds since 2000-01-01; `None` = a time that i64 microseconds since 1970 do not reach.
fn unix(micros: i64) -> Option<i64> {
    match micros {
        i64::MAX | i64::MIN => Some(micros),
        micros => micros.checked_add(time::EPOCH_2000_MICROS),
    }
}

fn interval(mut bytes: Bytes) -> Result<Value, BinaryError> {
    if bytes.len() != 16 {
        return Err(BinaryError::Foreign);
    }
    let (micros, days, months) = (bytes.get_i64(), bytes.get_i32(), bytes.get_i32());
    // PostgreSQL 17.
    Ok(match (micros, days, months) {
        (i64::MAX, i32::MAX, i32::MAX) => Value::Text("infinity".into()),
        (i64::MIN, i32::MIN, i32::MIN) => Value::Text("-infinity".into()),
        _ => Value::Interval { months, days, micros },
    })
}

/// How many, then eight to a byte, the first in the highest.
fn bits(mut bytes: Bytes) -> Result<String, BinaryError> {
    if bytes.len() < 4 {
        return Err(BinaryError::Foreign);
    }
    let count = bytes.get_u32() as usize;
    if bytes.len() != count.div_ceil(8) {
        return Err(BinaryError::Foreign);
    }
    Ok((0..count).map(|i| if bytes[i / 8] >> (7 - i % 8) & 1 == 1 { '1' } else { '0' }).collect())
}

fn uuid(bytes: [u8; 16]) -> String {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(36);
    for (i, b) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        out.push(char::from(HEX[usize::from(b >> 4)]));
        out.push(char::from(HEX[usize::from(b & 15)]));
    }
    out
}

/// Groups of four decimal digits: count, weight of the first, sign, digits after the point.
fn numeric(mut bytes: &[u8]) -> Result<Decimal, BinaryError> {
    if bytes.len() < 8 {
        return Err(BinaryError::Foreign);
    }
    let (count, weight) = (usize::from(bytes.get_u16()), i32::from(bytes.get_i16()));
    let (sign, places) = (bytes.get_u16(), usize::from(bytes.get_u16()));
    match sign {
        0xc000 => return Ok(Decimal::NaN),
        0xd000 => return Ok(Decimal::Infinity),
        0xf000 => return Ok(Decimal::NegInfinity),
        0 | 0x4000 => {}
        _ => return Err(BinaryError::Foreign),
    }
    if bytes.len() != count * 2 {
        return Err(BinaryError::Foreign);
    }
    let group = |at: i32| -> u16 {
        let at = usize::try_from(at).ok().filter(|at| *at < count);
        at.map_or(0, |at| u16::from_be_bytes([bytes[at * 2], bytes[at * 2 + 1]]))
    };
    let wholes = usize::try_from(weight + 1).unwrap_or(0);
    if wholes * 4 + places <= SHORT_DIGITS {
        let mut value: i64 = 0;
        for at in 0..wholes as i32 {
            value = value * 10_000 + i64::from(group(at));
        }
        let mut left = places;
        // The group after the point: the one of weight -1.
        let mut at = weight + 1;
        while left >= 4 {
            value = value * 10_000 + i64::from(group(at));
            (left, at) = (left - 4, at + 1);
        }
        if left > 0 {
            let cut = 10i64.pow(4 - left as u32);
            value = value * 10i64.pow(left as u32) + i64::from(group(at)) / cut;
        }
        return Ok(short(if sign == 0 { value } else { -value }, places as i32));
    }
    let mut out = String::with_capacity(wholes * 4 + places + 2);
    if sign != 0 {
        out.push('-');
    }
    for at in 0..wholes as i32 {
        let _ = write!(out, "{:04}", group(at));
    }
    if wholes == 0 {
        out.push('0');
    }
    if places > 0 {
        out.push('.');
        let end = out.len() + places;
        let mut at = weight + 1;
        while out.len() < end {
            let _ = write!(out, "{:04}", group(at));
            at += 1;
        }
        out.truncate(end);
    }
    Decimal::parse(&out).map_err(|_| BinaryError::Foreign)
}

/// Shortest two's complement.
fn short(value: i64, scale: i32) -> Decimal {
    let bytes = value.to_be_bytes();
    let mut from = 0;
    while from < 7 && ((bytes[from] == 0 && bytes[from + 1] < 0x80) || (bytes[from] == 0xff && bytes[from + 1] >= 0x80))
    {
        from += 1;
    }
    Decimal::Finite { unscaled: Bytes::copy_from_slice(&bytes[from..]), scale }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// A numeric as PostgreSQL keeps it: text → groups of four digits, zeros stripped at both ends.
    fn wire(text: &str) -> Bytes {
        let (sign, plain) = text.strip_prefix('-').map_or((0u16, text), |p| (0x4000, p));
        let (whole, fraction) = plain.split_once('.').unwrap_or((plain, ""));
        let pad = (4 - whole.len() % 4) % 4;
        let tail = (4 - fraction.len() % 4) % 4;
        let digits = format!("{}{whole}{fraction}{}", "0".repeat(pad), "0".repeat(tail));
        let mut groups: Vec<u16> =
            digits.as_bytes().chunks(4).map(|c| std::str::from_utf8(c).unwrap().parse().unwrap()).collect();
        let mut weight = (whole.len() + pad) as i16 / 4 - 1;
        while groups.first() == Some(&0) {
            groups.remove(0);
            weight -= 1;
        }
        while groups.last() == Some(&0) {
            groups.pop();
        }
        if groups.is_empty() {
            weight = 0;
        }
        let mut out = Vec::new();
        for n in [groups.len() as u16, weight as u16, if groups.is_empty() { 0 } else { sign }, fraction.len() as u16] {
            out.extend(n.to_be_bytes());
        }
        groups.iter().for_each(|g| out.extend(g.to_be_bytes()));
        out.into()
    }

    proptest! {
        #[test]
        fn numerics_are_what_their_text_is(whole in "0|[1-9][0-9]{0,30}", fraction in "[0-9]{0,30}", negative: bool) {
            let mut text = if fraction.is_empty() { whole } else { format!("{whole}.{fraction}") };
            if negative && text.bytes().any(|b| (b'1'..=b'9').contains(&b)) {
                text.insert(0, '-');
            }
            prop_assert_eq!(numeric(&wire(&text)), Ok(Decimal::parse(&text).unwrap()), "{}", text);
        }

        #[test]
        fn foreign_bytes_never_panic(which in 0usize..14, bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let kinds = [
                Type::Bool, Type::Int { bits: 16, unsigned: false }, Type::Int { bits: 64, unsigned: false },
                Type::Float { bits: 32 }, Type::Decimal { precision: 0, scale: 0 }, Type::Bytes, Type::Date,
                Type::Time { digits: 6, zone: false }, Type::Timestamp { digits: 6 }, Type::Instant { digits: 6 },
                Type::Interval, Type::Uuid, Type::Json { binary: true }, Type::Other,
            ];
            // The short way says what the other one says, or nothing.
            if let Some(value) = decode_plain(&kinds[which], "", &bytes) {
                let same = decode(&kinds[which], "", bytes.clone().into()).map(|v| format!("{v:?}"));
                prop_assert_eq!(same, Ok(format!("{value:?}")));
            }
            let _ = decode(&kinds[which], "", bytes.into());
        }
    }
}
