//! Pure. What a person asks of a running source, in Debezium's words: a type and a JSON text, as they stand in a row of the
//! signal table, in a record of the signal topic, or come from the command line.
//!
//! Ours, beside Debezium's: `rows-per-second` of an `execute-snapshot`. `surrogate-key` is not served. Source: Debezium
//! documentation, "Sending signals to a Debezium connector".

use crate::shape::Pattern;
use catchwater_change::json::{self, Node};
use std::fmt::Write as _;

/// Longest id of a signal that is kept, characters.
const ID_MAX: usize = 255;
/// Longest JSON text, bytes.
const DATA_BYTES_MAX: usize = 64 * 1024;

/// Where a source listens, and how large its steps are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signals {
    /// `signal.data.collection`, if the channel `source` is on: a captured table whose inserts are signals.
    pub table: Option<String>,
    /// `signal.kafka.topic`, if the channel `kafka` is on; none = `<prefix>-signal`.
    pub kafka: Option<Option<String>>,
    /// If the channel `file` is on. Not the worker's: whoever starts it polls the file ([`crate::StatusHandle::signal`]).
    pub file: Option<SignalFile>,
    /// `incremental.snapshot.chunk.size`, rows.
    pub chunk_rows: u32,
    /// `snapshot.max.threads`: tables read at a time.
    pub parallel: u32,
    /// The same property for the first snapshot: units read at a time; `None` = as many as there are processors, 4 at most.
    pub readers: Option<u32>,
}

/// A file whose lines are signals.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignalFile {
    /// `signal.file`, as it was given.
    pub path: String,
    /// `signal.poll.interval.ms`.
    pub every_ms: u64,
}

impl Default for Signals {
    fn default() -> Self {
        Signals { table: None, kafka: None, file: None, chunk_rows: CHUNK_ROWS, parallel: 1, readers: None }
    }
}

/// Rows of a chunk unless the file says otherwise. Debezium's 1,024 cost four times as many commits.
pub const CHUNK_ROWS: u32 = 4096;

#[derive(Clone, PartialEq, Debug)]
pub enum Signal {
    Execute(Execute),
    /// Empty = all.
    Stop(Vec<Tables>),
    Pause,
    Resume,
    Log(String),
}

impl Signal {
    /// With an id, if it is one of those that keep theirs. Cut after 255 characters.
    pub fn named(mut self, id: &str) -> Signal {
        if let Signal::Execute(execute) = &mut self
            && !id.is_empty()
        {
            execute.id = Some(id.chars().take(ID_MAX).collect());
        }
        self
    }
}

/// `execute-snapshot`.
#[derive(Clone, PartialEq, Debug)]
pub struct Execute {
    /// The signal's own; notifications carry it.
    pub id: Option<String>,
    pub tables: Vec<Tables>,
    /// Tables and the SQL condition their rows must meet; the first that fits a table counts.
    pub conditions: Vec<(Tables, String)>,
    /// 0 = as fast as it goes.
    pub rows_per_second: u64,
    /// Asked for as `blocking`: the rows are marked as those of a first snapshot.
    pub blocking: bool,
}

/// A regular expression over `schema.table`.
#[derive(Clone, PartialEq, Debug)]
pub struct Tables(Pattern);

impl Tables {
    fn parse(text: &str) -> Result<Self, SignalError> {
        // A comma is a list's; a signal has one of its own.
        let made = Pattern::parse(&text.replace(',', "\\,"));
        made.map(Tables).map_err(SignalError::Wrong)
    }
    pub fn fits(&self, table: &str) -> bool {
        self.0.fits(table)
    }
}

/// What is wrong with a signal.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SignalError {
    #[error("{0}")]
    Wrong(String),
    /// The source's server does not take a condition of it.
    #[error("{0}")]
    Condition(String),
}

fn wrong<T>(what: impl Into<String>) -> Result<T, SignalError> {
    Err(SignalError::Wrong(what.into()))
}

/// A signal of the table or the command line.
pub fn parse(kind: &str, data: &str) -> Result<Signal, SignalError> {
    if data.len() > DATA_BYTES_MAX {
        return wrong(format!("its data has {} bytes, above {DATA_BYTES_MAX}", data.len()));
    }
    let text = if data.trim().is_empty() { "{}" } else { data };
    let node = json::parse(text.as_bytes()).map_err(|e| SignalError::Wrong(format!("its data is no JSON: {e}")))?;
    of(kind, &node)
}

/// A record of the signal topic, or a line of the signal file: `{"type": …, "data": {…}}`.
pub fn parse_record(value: &[u8]) -> Result<Signal, SignalError> {
    if value.len() > DATA_BYTES_MAX {
        return wrong(format!("it has {} bytes, above {DATA_BYTES_MAX}", value.len()));
    }
    let node = json::parse(value).map_err(|e| SignalError::Wrong(format!("it is no JSON: {e}")))?;
    let Some(kind) = node.get("type").and_then(Node::as_str) else { return wrong("it has no `type`") };
    let signal = of(kind, node.get("data").unwrap_or(&Node::Null))?;
    Ok(signal.named(node.get("id").and_then(Node::as_str).unwrap_or_default()))
}

fn of(kind: &str, data: &Node<'_>) -> Result<Signal, SignalError> {
    match kind {
        "execute-snapshot" => execute(data).map(Signal::Execute),
        "stop-snapshot" => Ok(Signal::Stop(collections(data)?)),
        "pause-snapshot" => Ok(Signal::Pause),
        "resume-snapshot" => Ok(Signal::Resume),
        "log" => Ok(Signal::Log(data.get("message").and_then(Node::as_str).unwrap_or_default().to_owned())),
        other => wrong(format!(
            "type `{other}` is none of execute-snapshot, stop-snapshot, pause-snapshot, resume-snapshot, log"
        )),
    }
}

fn list<'n, 'a>(data: &'n Node<'a>, name: &str) -> Result<&'n [Node<'a>], SignalError> {
    match data.get(name) {
        None | Some(Node::Null) => Ok(&[]),
        Some(Node::Array(items)) => Ok(items),
        Some(_) => wrong(format!("`{name}` is no list")),
    }
}

fn collections(data: &Node<'_>) -> Result<Vec<Tables>, SignalError> {
    list(data, "data-collections")?
        .iter()
        .map(|n| match n.as_str() {
            Some(text) => Tables::parse(text),
            None => wrong("`data-collections` has something that is no text"),
        })
        .collect()
}

fn execute(data: &Node<'_>) -> Result<Execute, SignalError> {
    let blocking = match data.get("type").and_then(Node::as_str).unwrap_or("incremental") {
        t if t.eq_ignore_ascii_case("incremental") => false,
        t if t.eq_ignore_ascii_case("blocking") => true,
        other => return wrong(format!("snapshot type `{other}` is neither incremental nor blocking")),
    };
    let tables = collections(data)?;
    if tables.is_empty() {
        return wrong("`data-collections` names no table");
    }
    if data.get("surrogate-key").is_some_and(|k| k.as_str().is_some_and(|k| !k.is_empty())) {
        return wrong("`surrogate-key` is not served: rows are read in the order of their key");
    }
    let mut conditions = Vec::new();
    for condition in list(data, "additional-conditions")? {
        let part = |name| condition.get(name).and_then(Node::as_str);
        let (Some(table), Some(filter)) = (part("data-collection"), part("filter")) else {
            return wrong("a condition needs `data-collection` and `filter`");
        };
        conditions.push((Tables::parse(table)?, filter.to_owned()));
    }
    let rows_per_second = match data.get("rows-per-second") {
        None | Some(Node::Null) => 0,
        Some(n) => n.as_u64().ok_or_else(|| SignalError::Wrong("`rows-per-second` is no number".into()))?,
    };
    Ok(Execute { id: None, tables, conditions, rows_per_second, blocking })
}

impl Execute {
    pub fn filter_of(&self, table: &str) -> &str {
        self.conditions.iter().find(|(t, _)| t.fits(table)).map_or("", |(_, f)| f)
    }
}

/// The data of an `execute-snapshot` or `stop-snapshot` from the command line: names are meant as they stand.
pub fn data(tables: &[String], filter: Option<&str>, rows_per_second: u64) -> String {
    let mut out = b"{\"data-collections\":[".to_vec();
    for (i, table) in tables.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        json::put_string(&mut out, &literal(table));
    }
    out.push(b']');
    if let Some(filter) = filter {
        out.extend_from_slice(b",\"additional-conditions\":[{\"data-collection\":\".*\",\"filter\":");
        json::put_string(&mut out, filter);
        out.extend_from_slice(b"}]");
    }
    if rows_per_second > 0 {
        out.extend_from_slice(b",\"rows-per-second\":");
        json::put_u64(&mut out, rows_per_second);
    }
    out.push(b'}');
    String::from_utf8(out).unwrap_or_default()
}

/// A name as a regular expression that means it.
fn literal(name: &str) -> String {
    name.chars().fold(String::new(), |mut out, c| {
        if !c.is_alphanumeric() && c != '_' {
            let _ = write!(out, "\\{c}");
        } else {
            out.push(c);
        }
        out
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn signals_are_debeziums() {
        let text = r#"{"type":"incremental","data-collections":["public.t","public\\.u.*"],
            "additional-conditions":[{"data-collection":"public.t","filter":"id < 3"}],"rows-per-second":50}"#;
        let Signal::Execute(e) = parse("execute-snapshot", text).unwrap() else { panic!() };
        assert!(e.tables[0].fits("public.t") && e.tables[1].fits("public.users") && !e.tables[1].fits("public.t"));
        assert_eq!((e.filter_of("public.t"), e.filter_of("public.users")), ("id < 3", ""));
        assert_eq!((e.rows_per_second, e.blocking), (50, false));
        let record = br#"{"type":"execute-snapshot","data":{"type":"BLOCKING","data-collections":["a.b"]}}"#;
        assert!(matches!(parse_record(record), Ok(Signal::Execute(e)) if e.blocking && e.id.is_none()));
        let named = br#"{"id":"7","type":"execute-snapshot","data":{"data-collections":["a.b"]}}"#;
        assert!(matches!(parse_record(named), Ok(Signal::Execute(e)) if e.id.as_deref() == Some("7")));
        assert!(matches!(parse("stop-snapshot", ""), Ok(Signal::Stop(t)) if t.is_empty()));
        assert_eq!(parse("pause-snapshot", "{}").unwrap(), Signal::Pause);
        assert_eq!(parse_record(br#"{"type":"resume-snapshot"}"#).unwrap(), Signal::Resume);
        assert_eq!(parse("log", r#"{"message":"m"}"#).unwrap(), Signal::Log("m".into()));
    }

    #[test]
    fn what_is_wrong_says_why() {
        for (kind, data, why) in [
            ("execute", "{}", "none of execute-snapshot"),
            ("execute-snapshot", "{}", "names no table"),
            ("execute-snapshot", "{", "no JSON"),
            ("execute-snapshot", r#"{"data-collections":"a"}"#, "no list"),
            ("execute-snapshot", r#"{"data-collections":["("]}"#, "regular expression"),
            ("execute-snapshot", r#"{"type":"full","data-collections":["a"]}"#, "neither incremental"),
            ("execute-snapshot", r#"{"data-collections":["a"],"surrogate-key":"x"}"#, "not served"),
            ("execute-snapshot", r#"{"data-collections":["a"],"additional-conditions":[{"filter":"x"}]}"#, "needs"),
        ] {
            let got = parse(kind, data).unwrap_err().to_string();
            assert!(got.contains(why), "{kind} {data}: {got}");
        }
    }

    #[test]
    fn names_of_the_command_line_mean_themselves() {
        let text = data(&["public.a+b".into()], Some("x = 'q\"'"), 9);
        let Signal::Execute(e) = parse("execute-snapshot", &text).unwrap() else { panic!() };
        assert!(e.tables[0].fits("public.a+b") && !e.tables[0].fits("public.aab") && !e.tables[0].fits("publicxa+b"));
        assert_eq!((e.filter_of("public.a+b"), e.rows_per_second), ("x = 'q\"'", 9));
    }
}
