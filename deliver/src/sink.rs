//! The contract between the deliver worker and a target system.
//!
//! Clauses (cases in `conformance`): **C1** `open` returns what the target itself holds. **C2** after `open(fence f)` a
//! lane opened with an older fence fails its commit with `Fenced` and nothing of it becomes visible. **C3** only
//! `Durable` moves a position. **C4** after an unknown commit the next `open` tells the truth; writing the same group
//! again gives the same result. **C5** rows of one key are applied in order.
//! **C6** a guarded write that a row fails leaves nothing of itself, and what was written before it stands. **C7** `write` is cancel-safe: dropping it
//! and calling `abort` leaves nothing visible. **C9** `apply_ddl` is idempotent. **C10** every wait has a bound, every
//! error a class. **C11** `shutdown` ends all connections. **C12** nothing of a row appears in an error text.

use catchwater_base::Wall;
use catchwater_change::{Column, Native, Row, TableSchema, Version};
use catchwater_record::{
    CommitSeq, ErrorCode, Incarnation, Offset, PipelineName, SinkName, SourceName, TopicId, TopicPartition,
};
use catchwater_runtime::Fut;
use std::collections::BTreeMap;
use std::sync::Arc;

pub trait Sink: Send {
    /// Before anything is claimed: can the target be reached and entered? Changes nothing in a target that exists.
    fn preflight(&mut self) -> Fut<'_, Result<(), SinkError>> {
        Box::pin(async { Ok(()) })
    }
    /// Installs the fence and returns the position the target holds for the source, if any. Makes the position table
    /// when it is missing.
    fn open(&mut self, claim: Claim) -> Fut<'_, Result<Recovered, SinkError>>;
    fn capabilities(&self) -> Capabilities;
    fn describe<'a>(&'a mut self, names: &'a [TargetName]) -> Fut<'a, Result<Vec<Option<TargetTable>>, SinkError>>;
    /// A connection that writes. Up to [`Capabilities::lanes_max`] of one `open` hold transactions at the same time;
    /// their commits come one after the other, in the order of the source.
    fn lane(&mut self) -> Fut<'_, Result<Box<dyn Lane>, SinkError>>;
    fn apply_ddl<'a>(&'a mut self, step: &'a DdlStep) -> Fut<'a, Result<(), SinkError>>;
    fn shutdown(&mut self) -> Fut<'_, ()>;
    /// For a log that is thrown away: deletes exactly the position rows of this sink and cluster. Target tables stay.
    /// The sink need not be open.
    fn forget<'a>(&'a mut self, owner: &'a Owner) -> Fut<'a, Result<(), SinkError>> {
        let _ = owner;
        Box::pin(async { Ok(()) })
    }
    /// The SQL that does the same by hand.
    fn forget_sql(&self, owner: &Owner) -> String {
        let _ = owner;
        String::new()
    }
}

/// Whose position rows: every lane and source of one sink in one cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    pub pipeline: PipelineName,
    pub sink: SinkName,
    pub cluster: [u8; 16],
}

pub trait Lane: Send {
    /// Writes the rows of a group, not yet visible. A large group may come in several calls before `commit`.
    fn write<'a>(&'a mut self, group: &'a Group) -> Fut<'a, Result<(), SinkError>>;
    /// Rows, position and fence become visible as one.
    fn commit<'a>(&'a mut self, mark: &'a Mark) -> Fut<'a, Result<Ack, SinkError>>;
    fn abort(&mut self) -> Fut<'_, ()>;
}

/// Who claims the target. `fence = task_epoch << 16 | reopen`: strictly greater at each `open`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    pub pipeline: PipelineName,
    pub sink: SinkName,
    pub source: SourceName,
    pub cluster: [u8; 16],
    pub fence: i64,
    pub incarnation: Incarnation,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recovered {
    /// None = the target holds nothing of this source yet.
    pub mark: Option<Mark>,
}

/// A position of the sink: every transaction ≤ `seq` of the source is applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mark {
    pub incarnation: Incarnation,
    pub seq: CommitSeq,
    /// Next offset of each partition at `seq`.
    pub offsets: Vec<(TopicPartition, Offset)>,
    /// Native source position of `seq`.
    pub native: Native,
    pub commit_time: Wall,
}

/// Instead of a partition's number in [`Mark::offsets`]: how far the dead letters of tables without a key, in this topic,
/// are settled. A number that no partition has.
pub const LETTERS_SETTLED: u32 = u32::MAX;
/// The same: which shape of the topic's table the target has taken on. Number of the schema (high half), and a hash of the
/// sink's choice of columns and mode (low half), 0 = all columns in mode `upsert`. Only of tables with another choice, or
/// that are no longer of their first shape.
pub const SHAPE_TAKEN: u32 = u32::MAX - 1;

impl Mark {
    /// Dead letters of tables without a key below this offset of `topic` are in the target, or given up.
    pub fn letters_settled(&self, topic: TopicId) -> Option<Offset> {
        let at = TopicPartition::new(topic, LETTERS_SETTLED);
        self.offsets.iter().find(|(of, _)| *of == at).map(|(_, offset)| *offset)
    }
    /// Records of this topic were taken before it.
    pub fn has_rows_of(&self, topic: TopicId) -> bool {
        self.offsets.iter().any(|(at, next)| at.topic == topic && !is_note(*at) && *next > Offset::ZERO)
    }
    pub fn settle_letters(&mut self, topic: TopicId, below: Offset) {
        self.offsets.retain(|(at, _)| at.partition.0 != LETTERS_SETTLED);
        self.offsets.push((TopicPartition::new(topic, LETTERS_SETTLED), below));
    }
    /// The shapes that the target has taken on of topics' tables, as far as they are noted.
    pub fn shapes_taken(&self) -> impl Iterator<Item = (TopicId, ShapeTaken)> + '_ {
        let notes = self.offsets.iter().filter(|(at, _)| at.partition.0 == SHAPE_TAKEN);
        notes.map(|(at, noted)| (at.topic, ShapeTaken { schema_no: (noted.0 >> 32) as u32, choice: noted.0 as u32 }))
    }
    pub fn shape_taken(&self, topic: TopicId) -> Option<ShapeTaken> {
        self.shapes_taken().find(|(of, _)| *of == topic).map(|(_, shape)| shape)
    }
    pub fn take_shape(&mut self, topic: TopicId, shape: ShapeTaken) {
        let noted = u64::from(shape.schema_no) << 32 | u64::from(shape.choice);
        self.offsets.push((TopicPartition::new(topic, SHAPE_TAKEN), Offset(noted)));
    }
    /// Stored form of `offsets` (deliver.md 7): format byte 1, then varint (topic id 16 raw bytes, partition, next
    /// offset)…, ascending.
    pub fn encode_offsets(&self) -> Vec<u8> {
        fn varint(out: &mut Vec<u8>, mut v: u64) {
            while v >= 0x80 {
                out.push(v as u8 | 0x80);
                v >>= 7;
            }
            out.push(v as u8);
        }
        let mut sorted = self.offsets.clone();
        sorted.sort();
        let mut out = vec![1];
        for (at, offset) in sorted {
            out.extend_from_slice(&at.topic.0);
            varint(&mut out, u64::from(at.partition.0));
            varint(&mut out, offset.0);
        }
        out
    }

    pub fn decode_offsets(bytes: &[u8]) -> Option<Vec<(TopicPartition, Offset)>> {
        fn varint(rest: &mut &[u8]) -> Option<u64> {
            let mut v = 0u64;
            for shift in (0..64).step_by(7) {
                let (b, tail) = rest.split_first()?;
                *rest = tail;
                v |= u64::from(b & 0x7f) << shift;
                if b & 0x80 == 0 {
                    return Some(v);
                }
            }
            None
        }
        let (1, mut rest) = bytes.split_first().map(|(f, r)| (*f, r))? else { return None };
        let mut out = Vec::new();
        while !rest.is_empty() {
            let (id, tail) = rest.split_first_chunk::<16>()?;
            rest = tail;
            let partition = u32::try_from(varint(&mut rest)?).ok()?;
            let offset = varint(&mut rest)?;
            out.push((TopicPartition::new(catchwater_record::TopicId(*id), partition), Offset(offset)));
        }
        Some(out)
    }
}

/// A shape of a table that the target has, and by which choice of columns and mode (a hash; 0 = all, `upsert`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShapeTaken {
    pub schema_no: u32,
    pub choice: u32,
}

/// An entry of [`Mark::offsets`] that is no partition's.
pub fn is_note(at: TopicPartition) -> bool {
    at.partition.0 >= SHAPE_TAKEN
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ack {
    /// Taken, not yet durable.
    Accepted,
    Durable,
}

/// Consecutive whole source transactions, folded or not, that become one target transaction.
#[derive(Clone, Debug, Default)]
pub struct Group {
    pub first_seq: CommitSeq,
    pub last_seq: CommitSeq,
    /// In (commit_seq, ordinal) order.
    pub applies: Vec<Apply>,
    /// Apply row by row as they stand; otherwise tables may be taken one by one (columnar).
    pub source_order: bool,
    /// All rows are of a snapshot: most likely the target has none of them.
    pub fresh: bool,
    /// An error of class `Row` undoes this write alone (C6).
    pub guarded: bool,
    /// More of the same state of the source comes before the commit: a reference may point to a row of a later group.
    pub partial: bool,
    /// Of a guarded write: its rows may fit only together, so that foreign keys are looked at behind the last of them.
    pub together: bool,
}

/// One thing to do to one target table.
#[derive(Clone, Debug)]
pub struct Apply {
    pub table: Arc<TargetPlan>,
    pub what: What,
    pub version: Version,
}

#[derive(Clone, Debug)]
pub enum What {
    /// Insert or update by key. Cells in the order of the plan's source schema.
    Upsert(Row),
    /// `Unavailable` cells keep what the target has: an update of the others.
    Update(Row),
    /// Key cells are set.
    Delete(Row),
    /// Insert, unless the key is there.
    InsertNew(Row),
    /// As `Update`, but the row need not be there.
    Retire(Row),
    /// Sets the cells that were sent in every row that has NULL there.
    RetireAll(Row),
    Truncate,
    /// Every row goes, but readers see them until the commit: the beginning of a rebuild.
    Clear,
    /// Tables without a key: insert one.
    Insert(Row),
    /// Tables without a key: delete one row equal to this.
    DeleteOne(Row),
}

/// What a change does to its target table, as a word for people: one of `insert`, `upsert`, `update`, `delete`, `truncate`. A
/// row that moves to another key is an update.
pub fn operation(applies: &[Apply]) -> &'static str {
    match applies {
        [one] => match &one.what {
            What::Upsert(_) | What::InsertNew(_) => "upsert",
            What::Insert(_) => "insert",
            What::Update(_) | What::Retire(_) => "update",
            What::Delete(_) | What::DeleteOne(_) => "delete",
            What::Truncate | What::Clear | What::RetireAll(_) => "truncate",
        },
        _ => "update",
    }
}

/// How a source table maps to a target table; made once per schema.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TargetPlan {
    pub source: Arc<TableSchema>,
    pub target: TargetName,
    /// (source column index, target column name); generated and uncaptured columns are left out.
    pub columns: Vec<(u16, String)>,
    /// Indexes into `columns` that form the key, in key order; empty = keyless.
    pub key: Vec<u16>,
    /// What its rows may meet in other groups.
    pub meets: Meets,
}

/// By what rows of a table meet rows of other groups: the target's own constraints, as columns of the source's rows. A
/// seed says which key of which table.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Meets {
    /// Seed of the table, and of every row of it.
    pub table: u64,
    /// Unique keys, the primary one among them: (seed, columns in the order of their names).
    pub keys: Vec<(u64, Vec<u16>)>,
    /// Seeds of the tables that its foreign keys refer to.
    pub parent_tables: Vec<u64>,
    /// Foreign keys that are not left to the commit: (seed of the parent's key, our columns in the order of its names).
    pub parents: Vec<(u64, Vec<u16>)>,
    /// Those that are.
    pub late_parents: Vec<(u64, Vec<u16>)>,
    /// Rows cannot be told apart from here: all of them are one.
    pub whole: bool,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TargetName {
    /// Empty where the system has none.
    pub schema: String,
    pub name: String,
}

/// A table as the target shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TargetTable {
    pub name: TargetName,
    pub columns: Vec<Column>,
    /// Names of the primary key's columns, in key order.
    pub key: Vec<String>,
    /// Columns of the other unique keys.
    pub unique: Vec<Vec<String>>,
    pub foreign_keys: Vec<ForeignKey>,
    /// Triggers, rules, exclusion constraints, indexes on expressions, keys that compare coarser than by bytes: what a row
    /// of it meets is not seen in the row.
    pub opaque: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForeignKey {
    pub columns: Vec<String>,
    pub parent: TargetName,
    /// The parent's columns, one for each of `columns`; empty = its primary key.
    pub parent_columns: Vec<String>,
    /// It is checked at the commit and does nothing else: no cascade, no restriction. Commits come in order.
    pub at_commit: bool,
}

/// Types that a person gives for columns we make, by the column's name at the target; each is one by [`crate::columns::is_type`].
pub type Types = BTreeMap<String, String>;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DdlStep {
    /// With the source's columns, types mapped, primary key = the source's key. Rows that do not name a column get
    /// [`Column::missing`] in it.
    CreateTable {
        name: TargetName,
        like: Arc<TableSchema>,
        types: Types,
    },
    /// The rows that are there get [`Column::missing`] in it, and so do later ones that do not name the column.
    AddColumns {
        name: TargetName,
        columns: Vec<Column>,
        types: Types,
    },
    DropNotNull {
        name: TargetName,
        column: String,
    },
    /// In every row that is there, all at once: these columns get what others have now, or [`Column::missing`] (later rows that do
    /// not name the column, too, where the system can say so), or NULL.
    Refill {
        name: TargetName,
        columns: Vec<Refilled>,
    },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refilled {
    pub column: Column,
    pub from: Option<String>,
}

/// For people: what is done to their target.
impl std::fmt::Display for DdlStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |n: &TargetName| crate::plan::shown(n);
        match self {
            DdlStep::CreateTable { name, .. } => write!(f, "table {} is made", shown(name)),
            DdlStep::AddColumns { name, columns, .. } => {
                let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
                write!(f, "table {} gets column {}", shown(name), names.join(", "))
            }
            DdlStep::DropNotNull { name, column } => {
                write!(f, "column {column} of {} may be NULL now: the source does not have it", shown(name))
            }
            DdlStep::Refill { name, columns } => {
                let one = |r: &Refilled| match &r.from {
                    Some(from) => format!("{} has what {from} had, whose name it was", r.column.name),
                    None => format!("{} is another one now, and begins anew", r.column.name),
                };
                let all: Vec<String> = columns.iter().map(one).collect();
                write!(f, "table {}: column {}", shown(name), all.join("; column "))
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    pub atomic_position: bool,
    pub multi_table_tx: bool,
    pub truncate: bool,
    /// Transactions of one sink that may be open at the same time, one lane each.
    pub lanes_max: usize,
    pub rows_max: usize,
    pub bytes_max: usize,
}

/// Why a sink failed; the class says what the worker does (C10).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what}")]
pub struct SinkError {
    pub class: SinkClass,
    pub code: ErrorCode,
    pub what: String,
    pub next: String,
    /// Of class `Row`: another row would help.
    pub others: Option<Others>,
    /// Which apply of the group was refused, where that is known.
    pub at: Option<usize>,
}

/// What another row has to do with a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Others {
    /// One that this row refers to is not there, or one that refers to it is.
    Missing,
    /// One holds a value of this row.
    InTheWay,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SinkClass {
    /// Network, restart, disk full: back-off without end.
    Environment,
    /// Serialisation failure, deadlock: at once, then back-off.
    Conflict,
    /// A row does not fit: the policy decides (default stop).
    Row,
    /// Table or column missing: describe again.
    Schema,
    /// A person must act.
    Config,
    /// A newer owner works: end quietly.
    Fenced,
    /// The commit may or may not have happened: open again and read the position.
    UnknownOutcome,
    Bug,
}

impl SinkClass {
    /// For metrics.
    pub fn word(self) -> &'static str {
        match self {
            SinkClass::Environment => "environment",
            SinkClass::Conflict => "conflict",
            SinkClass::Row => "row",
            SinkClass::Schema => "schema",
            SinkClass::Config => "config",
            SinkClass::Fenced => "fenced",
            SinkClass::UnknownOutcome => "unknown_outcome",
            SinkClass::Bug => "bug",
        }
    }
}

impl SinkError {
    pub fn new(class: SinkClass, code: u16, what: impl Into<String>, next: impl Into<String>) -> Self {
        SinkError { class, code: ErrorCode(code), what: what.into(), next: next.into(), others: None, at: None }
    }

    /// The same, and its text names the table.
    #[must_use]
    pub fn of_table(self, table: &str) -> Self {
        if self.what.contains(table) {
            return self;
        }
        SinkError { what: format!("{table}: {}", self.what), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_settled_of_the_letters_stands_beside_the_partitions() {
        let at = TopicPartition::new(TopicId([9; 16]), 3);
        let mut mark = Mark {
            incarnation: Incarnation(0),
            seq: CommitSeq(5),
            offsets: vec![(at, Offset(300))],
            native: Native::default(),
            commit_time: Wall::from_micros(0),
        };
        assert_eq!(mark.letters_settled(TopicId([7; 16])), None);
        mark.settle_letters(TopicId([7; 16]), Offset(4));
        mark.settle_letters(TopicId([7; 16]), Offset(5));
        let read = Mark { offsets: Mark::decode_offsets(&mark.encode_offsets()).unwrap_or_default(), ..mark };
        assert_eq!((read.letters_settled(TopicId([7; 16])), read.offsets.len()), (Some(Offset(5)), 2));
        assert_eq!(read.letters_settled(TopicId([9; 16])), None, "a topic made anew begins anew");
        let shape = ShapeTaken { schema_no: u32::MAX, choice: 0x8000_0001 };
        let mut mark = read;
        mark.take_shape(TopicId([9; 16]), shape);
        mark.settle_letters(TopicId([7; 16]), Offset(6));
        let read = Mark { offsets: Mark::decode_offsets(&mark.encode_offsets()).unwrap_or_default(), ..mark };
        assert_eq!((read.shape_taken(TopicId([9; 16])), read.offsets.len()), (Some(shape), 3));
        assert_eq!((read.shape_taken(TopicId([7; 16])), read.has_rows_of(TopicId([7; 16]))), (None, false));
    }

    #[test]
    fn offsets_round_trip_and_prefixes_are_refused() {
        let mark = Mark {
            incarnation: Incarnation(0),
            seq: CommitSeq(5),
            offsets: vec![
                (TopicPartition::new(TopicId([9; 16]), 3), Offset(300)),
                (TopicPartition::new(TopicId([1; 16]), 0), Offset(0)),
            ],
            native: Native::default(),
            commit_time: Wall::from_micros(0),
        };
        let bytes = mark.encode_offsets();
        let mut want = mark.offsets.clone();
        want.sort();
        assert_eq!(Mark::decode_offsets(&bytes), Some(want));
        assert_eq!(Mark::decode_offsets(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Mark::decode_offsets(&[2]), None);
    }
}
