//! Pure. What a sink makes of a table's changes: the target equals the source (`upsert`), keeps each change as a row
//! (`append`), keeps what it got first (`insert_once`), or keeps deleted rows with the time of their end (`soft_delete`).
//!
//! A mode gives the target a shape of its own: the source's columns and those it adds. Rows are widened here, so sinks
//! know nothing of modes but the kinds of writes in `What`.

use crate::batch::{ApplyError, key_columns};
use crate::ident;
use crate::sink::{Apply, TargetPlan, What};
use catchwater_base::Wall;
use catchwater_change::{Cell, Column, Op, Row, RowChange, TableSchema, Type, Value, Version};
use std::sync::Arc;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    #[default]
    Upsert,
    /// One row per change: the row as it is after it (before it, for a delete), `_op`, `_version`, `_commit_ts`.
    Append,
    /// Rows that come are inserted unless their key is there; changes and deletes are filtered.
    InsertOnce,
    /// A delete sets `_deleted_at`; a row that comes again clears it.
    SoftDelete,
}

pub const DELETED_AT: &str = "_deleted_at";
pub const OP: &str = "_op";
pub const VERSION: &str = "_version";
pub const COMMIT_TS: &str = "_commit_ts";

/// Why a table cannot be delivered in this mode.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ModeError {
    #[error("mode {mode} needs a key, {table} has none")]
    NoKey { mode: &'static str, table: String },
    #[error("{table} has a column {column}, which the mode adds")]
    Taken { table: String, column: String },
}

fn column(name: &str, kind: Type, native_type: &str) -> Column {
    Column {
        id: 0,
        name: name.to_owned(),
        native_type: native_type.to_owned(),
        domain: String::new(),
        native_id: 0,
        modifier: -1,
        kind,
        nullable: Some(true),
        generated: false,
        identity: false,
        default: String::new(),
        missing: None,
        comment: String::new(),
    }
}

impl Mode {
    fn added(self) -> Vec<Column> {
        let instant = |name| column(name, Type::Instant { digits: 6 }, "");
        let text = |name| column(name, Type::Text { length: 0 }, "");
        match self {
            Mode::Upsert | Mode::InsertOnce => Vec::new(),
            Mode::SoftDelete => vec![instant(DELETED_AT)],
            Mode::Append => vec![text(OP), text(VERSION), instant(COMMIT_TS)],
        }
    }

    /// The shape its target has.
    pub fn shape(self, source: &Arc<TableSchema>) -> Result<Arc<TableSchema>, ModeError> {
        let added = self.added();
        if let Some(taken) = added.iter().find(|a| source.columns.iter().any(|c| c.name == a.name)) {
            return Err(ModeError::Taken { table: source.qualified(), column: taken.name.clone() });
        }
        if self == Mode::SoftDelete && source.key.is_empty() {
            return Err(ModeError::NoKey { mode: "soft_delete", table: source.qualified() });
        }
        if added.is_empty() {
            return Ok(source.clone());
        }
        let mut shape = (**source).clone();
        shape.columns.extend(added);
        if self == Mode::Append {
            // Many rows of one key, and rows of a truncate with no values at all.
            shape.key.clear();
            shape.unique.clear();
            shape.columns.iter_mut().for_each(|c| {
                c.nullable = Some(true);
                c.identity = false;
            });
        }
        Ok(Arc::new(shape))
    }

    /// What one change does to the target. `plan.source` is the shape of this mode. Empty = filtered.
    pub fn applies(self, change: RowChange, plan: &Arc<TargetPlan>, at: At) -> Result<Vec<Apply>, ApplyError> {
        match self {
            Mode::Upsert => crate::batch::applies_of(change, plan, at.version),
            Mode::InsertOnce => insert_once(change, plan, at),
            Mode::SoftDelete => soft_delete(change, plan, at),
            Mode::Append => append(change, plan, at),
        }
    }
}

/// Where a change stands in its source.
#[derive(Clone, Copy, Debug)]
pub struct At {
    pub version: Version,
    pub commit_time: Wall,
}

fn insert_once(change: RowChange, plan: &Arc<TargetPlan>, at: At) -> Result<Vec<Apply>, ApplyError> {
    if !matches!(change.op, Op::Create | Op::Read) {
        return Ok(Vec::new());
    }
    let mut applies = crate::batch::applies_of(change, plan, at.version)?;
    for apply in &mut applies {
        if let What::Upsert(row) = &mut apply.what {
            apply.what = What::InsertNew(std::mem::take(row));
        }
    }
    Ok(applies)
}

fn soft_delete(mut change: RowChange, plan: &Arc<TargetPlan>, at: At) -> Result<Vec<Apply>, ApplyError> {
    let gone = Cell::Value(Value::Instant(at.commit_time.as_micros()));
    let widen = |row: &mut Row, cell: &Cell| row.cells.push(cell.clone());
    if let Some(row) = &mut change.after {
        widen(row, &Cell::Null);
    }
    if let Some(row) = &mut change.before {
        widen(row, &Cell::Null);
    }
    let mut applies = crate::batch::applies_of(change, plan, at.version)?;
    let width = plan.source.columns.len();
    for apply in &mut applies {
        match &mut apply.what {
            What::Delete(row) => {
                let mut cells = vec![Cell::Unavailable; width];
                for k in key_columns(plan) {
                    if let (Some(to), Some(from)) = (cells.get_mut(usize::from(k)), row.cells.get(usize::from(k))) {
                        *to = from.clone();
                    }
                }
                if let Some(last) = cells.last_mut() {
                    *last = gone.clone();
                }
                apply.what = What::Retire(Row::new(cells));
            }
            What::Truncate => {
                let mut cells = vec![Cell::Unavailable; width];
                if let Some(last) = cells.last_mut() {
                    *last = gone.clone();
                }
                apply.what = What::RetireAll(Row::new(cells));
            }
            _ => {}
        }
    }
    Ok(applies)
}

fn append(change: RowChange, plan: &Arc<TargetPlan>, at: At) -> Result<Vec<Apply>, ApplyError> {
    let op = match change.op {
        Op::Create => "c",
        Op::Read => "r",
        Op::Update => "u",
        Op::Delete => "d",
        Op::Truncate => "t",
        // Sinks read the topics of tables.
        Op::Message => "m",
    };
    let table = || plan.source.qualified();
    let width = plan.source.columns.len() - 3;
    let mut row = match change.op {
        Op::Truncate => Row::new(vec![Cell::Null; width]),
        Op::Delete => change.before.ok_or_else(|| ApplyError::NoRow { table: table(), op: change.op })?,
        _ => change.after.ok_or_else(|| ApplyError::NoRow { table: table(), op: change.op })?,
    };
    // What was not sent is not known here: it stays empty in this row.
    for cell in &mut row.cells {
        if matches!(cell, Cell::Unavailable | Cell::Absent) {
            *cell = Cell::Null;
        }
    }
    row.cells.resize(width, Cell::Null);
    let text = |t: String| Cell::Value(Value::Text(t.into()));
    row.cells.push(text(op.to_owned()));
    row.cells.push(text(at.version.to_string()));
    row.cells.push(Cell::Value(Value::Instant(at.commit_time.as_micros())));
    debug_assert!(ident::is_complete(&row, plan.columns.iter().map(|(c, _)| *c)));
    Ok(vec![Apply { table: plan.clone(), what: What::Insert(row), version: at.version }])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::sink::TargetName;
    use crate::testing::table;
    use catchwater_change::{SnapshotMark, SourceInfo};
    use catchwater_record::{CommitSeq, Incarnation};

    const INT: Type = Type::Int { bits: 64, unsigned: false };

    fn source(key: &[&str]) -> Arc<TableSchema> {
        table("", "t", &[("id", INT), ("a", INT)], key)
    }
    fn plan(mode: Mode, key: &[&str]) -> Arc<TargetPlan> {
        let shape = mode.shape(&source(key)).unwrap();
        let columns = shape.columns.iter().enumerate().map(|(i, c)| (i as u16, c.name.clone())).collect();
        let target = TargetName { schema: String::new(), name: "t".into() };
        Arc::new(TargetPlan { key: shape.key.clone(), columns, target, source: shape, meets: Default::default() })
    }
    fn row(cells: &[i64]) -> Option<Row> {
        (!cells.is_empty()).then(|| Row::new(cells.iter().map(|v| Cell::Value(Value::Int(*v))).collect()))
    }
    fn shown(mode: Mode, op: Op, before: &[i64], after: &[i64]) -> String {
        let change = RowChange {
            table: source(&["id"]),
            op,
            before: row(before),
            after: row(after),
            snapshot: SnapshotMark::No,
            info: SourceInfo::None,
        };
        let version = Version { incarnation: Incarnation(1), commit_seq: CommitSeq(2), ordinal: 3 };
        let at = At { version, commit_time: Wall::from_micros(5) };
        let applies = mode.applies(change, &plan(mode, &["id"]), at).unwrap();
        let cell = |c: &Cell| match c {
            Cell::Value(Value::Int(i)) => i.to_string(),
            Cell::Value(Value::Instant(i)) => format!("@{i}"),
            Cell::Value(Value::Text(t)) => format!("{t}"),
            Cell::Null => "NULL".into(),
            _ => "-".into(),
        };
        let cells = |r: &Row| r.cells.iter().map(cell).collect::<Vec<_>>().join(",");
        let one = |a: &Apply| match &a.what {
            What::Upsert(r) => format!("upsert {}", cells(r)),
            What::Update(r) => format!("update {}", cells(r)),
            What::Delete(r) => format!("delete {}", cells(r)),
            What::InsertNew(r) => format!("new {}", cells(r)),
            What::Retire(r) => format!("retire {}", cells(r)),
            What::RetireAll(r) => format!("retire all {}", cells(r)),
            What::Insert(r) => format!("insert {}", cells(r)),
            What::Truncate => "truncate".into(),
            What::Clear => "clear".into(),
            What::DeleteOne(r) => format!("delete one {}", cells(r)),
        };
        applies.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    /// Mode, operation, row before and after, what it does.
    type Case<'a> = (Mode, Op, &'a [i64], &'a [i64], String);

    #[test]
    fn each_mode_says_what_a_change_does() {
        let v = "0001/0000000000000002/000000000003";
        let cases: [Case; 15] = [
            (Mode::Upsert, Op::Create, &[], &[1, 2], "upsert 1,2".into()),
            (Mode::InsertOnce, Op::Create, &[], &[1, 2], "new 1,2".into()),
            (Mode::InsertOnce, Op::Read, &[], &[1, 2], "new 1,2".into()),
            (Mode::InsertOnce, Op::Update, &[], &[1, 2], String::new()),
            (Mode::InsertOnce, Op::Delete, &[1, 2], &[], String::new()),
            (Mode::InsertOnce, Op::Truncate, &[], &[], String::new()),
            (Mode::SoftDelete, Op::Create, &[], &[1, 2], "upsert 1,2,NULL".into()),
            (Mode::SoftDelete, Op::Update, &[], &[1, 3], "upsert 1,3,NULL".into()),
            (Mode::SoftDelete, Op::Delete, &[1, 3], &[], "retire 1,-,@5".into()),
            (Mode::SoftDelete, Op::Update, &[1, 3], &[2, 3], "retire 1,-,@5; upsert 2,3,NULL".into()),
            (Mode::SoftDelete, Op::Truncate, &[], &[], "retire all -,-,@5".into()),
            (Mode::Append, Op::Create, &[], &[1, 2], format!("insert 1,2,c,{v},@5")),
            (Mode::Append, Op::Update, &[1, 2], &[1, 3], format!("insert 1,3,u,{v},@5")),
            (Mode::Append, Op::Delete, &[1, 3], &[], format!("insert 1,3,d,{v},@5")),
            (Mode::Append, Op::Truncate, &[], &[], format!("insert NULL,NULL,t,{v},@5")),
        ];
        for (mode, op, before, after, want) in cases {
            assert_eq!(shown(mode, op, before, after), want, "{mode:?} {op:?}");
        }
    }

    #[test]
    fn what_a_mode_cannot_do_has_a_name() {
        assert!(matches!(Mode::SoftDelete.shape(&source(&[])), Err(ModeError::NoKey { .. })));
        let taken = table("", "t", &[("id", INT), ("_op", INT)], &["id"]);
        assert!(matches!(Mode::Append.shape(&taken), Err(ModeError::Taken { column, .. }) if column == "_op"));
        assert!(Mode::Upsert.shape(&taken).is_ok());
        let shape = Mode::Append.shape(&source(&["id"])).unwrap();
        assert!(shape.key.is_empty() && shape.columns.iter().all(|c| c.nullable == Some(true)));
    }
}
