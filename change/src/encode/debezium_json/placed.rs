//! Pure. What a source's transforms make of the records of one topic: another topic, names of schemas, fields behind the
//! key, and rows without their envelope.
//!
//! A flat record's value is the row (`before` of a delete that is rewritten), then `__deleted`, then the fields that were
//! asked for. What the row lacks of the event is in its headers: `cw.stamp` has the operation, `cw.flat` the row before.
//! Source: Debezium 3.7 (`ExtractNewRecordState`, `ToLogicalTopicRouter`), recordings `unwrap-*`, `routed-*`.

use super::defects::Road;
use super::{
    Block, EncodeError, Encoder, Link, Outbox, Parts, Piece, Times, outbox, schema, snapshot_text, topic_name,
};
use crate::connect::described::Rest;
use crate::connect::smt::Smt;
use crate::event::{Op, RowChange, SnapshotMark, SourceInfo};
use crate::exact::ExactCell;
use crate::json;
use crate::schema::TableSchema;
use crate::stamp::Stamp;
use bytes::Bytes;
use catchwater_base::Wall;
use std::sync::{Arc, PoisonError};

/// Name of the header that a flat record has: the row before as JSON text, empty if there is none.
pub const FLAT_HEADER: &[u8] = b"cw.flat";
/// Says whether a row is deleted, in modes that rewrite deletes.
const DELETED: &str = "__deleted";

/// None = every topic stays as it is.
#[derive(Clone, Default)]
pub struct Placing(pub Option<Arc<dyn Places>>);

/// What transforms make of a topic. A function of the name that it has without them.
pub trait Places: Send + Sync {
    /// Of a table's records.
    fn table(&self, topic: &str) -> Placed;
    /// Of others; the error says which transform cannot be followed.
    fn other(&self, topic: &str) -> Result<String, String>;
    /// Of an event of the outbox table that has that topic without transforms: where its router sends it by a column's text.
    fn routed(&self, _topic: &str, by: &str) -> Result<String, String> {
        Ok(by.to_owned())
    }
    /// What is done to records of a topic that is no table's, as [`Placed::chain`].
    fn chain(&self, _topic: &str) -> Vec<Link> {
        Vec::new()
    }
    /// True if a record of any topic is taken apart.
    fn has_chains(&self) -> bool {
        false
    }
    /// True if there is a router of outbox tables.
    fn has_events(&self) -> bool {
        false
    }
}

impl std::fmt::Debug for Placing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Placing({})", if self.0.is_some() { "some" } else { "none" })
    }
}

impl PartialEq for Placing {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        }
    }
}

impl Eq for Placing {}

/// See the file head.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Placed {
    pub topic: String,
    /// Full names of the schemas, where they are others than the topic's before.
    pub key_name: Option<String>,
    pub row_name: Option<String>,
    pub envelope_name: Option<String>,
    /// Fields at the end of a key: their names and texts.
    pub key_fields: Vec<(String, String)>,
    pub flat: Option<Arc<Flat>>,
    /// The rows become events, and go where each of them says; `topic` is then what the router saw.
    pub outbox: Option<Arc<Outbox>>,
    /// What is done to each record, in this order, when it is a record of `flat` or with its envelope.
    pub chain: Vec<Link>,
    /// What adds headers before `flat`.
    pub before: Vec<Link>,
    /// `Filter`: tombstones are left out, or all that are none.
    pub drops: Drops,
    /// The same before `flat`, where a delete is no null yet.
    pub early_drops: Drops,
}

/// Records that a `Filter` leaves out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Drops {
    pub tombstones: bool,
    pub others: bool,
}

/// `delete.tombstone.handling.mode`, as far as the delete goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deletes {
    /// No record.
    Drop,
    /// A null. Debezium writes JSON's, which compaction does not see as one (with `compat.defects`).
    Null,
    Tombstone,
    /// The row before, `__deleted` = true.
    Rewrite,
}

/// `ExtractNewRecordState`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flat {
    pub deletes: Deletes,
    /// The tombstone behind a delete stays.
    pub tombstones: bool,
    pub fields: Vec<Added>,
    pub headers: Vec<Added>,
}

/// A part of the envelope that a flat record is given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Added {
    pub name: String,
    pub what: Part,
}

/// Scalars of the envelope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    Op,
    /// Of the processing.
    TsMs,
    TsUs,
    TsNs,
    TransactionId,
    TotalOrder,
    CollectionOrder,
    /// A field of `source`, by its place in [`SOURCE_FIELDS`].
    Source(usize),
}

/// Name and type of what the source block has.
pub const SOURCE_FIELDS: [(&str, &str); 16] = [
    ("version", "string"),
    ("connector", "string"),
    ("name", "string"),
    ("ts_ms", "int64"),
    ("snapshot", "string"),
    ("db", "string"),
    ("sequence", "string"),
    ("ts_us", "int64"),
    ("ts_ns", "int64"),
    ("schema", "string"),
    ("table", "string"),
    ("txId", "int64"),
    ("lsn", "int64"),
    ("xmin", "int64"),
    ("origin", "string"),
    ("origin_lsn", "int64"),
];

impl Part {
    /// `op`, `source.lsn`, `table`, `transaction.id`; `Ok(None)` = Debezium leaves it out, too.
    pub fn parse(name: &str) -> Result<Option<Part>, String> {
        let (block, field) = name.split_once('.').map_or((None, name), |(b, f)| (Some(b), f));
        let source = |f: &str| SOURCE_FIELDS.iter().position(|(n, _)| *n == f).map(Part::Source);
        let envelope = |f: &str| match f {
            "op" => Some(Part::Op),
            "ts_ms" => Some(Part::TsMs),
            "ts_us" => Some(Part::TsUs),
            "ts_ns" => Some(Part::TsNs),
            _ => None,
        };
        let transaction = |f: &str| match f {
            "id" => Some(Part::TransactionId),
            "total_order" => Some(Part::TotalOrder),
            "data_collection_order" => Some(Part::CollectionOrder),
            _ => None,
        };
        let found = match block {
            None => envelope(field).or_else(|| transaction(field)).or_else(|| source(field)),
            Some("source") => source(field).or_else(|| envelope(field)),
            Some("transaction") => transaction(field).or_else(|| envelope(field)),
            Some(other) => return Err(format!("`{name}`: {other} is none of source, transaction")),
        };
        match field {
            "before" | "after" | "source" | "transaction" if found.is_none() => {
                Err(format!("`{name}`: a whole block cannot be added, one of its fields can"))
            }
            _ => Ok(found),
        }
    }

    /// Connect's type of it.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Part::Op | Part::TransactionId => "string",
            Part::Source(at) => SOURCE_FIELDS.get(at).map_or("string", |(_, kind)| kind),
            _ => "int64",
        }
    }
}

/// A part's value.
enum Scalar {
    Null,
    Text(String),
    Number(i64),
}

impl Flat {
    /// True for a record without its envelope; others pass as they are.
    pub fn applies(op: Op) -> bool {
        op != Op::Message
    }

    /// The records that are left of those a change would become with its envelope.
    pub(super) fn pieces(&self, op: Op, all: &[Piece]) -> &'static [Piece] {
        use Piece::{NewKey, OldKey, Tombstone, Whole};
        if op == Op::Truncate {
            return &[Whole];
        }
        let has = |p: Piece| all.contains(&p);
        let deletes = self.deletes != Deletes::Drop;
        let tombstone = has(Tombstone) && self.tombstones;
        match (op == Op::Delete, has(Whole)) {
            (true, _) => match (deletes, tombstone) {
                (true, true) => &[Whole, Tombstone],
                (true, false) => &[Whole],
                (false, true) => &[Tombstone],
                (false, false) => &[],
            },
            (false, true) => &[Whole],
            (false, false) => match (has(OldKey) && deletes, tombstone, has(NewKey)) {
                (true, true, true) => &[OldKey, Tombstone, NewKey],
                (true, true, false) => &[OldKey, Tombstone],
                (true, false, true) => &[OldKey, NewKey],
                (true, false, false) => &[OldKey],
                (false, true, true) => &[Tombstone, NewKey],
                (false, true, false) => &[Tombstone],
                (false, false, true) => &[NewKey],
                (false, false, false) => &[],
            },
        }
    }

    /// True if nothing is left of a change of the source. A truncate that a capture makes itself, because it reads a table
    /// without a key again, is kept: its readers must not see the rows twice.
    fn leaves_out(&self, op: Op, all: &[Piece]) -> bool {
        op == Op::Truncate || self.pieces(op, all).is_empty()
    }

    /// What it leaves of a logical message that is decoded in front of it.
    pub fn of_message(&self) -> Rest {
        let is_bare = self.fields.is_empty() && self.headers.is_empty() && !self.deleted();
        if is_bare { Rest::Row } else { Rest::More }
    }

    fn deleted(&self) -> bool {
        self.deletes == Deletes::Rewrite
    }

    /// Fields behind the columns in the schema of a row, each with a comma before it.
    pub(super) fn put_schema(&self, out: &mut Vec<u8>) {
        let mut field = |name: &str, kind: &str, more: &str| {
            out.extend_from_slice(b",{\"type\":\"");
            out.extend_from_slice(kind.as_bytes());
            out.extend_from_slice(b"\",\"optional\":true");
            out.extend_from_slice(more.as_bytes());
            out.extend_from_slice(b",\"field\":");
            json::put_string(out, name);
            out.push(b'}');
        };
        if self.deleted() {
            field(DELETED, "string", "");
        }
        for added in &self.fields {
            let enumerated = matches!(added.what, Part::Source(at) if SOURCE_FIELDS[at].0 == "snapshot");
            field(&added.name, added.what.kind(), if enumerated { schema::SNAPSHOTS } else { "" });
        }
    }

    /// The name of a field that a column has, too.
    pub fn clash<'c>(&self, columns: impl Iterator<Item = &'c str>) -> Option<&'c str> {
        let own = |name: &&str| self.fields.iter().any(|f| f.name == *name) || self.deleted() && *name == DELETED;
        columns.into_iter().find(own)
    }
}

impl Placed {
    /// The records that a `Filter` leaves. What is a tombstone is decided by what the record is, not by its bytes.
    pub(super) fn filter(&self, change: &RowChange, left: &'static [Piece]) -> &'static [Piece] {
        use Piece::{NewKey, OldKey, Tombstone, Whole};
        // A truncate that is there is one of ours.
        let nothing = Drops::default();
        if (self.drops, self.early_drops) == (nothing, nothing) || change.op == Op::Truncate {
            return left;
        }
        let is_null = |piece: Piece| {
            let is_delete = piece == OldKey || piece == Whole && change.op == Op::Delete;
            let is_nulled = self.flat.as_ref().is_some_and(|flat| flat.deletes != Deletes::Rewrite);
            piece == Tombstone || is_delete && is_nulled
        };
        let leaves = |drops: Drops, is_null: bool| if is_null { drops.tombstones } else { drops.others };
        let stays = |piece: Piece| {
            left.contains(&piece)
                && !leaves(self.drops, is_null(piece))
                && !leaves(self.early_drops, piece == Piece::Tombstone)
        };
        match (stays(Whole), stays(OldKey), stays(Tombstone), stays(NewKey)) {
            (true, _, true, _) => &[Whole, Tombstone],
            (true, ..) => &[Whole],
            (_, true, true, true) => &[OldKey, Tombstone, NewKey],
            (_, true, true, false) => &[OldKey, Tombstone],
            (_, true, false, true) => &[OldKey, NewKey],
            (_, true, false, false) => &[OldKey],
            (_, false, true, true) => &[Tombstone, NewKey],
            (_, false, true, false) => &[Tombstone],
            (_, false, false, true) => &[NewKey],
            (_, false, false, false) => &[],
        }
    }
}

/// What the parts of an envelope are taken from.
pub(super) struct Of<'a> {
    pub change: &'a RowChange,
    pub letter: u8,
    pub stamp: &'a Stamp,
    pub processed: Wall,
    pub block: Option<Block<'a>>,
}

impl<'a> Of<'a> {
    pub fn new(
        change: &'a RowChange,
        piece: Piece,
        stamp: &'a Stamp,
        processed: Wall,
        block: Option<Block<'a>>,
    ) -> Self {
        let letter = if piece == Piece::Tombstone { b'd' } else { Encoder::letter(change, piece) };
        Of { change, letter, stamp, processed, block }
    }
}

/// Puts fields behind those of an object that is written.
pub(super) fn put_fields(out: &mut Vec<u8>, fields: &[(String, String)]) {
    for (name, text) in fields {
        out.pop();
        if out.last() != Some(&b'{') {
            out.push(b',');
        }
        json::put_string(out, name);
        out.push(b':');
        json::put_string(out, text);
        out.push(b'}');
    }
}

impl Encoder {
    /// `None` = the source has no transforms.
    pub fn placed(&self, table: &TableSchema) -> Option<Arc<Placed>> {
        let of = self.options.placing.0.as_ref()?;
        let make = || {
            let mut placed = of.table(&topic_name(&self.name, &self.options.delimiter, table));
            placed.chain.retain(|link| table.is_messages() || !matches!(link.smt, Smt::DecodeMessage { .. }));
            Arc::new(placed)
        };
        if table.schema_no == 0 {
            return Some(make());
        }
        let mut known = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        Some(known.entry(table.schema_no).or_insert_with(make).clone())
    }

    /// True if a transform leaves out every record of a change of the source; `numbered` = its table with its number.
    pub fn leaves_out(&self, change: &RowChange, numbered: &TableSchema) -> bool {
        self.options.skips_unchanged && self.is_unchanged(change) || self.is_dropped(change, numbered)
    }

    /// As [`Encoder::leaves_out`], of a change that Debezium hands to its transforms: it has counted it then.
    pub fn is_left_to_transforms(&self, change: &RowChange, numbered: &TableSchema) -> bool {
        !(self.options.skips_unchanged && self.is_unchanged(change)) && self.is_dropped(change, numbered)
    }

    fn is_dropped(&self, change: &RowChange, numbered: &TableSchema) -> bool {
        let Some(placed) = self.placed(numbered).filter(|_| Flat::applies(change.op)) else { return false };
        if placed.outbox.is_some() {
            return outbox::pieces(change.op).is_empty();
        }
        let all = self.all_pieces(change);
        let left = placed.flat.as_ref().map_or(all, |flat| flat.pieces(change.op, all));
        let drops = placed.filter(change, left).is_empty();
        drops || placed.flat.as_ref().is_some_and(|flat| flat.leaves_out(change.op, all))
    }

    /// Events of a change of which a transform leaves nothing; Debezium has counted them when its transforms come.
    pub fn left_out_events(&self, change: &RowChange) -> usize {
        if change.op == Op::Message {
            return 0;
        }
        let events = |pieces: &[Piece]| pieces.iter().filter(|p| **p != Piece::Tombstone).count();
        events(self.all_pieces(change)).saturating_sub(events(self.pieces(change)))
    }

    /// The value of a flat record, and of its header the row before.
    pub(super) fn flat(
        &self,
        mut out: Vec<u8>,
        parts: &mut Parts,
        flat: &Flat,
        of: &Of<'_>,
        piece: Piece,
        marks: &mut Vec<ExactCell>,
    ) -> Result<(Option<Vec<u8>>, Option<Bytes>), EncodeError> {
        if piece == Piece::Tombstone {
            return Ok((None, None));
        }
        if of.change.op == Op::Truncate {
            return Ok((None, Some(Bytes::new())));
        }
        let (change, table) = (of.change, &*of.change.table);
        let (before, after) = Encoder::images(change, piece)?;
        if let Some(field) = flat.clash(table.columns.iter().map(|c| c.name.as_str())) {
            return Err(EncodeError::Clash { table: table.qualified(), field: field.to_owned() });
        }
        let road = Road::of(change);
        let names = parts.of(&change.table);
        let mut header = Vec::new();
        if before.is_some() {
            self.put_row(&mut header, names, before, false, road, marks)?;
        }
        let header = Some(Bytes::from(header));
        let (with_schema, is_delete) = (self.options.value_schema, of.letter == b'd');
        match (is_delete, flat.deletes) {
            (true, Deletes::Tombstone) => return Ok((None, header)),
            (true, Deletes::Null | Deletes::Drop) if !self.options.defects => return Ok((None, header)),
            (true, Deletes::Null | Deletes::Drop) => {
                match with_schema {
                    true => out.extend_from_slice(&self.inline(table, road).flat_null),
                    false => out.extend_from_slice(b"null"),
                }
                if with_schema {
                    out.push(schema::END);
                }
                return Ok((Some(out), header));
            }
            _ => {}
        }
        if with_schema {
            out.extend_from_slice(&self.inline(table, road).flat);
        }
        match is_delete {
            // What it does not say is said of the header's row.
            true => self.put_row(&mut out, names, before, false, road, &mut Vec::new())?,
            false => self.put_row(&mut out, names, after, true, road, marks)?,
        }
        out.pop();
        let first = out.last() == Some(&b'{');
        self.put_added(&mut out, flat, of, first);
        out.push(b'}');
        if with_schema {
            out.push(schema::END);
        }
        Ok((Some(out), header))
    }

    /// Behind the last column of a flat row: `__deleted` and the fields asked for.
    pub(super) fn put_added(&self, out: &mut Vec<u8>, flat: &Flat, of: &Of<'_>, mut first: bool) {
        let mut next = |out: &mut Vec<u8>, name: &str| {
            if !first {
                out.push(b',');
            }
            first = false;
            json::put_string(out, name);
            out.push(b':');
        };
        if flat.deleted() {
            next(out, DELETED);
            json::put_string(out, if of.letter == b'd' { "true" } else { "false" });
        }
        for added in &flat.fields {
            next(out, &added.name);
            match self.part(added.what, of) {
                Scalar::Null => out.extend_from_slice(b"null"),
                Scalar::Text(text) => json::put_string(out, &text),
                Scalar::Number(n) => json::put_i64(out, n),
            }
        }
    }

    /// The headers asked for. A tombstone has those of its delete and the operation once more, as there.
    pub(super) fn added_headers(&self, flat: &Flat, of: &Of<'_>, tombstone: bool) -> Vec<(Bytes, Option<Bytes>)> {
        let header = |added: &Added| {
            let value = match self.part(added.what, of) {
                Scalar::Null => None,
                Scalar::Text(text) => Some(Bytes::from(text)),
                Scalar::Number(n) => Some(Bytes::from(n.to_string())),
            };
            (Bytes::copy_from_slice(added.name.as_bytes()), value)
        };
        let again = flat.headers.iter().filter(|h| tombstone && h.what == Part::Op);
        flat.headers.iter().chain(again).map(header).collect()
    }

    fn part(&self, what: Part, of: &Of<'_>) -> Scalar {
        let number = |v: Option<u64>| v.and_then(|v| i64::try_from(v).ok()).map_or(Scalar::Null, Scalar::Number);
        let time = |at: Wall, put: fn(&Times, &mut Vec<u8>)| {
            let mut text = Vec::new();
            put(&Times::of(at), &mut text);
            std::str::from_utf8(&text).ok().and_then(|t| t.parse().ok()).map_or(Scalar::Null, Scalar::Number)
        };
        let (table, committed) = (&of.change.table, of.stamp.commit_time);
        let block = of.block.as_ref();
        match what {
            Part::Op => Scalar::Text(char::from(of.letter).to_string()),
            Part::TsMs => time(of.processed, Times::put_millis),
            Part::TsUs => time(of.processed, Times::put_micros),
            Part::TsNs => time(of.processed, Times::put_nanos),
            Part::TransactionId => block.map_or(Scalar::Null, |b| Scalar::Text(b.id.to_owned())),
            Part::TotalOrder => number(block.map(|b| b.total_order)),
            Part::CollectionOrder => number(block.map(|b| b.collection_order)),
            Part::Source(at) => match (SOURCE_FIELDS.get(at).map_or("", |(name, _)| name), &of.change.info) {
                ("version", _) => Scalar::Text(self.version.clone()),
                ("connector", _) => Scalar::Text(self.connector.to_owned()),
                ("name", _) => Scalar::Text(self.name.clone()),
                ("ts_ms", _) => time(committed, Times::put_millis),
                ("ts_us", _) => time(committed, Times::put_micros),
                ("ts_ns", _) => time(committed, Times::put_nanos),
                // What is not set has no default here.
                ("snapshot", _) if of.change.snapshot == SnapshotMark::No && self.options.defects => Scalar::Null,
                ("snapshot", _) => Scalar::Text(snapshot_text(of.change.snapshot).to_owned()),
                ("db", _) => Scalar::Text(table.database.clone()),
                ("schema", _) => Scalar::Text(table.schema.clone()),
                ("table", _) => Scalar::Text(table.name.clone()),
                ("sequence", SourceInfo::Postgres { lsn, last_commit_lsn, .. }) => {
                    let part = |lsn: &Option<u64>| lsn.map_or("null".to_owned(), |l| format!("\"{l}\""));
                    Scalar::Text(format!("[{},{}]", part(last_commit_lsn), part(lsn)))
                }
                ("txId", SourceInfo::Postgres { txid, .. }) => number(txid.map(u64::from)),
                ("lsn", SourceInfo::Postgres { lsn, .. }) => number(*lsn),
                ("xmin", SourceInfo::Postgres { .. }) => number(self.options.xmin.of(of.change.snapshot)),
                _ => Scalar::Null,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn parts_are_found_as_debezium_finds_them() {
        let of = |name| Part::parse(name).unwrap();
        let source = |name| SOURCE_FIELDS.iter().position(|(n, _)| *n == name).map(Part::Source);
        assert_eq!(of("op"), Some(Part::Op));
        assert_eq!(of("ts_ms"), Some(Part::TsMs));
        assert_eq!(of("source.ts_ms"), source("ts_ms"));
        assert_eq!(of("table"), source("table"));
        assert_eq!(of("id"), Some(Part::TransactionId));
        assert_eq!(of("source.op"), Some(Part::Op), "what the block lacks is looked for beside it");
        assert_eq!(of("nosuch"), None, "left out, as there");
        assert!(Part::parse("after").is_err() && Part::parse("before.id").is_err());
    }

    #[test]
    fn what_is_left_of_a_change() {
        use Piece::{NewKey, OldKey, Tombstone, Whole};
        let flat = |deletes, tombstones| Flat { deletes, tombstones, fields: Vec::new(), headers: Vec::new() };
        let moved = [OldKey, Tombstone, NewKey];
        let gone = [Whole, Tombstone];
        assert_eq!(flat(Deletes::Null, false).pieces(Op::Update, &moved), [OldKey, NewKey]);
        assert_eq!(flat(Deletes::Rewrite, true).pieces(Op::Update, &moved), moved);
        assert_eq!(flat(Deletes::Drop, false).pieces(Op::Update, &moved), [NewKey]);
        assert_eq!(flat(Deletes::Drop, false).pieces(Op::Delete, &gone), []);
        assert_eq!(flat(Deletes::Rewrite, true).pieces(Op::Delete, &gone), gone);
        assert_eq!(flat(Deletes::Tombstone, false).pieces(Op::Delete, &gone), [Whole]);
        assert_eq!(flat(Deletes::Drop, false).pieces(Op::Create, &[Whole]), [Whole]);
        assert_eq!(flat(Deletes::Null, true).pieces(Op::Truncate, &[Whole]), [Whole], "of our own making");
        let left_out = |deletes, op, all| flat(deletes, false).leaves_out(op, all);
        assert!(left_out(Deletes::Null, Op::Truncate, &[Whole]) && left_out(Deletes::Drop, Op::Delete, &[Whole]));
        assert!(!left_out(Deletes::Drop, Op::Update, &moved));
    }
}
