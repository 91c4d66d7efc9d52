//! Which shape of each table the target has taken on. It stands in the sink's position and commits with the rows, so a
//! restored target brings its own: that is how a column which somebody took away from the target is told from one that
//! is new at the source. The first is never made again with NULLs in it; the second is.
//!
//! Not noted, because the log says it: tables of their first shape, all columns, mode `upsert`.

use super::{Session, Worker};
use crate::columns::Columns;
use crate::mode::Mode;
use crate::sink::{DdlStep, Refilled, ShapeTaken};
use catchwater_base::hash::xxh3_64;
use catchwater_change::schema::UNKNOWN_ID;
use catchwater_change::{Column, TableSchema};
use catchwater_record::TopicId;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Worker {
    /// Notes for the mark of a commit: the newest shape that is planned of each table, or what was noted before.
    pub(super) fn shapes(&self, session: &Session<'_>) -> BTreeMap<TopicId, ShapeTaken> {
        let mut noted: BTreeMap<TopicId, ShapeTaken> = BTreeMap::new();
        let before = session.commit.durable().into_iter().flat_map(|m| m.shapes_taken());
        noted.extend(before.filter(|(topic, _)| self.book.takes(*topic) == Some(true)));
        let mut newest: BTreeMap<TopicId, &Arc<TableSchema>> = BTreeMap::new();
        for schema in self.plans.keys().filter_map(|no| self.book.schemas.get(no)) {
            // Numbers ascend.
            newest.insert(schema.topic, schema);
        }
        for (topic, schema) in newest {
            let shape = ShapeTaken { schema_no: schema.schema_no, choice: self.choice(schema) };
            if shape.choice == 0 && Some(shape.schema_no) == self.book.first_shape(topic) {
                noted.remove(&topic);
            } else {
                noted.insert(topic, shape);
            }
        }
        noted
    }

    /// Of the columns that these steps would add to the target of `schema` (as it is shaped for the target): those that
    /// rows were delivered with. Empty in a rebuild, which fills them.
    pub(super) fn columns_gone<'a>(
        &self,
        session: &Session<'_>,
        schema: &TableSchema,
        steps: &'a [DdlStep],
    ) -> Vec<&'a str> {
        let added = steps.iter().filter_map(|s| match s {
            DdlStep::AddColumns { columns, .. } => Some(columns),
            _ => None,
        });
        let added: Vec<&str> = added.flatten().map(|c| c.name.as_str()).collect();
        if added.is_empty() || self.rebuild.is_some() {
            return Vec::new();
        }
        let Some(had) = self.had(session, schema) else { return Vec::new() };
        let was = |name: &str| had.columns.iter().any(|c| c.name == name && !c.generated);
        added.into_iter().filter(|name| was(name)).collect()
    }

    /// What old rows have in a column is true of the target's rows only if they are all older than it: the last row that was
    /// delivered had no such column, or none was yet, as in a rebuild. A row of `append` is what it was when it came.
    pub(super) fn forget_missing(&self, session: &Session<'_>, schema: &TableSchema, steps: &mut [DdlStep]) {
        let had = self.had(session, schema);
        let is_first = !session.commit.durable().is_some_and(|m| m.has_rows_of(schema.topic));
        for step in steps {
            let DdlStep::AddColumns { columns, .. } = step else { continue };
            for column in columns {
                let is_new = had.as_ref().is_some_and(|h| h.columns.iter().all(|c| c.name != column.name));
                if self.config.mode == Mode::Append || !(is_new || is_first || self.rebuild.is_some()) {
                    column.missing = None;
                }
            }
        }
    }

    /// A table that is made in its newest shape gets the rows of older ones, too. A column that one of those lacks has in them what
    /// it has in the source's old rows, or NULL. `before`: older shapes as they are for the target.
    pub(super) fn leave_room(&self, before: &[Arc<TableSchema>], steps: &mut [DdlStep]) {
        for step in steps {
            let DdlStep::CreateTable { like, types, .. } = step else { continue };
            let mut made = TableSchema::clone(like);
            for (at, column) in made.columns.iter_mut().enumerate() {
                let is_it = |c: &Column| c.name == column.name || c.id == column.id && c.id & UNKNOWN_ID == 0;
                let is_lacked = before.iter().any(|s| !s.columns.iter().any(is_it));
                if is_lacked && !like.is_key(at) {
                    column.nullable = Some(true);
                }
                if !is_lacked || self.config.mode == Mode::Append || types.contains_key(&column.name) {
                    column.missing = None;
                }
            }
            *like = Arc::new(made);
        }
    }

    /// Columns of the target that hold what another column of the source had: it was dropped, and one was made under its name;
    /// or one was renamed. `shaped`: a shape as it is for the target.
    pub(super) fn refilled(
        &self,
        session: &Session<'_>,
        schema: &TableSchema,
        shaped: &TableSchema,
        as_target: impl Fn(&Arc<TableSchema>) -> Option<Arc<TableSchema>>,
    ) -> Vec<Refilled> {
        let current = matches!(self.config.mode, Mode::Upsert | Mode::SoftDelete) && self.rebuild.is_none();
        let mark = session.commit.durable().filter(|m| current && m.has_rows_of(schema.topic));
        let Some(mark) = mark else { return Vec::new() };
        let taken = mark.shape_taken(schema.topic).map(|t| t.schema_no).or(self.book.first_shape(schema.topic));
        let Some(had) = taken.filter(|no| *no < schema.schema_no) else { return Vec::new() };
        // Rows that wait are of shapes that the target takes on with them.
        let waits = self.plans.iter().filter(|(no, p)| **no < schema.schema_no && p.source.topic == schema.topic);
        let had = waits.map(|(no, _)| *no).max().map_or(had, |no| had.max(no));
        let before: Vec<Arc<TableSchema>> =
            self.book.shapes_of(schema).filter(|s| s.schema_no <= had).filter_map(as_target).collect();
        let mut out = Vec::new();
        // One without a number was dropped before anybody looked: that it is another one than before, nobody says.
        for column in shaped.columns.iter().filter(|c| !c.generated && c.id & UNKNOWN_ID == 0) {
            let is_live = |c: &&Column| !c.generated;
            let by_name = before.iter().find_map(|s| s.column(&column.name).map(|(_, c)| c).filter(is_live));
            let by_number = before.iter().find_map(|s| s.columns.iter().find(|c| c.id == column.id).filter(is_live));
            // The newest of them say what it was called last: it may have its first name again.
            if by_number.is_some_and(|c| c.name == column.name) || before.is_empty() {
                continue;
            }
            let from = by_number.filter(|c| c.kind == column.kind && c.name != column.name).map(|c| c.name.clone());
            if by_name.is_some() || from.is_some() {
                out.push(Refilled { column: column.clone(), from });
            }
        }
        out
    }

    /// The shape that the target took on of this table, by a choice that still holds; `None` = no row of it was delivered,
    /// or the choice is another one now.
    fn had(&self, session: &Session<'_>, schema: &TableSchema) -> Option<Arc<TableSchema>> {
        let mark = session.commit.durable().filter(|m| m.has_rows_of(schema.topic))?;
        let taken = match mark.shape_taken(schema.topic) {
            Some(taken) => taken,
            None => ShapeTaken { schema_no: self.book.first_shape(schema.topic)?, choice: 0 },
        };
        if taken.choice != self.choice(schema) {
            return None;
        }
        let had = self.book.schemas.get(&taken.schema_no)?;
        let columns = self.config.columns(&schema.qualified());
        let shaped = columns.shape(had, self.config.mode != Mode::Append, |_| true).ok()?;
        self.config.mode.shape(&shaped.schema).ok()
    }

    /// What of the table is delivered, as a number; 0 = all of it, in mode `upsert`.
    fn choice(&self, schema: &TableSchema) -> u32 {
        let mode = self.config.mode;
        let all = self.config.columns.is_empty() && self.config.other_columns == Columns::default();
        if all && mode == Mode::Upsert {
            return 0;
        }
        let columns = self.config.columns(&schema.qualified());
        if *columns == Columns::default() && mode == Mode::Upsert {
            return 0;
        }
        (xxh3_64(format!("{columns:?} {mode:?}").as_bytes()) as u32).max(1)
    }
}
