//! Pure. Transforms that change the records themselves (`InsertField`, `Cast`, …): each record of a table that has some is made
//! as Connect has it, with its schemas and without defaults in the place of nulls, taken apart, sent through them, and
//! written by the source's converters.
//!
//! The stamp of such a record says TRANSFORMED, for its value is no row any more: a sink stops at it, and what was not sent is not
//! filled from it. Not so where the value is as it was, because only key and headers were changed.
//! Source: Kafka 4.3 (`TransformationChain`), recordings `smt-*`.

use super::placed::Placed;
use super::{Block, Counts, EncodeError, Encoded, Encoder, Notification, Options, Parts, Piece, Placing};
use crate::connect::read::Schemas;
use crate::connect::smt::{Around, Side, Smt, Step};
use crate::connect::write::{self, BytesText};
use crate::connect::{Data, Header, HeaderValue, Kind, Part, Record, Schema};
use crate::encode::debezium_json::Converter;
use crate::event::RowChange;
use crate::schema::TableSchema;
use crate::stamp::{Stamp, flag};
use bytes::Bytes;
use catchwater_base::Wall;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Headers of ours, which no transform sees.
const OWN: &[u8] = b"cw.";

/// One transform in its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// As the user calls it.
    pub name: String,
    pub smt: Smt,
    pub when: When,
    /// Of the record, where the transform stands.
    pub topic: String,
}

/// Its predicate, as far as it is not the topic's name; `true` = all other records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum When {
    Always,
    IsTombstone(bool),
    HasHeader(String, bool),
}

impl When {
    fn holds(&self, record: &Record) -> bool {
        match self {
            When::Always => true,
            When::IsTombstone(negate) => record.value.as_ref().is_none_or(|(_, data)| *data == Data::Null) != *negate,
            When::HasHeader(name, negate) => record.headers.iter().any(|h| h.name == *name) != *negate,
        }
    }
}

impl Link {
    /// True if a value may be another behind it.
    pub fn changes_value(&self) -> bool {
        match &self.smt {
            Smt::InsertField { side, .. }
            | Smt::ReplaceField { side, .. }
            | Smt::MaskField { side, .. }
            | Smt::Cast { side, .. }
            | Smt::TimestampConverter { side, .. }
            | Smt::Flatten { side, .. }
            | Smt::HoistField { side, .. }
            | Smt::ExtractField { side, .. }
            | Smt::SetSchemaMetadata { side, .. } => *side == Side::Value,
            Smt::HeaderFrom { side, moves, .. } => *side == Side::Value && *moves,
            Smt::HeaderToValue { .. } | Smt::Zones(_) | Smt::VectorToJson | Smt::Geometry(_) => true,
            Smt::ValueToKey { .. } | Smt::InsertHeader { .. } | Smt::DropHeaders(_) | Smt::Changed { .. } => false,
            // The row stands in it as before; and of tables the other one does nothing.
            Smt::SourceSchema | Smt::DecodeMessage { .. } => false,
        }
    }

    /// True if a key may be another behind it.
    pub fn changes_key(&self) -> bool {
        match &self.smt {
            Smt::ValueToKey { .. } => true,
            Smt::HeaderFrom { side, moves, .. } => *side == Side::Key && *moves,
            Smt::InsertHeader { .. } | Smt::DropHeaders(_) | Smt::Changed { .. } | Smt::HeaderToValue { .. } => false,
            Smt::SourceSchema => false,
            // Left in chains of messages alone.
            Smt::DecodeMessage { .. } => true,
            _ => !self.changes_value(),
        }
    }
}

/// Chains by the number of their table's schema, and of other topics by their names.
#[derive(Debug, Default)]
pub(super) struct Chains {
    tables: Mutex<BTreeMap<u32, Arc<Mutex<Chain>>>>,
    topics: Mutex<BTreeMap<String, Arc<Mutex<Chain>>>>,
}

/// Transforms of one topic, and the schemas that came.
#[derive(Debug)]
struct Chain {
    steps: Vec<(Link, Step)>,
    keys: Schemas,
    values: Schemas,
}

impl Chain {
    fn new(links: &[Link]) -> Arc<Mutex<Chain>> {
        let steps = links.iter().map(|link| (link.clone(), Step::new(link.smt.clone()))).collect();
        Arc::new(Mutex::new(Chain { steps, keys: Schemas::default(), values: Schemas::default() }))
    }

    fn part(of: &mut Schemas, bytes: Option<&[u8]>) -> Result<Part, (String, String)> {
        match bytes {
            None => Ok(None),
            Some(bytes) => of.read(bytes).ok_or_else(|| ("(none)".to_owned(), "it is not what Connect has".to_owned())),
        }
    }

    /// The error is a transform and what it says.
    fn run(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: Vec<Header>,
        around: Around<'_>,
    ) -> Result<Record, (String, String)> {
        let key = Self::part(&mut self.keys, key)?;
        let value = Self::part(&mut self.values, value)?;
        let mut record = Record { key, value, headers };
        for (link, step) in &mut self.steps {
            if link.when.holds(&record) {
                let around = Around { topic: &link.topic, ..around };
                record = step.apply(record, &around).map_err(|what| (link.name.clone(), what))?;
            }
        }
        Ok(record)
    }
}

/// Headers as the transforms see them, and ours.
type Headers = Vec<(Bytes, Option<Bytes>)>;

fn seen(headers: &mut Headers) -> (Vec<Header>, Headers) {
    let (own, others): (Headers, Headers) = headers.drain(..).partition(|(name, _)| name.starts_with(OWN));
    let header = |(name, value): (Bytes, Option<Bytes>)| Header {
        name: String::from_utf8_lossy(&name).into_owned(),
        value: HeaderValue::Written(value.map(|v| v.to_vec())),
    };
    (others.into_iter().map(header).collect(), own)
}

fn written(headers: Vec<Header>) -> impl Iterator<Item = (Bytes, Option<Bytes>)> {
    headers.into_iter().map(|h| {
        let value = match h.value {
            HeaderValue::Written(bytes) => bytes.map(Bytes::from),
            HeaderValue::Data(schema, data) => write::header(&schema, &data).map(Bytes::from),
        };
        (Bytes::from(h.name), value)
    })
}

impl Encoder {
    /// With the one that makes what is taken apart.
    pub(super) fn with_chains(mut self) -> Self {
        let options = &self.options;
        let has_chains = options.placing.0.as_ref().is_some_and(|p| p.has_chains());
        if has_chains || options.key_converter.is_text() || options.value_converter.is_text() {
            let options = Options {
                key_schema: true,
                value_schema: true,
                key_defaults: false,
                value_defaults: options.transform_defaults,
                key_converter: Converter::Json,
                value_converter: Converter::Json,
                ..options.clone()
            };
            let mut raw = Encoder { options, ..self.clone().alone() };
            let whole = Options { placing: Placing::default(), ..raw.options.clone() };
            raw.raw = Some(Arc::new(Encoder { options: whole, ..raw.clone().alone() }));
            self.raw = Some(Arc::new(raw));
        }
        self
    }

    /// With nothing remembered, for other options than those it was made by.
    fn alone(self) -> Self {
        Encoder {
            inline: Arc::default(),
            places: Arc::default(),
            cuts: Arc::default(),
            outbox_plans: Arc::default(),
            raw: None,
            chains: Arc::default(),
            ..self
        }
    }

    /// Beside outbox tables the converters are their events' alone.
    fn writes_others_as_text(&self) -> bool {
        let has_events = self.options.placing.0.as_ref().is_some_and(|p| p.has_events());
        !has_events && (self.options.key_converter.is_text() || self.options.value_converter.is_text())
    }

    /// The encoder of what is taken apart, if a table's records are.
    fn takes_apart(&self, table: &TableSchema) -> Option<(&Encoder, Arc<Placed>)> {
        let raw = self.raw.as_deref()?;
        let placed = self.placed(table).unwrap_or_default();
        let as_text = self.options.key_converter.is_text() || self.options.value_converter.is_text();
        let is_changed = !placed.chain.is_empty() || !placed.before.is_empty() || as_text;
        (placed.outbox.is_none() && is_changed).then_some((raw, placed))
    }

    /// True if the records of a table have other keys than its rows: theirs are in no log to be found by.
    pub fn has_own_keys(&self, table: &TableSchema) -> bool {
        let takes = self.takes_apart(table);
        takes.is_none_or(|(_, placed)| {
            !self.options.key_converter.is_text() && !placed.chain.iter().any(|l| l.changes_key() || l.changes_value())
        })
    }

    /// True if a table's records have the keys of its rows, as they are or in another form, so that compaction keeps each.
    pub fn keeps_keys(&self, table: &TableSchema) -> bool {
        self.placed(table).is_none_or(|placed| !placed.chain.iter().any(Link::changes_key))
    }

    /// Makes a record whose key is made in `parts` ([`Encoder::key_into`] said whether there is one), and the key once more if
    /// transforms change it; false = it has no key.
    pub fn record_into(
        &self,
        parts: &mut Parts,
        change: &RowChange,
        piece: Piece,
        stamp: Stamp,
        processed: Wall,
        (has_key, block): (bool, Option<Block<'_>>),
    ) -> Result<bool, EncodeError> {
        let Some((raw, placed)) = self.takes_apart(&change.table) else {
            self.encode_into(parts, change, piece, stamp, processed, block)?;
            return Ok(has_key);
        };
        let around = self.around(Some(&change.table.name), processed);
        // What adds headers before the row loses its envelope sees that.
        let early = match (placed.before.is_empty(), &raw.raw) {
            (false, Some(whole)) => {
                let has_key = whole.key_into(parts, change, piece)?;
                whole.encode_into(parts, change, piece, stamp.clone(), processed, block)?;
                let (headers, _) = seen(&mut std::mem::take(&mut parts.headers));
                let (count, record) = (headers.len(), parts.record(has_key));
                let chain = Chain::new(&placed.before);
                let mut chain = chain.lock().unwrap_or_else(PoisonError::into_inner);
                let made = chain.run(record.key, record.value, headers, around);
                let mut made = made.map_err(|(transform, what)| EncodeError::Transform {
                    table: change.table.qualified(),
                    transform,
                    what,
                })?;
                Some((count, made.headers.split_off(count.min(made.headers.len()))))
            }
            _ => None,
        };
        let has_key = raw.key_into(parts, change, piece)?;
        let mut stamp = stamp;
        if self.options.value_converter.is_text() || placed.chain.iter().any(Link::changes_value) {
            stamp.flags |= flag::TRANSFORMED;
        }
        raw.encode_into(parts, change, piece, stamp, processed, block)?;
        let chain = {
            let mut known = self.chains.tables.lock().unwrap_or_else(PoisonError::into_inner);
            match change.table.schema_no {
                0 => Chain::new(&placed.chain),
                no => known.entry(no).or_insert_with(|| Chain::new(&placed.chain)).clone(),
            }
        };
        let mut all = std::mem::take(&mut parts.headers);
        let (mut headers, own) = seen(&mut all);
        let added = placed.flat.as_ref().map_or(&[][..], |flat| &flat.headers);
        for header in headers.iter_mut().filter(|h| added.iter().any(|a| a.name == h.name && a.what.kind() == "int64"))
        {
            let number = match &header.value {
                HeaderValue::Written(Some(text)) => std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()),
                _ => None,
            };
            header.value = HeaderValue::Data(Schema::optional(Kind::Int64, true), number.map_or(Data::Null, Data::Int));
        }
        if let Some((at, more)) = early {
            let rest = headers.split_off(at.min(headers.len()));
            headers.extend(more.into_iter().chain(rest));
        }
        let record = parts.record(has_key);
        let mut chain = chain.lock().unwrap_or_else(PoisonError::into_inner);
        let made = chain.run(record.key, record.value, headers, around);
        drop(chain);
        let made = made.map_err(|(transform, what)| EncodeError::Transform {
            table: change.table.qualified(),
            transform,
            what,
        })?;
        let mut key = parts.key_buffer();
        let has_key = self.put_part(&mut key, &made.key, true);
        parts.keep_key(key);
        let mut value = std::mem::take(&mut parts.value);
        value.clear();
        parts.has_value = self.put_part(&mut value, &made.value, false);
        parts.value = value;
        all.extend(written(made.headers));
        all.extend(own);
        parts.headers = all;
        Ok(has_key)
    }

    /// What transforms know besides; the topic is each one's own.
    fn around<'a>(&self, table: Option<&'a str>, now: Wall) -> Around<'a> {
        let defects = self.options.defects;
        let defaults = defects || self.options.value_defaults;
        Around { topic: "", table, now_ms: now.as_millis(), defaults, defects }
    }

    /// A key or value by its converter; false = there is none.
    fn put_part(&self, out: &mut Vec<u8>, part: &Part, is_key: bool) -> bool {
        let options = &self.options;
        let (converter, with_schema, defaults) = match is_key {
            true => (&options.key_converter, options.key_schema, options.key_defaults),
            false => (&options.value_converter, options.value_schema, options.value_defaults),
        };
        let Some((schema, data)) = part else { return false };
        if converter.is_text() {
            let bytes = if options.defects { BytesText::Object } else { BytesText::Base64 };
            let Some(text) = write::java_text(schema, data, bytes) else { return false };
            out.extend_from_slice(text.as_bytes());
            return true;
        }
        // A null in its schema is the word there, which is no tombstone to compaction.
        if *data == Data::Null && !options.defects {
            return false;
        }
        write::json(out, part, with_schema, defaults)
    }

    /// [`Encoder::heartbeat`], [`Encoder::notification`] and [`Encoder::boundary`] of a topic that transforms may fit; the name is
    /// the one without them.
    pub fn heartbeat_in(&self, topic: &str, at: Wall) -> Result<Encoded, EncodeError> {
        self.other_record(topic, |by| by.heartbeat(at))
    }
    pub fn notification_in(&self, topic: &str, of: &Notification) -> Result<Encoded, EncodeError> {
        self.other_record(topic, |by| by.notification(of))
    }
    pub fn boundary_in(&self, topic: &str, counts: &Counts, ended: bool, stamp: Stamp) -> Result<Encoded, EncodeError> {
        self.other_record(topic, |by| by.boundary(counts, ended, stamp.clone()))
    }

    /// A record that is no table's, through the transforms of its topic. `make` makes it by the encoder that is given.
    fn other_record(&self, topic: &str, make: impl Fn(&Encoder) -> Encoded) -> Result<Encoded, EncodeError> {
        let Some(raw) = &self.raw else { return Ok(make(self)) };
        let links = self.options.placing.0.as_ref().map_or_else(Vec::new, |places| places.chain(topic));
        if links.is_empty() && !self.writes_others_as_text() {
            return Ok(make(self));
        }
        let chain = {
            let mut known = self.chains.topics.lock().unwrap_or_else(PoisonError::into_inner);
            known.entry(topic.to_owned()).or_insert_with(|| Chain::new(&links)).clone()
        };
        let mut encoded = make(raw);
        let (headers, own) = seen(&mut encoded.headers);
        let made = chain.lock().unwrap_or_else(PoisonError::into_inner).run(
            encoded.key.as_deref(),
            encoded.value.as_deref(),
            headers,
            self.around(None, Wall::default()),
        );
        let made = made.map_err(|(transform, what)| EncodeError::Transform {
            table: format!("(topic {topic})"),
            transform,
            what,
        })?;
        let part = |part: &Part, is_key| {
            let mut out = Vec::new();
            self.put_part(&mut out, part, is_key).then(|| Bytes::from(out))
        };
        let (key, value) = (part(&made.key, true), part(&made.value, false));
        Ok(Encoded { key, value, headers: written(made.headers).chain(own).collect() })
    }
}
