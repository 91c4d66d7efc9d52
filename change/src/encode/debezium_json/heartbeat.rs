//! Pure. `__debezium-heartbeat.<prefix>`: that the source is alive. Source: recording `heartbeat`.

use super::schema::framed;
use super::{Encoded, Encoder};
use crate::json;
use catchwater_base::Wall;

const KEY: &str = concat!(
    r#"{"schema":{"type":"struct","fields":[{"type":"string","optional":false,"field":"serverName"}],"#,
    r#""optional":false,"name":"io.debezium.connector.common.ServerNameKey","version":1},"payload":"#
);
const VALUE: &str = concat!(
    r#"{"schema":{"type":"struct","fields":[{"type":"int64","optional":false,"field":"ts_ms"}],"#,
    r#""optional":false,"name":"io.debezium.connector.common.Heartbeat","version":1},"payload":"#
);

impl Encoder {
    /// It belongs to no transaction, so it has no stamp.
    pub fn heartbeat(&self, at: Wall) -> Encoded {
        let key = framed(self.options.key_schema, KEY, &|out| {
            out.extend_from_slice(b"{\"serverName\":");
            json::put_string(out, &self.name);
            out.push(b'}');
        });
        let value = framed(self.options.value_schema, VALUE, &|out| {
            out.extend_from_slice(b"{\"ts_ms\":");
            json::put_i64(out, at.as_millis());
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
    fn a_heartbeat_is_debeziums() {
        let bare = Encoder::new("postgresql", "pg").heartbeat(Wall::from_millis(1_795_263_347_714));
        assert_eq!(bare.key.unwrap(), r#"{"serverName":"pg"}"#);
        assert_eq!(bare.value.unwrap(), r#"{"ts_ms":1795263347714}"#);
        let options = Options { key_schema: true, value_schema: true, ..Options::default() };
        let full = Encoder::with("postgresql", "pg", options).heartbeat(Wall::from_millis(7));
        assert_eq!(full.key.unwrap(), format!("{KEY}{{\"serverName\":\"pg\"}}}}"));
        assert_eq!(full.value.unwrap(), format!("{VALUE}{{\"ts_ms\":7}}}}"));
    }
}
