//! Pure. What a snapshot tells of itself. Source: Debezium's `SchemaFactory`, `Notification`, `SinkNotificationChannel`, and
//! what its 3.7.0.Final wrote into a topic.

use super::schema::framed;
use super::{Encoded, Encoder};
use crate::json;
use catchwater_base::Wall;

const KEY: &str = concat!(
    r#"{"schema":{"type":"struct","fields":[{"type":"string","optional":false,"field":"id"}],"#,
    r#""optional":false,"name":"io.debezium.connector.common.NotificationKey","version":1},"payload":"#
);
const VALUE: &str = concat!(
    r#"{"schema":{"type":"struct","fields":[{"type":"string","optional":false,"field":"id"},"#,
    r#"{"type":"string","optional":false,"field":"type"},{"type":"string","optional":false,"field":"aggregate_type"},"#,
    r#"{"type":"map","keys":{"type":"string","optional":false},"values":{"type":"string","optional":false},"#,
    r#""optional":true,"field":"additional_data"},{"type":"int64","optional":false,"field":"timestamp"}],"#,
    r#""optional":false,"name":"io.debezium.connector.common.Notification","version":1},"payload":"#
);

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notification {
    /// Of a signal, if one asked for what is told; else random.
    pub id: String,
    /// `Initial Snapshot`, `Incremental Snapshot`.
    pub aggregate: &'static str,
    /// `STARTED`, `IN_PROGRESS`, …
    pub kind: &'static str,
    pub data: Vec<(&'static str, String)>,
    pub at: Wall,
}

impl Encoder {
    /// It belongs to no transaction, so it has no stamp.
    pub fn notification(&self, of: &Notification) -> Encoded {
        let key = framed(self.options.key_schema, KEY, &|out| {
            out.extend_from_slice(b"{\"id\":");
            json::put_string(out, &of.id);
            out.push(b'}');
        });
        let value = framed(self.options.value_schema, VALUE, &|out| {
            for (name, text) in
                [("{\"id\":", of.id.as_str()), (",\"type\":", of.kind), (",\"aggregate_type\":", of.aggregate)]
            {
                out.extend_from_slice(name.as_bytes());
                json::put_string(out, text);
            }
            out.extend_from_slice(b",\"additional_data\":{");
            for (i, (name, text)) in of.data.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                json::put_string(out, name);
                out.push(b':');
                json::put_string(out, text);
            }
            out.extend_from_slice(b"},\"timestamp\":");
            json::put_i64(out, of.at.as_millis());
            out.push(b'}');
        });
        Encoded { key: Some(key), value: Some(value), headers: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Options;
    use super::*;

    #[test]
    fn a_notification_is_debeziums() {
        let told = Notification {
            id: "i-1".into(),
            aggregate: "Initial Snapshot",
            kind: "STARTED",
            data: vec![("connector_name", "pg".into()), ("data_collections", "public.a,public.\"b\"".into())],
            at: Wall::from_millis(1_795_263_347_714),
        };
        let bare = Encoder::new("postgresql", "pg").notification(&told);
        assert_eq!(bare.key.unwrap(), r#"{"id":"i-1"}"#);
        let payload = concat!(
            r#"{"id":"i-1","type":"STARTED","aggregate_type":"Initial Snapshot","additional_data":{"connector_name":"pg","#,
            r#""data_collections":"public.a,public.\"b\""},"timestamp":1795263347714}"#
        );
        assert_eq!(bare.value.unwrap(), payload);
        let options = Options { key_schema: true, value_schema: true, ..Options::default() };
        let full = Encoder::with("postgresql", "pg", options).notification(&told);
        assert_eq!(full.key.unwrap(), format!("{KEY}{{\"id\":\"i-1\"}}}}"));
        assert_eq!(full.value.unwrap(), format!("{VALUE}{payload}}}"));
    }
}
