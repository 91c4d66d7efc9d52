//! Random bodies straight from the descriptions, written by a small interpreter that shares nothing with the generated code,
//! together with the place of every count and length in them.

use std::path::Path;

use catchwater_base::rng::Rng;

#[allow(dead_code)]
#[path = "../../../xtask/src/codegen/describe.rs"]
mod describe;

pub use describe::Api;
use describe::{Body, Field, File, Range, Type};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    Request,
    Response,
}

/// From the package that uses this file: this one, or the tests of the broker.
const MESSAGES: &str = "../protocol/messages";

/// A count or length in a body.
#[derive(Clone, Debug)]
pub struct Count {
    pub at: usize,
    pub bytes: usize,
    pub kind: CountKind,
    pub compact: bool,
    pub field: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CountKind {
    Array,
    String,
    Bytes,
}

pub struct Sample {
    pub body: Vec<u8>,
    pub counts: Vec<Count>,
}

pub fn apis() -> Vec<Api> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(MESSAGES);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "msg")
            && let File::Api(api) = describe::parse(&path).unwrap()
        {
            found.push(api);
        }
    }
    found.sort_by_key(|a| a.key);
    found
}

pub fn random(api: &Api, direction: Direction, version: i16, rng: &mut Rng) -> Sample {
    let body = match direction {
        Direction::Request => &api.request,
        Direction::Response => &api.response,
    };
    let flex = api.flex.is_some_and(|f| version >= f);
    let mut made = Maker { body, version, flex, rng, out: Vec::new(), counts: Vec::new() };
    made.fields(&body.fields, false);
    Sample { body: made.out, counts: made.counts }
}

struct Maker<'a> {
    body: &'a Body,
    version: i16,
    flex: bool,
    rng: &'a mut Rng,
    out: Vec<u8>,
    counts: Vec<Count>,
}

fn holds(range: Range, version: i16) -> bool {
    range.min <= version && version <= range.max
}

impl Maker<'_> {
    /// `marked`: every value differs from its default, since a default is left out of the tagged fields.
    fn fields(&mut self, fields: &[Field], marked: bool) {
        let tagged = |f: &&Field| f.tag.is_some_and(|(_, r)| holds(r, self.version));
        let mut tags: Vec<&Field> = fields.iter().filter(tagged).collect();
        tags.sort_by_key(|f| f.tag.map(|t| t.0));
        let plain: Vec<&Field> = fields
            .iter()
            .filter(|f| holds(f.versions, self.version) && !tags.iter().any(|t| t.name == f.name))
            .collect();
        for field in plain {
            self.value(field, marked, self.flex);
        }
        if !self.flex {
            return;
        }
        tags.retain(|_| self.rng.below(2) == 0);
        self.uvarint(tags.len() as u32);
        for field in tags {
            self.uvarint(field.tag.unwrap().0);
            let (out, counts) = (std::mem::take(&mut self.out), std::mem::take(&mut self.counts));
            self.value(field, true, true);
            let (inner, inner_counts) =
                (std::mem::replace(&mut self.out, out), std::mem::replace(&mut self.counts, counts));
            self.uvarint(inner.len() as u32);
            let base = self.out.len();
            self.out.extend(inner);
            self.counts.extend(inner_counts.into_iter().map(|c| Count { at: c.at + base, ..c }));
        }
    }

    fn value(&mut self, field: &Field, marked: bool, flex: bool) {
        let nullable = field.null.is_some_and(|r| holds(r, self.version));
        let null = nullable && !marked && self.rng.below(4) == 0;
        match &field.ty {
            Type::Plain(p) if p == "string" => self.string(field, null, marked, flex),
            Type::Plain(p) if p == "bytes" || p == "records" => {
                let len = if null { None } else { Some(self.rng.below(1_500) as usize) };
                self.count(field, len, CountKind::Bytes, flex);
                self.noise(len.unwrap_or(0));
            }
            Type::Plain(p) => self.number(p),
            Type::Struct(name) => {
                if field.null.is_some() {
                    self.out.push(if null { 0xff } else { 1 });
                    if null {
                        return;
                    }
                }
                let fields = self.struct_fields(field, name);
                self.fields(&fields, marked);
            }
            Type::Array(inner) => {
                let len = if null { None } else { Some(self.rng.below(4) as usize + usize::from(marked)) };
                self.count(field, len, CountKind::Array, flex);
                for _ in 0..len.unwrap_or(0) {
                    match &**inner {
                        Type::Plain(p) if p == "string" => self.string(field, false, false, flex),
                        Type::Plain(p) => self.number(p),
                        Type::Struct(name) => {
                            let fields = self.struct_fields(field, name);
                            self.fields(&fields, false);
                        }
                        Type::Array(_) => unreachable!("no array of arrays"),
                    }
                }
            }
        }
    }

    fn struct_fields(&self, field: &Field, name: &str) -> Vec<Field> {
        if !field.fields.is_empty() {
            return field.fields.clone();
        }
        self.body.structs.iter().find(|(n, _)| n == name).map(|(_, f)| f.clone()).unwrap()
    }

    fn string(&mut self, field: &Field, null: bool, marked: bool, flex: bool) {
        const WORDS: [&str; 6] = ["", "t", "topic-1", "ünïcode ✓", "a.b_c", "0123456789012345678901234567890123456789"];
        let word = WORDS[(self.rng.below(5) + u64::from(marked)) as usize];
        self.count(field, if null { None } else { Some(word.len()) }, CountKind::String, flex);
        if !null {
            self.out.extend(word.as_bytes());
        }
    }

    /// Never a default: those are −1, 0, 1, 3 digits in the descriptions, 2^31 − 1 and 2^63 − 1.
    fn number(&mut self, ty: &str) {
        match ty {
            "bool" => self.out.push(1),
            "i8" | "u8" => self.out.push(2 + self.rng.below(100) as u8),
            "i16" | "u16" => self.out.extend((2_000 + self.rng.below(30_000) as u16).to_be_bytes()),
            "i32" | "u32" => self.out.extend((2_000 + self.rng.below(1 << 31) as u32 / 2).to_be_bytes()),
            "i64" | "u64" => self.out.extend((2_000 + self.rng.below(1 << 62)).to_be_bytes()),
            "f64" => self.out.extend((self.rng.below(1 << 50) as f64 + 0.5).to_be_bytes()),
            "uuid" => {
                self.out.push(1);
                self.noise(15);
            }
            other => unreachable!("type {other}"),
        }
    }

    fn noise(&mut self, len: usize) {
        for _ in 0..len {
            self.out.push(self.rng.below(256) as u8);
        }
    }

    fn count(&mut self, field: &Field, len: Option<usize>, kind: CountKind, compact: bool) {
        let at = self.out.len();
        match (kind, compact) {
            (_, true) => self.uvarint(len.map_or(0, |n| n as u32 + 1)),
            (CountKind::String, false) => self.out.extend(len.map_or(-1, |n| n as i16).to_be_bytes()),
            (_, false) => self.out.extend(len.map_or(-1, |n| n as i32).to_be_bytes()),
        }
        self.counts.push(Count { at, bytes: self.out.len() - at, kind, compact, field: field.name.clone() });
    }

    fn uvarint(&mut self, value: u32) {
        uvarint(&mut self.out, value);
    }
}

pub fn uvarint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
