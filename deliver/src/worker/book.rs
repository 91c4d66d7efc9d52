//! Pure. Tables and topics of the source, as its TABLE records say.

use crate::plan::TableFilter;
use crate::wire::{Wire, WireError, records};
use bytes::Bytes;
use catchwater_change::TableSchema;
use catchwater_record::{CaptureId, Offset, TopicId, TopicPartition};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Default)]
pub(super) struct Book {
    /// Next offset of the captures partition.
    pub next: Offset,
    /// By number; shared with the flight that decodes.
    pub schemas: Arc<BTreeMap<u32, Arc<TableSchema>>>,
    topics: BTreeMap<TopicId, bool>,
    /// A TABLE record came: there may be tables whose target is not ready.
    pub grown: bool,
}

impl Book {
    /// Does `from` take the table of this topic? `None` = no TABLE record names it (yet).
    pub fn takes(&self, topic: TopicId) -> Option<bool> {
        self.topics.get(&topic).copied()
    }

    /// The newest schema of each table that we take, tables in the order in which they were last described.
    pub fn newest(&self) -> Vec<Arc<TableSchema>> {
        let mut of: BTreeMap<TopicId, &Arc<TableSchema>> = BTreeMap::new();
        for schema in self.schemas.values().filter(|s| self.takes(s.topic) == Some(true)) {
            of.insert(schema.topic, schema);
        }
        let mut newest: Vec<_> = of.into_values().cloned().collect();
        newest.sort_by_key(|s| s.schema_no);
        newest
    }

    /// Records of the captures partition, from [`Book::next`] on.
    pub fn read(
        &mut self,
        wire: &dyn Wire,
        capture: CaptureId,
        tables: &TableFilter,
        at: TopicPartition,
        bytes: &Bytes,
    ) -> Result<(), WireError> {
        let (found, next) = records(at, self.next, bytes)?;
        for record in found {
            let (Some(key), Some(value)) = (&record.key, &record.value) else { continue };
            let table = wire.table(key, value).map_err(|why| WireError::Record { at, offset: record.offset, why })?;
            if let Some((of, table)) = table
                && of == capture
            {
                if !table.topic.is_none() {
                    self.topics.insert(table.topic, tables.takes(&table));
                }
                Arc::make_mut(&mut self.schemas).insert(table.schema_no, Arc::new(table));
                self.grown = true;
            }
        }
        self.next = self.next.max(next);
        Ok(())
    }
}
