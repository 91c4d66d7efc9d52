//! Pure. Which tables of a source a sink takes, and how each maps to a target table.

use crate::order;
use crate::sink::{TargetName, TargetPlan, TargetTable};
use catchwater_change::{Column, TableSchema};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Which tables: all, or those named. A name is `table` or `schema.table`; `*` stands for any text.
#[derive(Clone, Debug, Default)]
pub enum TableFilter {
    #[default]
    All,
    Named(Vec<String>),
    /// Those of which it is true.
    Fits(ByTable<bool>),
}

/// A question about tables that somebody else answers.
#[derive(Clone)]
pub struct ByTable<T>(pub Arc<dyn Fn(&TableSchema) -> T + Send + Sync>);

impl<T> std::fmt::Debug for ByTable<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ByTable")
    }
}

impl TableFilter {
    pub fn takes(&self, table: &TableSchema) -> bool {
        match self {
            TableFilter::All => true,
            TableFilter::Fits(fits) => (fits.0)(table),
            TableFilter::Named(names) => names.iter().any(|n| {
                let against = if n.contains('.') { table.qualified() } else { table.name.clone() };
                matches(n.as_bytes(), against.as_bytes())
            }),
        }
    }
}

/// `*` matches any run of bytes.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=text.len()).any(|n| matches(rest, &text[n..])),
        (Some((p, rest)), Some((t, tail))) if p == t => matches(rest, tail),
        _ => false,
    }
}

/// Where the target's schema comes from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum SchemaNaming {
    /// As in the source.
    #[default]
    Keep,
    /// All tables into this one; empty for systems without schemas.
    Into(String),
}

impl SchemaNaming {
    /// `renamed`: the target table's name, if it is not the source's.
    pub fn target(&self, table: &TableSchema, renamed: Option<String>) -> TargetName {
        let schema = match self {
            SchemaNaming::Keep => table.schema.clone(),
            SchemaNaming::Into(s) => s.clone(),
        };
        TargetName { schema, name: renamed.unwrap_or_else(|| table.name.clone()) }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlanError {
    #[error("key of the target {target} is ({have}), of the source ({want})")]
    Key { target: String, have: String, want: String },
    #[error("column {column} of {table} is missing in the target")]
    Column { table: String, column: String },
    #[error("{first} and {second} would both write to {target}")]
    SameTarget { first: String, second: String, target: String },
}

/// The plan of one schema against the table as the target shows it.
pub fn plan(source: &Arc<TableSchema>, target: &TargetTable) -> Result<TargetPlan, PlanError> {
    plan_beside(source, target, None)
}

/// As [`plan`]. `newest` = the table's newest shape, if the numbers of
/// columns say more than their names: what an older one had under a name that is another column's now is left out, and a
/// column that was renamed since is written under its new name.
pub fn plan_beside(
    source: &Arc<TableSchema>,
    target: &TargetTable,
    newest: Option<&TableSchema>,
) -> Result<TargetPlan, PlanError> {
    let mut columns = Vec::new();
    let name_now = |column: &Column| match newest {
        Some(newest) => name_now(column, newest),
        None => Some(column.name.clone()),
    };
    for (i, column) in source.columns.iter().enumerate() {
        // What the target makes itself cannot be written.
        let Some(name) = name_now(column) else { continue };
        // The newest shape waits for a person.
        let is_there = target.columns.iter().any(|c| c.name == name);
        let name = if is_there { name } else { column.name.clone() };
        let made = target.columns.iter().any(|c| c.name == name && c.generated);
        if column.generated || made {
            continue;
        }
        if !target.columns.iter().any(|c| c.name == name) {
            return Err(PlanError::Column { table: source.qualified(), column: name });
        }
        columns.push((i as u16, name));
    }
    let key: Vec<u16> =
        source.key.iter().filter_map(|k| columns.iter().position(|(c, _)| c == k)).map(|place| place as u16).collect();
    let want: Vec<&str> = key.iter().map(|k| columns[usize::from(*k)].1.as_str()).collect();
    let mut have: Vec<&str> = target.key.iter().map(String::as_str).collect();
    let mut sorted = want.clone();
    have.sort_unstable();
    sorted.sort_unstable();
    // A keyless source may write into a table with any key; a keyed one needs its own key to be unique there.
    if !key.is_empty() && have != sorted {
        return Err(PlanError::Key { target: shown(&target.name), have: target.key.join(", "), want: want.join(", ") });
    }
    let meets = order::meets(source, target);
    Ok(TargetPlan { source: source.clone(), target: target.name.clone(), columns, key, meets })
}

/// What an older shape's column is called in the newest; `None` = its name is another column's.
pub(crate) fn name_now(column: &Column, newest: &TableSchema) -> Option<String> {
    let same = newest.columns.iter().find(|c| c.id == column.id);
    match newest.column(&column.name).map(|(_, c)| c) {
        Some(at) if at.id == column.id => Some(column.name.clone()),
        taken => match same.filter(|c| c.kind == column.kind && !c.generated) {
            Some(renamed) => Some(renamed.name.clone()),
            None if taken.is_some() => None,
            None => Some(column.name.clone()),
        },
    }
}

/// `schema.name`, or the name alone.
pub fn shown(name: &TargetName) -> String {
    if name.schema.is_empty() { name.name.clone() } else { format!("{}.{}", name.schema, name.name) }
}

/// Keeps two source tables from sharing one target.
#[derive(Default)]
pub struct Claimed {
    by: BTreeMap<TargetName, Holder>,
}

struct Holder {
    source: String,
    /// Rows of it have come. Without, the target is only kept ready, and a table with rows takes its place.
    rows: bool,
}

impl Claimed {
    /// For a table whose rows come.
    pub fn claim(&mut self, target: &TargetName, source: &TableSchema) -> Result<(), PlanError> {
        let name = source.qualified();
        match self.by.get_mut(target) {
            Some(first) if first.rows && first.source != name => {
                Err(PlanError::SameTarget { first: first.source.clone(), second: name, target: shown(target) })
            }
            Some(first) => {
                *first = Holder { source: name, rows: true };
                Ok(())
            }
            None => {
                self.by.insert(target.clone(), Holder { source: name, rows: true });
                Ok(())
            }
        }
    }

    /// For a table that has shown no row yet (it may be gone from the source): false if the target is another's.
    pub fn claim_unused(&mut self, target: &TargetName, source: &TableSchema) -> bool {
        let name = source.qualified();
        let first = self.by.entry(target.clone()).or_insert_with(|| Holder { source: name.clone(), rows: false });
        first.source == name
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::table;
    use catchwater_change::Type;

    #[test]
    fn filters_take_names_with_and_without_schema() {
        let t = table("public", "orders", &[("id", Type::Int { bits: 64, unsigned: false })], &["id"]);
        let named = |n: &[&str]| TableFilter::Named(n.iter().map(|s| (*s).to_owned()).collect()).takes(&t);
        assert!(TableFilter::All.takes(&t));
        for yes in ["orders", "public.orders", "public.*", "ord*", "*"] {
            assert!(named(&[yes]), "{yes}");
        }
        for no in ["order", "other.orders", "public.order", "xorders"] {
            assert!(!named(&[no]), "{no}");
        }
        assert!(!named(&[]));
    }

    #[test]
    fn generated_columns_are_left_out_and_keys_must_agree() {
        let int = Type::Int { bits: 64, unsigned: false };
        let mut source = table("", "t", &[("g", int.clone()), ("id", int.clone()), ("a", int.clone())], &["id"]);
        Arc::make_mut(&mut source).columns[0].generated = true;
        let mut target = TargetTable {
            name: TargetName { schema: String::new(), name: "t".into() },
            columns: source.columns.clone(),
            key: vec!["id".into()],
            unique: vec![],
            foreign_keys: vec![],
            opaque: false,
        };
        let p = plan(&source, &target).unwrap();
        assert_eq!(p.columns, vec![(1, "id".to_owned()), (2, "a".to_owned())]);
        assert_eq!(p.key, vec![0]);
        // The source sends it (PostgreSQL 18), the target makes its own.
        Arc::make_mut(&mut source).columns[0].generated = false;
        assert_eq!(plan(&source, &target).unwrap().columns, p.columns);
        target.key = vec!["a".into()];
        assert!(matches!(plan(&source, &target), Err(PlanError::Key { .. })));
        target.key = vec!["id".into()];
        target.columns.pop();
        assert!(matches!(plan(&source, &target), Err(PlanError::Column { .. })));
    }

    #[test]
    fn two_tables_may_not_share_a_target() {
        let mut c = Claimed::default();
        let (a, b) = (table("a", "t", &[], &[]), table("b", "t", &[], &[]));
        let to = SchemaNaming::Into("x".into());
        assert!(c.claim(&to.target(&a, None), &a).is_ok());
        assert!(c.claim(&to.target(&a, None), &a).is_ok());
        assert!(c.claim(&to.target(&b, None), &b).is_err());
        assert!(!c.claim_unused(&to.target(&b, None), &b));
        // A table without rows gives way to one that has them.
        let mut c = Claimed::default();
        assert!(c.claim_unused(&to.target(&a, None), &a));
        assert!(!c.claim_unused(&to.target(&b, None), &b));
        assert!(c.claim(&to.target(&b, None), &b).is_ok());
        assert!(c.claim(&to.target(&a, None), &a).is_err());
    }
}
