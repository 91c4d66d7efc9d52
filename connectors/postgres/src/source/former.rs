//! Tables that the source's older texts meant: what was taken out of the file, and what is new in it.
//!
//! A publication that Catchwater made follows the file: it loses what was taken out and gets what no older text meant. Rows
//! of a table that was taken out stand in the WAL until its publication has lost it (the server judges each change by
//! the publication of that moment), so they are left out of the stream; those of a table that no text meant are not.

use super::SourceConfig;
use super::open::{self, Publication, quoted};
use crate::catalog::CatalogTable;
use crate::config::{TableRef, quote_ident};
use crate::session::Session;
use catchwater_base::log;
use catchwater_capture::TableLists;

/// One older text: its tables.
#[derive(Clone, Debug)]
pub struct Meant {
    pub tables: Vec<TableRef>,
    pub lists: TableLists,
}

/// A text with these tables means that one.
pub(super) fn means(tables: &[TableRef], lists: &TableLists, schema: &str, name: &str) -> bool {
    let named = tables.iter().any(|t| t.schema == schema && (t.is_pattern() || t.name == name));
    if lists.is_empty() {
        return named;
    }
    let full = format!("{schema}.{name}");
    lists.take(&full) || (named && !lists.leaves_out(&full))
}

/// The older texts of a source.
#[derive(Clone, Debug, Default)]
pub struct Former {
    pub texts: Vec<Meant>,
    /// None of them is missing: what none means was never captured.
    pub whole: bool,
}

impl Former {
    pub fn meant(&self, schema: &str, name: &str) -> bool {
        self.texts.iter().any(|t| means(&t.tables, &t.lists, schema, name))
    }
    /// The same of `schema.table`; a name with a dot of its own may be split anywhere.
    pub(super) fn meant_full(&self, full: &str) -> bool {
        full.match_indices('.').any(|(at, _)| self.meant(&full[..at], &full[at + 1..]))
    }
}

impl Publication {
    /// A partition that is there with its root, or a root with its partitions, is not named.
    pub(super) fn implies(&self, t: &CatalogTable) -> bool {
        if self.via_root { t.partition } else { t.kind == b'p' }
    }
}

/// What a publication of ours publishes.
pub(super) fn publish(config: &SourceConfig, version: i32) -> String {
    let generated = if version < open::GENERATED_MIN { "" } else { ", publish_generated_columns = stored" };
    let root = !config.reading.leaves;
    format!("(publish = 'insert, update, delete, truncate', publish_via_partition_root = {root}{generated})")
}

/// Brings a publication of our own in line with the file. `None` = there is nothing that may be done, or the server refused
/// it: what it lacks is an error of the caller's, what it has besides does no harm.
pub(super) async fn follow(
    config: &SourceConfig,
    sql: &Session,
    version: i32,
    found: &Publication,
    tables: &[CatalogTable],
) -> Option<Publication> {
    if !found.complete || found.via_root == config.reading.leaves || found.filtered {
        return None;
    }
    let full = |t: &CatalogTable| format!("{}.{}", t.schema, t.name);
    let besides: Vec<&String> = found.tables.iter().filter(|n| !tables.iter().any(|t| full(t) == **n)).collect();
    let is_new = |t: &&CatalogTable| {
        config.former.whole
            && !config.former.meant(&t.schema, &t.name)
            && config.tables.iter().any(|r| r.schema == t.schema && r.name == t.name)
            && !found.tables.contains(&full(t))
    };
    let added: Vec<&CatalogTable> = tables.iter().filter(is_new).collect();
    if (besides.is_empty() && added.is_empty()) || !besides.iter().all(|n| config.former.meant_full(n)) {
        return None;
    }
    let stays = tables.iter().filter(|t| found.tables.contains(&full(t)));
    let list: Vec<String> = stays.chain(added.iter().copied()).map(quoted).collect();
    let name = config.publication();
    let change = format!("ALTER PUBLICATION {} SET TABLE {}", quote_ident(&name), list.join(", "));
    match sql.client.batch_execute(&change).await {
        Ok(()) => {
            let added = added.iter().map(|t| format!(" +{}", full(t)));
            let gone = besides.iter().map(|n| format!(" -{n}"));
            let what: String = added.chain(gone).collect();
            log!(Info, "source.publication", "publication {name} follows the file:{what}");
        }
        Err(e) => {
            log!(Warn, "source.publication", "publication {name} could not follow the file: {e}; to do so: {change}");
            return None;
        }
    }
    open::publication(config, sql, version).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_was_meant_if_one_text_means_it() {
        let text = |tables: &[&str]| Meant {
            tables: tables.iter().map(|t| TableRef::parse(t)).collect(),
            lists: TableLists::default(),
        };
        let former = Former { texts: vec![text(&["a", "s.b"]), text(&["t.*"])], whole: true };
        for (full, meant) in
            [("public.a", true), ("s.b", true), ("t.x", true), ("t.x.y", true), ("s.a", false), ("a", false)]
        {
            assert_eq!(former.meant_full(full), meant, "{full}");
        }
    }
}
