//! Pure. Phases 2 and 3 of the validator: shape against the table of `schema`, then names. Collects every error with its
//! place; only a file without errors becomes a typed [`Pipeline`].

mod columns;

use super::connect::{self, Connector, Target, Translated};
use super::finding::{Finding, Span, codes, nearest};
use super::model::{Component, Pipeline, Sink, Source, TableOption};
use super::rowless;
use super::schema::{self, Field, Shape};
use super::tree::{Entry, Kind, Node};
use catchwater_capture::properties::{KNOWN, Properties};
use catchwater_capture::{SnapshotMode, TableLists};
use catchwater_connector_postgres::{ConnectConfig, UrlError};
use catchwater_deliver::Columns;
use catchwater_deliver::columns::is_type;
use catchwater_deliver::worker::DeadLetters;
use std::collections::BTreeMap;

/// What the caller allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// A password in plain text is a warning instead of an error (`catchwater dev`).
    pub plain_secrets: bool,
}

/// The pipeline if there is no error among the findings.
pub fn check(bytes: &[u8], options: Options) -> (Option<Pipeline>, Vec<Finding>) {
    let (root, mut findings) = match super::tree::parse(bytes) {
        Ok(x) => x,
        Err(findings) => return (None, findings),
    };
    let mut walk = Walk { findings: Vec::new(), options };
    if root.get("connect").is_some() {
        walk.map(&root, schema::CONNECT_ROOT, "");
        findings.append(&mut walk.findings);
        let pipeline = if findings.iter().any(Finding::is_error) { None } else { connector(&root, &mut findings) };
        findings.sort_by_key(|f| (f.span.line, f.span.column));
        return (pipeline, findings);
    }
    walk.map(&root, schema::ROOT, "");
    findings.append(&mut walk.findings);
    let mut pipeline = None;
    if !findings.iter().any(Finding::is_error) {
        let built = build(&root);
        names(&built, &root, &mut findings);
        super::offline::read(&root, &built, &mut findings);
        pipeline = Some(built).filter(|_| !findings.iter().any(Finding::is_error));
    } else {
        // Names that can be judged in spite of the errors: each mistake still gives one message.
        let built = build(&root);
        names(&built, &root, &mut findings);
        super::offline::read(&root, &built, &mut findings);
    }
    findings.sort_by_key(|f| (f.span.line, f.span.column));
    findings.dedup();
    (pipeline, findings)
}

struct Walk {
    findings: Vec<Finding>,
    options: Options,
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

impl Walk {
    fn error(&mut self, code: &'static str, span: Span, path: &str, message: String) -> &mut Finding {
        self.findings.push(Finding::error(code, span, message).path(path));
        let last = self.findings.len() - 1;
        &mut self.findings[last]
    }

    fn map(&mut self, node: &Node, fields: &[Field], path: &str) {
        let Kind::Map(entries) = &node.kind else {
            let what = if path.is_empty() { "the file".to_owned() } else { format!("`{path}`") };
            self.error(
                codes::WRONG_TYPE,
                node.span,
                path,
                format!("{what} must be a mapping, this is {}", node.what()),
            );
            return;
        };
        for entry in entries {
            let here = join(path, &entry.key);
            match fields.iter().find(|f| f.key == entry.key) {
                Some(f) => self.value(entry, f.shape, &here),
                None => self.unknown(entry, fields, path, &here),
            }
        }
        for f in fields.iter().filter(|f| f.required && !entries.iter().any(|e| e.key == f.key)) {
            let what = if path.is_empty() { "the file".to_owned() } else { format!("`{path}`") };
            let span = if path.is_empty() { Span::START } else { node.span };
            self.error(codes::MISSING_FIELD, span, path, format!("{what} needs `{}`", f.key));
        }
        if fields.iter().any(|f| f.component) {
            let known: Vec<&str> = fields.iter().filter(|f| f.component).map(|f| f.key).collect();
            let found: Vec<&Entry> = entries.iter().filter(|e| known.contains(&e.key.as_str())).collect();
            let unknown_only = entries.iter().any(|e| !fields.iter().any(|f| f.key == e.key));
            match found.as_slice() {
                [_] => {}
                [] if unknown_only => {} // the unknown key has its own message
                [] => {
                    let message = format!("`{path}` names no system; it needs one of `{}`", known.join("`, `"));
                    self.error(codes::COMPONENT, node.span, path, message);
                }
                [_, second, ..] => {
                    let message = format!("`{path}` names two systems; exactly one of `{}`", known.join("`, `"));
                    let span = second.key_span;
                    self.error(codes::COMPONENT, span, path, message);
                }
            }
        }
    }

    fn unknown(&mut self, entry: &Entry, fields: &[Field], path: &str, here: &str) {
        let place = match path.rsplit_once('.') {
            None if path.is_empty() => "the file".to_owned(),
            _ => format!("`{path}`"),
        };
        let near = nearest(&entry.key, fields.iter().map(|f| f.key));
        if near.is_none() && schema::LATER.contains(&entry.key.as_str()) {
            let message = format!("`{}` is part of the file format but not of this version", entry.key);
            self.error(codes::UNKNOWN_FIELD, entry.key_span, here, message).suggestions.push("remove it".into());
            return;
        }
        let synonym = schema::SYNONYMS
            .iter()
            .find(|(word, ours)| *word == entry.key && fields.iter().any(|f| f.key == *ours))
            .map(|(_, ours)| *ours);
        let finding =
            self.error(codes::UNKNOWN_FIELD, entry.key_span, here, format!("unknown field `{}` in {place}", entry.key));
        match synonym.or(near) {
            Some(s) => finding.suggestions.push(format!("did you mean `{s}`?")),
            None => {
                let all: Vec<&str> = fields.iter().map(|f| f.key).collect();
                finding.suggestions.push(format!("known here: `{}`", all.join("`, `")));
            }
        }
    }

    fn scalar<'n>(&mut self, entry: &'n Entry, path: &str, wanted: &str) -> Option<&'n str> {
        match &entry.value.kind {
            Kind::Scalar { text, .. } => Some(text),
            _ => {
                let message = format!("`{}` must be {wanted}, this is {}", entry.key, entry.value.what());
                let span = if matches!(entry.value.kind, Kind::Null) { entry.key_span } else { entry.value.span };
                self.error(codes::WRONG_TYPE, span, path, message);
                None
            }
        }
    }

    fn value(&mut self, entry: &Entry, shape: Shape, path: &str) {
        let span = entry.value.span;
        match shape {
            Shape::Version => {
                if let Some(text) = self.scalar(entry, path, "the number 1")
                    && text != "1"
                {
                    self.error(
                        codes::BAD_VALUE,
                        span,
                        path,
                        format!("version {text} is not known; this program reads 1"),
                    );
                }
            }
            Shape::Name => {
                if let Some(text) = self.scalar(entry, path, "a name") {
                    let text = text.to_owned();
                    self.name(&text, span, path);
                }
            }
            Shape::Text | Shape::Path => {
                if let Some(text) = self.scalar(entry, path, "a text") {
                    let text = text.to_owned();
                    if text.is_empty() {
                        self.error(codes::BAD_VALUE, span, path, format!("`{}` is empty", entry.key));
                    }
                    self.references(&text, span, path);
                }
            }
            // Read by `offline`, once there is a pipeline to hold them against.
            Shape::Tests => {}
            Shape::SqlType => {
                if let Some(text) = self.scalar(entry, path, "a type of the target")
                    && !is_type(text)
                {
                    let message = format!("`{}: {text}` is no type", entry.key);
                    let hint = "words, numbers in ( ), [] for an array: \"numeric(14,2)\", timestamp(3) with time zone";
                    self.error(codes::BAD_VALUE, span, path, message).suggestions.push(hint.into());
                }
            }
            Shape::Slot => {
                if let Some(text) = self.scalar(entry, path, "a name") {
                    let text = text.to_owned();
                    self.references(&text, span, path);
                    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
                    if text.is_empty() {
                        self.error(codes::BAD_VALUE, span, path, "`slot` is empty".to_owned());
                    } else if !text.contains("${") && (text.len() > 63 || !text.bytes().all(legal)) {
                        let message = format!("`slot: {text}` is no name of a slot: a–z, 0–9 and _, at most 63");
                        self.error(codes::BAD_VALUE, span, path, message);
                    }
                }
            }
            Shape::SecretUrl => {
                if let Some(text) = self.scalar(entry, path, "a URL") {
                    let text = text.to_owned();
                    self.url(&text, span, path);
                }
            }
            Shape::Choice(allowed) => {
                if let Some(text) = self.scalar(entry, path, "a word")
                    && !allowed.contains(&text)
                {
                    let (text, near) = (text.to_owned(), nearest(text, allowed.iter().copied()));
                    let message = format!("`{}: {text}`: one of `{}`", entry.key, allowed.join("`, `"));
                    let finding = self.error(codes::BAD_VALUE, span, path, message);
                    if let Some(near) = near {
                        finding.suggestions.push(format!("did you mean `{near}`?"));
                    }
                }
            }
            Shape::Number { min, max } => {
                if let Some(text) = self.scalar(entry, path, "a number") {
                    let ok = text.parse::<u64>().is_ok_and(|n| (min..=max).contains(&n));
                    if !ok {
                        let message = format!("`{}: {text}`: a whole number from {min} to {max}", entry.key);
                        self.error(codes::BAD_VALUE, span, path, message);
                    }
                }
            }
            Shape::Duration => {
                if let Some(text) = self.scalar(entry, path, "a duration with a unit, like 20ms")
                    && schema::duration_ms(text).is_none()
                {
                    let message = format!("`{}: {text}`: a duration with a unit: 20ms 30s 2m 24h 7d", entry.key);
                    self.error(codes::BAD_VALUE, span, path, message);
                }
            }
            Shape::Ratio => {
                if let Some(text) = self.scalar(entry, path, "a number of rows among the last ones, like 25/1000")
                    && schema::ratio(text).is_none()
                {
                    let message = format!("`{}: {text}`: rows among the last ones, like 25/1000", entry.key);
                    self.error(codes::BAD_VALUE, span, path, message);
                }
            }
            Shape::Size => {
                if let Some(text) = self.scalar(entry, path, "a size with a unit, like 8MiB")
                    && schema::size_bytes(text).is_none()
                {
                    let message = format!("`{}: {text}`: a size with a unit: 512KiB 8MiB 1GiB (MB is 10^6)", entry.key);
                    self.error(codes::BAD_VALUE, span, path, message);
                }
            }
            Shape::Texts | Shape::Captured => match &entry.value.kind {
                Kind::Scalar { text, .. } if !text.is_empty() => {
                    if matches!(shape, Shape::Captured) {
                        self.lists(std::slice::from_ref(&entry.value), path);
                    }
                }
                Kind::List(items) if !items.is_empty() => {
                    for item in items {
                        if !matches!(&item.kind, Kind::Scalar { text, .. } if !text.is_empty()) {
                            let message = format!("`{}` must hold texts, this is {}", entry.key, item.what());
                            self.error(codes::WRONG_TYPE, item.span, path, message);
                        }
                    }
                    if matches!(shape, Shape::Captured) {
                        self.lists(items, path);
                    }
                }
                Kind::List(_) => {
                    self.error(codes::BAD_VALUE, span, path, format!("`{}` is empty", entry.key));
                }
                _ => {
                    let message =
                        format!("`{}` must be a text or a list of texts, this is {}", entry.key, entry.value.what());
                    self.error(codes::WRONG_TYPE, entry.key_span, path, message);
                }
            },
            Shape::Properties => self.properties(entry, path),
            Shape::Connector => match &entry.value.kind {
                Kind::Map(entries) => {
                    for e in entries {
                        self.scalar(e, &join(path, &e.key), "a text");
                    }
                }
                _ => {
                    let message =
                        format!("`{}` must be a mapping of properties, this is {}", entry.key, entry.value.what());
                    self.error(codes::WRONG_TYPE, entry.key_span, path, message);
                }
            },
            Shape::Map(fields) => self.map(&entry.value, fields, path),
            Shape::Named(fields) | Shape::Tables(fields) => {
                let Kind::Map(entries) = &entry.value.kind else {
                    let message = format!("`{}` must be a mapping of names, this is {}", entry.key, entry.value.what());
                    self.error(codes::WRONG_TYPE, entry.key_span, path, message);
                    return;
                };
                if entries.is_empty() {
                    self.error(codes::BAD_VALUE, span, path, format!("`{}` is empty", entry.key));
                }
                for e in entries {
                    let here = join(path, &e.key);
                    if matches!(shape, Shape::Named(_)) {
                        self.name(&e.key, e.key_span, &here);
                    }
                    self.map(&e.value, fields, &here);
                }
            }
        }
    }

    /// Each entry that is a list of regular expressions must be one.
    fn lists(&mut self, items: &[Node], path: &str) {
        for item in items {
            if let Kind::Scalar { text, .. } = &item.kind
                && let Err(why) = TableLists::parse(std::slice::from_ref(text))
            {
                self.error(codes::BAD_VALUE, item.span, path, why)
                    .suggestions
                    .push("a list is `/schema\\.table,other\\..*/`; look-around is not known".to_owned());
            }
        }
    }

    /// Each property is tried alone, so that its error stands at its place; then all together.
    fn properties(&mut self, entry: &Entry, path: &str) {
        let Kind::Map(entries) = &entry.value.kind else {
            let message = format!("`{}` must be a mapping of properties, this is {}", entry.key, entry.value.what());
            self.error(codes::WRONG_TYPE, entry.key_span, path, message);
            return;
        };
        let mut given = Vec::new();
        let before = self.findings.len();
        for e in entries {
            if let Some(text) = self.scalar(e, &join(path, &e.key), "a text").map(str::to_owned) {
                given.push((e, text));
            }
        }
        let parse = |some: &[(&Entry, String)]| {
            Properties::parse(some.iter().map(|(e, text)| (e.key.as_str(), text.as_str()))).err().unwrap_or_default()
        };
        let together = parse(&given);
        for one in &given {
            let e = one.0;
            // What is wrong alone may lean on a property that is there.
            for error in parse(std::slice::from_ref(one)).into_iter().filter(|error| together.contains(error)) {
                let (code, span) = match KNOWN.contains(&e.key.as_str()) {
                    true => (codes::BAD_VALUE, e.value.span),
                    false => (codes::UNKNOWN_FIELD, e.key_span),
                };
                self.error(code, span, &join(path, &e.key), error.to_string());
            }
        }
        if self.findings.len() == before {
            for error in together {
                let at = entries.iter().find(|e| e.key == error.key).map_or(entry.key_span, |e| e.key_span);
                self.error(codes::BAD_VALUE, at, &join(path, &error.key), error.to_string());
            }
        }
    }

    fn name(&mut self, name: &str, span: Span, path: &str) {
        let mut chars = name.chars();
        let ok = chars.next().is_some_and(|c| c.is_ascii_lowercase())
            && name.len() <= 63
            && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !ok {
            let message = format!("`{name}` is no name: a–z first, then a–z, 0–9 and _, at most 63");
            let better: String =
                name.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            let finding = self.error(codes::NAME, span, path, message);
            if better.starts_with(|c: char| c.is_ascii_lowercase()) && better.len() <= 63 {
                finding.suggestions.push(format!("`{better}`"));
            }
        }
    }

    fn references(&mut self, text: &str, span: Span, path: &str) {
        for problem in super::secret::problems(text) {
            self.error(codes::REFERENCE, span, path, problem);
        }
    }

    fn url(&mut self, text: &str, span: Span, path: &str) {
        self.references(text, span, path);
        if !super::secret::problems(text).is_empty() {
            return;
        }
        // What a reference gives is not known here: the whole URL, or what stands behind the user's part.
        let behind = text.rsplit_once('@').map_or(text, |(_, behind)| behind);
        let unknown = text.starts_with("${") || super::secret::has_reference(behind);
        if !(unknown || text.starts_with("postgres://") || text.starts_with("postgresql://")) {
            let message = "a PostgreSQL URL begins with postgres://".to_owned();
            let finding = self.error(codes::BAD_VALUE, span, path, message);
            finding.suggestions.push("postgres://user@host:5432/database".into());
            return;
        }
        let filled = |with: &str| super::secret::resolve(text, &mut |_| Ok(with.to_owned())).unwrap_or_default();
        if super::secret::plain_password(&filled("${")) {
            let message = "a password in plain text".to_owned();
            let hint = "write it as \"postgres://user:${env:NAME}@host/db\" or ${file:PATH}";
            if self.options.plain_secrets {
                self.findings.push(Finding::warning(codes::SECRET, span, message).path(path).suggest(hint));
            } else {
                self.error(codes::SECRET, span, path, message).suggestions.push(hint.into());
                return;
            }
        }
        // Without a user it is refused when it is used: a file may be one that is still to be filled in.
        if !unknown
            && let Err(e) = ConnectConfig::parse(&filled("x"))
            && !matches!(e, UrlError::Malformed(what) if what.contains("user"))
        {
            self.error(codes::BAD_VALUE, span, path, e.to_string()).suggestions.push(e.cure().into());
        }
    }
}

pub(super) fn texts(node: Option<&Entry>) -> Vec<(String, Span)> {
    let Some(entry) = node else { return Vec::new() };
    let one = |n: &Node| match &n.kind {
        Kind::Scalar { text, .. } => Some((text.clone(), n.span)),
        _ => None,
    };
    match &entry.value.kind {
        Kind::List(items) => items.iter().filter_map(one).collect(),
        _ => one(&entry.value).into_iter().collect(),
    }
}

fn text(node: &Node, key: &str) -> Option<String> {
    texts(node.get(key)).pop().map(|(t, _)| t)
}

fn component(node: &Node) -> Component {
    if let Some(e) = node.get("postgres") {
        return Component::Postgres {
            url: text(&e.value, "url").unwrap_or_default(),
            schema: text(&e.value, "schema"),
            slot: text(&e.value, "slot"),
            publication: text(&e.value, "publication"),
            streaming: text(&e.value, "streaming").as_deref() == Some("on"),
            failover: text(&e.value, "failover").as_deref() == Some("true"),
            binary: text(&e.value, "binary").as_deref() == Some("true"),
            taken: None,
        };
    }
    let file = node.get("sqlite").and_then(|e| text(&e.value, "file")).unwrap_or_default();
    Component::Sqlite { file }
}

fn properties(node: &Node) -> BTreeMap<String, String> {
    let scalar = |e: &Entry| match &e.value.kind {
        Kind::Scalar { text, .. } => Some((e.key.clone(), text.clone())),
        _ => None,
    };
    node.entries().iter().filter_map(scalar).collect()
}

fn build(root: &Node) -> Pipeline {
    let named = |key: &str| root.get(key).map(|e| e.value.entries()).unwrap_or_default();
    let sources = named("sources")
        .iter()
        .map(|e| {
            let inner = e.value.get("postgres").or(e.value.get("sqlite"));
            let source = Source {
                component: component(&e.value),
                tables: inner
                    .map(|i| texts(i.value.get("tables")))
                    .unwrap_or_default()
                    .into_iter()
                    .map(|t| t.0)
                    .collect(),
                snapshot: e
                    .value
                    .get("snapshot")
                    .and_then(|s| text(&s.value, "mode"))
                    .and_then(|word| SnapshotMode::parse(&word))
                    .unwrap_or_default(),
                fill_unchanged: text(&e.value, "unchanged").as_deref() != Some("placeholder"),
                debezium: e.value.get("debezium").map(|d| properties(&d.value)).unwrap_or_default(),
            };
            (e.key.clone(), source)
        })
        .collect();
    let sinks = named("sinks")
        .iter()
        .map(|e| {
            let batch = e.value.get("batch").map(|b| &b.value);
            let fold = text(&e.value, "names").as_deref() == Some("fold");
            let tables: BTreeMap<String, TableOption> = e
                .value
                .get("tables")
                .map(|t| t.value.entries())
                .unwrap_or_default()
                .iter()
                .map(|t| {
                    (
                        t.key.clone(),
                        TableOption { name: text(&t.value, "name"), columns: columns::build(&t.value, fold) },
                    )
                })
                .collect();
            let other_columns = Columns { fold, ..Columns::default() };
            let on_error = e.value.get("on_error").map(|o| &o.value);
            let parks = on_error.and_then(|o| text(o, "row")).as_deref() == Some("park_key");
            let sink = Sink {
                mode: text(&e.value, "mode").unwrap_or_else(|| "upsert".to_owned()),
                deletes: text(&e.value, "deletes").as_deref() != Some("ignore"),
                truncates: text(&e.value, "truncate").as_deref() != Some("ignore"),
                additive: text(&e.value, "on_schema_change").as_deref() != Some("fail"),
                park: parks
                    .then(|| on_error.and_then(|o| text(o, "max")).and_then(|t| schema::ratio(&t)).unwrap_or(PARK_MAX)),
                dead_letters: DeadLetters::default(),
                component: component(&e.value),
                from: texts(e.value.get("from")).into_iter().map(|t| t.0).collect(),
                topics: None,
                naming: None,
                other_columns,
                tables,
                batch_rows: batch.and_then(|b| text(b, "rows")).and_then(|t| t.parse().ok()),
                batch_bytes: batch.and_then(|b| text(b, "bytes")).and_then(|t| schema::size_bytes(&t)),
                lanes: e.value.get("apply").and_then(|a| text(&a.value, "lanes")).and_then(|t| t.parse().ok()),
                linger_ms: batch.and_then(|b| text(b, "linger")).and_then(|t| schema::duration_ms(&t)),
            };
            (e.key.clone(), sink)
        })
        .collect();
    Pipeline { name: text(root, "pipeline").unwrap_or_default(), sources, sinks, connect: None }
}

/// A pipeline that follows from a connector's properties.
fn connector(root: &Node, findings: &mut Vec<Finding>) -> Option<Pipeline> {
    let block = &root.get("connect")?.value;
    let config_entry = block.get("config")?;
    let name = text(root, "pipeline").unwrap_or_default();
    let config = properties(&config_entry.value);
    let span = root.get("pipeline").map_or(Span::START, |e| e.value.span);
    if let Some(why) = connect::name_problem(&name) {
        findings.push(Finding::error(codes::NAME, span, why).path("pipeline"));
        return None;
    }
    let (mut sources, mut sinks) = (BTreeMap::new(), BTreeMap::new());
    match connect::translate(&config) {
        Ok(Translated::Source(source, s)) => drop(sources.insert(source, *s)),
        Ok(Translated::Sink(s)) => drop(sinks.insert(name.clone(), *s)),
        Err(wrong) => {
            for w in wrong {
                let at = config_entry.value.get(&w.key).map_or(config_entry.key_span, |e| e.value.span);
                let path = format!("connect.config.{}", w.key);
                findings.push(Finding::error(codes::BAD_VALUE, at, w.message).path(path));
            }
            return None;
        }
    }
    let target = text(block, "state").and_then(|s| Target::parse(&s)).unwrap_or_default();
    Some(Pipeline { name, sources, sinks, connect: Some(Connector { target, config }) })
}

/// Refused rows among the last ones, above which it is not the rows.
const PARK_MAX: (u32, u32) = (25, 1000);

/// Phase 3: does every `from` mean something, is every source used, do two sinks meet on one table?
fn names(p: &Pipeline, root: &Node, findings: &mut Vec<Finding>) {
    let sink_entries = root.get("sinks").map(|e| e.value.entries()).unwrap_or_default();
    let mut used: Vec<String> = Vec::new();
    for e in sink_entries {
        let path = format!("sinks.{}.from", e.key);
        let mut sources_here: Vec<String> = Vec::new();
        for (from, span) in texts(e.value.get("from")) {
            let source = from.split('.').next().unwrap_or_default().to_owned();
            let Some(found) = p.sources.get(&source) else {
                let mut f =
                    Finding::error(codes::UNKNOWN_FROM, span, format!("`{from}` begins with no source of this file"))
                        .path(&path);
                if let Some(near) = nearest(&source, p.sources.keys().map(String::as_str)) {
                    f = f.suggest(format!("did you mean `{}`?", from.replacen(&source, near, 1)));
                } else if !p.sources.is_empty() {
                    let all: Vec<&str> = p.sources.keys().map(String::as_str).collect();
                    f = f.suggest(format!("sources: `{}`", all.join("`, `")));
                }
                findings.push(f);
                continue;
            };
            if !sources_here.contains(&source) {
                sources_here.push(source.clone());
            }
            used.push(source.clone());
            // A source in error has no tables yet; its own message is enough.
            if found.tables.is_empty() {
                continue;
            }
            if from.trim_end_matches(".*").contains('*') {
                let f = Finding::error(codes::BAD_VALUE, span, "`*` may stand only as the last part".into());
                findings.push(f.path(&path));
            } else if found.table_names(&from, &source).is_empty() {
                let mut f = Finding::error(
                    codes::UNKNOWN_FROM,
                    span,
                    format!("`{from}` is no table that source `{source}` captures"),
                )
                .path(&path);
                let all: Vec<String> = found.named().iter().map(|t| format!("{source}.{t}")).collect();
                if let Some(near) = nearest(&from, all.iter().map(String::as_str)) {
                    f = f.suggest(format!("did you mean `{near}`?"));
                } else {
                    f = f.suggest(format!("captured: `{}`", all.join("`, `")));
                }
                findings.push(f);
            }
        }
        if sources_here.len() > 1 {
            let span = e.value.get("from").map_or(e.key_span, |f| f.key_span);
            let message = format!(
                "sink `{}` reads sources `{}`; this version takes one source per sink",
                e.key,
                sources_here.join("`, `")
            );
            findings.push(
                Finding::error(codes::UNKNOWN_FROM, span, message).path(&path).suggest("make one sink per source"),
            );
        }
        for t in e.value.get("tables").map(|t| t.value.entries()).unwrap_or_default() {
            columns::problems(t, &format!("sinks.{}.tables.{}", e.key, t.key), findings);
            let known = p.sources.iter().any(|(name, s)| {
                let of_source = t.key.strip_prefix(name.as_str()).is_some_and(|r| r.starts_with('.'));
                (of_source && s.tables.is_empty()) || (!s.table_names(&t.key, name).is_empty() && !t.key.ends_with('*'))
            });
            if !known {
                let all: Vec<String> = p
                    .sources
                    .iter()
                    .flat_map(|(n, s)| s.named().into_iter().map(move |t| format!("{n}.{t}")))
                    .collect();
                let mut f =
                    Finding::error(codes::UNKNOWN_FROM, t.key_span, format!("`{}` is no captured table", t.key));
                if let Some(near) = nearest(&t.key, all.iter().map(String::as_str)) {
                    f = f.suggest(format!("did you mean `{near}`?"));
                }
                findings.push(f.path(format!("sinks.{}.tables", e.key)));
            }
        }
    }
    for e in root.get("sources").map(|e| e.value.entries()).unwrap_or_default() {
        if !sink_entries.is_empty() && !used.contains(&e.key) {
            let message = format!("no sink reads source `{}`; its topics are served all the same", e.key);
            findings.push(Finding::warning(codes::UNUSED, e.key_span, message).path(format!("sources.{}", e.key)));
        }
    }
    for (entry, (name, sink)) in sink_entries.iter().zip(&p.sinks) {
        let span = entry.value.get("from").map_or(entry.key_span, |f| f.key_span);
        for r in p.sources.get(sink.source()).map(|s| rowless::problems(sink, s, None)).unwrap_or_default() {
            let code = match r.code {
                697 => codes::SHARED_TOPIC,
                698 => codes::EVENTS,
                _ => codes::TRANSFORMED,
            };
            findings.push(Finding::warning(code, span, r.what).path(format!("sinks.{name}.from")).suggest(r.next));
        }
    }
    let mut targets: BTreeMap<(String, String, String), String> = BTreeMap::new();
    for (entry, (name, sink)) in sink_entries.iter().zip(&p.sinks) {
        for from in &sink.from {
            let source = from.split('.').next().unwrap_or_default();
            let Some(found) = p.sources.get(source) else { continue };
            for table in found.table_names(from, source) {
                let qualified = format!("{source}.{table}");
                let (schema, target) = sink.target(&qualified, Some(found));
                let place = (sink.component.place(), schema, target.clone());
                match targets.get(&place) {
                    Some(first) if *first != format!("{name}/{qualified}") => {
                        let message = format!("table `{target}` of this target is already written by `{first}`");
                        let f = Finding::error(codes::SAME_TARGET, entry.key_span, message);
                        findings.push(
                            f.path(format!("sinks.{name}")).suggest("give one of them another name under `tables`"),
                        );
                    }
                    _ => drop(targets.insert(place, format!("{name}/{qualified}"))),
                }
            }
        }
        for source in p.sources.values() {
            if source.component.place() == sink.component.place() && matches!(sink.component, Component::Sqlite { .. })
            {
                let message = format!("sink `{name}` writes into the file that a source reads");
                findings
                    .push(Finding::error(codes::SAME_SYSTEM, entry.key_span, message).path(format!("sinks.{name}")));
            }
        }
    }
}

#[cfg(test)]
mod tests;
