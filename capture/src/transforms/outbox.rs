//! Pure. The options of Debezium's `EventRouter`, in its words.

use super::{Own, Rename, list};
use catchwater_change::encode::debezium_json::{Expand, Outbox, Place, Placement, Updates};

/// Most columns beside the payload.
const ADDED_MAX: usize = 256;

/// The router, and what it makes of a row's column to a topic.
pub(super) fn outbox(own: &mut Own<'_>) -> Option<(Outbox, Rename)> {
    let mut column = |key: &'static str, default: &str| own.get(key).map_or(default, str::trim).to_owned();
    let id = column("table.field.event.id", "id");
    let key = column("table.field.event.key", "aggregateid");
    let payload = column("table.field.event.payload", "payload");
    let route_by = column("route.by.field", "aggregatetype");
    let time = Some(column("table.field.event.timestamp", "")).filter(|c| !c.is_empty());
    let version = Some(column("table.field.event.schema.version", "")).filter(|c| !c.is_empty());
    // Debezium reads it nowhere.
    column("table.field.event.type", "type");
    let ignores_missing = one_of(own, "table.field.additional.missing", &[("error", false), ("ignore", true)]);
    // Its name before Debezium 3.6.
    let old = own.flag("table.fields.additional.error.on.missing", true);
    let updates = one_of(
        own,
        "table.op.invalid.behavior",
        &[("warn", Updates::Warn), ("error", Updates::Error), ("fatal", Updates::Fatal)],
    );
    let nulls = one_of(own, "table.json.payload.null.behavior", &[("ignore", false), ("optional_bytes", true)]);
    let empty_arrays =
        one_of(own, "table.json.payload.empty.array.behavior", &[("ignore", false), ("optional_string", true)]);
    let expand = own.flag("table.expand.json.payload", false).then_some(Expand { nulls, empty_arrays });
    let tombstones = own.flag("route.tombstone.on.empty.payload", false);
    let added = added(own);
    // Debezium does nothing for them where no OpenTelemetry is in the process.
    for key in ["tracing.span.context.field", "tracing.operation.name", "tracing.with.context.field.only"] {
        own.get(key);
    }
    if own.get("field.name.adjustment.mode").is_some_and(|m| !matches!(m.trim(), "" | "none")) {
        own.wrong("field.name.adjustment.mode", "none alone: a name that is adjusted loses its value in Debezium");
    }
    let regex = own.get("route.topic.regex").unwrap_or("(?<routedByValue>.*)");
    let replacement = own.get("route.topic.replacement").unwrap_or("outbox.event.${routedByValue}");
    let rename = match Rename::new(regex, replacement) {
        Ok(rename) => rename,
        Err((is_regex, why)) => {
            own.wrong(if is_regex { "route.topic.regex" } else { "route.topic.replacement" }, why);
            return None;
        }
    };
    let ignores_missing = ignores_missing || !old;
    let outbox =
        Outbox { id, key, payload, time, version, route_by, added, ignores_missing, updates, tombstones, expand };
    Some((outbox, rename))
}

/// `type:header:eventType,tenant:envelope,p:partition`.
fn added(own: &mut Own<'_>) -> Vec<Placement> {
    const KEY: &str = "table.fields.additional.placement";
    let mut out: Vec<Placement> = Vec::new();
    for entry in list(own.get(KEY).unwrap_or_default()) {
        let parts: Vec<&str> = entry.split(':').map(str::trim).collect();
        let (column, place, alias) = match parts[..] {
            [column, place] => (column, place, column),
            [column, place, alias] => (column, place, alias),
            _ => {
                own.wrong(KEY, format!("`{entry}`: column:place or column:place:alias"));
                continue;
            }
        };
        let place = match place.to_ascii_lowercase().as_str() {
            "header" => Place::Header,
            "envelope" => Place::Envelope,
            "partition" => Place::Partition,
            _ => {
                own.wrong(KEY, format!("`{entry}`: the place is header, envelope or partition"));
                continue;
            }
        };
        out.push(Placement { column: column.to_owned(), place, alias: alias.to_owned() });
    }
    let mut names: Vec<&str> = out.iter().filter(|a| a.place == Place::Envelope).map(|a| &a.alias[..]).collect();
    names.push("payload");
    names.sort_unstable();
    let doubles = names.windows(2).any(|two| two[0] == two[1]);
    let partitions = out.iter().filter(|a| a.place == Place::Partition).count();
    if doubles {
        own.wrong(KEY, "two fields of the envelope have one name (payload is one)");
    }
    if partitions > 1 {
        own.wrong(KEY, "one column says the partition");
    }
    if out.len() > ADDED_MAX {
        own.wrong(KEY, format!("at most {ADDED_MAX} columns"));
    }
    out
}

/// The first is the default.
fn one_of<T: Copy>(own: &mut Own<'_>, key: &'static str, words: &[(&str, T)]) -> T {
    let given = own.get(key).map(str::trim).filter(|v| !v.is_empty());
    let found = given.map(|v| words.iter().find(|(w, _)| w.eq_ignore_ascii_case(v)).map(|(_, t)| *t));
    match found {
        Some(Some(value)) => value,
        Some(None) => {
            let all: Vec<&str> = words.iter().map(|(w, _)| *w).collect();
            own.wrong(key, format!("one of {}", all.join(", ")));
            words[0].1
        }
        None => words[0].1,
    }
}
