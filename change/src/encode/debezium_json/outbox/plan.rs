//! Pure. Which columns of a table an outbox router means, and what of it cannot be.

use super::{Converter, Outbox, Place};
use crate::encode::debezium_json::{EncodeError, Encoder, schema};
use crate::encode::form::{TimeMode, Unit};
use crate::schema::{Column, TableSchema, Type};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Schemas whose names are remembered; above it all are forgotten.
const NAMES_MAX: usize = 10_000;

/// Columns by their places in the table.
#[derive(Debug)]
pub struct Plan {
    pub outbox: Arc<Outbox>,
    pub id: usize,
    pub key: usize,
    pub payload: usize,
    pub route_by: usize,
    pub time: Option<(usize, Unit)>,
    pub version: Option<usize>,
    pub partition: Option<usize>,
    pub headers: Vec<(String, usize)>,
    pub envelope: Vec<(String, usize)>,
    /// Full name of the row's schema.
    row_name: String,
}

impl Plan {
    /// `pg.public.outbox.Value` → `pg.public.outbox.order.Value`.
    pub fn value_name(&self, by: &str) -> String {
        match self.row_name.rsplit_once('.') {
            Some((front, last)) => format!("{front}.{by}.{last}"),
            None => format!("{by}.{}", self.row_name),
        }
    }
}

/// Plans by the number of the shape, and what else outlives an event.
#[derive(Debug, Default)]
pub struct Plans {
    known: Mutex<BTreeMap<u32, Arc<Plan>>>,
    pub names: Names,
}

/// With the defects: schemas of envelopes, which Debezium makes once for each schema of a payload, or for each version.
#[derive(Debug, Default)]
pub struct Names(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>);

impl Names {
    pub fn first(&self, payload: &[u8], version: Option<&str>, by: &str, make: impl Fn(&str) -> Vec<u8>) -> Vec<u8> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = version.map_or_else(|| payload.to_vec(), |v| format!("version {v}").into_bytes());
        if known.len() >= NAMES_MAX && !known.contains_key(&key) {
            known.clear();
        }
        known.entry(key).or_insert_with(|| make(by)).clone()
    }
}

impl Encoder {
    pub(super) fn plan(&self, table: &TableSchema) -> Result<Arc<Plan>, EncodeError> {
        let mut known = self.outbox_plans.known.lock().unwrap_or_else(PoisonError::into_inner);
        if table.schema_no != 0
            && let Some(plan) = known.get(&table.schema_no)
        {
            return Ok(plan.clone());
        }
        let made = self.make_plan(table).map_err(|what| EncodeError::Outbox { table: table.qualified(), what })?;
        let made = Arc::new(made);
        if table.schema_no != 0 {
            known.insert(table.schema_no, made.clone());
        }
        Ok(made)
    }

    fn make_plan(&self, table: &TableSchema) -> Result<Plan, String> {
        let outbox = self.outbox(table).ok_or("no outbox")?;
        let find = |name: &str| table.columns.iter().position(|c| c.name == name);
        let has = |property: &str, name: &str| {
            let at = find(name).ok_or_else(|| format!("it has no column {name}, which {property} names"))?;
            Ok::<_, String>((at, &table.columns[at]))
        };
        let (id, _) = has("table.field.event.id", &outbox.id)?;
        let (key, key_column) = has("table.field.event.key", &outbox.key)?;
        let (payload, payload_column) = has("table.field.event.payload", &outbox.payload)?;
        let (route_by, by) = has("route.by.field", &outbox.route_by)?;
        if self.kind_of(by) != "string" {
            return Err(format!("route.by.field: column {} is no text", by.name));
        }
        let int = |property: &str, name: &str| match has(property, name)? {
            (at, column) if self.kind_of(column) == "int32" && column.kind != Type::Date => Ok(at),
            (_, column) => Err(format!("{property}: column {} is no int4", column.name)),
        };
        let version = outbox.version.as_deref().filter(|_| outbox.has_envelope());
        let version = version.map(|name| int("table.field.event.schema.version", name)).transpose()?;
        let time = outbox.time.as_deref().map(|name| {
            let (at, column) = has("table.field.event.timestamp", name)?;
            let form = &self.options.form;
            let unit = match column.kind {
                Type::Timestamp { digits } if !matches!(form.time, TimeMode::Connect | TimeMode::Structured) => {
                    form.time.timestamp(digits)
                }
                _ => Unit::Iso,
            };
            let why = "is no timestamp (without time zone) that time.precision.mode makes a number";
            match unit {
                Unit::Iso => Err(format!("table.field.event.timestamp: column {} {why}", column.name)),
                unit => Ok((at, unit)),
            }
        });
        let (mut headers, mut envelope, mut partition) = (Vec::new(), Vec::new(), None);
        for added in &outbox.added {
            let property = "table.fields.additional.placement";
            if outbox.ignores_missing && find(&added.column).is_none() {
                continue;
            }
            match added.place {
                Place::Partition => partition = Some(int(property, &added.column)?),
                Place::Envelope => envelope.push((added.alias.clone(), has(property, &added.column)?.0)),
                Place::Header => headers.push((added.alias.clone(), has(property, &added.column)?.0)),
            }
        }
        let of = |column: &Column| {
            (column.name.clone(), self.has_string(column), super::convert::is_bytes(&self.options, column))
        };
        let fits = |property: &str, converter: &Converter, column: &Column| {
            let (name, has_text, is_bytes) = of(column);
            converter.fits(has_text, is_bytes).map_err(|why| format!("{property}: column {name} {why}"))
        };
        fits("key.converter", &self.options.key_converter, key_column)?;
        let is_struct = outbox.has_envelope() || outbox.expand.is_some();
        match is_struct {
            true if self.options.value_converter.is_text() => {
                for at in envelope.iter().map(|(_, at)| *at).chain(outbox.expand.is_none().then_some(payload)) {
                    fits("value.converter", &Converter::Text, &table.columns[at])?;
                }
            }
            true => self.options.value_converter.fits(false, false).map_err(|_| {
                let why = "table.expand.json.payload and columns in the envelope make a structure";
                format!("value.converter: {why}, which JsonConverter and StringConverter alone write")
            })?,
            false => fits("value.converter", &self.options.value_converter, payload_column)?,
        }
        if outbox.expand.is_some() && self.kind_of(payload_column) != "string" {
            return Err(format!("table.expand.json.payload: column {} is no text", payload_column.name));
        }
        let own = || self.options.schema_names.schema(&format!("{}.Value", self.own_topic(table))).into_owned();
        let row_name = self.placed(table).and_then(|p| p.row_name.clone()).unwrap_or_else(own);
        let time = time.transpose()?;
        Ok(Plan { outbox, id, key, payload, route_by, time, version, partition, headers, envelope, row_name })
    }

    fn own_topic(&self, table: &TableSchema) -> String {
        crate::encode::debezium_json::topic_name(&self.name, &self.options.delimiter, table)
    }

    /// Records of tables that are no outbox are structures.
    pub(super) fn check_converters(&self, table: &TableSchema) -> Result<(), EncodeError> {
        for (property, converter) in
            [("key.converter", &self.options.key_converter), ("value.converter", &self.options.value_converter)]
        {
            if !converter.is_text() && converter.fits(false, false).is_err() {
                let what = format!("{property} writes no structures: it is for outbox tables alone");
                return Err(EncodeError::Outbox { table: table.qualified(), what });
            }
        }
        Ok(())
    }

    /// Connect's type of a column.
    pub(super) fn kind_of(&self, column: &Column) -> &'static str {
        schema::kind(&self.options, column)
    }
}
