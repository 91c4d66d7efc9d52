//! Pure. The `tests:` of a pipeline file: changes given to sources, rows expected at sinks.
//!
//! ```yaml
//! tests:
//!   - name: deleted orders are kept
//!     given:
//!       shop.public.orders:                  # or { key: [id], changes: [ … ] }; without `key` the column `id` is it
//!         - { op: c, after: { id: 1, total: 5.00 } }
//!         - { op: d, before: { id: 1 } }
//!     expect:
//!       copy.orders: [ { id: 1, total: 5, _deleted_at: !any } ]
//! ```

use super::finding::{Finding, Span, codes, nearest};
use super::model::Pipeline;
use super::tree::{Entry, Kind, Mark, Node};

/// Most rows that one table of a test is expected to have.
pub const ROWS_MAX: usize = 1000;
/// Most tests of one file.
pub const TESTS_MAX: usize = 1000;

#[derive(Clone, PartialEq, Debug)]
pub struct Test {
    pub name: String,
    pub line: usize,
    pub given: Vec<Given>,
    pub expect: Vec<Expect>,
}

/// Changes of one table, in their order.
#[derive(Clone, PartialEq, Debug)]
pub struct Given {
    pub source: String,
    pub schema: String,
    pub table: String,
    pub key: Option<Vec<String>>,
    pub changes: Vec<Change>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Change {
    pub line: usize,
    /// `c u d r t`
    pub op: u8,
    pub before: Option<Vec<(String, Cell)>>,
    pub after: Option<Vec<(String, Cell)>>,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Cell {
    Null,
    /// `!absent`: the source did not send it.
    Unsent,
    Scalar {
        text: String,
        plain: bool,
    },
}

/// Rows of one table of a sink, in any order.
#[derive(Clone, PartialEq, Debug)]
pub struct Expect {
    pub sink: String,
    /// Name of the target table; `None` = the sink's only one.
    pub table: Option<String>,
    pub line: usize,
    pub rows: Vec<ExpectedRow>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct ExpectedRow {
    pub line: usize,
    /// What is not listed may be anything.
    pub fields: Vec<(String, Wanted)>,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Wanted {
    Null,
    /// Something or NULL, but the column is there.
    Any,
    /// The table has no such column.
    Absent,
    Approx(f64),
    Value {
        text: String,
        plain: bool,
    },
}

struct Reader<'a> {
    pipeline: &'a Pipeline,
    findings: &'a mut Vec<Finding>,
}

/// All tests of a file, as far as they are well-formed.
pub fn read(root: &Node, pipeline: &Pipeline, findings: &mut Vec<Finding>) -> Vec<Test> {
    let Some(entry) = root.get("tests") else { return Vec::new() };
    let mut reader = Reader { pipeline, findings };
    let Kind::List(items) = &entry.value.kind else {
        reader.wrong(entry.value.span, "tests", format!("`tests` must be a list, this is {}", entry.value.what()));
        return Vec::new();
    };
    if items.len() > TESTS_MAX {
        reader.error(codes::BAD_VALUE, entry.key_span, "tests", format!("more than {TESTS_MAX} tests"));
        return Vec::new();
    }
    items.iter().enumerate().filter_map(|(i, node)| reader.test(node, &format!("tests.{i}"))).collect()
}

impl Reader<'_> {
    fn error(&mut self, code: &'static str, span: Span, path: &str, message: String) -> &mut Finding {
        self.findings.push(Finding::error(code, span, message).path(path));
        let last = self.findings.len() - 1;
        &mut self.findings[last]
    }
    fn wrong(&mut self, span: Span, path: &str, message: String) {
        self.error(codes::WRONG_TYPE, span, path, message);
    }

    /// The entries of a mapping that has only these keys.
    fn fields<'n>(&mut self, node: &'n Node, known: &[&str], path: &str) -> Option<&'n [Entry]> {
        let Kind::Map(entries) = &node.kind else {
            self.wrong(node.span, path, format!("`{path}` must be a mapping, this is {}", node.what()));
            return None;
        };
        for entry in entries.iter().filter(|e| !known.contains(&e.key.as_str())) {
            let near = nearest(&entry.key, known.iter().copied());
            let hint = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: `{}`", known.join("`, `")),
            };
            let message = format!("unknown field `{}` in `{path}`", entry.key);
            self.error(codes::UNKNOWN_FIELD, entry.key_span, path, message).suggestions.push(hint);
        }
        Some(entries)
    }

    fn test(&mut self, node: &Node, path: &str) -> Option<Test> {
        self.fields(node, &["name", "given", "expect"], path)?;
        let before = self.findings.len();
        let mut out = Test { name: String::new(), line: node.span.line, given: Vec::new(), expect: Vec::new() };
        for key in ["name", "given", "expect"] {
            let Some(entry) = node.get(key) else {
                self.error(codes::MISSING_FIELD, node.span, path, format!("`{path}` needs `{key}`"));
                continue;
            };
            let here = format!("{path}.{key}");
            match (key, &entry.value.kind) {
                ("name", Kind::Scalar { text, .. }) => out.name.clone_from(text),
                ("given", Kind::Map(tables)) => {
                    out.given = tables.iter().filter_map(|t| self.given(t, &here)).collect()
                }
                ("expect", Kind::Map(nodes)) => {
                    out.expect = nodes.iter().filter_map(|n| self.expect(n, &here)).collect()
                }
                _ => {
                    let wanted = if key == "name" { "a text" } else { "a mapping" };
                    let message = format!("`{key}` must be {wanted}, this is {}", entry.value.what());
                    self.wrong(entry.value.span, &here, message);
                }
            }
        }
        (self.findings.len() == before).then_some(out)
    }

    fn given(&mut self, entry: &Entry, path: &str) -> Option<Given> {
        let full = entry.key.as_str();
        let (source, rest) = full.split_once('.').unwrap_or((full, ""));
        let found = self.pipeline.sources.get(source);
        if found.is_none_or(|s| rest.is_empty() || s.table_names(full, source).is_empty() || full.ends_with('*')) {
            let all: Vec<String> = self
                .pipeline
                .sources
                .iter()
                .flat_map(|(n, s)| s.named().into_iter().map(move |t| format!("{n}.{t}")))
                .collect();
            let near = nearest(full, all.iter().map(String::as_str)).map(|n| format!("did you mean `{n}`?"));
            let hint = near.unwrap_or_else(|| format!("captured: `{}`", all.join("`, `")));
            let message = format!("`{full}` is no captured table");
            self.error(codes::UNKNOWN_FROM, entry.key_span, path, message).suggestions.push(hint);
            return None;
        }
        let qualified = found.map(|s| s.qualify(rest)).unwrap_or_default();
        let (schema, table) = qualified.split_once('.').unwrap_or(("", &qualified));
        let here = format!("{path}.{full}");
        let (key, list) = match &entry.value.kind {
            Kind::Map(_) => {
                self.fields(&entry.value, &["key", "changes"], &here)?;
                let key =
                    entry.value.get("key").map(|k| super::check::texts(Some(k)).into_iter().map(|t| t.0).collect());
                let Some(changes) = entry.value.get("changes") else {
                    self.error(codes::MISSING_FIELD, entry.key_span, &here, format!("`{full}` needs `changes`"));
                    return None;
                };
                (key, &changes.value)
            }
            _ => (None, &entry.value),
        };
        let Kind::List(items) = &list.kind else {
            self.wrong(list.span, &here, format!("`{full}` must hold a list of changes, this is {}", list.what()));
            return None;
        };
        let changes = items.iter().filter_map(|c| self.change(c, &here)).collect();
        Some(Given { source: source.into(), schema: schema.into(), table: table.into(), key, changes })
    }

    fn change(&mut self, node: &Node, path: &str) -> Option<Change> {
        self.fields(node, &["op", "before", "after"], path)?;
        let row = |reader: &mut Self, key: &str| -> Option<Vec<(String, Cell)>> {
            let entry = node.get(key)?;
            if matches!(entry.value.kind, Kind::Null) {
                return None;
            }
            let Kind::Map(entries) = &entry.value.kind else {
                reader.wrong(
                    entry.value.span,
                    path,
                    format!("`{key}` must be a mapping, this is {}", entry.value.what()),
                );
                return None;
            };
            Some(entries.iter().filter_map(|e| reader.cell(e, path)).collect())
        };
        let (before, after) = (row(self, "before"), row(self, "after"));
        let op = match node.get("op").map(|e| (&e.value.kind, e.value.span)) {
            None if after.is_some() => {
                if before.is_some() {
                    b'u'
                } else {
                    b'c'
                }
            }
            None if before.is_some() => b'd',
            Some((Kind::Scalar { text, .. }, _)) if matches!(text.as_str(), "c" | "u" | "d" | "r" | "t") => {
                text.as_bytes()[0]
            }
            other => {
                let span = other.map_or(node.span, |(_, span)| span);
                let message =
                    "`op` is one of c (insert), u (update), d (delete), r (snapshot), t (truncate)".to_owned();
                self.error(codes::BAD_VALUE, span, path, message);
                return None;
            }
        };
        let needs = match op {
            b'c' | b'u' | b'r' => after.is_none().then_some("after"),
            b'd' => before.is_none().then_some("before"),
            _ => None,
        };
        if let Some(needs) = needs {
            let message = format!("`op: {}` needs `{needs}`", char::from(op));
            self.error(codes::MISSING_FIELD, node.span, path, message);
            return None;
        }
        Some(Change { line: node.span.line, op, before, after })
    }

    fn cell(&mut self, entry: &Entry, path: &str) -> Option<(String, Cell)> {
        let cell = match &entry.value.kind {
            Kind::Null => Cell::Null,
            Kind::Marked(Mark::Absent, _) => Cell::Unsent,
            Kind::Scalar { text, plain } => Cell::Scalar { text: text.clone(), plain: *plain },
            _ => {
                let message = format!("`{}` must be a value, this is {}", entry.key, entry.value.what());
                self.wrong(entry.value.span, path, message);
                return None;
            }
        };
        Some((entry.key.clone(), cell))
    }

    fn expect(&mut self, entry: &Entry, path: &str) -> Option<Expect> {
        let (sink, table) = match entry.key.split_once('.') {
            Some((sink, table)) => (sink, Some(table.to_owned())),
            None => (entry.key.as_str(), None),
        };
        if !self.pipeline.sinks.contains_key(sink) {
            let names: Vec<&str> = self.pipeline.sinks.keys().map(String::as_str).collect();
            let near = nearest(sink, names.iter().copied()).map(|n| format!("did you mean `{n}`?"));
            let hint = near.unwrap_or_else(|| format!("sinks: `{}`", names.join("`, `")));
            let message = format!("`{}` begins with no sink of this file: SINK.TABLE", entry.key);
            self.error(codes::UNKNOWN_FROM, entry.key_span, path, message).suggestions.push(hint);
            return None;
        }
        let Kind::List(items) = &entry.value.kind else {
            let message = format!("`{}` must hold a list of rows, this is {}", entry.key, entry.value.what());
            self.wrong(entry.value.span, path, message);
            return None;
        };
        if items.len() > ROWS_MAX {
            self.error(codes::BAD_VALUE, entry.key_span, path, format!("more than {ROWS_MAX} rows"));
            return None;
        }
        let mut rows = Vec::new();
        for item in items {
            let Kind::Map(entries) = &item.kind else {
                self.wrong(item.span, path, format!("a row must be a mapping, this is {}", item.what()));
                continue;
            };
            let fields = entries.iter().filter_map(|e| self.wanted(e, path)).collect();
            rows.push(ExpectedRow { line: item.span.line, fields });
        }
        Some(Expect { sink: sink.to_owned(), table, line: entry.key_span.line, rows })
    }

    fn wanted(&mut self, entry: &Entry, path: &str) -> Option<(String, Wanted)> {
        let wanted = match &entry.value.kind {
            Kind::Null => Wanted::Null,
            Kind::Marked(Mark::Any, _) => Wanted::Any,
            Kind::Marked(Mark::Absent, _) => Wanted::Absent,
            Kind::Marked(Mark::Approx, text) => match text.parse::<f64>() {
                Ok(n) if n.is_finite() => Wanted::Approx(n),
                _ => {
                    self.error(codes::BAD_VALUE, entry.value.span, path, "`!approx` needs a number".into());
                    return None;
                }
            },
            Kind::Scalar { text, plain } => Wanted::Value { text: text.clone(), plain: *plain },
            _ => {
                let message = format!("`{}` must be a value, this is {}", entry.key, entry.value.what());
                self.wrong(entry.value.span, path, message);
                return None;
            }
        };
        Some((entry.key.clone(), wanted))
    }
}
