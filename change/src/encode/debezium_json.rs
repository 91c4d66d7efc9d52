//! Pure. Event → key, value and headers in Debezium's JSON: envelope `before, after, source, transaction, op, ts_ms, ts_us,
//! ts_ns`, default representations, field order included.
//!
//! Walk: row-change 7/17
//!
//! One change gives one record, a delete two (`d`, tombstone), a change of the key three (`d` of the old key with
//! `__debezium.newkey`, tombstone, `c` of the new key with `__debezium.oldkey`); each has an ordinal of its own, so a
//! crash between them loses none and repeats none. How many is a function of the change alone (capture.md 4.5 R7).
//!
//! Rule where Debezium is lossy or wrong (capture.md 6): the right value in the nearest legal form, and what that form
//! cannot say in the header `cw.exact`; `decode` gives back the very same change. Source: the recordings under
//! `tests/golden` (Debezium 3.7.0.Final).

use crate::encode::form::{FORM_HEADER, Form};
use crate::event::{Op, RowChange, SnapshotMark, SourceInfo};
use crate::exact::{self, Exact, ExactCell, OUTSIDE_KEY};
use crate::json;
use crate::row::{Cell, Row};
use crate::schema::{Column, TableSchema};
use crate::stamp::{STAMP_HEADER, Stamp, flag};
use crate::value::Value;
use bytes::Bytes;
use catchwater_base::Wall;
pub use chain::{Link, When};
use defects::{Cuts, Road, Spot};
pub use defects::{cut_units, is_domain_array, is_key_there, is_known, keys_hold};
pub(crate) use header::big_decimal_of;
pub use names::NameMode;
pub use notification::Notification;
pub(crate) use outbox::expand_json;
pub use outbox::{Converter, Event, Expand, Outbox, Place, Placement, Route, Updates};
use parts::{OfTable, Times};
pub use parts::{Parts, Record};
pub use placed::{Added, Deletes, Drops, FLAT_HEADER, Flat, Part, Placed, Places, Placing};
pub use said::{Mask, Masks, Parameters};
use schema::Inline;
pub use source_type::{SourceType, source_type};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
pub use transaction::{Counts, LETTER as TRANSACTION_LETTER};
pub use value::Placeholder;
use value::{put_unavailable, put_value};
pub use xmin::Xmin;

/// What stands for a value that exists but was not sent.
pub const UNAVAILABLE: &str = "__debezium_unavailable_value";
pub const NEW_KEY_HEADER: &[u8] = b"__debezium.newkey";
pub const OLD_KEY_HEADER: &[u8] = b"__debezium.oldkey";
/// How records look: Debezium's properties, as far as they touch a single record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// `tombstones.on.delete`: a tombstone after each delete.
    pub tombstones: bool,
    /// The handling modes.
    pub form: Form,
    /// `unavailable.value.placeholder`.
    pub placeholder: Placeholder,
    /// `key.converter.schemas.enable`, `value.converter.schemas.enable`.
    pub key_schema: bool,
    pub value_schema: bool,
    /// `extended.headers.enabled`: `__debezium.context.*`.
    pub context_headers: bool,
    /// `schema.name.adjustment.mode`. Fields are renamed before they come here: their names are the columns'.
    pub schema_names: NameMode,
    /// `topic.delimiter`: between prefix, schema and table.
    pub delimiter: String,
    /// Parameters that a column's inline schema has besides its own.
    pub parameters: Parameters,
    /// With [`Options::defects`] used where rows come unmasked ([`is_key_there`]) or have no value to mask.
    pub masks: Masks,
    /// Columns that were not sent are filled from the log before a record is made; else the placeholder stands there.
    pub fill_unchanged: bool,
    /// `compat.defects`: Debezium's bytes also where it is wrong.
    pub defects: bool,
    /// `key.converter.replace.null.with.default`, `value.converter.…`: a default stands where NULL is.
    pub key_defaults: bool,
    pub value_defaults: bool,
    /// `include.unknown.datatypes`.
    pub unknown_types: bool,
    /// Of `skipped.operations`: creations and deletions that a change of a key is split into are left out, too
    /// (with [`Options::defects`]).
    pub skips_creates: bool,
    pub skips_deletes: bool,
    /// `skip.messages.without.change` with [`Options::defects`]: an update whose two rows are equal in Debezium's form is left
    /// out.
    pub skips_unchanged: bool,
    /// `transforms`.
    pub placing: Placing,
    /// `key.converter`, `value.converter`: of events of outbox tables, and of records that transforms change.
    pub key_converter: Converter,
    pub value_converter: Converter,
    /// A transform puts a default where a value is NULL, whatever the converter is told.
    pub transform_defaults: bool,
    /// `xmin.fetch.interval.ms`.
    pub xmin: Xmin,
}

/// Place of an event in its transaction: the envelope's `transaction`, with `provide.transaction.metadata`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block<'a> {
    pub id: &'a str,
    /// From 1 over all tables, and over this one.
    pub total_order: u64,
    pub collection_order: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            tombstones: true,
            form: Form::default(),
            placeholder: Placeholder { bytes: UNAVAILABLE.as_bytes().to_vec(), text: UNAVAILABLE.into() },
            key_schema: false,
            value_schema: false,
            context_headers: false,
            schema_names: NameMode::None,
            delimiter: ".".into(),
            parameters: Parameters::default(),
            masks: Masks::default(),
            fill_unchanged: true,
            defects: false,
            key_defaults: false,
            value_defaults: false,
            unknown_types: true,
            skips_creates: false,
            skips_deletes: false,
            skips_unchanged: false,
            placing: Placing::default(),
            key_converter: Converter::Json,
            value_converter: Converter::Json,
            transform_defaults: false,
            xmin: Xmin::default(),
        }
    }
}

/// Texts of schemas, by the schema's number and the road its rows took.
type Inlines = BTreeMap<(u32, Road), Arc<Inline>>;

/// What is the same for all records of a source.
#[derive(Clone, Debug)]
pub struct Encoder {
    /// `source.connector`: `postgresql`, `sqlite`.
    pub connector: &'static str,
    /// `source.version`.
    pub version: String,
    /// Logical name = topic prefix.
    pub name: String,
    pub options: Options,
    /// Texts of schemas by their number; only when records carry them.
    inline: Arc<Mutex<Inlines>>,
    /// What the transforms make of a table's records, by the number of its schema.
    places: Arc<Mutex<BTreeMap<u32, Arc<Placed>>>>,
    /// With the defects: what is cut of a column's values, or masked, by the number of its schema.
    cuts: Arc<Mutex<BTreeMap<u32, Arc<Cuts>>>>,
    outbox_plans: Arc<outbox::Plans>,
    /// Makes the records that transforms take apart; none where there are no such transforms.
    raw: Option<Arc<Encoder>>,
    chains: Arc<chain::Chains>,
}

/// `<prefix>.<schema>.<table>`, every character outside `[A-Za-z0-9._-]` as `_`.
pub fn topic_name(prefix: &str, delimiter: &str, table: &TableSchema) -> String {
    if table.is_messages() {
        return format!("{prefix}.message");
    }
    let parts = [prefix, table.schema.as_str(), table.name.as_str()];
    let parts: Vec<&str> = parts.into_iter().filter(|p| !p.is_empty()).collect();
    let legal = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' };
    parts.join(delimiter).chars().map(legal).collect()
}

/// One record to be made of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece {
    /// The change as it is.
    Whole,
    /// The delete of the old key, when the key changed.
    OldKey,
    /// Null value for the old key.
    Tombstone,
    /// The creation under the new key.
    NewKey,
}

/// A finished record, ready for a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Encoded {
    pub key: Option<Bytes>,
    /// `None` = tombstone.
    pub value: Option<Bytes>,
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

impl Encoded {
    pub fn record(&self) -> Record<'_> {
        Record { key: self.key.as_deref(), value: self.value.as_deref(), headers: &self.headers }
    }
}

/// Why a change cannot become a record.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum EncodeError {
    #[error("table {table}: the row has {cells} cells, its schema {columns} columns")]
    Shape { table: String, cells: usize, columns: usize },
    #[error("table {table}: key column {column} was not sent")]
    NoKey { table: String, column: String },
    #[error("table {table}: a {op} without its row")]
    NoRow { table: String, op: char },
    #[error("table {table}: the transform adds a field {field}, and a column has that name")]
    Clash { table: String, field: String },
    #[error("outbox table {table}: {what}")]
    Outbox { table: String, what: String },
    #[error("table {table}: transform {transform} cannot take a record: {what}")]
    Transform { table: String, transform: String, what: String },
}

impl Encoder {
    pub fn new(connector: &'static str, name: impl Into<String>) -> Self {
        Self::with(connector, name, Options::default())
    }

    pub fn with(connector: &'static str, name: impl Into<String>, options: Options) -> Self {
        Encoder {
            connector,
            version: "3.7.0.Final".into(),
            name: name.into(),
            options,
            inline: Arc::default(),
            places: Arc::default(),
            cuts: Arc::default(),
            outbox_plans: Arc::default(),
            raw: None,
            chains: Arc::default(),
        }
        .with_chains()
    }

    fn inline(&self, table: &TableSchema, road: Road) -> Arc<Inline> {
        let mut known = self.inline.lock().unwrap_or_else(PoisonError::into_inner);
        // They have other columns only where generated ones are read, other parameters only with the defects.
        let described = self.options.defects && self.options.parameters.0.is_some();
        let differs = |c: &Column| c.generated || defects::is_missing(&self.options, c, Road::Jdbc);
        let road = if described || table.columns.iter().any(differs) { road } else { Road::Stream };
        let make = || {
            let topic = topic_name(&self.name, &self.options.delimiter, table);
            let placed = self.placed(table);
            Arc::new(schema::inline(table, &topic, self.connector, &self.options, road, placed.as_deref()))
        };
        // A number is given once; a table without one is described anew.
        if table.schema_no == 0 { make() } else { known.entry((table.schema_no, road)).or_insert_with(make).clone() }
    }

    /// The records a change becomes, in their order; none where a transform leaves them out.
    pub fn pieces(&self, change: &RowChange) -> &'static [Piece] {
        let all = self.all_pieces(change);
        let placed = self.placed(&change.table).filter(|_| Flat::applies(change.op));
        let Some(placed) = placed else { return all };
        if placed.outbox.is_some() {
            return outbox::pieces(change.op);
        }
        let left = placed.flat.as_ref().map_or(all, |flat| flat.pieces(change.op, all));
        placed.filter(change, left)
    }

    fn all_pieces(&self, change: &RowChange) -> &'static [Piece] {
        use Piece::{NewKey, OldKey, Tombstone, Whole};
        let Options { tombstones, defects, .. } = self.options;
        match change.op {
            Op::Delete if tombstones && (!change.table.key.is_empty() || defects) => &[Whole, Tombstone],
            Op::Update if defects => defects::pieces(&self.options, change),
            Op::Update if key_changed(change) && tombstones => &[OldKey, Tombstone, NewKey],
            Op::Update if key_changed(change) => &[OldKey, NewKey],
            _ => &[Whole],
        }
    }

    /// The columns that a table's records have as their key.
    fn key_columns<'t>(&self, table: &'t TableSchema) -> &'t [u16] {
        let other = if self.options.defects { defects::key_columns(table) } else { None };
        other.unwrap_or(&table.key)
    }

    /// Letter of the stamp for a piece: the operation, `b` for a tombstone.
    pub fn letter(change: &RowChange, piece: Piece) -> u8 {
        match piece {
            Piece::Whole => change.op.letter() as u8,
            Piece::OldKey => b'd',
            Piece::Tombstone => b'b',
            Piece::NewKey => b'c',
        }
    }

    /// The key a piece travels under: what the partition is chosen by. `None` = keyless.
    pub fn key(&self, change: &RowChange, piece: Piece) -> Result<Option<Bytes>, EncodeError> {
        let mut key = Vec::with_capacity(64);
        Ok(self.put_whole_key(&mut key, change, piece)?.then(|| key.into()))
    }

    /// Appends the key with its schema; false = there is none.
    fn put_whole_key(&self, out: &mut Vec<u8>, change: &RowChange, piece: Piece) -> Result<bool, EncodeError> {
        if change.op == Op::Message {
            out.extend_from_slice(&self.message_key(change)?);
            return Ok(true);
        }
        if self.key_columns(&change.table).is_empty() || change.op == Op::Truncate {
            return Ok(false);
        }
        let old = matches!(piece, Piece::OldKey | Piece::Tombstone) || change.op == Op::Delete;
        let placed = self.placed(&change.table);
        if self.options.key_schema {
            out.extend_from_slice(&self.inline(&change.table, Road::of(change)).key);
        }
        self.put_key_json(out, change, old)?;
        placed::put_fields(out, placed.as_ref().map_or(&[][..], |p| &p.key_fields));
        if self.options.key_schema {
            out.push(schema::END);
        }
        Ok(true)
    }

    /// Makes the record. `stamp` is complete but for INCOMPLETE, which is set here; `processed` = time of processing.
    pub fn encode(
        &self,
        change: &RowChange,
        piece: Piece,
        stamp: Stamp,
        processed: Wall,
    ) -> Result<Encoded, EncodeError> {
        self.encode_in(change, piece, stamp, processed, None)
    }

    /// As [`Encoder::encode`], with the event's place in its transaction.
    pub fn encode_in(
        &self,
        change: &RowChange,
        piece: Piece,
        stamp: Stamp,
        processed: Wall,
        block: Option<Block<'_>>,
    ) -> Result<Encoded, EncodeError> {
        let key = self.key(change, piece)?;
        self.encode_keyed(change, piece, key, stamp, processed, block)
    }

    /// As [`Encoder::encode_in`], for who has made the key already ([`Encoder::key`]).
    pub fn encode_keyed(
        &self,
        change: &RowChange,
        piece: Piece,
        key: Option<Bytes>,
        stamp: Stamp,
        processed: Wall,
        block: Option<Block<'_>>,
    ) -> Result<Encoded, EncodeError> {
        let mut parts = Parts::default();
        self.encode_into(&mut parts, change, piece, stamp, processed, block)?;
        let value = parts.has_value.then(|| std::mem::take(&mut parts.value).into());
        Ok(Encoded { key, value, headers: parts.headers })
    }

    /// As [`Encoder::encode_in`], with all but the key in the buffers of `parts`: [`Parts::record`].
    pub fn encode_into(
        &self,
        parts: &mut Parts,
        change: &RowChange,
        piece: Piece,
        mut stamp: Stamp,
        processed: Wall,
        block: Option<Block<'_>>,
    ) -> Result<(), EncodeError> {
        parts.shrink();
        let mut buffer = std::mem::take(&mut parts.value);
        buffer.clear();
        let mut headers = std::mem::take(&mut parts.headers);
        headers.clear();
        if change.op == Op::Message {
            parts.value = self.message_value(change, &stamp, processed, block)?.into();
            parts.has_value = true;
            headers.push((Bytes::from_static(STAMP_HEADER), Some(stamp.encode_in(&mut parts.stamps))));
            parts.headers = headers;
            return Ok(());
        }
        if piece != Piece::Whole && change.op == Op::Update {
            let old = piece == Piece::NewKey;
            let header = if old { OLD_KEY_HEADER } else { NEW_KEY_HEADER };
            headers.push((Bytes::from_static(header), Some(self.key_header(change, old)?)));
        }
        self.context_headers(&mut headers);
        let mut marks = Vec::new();
        let placed = self.placed(&change.table);
        let flat = placed.as_ref().and_then(|p| p.flat.as_deref());
        let value = match (piece, flat) {
            (_, Some(flat)) => {
                let of = placed::Of::new(change, piece, &stamp, processed, block);
                headers.extend(self.added_headers(flat, &of, piece == Piece::Tombstone));
                let (value, before) = self.flat(buffer, parts, flat, &of, piece, &mut marks)?;
                headers.extend(before.map(|b| (Bytes::from_static(FLAT_HEADER), Some(b))));
                value
            }
            (Piece::Tombstone, None) => None,
            (_, None) => Some(self.value(buffer, parts, change, piece, &stamp, processed, block, &mut marks)?),
        };
        if marks.iter().any(|m| m.after && m.what == Exact::Unavailable) {
            stamp.flags |= flag::INCOMPLETE;
        }
        headers.push((Bytes::from_static(STAMP_HEADER), Some(stamp.encode_in(&mut parts.stamps))));
        if piece != Piece::Tombstone
            && let Some(form) = self.options.form.encode()
        {
            headers.push((Bytes::from_static(FORM_HEADER), Some(Bytes::copy_from_slice(&form))));
        }
        if !marks.is_empty() {
            headers.push((Bytes::from_static(exact::EXACT_HEADER), Some(exact::encode(&marks))));
        }
        (parts.headers, parts.has_value) = (headers, value.is_some());
        parts.value = value.unwrap_or_default();
        Ok(())
    }

    /// The rows before and after that a piece says.
    fn images(change: &RowChange, piece: Piece) -> Result<(Option<&Row>, Option<&Row>), EncodeError> {
        let missing = || EncodeError::NoRow { table: change.table.qualified(), op: change.op.letter() };
        let (before, after) = match piece {
            Piece::OldKey => (change.before.as_ref(), None),
            Piece::NewKey => (None, change.after.as_ref()),
            _ => (change.before.as_ref(), change.after.as_ref()),
        };
        match Self::letter(change, piece) {
            b'd' if before.is_none() => Err(missing()),
            b'c' | b'u' | b'r' if after.is_none() => Err(missing()),
            _ => Ok((before, after)),
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn value(
        &self,
        mut out: Vec<u8>,
        parts: &mut Parts,
        change: &RowChange,
        piece: Piece,
        stamp: &Stamp,
        processed: Wall,
        block: Option<Block<'_>>,
        marks: &mut Vec<ExactCell>,
    ) -> Result<Vec<u8>, EncodeError> {
        let table = &*change.table;
        let (before, after) = Self::images(change, piece)?;
        let road = Road::of(change);
        if self.options.value_schema {
            out.extend_from_slice(&self.inline(table, road).value);
        }
        let of = parts.of(&change.table);
        out.extend_from_slice(b"{\"before\":");
        self.put_row(&mut out, of, before, false, road, marks)?;
        out.extend_from_slice(b",\"after\":");
        self.put_row(&mut out, of, after, true, road, marks)?;
        out.extend_from_slice(b",\"source\":");
        of.put_source(self, &mut out, change, stamp);
        out.extend_from_slice(b",\"transaction\":");
        put_block(&mut out, block);
        out.extend_from_slice(b",\"op\":\"");
        out.push(Self::letter(change, piece));
        out.extend_from_slice(b"\",\"ts_ms\":");
        parts.put_times(&mut out, processed);
        out.push(b'}');
        if self.options.value_schema {
            out.push(schema::END);
        }
        Ok(out)
    }

    /// Appends the key's payload.
    fn put_key_json(&self, out: &mut Vec<u8>, change: &RowChange, old: bool) -> Result<(), EncodeError> {
        let put = |out: &mut Vec<u8>, column: &Column, value: &Value, road| {
            if !(self.options.defects && defects::put_value(out, &self.options, column, value, road)) {
                put_value(out, &self.options.form, column, value);
            }
        };
        let nothing = |out: &mut Vec<u8>, column: &Column| {
            nothing::put(out, &self.options, self.options.key_defaults, column);
        };
        self.put_key(out, change, old, put, nothing)
    }

    /// A key's columns and their values, each written by `put`; what stands where there is none is written by `nothing`.
    fn put_key(
        &self,
        out: &mut Vec<u8>,
        change: &RowChange,
        old: bool,
        put: impl Fn(&mut Vec<u8>, &Column, &Value, Road),
        nothing: impl Fn(&mut Vec<u8>, &Column),
    ) -> Result<(), EncodeError> {
        let table = &*change.table;
        let road = Road::of(change);
        let (first, second) = match old {
            true => (&change.before, &change.after),
            false => (&change.after, &change.before),
        };
        let own = std::ptr::eq(self.key_columns(table), &table.key[..]);
        out.push(b'{');
        let shown = |k: &&u16| {
            !table.columns.get(usize::from(**k)).is_some_and(|c| defects::is_missing(&self.options, c, road))
        };
        for (i, k) in self.key_columns(table).iter().filter(shown).enumerate() {
            let at = usize::from(*k);
            let sent = |row| cell_at(row, at).filter(|c| matches!(c, Cell::Value(_) | Cell::Null));
            let column = table.columns.get(at);
            let name = column.map_or("", |c| c.name.as_str());
            let missing = || EncodeError::NoKey { table: table.qualified(), column: name.to_owned() };
            let cell = match (sent(first), old && !own) {
                (Some(cell), _) => Some(cell),
                (None, true) => None,
                (None, false) => Some(sent(second).ok_or_else(missing)?),
            };
            if i > 0 {
                out.push(b',');
            }
            json::put_string(out, name);
            out.push(b':');
            match (cell, column) {
                (Some(Cell::Value(v)), Some(c)) => put(out, c, v, road),
                (Some(Cell::Null), Some(c)) if !self.options.key_defaults => {
                    debug_assert!(c.name == name);
                    out.extend_from_slice(b"null");
                }
                (_, Some(c)) => nothing(out, c),
                (_, None) => out.extend_from_slice(b"null"),
            }
        }
        out.push(b'}');
        Ok(())
    }

    fn put_row(
        &self,
        out: &mut Vec<u8>,
        of: &OfTable,
        row: Option<&Row>,
        after: bool,
        road: Road,
        marks: &mut Vec<ExactCell>,
    ) -> Result<(), EncodeError> {
        let Some(row) = row else {
            out.extend_from_slice(b"null");
            return Ok(());
        };
        let table = of.table();
        if row.cells.len() != table.columns.len() {
            let (cells, columns) = (row.cells.len(), table.columns.len());
            return Err(EncodeError::Shape { table: table.qualified(), cells, columns });
        }
        let key_alone = if after { None } else { nothing::key_alone(table, row) };
        let cuts = self.cuts(table);
        if let Some(what) = &key_alone {
            marks.push(ExactCell { after, column: OUTSIDE_KEY, what: what.clone() });
        }
        out.push(b'{');
        let mut first = true;
        for (at, (cell, column)) in row.cells.iter().zip(&table.columns).enumerate() {
            // In an after image a column that is not captured is left out, as Debezium does; a generated one also before.
            if *cell == Cell::Absent && (after || column.generated) || defects::is_missing(&self.options, column, road)
            {
                continue;
            }
            if !first {
                out.push(b',');
            }
            first = false;
            out.extend_from_slice(of.name(at));
            let from = out.len();
            let exact = |v: &Value| Exact::Text(exact::text_of(&column.kind, v));
            let what = match cell {
                Cell::Null => self.put_null(out, column),
                Cell::Value(v) if self.put_cut(out, cuts.as_deref(), at, column, v, road) => Some(exact(v)),
                Cell::Value(v) if self.options.defects && defects::put_value(out, &self.options, column, v, road) => {
                    Some(exact(v))
                }
                Cell::Value(v) if self.options.value_schema && nothing::has_no_place(column, v) => {
                    nothing::put(out, &self.options, false, column);
                    Some(exact(v))
                }
                Cell::Value(v) => (!put_value(out, &self.options.form, column, v)).then(|| exact(v)),
                Cell::Unavailable => {
                    if after {
                        self.put_placeholder(out, column);
                    } else {
                        self.put_unknown(out, column);
                    }
                    (key_alone.is_none() || table.is_key(at)).then_some(Exact::Unavailable)
                }
                Cell::Absent => {
                    self.put_unknown(out, column);
                    (key_alone.is_none() || table.is_key(at)).then_some(Exact::Absent)
                }
            };
            let what = match &cuts {
                None => what,
                Some(cuts) => self.hidden(out, from, cuts, Spot { table, at, cell, road }, what),
            };
            if let Some(what) = what {
                marks.push(ExactCell { after, column: at as u16, what });
            }
        }
        out.push(b'}');
        Ok(())
    }

    /// A column of the row before that was not sent.
    fn put_unknown(&self, out: &mut Vec<u8>, column: &Column) {
        match self.options.value_schema || self.options.defects || self.options.value_defaults {
            true => nothing::put(out, &self.options, self.options.value_defaults, column),
            false => out.extend_from_slice(b"null"),
        }
    }

    fn put_null(&self, out: &mut Vec<u8>, column: &Column) -> Option<Exact> {
        if self.options.value_defaults && default::put(out, &self.options, column, b"") {
            return Some(Exact::Null);
        }
        if self.options.defects && !schema::is_optional(column) {
            nothing::put(out, &self.options, self.options.value_defaults, column);
            return Some(Exact::Null);
        }
        out.extend_from_slice(b"null");
        None
    }

    fn put_placeholder(&self, out: &mut Vec<u8>, column: &Column) {
        let (form, placeholder) = (&self.options.form, &self.options.placeholder);
        if !(self.options.defects && defects::put_unavailable(out, form, column, placeholder)) {
            put_unavailable(out, form, column, placeholder);
        }
    }

    /// `lsn_at` = where the row's `lsn` came to stand.
    fn put_source(&self, out: &mut Vec<u8>, change: &RowChange, stamp: &Stamp, lsn_at: &mut Vec<Range<usize>>) {
        let table = &*change.table;
        let time = stamp.commit_time;
        out.extend_from_slice(b"{\"version\":");
        json::put_string(out, &self.version);
        out.extend_from_slice(b",\"connector\":");
        json::put_string(out, self.connector);
        out.extend_from_slice(b",\"name\":");
        json::put_string(out, &self.name);
        out.extend_from_slice(b",\"ts_ms\":");
        let times = Times::of(time);
        times.put_millis(out);
        out.extend_from_slice(b",\"snapshot\":");
        match change.snapshot {
            // What is not set is the schema's default, where the converter puts that.
            SnapshotMark::No if self.options.defects && !self.options.value_defaults => out.extend_from_slice(b"null"),
            mark => json::put_string(out, snapshot_text(mark)),
        }
        out.extend_from_slice(b",\"db\":");
        json::put_string(out, &table.database);
        out.extend_from_slice(b",\"sequence\":");
        put_sequence(out, &change.info, lsn_at);
        out.extend_from_slice(b",\"ts_us\":");
        times.put_micros(out);
        out.extend_from_slice(b",\"ts_ns\":");
        times.put_nanos(out);
        out.extend_from_slice(b",\"schema\":");
        json::put_string(out, &table.schema);
        out.extend_from_slice(b",\"table\":");
        json::put_string(out, &table.name);
        match &change.info {
            SourceInfo::Postgres { lsn, txid, .. } => {
                out.extend_from_slice(b",\"txId\":");
                put_option(out, txid.map(u64::from));
                out.extend_from_slice(b",\"lsn\":");
                let from = out.len();
                put_option(out, *lsn);
                lsn_at.push(from..out.len());
                out.extend_from_slice(b",\"xmin\":");
                put_option(out, self.options.xmin.of(change.snapshot));
                out.extend_from_slice(b",\"origin\":null,\"origin_lsn\":null");
            }
            SourceInfo::Sqlite { seq } => {
                out.extend_from_slice(b",\"seq\":");
                json::put_u64(out, *seq);
            }
            SourceInfo::None => {}
        }
        out.push(b'}');
    }
}

fn put_block(out: &mut Vec<u8>, block: Option<Block<'_>>) {
    let Some(block) = block else { return out.extend_from_slice(b"null") };
    out.extend_from_slice(b"{\"id\":");
    json::put_string(out, block.id);
    out.extend_from_slice(b",\"total_order\":");
    json::put_u64(out, block.total_order);
    out.extend_from_slice(b",\"data_collection_order\":");
    json::put_u64(out, block.collection_order);
    out.push(b'}');
}

fn put_option(out: &mut Vec<u8>, v: Option<u64>) {
    match v {
        Some(v) => json::put_u64(out, v),
        None => out.extend_from_slice(b"null"),
    }
}

/// `"[null,\"64636392\"]"`: a JSON array as text.
fn put_sequence(out: &mut Vec<u8>, info: &SourceInfo, lsn_at: &mut Vec<Range<usize>>) {
    let SourceInfo::Postgres { lsn, last_commit_lsn, .. } = info else {
        out.extend_from_slice(b"null");
        return;
    };
    let part = |out: &mut Vec<u8>, lsn: &Option<u64>| match lsn {
        Some(lsn) => {
            out.extend_from_slice(b"\\\"");
            let from = out.len();
            json::put_u64(out, *lsn);
            let digits = from..out.len();
            out.extend_from_slice(b"\\\"");
            digits
        }
        None => {
            out.extend_from_slice(b"null");
            0..0
        }
    };
    out.extend_from_slice(b"\"[");
    part(out, last_commit_lsn);
    out.push(b',');
    lsn_at.push(part(out, lsn));
    out.extend_from_slice(b"]\"");
}

pub(crate) fn snapshot_text(mark: SnapshotMark) -> &'static str {
    match mark {
        SnapshotMark::No => "false",
        SnapshotMark::First => "first",
        SnapshotMark::FirstInCollection => "first_in_data_collection",
        SnapshotMark::Middle => "true",
        SnapshotMark::LastInCollection => "last_in_data_collection",
        SnapshotMark::Last => "last",
        SnapshotMark::Incremental => "incremental",
    }
}

fn cell_at(row: &Option<Row>, at: usize) -> Option<&Cell> {
    row.as_ref().and_then(|r| r.cells.get(at))
}

/// True if an update moves its row to another key. A before image without a key cell says it did not.
pub fn key_changed(change: &RowChange) -> bool {
    key_changed_in(change, |_| true)
}

/// As [`key_changed`], in those columns of the key.
fn key_changed_in(change: &RowChange, counts: impl Fn(&Column) -> bool) -> bool {
    let (Some(before), Some(after)) = (&change.before, &change.after) else { return false };
    change.table.key.iter().any(|k| {
        let at = usize::from(*k);
        if !change.table.columns.get(at).is_some_and(&counts) {
            return false;
        }
        match (before.cells.get(at), after.cells.get(at)) {
            (Some(Cell::Value(b)), Some(Cell::Value(a))) => b != a,
            (Some(Cell::Null), Some(Cell::Value(_))) | (Some(Cell::Value(_)), Some(Cell::Null)) => true,
            _ => false,
        }
    })
}

pub(crate) mod chain;
mod default;
mod defects;
pub(crate) mod extension;
mod geometry;
mod header;
mod heartbeat;
mod hstore;
mod message;
mod names;
mod nothing;
mod notification;
pub(crate) mod outbox;
mod parts;
pub(crate) mod placed;
mod said;
mod schema;
mod source_type;
pub(crate) mod structured;
mod transaction;
pub(crate) mod value;
mod xmin;

#[cfg(test)]
mod tests;
