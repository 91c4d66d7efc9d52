//! Foreign keys of the target that wait for the commit.
//!
//! A first snapshot brings table after table, a large transaction comes in parts, and the source may check a key at its
//! commit that the target checks at once: then a child comes before its parent, though no state that anybody sees lacks
//! one. So a key that cannot be deferred is made deferrable inside the sink's own transaction, checked before the
//! commit, and put back: other sessions never see it otherwise. A transaction that is rolled back puts it back by itself.
//!
//! `ALTER TABLE … ALTER CONSTRAINT` changes the catalogue alone, but it takes the table for itself: readers wait until
//! the commit. So it comes last, after columnar and source order have failed. It needs the table's owner; who is not the
//! owner gets the error of the row as ever.

use super::PgLane;
use crate::config::quote_ident;
use crate::sink::error::row_fault;
use crate::sink::sql::{self, quoted, shown};
use catchwater_deliver::sink::{Apply, SinkError, TargetName};
use std::collections::{BTreeMap, BTreeSet};

/// What this lane's transaction has made of the keys.
#[derive(Clone, Default)]
pub(super) struct Keys {
    /// Made deferrable, to be put back: table and constraint.
    waiting: Vec<(TargetName, String)>,
    /// Tables that were seen to in this transaction.
    seen: BTreeSet<(TargetName, bool)>,
}

impl Keys {
    /// The transaction is over; whichever way, the keys are what they were.
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
        self.seen.clear();
    }
}

impl PgLane {
    /// Lets the foreign keys of the tables wait for the commit, as far as the user may. `pointing`: those that point to them, too,
    /// for the children's rows may be in a later part, or stay as they are.
    /// False = none was made to.
    pub(super) async fn let_keys_wait(&mut self, applies: &[Apply], pointing: bool) -> Result<bool, SinkError> {
        let before = self.keys.waiting.len();
        for apply in applies {
            let table = &apply.table.target;
            if !self.keys.seen.insert((table.clone(), pointing)) {
                continue;
            }
            let rows = self
                .session
                .client
                .query(
                    "SELECT f.conname::text, n.nspname::text, c.relname::text \
                     FROM pg_class t JOIN pg_namespace tn ON tn.oid = t.relnamespace \
                     JOIN pg_constraint f ON f.conrelid = t.oid OR ($3 AND f.confrelid = t.oid) \
                     JOIN pg_class c ON c.oid = f.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
                     WHERE tn.nspname = $1 AND t.relname = $2 AND f.contype = 'f' AND NOT f.condeferrable AND f.conparentid = 0 ORDER BY 1",
                    &[&sql::schema_of(table), &table.name.as_str(), &pointing],
                )
                .await
                .map_err(|e| row_fault(&self.config, &shown(table), e))?;
            let mut by_table: BTreeMap<TargetName, Vec<String>> = BTreeMap::new();
            for r in &rows {
                let of = TargetName { schema: r.get(1), name: r.get(2) };
                by_table.entry(of).or_default().push(r.get(0));
            }
            for (of, names) in by_table {
                self.sql("SAVEPOINT cw_keys").await?;
                let done =
                    self.session.client.batch_execute(&alter(&of, &names, "DEFERRABLE INITIALLY DEFERRED")).await;
                match done {
                    Ok(()) => {
                        self.sql("RELEASE SAVEPOINT cw_keys").await?;
                        self.keys.waiting.extend(names.into_iter().map(|name| (of.clone(), name)));
                    }
                    // Not the owner, or rows of it wait for their check already.
                    Err(e) if e.code().is_some_and(|c| matches!(c.code(), "42501" | "55006")) => {
                        self.sql("ROLLBACK TO SAVEPOINT cw_keys; RELEASE SAVEPOINT cw_keys").await?;
                    }
                    Err(e) => return Err(row_fault(&self.config, &shown(&of), e)),
                }
            }
        }
        Ok(self.keys.waiting.len() > before)
    }

    /// Checks what waits.
    pub(super) async fn check_keys(&self) -> Result<(), SinkError> {
        let done =
            self.session.client.batch_execute("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED").await;
        done.map_err(|e| {
            let of = e.as_db_error().and_then(|db| Some(format!("{}.{}", db.schema()?, db.table()?)));
            row_fault(&self.config, of.as_deref().unwrap_or("deferred constraint"), e)
        })
    }

    /// Before the commit: checks the keys, and puts them back as they were.
    pub(super) async fn put_keys_back(&mut self) -> Result<(), SinkError> {
        if self.keys.waiting.is_empty() {
            return Ok(());
        }
        self.check_keys().await?;
        for (table, name) in std::mem::take(&mut self.keys.waiting) {
            let done = self.session.client.batch_execute(&alter(&table, &[name], "NOT DEFERRABLE")).await;
            done.map_err(|e| row_fault(&self.config, &shown(&table), e))?;
        }
        Ok(())
    }
}

fn alter(table: &TargetName, names: &[String], how: &str) -> String {
    let each: Vec<String> = names.iter().map(|n| format!("ALTER CONSTRAINT {} {how}", quote_ident(n))).collect();
    format!("ALTER TABLE {} {}", quoted(table), each.join(", "))
}
