//! Pure. What a capture keeps of itself in `__catchwater_captures`: CHECKPOINT, CONFIG, CHUNK, TABLE and IDENTITY. Derived
//! from the log; losing it costs time, never rows. Page: `docs/formats/checkpoint.md`.

use crate::schema::{Column, KeyFrom, TableSchema, Type};
use crate::stamp::Version;
use crate::wire::{Reader, Writer};
use bytes::{BufMut, Bytes, BytesMut};
use catchwater_base::Wall;
use catchwater_record::{CaptureId, CommitSeq, Incarnation, Offset, TopicId, TopicPartition};
use std::collections::BTreeMap;

pub use crate::wire::StoredError;

/// Compacted topic of these records; all of a source are in one partition, by murmur2 of its id's 8 bytes.
pub const CAPTURES_TOPIC: &str = "__catchwater_captures";
pub const CAPTURES_PARTITIONS: u32 = 16;
/// Deepest nesting of types.
const DEPTH_MAX: u32 = 8;
const FORMAT: u8 = 1;

/// Unit number of the one record per table and snapshot that speaks of the table as a whole.
pub const WHOLE_TABLE: u32 = u32::MAX;
/// Number of the snapshot a capture begins with. Until each of its tables is whole, no state of the log is one that the
/// source had.
pub const FIRST_SNAPSHOT: u32 = 1;

/// What a record is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum StoredKey {
    Checkpoint,
    Config { version: u32 },
    Chunk { snapshot: u32, table: u32, unit: u32 },
    Table { schema_no: u32 },
    Identity,
    Signals,
}

/// Everything up to `commit_seq` is durable in every target partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    pub incarnation: Incarnation,
    pub commit_seq: CommitSeq,
    /// Where the source is resumed; the connector's full token.
    pub native: Bytes,
    pub config_version: u32,
    pub emit_version: u32,
    pub commit_time: Wall,
    /// End of each target partition that has rows.
    pub ends: Vec<(TopicPartition, Offset)>,
}

/// Under which settings records were made from `valid_from` on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    pub incarnation: Incarnation,
    pub valid_from: CommitSeq,
    pub emit_version: u32,
    pub revision: u64,
    pub pipeline: String,
    /// The source's block, canonical JSON; secrets as references.
    pub source: String,
    pub topics: Vec<(TopicId, u32)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ChunkPhase {
    Planned = 0,
    /// Its commit_seq is taken; rows may be in the log.
    Open = 1,
    Finished = 2,
    /// Its commit_seq stays a hole.
    GivenUp = 3,
}

/// A unit of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChunkRecord {
    pub phase: ChunkPhase,
    /// 0 exported, 1 chunked.
    pub method: u8,
    /// Bits of [`chunk_flag`].
    pub flags: u8,
    pub incarnation: Incarnation,
    /// 0 while planned. Of a whole table that is finished: the log up to here holds all of it.
    pub commit_seq: CommitSeq,
    pub schema_no: u32,
    pub rows: u64,
    pub lower: Vec<String>,
    pub upper: Vec<String>,
    pub view: Bytes,
    pub filter: String,
}

pub mod chunk_flag {
    pub const LAST_OF_TABLE: u8 = 1 << 0;
    /// The table was begun again.
    pub const AGAIN: u8 = 1 << 1;
    /// Of a whole table: asked for while the source runs. `lower` = the key up to which it has come, `upper` = one text,
    /// what was asked for; `commit_seq` = the transaction that asked for it, 0 = none did.
    pub const AD_HOC: u8 = 1 << 2;
    /// It waits for `resume-snapshot`.
    pub const PAUSED: u8 = 1 << 3;
}

/// A table's shape and where in the stream it begins to hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableRecord {
    pub schema: TableSchema,
    /// First place it describes.
    pub from: Version,
    /// Bits of [`table_flag`].
    pub flags: u16,
}

pub mod table_flag {
    /// The catalogue was read after rows of that shape were written.
    pub const AS_OF_LATER: u16 = 1 << 0;
    pub const INFERRED: u16 = 1 << 1;
    pub const DROPPED: u16 = 1 << 2;
    pub const LABELS_LEFT_OUT: u16 = 1 << 3;
    /// The first record of a table that came to a source which had begun: its rows are to be read beside the stream. Until a
    /// CHUNK record of the whole table says so, nobody has asked for it.
    pub const LATE: u16 = 1 << 4;
}

/// Who the server is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdentityRecord {
    pub incarnation: Incarnation,
    /// First byte of its natives.
    pub system: u8,
    /// Unknown tags are kept.
    pub tags: BTreeMap<u8, Bytes>,
}

/// Up to where the signal topic was taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignalsRecord {
    pub incarnation: Incarnation,
    pub next: Vec<(TopicPartition, Offset)>,
}

/// Any record of the topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stored {
    Checkpoint(Checkpoint),
    Config(Config),
    Chunk(ChunkRecord),
    Table(TableRecord),
    Identity(IdentityRecord),
    Signals(SignalsRecord),
}

impl StoredKey {
    const fn kind(self) -> u8 {
        match self {
            StoredKey::Checkpoint => 1,
            StoredKey::Config { .. } => 2,
            StoredKey::Chunk { .. } => 3,
            StoredKey::Table { .. } => 4,
            StoredKey::Signals => 6,
            StoredKey::Identity => 5,
        }
    }

    pub fn encode(self, source: CaptureId) -> Bytes {
        let mut out = BytesMut::with_capacity(21);
        out.put_u64(source.0);
        out.put_u8(self.kind());
        match self {
            StoredKey::Checkpoint | StoredKey::Identity | StoredKey::Signals => {}
            StoredKey::Config { version: n } | StoredKey::Table { schema_no: n } => out.put_u32(n),
            StoredKey::Chunk { snapshot, table, unit } => {
                out.put_u32(snapshot);
                out.put_u32(table);
                out.put_u32(unit);
            }
        }
        out.freeze()
    }

    pub fn decode(bytes: &[u8]) -> Result<(CaptureId, StoredKey), StoredError> {
        let mut r = Reader(bytes);
        let source = CaptureId(r.u64()?);
        let key = match r.u8()? {
            1 => StoredKey::Checkpoint,
            2 => StoredKey::Config { version: r.u32()? },
            3 => StoredKey::Chunk { snapshot: r.u32()?, table: r.u32()?, unit: r.u32()? },
            4 => StoredKey::Table { schema_no: r.u32()? },
            5 => StoredKey::Identity,
            6 => StoredKey::Signals,
            other => return Err(StoredError::Kind(other)),
        };
        r.end()?;
        Ok((source, key))
    }
}

impl Stored {
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.0.put_u8(FORMAT);
        match self {
            Stored::Checkpoint(c) => {
                w.0.put_u16(c.incarnation.0);
                w.0.put_u64(c.commit_seq.0);
                w.bytes(&c.native);
                w.0.put_u32(c.config_version);
                w.0.put_u32(c.emit_version);
                w.0.put_i64(c.commit_time.as_micros());
                w.ends(&c.ends);
            }
            Stored::Config(c) => {
                w.0.put_u16(c.incarnation.0);
                w.0.put_u64(c.valid_from.0);
                w.0.put_u32(c.emit_version);
                w.0.put_u64(c.revision);
                w.text(&c.pipeline);
                w.text(&c.source);
                w.count(c.topics.len());
                for (id, partitions) in &c.topics {
                    w.0.put_slice(&id.0);
                    w.0.put_u32(*partitions);
                }
            }
            Stored::Chunk(c) => {
                w.0.put_slice(&[c.phase as u8, c.method, c.flags]);
                w.0.put_u16(c.incarnation.0);
                w.0.put_u64(c.commit_seq.0);
                w.0.put_u32(c.schema_no);
                w.0.put_u64(c.rows);
                w.texts(&c.lower);
                w.texts(&c.upper);
                w.bytes(&c.view);
                w.text(&c.filter);
            }
            Stored::Table(t) => put_table(&mut w, t),
            Stored::Identity(i) => {
                w.0.put_u16(i.incarnation.0);
                w.0.put_u8(i.system);
                w.count(i.tags.len());
                for (tag, value) in &i.tags {
                    w.0.put_u8(*tag);
                    w.bytes(value);
                }
            }
            Stored::Signals(s) => {
                w.0.put_u16(s.incarnation.0);
                w.ends(&s.next);
            }
        }
        w.0.freeze()
    }

    pub fn decode(key: StoredKey, bytes: &[u8]) -> Result<Stored, StoredError> {
        let mut r = Reader(bytes);
        match r.u8()? {
            FORMAT => {}
            other => return Err(StoredError::Format(other)),
        }
        let stored = match key {
            StoredKey::Checkpoint => Stored::Checkpoint(Checkpoint {
                incarnation: Incarnation(r.u16()?),
                commit_seq: CommitSeq(r.u64()?),
                native: r.bytes()?,
                config_version: r.u32()?,
                emit_version: r.u32()?,
                commit_time: Wall::from_micros(r.i64()?),
                ends: r.ends()?,
            }),
            StoredKey::Config { .. } => Stored::Config(Config {
                incarnation: Incarnation(r.u16()?),
                valid_from: CommitSeq(r.u64()?),
                emit_version: r.u32()?,
                revision: r.u64()?,
                pipeline: r.text()?,
                source: r.text()?,
                topics: r.many(20, |r| Ok((TopicId(r.array()?), r.u32()?)))?,
            }),
            StoredKey::Chunk { .. } => Stored::Chunk(ChunkRecord {
                phase: match r.u8()? {
                    0 => ChunkPhase::Planned,
                    1 => ChunkPhase::Open,
                    2 => ChunkPhase::Finished,
                    3 => ChunkPhase::GivenUp,
                    got => return Err(StoredError::Illegal { what: "chunk state", got: got.into() }),
                },
                method: r.u8()?,
                flags: r.u8()?,
                incarnation: Incarnation(r.u16()?),
                commit_seq: CommitSeq(r.u64()?),
                schema_no: r.u32()?,
                rows: r.u64()?,
                lower: r.many(4, Reader::text)?,
                upper: r.many(4, Reader::text)?,
                view: r.bytes()?,
                filter: r.text()?,
            }),
            StoredKey::Table { schema_no } => Stored::Table(take_table(&mut r, schema_no)?),
            StoredKey::Identity => Stored::Identity(IdentityRecord {
                incarnation: Incarnation(r.u16()?),
                system: r.u8()?,
                tags: r.many(5, |r| Ok((r.u8()?, r.bytes()?)))?.into_iter().collect(),
            }),
            StoredKey::Signals => {
                Stored::Signals(SignalsRecord { incarnation: Incarnation(r.u16()?), next: r.ends()? })
            }
        };
        r.end()?;
        Ok(stored)
    }
}

fn put_table(w: &mut Writer, t: &TableRecord) {
    let s = &t.schema;
    w.0.put_u32(s.table_no);
    w.0.put_slice(&t.from.to_bytes());
    w.0.put_u16(t.flags);
    w.0.put_slice(&s.fingerprint);
    w.0.put_u64(s.native_id);
    w.0.put_u8(s.identity);
    w.0.put_u8(s.key_from as u8);
    w.text(&s.database);
    w.text(&s.schema);
    w.text(&s.name);
    w.text(&s.comment);
    w.0.put_slice(&s.topic.0);
    w.count(s.columns.len());
    for c in &s.columns {
        put_column(w, c);
    }
    w.indexes(&s.key);
    w.count(s.unique.len());
    for (name, columns) in &s.unique {
        w.text(name);
        w.indexes(columns);
    }
}

fn take_table(r: &mut Reader<'_>, schema_no: u32) -> Result<TableRecord, StoredError> {
    let table_no = r.u32()?;
    let incarnation = Incarnation(r.u16()?);
    let from = Version { incarnation, commit_seq: CommitSeq(r.u64()?), ordinal: r.u48()? };
    let flags = r.u16()?;
    let schema = TableSchema {
        schema_no,
        table_no,
        fingerprint: r.array()?,
        native_id: r.u64()?,
        identity: r.u8()?,
        key_from: match r.u8()? {
            0 => KeyFrom::None,
            1 => KeyFrom::PrimaryKey,
            2 => KeyFrom::IdentityIndex,
            3 => KeyFrom::MessageKeyColumns,
            got => return Err(StoredError::Illegal { what: "key_from", got: got.into() }),
        },
        database: r.text()?,
        schema: r.text()?,
        name: r.text()?,
        comment: r.text()?,
        topic: TopicId(r.array()?),
        columns: r.many(39, take_column)?,
        key: r.many(2, Reader::u16)?,
        unique: r.many(8, |r| Ok((r.text()?, r.many(2, Reader::u16)?)))?,
    };
    Ok(TableRecord { schema, from, flags })
}

const MAY_BE_NULL: u16 = 1 << 0;
const NULL_UNKNOWN: u16 = 1 << 1;
const GENERATED: u16 = 1 << 2;
const IDENTITY: u16 = 1 << 3;
const HAS_DEFAULT: u16 = 1 << 6;
/// A text follows the comment; older builds refuse what is behind a column that they know.
const HAS_MISSING: u16 = 1 << 7;

fn put_column(w: &mut Writer, c: &Column) {
    let mut flags = match c.nullable {
        Some(true) => MAY_BE_NULL,
        Some(false) => 0,
        None => NULL_UNKNOWN,
    };
    for (set, bit) in [
        (c.generated, GENERATED),
        (c.identity, IDENTITY),
        (!c.default.is_empty(), HAS_DEFAULT),
        (c.missing.is_some(), HAS_MISSING),
    ] {
        if set {
            flags |= bit;
        }
    }
    w.0.put_u32(c.id);
    w.0.put_u16(flags);
    w.text(&c.name);
    w.text(&c.native_type);
    w.0.put_u32(c.native_id);
    w.0.put_i32(c.modifier);
    put_type(w, &c.kind);
    w.text(&c.default);
    w.text(&c.domain);
    w.text("");
    w.text(&c.comment);
    if let Some(missing) = &c.missing {
        w.text(missing);
    }
}

fn take_column(r: &mut Reader<'_>) -> Result<Column, StoredError> {
    let (id, flags) = (r.u32()?, r.u16()?);
    let mut column = Column {
        id,
        name: r.text()?,
        native_type: r.text()?,
        domain: String::new(),
        native_id: r.u32()?,
        modifier: r.i32()?,
        kind: take_type(r, 0)?,
        nullable: if flags & NULL_UNKNOWN != 0 { None } else { Some(flags & MAY_BE_NULL != 0) },
        generated: flags & GENERATED != 0,
        identity: flags & IDENTITY != 0,
        default: r.text()?,
        comment: String::new(),
        missing: None,
    };
    column.domain = r.text()?;
    // Character set: MySQL's, not used yet.
    let _charset = r.text()?;
    column.comment = r.text()?;
    if flags & HAS_MISSING != 0 {
        column.missing = Some(r.text()?);
    }
    Ok(column)
}

fn put_type(w: &mut Writer, kind: &Type) {
    let none: &[String] = &[];
    let (tag, a, b, labels, part): (u8, u32, i32, &[String], Option<&Type>) = match kind {
        Type::Bool => (1, 0, 0, none, None),
        Type::Int { bits, unsigned } => (2, *bits, i32::from(*unsigned), none, None),
        Type::Float { bits } => (3, *bits, 0, none, None),
        Type::Decimal { precision, scale } => (4, *precision, *scale, none, None),
        Type::Text { length } => (5, *length, 0, none, None),
        Type::Bytes => (6, 0, 0, none, None),
        Type::Date => (7, 0, 0, none, None),
        Type::Time { digits, zone } => (8, *digits, i32::from(*zone), none, None),
        Type::Timestamp { digits } => (9, *digits, 0, none, None),
        Type::Instant { digits } => (10, *digits, 0, none, None),
        Type::Interval => (11, 0, 0, none, None),
        Type::Uuid => (12, 0, 0, none, None),
        Type::Json { binary } => (13, 0, i32::from(*binary), none, None),
        Type::Enum { labels } => (14, 0, 0, labels, None),
        Type::Array { element } => (16, 0, 0, none, Some(element)),
        Type::Bits { length, varying } => (19, *length, i32::from(*varying), none, None),
        Type::Xml => (23, 0, 0, none, None),
        Type::Other => (255, 0, 0, none, None),
    };
    w.0.put_u8(tag);
    w.0.put_u32(a);
    w.0.put_i32(b);
    w.texts(labels);
    w.count(usize::from(part.is_some()));
    if let Some(part) = part {
        w.text("");
        put_type(w, part);
    }
}

fn take_type(r: &mut Reader<'_>, depth: u32) -> Result<Type, StoredError> {
    if depth >= DEPTH_MAX {
        return Err(StoredError::Depth);
    }
    let (tag, a, b) = (r.u8()?, r.u32()?, r.i32()?);
    let labels = r.many(4, Reader::text)?;
    let mut parts = r.many(21, |r| {
        let _name = r.text()?;
        take_type(r, depth + 1)
    })?;
    Ok(match tag {
        1 => Type::Bool,
        2 => Type::Int { bits: a, unsigned: b == 1 },
        3 => Type::Float { bits: a },
        4 => Type::Decimal { precision: a, scale: b },
        5 => Type::Text { length: a },
        6 => Type::Bytes,
        7 => Type::Date,
        8 => Type::Time { digits: a, zone: b == 1 },
        9 => Type::Timestamp { digits: a },
        10 => Type::Instant { digits: a },
        11 => Type::Interval,
        12 => Type::Uuid,
        13 => Type::Json { binary: b == 1 },
        14 => Type::Enum { labels },
        16 => Type::Array { element: Box::new(parts.pop().ok_or(StoredError::Short)?) },
        19 => Type::Bits { length: a, varying: b == 1 },
        23 => Type::Xml,
        // A newer release's type carries text for us.
        _ => Type::Other,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn column(name: &str, kind: Type) -> Column {
        Column {
            id: 2,
            name: name.into(),
            native_type: "numeric(12,2)".into(),
            domain: String::new(),
            native_id: 1700,
            modifier: 786_438,
            kind,
            nullable: Some(true),
            generated: false,
            identity: true,
            default: "1".into(),
            missing: None,
            comment: "c".into(),
        }
    }

    fn samples() -> Vec<(StoredKey, Stored, &'static str)> {
        let tp = TopicPartition::new(TopicId([0xaa; 16]), 1);
        let table = TableSchema {
            schema_no: 4,
            table_no: 3,
            native_id: 16_384,
            database: "db".into(),
            schema: "s".into(),
            name: "t".into(),
            comment: String::new(),
            identity: b'd',
            key_from: KeyFrom::PrimaryKey,
            columns: vec![column("a", Type::Array { element: Box::new(Type::Decimal { precision: 12, scale: 2 }) })],
            key: vec![0],
            unique: vec![("u".into(), vec![0])],
            fingerprint: [7; 16],
            topic: TopicId([0xbb; 16]),
        };
        let from = Version { incarnation: Incarnation(1), commit_seq: CommitSeq(2), ordinal: 3 };
        vec![
            (
                StoredKey::Checkpoint,
                Stored::Checkpoint(Checkpoint {
                    incarnation: Incarnation(1),
                    commit_seq: CommitSeq(0x0203),
                    native: Bytes::from_static(&[1, 9]),
                    config_version: 4,
                    emit_version: 1,
                    commit_time: Wall::from_micros(5),
                    ends: vec![(tp, Offset(6))],
                }),
                "01 0001 0000000000000203 00000002 0109 00000004 00000001 0000000000000005 \
                 00000001 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 00000001 0000000000000006",
            ),
            (
                StoredKey::Config { version: 2 },
                Stored::Config(Config {
                    incarnation: Incarnation(1),
                    valid_from: CommitSeq(9),
                    emit_version: 1,
                    revision: 8,
                    pipeline: "p".into(),
                    source: "{}".into(),
                    topics: vec![(TopicId([0xaa; 16]), 3)],
                }),
                "01 0001 0000000000000009 00000001 0000000000000008 00000001 70 00000002 7b7d \
                 00000001 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 00000003",
            ),
            (
                StoredKey::Chunk { snapshot: 1, table: 2, unit: 3 },
                Stored::Chunk(ChunkRecord {
                    phase: ChunkPhase::Open,
                    method: 1,
                    flags: chunk_flag::LAST_OF_TABLE,
                    incarnation: Incarnation(1),
                    commit_seq: CommitSeq(7),
                    schema_no: 4,
                    rows: 10,
                    lower: vec!["5".into()],
                    upper: vec![],
                    view: Bytes::from_static(&[0xfe]),
                    filter: String::new(),
                }),
                "01 01 01 01 0001 0000000000000007 00000004 000000000000000a 00000001 00000001 35 00000000 \
                 00000001 fe 00000000",
            ),
            (
                StoredKey::Table { schema_no: 4 },
                Stored::Table(TableRecord { schema: table, from, flags: table_flag::AS_OF_LATER }),
                "01 00000003 0001 0000000000000002 000000000003 0001 07070707070707070707070707070707 \
                 0000000000004000 64 01 00000002 6462 00000001 73 00000001 74 00000000 \
                 bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb 00000001 00000002 0049 00000001 61 \
                 0000000d 6e756d657269632831322c3229 000006a4 000c0006 \
                 10 00000000 00000000 00000000 00000001 00000000 04 0000000c 00000002 00000000 00000000 \
                 00000001 31 00000000 00000000 00000001 63 00000001 0000 00000001 00000001 75 00000001 0000",
            ),
            (
                StoredKey::Identity,
                Stored::Identity(IdentityRecord {
                    incarnation: Incarnation(1),
                    system: 1,
                    tags: [(1, Bytes::from_static(&[0, 1])), (99, Bytes::new())].into(),
                }),
                "01 0001 01 00000002 01 00000002 0001 63 00000000",
            ),
            (
                StoredKey::Signals,
                Stored::Signals(SignalsRecord {
                    incarnation: Incarnation(1),
                    next: vec![(TopicPartition::new(TopicId([0xaa; 16]), 0), Offset(5))],
                }),
                "01 0001 00000001 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 00000000 0000000000000005",
            ),
        ]
    }

    /// Blanks in the page are for reading.
    fn in_page(hex: &str) -> bool {
        include_str!("../../docs/formats/checkpoint.md").replace(' ', "").contains(&format!("`{hex}`"))
    }

    #[test]
    fn golden_bytes_and_every_prefix_refused() {
        for (key, stored, want) in samples() {
            let bytes = stored.encode();
            assert_eq!(hex(&bytes), want.replace([' ', '\n'], ""), "{key:?}");
            assert!(in_page(&hex(&bytes)), "{key:?}: the page has other golden bytes");
            assert_eq!(Stored::decode(key, &bytes), Ok(stored));
            for n in 0..bytes.len() {
                assert!(Stored::decode(key, &bytes[..n]).is_err(), "{key:?} prefix {n}");
            }
            let mut longer = bytes.to_vec();
            longer.push(0);
            assert_eq!(Stored::decode(key, &longer), Err(StoredError::LeftOver(1)));
            longer[0] = 9;
            assert_eq!(Stored::decode(key, &longer), Err(StoredError::Format(9)));
        }
    }

    #[test]
    fn golden_keys() {
        for (key, want) in [
            (StoredKey::Checkpoint, "0000000000000009 01"),
            (StoredKey::Config { version: 2 }, "0000000000000009 02 00000002"),
            (StoredKey::Chunk { snapshot: 1, table: 2, unit: 3 }, "0000000000000009 03 00000001 00000002 00000003"),
            (StoredKey::Table { schema_no: 4 }, "0000000000000009 04 00000004"),
            (StoredKey::Identity, "0000000000000009 05"),
            (StoredKey::Signals, "0000000000000009 06"),
        ] {
            let bytes = key.encode(CaptureId(9));
            assert_eq!(hex(&bytes), want.replace(' ', ""));
            assert!(in_page(&hex(&bytes)), "{key:?}: the page has other golden bytes");
            assert_eq!(StoredKey::decode(&bytes), Ok((CaptureId(9), key)));
        }
        assert_eq!(StoredKey::decode(&[0, 0, 0, 0, 0, 0, 0, 9, 77]), Err(StoredError::Kind(77)));
    }

    #[test]
    fn hostile_counts_are_refused() {
        let mut bytes = vec![1, 0, 1, 1];
        bytes.extend_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(Stored::decode(StoredKey::Identity, &bytes), Err(StoredError::Short));
    }
}
