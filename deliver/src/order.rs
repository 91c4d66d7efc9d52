//! Pure. In which order rows may be applied: inside a group, and groups against each other.
//!
//! Walk: row-change 14/17
//!
//! Inside a group a sink may take table by table, which is fast, unless the write sets say that the order of single rows
//! matters: a truncate stands between rows, a value of a secondary unique key is held by two rows of the group (one gives
//! it up, the other takes it), or a row goes away by a key whose equal values may look different. Unique values a source
//! did not send are not known here; a group that fails by one is run again in source order.
//!
//! Groups may be open in several lanes at the same time when their [`WriteSet`]s do not meet (as MySQL's replicas do it).
//! They commit in the order of the source all the same. A write set holds a hash for each value of a unique key of the
//! target, and one for each parent that a row refers to by a key that is not left to the commit; a false hit only costs
//! time. What it cannot see (values that an
//! update replaced, and the source did not send) the target's own locks and constraints catch: such a group fails or
//! waits, and is run again alone (docs/decisions/conflict-lanes.md).

use crate::batch::key_columns;
use crate::ident;
use crate::sink::{Apply, Meets, TargetName, TargetPlan, TargetTable, What};
use catchwater_base::hash::{Map, Seeded, xxh3_64};
use catchwater_change::{Row, TableSchema, Type};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Must these be applied row by row, as they stand?
pub fn needs_source_order(applies: &[Apply]) -> bool {
    // Hash of (table, unique key, value) → that of the key of the row that holds it.
    let mut holders: Map<u64, u64> = Map::with_hasher(Seeded::default());
    let mut text = Vec::new();
    // What the plan says of its rows, for runs of rows of one table.
    let mut of: Option<(&Arc<TargetPlan>, bool)> = None;
    for apply in applies {
        let row = match &apply.what {
            What::Truncate | What::Clear | What::RetireAll(_) => return true,
            What::Upsert(r) | What::Update(r) | What::Delete(r) | What::InsertNew(r) | What::Retire(r) => r,
            What::Insert(_) | What::DeleteOne(_) => continue,
        };
        let plan = &apply.table;
        let exact = match of {
            Some((known, exact)) if Arc::ptr_eq(known, plan) => exact,
            _ => key_columns(plan).all(|c| is_exact_column(&plan.source, c)),
        };
        of = Some((plan, exact));
        // Another form of the same key may be written in this group: the delete has to keep its place.
        if matches!(apply.what, What::Delete(_)) && !exact {
            return true;
        }
        let mut hash = |table: &[u8], columns: &mut dyn Iterator<Item = u16>| {
            text.clear();
            text.extend_from_slice(table);
            // NULL meets nothing in a unique key.
            ident::append(&mut text, row, columns).then(|| xxh3_64(&text))
        };
        if plan.source.unique.is_empty() {
            continue;
        }
        let Some(key) = hash(&[], &mut key_columns(plan)) else { continue };
        for (n, (_, columns)) in plan.source.unique.iter().enumerate() {
            let table = [plan.meets.table, n as u64].map(u64::to_be_bytes);
            let Some(value) = hash(table.as_flattened(), &mut columns.iter().copied()) else { continue };
            if *holders.entry(value).or_insert(key) != key {
                return true;
            }
        }
    }
    false
}

fn is_exact_column(schema: &TableSchema, column: u16) -> bool {
    schema.columns.get(usize::from(column)).is_some_and(|c| is_exact(&c.kind))
}

/// Are values of this type equal only if their identities are?
fn is_exact(kind: &Type) -> bool {
    match kind {
        Type::Bool
        | Type::Int { .. }
        | Type::Float { .. }
        | Type::Decimal { .. }
        | Type::Text { .. }
        | Type::Bytes
        | Type::Date
        | Type::Time { zone: false, .. }
        | Type::Timestamp { .. }
        | Type::Instant { .. }
        | Type::Uuid
        | Type::Enum { .. }
        | Type::Bits { .. } => true,
        Type::Array { element } => is_exact(element),
        // 24 hours are a day, and what a user's own type calls equal is not known.
        Type::Time { zone: true, .. } | Type::Interval | Type::Json { .. } | Type::Xml | Type::Other => false,
    }
}

/// How rows of `source` meet others in the target.
pub fn meets(source: &TableSchema, target: &TargetTable) -> Meets {
    let column = |name: &String| source.columns.iter().position(|c| c.name == *name && !c.generated).map(|i| i as u16);
    let mut out = Meets { table: seed(&target.name, &[]), whole: target.opaque, ..Meets::default() };
    for key in std::iter::once(&target.key).chain(&target.unique).filter(|k| !k.is_empty()) {
        let mut names = key.clone();
        names.sort();
        let columns: Option<Vec<u16>> = names.iter().map(column).collect();
        match columns {
            Some(columns) if columns.iter().all(|c| is_exact_column(source, *c)) => {
                out.keys.push((seed(&target.name, &names), columns));
            }
            // A column that the target fills by itself, or a type whose equality is not known.
            _ => out.whole = true,
        }
    }
    for key in &target.foreign_keys {
        out.parent_tables.push(seed(&key.parent, &[]));
        let mut pairs: Vec<(&String, &String)> = key.parent_columns.iter().zip(&key.columns).collect();
        pairs.sort();
        let names: Vec<String> = pairs.iter().map(|(p, _)| (*p).clone()).collect();
        let columns: Option<Vec<u16>> = pairs.iter().map(|(_, c)| column(c)).collect();
        match columns {
            Some(columns) if !columns.is_empty() => {
                let list = if key.at_commit { &mut out.late_parents } else { &mut out.parents };
                list.push((seed(&key.parent, &names), columns));
            }
            _ if key.at_commit => {}
            _ => out.whole = true,
        }
    }
    out
}

fn seed(table: &TargetName, columns: &[String]) -> u64 {
    let mut text = Vec::new();
    for part in [&table.schema, &table.name].into_iter().chain(columns) {
        text.extend_from_slice(&(part.len() as u64).to_be_bytes());
        text.extend_from_slice(part.as_bytes());
    }
    xxh3_64(&text)
}

/// The row that an apply is of; none where it is of all rows, or of one that its key does not tell.
pub(crate) fn row_of(what: &What) -> Option<&Row> {
    match what {
        What::Truncate | What::Clear | What::RetireAll(_) | What::DeleteOne(_) => None,
        What::Upsert(r)
        | What::Update(r)
        | What::Delete(r)
        | What::InsertNew(r)
        | What::Retire(r)
        | What::Insert(r) => Some(r),
    }
}

/// What a group touches. Empty = nothing.
#[derive(Clone, Debug, Default)]
pub struct WriteSet {
    /// Sorted, each once.
    writes: Vec<u64>,
    /// What it needs to stay as it is. Sorted, each once.
    needs: Vec<u64>,
}

impl WriteSet {
    pub fn of(applies: &[Apply]) -> WriteSet {
        let (mut writes, mut needs) = (Vec::with_capacity(applies.len()), Vec::new());
        let mut tables: BTreeSet<u64> = BTreeSet::new();
        let mut text = Vec::new();
        for apply in applies {
            let meets = &apply.table.meets;
            if tables.insert(meets.table) {
                needs.push(meets.table);
                needs.extend(&meets.parent_tables);
            }
            let Some(row) = row_of(&apply.what) else {
                writes.push(meets.table);
                continue;
            };
            if meets.whole {
                writes.push(meets.table);
            }
            let mut hash = |(seed, columns): &(u64, Vec<u16>)| hash(&mut text, *seed, row, columns);
            writes.extend(meets.keys.iter().filter_map(&mut hash));
            needs.extend(meets.parents.iter().filter_map(&mut hash));
        }
        for list in [&mut writes, &mut needs] {
            list.sort_unstable();
            list.dedup();
        }
        WriteSet { writes, needs }
    }

    /// One writes what the other writes or needs.
    pub fn meets(&self, other: &WriteSet) -> bool {
        have_common(&self.writes, &other.writes)
            || have_common(&self.writes, &other.needs)
            || have_common(&self.needs, &other.writes)
    }
}

/// NULL meets nothing. `text` is a buffer.
pub(crate) fn hash(text: &mut Vec<u8>, seed: u64, row: &Row, columns: &[u16]) -> Option<u64> {
    text.clear();
    ident::append(text, row, columns.iter().copied()).then_some(())?;
    text.extend_from_slice(&seed.to_be_bytes());
    Some(xxh3_64(text))
}

fn have_common(a: &[u64], b: &[u64]) -> bool {
    let (a, mut b) = if a.len() > b.len() { (b, a) } else { (a, b) };
    // The shorter one is looked up in what is left of the longer one.
    for value in a {
        b = b.split_at(b.partition_point(|v| v < value)).1;
        match b.first() {
            None => return false,
            Some(v) if v == value => return true,
            Some(_) => {}
        }
    }
    false
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
