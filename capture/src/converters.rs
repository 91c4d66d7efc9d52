//! Pure. `key.converter` and `value.converter`: JSON, StringConverter, or what users of outbox tables set, whose payloads are
//! finished texts and bytes.

use catchwater_change::encode::debezium_json::Converter;
use std::collections::BTreeMap;

/// What these properties end with, behind `key.` and `value.`.
pub const KEYS: [&str; 3] =
    ["converter", "converter.delegate.converter.type", "converter.delegate.converter.type.schemas.enable"];

/// A side's converter, and whether it writes schemas, where another property than its own says so.
pub struct Given {
    pub converter: Converter,
    pub schema: Option<bool>,
}

/// From all properties of a source; `side` is `key` or `value`. The error is a key and what is wrong with it.
pub fn parse(all: &BTreeMap<&str, &str>, side: &str, has_outbox: bool) -> Result<Given, (String, String)> {
    let get = |rest: &str| {
        let key = format!("{side}.{rest}");
        let value = all.get(key.as_str()).map(|v| v.trim()).filter(|v| !v.is_empty());
        (key, value)
    };
    let [class, delegate, schemas] = KEYS.map(get);
    let mut converter = match class.1 {
        None => Converter::Json,
        Some(name) => named(name).map_err(|why| (class.0.clone(), why))?,
    };
    let mut schema = match converter {
        Converter::Text | Converter::Bytes => Some(false),
        _ => None,
    };
    match (&mut converter, delegate.1) {
        (Converter::Binary(other), Some(name)) => {
            let named = named(name).map_err(|why| (delegate.0.clone(), why))?;
            if matches!(named, Converter::Binary(_)) {
                return Err((delegate.0, "another converter than itself".into()));
            }
            schema = match (&named, schemas.1) {
                (Converter::Json, Some(word)) => match word.to_ascii_lowercase().as_str() {
                    "true" => Some(true),
                    "false" => Some(false),
                    _ => return Err((schemas.0, "one of true, false".into())),
                },
                (Converter::Json, None) => None,
                _ => Some(false),
            };
            *other = Some(Box::new(named));
        }
        (Converter::Binary(_), None) => schema = Some(false),
        (_, Some(_)) => return Err((delegate.0, "is read with BinaryDataConverter alone".into())),
        (_, None) => {}
    }
    if !has_outbox && !matches!(converter, Converter::Json | Converter::Text) {
        let why = "of records of tables one of org.apache.kafka.connect.json.JsonConverter, \
                   org.apache.kafka.connect.storage.StringConverter; others are for events of outbox tables, and `transforms` \
                   names no io.debezium.transforms.outbox.EventRouter";
        return Err((class.0, why.into()));
    }
    Ok(Given { converter, schema })
}

fn named(class: &str) -> Result<Converter, String> {
    match class.rsplit('.').next().unwrap_or(class) {
        "JsonConverter" => Ok(Converter::Json),
        "StringConverter" => Ok(Converter::Text),
        "ByteArrayConverter" => Ok(Converter::Bytes),
        "BinaryDataConverter" => Ok(Converter::Binary(None)),
        _ => Err("one of org.apache.kafka.connect.json.JsonConverter, and for events of outbox tables \
                  org.apache.kafka.connect.storage.StringConverter, org.apache.kafka.connect.converters.ByteArrayConverter, \
                  io.debezium.converters.BinaryDataConverter"
            .into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parsed(given: &[(&'static str, &'static str)], has_outbox: bool) -> Result<Given, (String, String)> {
        parse(&given.iter().copied().collect(), "value", has_outbox)
    }

    #[test]
    fn converters_are_connects() {
        let of = |class: &'static str| parsed(&[("value.converter", class)], true).map(|g| (g.converter, g.schema));
        assert_eq!(of("org.apache.kafka.connect.storage.StringConverter").unwrap(), (Converter::Text, Some(false)));
        assert_eq!(of("org.apache.kafka.connect.json.JsonConverter").unwrap(), (Converter::Json, None));
        assert_eq!(of("io.confluent.connect.avro.AvroConverter").unwrap_err().0, "value.converter");
        let binary = ("value.converter", "io.debezium.converters.BinaryDataConverter");
        let delegate = ("value.converter.delegate.converter.type", "org.apache.kafka.connect.json.JsonConverter");
        let schemas = ("value.converter.delegate.converter.type.schemas.enable", "true");
        let json = Converter::Binary(Some(Box::new(Converter::Json)));
        let all = parsed(&[binary, delegate, schemas], true).unwrap();
        assert_eq!((all.converter, all.schema), (json, Some(true)));
        assert_eq!(parsed(&[binary], true).unwrap().converter, Converter::Binary(None));
        assert_eq!(parsed(&[delegate], true).err().unwrap().0, delegate.0);
        assert!(parsed(&[binary], false).err().unwrap().1.contains("EventRouter"), "of events alone");
        let text = ("value.converter", "org.apache.kafka.connect.storage.StringConverter");
        assert_eq!(parsed(&[text], false).unwrap().converter, Converter::Text, "of tables, too");
        assert_eq!(parsed(&[], false).unwrap().converter, Converter::Json);
    }
}
