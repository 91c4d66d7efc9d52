//! Pure. `Cast`: one value to another kind, as Java's numbers do it. Source: Kafka 4.3 `Cast`, recordings `cast-*`.

use super::smt::Refused;
use super::{Data, Kind, Schema, moment, write};
use crate::json;
use crate::value::Decimal;

/// What a value is to Java once its schema is forgotten.
enum Java {
    Long(i64),
    Double(f64),
    Big(Decimal),
    Bool(bool),
    Text(String),
}

/// `castValueToType`.
pub fn cast(schema: &Schema, data: &Data, to: Kind) -> Result<Data, Refused> {
    if *data == Data::Null {
        return Ok(Data::Null);
    }
    if to == Kind::String {
        return text(schema, data).map(Data::Text);
    }
    let value = match data {
        Data::Int(n) => Java::Long(*n),
        Data::Bool(b) => Java::Bool(*b),
        // A float is widened as its bits are: 0.1 becomes 0.10000000149011612.
        Data::Float(f) if schema.kind == Kind::Float32 => {
            Java::Double(f.parse::<f32>().map(f64::from).map_err(|_| not(schema))?)
        }
        Data::Float(f) => Java::Double(f.parse().map_err(|_| not(schema))?),
        Data::Text(t) => Java::Text(t.clone()),
        Data::Bytes(raw) if schema.is_named(write::DECIMAL) => {
            let scale = write::scale(schema).ok_or_else(|| not(schema))?;
            Java::Big(Decimal::Finite { unscaled: raw.clone().into(), scale })
        }
        _ => return Err(not(schema)),
    };
    Ok(match to {
        Kind::Boolean => Data::Bool(match value {
            Java::Bool(b) => b,
            Java::Text(t) => t.eq_ignore_ascii_case("true"),
            number => long(&number)? != 0,
        }),
        Kind::Float32 | Kind::Float64 => float(double(&value)?, to),
        Kind::Int8 => whole(&value, i64::from(i8::MIN), i64::from(i8::MAX), |n| i64::from(n as i8))?,
        Kind::Int16 => whole(&value, i64::from(i16::MIN), i64::from(i16::MAX), |n| i64::from(n as i16))?,
        Kind::Int32 => whole(&value, i64::from(i32::MIN), i64::from(i32::MAX), |n| i64::from(n as i32))?,
        Kind::Int64 => whole(&value, i64::MIN, i64::MAX, |n| n)?,
        _ => return Err(format!("nothing is cast to a {}", to.name())),
    })
}

fn not(schema: &Schema) -> Refused {
    format!("a {} cannot be cast to that", schema.name.as_deref().unwrap_or(schema.kind.name()))
}

/// `toString`, of moments their ISO text, of bytes base64.
fn text(schema: &Schema, data: &Data) -> Result<String, Refused> {
    Ok(match data {
        Data::Int(n) => moment::iso(schema, *n).unwrap_or_else(|| n.to_string()),
        Data::Bytes(raw) if schema.is_named(write::DECIMAL) => {
            write::decimal_text(schema, raw).ok_or_else(|| not(schema))?
        }
        Data::Bytes(raw) => write::base64(raw),
        Data::Bool(b) => b.to_string(),
        Data::Float(text) | Data::Text(text) => text.clone(),
        _ => return Err(not(schema)),
    })
}

/// A number's low bits; of a text only what is in range. A double is first the nearest `int` where the kind is shorter.
fn whole(value: &Java, least: i64, most: i64, low: fn(i64) -> i64) -> Result<Data, Refused> {
    let number = match value {
        Java::Text(t) => {
            let number: i64 = t.strip_prefix('+').unwrap_or(t).parse().map_err(|_| out_of_range(t))?;
            return (least..=most).contains(&number).then_some(Data::Int(number)).ok_or_else(|| out_of_range(t));
        }
        Java::Double(f) if most < i64::MAX => i64::from(*f as i32),
        other => long(other)?,
    };
    Ok(Data::Int(low(number)))
}

fn out_of_range(text: &str) -> Refused {
    format!("a text of {} characters is no such number, or out of its range", text.chars().count())
}

fn long(value: &Java) -> Result<i64, Refused> {
    Ok(match value {
        Java::Long(n) => *n,
        Java::Bool(b) => i64::from(*b),
        Java::Double(f) => *f as i64,
        // The low 64 bits of what stands before the point.
        Java::Big(decimal) => {
            let whole = decimal.to_string();
            let whole = whole.split('.').next().unwrap_or_default();
            whole.parse::<i128>().map_err(|_| out_of_range(whole))? as i64
        }
        Java::Text(t) => t.parse().map_err(|_| out_of_range(t))?,
    })
}

fn double(value: &Java) -> Result<f64, Refused> {
    Ok(match value {
        Java::Long(n) => *n as f64,
        Java::Bool(b) => f64::from(u8::from(*b)),
        Java::Double(f) => *f,
        Java::Big(decimal) => decimal.to_string().parse().map_err(|_| "a number is no double".to_owned())?,
        Java::Text(t) => {
            let digits = t.trim().trim_end_matches(['f', 'F', 'd', 'D']);
            digits.parse().map_err(|_| out_of_range(t))?
        }
    })
}

/// As Java prints it.
pub fn float(value: f64, kind: Kind) -> Data {
    let mut out = Vec::new();
    match kind {
        Kind::Float32 => json::put_f32(&mut out, value as f32),
        _ => json::put_f64(&mut out, value),
    }
    Data::Float(String::from_utf8_lossy(&out).trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values_are_cast_as_in_java() {
        let of = |kind, data: Data, to| cast(&Schema::new(kind), &data, to);
        let text = |t: &str| Data::Text(t.to_owned());
        let float = |t: &str| Data::Float(t.to_owned());
        for (kind, data, to, want) in [
            (Kind::Int64, Data::Int(300), Kind::Int8, Data::Int(44)),
            (Kind::Int64, Data::Int(i64::MAX), Kind::Int32, Data::Int(-1)),
            (Kind::Float64, float("1.0E10"), Kind::Int32, Data::Int(i64::from(i32::MAX))),
            (Kind::Float64, float("3.0E9"), Kind::Int16, Data::Int(-1)),
            (Kind::Float64, float("NaN"), Kind::Int64, Data::Int(0)),
            (Kind::Float64, float("-1.5"), Kind::Int64, Data::Int(-1)),
            (Kind::Float64, float("0.5"), Kind::Boolean, Data::Bool(false)),
            (Kind::Int32, Data::Int(7), Kind::Float64, float("7.0")),
            (Kind::Int64, Data::Int(16_777_217), Kind::Float32, float("1.6777216E7")),
            (Kind::Float32, float("0.1"), Kind::Float64, float("0.10000000149011612")),
            (Kind::Float32, float("0.1"), Kind::Float32, float("0.1")),
            (Kind::Boolean, Data::Bool(true), Kind::Int64, Data::Int(1)),
            (Kind::Boolean, Data::Bool(true), Kind::String, text("true")),
            (Kind::String, text("TRUE"), Kind::Boolean, Data::Bool(true)),
            (Kind::String, text("+12"), Kind::Int8, Data::Int(12)),
            (Kind::String, text("1.5"), Kind::Float32, float("1.5")),
            (Kind::Bytes, Data::Bytes(vec![1, 2]), Kind::String, text("AQI=")),
            (Kind::Int32, Data::Null, Kind::String, Data::Null),
        ] {
            assert_eq!(of(kind, data.clone(), to).unwrap(), want, "{data:?} {to:?}");
        }
        for (kind, data, to) in [
            (Kind::String, text("128"), Kind::Int8),
            (Kind::String, text("1.5"), Kind::Int32),
            (Kind::Bytes, Data::Bytes(vec![1]), Kind::Int32),
            (Kind::Struct, Data::Struct(vec![]), Kind::String),
        ] {
            assert!(of(kind, data.clone(), to).is_err(), "{data:?}");
        }
        let mut decimal = Schema::new(Kind::Bytes);
        (decimal.name, decimal.parameters) = (Some(write::DECIMAL.into()), vec![("scale".into(), "2".into())]);
        let of = |to| cast(&decimal, &Data::Bytes(vec![0x01, 0x96]), to).unwrap();
        assert_eq!([of(Kind::String), of(Kind::Int64), of(Kind::Float64)], [text("4.06"), Data::Int(4), float("4.06")]);
    }
}
