//! The description format of `protocol/messages/*.msg`, parsed.
//!
//! `name type versions`, then any of `null V`, `tag N V`, `= default`, `ign`, `key`, `flex none`. Indentation (two
//! blanks a level) nests; a struct's fields stand below its first use, or below `struct Name V` at field level 1.

use std::path::Path;

use anyhow::{Context, Result, bail};

pub const LATEST: i16 = i16::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    pub min: i16,
    pub max: i16,
}

impl Range {
    pub fn parse(text: &str) -> Result<Range> {
        if let Some(min) = text.strip_suffix('+') {
            return Ok(Range { min: min.parse()?, max: LATEST });
        }
        if let Some((min, max)) = text.split_once('-') {
            return Ok(Range { min: min.parse()?, max: max.parse()? });
        }
        let only = text.parse().with_context(|| format!("versions {text:?}"))?;
        Ok(Range { min: only, max: only })
    }
    pub fn meets(self, other: Range) -> bool {
        self.min <= other.max && other.min <= self.max
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.max == LATEST {
            write!(f, "{}+", self.min)
        } else if self.max == self.min {
            write!(f, "{}", self.min)
        } else {
            write!(f, "{}-{}", self.min, self.max)
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Type {
    /// bool i8 i16 i32 i64 u8 u16 u32 u64 f64 uuid string bytes records
    Plain(String),
    Struct(String),
    Array(Box<Type>),
}

#[derive(Clone, PartialEq, Debug)]
pub struct Field {
    pub name: String,
    pub ty: Type,
    pub versions: Range,
    pub null: Option<Range>,
    pub tag: Option<(u32, Range)>,
    pub default: Option<String>,
    pub ignorable: bool,
    pub key: bool,
    pub flex_none: bool,
    pub fields: Vec<Field>,
}

#[derive(Clone, PartialEq, Debug, Default)]
pub struct Body {
    /// Structs declared on their own: name and fields.
    pub structs: Vec<(String, Vec<Field>)>,
    pub fields: Vec<Field>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Api {
    pub key: i16,
    pub name: String,
    pub versions: Range,
    pub flex: Option<i16>,
    pub request: Body,
    pub response: Body,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Schema {
    pub name: String,
    pub versions: Range,
    pub flex: Option<i16>,
    pub id: Option<i16>,
    pub body: Body,
}

pub enum File {
    Api(Api),
    Records(Vec<Schema>),
}

struct Line<'a> {
    number: usize,
    level: usize,
    words: Vec<&'a str>,
}

pub fn parse(path: &Path) -> Result<File> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    parse_text(&text).with_context(|| path.display().to_string())
}

pub fn parse_text(text: &str) -> Result<File> {
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or("").trim_end();
        if line.is_empty() {
            continue;
        }
        let body = line.trim_start_matches(' ');
        let blanks = line.len() - body.len();
        if blanks % 2 != 0 {
            bail!("line {}: indentation is two blanks a level", number + 1);
        }
        lines.push(Line { number: number + 1, level: blanks / 2, words: body.split_whitespace().collect() });
    }
    let first = lines.first().context("empty description")?;
    match first.words.as_slice() {
        ["api", key, name, versions, "flex", flex] => {
            let mut api = Api {
                key: key.parse()?,
                name: (*name).to_owned(),
                versions: Range::parse(versions)?,
                flex: parse_flex(flex)?,
                request: Body::default(),
                response: Body::default(),
            };
            let mut at = 1;
            while at < lines.len() {
                let head = &lines[at];
                let body = match (head.level, head.words.as_slice()) {
                    (0, ["request"]) => &mut api.request,
                    (0, ["response"]) => &mut api.response,
                    _ => bail!("line {}: `request` or `response` expected", head.number),
                };
                at += 1;
                *body = parse_body(&lines, &mut at)?;
            }
            Ok(File::Api(api))
        }
        ["record", ..] => {
            let mut schemas = Vec::new();
            let mut at = 0;
            while at < lines.len() {
                let head = &lines[at];
                let ["record", name, versions, "flex", flex, rest @ ..] = head.words.as_slice() else {
                    bail!("line {}: `record Name V flex F [id N]` expected", head.number);
                };
                let id = match rest {
                    [] => None,
                    ["id", id] => Some(id.parse()?),
                    _ => bail!("line {}: only `id N` may follow", head.number),
                };
                at += 1;
                schemas.push(Schema {
                    name: (*name).to_owned(),
                    versions: Range::parse(versions)?,
                    flex: parse_flex(flex)?,
                    id,
                    body: parse_body(&lines, &mut at)?,
                });
            }
            Ok(File::Records(schemas))
        }
        _ => bail!("a description begins with `api KEY Name V flex F` or `record Name V flex F`"),
    }
}

fn parse_flex(text: &str) -> Result<Option<i16>> {
    if text == "-" { Ok(None) } else { Ok(Some(text.parse()?)) }
}

fn parse_body(lines: &[Line<'_>], at: &mut usize) -> Result<Body> {
    let mut body = Body::default();
    while let Some(line) = lines.get(*at).filter(|l| l.level == 1) {
        if let ["struct", name, _versions] = line.words.as_slice() {
            *at += 1;
            let fields = parse_fields(lines, at, 2)?;
            body.structs.push(((*name).to_owned(), fields));
        } else {
            body.fields.push(parse_field(lines, at, 1)?);
        }
    }
    if let Some(line) = lines.get(*at).filter(|l| l.level > 1) {
        bail!("line {}: nested below nothing", line.number);
    }
    Ok(body)
}

fn parse_fields(lines: &[Line<'_>], at: &mut usize, level: usize) -> Result<Vec<Field>> {
    let mut fields = Vec::new();
    while lines.get(*at).is_some_and(|l| l.level == level) {
        fields.push(parse_field(lines, at, level)?);
    }
    Ok(fields)
}

fn parse_field(lines: &[Line<'_>], at: &mut usize, level: usize) -> Result<Field> {
    let line = &lines[*at];
    let [name, ty, versions, rest @ ..] = line.words.as_slice() else {
        bail!("line {}: `name type versions` expected", line.number);
    };
    let mut field = Field {
        name: (*name).to_owned(),
        ty: parse_type(ty),
        versions: Range::parse(versions).with_context(|| format!("line {}", line.number))?,
        null: None,
        tag: None,
        default: None,
        ignorable: false,
        key: false,
        flex_none: false,
        fields: Vec::new(),
    };
    let mut rest = rest;
    loop {
        rest = match rest {
            [] => break,
            ["null", range, rest @ ..] => {
                field.null = Some(Range::parse(range)?);
                rest
            }
            ["tag", tag, range, rest @ ..] => {
                field.tag = Some((tag.parse()?, Range::parse(range)?));
                rest
            }
            ["=", value, rest @ ..] => {
                field.default = Some((*value).to_owned());
                rest
            }
            ["ign", rest @ ..] => {
                field.ignorable = true;
                rest
            }
            ["key", rest @ ..] => {
                field.key = true;
                rest
            }
            ["flex", "none", rest @ ..] => {
                field.flex_none = true;
                rest
            }
            [word, ..] => bail!("line {}: unknown word {word:?}", line.number),
        };
    }
    *at += 1;
    field.fields = parse_fields(lines, at, level + 1)?;
    if lines.get(*at).is_some_and(|l| l.level > level) {
        bail!("line {}: indented too far", lines[*at].number);
    }
    Ok(field)
}

pub fn parse_type(text: &str) -> Type {
    if let Some(inner) = text.strip_prefix("[]") {
        return Type::Array(Box::new(parse_type(inner)));
    }
    match text {
        "bool" | "i8" | "i16" | "i32" | "i64" | "u8" | "u16" | "u32" | "u64" | "f64" | "uuid" | "string" | "bytes"
        | "records" => Type::Plain(text.to_owned()),
        name => Type::Struct(name.to_owned()),
    }
}

pub fn type_text(ty: &Type) -> String {
    match ty {
        Type::Plain(name) | Type::Struct(name) => name.clone(),
        Type::Array(inner) => format!("[]{}", type_text(inner)),
    }
}

/// Back into text, in the order `null tag = ign key flex`; what `--facts --write` writes.
pub fn print_body(body: &Body, out: &mut String) {
    for (name, fields) in &body.structs {
        let versions = Range { min: 0, max: LATEST };
        out.push_str(&format!("  struct {name} {versions}\n"));
        print_fields(fields, 2, out);
    }
    print_fields(&body.fields, 1, out);
}

fn print_fields(fields: &[Field], level: usize, out: &mut String) {
    let name_width = fields.iter().map(|f| f.name.len()).max().unwrap_or(0);
    let type_width = fields.iter().map(|f| type_text(&f.ty).len()).max().unwrap_or(0);
    for field in fields {
        let mut line = format!(
            "{}{:name_width$} {:type_width$} {}",
            "  ".repeat(level),
            field.name,
            type_text(&field.ty),
            field.versions
        );
        if let Some(null) = field.null {
            line.push_str(&format!(" null {null}"));
        }
        if let Some((tag, range)) = field.tag {
            line.push_str(&format!(" tag {tag} {range}"));
        }
        if let Some(default) = &field.default {
            line.push_str(&format!(" = {default}"));
        }
        for (word, on) in [("ign", field.ignorable), ("key", field.key), ("flex none", field.flex_none)] {
            if on {
                line.push(' ');
                line.push_str(word);
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
        print_fields(&field.fields, level + 1, out);
    }
}
