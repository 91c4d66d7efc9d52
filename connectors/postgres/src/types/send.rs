//! Pure. Values → the binary format of a column, for `COPY … FROM STDIN (FORMAT binary)`.
//!
//! Only where the server must understand the bytes as it understands the text of [`super::write_literal`]: a value of the
//! column's own variant. Everything else is refused, and travels as text. Range, length and precision are the column's
//! business: its receive function checks them as its input function does.
//! Source: PostgreSQL 15, `src/backend/utils/adt/*.c`, the `*recv` functions; checked against text by `tests/it/sink.rs`.

use super::schema::oid;
use super::time::EPOCH_2000_MICROS;
use bytes::{BufMut, BytesMut};
use catchwater_change::{Decimal, Value};

/// Days from 1970-01-01 to 2000-01-01.
const EPOCH_2000_DAYS: i32 = 10_957;
/// Digits of a group of `numeric`.
const GROUP: u32 = 4;

/// A column of this type may be sent; [`put`] decides for each value.
pub fn fits(of: u32) -> bool {
    let number = matches!(of, oid::INT2 | oid::INT4 | oid::INT8 | oid::FLOAT4 | oid::FLOAT8 | oid::NUMERIC);
    let text = matches!(of, oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::UUID | oid::JSON | oid::JSONB);
    let time = matches!(of, oid::DATE | oid::TIME | oid::TIMESTAMP | oid::TIMESTAMPTZ | oid::INTERVAL);
    number || text || time || matches!(of, oid::BOOL | oid::BYTEA)
}

/// Appends length and bytes of a value in a column of type `of`. False = not a value of the type's own, or none that we
/// know how to send: `out` is as it was.
pub fn put(out: &mut BytesMut, of: u32, value: &Value) -> bool {
    match (of, value) {
        (oid::INT8, Value::Int(v)) => put_fixed(out, v.to_be_bytes()),
        (oid::INT4, Value::Int(v)) => match i32::try_from(*v) {
            Ok(v) => put_fixed(out, v.to_be_bytes()),
            Err(_) => return false,
        },
        (oid::INT2, Value::Int(v)) => match i16::try_from(*v) {
            Ok(v) => put_fixed(out, v.to_be_bytes()),
            Err(_) => return false,
        },
        (oid::TEXT | oid::VARCHAR | oid::BPCHAR, Value::Text(v)) => return put_bytes(out, &[], v.as_bytes()),
        (oid::JSON, Value::Json(v)) => return put_bytes(out, &[], v.as_bytes()),
        // The version of the form.
        (oid::JSONB, Value::Json(v)) => return put_bytes(out, &[1], v.as_bytes()),
        (oid::BYTEA, Value::Bytes(v)) => return put_bytes(out, &[], v),
        (oid::BOOL, Value::Bool(v)) => out.put_slice(&[0, 0, 0, 1, u8::from(*v)]),
        (oid::FLOAT8, Value::Float64(v)) => put_fixed(out, v.to_be_bytes()),
        (oid::FLOAT4, Value::Float32(v)) => put_fixed(out, v.to_be_bytes()),
        (oid::NUMERIC, Value::Decimal(v)) => return put_numeric(out, v),
        (oid::UUID, Value::Text(v)) => match uuid(v.as_bytes()) {
            Some(v) => put_fixed(out, v),
            None => return false,
        },
        // The infinities are the same numbers on either side.
        (oid::DATE, Value::Date(v @ (i32::MAX | i32::MIN))) => put_fixed(out, v.to_be_bytes()),
        (oid::DATE, Value::Date(v)) => match v.checked_sub(EPOCH_2000_DAYS) {
            Some(v) => put_fixed(out, v.to_be_bytes()),
            None => return false,
        },
        (oid::TIMESTAMP, Value::Timestamp(v)) | (oid::TIMESTAMPTZ, Value::Instant(v)) => match *v {
            i64::MAX | i64::MIN => put_fixed(out, v.to_be_bytes()),
            v => match v.checked_sub(EPOCH_2000_MICROS) {
                Some(v) => put_fixed(out, v.to_be_bytes()),
                None => return false,
            },
        },
        (oid::TIME, Value::Time(v)) => put_fixed(out, v.to_be_bytes()),
        (oid::INTERVAL, Value::Interval { months, days, micros }) => {
            out.put_i32(16);
            out.put_i64(*micros);
            out.put_i32(*days);
            out.put_i32(*months);
        }
        _ => return false,
    }
    true
}

/// Length, then the bytes.
fn put_fixed<const N: usize>(out: &mut BytesMut, bytes: [u8; N]) {
    out.put_i32(const { N as i32 });
    out.put_slice(&bytes);
}

fn put_bytes(out: &mut BytesMut, head: &[u8], bytes: &[u8]) -> bool {
    let Ok(length) = i32::try_from(head.len() + bytes.len()) else { return false };
    out.put_i32(length);
    out.put_slice(head);
    out.put_slice(bytes);
    true
}

/// `ndigits i16 | weight i16 | sign u16 | dscale u16 | groups of four digits u16…`: the point stands behind group `weight`.
fn put_numeric(out: &mut BytesMut, value: &Decimal) -> bool {
    let special = |out: &mut BytesMut, sign: u16| {
        out.put_i32(8);
        out.put_slice(&[0; 4]);
        out.put_u16(sign);
        out.put_u16(0);
        true
    };
    let (unscaled, scale) = match value {
        Decimal::NaN => return special(out, 0xc000),
        Decimal::Infinity => return special(out, 0xd000),
        Decimal::NegInfinity => return special(out, 0xf000),
        Decimal::Finite { unscaled, scale } => (unscaled, *scale),
    };
    let (1..=16, Ok(scale @ 0..=38)) = (unscaled.len(), u32::try_from(scale)) else { return false };
    let negative = unscaled.first().is_some_and(|b| b & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 16];
    wide[16 - unscaled.len()..].copy_from_slice(unscaled);
    // The point between two groups.
    let short = (GROUP - scale % GROUP) % GROUP;
    let Some(mut rest) = i128::from_be_bytes(wide).unsigned_abs().checked_mul(10u128.pow(short)) else { return false };
    let mut groups = [0u16; 10];
    let mut count = 0;
    while rest > 0 {
        let Some(group) = groups.get_mut(count) else { return false };
        // Most fit a machine word, whose division is much cheaper.
        *group = match u64::try_from(rest) {
            Ok(word) => {
                rest = u128::from(word / 10_000);
                (word % 10_000) as u16
            }
            Err(_) => {
                let group = (rest % 10_000) as u16;
                rest /= 10_000;
                group
            }
        };
        count += 1;
    }
    let weight = if count == 0 { 0 } else { count as i16 - ((scale + short) / GROUP) as i16 - 1 };
    out.put_i32(8 + 2 * count as i32);
    out.put_i16(count as i16);
    out.put_i16(weight);
    out.put_u16(if negative { 0x4000 } else { 0 });
    out.put_u16(scale as u16);
    for group in groups[..count].iter().rev() {
        out.put_u16(*group);
    }
    true
}

/// `a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11`; other forms that the server takes go as text.
fn uuid(text: &[u8]) -> Option<[u8; 16]> {
    let (mut out, mut digits) = ([0u8; 16], 0);
    if text.len() != 36 {
        return None;
    }
    for (at, b) in text.iter().enumerate() {
        if matches!(at, 8 | 13 | 18 | 23) {
            (*b == b'-').then_some(())?;
            continue;
        }
        let digit = char::from(*b).to_digit(16)? as u8;
        out[digits / 2] |= digit << if digits % 2 == 0 { 4 } else { 0 };
        digits += 1;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::super::binary;
    use super::*;
    use bytes::Bytes;
    use catchwater_change::Type;
    use proptest::prelude::*;

    /// What the source's side reads of it.
    fn read_back(of: u32, kind: &Type, value: &Value) -> Option<Value> {
        let mut out = BytesMut::new();
        put(&mut out, of, value).then_some(())?;
        let length = u32::from_be_bytes([out[0], out[1], out[2], out[3]]) as usize;
        assert_eq!(length, out.len() - 4);
        binary::decode(kind, "", Bytes::copy_from_slice(&out[4..])).ok()
    }

    proptest! {
        #[test]
        fn numerics_come_back(whole in "0|[1-9][0-9]{0,23}", fraction in "[0-9]{0,10}", minus: bool) {
            let text = if fraction.is_empty() { whole } else { format!("{whole}.{fraction}") };
            let zero = text.bytes().all(|b| matches!(b, b'0' | b'.'));
            let text = if minus && !zero { format!("-{text}") } else { text };
            let value = Value::Decimal(Decimal::parse(&text).expect("a number"));
            let kind = Type::Decimal { precision: 0, scale: 0 };
            prop_assert_eq!(read_back(oid::NUMERIC, &kind, &value), Some(value));
        }
    }

    #[test]
    fn what_is_not_of_the_type_is_refused_and_leaves_nothing() {
        let mut out = BytesMut::new();
        let long = Decimal::parse(&"9".repeat(60)).expect("a number");
        let fine = Decimal::Finite { unscaled: Bytes::from_static(&[1]), scale: 50 };
        for (of, value) in [
            (oid::INT2, Value::Int(40_000)),
            (oid::INT4, Value::Int(1 << 40)),
            (oid::INT8, Value::UInt(1)),
            (oid::FLOAT8, Value::Float32(0.1)),
            (oid::NUMERIC, Value::Int(1)),
            (oid::NUMERIC, Value::Decimal(long)),
            (oid::NUMERIC, Value::Decimal(fine)),
            (oid::TIMESTAMP, Value::Instant(0)),
            (oid::TIMESTAMPTZ, Value::Instant(i64::MIN + 1)),
            (oid::TIMESTAMPTZ, Value::Text("294277-01-01 00:00:00+00".into())),
            (oid::DATE, Value::Date(i32::MIN + 1)),
            (oid::UUID, Value::Text("{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}".into())),
            (oid::TEXT, Value::Int(1)),
            (oid::XML, Value::Text("<a/>".into())),
        ] {
            assert!(!put(&mut out, of, &value), "{of} {value:?}");
            assert!(out.is_empty(), "{of} {value:?}");
        }
    }
}
