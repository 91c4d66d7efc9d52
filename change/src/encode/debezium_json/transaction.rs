//! Pure. `<prefix>.transaction`: where a transaction begins and ends, and how many events of which table it holds.
//!
//! The id is the same in BEGIN, END and every event (`txId:lsn` of the first event); Debezium's differs from record to
//! record (see `docs/debezium.md`). Logical messages count as events, of one collection; Debezium's has one for each.
//! Source: recording `transaction`, and a real Debezium's records of messages.

use super::{Encoded, Encoder, defects};
use crate::event::{Op, RowChange, SourceInfo};
use crate::json;
use crate::stamp::{STAMP_HEADER, Stamp};
use bytes::Bytes;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Letter of the stamp of these records.
pub const LETTER: u8 = b'x';

/// Events of one transaction so far.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    pub id: String,
    pub events: u64,
    /// By `schema.table`.
    pub tables: BTreeMap<String, u64>,
}

const KEY: &str = concat!(
    r#"{"schema":{"type":"struct","fields":[{"type":"string","optional":false,"field":"id"}],"optional":false,"#,
    r#""name":"io.debezium.connector.common.TransactionMetadataKey","version":1},"payload":"#
);
const VALUE: &str = concat!(
    r#"{"schema":{"type":"struct","fields":[{"type":"string","optional":false,"field":"status"},"#,
    r#"{"type":"string","optional":false,"field":"id"},{"type":"int64","optional":true,"field":"event_count"},"#,
    r#"{"type":"array","items":{"type":"struct","fields":[{"type":"string","optional":false,"field":"data_collection"},"#,
    r#"{"type":"int64","optional":false,"field":"event_count"}],"optional":true,"name":"event.collection","version":1},"#,
    r#""optional":true,"field":"data_collections"},{"type":"int64","optional":false,"field":"ts_ms"}],"#,
    r#""optional":false,"name":"io.debezium.connector.common.TransactionMetadataValue","version":1},"payload":"#
);

/// What logical messages are counted under.
const MESSAGES: &str = "message";

impl Encoder {
    /// Counts an event; its place among all of the transaction, and among those of its table.
    pub fn count(&self, counts: &mut Counts, change: &RowChange) -> (u64, u64) {
        counts.events += 1;
        let collection = match (change.op, self.options.defects) {
            (Op::Message, true) => defects::message_collection(counts.events),
            (Op::Message, false) => MESSAGES.to_owned(),
            _ => change.table.qualified(),
        };
        let own = counts.tables.entry(collection).or_default();
        *own += 1;
        (counts.events, *own)
    }

    /// The id of the transaction in an event's block.
    pub fn transaction_id<'c>(&self, counts: &'c Counts, change: &RowChange) -> Cow<'c, str> {
        match (&change.info, counts.id.split_once(':')) {
            (SourceInfo::Postgres { lsn: Some(lsn), .. }, Some((txn, _))) if self.options.defects => {
                format!("{txn}:{lsn}").into()
            }
            _ => counts.id.as_str().into(),
        }
    }

    /// BEGIN (`ended` false) or END. The stamp's letter is set here.
    pub fn boundary(&self, counts: &Counts, ended: bool, mut stamp: Stamp) -> Encoded {
        stamp.op = LETTER;
        let mut key = Vec::new();
        if self.options.key_schema {
            key.extend_from_slice(KEY.as_bytes());
        }
        key.extend_from_slice(b"{\"id\":");
        json::put_string(&mut key, &counts.id);
        key.push(b'}');
        if self.options.key_schema {
            key.push(super::schema::END);
        }
        let mut value = Vec::new();
        if self.options.value_schema {
            value.extend_from_slice(VALUE.as_bytes());
        }
        value.extend_from_slice(if ended { b"{\"status\":\"END\",\"id\":" } else { b"{\"status\":\"BEGIN\",\"id\":" });
        json::put_string(&mut value, &counts.id);
        value.extend_from_slice(b",\"event_count\":");
        if ended {
            json::put_u64(&mut value, counts.events);
            value.extend_from_slice(b",\"data_collections\":[");
            let mut tables: Vec<(&String, &u64)> = counts.tables.iter().collect();
            if self.options.defects {
                defects::as_java_map(&mut tables);
            }
            for (i, (table, events)) in tables.into_iter().enumerate() {
                if i > 0 {
                    value.push(b',');
                }
                value.extend_from_slice(b"{\"data_collection\":");
                json::put_string(&mut value, table);
                value.extend_from_slice(b",\"event_count\":");
                json::put_u64(&mut value, *events);
                value.push(b'}');
            }
            value.push(b']');
        } else {
            value.extend_from_slice(b"null,\"data_collections\":null");
        }
        value.extend_from_slice(b",\"ts_ms\":");
        json::put_i64(&mut value, stamp.commit_time.as_millis());
        value.push(b'}');
        if self.options.value_schema {
            value.push(super::schema::END);
        }
        let headers = vec![(Bytes::from_static(STAMP_HEADER), Some(stamp.encode()))];
        Encoded { key: Some(key.into()), value: Some(value.into()), headers }
    }
}
