//! Pure. Debezium's transforms that write a value in another form: `TimezoneConverter`, `VectorToJsonConverter`.
//!
//! Source: Debezium 3.7 `io.debezium.transforms`. In front of `ExtractNewRecordState` they do to a row what they would do to it
//! without its envelope, so there they are run behind it ([`Zones::flat`]).

use super::smt::{Around, Refused, fill, structure};
use super::zone::Zone;
use super::{Data, Field, Kind, Part, Schema, moment};
use crate::calendar;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const DAY_NS: i64 = 86_400_000_000_000;
/// Infinite timestamps in milliseconds begin here, in microseconds beyond what these are; moments of rows stay below.
const INFINITE_US: i64 = 9_223_372_036_800_000_000;
const INFINITE_MS: i64 = 9_223_372_036_800_000;

/// `TimezoneConverter`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Zones {
    pub zone: Zone,
    /// Of rows without envelope, as those of a record behind it.
    pub flat: bool,
    pub which: Which,
    pub rules: Rules,
}

/// Which list is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    All,
    Include,
    Exclude,
}

/// Names of fields by a topic, by a table, and by either; none = all fields.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rules {
    topics: BTreeMap<String, BTreeSet<String>>,
    tables: BTreeMap<String, BTreeSet<String>>,
    either: BTreeMap<String, BTreeSet<String>>,
}

impl Rules {
    /// `source:table:field`, `topic:name`, `name:field` …. The word in front of one holds for those behind it, too.
    pub fn parse(items: &[String]) -> Result<Rules, String> {
        let wrong = |item: &str| {
            format!(
                "`{item}`: source:TABLE, topic:TOPIC or NAME:FIELD, the first two with :FIELD; behind the first entry Debezium takes \
                 one colon only, so write the word source or topic in the first alone"
            )
        };
        let is_name = |text: &str| {
            !text.is_empty()
                && text.chars().all(|c| c.is_ascii_alphanumeric() || c.is_ascii_whitespace() || "\"._".contains(c))
        };
        let (mut out, mut common) = (Rules::default(), None);
        for (n, item) in items.iter().enumerate() {
            let parts: Vec<&str> = item.split(':').collect();
            let right = match n {
                0 => (2..=3).contains(&parts.len()),
                _ => parts.len() <= 2,
            };
            if !right || !parts.iter().all(|p| is_name(p)) {
                return Err(wrong(item));
            }
            let prefix = ["source", "topic"].into_iter().find(|w| parts.len() > 1 && parts[0].eq_ignore_ascii_case(w));
            let (name, field) = match prefix {
                Some(_) => (parts[1], parts.get(2)),
                None => (parts[0], parts.get(1)),
            };
            // Written otherwise than in small letters it is told apart from a name, and belongs to neither list.
            if prefix.is_some() {
                common = Some(parts[0]);
            }
            let map = match common {
                Some("topic") => &mut out.topics,
                Some("source") => &mut out.tables,
                _ => &mut out.either,
            };
            map.entry(name.to_owned()).or_default().extend(field.map(|f| (*f).to_owned()));
        }
        Ok(out)
    }

    fn fields(&self, table: Option<&str>, topic: &str) -> Option<&BTreeSet<String>> {
        let by_table = |map: &'_ BTreeMap<String, BTreeSet<String>>| table.is_some_and(|t| map.contains_key(t));
        match table {
            _ if self.topics.contains_key(topic) => self.topics.get(topic),
            Some(table) if by_table(&self.tables) => self.tables.get(table),
            _ if self.either.contains_key(topic) => self.either.get(topic),
            Some(table) => self.either.get(table),
            None => None,
        }
    }

    /// True if a field is named by the part of the envelope that it is in.
    pub fn names_parts(&self) -> bool {
        let all = [&self.topics, &self.tables, &self.either];
        let parts = ["source.", "before.", "after."];
        all.iter().flat_map(|m| m.values()).flatten().any(|f| parts.iter().any(|p| f.starts_with(p)))
    }
}

/// What is done to a part: all fields, those, or all others.
#[derive(Clone, Copy)]
enum Of<'f> {
    All,
    Those(&'f BTreeSet<String>),
    Others(&'f BTreeSet<String>),
}

impl Zones {
    pub(super) fn apply(&self, part: Part, around: &Around<'_>) -> Result<Part, Refused> {
        let Some((schema, data)) = part else { return Ok(None) };
        let is_envelope = schema.name.as_deref().is_some_and(|n| n.ends_with(".Envelope"));
        if data == Data::Null || !is_envelope && !self.flat {
            return Ok(Some((schema, data)));
        }
        let mut values = structure(&schema, data)?;
        let named = self.rules.fields(around.table, around.topic);
        let empty = BTreeSet::new();
        let (of, fields) = match (self.which, named) {
            (Which::All, _) | (Which::Exclude, None) => (Of::All, &empty),
            (Which::Include, None) => return Ok(Some((schema, Data::Struct(values)))),
            (Which::Exclude, Some(fields)) if fields.is_empty() => return Ok(Some((schema, Data::Struct(values)))),
            (Which::Include, Some(fields)) if fields.is_empty() => (Of::All, fields),
            (Which::Include, Some(fields)) => (Of::Those(fields), fields),
            (Which::Exclude, Some(fields)) => (Of::Others(fields), fields),
        };
        if self.flat {
            self.row(&schema, &mut values, of, around, false);
            return Ok(Some((schema, Data::Struct(values))));
        }
        for part in ["before", "after", "source"] {
            let Some(at) = schema.place(part) else { continue };
            let mut own = BTreeSet::new();
            for field in fields {
                match field.split_once('.') {
                    Some((to, name)) if ["before", "after", "source"].contains(&to) => {
                        own.extend((to == part).then(|| name.to_owned()));
                    }
                    _ => own.extend((part != "source").then(|| field.clone())),
                }
            }
            if part == "source" && own.is_empty() {
                continue;
            }
            let of = match of {
                Of::All => Of::All,
                Of::Those(_) => Of::Those(&own),
                Of::Others(_) => Of::Others(&own),
            };
            if let Some(Data::Struct(row)) = values.get_mut(at) {
                self.row(&schema.fields[at].schema, row, of, around, part == "source");
            }
        }
        Ok(Some((schema, Data::Struct(values))))
    }

    fn row(&self, schema: &Schema, row: &mut [Data], of: Of<'_>, around: &Around<'_>, is_source: bool) {
        for (f, value) in schema.fields.iter().zip(row) {
            let is_meant = match of {
                Of::All => true,
                Of::Those(names) => names.contains(&f.name),
                Of::Others(names) => !names.contains(&f.name),
            };
            if !is_meant {
                continue;
            }
            let mut one = [std::mem::replace(value, Data::Null)];
            if is_source || self.is_moment(&f.schema) {
                fill(&Schema { fields: vec![f.clone()], ..Schema::new(Kind::Struct) }, &mut one, around.defaults);
            }
            let [before] = one;
            *value = match (&f.schema.name, &before) {
                (Some(name), _) => self.converted(name, &before, around).unwrap_or(before),
                (None, Data::Int(n)) if is_source => self.epoch(&f.name, *n).map_or(before, Data::Int),
                _ => before,
            };
        }
    }

    fn is_moment(&self, schema: &Schema) -> bool {
        let zone = ["MicroTimestamp", "NanoTimestamp", "Timestamp", "ZonedTimestamp", "ZonedTime"];
        let own = schema.name.as_deref().and_then(|n| n.strip_prefix("io.debezium.time."));
        own.is_some_and(|n| zone.contains(&n)) || schema.is_named(moment::TIMESTAMP)
    }

    /// None = it stays.
    fn converted(&self, name: &str, value: &Data, around: &Around<'_>) -> Option<Data> {
        let shifted = |n: i64, unit: i64| {
            let offset = self.zone.at_local(n.div_euclid(unit));
            Some(Data::Int(n.wrapping_sub(offset.wrapping_mul(unit))))
        };
        match (name, value) {
            ("io.debezium.time.ZonedTimestamp", Data::Text(text)) => {
                let (local, nanos, offset) = zoned(text)?;
                let to = self.zone.at_local(local);
                Some(Data::Text(zoned_text(local - offset + to, nanos, to)))
            }
            ("io.debezium.time.ZonedTime", Data::Text(text)) => {
                let (nanos, offset) = time(text)?;
                let to = self.zone.at(around.now_ms.div_euclid(1000));
                let nanos = (nanos + (to - offset) * 1_000_000_000).rem_euclid(DAY_NS);
                Some(Data::Text(clock_text(nanos) + &offset_text(to)))
            }
            // What stands for infinity is no moment.
            ("io.debezium.time.MicroTimestamp", Data::Int(n)) if n.abs() >= INFINITE_US && !around.defects => None,
            ("io.debezium.time.Timestamp" | moment::TIMESTAMP, Data::Int(n))
                if n.abs() >= INFINITE_MS && !around.defects =>
            {
                None
            }
            ("io.debezium.time.MicroTimestamp", Data::Int(n)) => shifted(*n, 1_000_000),
            ("io.debezium.time.NanoTimestamp", Data::Int(n)) => shifted(*n, 1_000_000_000),
            ("io.debezium.time.Timestamp" | moment::TIMESTAMP, Data::Int(n)) => shifted(*n, 1000),
            _ => None,
        }
    }

    /// Of a field of `source`.
    fn epoch(&self, name: &str, n: i64) -> Option<i64> {
        let unit = match name {
            "ts_ms" => 1000,
            "ts_us" => 1_000_000,
            "ts_ns" => 1_000_000_000,
            _ => return None,
        };
        Some(n.wrapping_add(self.zone.at(n.div_euclid(unit)).wrapping_mul(unit)))
    }
}

/// `ISO_OFFSET_DATE_TIME` → local seconds since 1970, nanoseconds, seconds east.
fn zoned(text: &str) -> Option<(i64, i64, i64)> {
    let (date, clock) = text.split_once('T')?;
    let (sign, digits) = match date.as_bytes().first()? {
        b'-' => (-1, &date[1..]),
        b'+' => (1, &date[1..]),
        _ => (1, date),
    };
    let mut parts = digits.split('-').map(|p| p.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || year > 999_999_999 {
        return None;
    }
    let (nanos, offset) = time(clock)?;
    let days = calendar::days(sign * year, month as u32, day as u32);
    Some((days * 86_400 + nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000), offset))
}

/// `ISO_OFFSET_TIME` → nanoseconds of the day, seconds east.
fn time(text: &str) -> Option<(i64, i64)> {
    let end = text.find(['Z', '+', '-'])?;
    let (clock, zone) = text.split_at(end);
    let offset = if zone == "Z" { 0 } else { Zone::parse(zone)?.at(0) };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = clock.split(':').map(|p| p.parse::<i64>().ok());
    let (h, m, s) = (parts.next()??, parts.next()??, parts.next().unwrap_or(Some(0))?);
    let nanos: i64 = format!("{fraction:0<9}").parse().ok()?;
    let is_time = (0..24).contains(&h) && (0..60).contains(&m) && (0..60).contains(&s) && fraction.len() <= 9;
    is_time.then_some((((h * 60 + m) * 60 + s) * 1_000_000_000 + nanos, offset))
}

fn zoned_text(local: i64, nanos: i64, offset: i64) -> String {
    let date = calendar::date_text(local.div_euclid(86_400));
    let clock = clock_text(local.rem_euclid(86_400) * 1_000_000_000 + nanos);
    format!("{date}T{clock}{}", offset_text(offset))
}

/// With as many digits as are not zeros at the end.
fn clock_text(nanos: i64) -> String {
    let (seconds, fraction) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
    let mut out = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction > 0 {
        out.push_str(format!(".{fraction:09}").trim_end_matches('0'));
    }
    out
}

/// `ZoneOffset.getId`.
fn offset_text(offset: i64) -> String {
    let (sign, of) = (if offset < 0 { '-' } else { '+' }, offset.abs());
    match of {
        0 => "Z".to_owned(),
        _ if of % 60 == 0 => format!("{sign}{:02}:{:02}", of / 3600, of / 60 % 60),
        _ => format!("{sign}{:02}:{:02}:{:02}", of / 3600, of / 60 % 60, of % 60),
    }
}

/// What `VectorToJsonConverter` makes of a value's schema.
pub(super) fn json_schema(schema: &Schema) -> Schema {
    let mut made = Schema { optional: schema.optional, ..schema.basics(Kind::Struct) };
    for f in &schema.fields {
        let of = match vector(&f.schema) {
            Some(_) => Arc::new(Schema {
                optional: f.schema.optional,
                name: Some("io.debezium.data.Json".into()),
                version: Some(1),
                ..Schema::new(Kind::String)
            }),
            None if f.schema.kind == Kind::Struct => Arc::new(json_schema(&f.schema)),
            None => f.schema.clone(),
        };
        made.fields.push(Field { name: f.name.clone(), schema: of });
    }
    made
}

/// … of the value.
pub(super) fn json_values(schema: &Schema, values: &mut [Data], around: &Around<'_>) {
    fill(schema, values, around.defaults);
    for (f, value) in schema.fields.iter().zip(values) {
        let text = match (vector(&f.schema), &mut *value) {
            (Some(_), Data::List(items)) => {
                let items: Vec<String> = items.iter().map(number).collect();
                format!("{{ \"values\": [{}] }}", items.join(", "))
            }
            (Some("SparseDoubleVector"), Data::Struct(parts)) => {
                let pairs: BTreeMap<i64, String> = match parts.get(1) {
                    Some(Data::Map(pairs)) => pairs.iter().filter_map(|(k, v)| Some((int(k)?, number(v)))).collect(),
                    _ => BTreeMap::new(),
                };
                let pairs: Vec<String> = pairs.iter().map(|(k, v)| format!("\"{k}\": {v}")).collect();
                let dimensions = parts.first().map(number).unwrap_or_default();
                format!("{{ \"dimensions\": {dimensions}, \"vector\": {{ {} }} }}", pairs.join(", "))
            }
            (None, Data::Struct(row)) => {
                json_values(&f.schema, row, around);
                continue;
            }
            _ => continue,
        };
        *value = Data::Text(text);
    }
}

fn vector(schema: &Schema) -> Option<&str> {
    let name = schema.name.as_deref()?.strip_prefix("io.debezium.data.")?;
    ["DoubleVector", "FloatVector", "SparseDoubleVector"].contains(&name).then_some(name)
}

fn int(data: &Data) -> Option<i64> {
    match data {
        Data::Int(n) => Some(*n),
        _ => None,
    }
}

fn number(data: &Data) -> String {
    match data {
        Data::Int(n) => n.to_string(),
        Data::Float(text) => text.clone(),
        _ => "null".to_owned(),
    }
}
