//! Pure. Debezium's `EventRouter`: a row that is inserted into an outbox table becomes an event of its own, whose topic, key,
//! value and time are the row's. Updates and deletes of the table are no events.
//!
//! ```text
//!  id | aggregatetype | aggregateid | type    | payload          topic outbox.event.order, key "o-1", header id = 7,
//!  7  | order         | o-1         | Created | {"total": 12}  → value "{\"total\": 12}"
//! ```
//! Which columns are meant is looked up once per shape ([`Plan`]); what cannot work is said then, before the first event. What
//! depends on a row's values (its topic, its partition) is [`Encoder::route`], for the worker to look at before anything of the
//! row's transaction is on its way.
//! Source: Debezium 3.7 (`EventRouterDelegate`, `JsonSchemaData`), recordings `tests/golden/outbox.txt`.

mod convert;
mod expand;
mod plan;

use super::defects::Road;
use super::{EncodeError, Encoder, Parts, Piece, schema};
use crate::connect;
use crate::encode::form::Unit;
use crate::event::{Op, RowChange};
use crate::json;
use crate::row::Cell;
use crate::schema::TableSchema;
use crate::stamp::{STAMP_HEADER, Stamp};
use crate::value::Value;
use bytes::Bytes;
use catchwater_base::Wall;
pub use convert::Converter;
use plan::Plan;
pub(super) use plan::Plans;
use std::sync::Arc;

/// The one field that an envelope always has.
const PAYLOAD: &str = "payload";

/// `EventRouter`, as its properties say. Columns by their names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outbox {
    /// `table.field.event.id`, `.key`, `.payload`.
    pub id: String,
    pub key: String,
    pub payload: String,
    /// `table.field.event.timestamp`; none = when the row was processed.
    pub time: Option<String>,
    /// `table.field.event.schema.version`: of the value's schema, where there is an envelope.
    pub version: Option<String>,
    /// `route.by.field`.
    pub route_by: String,
    /// `table.fields.additional.placement`.
    pub added: Vec<Placement>,
    /// `table.field.additional.missing` = ignore.
    pub ignores_missing: bool,
    /// `table.op.invalid.behavior`.
    pub updates: Updates,
    /// `route.tombstone.on.empty.payload`.
    pub tombstones: bool,
    /// `table.expand.json.payload`.
    pub expand: Option<Expand>,
}

/// One column that travels beside the payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placement {
    pub column: String,
    pub place: Place,
    pub alias: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    Header,
    Envelope,
    Partition,
}

/// What becomes of an update of an outbox table, which is no event: it is left out, and said; or the source stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Updates {
    Warn,
    Error,
    Fatal,
}

/// How a payload of JSON gets a schema.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expand {
    /// `table.json.payload.null.behavior` = optional_bytes: a null is a field of its own.
    pub nulls: bool,
    /// `table.json.payload.empty.array.behavior` = optional_string.
    pub empty_arrays: bool,
}

/// Where a row's event goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// Not looked at: it may be no legal name.
    pub topic: String,
    /// What a column says; none = by the key.
    pub partition: Option<i64>,
    pub has_key: bool,
}

/// A finished event: [`Parts::record`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    pub has_key: bool,
    /// Of the record, milliseconds.
    pub time: i64,
    /// The payload was to be expanded and stays the text it is.
    pub is_no_json: bool,
}

/// What the parts of an event are taken from.
struct Of<'a> {
    table: &'a TableSchema,
    cells: &'a [Cell],
    road: Road,
}

impl<'a> Of<'a> {
    fn new(table: &'a TableSchema, change: &'a RowChange) -> Result<Self, EncodeError> {
        let missing = || EncodeError::NoRow { table: table.qualified(), op: change.op.letter() };
        let cells = &change.after.as_ref().ok_or_else(missing)?.cells[..];
        if cells.len() != table.columns.len() {
            let (cells, columns) = (cells.len(), table.columns.len());
            return Err(EncodeError::Shape { table: table.qualified(), cells, columns });
        }
        Ok(Of { table, cells, road: Road::of(change) })
    }

    fn cell(&self, at: usize) -> &'a Cell {
        self.cells.get(at).unwrap_or(&Cell::Absent)
    }
}

impl Outbox {
    /// True for a change that is an event.
    pub fn takes(op: Op) -> bool {
        matches!(op, Op::Create | Op::Read)
    }

    fn has_envelope(&self) -> bool {
        self.added.iter().any(|a| a.place == Place::Envelope)
    }
}

impl Encoder {
    /// The router that a table's rows go through; none = they are records of their table.
    pub fn outbox(&self, table: &TableSchema) -> Option<Arc<Outbox>> {
        self.placed(table).and_then(|p| p.outbox.clone())
    }

    /// What of a table cannot be: said when its shape is first seen.
    pub fn check_outbox(&self, table: &TableSchema) -> Result<(), EncodeError> {
        match self.outbox(table) {
            Some(_) => self.plan(table).map(|_| ()),
            None => self.check_converters(table),
        }
    }

    /// Where the event of a row goes; none = its table is no outbox, or the change no event. `table` = the row's, numbered.
    pub fn route(&self, table: &TableSchema, change: &RowChange) -> Result<Option<Route>, EncodeError> {
        if !Outbox::takes(change.op) || self.outbox(table).is_none() {
            return Ok(None);
        }
        let plan = self.plan(table)?;
        let of = Of::new(table, change)?;
        let wrong = |what: String| EncodeError::Outbox { table: table.qualified(), what };
        let name = |at: usize| table.columns.get(at).map_or("", |c| c.name.as_str());
        let Some(by) = self.text_of(&of, plan.route_by) else {
            return Err(wrong(format!("column {} of an event is NULL: it has no topic", name(plan.route_by))));
        };
        let placing = self.options.placing.0.as_ref();
        let untouched = super::topic_name(&self.name, &self.options.delimiter, table);
        let topic = placing.map_or(Ok(by.clone()), |p| p.routed(&untouched, &by)).map_err(wrong)?;
        let partition = match plan.partition {
            Some(at) => self.text_of(&of, at).and_then(|text| text.parse().ok()),
            None => None,
        };
        let has_key = self.options.defects || value_of(&of, plan.key).is_some();
        Ok(Some(Route { topic, partition, has_key }))
    }

    /// Makes the event of a row ([`Encoder::route`] has said that it is one) in the buffers of `parts`.
    pub fn event_into(
        &self,
        parts: &mut Parts,
        change: &RowChange,
        stamp: &Stamp,
        processed: Wall,
    ) -> Result<Event, EncodeError> {
        parts.shrink();
        let plan = self.plan(&change.table)?;
        let of = Of::new(&change.table, change)?;
        let outbox = &*plan.outbox;
        let mut headers = std::mem::take(&mut parts.headers);
        headers.clear();
        self.context_headers(&mut headers);
        let header = |name: &str, at| {
            let text = self.header_of(&of, at).map(Bytes::from);
            (Bytes::copy_from_slice(name.as_bytes()), text)
        };
        headers.push(header("id", plan.id));
        headers.extend(plan.headers.iter().map(|(alias, at)| header(alias, *at)));
        headers.push((Bytes::from_static(STAMP_HEADER), Some(stamp.encode())));
        let mut key = parts.key_buffer();
        let has_key = self.convert(&mut key, &self.options.key_converter, self.options.key_schema, &of, plan.key);
        parts.keep_key(key);
        let mut value = std::mem::take(&mut parts.value);
        value.clear();
        let (is_empty, mut is_no_json) = (self.is_empty(&of, plan.payload), false);
        let has_value = if is_empty && outbox.tombstones {
            false
        } else {
            let expanded = outbox.expand.and_then(|how| {
                let text = self.text_of(&of, plan.payload)?;
                let made = expand::expand(Some(&outbox.payload), &text, how);
                is_no_json = made.is_none();
                made
            });
            let as_text = self.options.value_converter.is_text();
            match (expanded, outbox.has_envelope()) {
                (expanded, true) if as_text => {
                    value.extend_from_slice(self.envelope_text(&plan, &of, expanded).as_bytes());
                    true
                }
                (Some(expanded), false) if as_text => {
                    let text = json::parse(&expanded.value).map(|node| convert::java_text(&node)).unwrap_or_default();
                    value.extend_from_slice(text.as_bytes());
                    true
                }
                (expanded, true) => {
                    self.put_envelope(&mut value, &plan, &of, expanded);
                    true
                }
                (Some(expanded), false) => {
                    let schema = self.options.value_schema.then_some(&expanded.schema[..]);
                    convert::frame(&mut value, schema, &expanded.value);
                    true
                }
                (None, false) => {
                    let (converter, schema) = (&self.options.value_converter, self.options.value_schema);
                    self.convert(&mut value, converter, schema, &of, plan.payload)
                }
            }
        };
        (parts.value, parts.has_value, parts.headers) = (value, has_value, headers);
        let time = plan.time.and_then(|(at, unit)| self.time_of(&of, at, unit));
        Ok(Event { has_key, time: time.unwrap_or(processed.as_millis()), is_no_json })
    }

    /// The payload, and the columns that go with it.
    fn put_envelope(&self, out: &mut Vec<u8>, plan: &Plan, of: &Of<'_>, expanded: Option<expand::Expanded>) {
        let with_schema = self.options.value_schema;
        let mut own = Vec::new();
        if expanded.is_none() && with_schema {
            self.put_schema(&mut own, of, plan.payload);
        }
        let payload_schema = expanded.as_ref().map_or(&own[..], |e| &e.schema);
        let mut fields = Vec::new();
        if with_schema {
            let version = plan.version.and_then(|at| self.text_of(of, at));
            let by = self.text_of(of, plan.route_by).unwrap_or_default();
            let make = |by: &str| {
                let mut schema = b"{\"type\":\"struct\",\"fields\":[".to_vec();
                schema.extend_from_slice(payload_schema);
                schema::put_field(&mut schema, PAYLOAD);
                for (alias, at) in &plan.envelope {
                    schema.push(b',');
                    self.put_schema(&mut schema, of, *at);
                    schema::put_field(&mut schema, alias);
                }
                schema.extend_from_slice(b"],\"optional\":false,\"name\":");
                json::put_string(&mut schema, &plan.value_name(by));
                if let Some(version) = &version {
                    schema.extend_from_slice(b",\"version\":");
                    schema.extend_from_slice(version.as_bytes());
                }
                schema
            };
            fields = match self.options.defects {
                // The first event of a payload's schema names that of all, whatever topic they go to.
                true => self.outbox_plans.names.first(payload_schema, version.as_deref(), &by, make),
                false => make(&by),
            };
        }
        let mut value = b"{\"payload\":".to_vec();
        match &expanded {
            Some(expanded) => value.extend_from_slice(&expanded.value),
            None => self.put_json(&mut value, of, plan.payload),
        }
        for (alias, at) in &plan.envelope {
            value.push(b',');
            json::put_string(&mut value, alias);
            value.push(b':');
            self.put_json(&mut value, of, *at);
        }
        value.push(b'}');
        convert::frame(out, with_schema.then_some(&fields[..]), &value);
    }

    /// [`Encoder::put_envelope`]'s structure as Java prints it.
    fn envelope_text(&self, plan: &Plan, of: &Of<'_>, expanded: Option<expand::Expanded>) -> String {
        let payload = match expanded {
            Some(expanded) => json::parse(&expanded.value).ok().map(|node| convert::java_text(&node)),
            None => self.string_of(of, plan.payload),
        };
        let columns = plan.envelope.iter().map(|(alias, at)| (alias.as_str(), self.string_of(of, *at)));
        let all = std::iter::once((PAYLOAD, payload)).chain(columns);
        convert::java_struct(all.filter_map(|(name, text)| Some((name, text?))))
    }

    /// A text of nothing but space is nothing, too.
    fn is_empty(&self, of: &Of<'_>, at: usize) -> bool {
        let is_bytes = of.table.columns.get(at).is_some_and(|c| convert::is_bytes(&self.options, c));
        match self.text_of(of, at) {
            None => true,
            Some(text) => !is_bytes && text.trim_matches(|c: char| c <= ' ').is_empty(),
        }
    }

    /// The record's time. None = NULL, a moment without a number, or one before 1970, which no record of Kafka has.
    fn time_of(&self, of: &Of<'_>, at: usize, unit: Unit) -> Option<i64> {
        let number: i64 = self.text_of(of, at)?.parse().ok()?;
        let millis = match unit {
            Unit::Micros => number / 1_000,
            Unit::Nanos => number / 1_000_000,
            _ => number,
        };
        Some(millis).filter(|ms| *ms >= 0)
    }

    /// Those of every record, where they are asked for.
    pub(super) fn context_headers(&self, headers: &mut Vec<(Bytes, Option<Bytes>)>) {
        if !self.options.context_headers {
            return;
        }
        for (name, value) in [
            (&b"__debezium.context.connectorLogicalName"[..], Bytes::copy_from_slice(self.name.as_bytes())),
            (b"__debezium.context.taskId", Bytes::from_static(b"0")),
            (b"__debezium.context.connectorName", Bytes::from_static(self.connector.as_bytes())),
        ] {
            headers.push((Bytes::from_static(name), Some(value)));
        }
    }
}

/// A text of JSON with the schema that is read off it. None = it is no object, or has no one schema.
pub(crate) fn expand_json(text: &str, nulls: bool) -> Option<(connect::Schema, connect::Data)> {
    let mut made = expand::expand(None, text, Expand { nulls, empty_arrays: false })?;
    made.schema.push(schema::END);
    let schema = connect::read::schema(&json::parse(&made.schema).ok()?)?;
    let data = connect::read::data(&schema, &json::parse(&made.value).ok()?);
    Some((schema, data))
}

/// The records of a change of an outbox table.
pub(super) fn pieces(op: Op) -> &'static [Piece] {
    if Outbox::takes(op) { &[Piece::Whole] } else { &[] }
}

/// A column's value, where it has one.
fn value_of<'a>(of: &Of<'a>, at: usize) -> Option<&'a Value> {
    match of.cell(at) {
        Cell::Value(value) => Some(value),
        _ => None,
    }
}
