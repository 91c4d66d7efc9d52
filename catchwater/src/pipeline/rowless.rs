//! Pure. Tables of a source that its transforms leave no rows of for a sink, said before anything is stored: records that are
//! changed (CW0699), an outbox's events (CW0698), a topic that two tables share (CW0697). The sink itself finds them, too, at the
//! first such record.
//!
//! What a pattern or a list takes, the source's catalogue says. Where nobody has asked for that ([`asks`]), only what holds for
//! every topic is said of such tables.

use super::connect;
use super::model::{Sink, Source};
use catchwater_capture::Properties;
use catchwater_capture::transforms::NoRows;
use catchwater_change::encode::debezium_json::Places;
use std::collections::BTreeMap;

/// Tables named in one message.
const NAMED_MAX: usize = 5;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rowless {
    pub code: u16,
    pub what: String,
    pub next: &'static str,
}

/// Does the answer of [`problems`] depend on what the source's catalogue shows? Transforms that tell topics apart, or send them
/// elsewhere, beside tables that are not named.
pub fn asks(sink: &Sink, source: &Source) -> bool {
    let given = source.debezium.iter().map(|(k, v)| (k.as_str(), v.as_str()));
    let Ok(properties) = Properties::parse(given) else { return false };
    let transforms = &properties.transforms;
    let of_sink = sink.from.iter().flat_map(|f| source.table_names(f, sink.source()));
    !transforms.is_nothing()
        && transforms.no_rows(None).is_none()
        && (of_sink.chain(source.named()).any(|t| t.contains('*')) || !source.lists_nothing())
}

/// Is `table` what a pattern of [`Source::table_names`] means?
fn is_meant(pattern: &str, table: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => table.starts_with(prefix),
        None => pattern == table,
    }
}

/// What `sink` would stop at. `seen` = all tables that the source captures, qualified, as its database shows them. Properties that
/// are wrong are another message's.
pub fn problems(sink: &Sink, source: &Source, seen: Option<&[String]>) -> Vec<Rowless> {
    let given = source.debezium.iter().map(|(k, v)| (k.as_str(), v.as_str()));
    let Ok(properties) = Properties::parse(given) else { return Vec::new() };
    let (transforms, name) = (&properties.transforms, sink.source());
    if transforms.is_nothing() && !properties.options.value_converter.is_text() {
        return Vec::new();
    }
    let legal = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' };
    let topic = |table: &str| -> String {
        let (schema, table) = table.split_once('.').unwrap_or(("", table));
        [name, schema, table].join(&properties.options.delimiter).chars().map(legal).collect()
    };
    let is_named = |table: &String| !table.contains('*');
    let whole = sink.topics.as_deref().map(connect::whole);
    let takes = |table: &String| match &whole {
        Some(Ok(whole)) => !is_named(table) || whole.is_match(&format!("{name}.{table}")),
        _ => true,
    };
    let meant = |patterns: Vec<String>| match seen {
        // One that is named and not there is another message's.
        Some(seen) => {
            let here = |t: &&String| patterns.iter().any(|p| is_meant(p, t));
            let gone = |p: &&String| is_named(p) && !seen.contains(p);
            seen.iter().filter(here).chain(patterns.iter().filter(gone)).cloned().collect()
        }
        None => patterns,
    };
    let of_sink = sink.from.iter().flat_map(|f| source.table_names(f, name)).collect();
    let mut tables: Vec<String> = meant(of_sink).into_iter().filter(takes).collect();
    tables.sort();
    tables.dedup();
    let mut by_topic: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let captured = seen.map_or_else(|| source.named(), <[String]>::to_vec);
    for table in captured.into_iter().filter(is_named) {
        by_topic.entry(transforms.table(&topic(&table)).topic).or_default().push(table);
    }
    let mut found: BTreeMap<(u16, String), Vec<String>> = BTreeMap::new();
    for table in tables {
        let known = is_named(&table).then(|| topic(&table));
        let (code, why) = match transforms.no_rows(known.as_deref()) {
            Some(NoRows::Events(step)) => (698, format!("the router `{step}` of source {name} makes events of")),
            Some(NoRows::Changed(steps)) => {
                (699, format!("the transforms `{}` of source {name} change", steps.join("`, `")))
            }
            None if properties.options.value_converter.is_text() && !transforms.has_events() => {
                (699, format!("the `value.converter` of source {name} writes texts instead of"))
            }
            None => {
                let placed = known.map(|t| transforms.table(&t).topic);
                let others = placed.and_then(|t| by_topic.get(&t)).filter(|tables| tables.len() > 1);
                match others {
                    Some(tables) => {
                        (697, format!("a router of source {name} sends to one topic ({})", tables.join(", ")))
                    }
                    None => continue,
                }
            }
        };
        found.entry((code, why)).or_default().push(table);
    }
    let said = |((code, why), tables): ((u16, String), Vec<String>)| {
        let more = tables.len().saturating_sub(NAMED_MAX);
        let named = tables.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
        let named = if more > 0 { format!("{named} and {more} more") } else { named };
        Rowless {
            code,
            what: format!("{why} the records of {named}: a sink cannot tell their rows, and stops at the first"),
            next: "leave the table out of what the sink reads, or let this sink read a source of its own without that",
        }
    };
    found.into_iter().map(said).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::check::{Options, check};

    /// Code and tables, as they are said.
    fn found(tables: &str, from: &str, properties: &str) -> Vec<String> {
        found_of(tables, from, properties, None)
    }

    /// `seen`: what the catalogue shows.
    fn found_of(tables: &str, from: &str, properties: &str, seen: Option<&[&str]>) -> Vec<String> {
        let text = format!(
            "version: 1\npipeline: p\nsources:\n  shop:\n    postgres: {{ url: \"postgres://u@h/a\", tables: [{tables}] }}\n    \
             debezium: {{ {properties} }}\nsinks:\n  s:\n    from: [{from}]\n    postgres: {{ url: \"postgres://u@h/b\" }}\n"
        );
        let (pipeline, findings) = check(text.as_bytes(), Options { plain_secrets: true });
        let p = pipeline.unwrap_or_else(|| panic!("{findings:?}"));
        let warned: Vec<&str> = findings.iter().filter(|f| f.code.starts_with("CW069")).map(|f| f.code).collect();
        let seen: Option<Vec<String>> = seen.map(|s| s.iter().map(|t| (*t).to_owned()).collect());
        let (sink, source) = (&p.sinks["s"], &p.sources["shop"]);
        let all = problems(sink, source, None);
        assert_eq!(warned, all.iter().map(|r| format!("CW{:04}", r.code)).collect::<Vec<_>>());
        let all = if let Some(seen) = &seen { problems(sink, source, Some(seen)) } else { all };
        assert_eq!(asks(sink, source), seen.is_some());
        let tables =
            |what: &str| what.split_once("the records of ").and_then(|w| Some(w.1.split_once(':')?.0.to_owned()));
        all.iter().map(|r| format!("{} {}", r.code, tables(&r.what).unwrap_or_default())).collect()
    }

    const CAST: &str = "transforms: \"flat,cast\", transforms.flat.type: io.debezium.transforms.ExtractNewRecordState, \
                        transforms.cast.type: \"org.apache.kafka.connect.transforms.Cast$Value\", transforms.cast.spec: \"n:string\"";
    const FITS: &str = ", predicates: of, predicates.of.type: org.apache.kafka.connect.transforms.predicates.TopicNameMatches, \
                        predicates.of.pattern: \"shop[.]public[.]a\", transforms.cast.predicate: of";

    #[test]
    fn what_transforms_leave_no_rows_of_is_said_of_the_sinks_that_read_it() {
        let none: [&str; 0] = [];
        assert_eq!(found("a, b", "shop", "decimal.handling.mode: string"), none);
        assert_eq!(found("a, b", "shop", CAST), ["699 public.a, public.b"]);
        assert_eq!(found("public.*", "shop", CAST), ["699 public.*"]);
        let by_topic = format!("{CAST}{FITS}");
        assert_eq!(found("a, b", "shop", &by_topic), ["699 public.a"]);
        assert_eq!(found("a, b", "shop.b", &by_topic), none);
        // Which tables a pattern takes, the catalogue says.
        let seen = Some(["public.a", "public.b", "other.a"].as_slice());
        assert_eq!(found_of("public.*", "shop", &by_topic, seen), ["699 public.a"]);
        assert_eq!(found_of("\"public.*\", \"other.*\"", "shop.public.b", &by_topic, seen), none);
        assert_eq!(found_of("public.*", "shop.public.*", &by_topic, Some(&["public.b", "public.ab"])), none);
        assert_eq!(found_of("\"/public[.].*/\"", "shop", &by_topic, seen), ["699 public.a"]);
        assert_eq!(found_of("public.*", "shop.public.a", &by_topic, seen), ["699 public.a"]);
        assert_eq!(found_of("public.*", "shop.public.a", &by_topic, Some(&[])), ["699 public.a"]);
        let keys = CAST.replace("Cast$Value", "Cast$Key").replace("n:string", "id:string");
        assert_eq!(found("a", "shop", &keys), none);
        // A renamed topic is looked at by its new name.
        let router = "transforms: \"to,line\", transforms.to.type: org.apache.kafka.connect.transforms.RegexRouter, \
             transforms.to.regex: \"shop[.]public[.](.*)\", transforms.to.replacement: \"x.$1\", \
             transforms.line.type: \"org.apache.kafka.connect.transforms.InsertField$Value\", \
             transforms.line.static.field: l, transforms.line.static.value: v, transforms.line.predicate: of, \
             predicates: of, predicates.of.type: org.apache.kafka.connect.transforms.predicates.TopicNameMatches, \
             predicates.of.pattern: \"x[.]b\"";
        assert_eq!(found("a, b", "shop", router), ["699 public.b"]);
        let shared = "transforms: one, transforms.one.type: io.debezium.transforms.ByLogicalTableRouter, \
             transforms.one.topic.regex: \"(.*)[.][ab]\", transforms.one.topic.replacement: \"$1.all\"";
        assert_eq!(found("a, b, c", "shop", shared), ["697 public.a, public.b"]);
        assert_eq!(found("a, b, c", "shop.c", shared), none);
        assert_eq!(found_of("public.*", "shop", shared, seen), ["697 public.a, public.b"]);
        assert_eq!(found_of("public.*, a", "shop", shared, Some(&["public.a", "public.c"])), none);
        let outbox = "transforms: out, transforms.out.type: io.debezium.transforms.outbox.EventRouter";
        assert_eq!(found("a", "shop", outbox), ["698 public.a"]);
        let text = "value.converter: org.apache.kafka.connect.storage.StringConverter";
        assert_eq!(found("a", "shop", text), ["699 public.a"]);
    }
}
