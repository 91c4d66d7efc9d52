//! Pure. Dates and times: what becomes of them on their way through `java.sql.Date`, `Time` and `Timestamp`, which count in
//! Julian days before 1582-10-15, have no era in their fields, no hour 24 and two far moments instead of infinity.

use super::Road;
use crate::calendar;
use crate::encode::debezium_json::default::moment;
use crate::encode::debezium_json::value::put_value;
use crate::encode::form::{Form, Unit};
use crate::json;
use crate::schema::{Column, Type};
use crate::value::Value;

const DAY_US: i64 = 86_400_000_000;
/// 1582-10-15, the first day of Java's Gregorian calendar; the ten before it are none.
const GREGORIAN: i64 = -141_427;
const GAP: i64 = 10;
/// `PGStatement.DATE_POSITIVE_INFINITY` and its negative, as days cut to 32 bits and as texts.
const JDBC_INFINITY: (i32, &str) = (-622_191_234, "+292278994-08-16Z");
const JDBC_MINUS_INFINITY: (i32, &str) = (-625_821_272, "+292269055-12-02Z");
/// What the parser of the stream makes of `infinity` (`LocalDate` of the year 5877611, less what it takes for an offset).
const STREAM_INFINITY: (i32, &str) = (2_146_033_979, "+5877611-06-21Z");
const STREAM_MINUS_INFINITY: (i32, &str) = (-2_147_472_691, "-5877611-06-22Z");
const FAR: &str = "+292278994-08-16T23:00:00Z";
const FAR_BACK: &str = "-292275055-05-16T23:00:00Z";
/// The same moment, its era lost.
const FAR_BACK_ZONED: &str = "+292269055-12-02T23:00:00.000000Z";

/// A date of the server's through the fields of a `java.sql.Date`.
pub(in super::super) fn by_fields(days: i64) -> i64 {
    let (year, month, day) = calendar::civil(days);
    match days {
        _ if (GREGORIAN - GAP..GREGORIAN).contains(&days) => days + GAP,
        _ if year <= 0 => calendar::days(1 - year, month, day),
        days => days,
    }
}

/// A date of the server's, its fields read as one of the Julian calendar.
pub(in super::super) fn by_julian(days: i64) -> i64 {
    if days >= GREGORIAN {
        return days;
    }
    let (year, month, day) = calendar::civil(days);
    let y = year - i64::from(month <= 2);
    let shifted = i64::from((month + 9) % 12);
    // Days since 0000-03-01 of the Julian calendar, which is 0000-02-28 of the Gregorian.
    y * 365 + y.div_euclid(4) + (153 * shifted + 2) / 5 + i64::from(day) - 1 - 719_470
}

fn put_days(out: &mut Vec<u8>, form: &Form, days: i64) {
    match form.time.timestamp(6) {
        Unit::Iso => json::put_string(out, &format!("{}Z", calendar::date_text(days))),
        _ => json::put_i64(out, days),
    }
}

fn put_pair(out: &mut Vec<u8>, form: &Form, (days, text): (i32, &str)) {
    match form.time.timestamp(6) {
        Unit::Iso => json::put_string(out, text),
        _ => json::put_i64(out, i64::from(days)),
    }
}

pub(super) fn put_date(out: &mut Vec<u8>, form: &Form, days: i32, road: Road) -> bool {
    match (days, road) {
        (i32::MAX, Road::Jdbc) => put_pair(out, form, JDBC_INFINITY),
        (i32::MIN, Road::Jdbc) => put_pair(out, form, JDBC_MINUS_INFINITY),
        (i32::MAX, Road::Stream) => put_pair(out, form, STREAM_INFINITY),
        (i32::MIN, Road::Stream) => put_pair(out, form, STREAM_MINUS_INFINITY),
        (_, Road::Stream) => return false,
        (days, Road::Jdbc) => {
            let shown = by_fields(i64::from(days));
            if shown == i64::from(days) {
                return false;
            }
            put_days(out, form, shown);
        }
    }
    true
}

/// 24:00 has no ISO text there.
pub(super) fn put_time(out: &mut Vec<u8>, form: &Form, micros: i64) -> bool {
    if form.time.time(6) != Unit::Iso || micros != DAY_US {
        return false;
    }
    json::put_string(out, "00:00:00Z");
    true
}

pub(super) fn put_timestamp(out: &mut Vec<u8>, form: &Form, digits: u32, micros: i64) -> bool {
    match (form.time.timestamp(digits), micros) {
        (Unit::Iso, i64::MAX) => json::put_string(out, FAR),
        (Unit::Iso, i64::MIN) => json::put_string(out, FAR_BACK),
        (Unit::Nanos, micros) if micros.checked_mul(1000).is_none() && !matches!(micros, i64::MAX | i64::MIN) => {
            out.extend_from_slice(b"null");
        }
        _ => return false,
    }
    true
}

/// A moment that microseconds do not reach: whole seconds stop at the last number there is, the fraction goes round it.
pub(super) fn put_far(out: &mut Vec<u8>, form: &Form, digits: u32, text: &str) -> bool {
    let Some(micros) = calendar::parse_wide(text) else { return false };
    match form.time.timestamp(digits) {
        Unit::Micros => json::put_i64(out, i64::MAX.wrapping_add(micros.rem_euclid(1_000_000) as i64)),
        Unit::Nanos => out.extend_from_slice(b"null"),
        Unit::Millis | Unit::Iso => return false,
    }
    true
}

/// `LocalDateTime.MAX` and `MIN`, infinities of defaults: days cut to 32 bits, and their texts.
const FAR_DEFAULT: (i32, &str) = (169_560_311, "+999999999-12-31Z");
const FAR_BACK_DEFAULT: (i32, &str) = (-170_999_002, "-999999999-01-01Z");
/// `LocalTime.MAX`, nanoseconds: what 24:00 is as a default.
const LAST_NS: i64 = 86_399_999_999_999;

/// A default; false = Debezium finds none in the text.
pub(super) fn put_default_date(out: &mut Vec<u8>, form: &Form, column: &Column, text: &str) -> bool {
    match text {
        "infinity" => put_pair(out, form, FAR_DEFAULT),
        "-infinity" => put_pair(out, form, FAR_BACK_DEFAULT),
        text => {
            let days = moment(text).and_then(|us| i32::try_from(us.div_euclid(i128::from(DAY_US))).ok());
            let Some(days) = days else { return false };
            put_value(out, form, column, &Value::Date(days));
        }
    }
    true
}

pub(super) fn put_default_time(out: &mut Vec<u8>, form: &Form, column: &Column, text: &str) -> bool {
    let Type::Time { digits, .. } = column.kind else { return false };
    match calendar::parse_clock(text) {
        Some(DAY_US) => match form.time.time(digits) {
            Unit::Iso => json::put_string(out, "23:59:59.999999999Z"),
            Unit::Millis => json::put_i64(out, LAST_NS / 1_000_000),
            Unit::Micros => json::put_i64(out, LAST_NS / 1000),
            Unit::Nanos => json::put_i64(out, LAST_NS),
        },
        Some(micros) => drop(put_value(out, form, column, &Value::Time(micros))),
        None => return false,
    }
    true
}

pub(super) fn put_default_timestamp(out: &mut Vec<u8>, form: &Form, column: &Column, text: &str) -> bool {
    let Type::Timestamp { digits } = column.kind else { return false };
    match (text, form.time.timestamp(digits)) {
        ("infinity", Unit::Iso) => json::put_string(out, "+999999999-12-31T23:59:59.999999999Z"),
        ("-infinity", Unit::Iso) => json::put_string(out, "-999999999-01-01T00:00:00Z"),
        ("infinity", Unit::Micros) => json::put_i64(out, i64::MAX.wrapping_add(999_999)),
        ("-infinity", Unit::Micros) => json::put_i64(out, i64::MIN),
        ("infinity" | "-infinity", _) => return false,
        (text, _) => {
            let Some(micros) = moment(text) else { return false };
            let from = out.len();
            let value = i64::try_from(micros).map_or_else(|_| Value::Text(text.into()), Value::Timestamp);
            let done = match &value {
                Value::Timestamp(us) => put_timestamp(out, form, digits, *us),
                _ => put_far(out, form, digits, text),
            };
            if !done {
                put_value(out, form, column, &value);
            }
            return &out[from..] != b"null";
        }
    }
    true
}

/// Its infinities are beyond what another zone has room for.
pub(super) fn put_default_instant(out: &mut Vec<u8>, column: &Column, text: &str) -> bool {
    let Type::Instant { digits } = column.kind else { return false };
    let unit = 10i128.pow(6u32.saturating_sub(digits));
    let shown = moment(text).and_then(|us| calendar::wide_text(us.div_euclid(unit) * unit, digits));
    shown.map(|text| json::put_string(out, &text)).is_some()
}

pub(super) fn put_date_item(out: &mut Vec<u8>, form: &Form, days: i32) {
    if !put_date(out, form, days, Road::Jdbc) {
        put_days(out, form, i64::from(days));
    }
}

/// `java.sql.Time`: milliseconds of a day.
pub(super) fn put_time_item(out: &mut Vec<u8>, form: &Form, digits: u32, micros: i64) {
    let millis = micros.rem_euclid(DAY_US) / 1000;
    match form.time.time(digits) {
        Unit::Iso => json::put_string(out, &format!("{}Z", calendar::clock_text(millis * 1000, 0))),
        Unit::Millis => json::put_i64(out, millis),
        Unit::Micros => json::put_i64(out, millis * 1000),
        Unit::Nanos => json::put_i64(out, millis * 1_000_000),
    }
}

/// False if the item is as outside of an array.
pub(super) fn put_timestamp_item(out: &mut Vec<u8>, form: &Form, digits: u32, micros: i64) -> bool {
    if put_timestamp(out, form, digits, micros) {
        return true;
    }
    if matches!(micros, i64::MAX | i64::MIN) {
        return false;
    }
    let (days, clock) = (micros.div_euclid(DAY_US), micros.rem_euclid(DAY_US));
    let shown = by_julian(days);
    if shown == days {
        return false;
    }
    let Some(micros) = shown.checked_mul(DAY_US).and_then(|d| d.checked_add(clock)) else { return false };
    match form.time.timestamp(digits) {
        Unit::Iso => json::put_string(out, &calendar::instant_text(micros, 0)),
        Unit::Millis => json::put_i64(out, micros.div_euclid(1000)),
        Unit::Micros => json::put_i64(out, micros),
        Unit::Nanos => return false,
    }
    true
}

/// False if the item is as outside of an array.
pub(super) fn put_instant_item(out: &mut Vec<u8>, digits: u32, micros: i64) -> bool {
    match micros {
        i64::MAX => return false,
        i64::MIN => json::put_string(out, FAR_BACK_ZONED),
        micros => {
            let (days, clock) = (micros.div_euclid(DAY_US), micros.rem_euclid(DAY_US));
            let shown = by_fields(days);
            if shown == days {
                return false;
            }
            json::put_string(out, &calendar::instant_text(shown * DAY_US + clock, digits));
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_before_1582_go_as_javas_classes_take_them() {
        // Source: a real Debezium's records of arrays of dates and timestamps.
        let of = |year, month, day| calendar::days(year, month, day);
        for (days, fields, julian) in [
            (of(1582, 10, 15), -141_427, -141_427),
            (of(1582, 10, 14), -141_418, -141_418),
            (of(1582, 10, 10), -141_422, -141_422),
            (of(1582, 10, 5), -141_427, -141_427),
            (of(1582, 10, 4), of(1582, 10, 4), -141_428),
            (of(1500, 2, 28), of(1500, 2, 28), -14_825_980_800 / 86_400),
            (of(1500, 3, 1), of(1500, 3, 1), -14_825_808_000 / 86_400),
            (of(1000, 2, 28), -354_227, -30_604_780_800 / 86_400),
            (of(1, 1, 1), -719_162, -62_135_769_600 / 86_400),
            (of(0, 1, 1), -719_162, -62_167_392_000 / 86_400),
            (of(-43, 3, 15), -703_383, -63_517_996_800 / 86_400),
            (of(-4712, 1, 1), 1_001_860, of(-4712, 1, 1) - 38),
        ] {
            assert_eq!((by_fields(days), by_julian(days)), (fields, julian), "{}", calendar::date_text(days));
        }
    }
}
