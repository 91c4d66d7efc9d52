//! Pure. `__debezium.newkey` and `__debezium.oldkey`: a key as Connect's SimpleHeaderConverter prints it. It looks like JSON,
//! but a decimal is a plain number there; texts are escaped as JSON asks, which Connect does not do.
//! Source: recordings of a real Debezium 3.7.0.Final; Kafka, `Values.append`.

use super::defects::{self, Road};
use super::value::{fixed_scale, put_value};
use super::{EncodeError, Encoder, nothing};
use crate::encode::form::DecimalMode;
use crate::event::RowChange;
use crate::json;
use crate::schema::{Column, Type};
use crate::value::{Decimal, Value};
use bytes::Bytes;

impl Encoder {
    pub(super) fn key_header(&self, change: &RowChange, old: bool) -> Result<Bytes, EncodeError> {
        let mut out = Vec::with_capacity(32);
        let plain = |out: &mut Vec<u8>, column: &Column, value: &Value, road| self.put_plain(out, column, value, road);
        self.put_key(&mut out, change, old, plain, |out, column| self.put_nothing(out, column))?;
        Ok(out.into())
    }

    /// A default, or a zero, in the place of a value.
    fn put_nothing(&self, out: &mut Vec<u8>, column: &Column) {
        let mut shown = Vec::new();
        nothing::put(&mut shown, &self.options, self.options.key_defaults, column);
        let form = &self.options.form;
        let scale =
            fixed_scale(form, &column.kind, &column.native_type).filter(|_| form.decimal == DecimalMode::Precise);
        let number = match (scale, json::parse(&shown)) {
            (Some(scale), Ok(json::Node::String(text))) => json::from_base64(&text)
                .and_then(|bytes| big_decimal(&Decimal::Finite { unscaled: bytes.into(), scale }, scale)),
            _ => None,
        };
        out.extend_from_slice(number.as_deref().map_or(&shown[..], str::as_bytes));
    }

    fn put_plain(&self, out: &mut Vec<u8>, column: &Column, value: &Value, road: Road) {
        let form = &self.options.form;
        if let (Type::Decimal { .. }, Value::Decimal(d), DecimalMode::Precise) = (&column.kind, value, form.decimal)
            && let Some(scale) = fixed_scale(form, &column.kind, &column.native_type)
            && let Some(text) = big_decimal(d, scale)
        {
            return out.extend_from_slice(text.as_bytes());
        }
        if !self.options.defects {
            put_value(out, form, column, value);
            return;
        }
        if defects::put_moment(out, form, column, value) {
            return;
        }
        let mut quoted = Vec::new();
        if !defects::put_value(&mut quoted, &self.options, column, value, road) {
            put_value(&mut quoted, form, column, value);
        }
        defects::put_escaped(out, column, &quoted);
    }
}

/// As `java.math.BigDecimal.toString`.
pub(super) fn big_decimal(value: &Decimal, scale: i32) -> Option<String> {
    let exact = value.rescale(scale)?;
    let plain = exact.to_string();
    let digits: String = plain.bytes().filter(u8::is_ascii_digit).map(char::from).collect();
    let digits = match digits.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    };
    let exponent = digits.len() as i64 - 1 - i64::from(scale);
    if scale >= 0 && exponent >= -6 {
        return Some(plain);
    }
    let sign = if plain.starts_with('-') { "-" } else { "" };
    let (first, rest) = digits.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    Some(format!("{sign}{first}{point}{rest}E{exponent:+}"))
}

/// The same of a decimal's bytes.
pub(crate) fn big_decimal_of(unscaled: &[u8], scale: i32) -> Option<String> {
    big_decimal(&Decimal::Finite { unscaled: unscaled.to_vec().into(), scale }, scale)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn decimals_are_javas() {
        for (text, scale, want) in [
            ("1.5", 2, "1.50"),
            ("0", 2, "0.00"),
            ("-0.00000123", 8, "-0.00000123"),
            ("0.000000123", 9, "1.23E-7"),
            ("0", 7, "0E-7"),
            ("12345", 0, "12345"),
        ] {
            assert_eq!(big_decimal(&Decimal::parse(text).unwrap(), scale).as_deref(), Some(want), "{text}");
        }
    }
}
