//! Pure. Rows as the texts that statements bind, one array per column.

use crate::sink::error::misuse;
use crate::sink::sql::Target;
use crate::types::write_literal;
use catchwater_change::{Cell, Row};
use catchwater_deliver::sink::{Apply, SinkError, TargetPlan, What};
use tokio_postgres::types::ToSql;

/// A text per cell; `None` = NULL.
pub(super) type Texts = Vec<Option<String>>;

/// One statement's rows, column by column.
pub(super) struct Columns {
    pub(super) arrays: Vec<Texts>,
    pub(super) rows: usize,
}

impl Columns {
    pub(super) fn new(count: usize) -> Self {
        Columns { arrays: (0..count).map(|_| Vec::new()).collect(), rows: 0 }
    }
    pub(super) fn push(&mut self, row: Texts) {
        self.rows += 1;
        for (array, text) in self.arrays.iter_mut().zip(row) {
            array.push(text);
        }
    }
    pub(super) fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.arrays.iter().map(|a| a as &(dyn ToSql + Sync)).collect()
    }
}

/// True if `second` continues `first`: a row left its key and came back under another one, not complete.
pub(super) fn moves_key(first: &Apply, second: &Apply) -> bool {
    let (What::Delete(_), What::Update(new) | What::Upsert(new)) = (&first.what, &second.what) else { return false };
    first.table.target == second.table.target
        && first.version.commit_seq == second.version.commit_seq
        && missing_mask(&second.table, new).is_some()
}

pub(super) fn cell<'a>(plan: &TargetPlan, row: &'a Row, at: u16) -> &'a Cell {
    const ABSENT: &Cell = &Cell::Absent;
    let source = plan.columns.get(usize::from(at)).map(|(c, _)| usize::from(*c));
    source.and_then(|s| row.cells.get(s)).unwrap_or(ABSENT)
}

pub(super) fn is_sent(plan: &TargetPlan, row: &Row, at: u16) -> bool {
    !matches!(cell(plan, row, at), Cell::Unavailable | Cell::Absent)
}

pub(super) fn cell_text(plan: &TargetPlan, row: &Row, at: u16) -> Option<String> {
    match cell(plan, row, at) {
        Cell::Value(value) => {
            let mut text = String::new();
            write_literal(value, &mut text);
            Some(text)
        }
        Cell::Null | Cell::Unavailable | Cell::Absent => None,
    }
}

pub(super) fn row_texts(plan: &TargetPlan, row: &Row) -> Texts {
    (0..plan.columns.len() as u16).map(|i| cell_text(plan, row, i)).collect()
}

pub(super) fn key_texts(plan: &TargetPlan, row: &Row) -> Result<Texts, SinkError> {
    let texts: Texts = plan.key.iter().map(|k| cell_text(plan, row, *k)).collect();
    if texts.iter().any(Option::is_none) || texts.is_empty() {
        return Err(misuse("a row without a complete key"));
    }
    Ok(texts)
}

pub(super) fn key_targets<'a>(plan: &TargetPlan, targets: &'a [Target]) -> Vec<&'a Target> {
    plan.key.iter().filter_map(|k| targets.get(usize::from(*k))).collect()
}

/// `None` = the row is complete; else the places (but the key's) that were sent.
pub(super) fn missing_mask(plan: &TargetPlan, row: &Row) -> Option<Vec<u16>> {
    let all = 0..plan.columns.len() as u16;
    if all.clone().all(|i| is_sent(plan, row, i)) {
        return None;
    }
    Some(all.filter(|i| is_sent(plan, row, *i) && !plan.key.contains(i)).collect())
}

/// Key, then the set columns.
pub(super) fn update_texts(plan: &TargetPlan, row: &Row, set: &[u16]) -> Result<Texts, SinkError> {
    let mut texts = key_texts(plan, row)?;
    texts.extend(set.iter().map(|i| cell_text(plan, row, *i)));
    Ok(texts)
}
