//! Pure. In which order the rows of a group may be applied.
//!
//! Walk: row-change 14/17
//!
//! One lane: groups commit one after the other, in the order of the source. Inside a group a sink may take table by
//! table, which is fast, unless the write sets say that the order of single rows matters: a truncate stands between
//! rows, or a value of a secondary unique key is held by two rows of the group (one gives it up, the other takes it).
//! Unique values a source did not send are not known here; a group that fails by one is run again in source order.

use crate::batch::key_columns;
use crate::ident;
use crate::sink::{Apply, TargetName, What};
use catchwater_base::hash::xxh3_64;
use std::collections::BTreeMap;

/// Must these be applied row by row, as they stand?
pub fn needs_source_order(applies: &[Apply]) -> bool {
    // (table, unique key, value) → key of the row that holds it.
    let mut holders: BTreeMap<(&TargetName, usize, u64), u64> = BTreeMap::new();
    for apply in applies {
        let row = match &apply.what {
            What::Truncate | What::RetireAll(_) => return true,
            What::Upsert(r) | What::Update(r) | What::Delete(r) | What::InsertNew(r) | What::Retire(r) => r,
            What::Insert(_) | What::DeleteOne(_) => continue,
        };
        if apply.table.source.unique.is_empty() {
            continue;
        }
        let Some(key) = ident::of(row, key_columns(&apply.table)) else { continue };
        let key = xxh3_64(&key);
        for (n, (_, columns)) in apply.table.source.unique.iter().enumerate() {
            // NULL meets nothing in a unique key.
            let Some(value) = ident::of(row, columns.iter().copied()) else { continue };
            let holder = holders.entry((&apply.table.target, n, xxh3_64(&value))).or_insert(key);
            if *holder != key {
                return true;
            }
        }
    }
    false
}
