//! Pure. What a sink's file says of a table's columns: `select` (which ones) and `columns` (their names and types).

use super::{join, texts};
use crate::pipeline::finding::{Finding, codes};
use crate::pipeline::tree::{Entry, Node};
use catchwater_deliver::Columns;
use std::collections::BTreeSet;

/// The entry of one table under `tables`. `fold`: names go in small letters.
pub(super) fn build(table: &Node, fold: bool) -> Columns {
    let mut out = Columns { fold, ..Columns::default() };
    if let Some(select) = table.get("select") {
        let listed = |key: &str| -> BTreeSet<String> {
            texts(select.value.get(key)).into_iter().map(|(column, _)| column).collect()
        };
        out.keep = select.value.get("keep").map(|_| listed("keep"));
        out.drop = listed("drop");
    }
    for column in table.get("columns").map(|c| c.value.entries()).unwrap_or_default() {
        if let Some(name) = super::text(&column.value, "name") {
            out.names.insert(column.key.clone(), name);
        }
        if let Some(kind) = super::text(&column.value, "type") {
            out.types.insert(column.key.clone(), kind);
        }
    }
    out
}

/// What the shape of the file does not show.
pub(super) fn problems(table: &Entry, path: &str, findings: &mut Vec<Finding>) {
    let built = build(&table.value, false);
    if let Some(select) = table.value.get("select") {
        let path = join(path, "select");
        match (select.value.get("keep"), select.value.get("drop")) {
            (Some(_), Some(second)) => {
                let message = "`keep` and `drop` exclude each other".to_owned();
                findings.push(Finding::error(codes::BAD_VALUE, second.key_span, message).path(path));
            }
            (None, None) if select.value.entries().is_empty() => {
                let message = "`select` needs `keep` or `drop`".to_owned();
                findings.push(Finding::error(codes::MISSING_FIELD, select.key_span, message).path(path));
            }
            _ => {}
        }
    }
    let mut seen: Vec<&str> = Vec::new();
    for column in table.value.get("columns").map(|c| c.value.entries()).unwrap_or_default() {
        let here = join(&join(path, "columns"), &column.key);
        let left_out =
            built.drop.contains(&column.key) || built.keep.as_ref().is_some_and(|k| !k.contains(&column.key));
        if left_out {
            let message = format!("column `{}` is left out by `select`", column.key);
            findings.push(Finding::error(codes::BAD_VALUE, column.key_span, message).path(&here));
        }
        if let Some(name) = built.names.get(&column.key) {
            if seen.contains(&name.as_str()) {
                let message = format!("two columns of this table would be `{name}`");
                findings.push(Finding::error(codes::BAD_VALUE, column.value.span, message).path(&here));
            }
            seen.push(name);
        }
    }
}
