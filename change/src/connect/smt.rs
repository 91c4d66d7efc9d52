//! Pure. Kafka Connect's transforms of single records, and those of Debezium that work as they do: what they are told, and
//! what they do to a [`Record`].
//!
//! A record's value may be there with a schema, be a null in a schema, or not be at all (a tombstone); each transform has its
//! own way with each, Connect's: some pass a tombstone by, some stop at it. Source: Kafka 4.3 `connect/transforms`, Debezium 3.7.

use super::convert::{self, Zones};
use super::described::Rest;
use super::geometry::Shape;
use super::moment::{Format, Precision, Target};
use super::paths;
use super::{Data, Field, Header, HeaderValue, Kind, Part, Record, Schema, cast, described, moment, write};
use crate::value::Decimal;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Which part of a record a transform is for, `…$Key` or `…$Value`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Key,
    Value,
}

/// A field that is added: `name`, `name?` or `name!`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Insertion {
    pub name: String,
    pub optional: bool,
}

impl Insertion {
    pub fn parse(text: &str) -> Self {
        match text.strip_suffix('!') {
            Some(name) => Insertion { name: name.to_owned(), optional: false },
            None => Insertion { name: text.strip_suffix('?').unwrap_or(text).to_owned(), optional: true },
        }
    }
}

/// One transform. `defaults` = `replace.null.with.default`: a field's default stands where it is null.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Smt {
    InsertField {
        side: Side,
        topic: Option<Insertion>,
        /// Records of a source have neither when transforms see them: null.
        partition: Option<Insertion>,
        timestamp: Option<Insertion>,
        fixed: Option<(Insertion, String)>,
        defaults: bool,
    },
    ReplaceField {
        side: Side,
        exclude: BTreeSet<String>,
        include: BTreeSet<String>,
        renames: BTreeMap<String, String>,
        defaults: bool,
    },
    MaskField {
        side: Side,
        fields: BTreeSet<String>,
        replacement: Option<String>,
        defaults: bool,
    },
    Cast {
        side: Side,
        casts: BTreeMap<String, Kind>,
        whole: Option<Kind>,
        defaults: bool,
    },
    TimestampConverter {
        side: Side,
        /// Empty = the whole value.
        field: String,
        target: Target,
        format: Option<Format>,
        precision: Precision,
        defaults: bool,
    },
    Flatten {
        side: Side,
        delimiter: String,
    },
    HoistField {
        side: Side,
        field: String,
    },
    ExtractField {
        side: Side,
        path: Vec<String>,
        defaults: bool,
    },
    ValueToKey {
        fields: Vec<String>,
        defaults: bool,
    },
    SetSchemaMetadata {
        side: Side,
        name: Option<String>,
        version: Option<i64>,
        defaults: bool,
    },
    HeaderFrom {
        side: Side,
        /// A field and its header.
        fields: Vec<(String, String)>,
        moves: bool,
        defaults: bool,
    },
    InsertHeader {
        name: String,
        value: String,
    },
    DropHeaders(BTreeSet<String>),
    /// Debezium's: a header and its field.
    HeaderToValue {
        fields: Vec<(String, String)>,
        moves: bool,
    },
    /// Debezium's `ExtractChangedRecordState`: headers with the names of the fields that differ, and of those that do not.
    Changed {
        changed: Option<String>,
        unchanged: Option<String>,
    },
    /// Debezium's `TimezoneConverter`.
    Zones(Arc<Zones>),
    /// Debezium's `VectorToJsonConverter`.
    VectorToJson,
    /// Debezium's `SwapGeometryCoordinates`, `GeometryFormatTransformer`.
    Geometry(Shape),
    /// Debezium's `ExtractSchemaToNewRecord`.
    SourceSchema,
    /// Debezium's `DecodeLogicalDecodingMessageContent`, of logical messages alone; with fields that are null.
    DecodeMessage {
        nulls: bool,
        rest: Rest,
    },
}

/// What a transform knows of a record besides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Around<'a> {
    /// The record's, where the transform stands.
    pub topic: &'a str,
    /// Of a row.
    pub table: Option<&'a str>,
    /// When it is processed, milliseconds.
    pub now_ms: i64,
    /// A field's default stands where it is null, in transforms that are not told.
    pub defaults: bool,
    /// `compat.defects`.
    pub defects: bool,
}

/// Why a transform cannot take a record; Connect's task stops at it.
pub type Refused = String;

/// Most schemas that are remembered for one transform.
const SCHEMAS_MAX: usize = 16;

/// A transform and the schemas it has made.
#[derive(Clone, Debug)]
pub struct Step {
    pub smt: Smt,
    made: Vec<(Arc<Schema>, Arc<Schema>)>,
}

impl Step {
    pub fn new(smt: Smt) -> Self {
        Step { smt, made: Vec::new() }
    }

    /// The schema made of that one, made once.
    fn schema(
        &mut self,
        of: &Arc<Schema>,
        make: impl FnOnce(&Smt, &Schema) -> Result<Schema, Refused>,
    ) -> Result<Arc<Schema>, Refused> {
        if let Some((_, made)) = self.made.iter().find(|(from, _)| Arc::ptr_eq(from, of)) {
            return Ok(made.clone());
        }
        let made = Arc::new(make(&self.smt, of)?);
        let mut names = BTreeSet::new();
        if let Some(twice) = made.fields.iter().find(|f| !names.insert(&f.name)) {
            return Err(format!("two fields would have the name {}", twice.name));
        }
        if self.made.len() >= SCHEMAS_MAX {
            self.made.clear();
        }
        self.made.push((of.clone(), made.clone()));
        Ok(made)
    }

    pub fn apply(&mut self, record: Record, around: &Around<'_>) -> Result<Record, Refused> {
        let smt = self.smt.clone();
        match &smt {
            Smt::InsertField { side, .. } => self.on(record, *side, |step, part| step.insert(part, around.topic)),
            Smt::ReplaceField { side, .. } => self.on(record, *side, Step::replace),
            Smt::MaskField { side, fields, replacement, defaults } => {
                self.on(record, *side, |_, part| mask(part, fields, replacement.as_deref(), *defaults))
            }
            Smt::Cast { side, .. } => self.on(record, *side, Step::cast),
            Smt::TimestampConverter { side, .. } => self.on(record, *side, Step::moment),
            Smt::Flatten { side, .. } => self.on(record, *side, Step::flatten),
            Smt::HoistField { side, field } => self.on(record, *side, |step, part| step.hoist(part, field)),
            Smt::ExtractField { side, path, defaults } => {
                self.on(record, *side, |_, part| paths::extract(part, path, *defaults))
            }
            Smt::ValueToKey { fields, defaults } => self.value_to_key(record, fields, *defaults),
            Smt::SetSchemaMetadata { side, .. } => self.on(record, *side, Step::rename),
            Smt::HeaderFrom { side, fields, moves, defaults } => {
                self.header_from(record, *side, fields, (*moves, *defaults))
            }
            Smt::InsertHeader { name, value } => {
                let value = HeaderValue::Written(Some(value.clone().into_bytes()));
                let mut record = record;
                record.headers.push(Header { name: name.clone(), value });
                Ok(record)
            }
            Smt::DropHeaders(names) => {
                let mut record = record;
                record.headers.retain(|h| !names.contains(&h.name));
                Ok(record)
            }
            Smt::HeaderToValue { fields, moves } => paths::header_to_value(record, fields, *moves),
            Smt::Zones(zones) => self.on(record, Side::Value, |_, part| zones.apply(part, around)),
            Smt::VectorToJson => self.on(record, Side::Value, |step, part| step.vectors(part, around)),
            Smt::Geometry(shape) => self.on(record, Side::Value, |_, part| {
                let Some((schema, data)) = there(part.clone()) else { return Ok(part) };
                let Data::Struct(mut values) = data else { return Ok(Some((schema, data))) };
                shape.apply(&schema, &mut values, around)?;
                Ok(Some((schema, Data::Struct(values))))
            }),
            Smt::SourceSchema => self.on(record, Side::Value, Step::describe),
            Smt::DecodeMessage { nulls, rest } => described::decoded(record, *nulls, *rest),
            Smt::Changed { changed, unchanged } => Ok(changes(record, changed.as_deref(), unchanged.as_deref())),
        }
    }

    fn on(
        &mut self,
        mut record: Record,
        side: Side,
        make: impl FnOnce(&mut Step, Part) -> Result<Part, Refused>,
    ) -> Result<Record, Refused> {
        match side {
            Side::Key => record.key = make(self, record.key)?,
            Side::Value => record.value = make(self, record.value)?,
        }
        Ok(record)
    }

    fn insert(&mut self, part: Part, topic: &str) -> Result<Part, Refused> {
        let Some((schema, data)) = there(part.clone()) else { return Ok(part) };
        let mut values = structure(&schema, data)?;
        let Smt::InsertField { topic: by_topic, partition, timestamp, fixed, defaults, .. } = self.smt.clone() else {
            return Ok(part);
        };
        fill(&schema, &mut values, defaults);
        let own: [(&Option<Insertion>, Schema, Data); 3] = [
            (&by_topic, Schema::new(Kind::String), Data::Text(topic.to_owned())),
            (&partition, Schema::new(Kind::Int32), Data::Null),
            (&timestamp, moment::timestamp(), Data::Null),
        ];
        let fixed_text = fixed.map(|(at, text)| (Some(at), text));
        let last = fixed_text.iter().map(|(at, text)| (at, Schema::new(Kind::String), Data::Text(text.clone())));
        let added: Vec<(Insertion, Schema, Data)> =
            own.into_iter().chain(last).filter_map(|(at, schema, data)| Some((at.clone()?, schema, data))).collect();
        let made = self.schema(&schema, |_, from| {
            let mut made = from.basics(Kind::Struct);
            made.fields = from.fields.clone();
            for (at, schema, _) in &added {
                let schema = Arc::new(Schema { optional: at.optional, ..schema.clone() });
                made.fields.push(Field { name: at.name.clone(), schema });
            }
            Ok(made)
        })?;
        if let Some((at, ..)) = added.iter().find(|(at, _, data)| !at.optional && *data == Data::Null) {
            return Err(format!("field {} is required, and records of a source have nothing for it", at.name));
        }
        values.extend(added.into_iter().map(|(.., data)| data));
        Ok(Some((made, Data::Struct(values))))
    }

    fn replace(&mut self, part: Part) -> Result<Part, Refused> {
        let Some((schema, data)) = there(part.clone()) else { return Ok(part) };
        let mut values = structure(&schema, data)?;
        let Smt::ReplaceField { exclude, include, renames, defaults, .. } = self.smt.clone() else { return Ok(part) };
        fill(&schema, &mut values, defaults);
        let stays = |name: &str| !exclude.contains(name) && (include.is_empty() || include.contains(name));
        let made = self.schema(&schema, |_, from| {
            let mut made = from.basics(Kind::Struct);
            for f in from.fields.iter().filter(|f| stays(&f.name)) {
                let name = renames.get(&f.name).unwrap_or(&f.name).clone();
                made.fields.push(Field { name, schema: f.schema.clone() });
            }
            Ok(made)
        })?;
        let kept = schema.fields.iter().zip(values).filter(|(f, _)| stays(&f.name)).map(|(_, v)| v).collect();
        Ok(Some((made, Data::Struct(kept))))
    }

    fn cast(&mut self, part: Part) -> Result<Part, Refused> {
        let Some((schema, data)) = there(part.clone()) else { return Ok(part) };
        let Smt::Cast { casts, whole, defaults, .. } = self.smt.clone() else { return Ok(part) };
        let default = |from: &Schema, to: Kind| from.default.as_ref().map(|d| cast::cast(from, d, to)).transpose();
        if let Some(to) = whole {
            let made = self.schema(&schema, |_, from| {
                Ok(Schema { optional: from.optional, default: default(from, to)?, ..from.basics(to) })
            })?;
            return Ok(Some((made, cast::cast(&schema, &data, to)?)));
        }
        let mut values = structure(&schema, data)?;
        fill(&schema, &mut values, defaults);
        let made = self.schema(&schema, |_, from| {
            let mut made = Schema { optional: from.optional, ..from.basics(Kind::Struct) };
            for f in &from.fields {
                let schema = match casts.get(&f.name) {
                    None => f.schema.clone(),
                    Some(to) => Arc::new(Schema {
                        optional: f.schema.optional,
                        default: default(&f.schema, *to)?,
                        ..Schema::new(*to)
                    }),
                };
                made.fields.push(Field { name: f.name.clone(), schema });
            }
            Ok(made)
        })?;
        for (f, value) in schema.fields.iter().zip(&mut values) {
            if let Some(to) = casts.get(&f.name) {
                *value = cast::cast(&f.schema, value, *to).map_err(|why| format!("field {}: {why}", f.name))?;
            }
        }
        Ok(Some((made, Data::Struct(values))))
    }

    fn moment(&mut self, part: Part) -> Result<Part, Refused> {
        let Some((schema, data)) = part else { return Ok(None) };
        let Smt::TimestampConverter { field, target, format, precision, defaults, .. } = self.smt.clone() else {
            return Ok(Some((schema, data)));
        };
        let how = moment::How { target, format: format.as_ref(), precision };
        if field.is_empty() {
            let value = how.convert(&schema, &data)?;
            return Ok(Some((Arc::new(target.schema(schema.optional)), value)));
        }
        let made = self.schema(&schema, |_, from| {
            let mut made = Schema { optional: from.optional, ..from.basics(Kind::Struct) };
            for f in &from.fields {
                let schema = match f.name == field {
                    true => Arc::new(target.schema(f.schema.optional)),
                    false => f.schema.clone(),
                };
                made.fields.push(Field { name: f.name.clone(), schema });
            }
            Ok(made)
        })?;
        if data == Data::Null {
            return Ok(Some((made, Data::Null)));
        }
        let mut values = structure(&schema, data)?;
        fill(&schema, &mut values, defaults);
        for (f, value) in schema.fields.iter().zip(&mut values).filter(|(f, _)| f.name == field) {
            *value = how.convert(&f.schema, value).map_err(|why| format!("field {}: {why}", f.name))?;
        }
        Ok(Some((made, Data::Struct(values))))
    }

    fn flatten(&mut self, part: Part) -> Result<Part, Refused> {
        let Some((schema, data)) = there(part.clone()) else { return Ok(part) };
        let Smt::Flatten { delimiter, .. } = self.smt.clone() else { return Ok(part) };
        let mut values = Vec::new();
        paths::flat_values(&schema, Some(&data), &mut values)?;
        let made = self.schema(&schema, |_, from| {
            let mut made = from.basics(Kind::Struct);
            paths::flat_fields(from, "", &delimiter, from.optional, &mut made.fields)?;
            Ok(made)
        })?;
        Ok(Some((made, Data::Struct(values))))
    }

    fn hoist(&mut self, part: Part, field: &str) -> Result<Part, Refused> {
        let Some((schema, data)) = part else {
            let map = Data::Map(vec![(Data::Text(field.to_owned()), Data::Null)]);
            return Ok(Some((Arc::new(Schema::none()), map)));
        };
        let made = self.schema(&schema, |_, _| {
            let field = Field { name: field.to_owned(), schema: schema.clone() };
            Ok(Schema { fields: vec![field], ..Schema::new(Kind::Struct) })
        })?;
        Ok(Some((made, Data::Struct(vec![data]))))
    }

    fn value_to_key(&mut self, record: Record, fields: &[String], defaults: bool) -> Result<Record, Refused> {
        let Some((schema, data)) = record.value.clone() else {
            return Err("a tombstone has no fields for a key".into());
        };
        let values = structure(&schema, data)?;
        let made = self.schema(&schema, |_, from| {
            let mut made = Schema::new(Kind::Struct);
            for name in fields {
                let of = from.field(name).ok_or_else(|| format!("there is no field {name}"))?;
                made.fields.push(Field { name: name.clone(), schema: of.clone() });
            }
            Ok(made)
        })?;
        let of = |name: &String| {
            let at = schema.place(name).unwrap_or(usize::MAX);
            let value = values.get(at).cloned().unwrap_or(Data::Null);
            match (&value, made.field(name)) {
                (Data::Null, Some(of)) if defaults => of.default.clone().unwrap_or(Data::Null),
                _ => value,
            }
        };
        let key = Data::Struct(fields.iter().map(of).collect());
        Ok(Record { key: Some((made, key)), ..record })
    }

    fn rename(&mut self, part: Part) -> Result<Part, Refused> {
        let Some((schema, mut data)) = part else { return Ok(None) };
        let Smt::SetSchemaMetadata { name, version, defaults, .. } = self.smt.clone() else {
            return Ok(Some((schema, data)));
        };
        let made = self.schema(&schema, |_, from| {
            Ok(Schema { name: name.or(from.name.clone()), version: version.or(from.version), ..from.clone() })
        })?;
        if let Data::Struct(values) = &mut data {
            fill(&schema, values, defaults);
        }
        Ok(Some((made, data)))
    }

    fn describe(&mut self, part: Part) -> Result<Part, Refused> {
        let Some((schema, Data::Struct(mut values))) = part else { return Ok(part) };
        if !described::has_row(&schema, &values) {
            return Ok(Some((schema, Data::Struct(values))));
        }
        let own = described::source_schema(&schema, &values)?;
        let made = self.schema(&schema, |_, from| Ok(described::with_source_schema(from)))?;
        values.push(own);
        Ok(Some((made, Data::Struct(values))))
    }

    fn vectors(&mut self, part: Part, around: &Around<'_>) -> Result<Part, Refused> {
        let Some((schema, data)) = there(part.clone()) else { return Ok(part) };
        let mut values = structure(&schema, data)?;
        let made = self.schema(&schema, |_, from| Ok(convert::json_schema(from)))?;
        convert::json_values(&schema, &mut values, around);
        Ok(Some((made, Data::Struct(values))))
    }

    fn header_from(
        &mut self,
        mut record: Record,
        side: Side,
        fields: &[(String, String)],
        (moves, defaults): (bool, bool),
    ) -> Result<Record, Refused> {
        let part = match side {
            Side::Key => &mut record.key,
            Side::Value => &mut record.value,
        };
        let Some((schema, data)) = part.take() else { return Err("a tombstone has no fields for headers".into()) };
        let mut values = structure(&schema, data)?;
        let before = values.clone();
        fill(&schema, &mut values, defaults);
        for (field, header) in fields {
            let Some(at) = schema.place(field) else { return Err(format!("there is no field {field}")) };
            let value = HeaderValue::Data(schema.fields[at].schema.clone(), values[at].clone());
            record.headers.push(Header { name: header.clone(), value });
        }
        let after = match moves {
            false => (schema, Data::Struct(before)),
            true => {
                let stays = |f: &Field| !fields.iter().any(|(field, _)| *field == f.name);
                let made = self.schema(&schema, |_, from| {
                    let mut made = from.basics(Kind::Struct);
                    made.fields = from.fields.iter().filter(|f| stays(f)).cloned().collect();
                    Ok(made)
                })?;
                let kept = schema.fields.iter().zip(values).filter(|(f, _)| stays(f)).map(|(_, v)| v).collect();
                (made, Data::Struct(kept))
            }
        };
        match side {
            Side::Key => record.key = Some(after),
            Side::Value => record.value = Some(after),
        }
        Ok(record)
    }
}

/// A part that is there and not null.
fn there(part: Part) -> Option<(Arc<Schema>, Data)> {
    part.filter(|(_, data)| *data != Data::Null)
}

/// `requireStruct`.
pub(super) fn structure(schema: &Schema, data: Data) -> Result<Vec<Data>, Refused> {
    match data {
        Data::Struct(values) => Ok(values),
        Data::Null => Err("the value is null, and a structure is wanted".into()),
        _ => Err(format!("the value is a {}, and a structure is wanted", schema.kind.name())),
    }
}

/// `Struct.get`.
pub(super) fn fill(schema: &Schema, values: &mut [Data], defaults: bool) {
    for (f, value) in schema.fields.iter().zip(values).filter(|_| defaults) {
        if let (Data::Null, Some(default)) = (&*value, &f.schema.default) {
            *value = default.clone();
        }
    }
}

fn mask(part: Part, fields: &BTreeSet<String>, replacement: Option<&str>, defaults: bool) -> Result<Part, Refused> {
    let Some((schema, data)) = part else { return Err("a tombstone has no fields to mask".into()) };
    let mut values = structure(&schema, data)?;
    fill(&schema, &mut values, defaults);
    for (f, value) in schema.fields.iter().zip(&mut values).filter(|(f, _)| fields.contains(&f.name)) {
        *value = masked(&f.schema, value, replacement).map_err(|why| format!("field {}: {why}", f.name))?;
    }
    Ok(Some((schema, Data::Struct(values))))
}

fn masked(schema: &Schema, value: &Data, replacement: Option<&str>) -> Result<Data, Refused> {
    let no_number = |text: &str| format!("`{text}` is no number");
    let is_date = moment::is_logical(schema);
    Ok(match (value, replacement) {
        (Data::Null, _) => Data::Null,
        (Data::Text(_), text) => Data::Text(text.unwrap_or_default().to_owned()),
        (Data::Int(_), None) => Data::Int(0),
        (Data::Float(_), None) => Data::Float("0.0".into()),
        (Data::Bool(_), None) => Data::Bool(false),
        (Data::List(_), None) => Data::List(Vec::new()),
        (Data::Map(_), None) => Data::Map(Vec::new()),
        (Data::Int(_), Some(text)) if !is_date => {
            let number: i64 = text.trim().parse().map_err(|_| no_number(text))?;
            cast::cast(&Schema::new(Kind::Int64), &Data::Int(number), schema.kind)?
        }
        (Data::Float(_), Some(text)) => cast::cast(&Schema::new(Kind::String), &Data::Text(text.into()), schema.kind)?,
        (Data::Bytes(_), text) if schema.is_named(write::DECIMAL) => {
            let number = Decimal::parse(text.unwrap_or("0")).map_err(|_| no_number(text.unwrap_or_default()))?;
            match number {
                Decimal::Finite { unscaled, scale } if Some(scale) == write::scale(schema) => {
                    Data::Bytes(unscaled.to_vec())
                }
                // JsonConverter refuses it.
                _ => return Err("a decimal is masked by a number with as many digits behind the point".into()),
            }
        }
        (_, text) => {
            let how = if text.is_some() { " with a replacement" } else { "" };
            return Err(format!("a {} cannot be masked{how}", schema.kind.name()));
        }
    })
}

/// Of a record that has its envelope.
fn changes(mut record: Record, changed: Option<&str>, unchanged: Option<&str>) -> Record {
    let Some((schema, Data::Struct(values))) = &record.value else { return record };
    if !schema.name.as_deref().is_some_and(|n| n.ends_with(".Envelope")) {
        return record;
    }
    let row = |name: &str| match schema.place(name).and_then(|at| values.get(at)) {
        Some(Data::Struct(row)) => Some(row),
        _ => None,
    };
    let (mut differ, mut same) = (Vec::new(), Vec::new());
    if let (Some(before), Some(after), Some(of)) = (row("before"), row("after"), schema.field("after")) {
        for ((f, before), after) in of.fields.iter().zip(before).zip(after) {
            let names = if before == after { &mut same } else { &mut differ };
            names.push(Data::Text(f.name.clone()));
        }
    }
    let headers = [(changed, differ), (unchanged, same)].into_iter().filter_map(|(name, names)| {
        let name = name.filter(|n| !n.trim().is_empty())?;
        let items = Some(Schema::optional(Kind::String, true));
        let of = Schema { optional: true, name: Some(name.to_owned()), items, ..Schema::new(Kind::Array) };
        Some(Header { name: name.to_owned(), value: HeaderValue::Data(Arc::new(of), Data::List(names)) })
    });
    let headers: Vec<Header> = headers.collect();
    record.headers.extend(headers);
    record
}

#[cfg(test)]
mod tests;
