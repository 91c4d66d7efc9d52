//! Pure. One value of one column, in the source's own precision. Encoders lose precision only when a mode says so.

use bytes::Bytes;
use std::fmt;

/// Text as the source sent it, cheap to clone, valid UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Text(Bytes);

impl Text {
    pub fn as_str(&self) -> &str {
        // Construction checked it.
        std::str::from_utf8(&self.0).unwrap_or("")
    }
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
    /// A slice of a frame, checked.
    pub fn from_utf8(bytes: Bytes) -> Result<Self, std::str::Utf8Error> {
        std::str::from_utf8(&bytes)?;
        Ok(Text(bytes))
    }
}

impl From<&str> for Text {
    fn from(s: &str) -> Self {
        Text(Bytes::copy_from_slice(s.as_bytes()))
    }
}
impl From<String> for Text {
    fn from(s: String) -> Self {
        Text(Bytes::from(s.into_bytes()))
    }
}
impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}
impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A value that is there. What has no variant of its own travels as `Text`, printed by the source; the column's type
/// says what it is.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    Bool(bool),
    Int(i64),
    UInt(u64),
    Decimal(Decimal),
    Float32(f32),
    Float64(f64),
    Text(Text),
    Bytes(Bytes),
    /// Days since 1970-01-01; `i32::MAX`/`i32::MIN` = ±infinity.
    Date(i32),
    /// Microseconds since midnight, 0..=86,400,000,000 (24:00:00 is legal in PostgreSQL).
    Time(i64),
    /// Microseconds since 1970-01-01 00:00 without a zone; `i64::MAX`/`i64::MIN` = ±infinity.
    Timestamp(i64),
    /// Microseconds since 1970-01-01 00:00 UTC; `i64::MAX`/`i64::MIN` = ±infinity.
    Instant(i64),
    /// The three parts stay apart: a month has no length.
    Interval {
        months: i32,
        days: i32,
        micros: i64,
    },
    /// JSON as it was sent, not normalised.
    Json(Text),
    /// One-dimensional array with lower bound 1; others travel as `Text`.
    Array(Vec<Option<Value>>),
}

/// An exact decimal number. `Finite`: value = unscaled × 10^-scale; `unscaled` is big-endian two's complement, shortest
/// form, never empty.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Decimal {
    Finite { unscaled: Bytes, scale: i32 },
    NaN,
    Infinity,
    NegInfinity,
}

/// Text that is no decimal number.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a decimal number")]
pub struct NotDecimal;

impl Decimal {
    /// Parses `-12.340` (scale 3), `1e5`, `NaN`, `Infinity`, `-Infinity`. Trailing zeros are kept: they are the scale.
    pub fn parse(text: &str) -> Result<Self, NotDecimal> {
        if let Some((unscaled, scale)) = word(text.as_bytes()) {
            let unscaled = Bytes::copy_from_slice(shortest(&unscaled.to_be_bytes()));
            return Ok(Decimal::Finite { unscaled, scale });
        }
        match text {
            "NaN" => return Ok(Decimal::NaN),
            "Infinity" | "inf" => return Ok(Decimal::Infinity),
            "-Infinity" | "-inf" => return Ok(Decimal::NegInfinity),
            _ => {}
        }
        let (mantissa, exponent) = match text.find(['e', 'E']) {
            Some(at) => (&text[..at], text[at + 1..].parse::<i32>().map_err(|_| NotDecimal)?),
            None => (text, 0),
        };
        let (negative, digits) = match mantissa.as_bytes().first() {
            Some(b'-') => (true, &mantissa[1..]),
            Some(b'+') => (false, &mantissa[1..]),
            _ => (false, mantissa),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() && fraction.is_empty() {
            return Err(NotDecimal);
        }
        if mantissa.len() == text.len()
            && let Some(unscaled) = short(whole, fraction, negative)?
        {
            return Ok(Decimal::Finite { unscaled, scale: fraction.len() as i32 });
        }
        // Little-endian base-256 magnitude; numerics have at most some ten thousand digits, so O(n²) is fine.
        let mut magnitude: Vec<u8> = vec![0];
        for b in whole.bytes().chain(fraction.bytes()) {
            if !b.is_ascii_digit() {
                return Err(NotDecimal);
            }
            multiply_add(&mut magnitude, 10, b - b'0');
        }
        let mut scale = i32::try_from(fraction.len()).map_err(|_| NotDecimal)?.saturating_sub(exponent);
        if scale < 0 {
            if scale < -100_000 {
                return Err(NotDecimal);
            }
            for _ in 0..-scale {
                multiply_add(&mut magnitude, 10, 0);
            }
            scale = 0;
        }
        Ok(Decimal::Finite { unscaled: twos_complement(magnitude, negative), scale })
    }

    /// The same number without zeros at the end of its fraction; `None` = there are none.
    pub fn stripped(&self) -> Option<Decimal> {
        let Decimal::Finite { unscaled, scale: 1.. } = self else { return None };
        // An odd number is no multiple of ten: half of them need no look at the text.
        if unscaled.last().is_some_and(|b| b & 1 == 1) {
            return None;
        }
        let text = self.to_string();
        let kept = text.trim_end_matches('0').trim_end_matches('.');
        if kept.len() == text.len() { None } else { Decimal::parse(kept).ok() }
    }

    /// The nearest number with exactly `scale` digits after the point, halves away from zero; `None` if it is not
    /// finite.
    pub fn rounded(&self, to: i32) -> Option<Decimal> {
        let Decimal::Finite { .. } = self else { return None };
        let text = self.to_string();
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
        let want = usize::try_from(to).ok()?;
        if fraction.len() <= want {
            return self.rescale(to);
        }
        let negative = whole.starts_with('-');
        let mut digits: Vec<u8> = whole.trim_start_matches('-').bytes().chain(fraction.bytes().take(want)).collect();
        if fraction.as_bytes()[want] >= b'5' {
            let mut at = digits.len();
            loop {
                if at == 0 {
                    digits.insert(0, b'1');
                    break;
                }
                at -= 1;
                if digits[at] == b'9' {
                    digits[at] = b'0';
                } else {
                    digits[at] += 1;
                    break;
                }
            }
        }
        let split = digits.len() - want;
        let text = String::from_utf8(digits).ok()?;
        let sign = if negative { "-" } else { "" };
        Decimal::parse(&format!("{sign}{}.{}", &text[..split], &text[split..])).ok()
    }

    /// The same number with exactly `scale` digits after the point, if that loses nothing.
    pub fn rescale(&self, to: i32) -> Option<Decimal> {
        let Decimal::Finite { scale, .. } = self else { return None };
        if *scale == to {
            return Some(self.clone());
        }
        let text = self.to_string();
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
        let want = usize::try_from(to).ok()?;
        let fraction = if fraction.len() > want {
            let (keep, cut) = fraction.split_at(want);
            if cut.bytes().any(|b| b != b'0') {
                return None;
            }
            keep.to_owned()
        } else {
            format!("{fraction:0<want$}")
        };
        Decimal::parse(&if want == 0 { whole.to_owned() } else { format!("{whole}.{fraction}") }).ok()
    }
}

/// Digits that an `i128` holds.
const SHORT_DIGITS: usize = 38;

/// Digits of a number that fit into an `i64` whatever they are.
const WORD_DIGITS: i32 = 18;

/// Unscaled number and scale of so few digits, with a minus and a point at most: nearly all; `None` = it is not such a one.
fn word(text: &[u8]) -> Option<(i64, i32)> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let (mut number, mut count, mut point) = (0i64, 0, None);
    for b in digits {
        match b {
            b'0'..=b'9' if count < WORD_DIGITS => {
                number = number * 10 + i64::from(b - b'0');
                count += 1;
            }
            b'.' if point.is_none() => point = Some(count),
            _ => return None,
        }
    }
    let number = if digits.len() < text.len() { -number } else { number };
    (count > 0).then_some((number, count - point.unwrap_or(count)))
}

/// The unscaled number of few digits, as most are; `None` = they are too many.
fn short(whole: &str, fraction: &str, negative: bool) -> Result<Option<Bytes>, NotDecimal> {
    if whole.len() + fraction.len() > SHORT_DIGITS {
        return Ok(None);
    }
    let mut number = 0i128;
    // Eighteen digits at a time: a machine word does.
    for digits in [whole, fraction] {
        for some in digits.as_bytes().chunks(18) {
            let mut part = 0u64;
            for b in some {
                if !b.is_ascii_digit() {
                    return Err(NotDecimal);
                }
                part = part * 10 + u64::from(b - b'0');
            }
            number = number * 10i128.pow(some.len() as u32) + i128::from(part);
        }
    }
    let bytes = if negative { -number } else { number }.to_be_bytes();
    Ok(Some(Bytes::copy_from_slice(shortest(&bytes))))
}

/// Big-endian two's complement without the bytes in front that say nothing.
fn shortest(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let [top, next, ..] = rest
        && ((*top == 0 && next & 0x80 == 0) || (*top == 0xff && next & 0x80 != 0))
    {
        rest = &rest[1..];
    }
    rest
}

fn multiply_add(magnitude: &mut Vec<u8>, by: u16, add: u8) {
    let mut carry = u16::from(add);
    for byte in magnitude.iter_mut() {
        let v = u16::from(*byte) * by + carry;
        *byte = v as u8;
        carry = v >> 8;
    }
    if carry > 0 {
        magnitude.push(carry as u8);
    }
}

fn twos_complement(mut little: Vec<u8>, negative: bool) -> Bytes {
    while little.len() > 1 && little.last() == Some(&0) {
        little.pop();
    }
    if negative {
        let mut carry = true;
        for byte in &mut little {
            let (v, c) = (!*byte).overflowing_add(u8::from(carry));
            *byte = v;
            carry = c;
        }
        let zero = little.iter().all(|b| *b == 0);
        if !zero && little.last().is_some_and(|b| b & 0x80 == 0) {
            little.push(0xff);
        }
    } else if little.last().is_some_and(|b| b & 0x80 != 0) {
        little.push(0);
    }
    // Shortest form.
    while little.len() > 1 {
        let (top, next) = (little[little.len() - 1], little[little.len() - 2]);
        if (top == 0 && next & 0x80 == 0) || (top == 0xff && next & 0x80 != 0) {
            little.pop();
        } else {
            break;
        }
    }
    little.reverse();
    Bytes::from(little)
}

/// As [`Decimal`]'s text, with the `places` (at most [`SHORT_DIGITS`]) after the point.
fn fmt_short(f: &mut fmt::Formatter<'_>, number: i128, places: usize) -> fmt::Result {
    // A point, and a zero before it.
    let mut text = [0u8; 2 * SHORT_DIGITS + 4];
    let (mut at, mut rest, mut digits) = (text.len(), number.unsigned_abs(), 0);
    while rest > 0 || digits <= places {
        if digits == places && places > 0 {
            at -= 1;
            text[at] = b'.';
        }
        at -= 1;
        // Most fit a machine word, whose division is much cheaper.
        text[at] = b'0'
            + match u64::try_from(rest) {
                Ok(word) => {
                    rest = u128::from(word / 10);
                    (word % 10) as u8
                }
                Err(_) => {
                    let digit = (rest % 10) as u8;
                    rest /= 10;
                    digit
                }
            };
        digits += 1;
    }
    if number < 0 {
        at -= 1;
        text[at] = b'-';
    }
    f.write_str(std::str::from_utf8(&text[at..]).unwrap_or("0"))
}

impl fmt::Display for Decimal {
    /// Plain notation with exactly `scale` digits after the point, as PostgreSQL prints a numeric.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unscaled, scale) = match self {
            Decimal::NaN => return f.write_str("NaN"),
            Decimal::Infinity => return f.write_str("Infinity"),
            Decimal::NegInfinity => return f.write_str("-Infinity"),
            Decimal::Finite { unscaled, scale } => (unscaled, *scale),
        };
        let negative = unscaled.first().is_some_and(|b| b & 0x80 != 0);
        if let (1..=16, Ok(places @ 0..=SHORT_DIGITS)) = (unscaled.len(), usize::try_from(scale)) {
            let mut wide = [if negative { 0xff } else { 0 }; 16];
            wide[16 - unscaled.len()..].copy_from_slice(unscaled);
            return fmt_short(f, i128::from_be_bytes(wide), places);
        }
        let mut big: Vec<u8> = unscaled.to_vec();
        if negative {
            let mut carry = true;
            for byte in big.iter_mut().rev() {
                let (v, c) = (!*byte).overflowing_add(u8::from(carry));
                *byte = v;
                carry = c;
            }
        }
        let mut digits = Vec::new();
        while big.iter().any(|b| *b != 0) {
            let mut rest = 0u16;
            for byte in &mut big {
                let v = (rest << 8) | u16::from(*byte);
                *byte = (v / 10) as u8;
                rest = v % 10;
            }
            digits.push(b'0' + rest as u8);
        }
        let places = usize::try_from(scale.max(0)).unwrap_or(0);
        while digits.len() <= places {
            digits.push(b'0');
        }
        if scale < 0 {
            let mut zeros = vec![b'0'; scale.unsigned_abs() as usize];
            zeros.append(&mut digits);
            digits = zeros;
        }
        digits.reverse();
        let (whole, fraction) = digits.split_at(digits.len() - places);
        if negative {
            f.write_str("-")?;
        }
        f.write_str(std::str::from_utf8(whole).unwrap_or("0"))?;
        if places > 0 {
            write!(f, ".{}", std::str::from_utf8(fraction).unwrap_or("0"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decimals_print_as_they_were_read() {
        for text in [
            "0",
            "1",
            "-1",
            "0.00",
            "-0.01",
            "12345678901234567890123456789.1230",
            "127",
            "128",
            "-128",
            "-129",
            "255",
            "256",
            "NaN",
            "Infinity",
            "-Infinity",
            "99999999999999999999.99",
        ] {
            assert_eq!(Decimal::parse(text).map(|d| d.to_string()).as_deref(), Ok(text), "{text}");
        }
        assert_eq!(Decimal::parse("1.5e3").map(|d| d.to_string()).as_deref(), Ok("1500"));
        for bad in ["", "-", ".", "1.2.3", "abc", "1e", "0x1"] {
            assert!(Decimal::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        /// Short numbers go another way than long ones: both give the same.
        #[test]
        fn short_decimals_are_as_long_ones(text in "[-+]?[0-9]{0,20}[.]?[0-9]{0,20}") {
            let (sign, digits) = match text.strip_prefix(['-', '+']) {
                Some(digits) if text.starts_with('-') => ("-", digits),
                Some(digits) => ("", digits),
                None => ("", text.as_str()),
            };
            // Forty zeros in front do not change the number, and no short way takes them.
            let long = Decimal::parse(&format!("{sign}{}{digits}", "0".repeat(40)));
            let has_digits = digits.contains(|c: char| c.is_ascii_digit());
            prop_assert_eq!(Decimal::parse(&text), if has_digits { long } else { Err(NotDecimal) });
        }
    }

    #[test]
    fn unscaled_bytes_equal_javas_big_integer() {
        // Source: java.math.BigInteger.toByteArray.
        for (text, bytes) in [
            ("0", vec![0u8]),
            ("127", vec![0x7f]),
            ("128", vec![0, 0x80]),
            ("-128", vec![0x80]),
            ("-129", vec![0xff, 0x7f]),
            ("1.23", vec![0x7b]),
        ] {
            let Ok(Decimal::Finite { unscaled, .. }) = Decimal::parse(text) else { panic!("{text}") };
            assert_eq!(unscaled, bytes, "{text}");
        }
    }

    #[test]
    fn zeros_at_the_end_go_and_halves_are_rounded_away() {
        let stripped = |t: &str| Decimal::parse(t).ok()?.stripped().map(|d| d.to_string());
        for (text, want) in [
            ("3.1400", Some("3.14")),
            ("100", None),
            ("100.00", Some("100")),
            ("0.0", Some("0")),
            ("-2.50", Some("-2.5")),
            ("1.2", None),
            ("12345678901234567890123456789.1230", Some("12345678901234567890123456789.123")),
        ] {
            assert_eq!(stripped(text).as_deref(), want, "{text}");
        }
        let rounded = |t: &str, to| Decimal::parse(t).ok()?.rounded(to).map(|d| d.to_string());
        for (text, to, want) in
            [("12.34", 0, "12"), ("-0.01", 0, "0"), ("9.995", 2, "10.00"), ("-9.5", 0, "-10"), ("1.2", 4, "1.2000")]
        {
            assert_eq!(rounded(text, to).as_deref(), Some(want), "{text}");
        }
    }

    proptest! {
        #[test]
        fn few_digits_and_many_are_the_same_number(sign in "-?", whole in "0|[1-9][0-9]{0,45}", fraction in "[0-9]{0,45}") {
            let text = if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") };
            let parsed = Decimal::parse(&text);
            // An exponent keeps it from the short way.
            let long = Decimal::parse(&format!("{text}e0"));
            prop_assert_eq!(&parsed, &long);
            let zero = text.bytes().all(|b| matches!(b, b'-' | b'0' | b'.'));
            let want = if zero { text.trim_start_matches('-').to_owned() } else { text.clone() };
            let text = parsed.map(|d| d.to_string());
            prop_assert_eq!(text, Ok(want));
        }
    }

    #[test]
    fn rescale_refuses_to_lose_digits() {
        let d = Decimal::parse("1.20").expect("legal");
        assert_eq!(d.rescale(1).map(|d| d.to_string()).as_deref(), Some("1.2"));
        assert_eq!(d.rescale(4).map(|d| d.to_string()).as_deref(), Some("1.2000"));
        assert_eq!(d.rescale(0), None);
    }
}
