//! Pure. `<prefix>.message`: logical messages (`pg_logical_emit_message`). Source: recording `message`.
//!
//! They have no headers but the stamp. With transaction metadata a transactional one is an event as any other.

use super::value::put_value;
use super::{Block, EncodeError, Encoder};
use crate::encode::form::BinaryMode;
use crate::event::RowChange;
use crate::json;
use crate::row::Cell;
use crate::stamp::Stamp;
use crate::value::Value;
use bytes::Bytes;
use catchwater_base::Wall;

const KEY: &str = concat!(
    r#"{"schema":{"type":"struct","fields":[{"type":"string","optional":true,"field":"prefix"}],"#,
    r#""optional":false,"name":"io.debezium.connector.postgresql.MessageKey","version":1},"payload":"#
);
/// Before and behind the field of the `source` block; behind the type of the content.
const VALUE: &str = concat!(
    r#"{"schema":{"type":"struct","fields":[{"type":"string","optional":false,"field":"op"},"#,
    r#"{"type":"int64","optional":true,"field":"ts_ms"},"#
);
const VALUE_MIDDLE: &str = concat!(
    r#"{"type":"struct","fields":[{"type":"string","optional":false,"field":"id"},{"type":"int64","#,
    r#""optional":false,"field":"total_order"},{"type":"int64","optional":false,"#,
    r#""field":"data_collection_order"}],"optional":true,"name":"event.block","version":1,"#,
    r#""field":"transaction"},{"type":"struct","fields":[{"type":"string","optional":true,"#,
    r#""field":"prefix"},{"type":""#
);
const VALUE_END: &str = concat!(
    r#"","optional":true,"field":"content"}],"optional":false,"#,
    r#""name":"io.debezium.connector.postgresql.Message","version":1,"field":"message"}],"optional":false,"#,
    r#""name":"io.debezium.connector.postgresql.MessageValue","version":1},"payload":"#
);

impl Encoder {
    fn prefix_of<'c>(&self, change: &'c RowChange) -> Result<&'c str, EncodeError> {
        match change.after.as_ref().and_then(|r| r.cells.first()) {
            Some(Cell::Value(Value::Text(prefix))) => Ok(prefix.as_str()),
            _ => Err(EncodeError::NoRow { table: "(messages)".into(), op: 'm' }),
        }
    }

    pub(super) fn message_key(&self, change: &RowChange) -> Result<Bytes, EncodeError> {
        let mut out = Vec::with_capacity(32);
        if self.options.key_schema {
            out.extend_from_slice(KEY.as_bytes());
        }
        out.extend_from_slice(b"{\"prefix\":");
        json::put_string(&mut out, self.prefix_of(change)?);
        out.push(b'}');
        if self.options.key_schema {
            out.push(super::schema::END);
        }
        Ok(out.into())
    }

    pub(super) fn message_value(
        &self,
        change: &RowChange,
        stamp: &Stamp,
        processed: Wall,
        block: Option<Block<'_>>,
    ) -> Result<Bytes, EncodeError> {
        let mut out = Vec::with_capacity(512);
        if self.options.value_schema {
            out.extend_from_slice(VALUE.as_bytes());
            out.extend_from_slice(super::schema::source(self.connector).as_bytes());
            let text = self.options.form.binary != BinaryMode::Bytes;
            out.extend_from_slice(VALUE_MIDDLE.as_bytes());
            out.extend_from_slice(if text { b"string" } else { b"bytes" });
            out.extend_from_slice(VALUE_END.as_bytes());
        }
        out.extend_from_slice(b"{\"op\":\"m\",\"ts_ms\":");
        json::put_i64(&mut out, processed.as_millis());
        out.extend_from_slice(b",\"source\":");
        self.put_source(&mut out, change, stamp, &mut Vec::new());
        out.extend_from_slice(b",\"transaction\":");
        super::put_block(&mut out, block);
        out.extend_from_slice(b",\"message\":{\"prefix\":");
        json::put_string(&mut out, self.prefix_of(change)?);
        out.extend_from_slice(b",\"content\":");
        match (change.after.as_ref().and_then(|r| r.cells.get(1)), change.table.columns.get(1)) {
            (Some(Cell::Value(content)), Some(column)) => {
                put_value(&mut out, &self.options.form, column, content);
            }
            _ => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b"}}");
        if self.options.value_schema {
            out.push(super::schema::END);
        }
        Ok(out.into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Options, Piece};
    use super::*;
    use crate::event::{Op, SnapshotMark, SourceInfo};
    use crate::row::Row;
    use crate::schema::TableSchema;
    use std::sync::Arc;

    #[test]
    fn a_message_is_debeziums() {
        let cells = [Value::Text("p\"q".into()), Value::Bytes(Bytes::from_static(&[0, 255, 1]))];
        let change = RowChange {
            table: Arc::new(TableSchema::messages("golden")),
            op: Op::Message,
            before: None,
            after: Some(Row::new(cells.into_iter().map(Cell::Value).collect())),
            snapshot: SnapshotMark::No,
            info: SourceInfo::Postgres { lsn: Some(9), txid: None, last_commit_lsn: Some(8) },
        };
        let stamp = || Stamp {
            op: b'm',
            flags: 0,
            version: Default::default(),
            total: 1,
            source: catchwater_record::CaptureId(1),
            commit_time: Wall::from_millis(5),
            schema_no: 0,
            native: Default::default(),
            txn: None,
        };
        let made = |options| {
            let encoder = Encoder::with("postgresql", "pg", options);
            let made = encoder.encode(&change, Piece::Whole, stamp(), Wall::from_millis(7)).unwrap();
            let text = |b: Option<Bytes>| String::from_utf8(b.unwrap().to_vec()).unwrap();
            (text(made.key), text(made.value), made.headers.len())
        };
        let (key, value, headers) = made(Options { context_headers: true, ..Options::default() });
        assert_eq!((key.as_str(), headers), (r#"{"prefix":"p\"q"}"#, 1));
        assert_eq!(
            value,
            concat!(
                r#"{"op":"m","ts_ms":7,"source":{"version":"3.7.0.Final","connector":"postgresql","name":"pg","ts_ms":5,"#,
                r#""snapshot":"false","db":"golden","sequence":"[\"8\",\"9\"]","ts_us":5000,"ts_ns":5000000,"schema":"","#,
                r#""table":"","txId":null,"lsn":9,"xmin":null,"origin":null,"origin_lsn":null},"transaction":null,"#,
                r#""message":{"prefix":"p\"q","content":"AP8B"}}"#
            )
        );
        let mut form = Options { key_schema: true, value_schema: true, ..Options::default() };
        form.form.binary = BinaryMode::Hex;
        let (key, value, _) = made(form);
        assert!(crate::json::parse(key.as_bytes()).is_ok() && key.starts_with(KEY), "{key}");
        assert!(
            crate::json::parse(value.as_bytes()).is_ok()
                && value.contains(r#"{"type":"string","optional":true,"field":"content"}"#)
        );
        assert!(value.ends_with(r#""content":"00ff01"}}}"#), "{value}");
    }
}
