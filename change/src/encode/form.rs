//! Pure. How a pipeline wants values written: the handling modes of Debezium's PostgreSQL connector, by its names.
//!
//! A record that is not in the default form says so in the header `cw.form` (`version u8 = 1`, then one byte each:
//! decimal, time, binary, hstore, interval, money digits), so `decode` needs no configuration and a topic may hold
//! records of several forms. Page: `docs/formats/stamp.md`.

/// Name of the record header.
pub const FORM_HEADER: &[u8] = b"cw.form";

/// `decimal.handling.mode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum DecimalMode {
    #[default]
    Precise = 0,
    Double = 1,
    String = 2,
}

/// `time.precision.mode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum TimeMode {
    #[default]
    Adaptive = 0,
    AdaptiveMicros = 1,
    Connect = 2,
    IsoString = 3,
    Micros = 4,
    Nanos = 5,
    Structured = 6,
}

/// `binary.handling.mode`. Bytes and base64 look alike in JSON; their schemas differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum BinaryMode {
    #[default]
    Bytes = 0,
    Base64 = 1,
    Base64UrlSafe = 2,
    Hex = 3,
}

/// `hstore.handling.mode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum HstoreMode {
    #[default]
    Json = 0,
    Map = 1,
}

/// `interval.handling.mode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum IntervalMode {
    #[default]
    Numeric = 0,
    String = 1,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Form {
    pub decimal: DecimalMode,
    pub time: TimeMode,
    pub binary: BinaryMode,
    pub hstore: HstoreMode,
    pub interval: IntervalMode,
    /// `money.fraction.digits`: digits after the point of a precise `money`, at most [`MONEY_DIGITS_MAX`].
    pub money_digits: u8,
}

/// More digits than any currency has.
pub const MONEY_DIGITS_MAX: u8 = 18;

impl Default for Form {
    fn default() -> Self {
        Form {
            decimal: DecimalMode::Precise,
            time: TimeMode::Adaptive,
            binary: BinaryMode::Bytes,
            hstore: HstoreMode::Json,
            interval: IntervalMode::Numeric,
            money_digits: 2,
        }
    }
}

/// A header that is not understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
#[error("cw.form is not known")]
pub struct UnknownForm;

impl Form {
    /// The header's value; `None` = the default form, which has none.
    pub fn encode(&self) -> Option<[u8; 7]> {
        if *self == Form::default() {
            return None;
        }
        Some([
            1,
            self.decimal as u8,
            self.time as u8,
            self.binary as u8,
            self.hstore as u8,
            self.interval as u8,
            self.money_digits,
        ])
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, UnknownForm> {
        let [1, decimal, time, binary, hstore, interval, money_digits @ 0..=MONEY_DIGITS_MAX] = *bytes else {
            return Err(UnknownForm);
        };
        let decimal =
            [DecimalMode::Precise, DecimalMode::Double, DecimalMode::String].get(usize::from(decimal)).copied();
        let times = [
            TimeMode::Adaptive,
            TimeMode::AdaptiveMicros,
            TimeMode::Connect,
            TimeMode::IsoString,
            TimeMode::Micros,
            TimeMode::Nanos,
            TimeMode::Structured,
        ];
        let binaries = [BinaryMode::Bytes, BinaryMode::Base64, BinaryMode::Base64UrlSafe, BinaryMode::Hex];
        let time = times.get(usize::from(time)).copied();
        let binary = binaries.get(usize::from(binary)).copied();
        let hstore = [HstoreMode::Json, HstoreMode::Map].get(usize::from(hstore)).copied();
        let interval = [IntervalMode::Numeric, IntervalMode::String].get(usize::from(interval)).copied();
        match (decimal, time, binary, hstore, interval) {
            (Some(decimal), Some(time), Some(binary), Some(hstore), Some(interval)) => {
                Ok(Form { decimal, time, binary, hstore, interval, money_digits })
            }
            _ => Err(UnknownForm),
        }
    }
}

/// How a time or timestamp column is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    Millis,
    Micros,
    Nanos,
    Iso,
}

impl TimeMode {
    /// `time` columns.
    pub fn time(self, digits: u32) -> Unit {
        match self {
            TimeMode::Adaptive if digits <= 3 => Unit::Millis,
            TimeMode::Adaptive | TimeMode::AdaptiveMicros | TimeMode::Micros => Unit::Micros,
            TimeMode::Connect => Unit::Millis,
            TimeMode::IsoString => Unit::Iso,
            TimeMode::Nanos => Unit::Nanos,
            // Of what is said besides: the values are structures.
            TimeMode::Structured => Unit::Micros,
        }
    }
    /// `timestamp` columns without zone.
    pub fn timestamp(self, digits: u32) -> Unit {
        match self {
            TimeMode::Adaptive | TimeMode::AdaptiveMicros if digits <= 3 => Unit::Millis,
            TimeMode::Adaptive | TimeMode::AdaptiveMicros | TimeMode::Micros => Unit::Micros,
            TimeMode::Connect => Unit::Millis,
            TimeMode::IsoString => Unit::Iso,
            TimeMode::Nanos => Unit::Nanos,
            TimeMode::Structured => Unit::Micros,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_says_every_mode_and_the_default_says_nothing() {
        assert_eq!(Form::default().encode(), None);
        let form = Form {
            decimal: DecimalMode::String,
            time: TimeMode::Nanos,
            binary: BinaryMode::Hex,
            hstore: HstoreMode::Map,
            interval: IntervalMode::String,
            money_digits: 4,
        };
        let bytes = form.encode().expect("not the default");
        assert_eq!(bytes, [1, 2, 5, 3, 1, 1, 4]);
        assert_eq!(Form::decode(&bytes), Ok(form));
        for at in 0..bytes.len() {
            let mut bad = bytes;
            bad[at] = 99;
            assert_eq!(Form::decode(&bad), Err(UnknownForm), "{at}");
        }
        assert_eq!(Form::decode(&[]), Err(UnknownForm));
    }
}
