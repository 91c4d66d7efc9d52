//! Columns that are dropped and made again under their name beside changes of rows. What the wire says of a table looks the
//! same before and after, and the catalogue tells one from the other by numbers of transactions alone: not where all of it
//! happened in one, nor what a savepoint did from what a later transaction did. So a shape is guessed then, by how long ago
//! the transaction committed, and the table's rows are asked for once more ([`Item::Again`]): whatever the guess, they end up
//! as they are.

use super::{Known, Running, SourceConfig, source_error};
use crate::catalog::CatalogTable;
use crate::fault::Fault;
use crate::source::decode::Relation;
use catchwater_capture::source::{Item, SourceError};
use catchwater_change::TableSchema;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A transaction that committed so short ago has done itself what the catalogue shows.
const OWN_MICROS_MAX: i64 = 3_000_000;

/// What rows of the open transaction are of, where nobody can say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Guess {
    /// It is certain.
    None,
    /// The table as it is now.
    Today,
    /// The table as it was before younger transactions.
    Before,
}

#[derive(Debug, Default)]
pub(super) struct Remade {
    /// By relation: the newest drop of which its rows were asked for.
    asked: BTreeMap<u32, u32>,
    /// Guessed to be of before: when its shape changes it is asked for again.
    before: BTreeSet<u32>,
    due: BTreeSet<u32>,
}

impl Running {
    /// The shape that rows of a relation have from now on. `body`: of what the wire said.
    pub(super) fn learn(&mut self, oid: u32, schema: TableSchema, body: [u8; 16], guess: Guess) {
        let same = self.tables.get_mut(&oid).filter(|k| k.schema.fingerprint == schema.fingerprint);
        let is_new = same.is_none();
        match same {
            Some(known) => known.body = body,
            None => {
                let waits = self.tables.get(&oid).is_none_or(|k| k.waits);
                self.tables.insert(oid, Known { schema: Arc::new(schema), body, told: false, waits });
            }
        }
        if guess == Guess::Before {
            self.remade.before.insert(oid);
        } else if self.remade.before.remove(&oid) && is_new {
            // It was guessed wrong, or a sink empties the column now: what was read meanwhile is gone there.
            self.remade.due.insert(oid);
        }
    }

    pub(super) async fn guess(
        &mut self,
        config: &SourceConfig,
        relation: &Relation,
        current: Option<&CatalogTable>,
    ) -> Result<Guess, SourceError> {
        let by = current.and_then(|t| t.made_again_since(relation, self.xid as u32));
        let beside = current.filter(|_| by.is_none()).and_then(|t| t.is_made_beside(relation, self.xid as u32));
        if let Some(by) = beside
            && self.txn.as_ref().is_some_and(|t| !t.skip)
            && self.remade.asked.insert(relation.oid, by) != Some(by)
        {
            self.remade.due.insert(relation.oid);
        }
        let (Some(by), Some(txn)) = (by, self.txn.as_ref().filter(|t| !t.skip)) else { return Ok(Guess::None) };
        let text = "SELECT (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::pg_catalog.int8";
        let now = self.sql.client.query_one(text, &[]).await;
        let now: i64 = now.map_err(|e| source_error(config, Fault::from(e)))?.get(0);
        if self.remade.asked.insert(relation.oid, by) != Some(by) {
            self.remade.due.insert(relation.oid);
        }
        // Of a table that cannot be read in the order of a key a wrong guess stays.
        let has_key = current.is_some_and(|t| !t.key().1.is_empty());
        let is_recent = has_key && now.saturating_sub(txn.time.as_micros()) < OWN_MICROS_MAX;
        let is_own = by == self.xid as u32 || is_recent;
        Ok(if is_own { Guess::Today } else { Guess::Before })
    }

    /// Behind the shape of a relation.
    pub(super) fn again(&mut self, oid: u32) -> Option<Item> {
        let known = self.tables.get(&oid).filter(|k| !k.waits)?;
        let is_due = self.txn.as_ref().is_some_and(|t| !t.skip) && self.remade.due.remove(&oid);
        is_due.then(|| Item::Again(known.schema.clone()))
    }
}
