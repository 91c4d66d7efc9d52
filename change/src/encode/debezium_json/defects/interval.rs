//! Pure. An interval on its way through the driver's `PGInterval` and Debezium's `MicroDuration` and `Interval`, which count
//! in floating numbers: `00:00:01.235` is 1234999 microseconds.

use crate::encode::debezium_json::value::put_typed;
use crate::encode::form::{Form, IntervalMode};
use crate::json;
use crate::schema::Type;
use crate::value::{Decimal, Value};

/// A value; false = it is as ours.
pub(super) fn put(out: &mut Vec<u8>, form: &Form, months: i32, days: i32, micros: i64) -> bool {
    let Some(theirs) = JavaInterval::of(months, days, micros) else { return false };
    let from = out.len();
    theirs.put(out, form);
    let mut ours = Vec::new();
    put_typed(&mut ours, form, &Type::Interval, "interval", &Value::Interval { months, days, micros });
    if out[from..] == ours[..] {
        out.truncate(from);
        return false;
    }
    true
}

/// As `PGInterval` holds it.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct JavaInterval {
    years: i32,
    months: i32,
    days: i32,
    hours: i32,
    minutes: i32,
    seconds: f64,
}

/// `MicroDuration.DAYS_PER_MONTH_AVG`.
const DAYS_OF_MONTH: f64 = 30.4375;

impl JavaInterval {
    pub(super) fn of(months: i32, days: i32, micros: i64) -> Option<Self> {
        let hours = i32::try_from(micros / 3_600_000_000).ok()?;
        let rest = micros % 3_600_000_000;
        let seconds = f64::from(i32::try_from(rest % 60_000_000 / 1_000_000).ok()?)
            + f64::from(i32::try_from(rest % 1_000_000).ok()?) / 1e6;
        Some(JavaInterval {
            years: months / 12,
            months: months % 12,
            days,
            hours,
            minutes: i32::try_from(rest / 60_000_000).ok()?,
            seconds,
        })
    }

    /// `PGInterval.setValue`: words it does not know are passed over. `None` = it throws.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut out = JavaInterval::default();
        let text = text.replace(['+', '@'], " ").to_lowercase();
        let (mut number, mut is_number) = (None, true);
        for word in text.split_ascii_whitespace() {
            if is_number {
                if let Some((hours, rest)) = word.split_once(':') {
                    let sign = if word.starts_with('-') { -1 } else { 1 };
                    out.hours = sign * hours.trim_start_matches('-').parse::<i32>().ok()?;
                    out.minutes = sign * rest.get(..2)?.parse::<i32>().ok()?;
                    let seconds = rest.split_once(':').map_or(Some(0.0), |(_, s)| s.parse::<f64>().ok())?;
                    let micros = (seconds * f64::from(sign) * 1e6 + 0.5).floor() as i64;
                    out.seconds =
                        f64::from(i32::try_from(micros / 1_000_000).ok()?) + (micros % 1_000_000) as f64 / 1e6;
                    number = None;
                } else {
                    number = Some(word);
                }
            } else {
                let n = number.map_or(Some(0), |n| n.parse().ok());
                match word {
                    w if w.starts_with("year") => out.years = n?,
                    w if w.starts_with("mon") => out.months = n?,
                    w if w.starts_with("day") => out.days = n?,
                    _ => {}
                }
            }
            is_number = !is_number;
        }
        Some(out)
    }

    pub(super) fn put(&self, out: &mut Vec<u8>, form: &Form) -> bool {
        match form.interval {
            IntervalMode::Numeric => json::put_i64(out, self.micros()),
            IntervalMode::String => json::put_string(out, &self.text()),
        }
        true
    }

    fn micros(&self) -> i64 {
        let days =
            f64::from(self.years.wrapping_mul(12).wrapping_add(self.months)) * DAYS_OF_MONTH + f64::from(self.days);
        let seconds = ((days * 24.0 + f64::from(self.hours)) * 60.0 + f64::from(self.minutes)) * 60.0 + self.seconds;
        // Java's cast, too, cuts the fraction and stops at the ends.
        (seconds * 1e6) as i64
    }

    fn text(&self) -> String {
        const DIGITS: usize = 9;
        let plain = Decimal::parse(&format!("{:?}", self.seconds)).map_or_else(|_| "0".to_owned(), |d| d.to_string());
        let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
        let fraction = fraction.get(..DIGITS).unwrap_or(fraction).trim_end_matches('0');
        let seconds = match (whole, fraction) {
            ("-0", "") => "0".to_owned(),
            (whole, "") => whole.to_owned(),
            (whole, fraction) => format!("{whole}.{fraction}"),
        };
        let JavaInterval { years, months, days, hours, minutes, .. } = self;
        format!("P{years}Y{months}M{days}DT{hours}H{minutes}M{seconds}S")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_go_through_floating_numbers() {
        // Source: defaults and values of a real Debezium's records.
        for (text, parts, micros, iso) in [
            ("00:00:01.235", (0, 0, 1_235_000), 1_234_999, "P0Y0M0DT0H0M1.234999999S"),
            ("1 year 2 mons -3 days +04:05:06.5", (14, -3, 14_706_500_000), 36_572_706_500_000, "P1Y2M-3DT4H5M6.5S"),
            ("-1 years -2 days +03:00:00", (-12, -2, 10_800_000_000), -31_719_600_000_000, "P-1Y0M-2DT3H0M0S"),
            ("-00:00:01", (0, 0, -1_000_000), -1_000_000, "P0Y0M0DT0H0M-1S"),
            ("1 mon 1 day 00:00:00.000001", (1, 1, 1), 2_716_200_000_001, "P0Y1M1DT0H0M0.000001S"),
            ("178956970 years", (2_147_483_640, 0, 0), i64::MAX, "P178956970Y0M0DT0H0M0S"),
            ("epoch", (0, 0, 0), 0, "P0Y0M0DT0H0M0S"),
        ] {
            let parsed = JavaInterval::parse(text).expect("parses");
            assert_eq!(JavaInterval::of(parts.0, parts.1, parts.2), Some(parsed), "{text}");
            assert_eq!((parsed.micros(), parsed.text().as_str()), (micros, iso), "{text}");
        }
    }
}
