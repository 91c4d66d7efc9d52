//! Pure. YAML text → a tree in which every key and value knows its place. Phase 1 of the validator.
//!
//! Own tree over `saphyr-parser` events, because its loader stops at a duplicate key and expands aliases. Refused here:
//! anchors, aliases, merge keys, tags but three, several documents. Columns of the parser count from 0, lines from 1; ours count
//! both from 1, in Unicode scalar values.

#![allow(clippy::result_large_err)] // a finding ends the parse of a file: it is built once

use super::finding::{Finding, Span, codes};
use saphyr_parser::{Event, Parser, ScalarStyle};

/// Largest file, bytes.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting.
pub const DEPTH_MAX: usize = 32;
/// Most nodes of a file.
pub const NODES_MAX: usize = 100_000;

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub span: Span,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Text of a scalar; `plain` = written without quotes.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// `!any` and the like; only expectations of tests have a use for them.
    Marked(Mark, String),
    /// `key:` with nothing behind it.
    Null,
}

/// The tags that a file may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    Any,
    Absent,
    Approx,
}

impl Mark {
    const ALL: [(Mark, &'static str); 3] = [(Mark::Any, "any"), (Mark::Absent, "absent"), (Mark::Approx, "approx")];
}

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub key: String,
    pub key_span: Span,
    pub value: Node,
}

impl Node {
    pub fn what(&self) -> &'static str {
        match self.kind {
            Kind::Scalar { .. } => "a text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
            Kind::Marked(..) => "a mark (!any, !absent, !approx), which only tests have a use for",
            Kind::Null => "nothing",
        }
    }
    pub fn entries(&self) -> &[Entry] {
        match &self.kind {
            Kind::Map(entries) => entries,
            _ => &[],
        }
    }
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|e| e.key == key)
    }
}

/// Parses one document. A syntax error ends the file; everything else is collected.
pub fn parse(bytes: &[u8]) -> Result<(Node, Vec<Finding>), Vec<Finding>> {
    let one = |code, span, message: String| Err(vec![Finding::error(code, span, message)]);
    if bytes.len() > FILE_BYTES_MAX {
        return one(codes::TEXT, Span::START, format!("the file has {} bytes, at most {FILE_BYTES_MAX}", bytes.len()));
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(t) => t.strip_prefix('\u{feff}').unwrap_or(t),
        Err(e) => {
            let good = String::from_utf8_lossy(&bytes[..e.valid_up_to()]).into_owned();
            let line = good.matches('\n').count() + 1;
            let column = good.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            return one(codes::TEXT, Span::at(line, column), "the file is not UTF-8".into());
        }
    };
    for (n, line) in text.lines().enumerate() {
        let indent: String = line.chars().take_while(|c| c.is_whitespace()).collect();
        if let Some(at) = indent.chars().position(|c| c == '\t') {
            if line.trim_start().starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let f = Finding::error(codes::SYNTAX, Span::at(n + 1, at + 1), "a tab may not indent YAML".into());
            return Err(vec![f.suggest("use spaces")]);
        }
    }
    let mut builder = Builder { findings: Vec::new(), nodes: 0 };
    let mut events = Parser::new_from_str(text);
    let mut root = None;
    loop {
        match events.next() {
            None => break,
            Some(Err(e)) => {
                let m = e.marker();
                let span = Span::at(m.line(), m.col() + 1);
                let mut f = Finding::error(codes::SYNTAX, span, format!("this is not YAML: {}", e.info()));
                let line = text.lines().nth(m.line().saturating_sub(1)).unwrap_or_default();
                if line.contains("${") && line.contains('{') && !line.contains("\"${") {
                    f = f.suggest("write \"${…}\" in quotes: inside { } a bare ${ begins a mapping");
                }
                builder.findings.push(f);
                return Err(builder.findings);
            }
            Some(Ok((Event::StreamEnd, _))) => break,
            Some(Ok((Event::StreamStart | Event::Nothing | Event::DocumentEnd, _))) => {}
            Some(Ok((Event::DocumentStart(_), span))) => {
                if root.is_some() {
                    builder.findings.push(Finding::error(
                        codes::SYNTAX,
                        Span::of(span),
                        "a second document; one pipeline per file".into(),
                    ));
                    return Err(builder.findings);
                }
            }
            Some(Ok((event, span))) => match builder.node(event, span, &mut events, 0) {
                Ok(node) => root = Some(node),
                Err(f) => {
                    builder.findings.push(f);
                    return Err(builder.findings);
                }
            },
        }
    }
    match root {
        Some(node) => Ok((node, builder.findings)),
        None => one(codes::SHAPE, Span::START, "the file is empty".into()),
    }
}

struct Builder {
    findings: Vec<Finding>,
    nodes: usize,
}

type Events<'a> = Parser<'a, saphyr_parser::StrInput<'a>>;

impl Builder {
    fn next<'a>(&mut self, events: &mut Events<'a>) -> Result<(Event<'a>, saphyr_parser::Span), Finding> {
        match events.next() {
            Some(Ok(e)) => Ok(e),
            Some(Err(e)) => {
                let m = e.marker();
                let f = Finding::error(
                    codes::SYNTAX,
                    Span::at(m.line(), m.col() + 1),
                    format!("this is not YAML: {}", e.info()),
                );
                Err(f.suggest("a value that begins with ${ or { needs quotes inside { }"))
            }
            None => Err(Finding::error(codes::SYNTAX, Span::START, "the file ends early".into())),
        }
    }

    fn refuse_extras(&mut self, anchor: usize, tag: bool, span: Span) {
        if anchor != 0 {
            self.findings.push(Finding::error(codes::SYNTAX, span, "anchors are not allowed".into()));
        }
        if tag {
            self.findings.push(Finding::error(codes::SYNTAX, span, "tags are not allowed here".into()));
        }
    }

    fn node<'a>(
        &mut self,
        event: Event<'a>,
        span: saphyr_parser::Span,
        events: &mut Events<'a>,
        depth: usize,
    ) -> Result<Node, Finding> {
        self.nodes += 1;
        let at = Span::of(span);
        if depth > DEPTH_MAX || self.nodes > NODES_MAX {
            let why = format!("more than {DEPTH_MAX} levels or {NODES_MAX} nodes");
            return Err(Finding::error(codes::TEXT, at, why));
        }
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let word = tag.as_ref().filter(|t| t.handle == "!").map(|t| t.suffix.as_str());
                if let Some((mark, _)) = Mark::ALL.into_iter().find(|(_, name)| Some(*name) == word) {
                    self.refuse_extras(anchor, false, at);
                    return Ok(Node { span: at, kind: Kind::Marked(mark, text.into_owned()) });
                }
                self.refuse_extras(anchor, tag.is_some(), at);
                let plain = style == ScalarStyle::Plain;
                if plain && (text.is_empty() || text == "~" || text == "null") {
                    return Ok(Node { span: at, kind: Kind::Null });
                }
                Ok(Node { span: at, kind: Kind::Scalar { text: text.into_owned(), plain } })
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_extras(anchor, tag.is_some(), at);
                let mut items = Vec::new();
                loop {
                    match self.next(events)? {
                        (Event::SequenceEnd, end) => {
                            return Ok(Node { span: at.to(Span::of(end)), kind: Kind::List(items) });
                        }
                        (e, s) => items.push(self.node(e, s, events, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_extras(anchor, tag.is_some(), at);
                let mut entries: Vec<Entry> = Vec::new();
                loop {
                    let (key, key_span) = match self.next(events)? {
                        (Event::MappingEnd, end) => {
                            return Ok(Node { span: at.to(Span::of(end)), kind: Kind::Map(entries) });
                        }
                        (Event::Scalar(text, ..), s) => (text.into_owned(), Span::of(s)),
                        (_, s) => {
                            let f = Finding::error(codes::SYNTAX, Span::of(s), "a key must be a text".into());
                            return Err(f.suggest("write ${…} in quotes"));
                        }
                    };
                    let (e, s) = self.next(events)?;
                    let value = self.node(e, s, events, depth + 1)?;
                    if key == "<<" {
                        self.findings.push(Finding::error(
                            codes::SYNTAX,
                            key_span,
                            "merge keys are not allowed".into(),
                        ));
                    } else if let Some(first) = entries.iter().find(|x| x.key == key) {
                        let why = format!("`{key}` stands twice; first at line {}", first.key_span.line);
                        self.findings.push(Finding::error(codes::DUPLICATE, key_span, why));
                    } else {
                        entries.push(Entry { key, key_span, value });
                    }
                }
            }
            Event::Alias(_) => Err(Finding::error(codes::SYNTAX, at, "aliases are not allowed".into())),
            other => Err(Finding::error(codes::SYNTAX, at, format!("unexpected {other:?}"))),
        }
    }
}
