//! Pure. JSON as Jackson writes it (Debezium's converter), and a small reader for what comes back.
//!
//! Writer: characters above U+FFFF leave as two `\uXXXX` escapes, control characters as `\b \f \n \r \t` or `\u00XX`,
//! floats as `Double.toString` prints them, NaN and the infinities as strings. Source: recordings in `tests/golden`.
//! Reader: foreign bytes; nesting at most [`DEPTH_MAX`], containers grow as elements arrive.

use crate::value::Text;
use std::borrow::Cow;

/// Deepest nesting the reader follows.
pub const DEPTH_MAX: usize = 64;

/// Appends `s` as a JSON string.
pub fn put_string(out: &mut Vec<u8>, s: &str) {
    put_text(out, s, 0xffff);
}

/// As [`put_string`], of text that was checked when it was made: most needs no look at it as characters.
pub fn put_checked(out: &mut Vec<u8>, text: &Text) {
    let bytes = text.as_bytes();
    if is_plain(bytes) {
        out.reserve(bytes.len() + 2);
        out.push(b'"');
        out.extend_from_slice(bytes);
        out.push(b'"');
    } else {
        put_string(out, text.as_str());
    }
}

/// As [`put_string`], but characters above U+FFFF stay as they are: JSON that stands inside a JSON string.
pub fn put_inner_string(out: &mut Vec<u8>, s: &str) {
    put_text(out, s, u32::from(char::MAX));
}

/// Nothing in it needs an escape. Looks at many bytes at a time: most texts are plain.
fn is_plain(bytes: &[u8]) -> bool {
    // From 0xf0 on a byte begins a character above U+FFFF.
    let odd = |b: &u8| *b < 0x20 || *b == b'"' || *b == b'\\' || *b >= 0xf0;
    bytes.chunks(32).all(|some| !some.iter().fold(false, |any, b| any | odd(b)))
}

fn put_text(out: &mut Vec<u8>, s: &str, plain_max: u32) {
    let bytes = s.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    if is_plain(bytes) {
        out.extend_from_slice(bytes);
        out.push(b'"');
        return;
    }
    let mut from = 0;
    for (i, c) in s.char_indices() {
        let plain = c >= ' ' && c != '"' && c != '\\' && u32::from(c) <= plain_max;
        if plain {
            continue;
        }
        out.extend_from_slice(&bytes[from..i]);
        from = i + c.len_utf8();
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\u{8}' => out.extend_from_slice(b"\\b"),
            '\u{c}' => out.extend_from_slice(b"\\f"),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    put_escape(out, *unit);
                }
            }
        }
    }
    out.extend_from_slice(&bytes[from..]);
    out.push(b'"');
}

fn put_escape(out: &mut Vec<u8>, unit: u16) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(b"\\u");
    for shift in [12, 8, 4, 0] {
        out.push(HEX[usize::from((unit >> shift) & 15)]);
    }
}

/// Appends an integer.
pub fn put_i64(out: &mut Vec<u8>, v: i64) {
    if v < 0 {
        out.push(b'-');
    }
    put_u64(out, v.unsigned_abs());
}

/// Appends an integer.
pub fn put_u64(out: &mut Vec<u8>, v: u64) {
    out.extend_from_slice(Digits::of(v).as_bytes());
}

/// The two digits of each number below 100.
const PAIRS: &[u8; 200] =
    b"0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849\
    5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";

/// The digits of a number, for those that are written more than once.
pub struct Digits {
    digits: [u8; 20],
    at: usize,
}

impl Digits {
    pub fn of(mut v: u64) -> Self {
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        while v >= 100 {
            let pair = (v % 100) as usize * 2;
            v /= 100;
            at -= 2;
            digits[at..at + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
        }
        if v >= 10 {
            let pair = v as usize * 2;
            at -= 2;
            digits[at..at + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
        } else {
            at -= 1;
            digits[at] = b'0' + v as u8;
        }
        Digits { digits, at }
    }
    pub fn as_bytes(&self) -> &[u8] {
        &self.digits[self.at..]
    }
}

/// A finite float as `d.ddd × 10^exponent`, in the shortest digits that give the number back. One digit is as good as another
/// then, so of the numbers with two the nearest: `4.9E-324`. Source: `java.lang.Double.toString`.
#[derive(Debug, PartialEq)]
struct Scientific {
    negative: bool,
    /// At most 17.
    digits: [u8; 20],
    len: usize,
    exponent: i32,
}

impl Scientific {
    fn of<F: zmij::Float + std::fmt::LowerExp + std::str::FromStr + PartialEq>(v: F) -> Self {
        let short = Self::read(zmij::Buffer::new().format_finite(v));
        // Others than the very smallest have digits enough for the nearest of two to end in 0.
        if short.len == 1 && short.exponent < -40 {
            let two = format!("{v:.1e}");
            if !two.contains(".0e") && two.parse().is_ok_and(|same: F| same == v) {
                return Self::read(&two);
            }
        }
        short
    }

    /// Of `-12.5`, `0.00125`, `1.25e-7`.
    fn read(text: &str) -> Self {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
        let (mut digits, mut len, mut exponent, mut point) = ([b'0'; 20], 0, -1, false);
        for (at, b) in text.bytes().enumerate() {
            match b {
                b'.' => point = true,
                b'e' => {
                    exponent += text[at + 1..].parse::<i32>().unwrap_or(0);
                    break;
                }
                // Zeros in front only move the point.
                b'0' if len == 0 => exponent -= i32::from(point),
                digit => {
                    exponent += i32::from(!point);
                    if let Some(place) = digits.get_mut(len) {
                        *place = digit;
                        len += 1;
                    }
                }
            }
        }
        while len > 1 && digits[len - 1] == b'0' {
            len -= 1;
        }
        if len == 0 {
            return Scientific { negative, digits, len: 1, exponent: 0 };
        }
        Scientific { negative, digits, len, exponent }
    }
}

/// Appends a float as Java's `toString` would print it.
fn put_scientific(out: &mut Vec<u8>, shortest: &Scientific) {
    let exponent = shortest.exponent;
    if shortest.negative {
        out.push(b'-');
    }
    // The first digit, and those behind the point.
    let (first, rest) = (shortest.digits[0], &shortest.digits[1..shortest.len]);
    match exponent {
        0.. if exponent < 7 => {
            let whole = (exponent as usize).min(rest.len());
            out.push(first);
            out.extend_from_slice(&rest[..whole]);
            out.resize(out.len() + exponent as usize - whole, b'0');
            out.push(b'.');
            out.extend_from_slice(if whole < rest.len() { &rest[whole..] } else { b"0" });
        }
        -3..=-1 => {
            out.extend_from_slice(b"0.");
            out.resize(out.len() + (-exponent - 1) as usize, b'0');
            out.push(first);
            out.extend_from_slice(rest);
        }
        _ => {
            out.push(first);
            out.push(b'.');
            out.extend_from_slice(if rest.is_empty() { b"0" } else { rest });
            out.push(b'E');
            put_i64(out, i64::from(exponent));
        }
    }
}

/// Appends a double.
pub fn put_f64(out: &mut Vec<u8>, v: f64) {
    if v.is_finite() {
        put_scientific(out, &Scientific::of(v));
    } else {
        put_non_finite(out, v);
    }
}

/// Appends a float.
pub fn put_f32(out: &mut Vec<u8>, v: f32) {
    if v.is_finite() {
        put_scientific(out, &Scientific::of(v));
    } else {
        put_non_finite(out, f64::from(v));
    }
}

fn put_non_finite(out: &mut Vec<u8>, v: f64) {
    let text: &[u8] = if v.is_nan() {
        b"\"NaN\""
    } else if v > 0.0 {
        b"\"Infinity\""
    } else {
        b"\"-Infinity\""
    };
    out.extend_from_slice(text);
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends bytes as a string of standard base64 with padding.
pub fn put_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for chunk in bytes.chunks(3) {
        let b = [chunk[0], *chunk.get(1).unwrap_or(&0), *chunk.get(2).unwrap_or(&0)];
        let n = u32::from(b[0]) << 16 | u32::from(b[1]) << 8 | u32::from(b[2]);
        for i in 0..4 {
            let six = (n >> (18 - 6 * i)) & 63;
            out.push(if i <= chunk.len() { BASE64[six as usize] } else { b'=' });
        }
    }
    out.push(b'"');
}

/// As [`put_base64`] in the alphabet that is safe in URLs, padding kept.
pub fn put_base64_url(out: &mut Vec<u8>, bytes: &[u8]) {
    let from = out.len();
    put_base64(out, bytes);
    for b in &mut out[from..] {
        *b = match *b {
            b'+' => b'-',
            b'/' => b'_',
            b => b,
        };
    }
}

/// Appends bytes as a string of lower-case hex digits.
pub fn put_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for b in bytes {
        out.push(HEX[usize::from(b >> 4)]);
        out.push(HEX[usize::from(b & 15)]);
    }
    out.push(b'"');
}

/// The bytes of hex digits.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    let pairs = text.as_bytes().chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs.map(|p| Some(digit(p[0])? << 4 | digit(p[1])?)).collect()
}

/// The bytes of standard base64 with padding; `None` if it is not.
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    if !bytes.len().is_multiple_of(4) {
        return None;
    }
    let body = text.trim_end_matches('=');
    if bytes.len() - body.len() > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(bytes.len() / 4 * 3);
    let (mut n, mut bits) = (0u32, 0u32);
    for b in body.bytes() {
        let six = match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        n = (n << 6 | u32::from(six)) & 0x00ff_ffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((n >> bits) as u8);
        }
    }
    Some(out)
}

/// What was read. Numbers stay text: their form carries precision.
#[derive(Clone, PartialEq, Debug)]
pub enum Node<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    String(Cow<'a, str>),
    Array(Vec<Node<'a>>),
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
}

impl<'a> Node<'a> {
    /// The member of that name, the last one if it repeats.
    pub fn get(&self, name: &str) -> Option<&Node<'a>> {
        match self {
            Node::Object(members) => members.iter().rev().find(|(k, _)| k == name).map(|(_, v)| v),
            _ => None,
        }
    }
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Node::String(s) => Some(s),
            _ => None,
        }
    }
    /// A whole number in range.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Node::Number(n) => n.parse().ok(),
            _ => None,
        }
    }
    /// A whole number in range.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Node::Number(n) => n.parse().ok(),
            _ => None,
        }
    }
}

/// Why bytes are not one JSON value. The place is a byte index.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum JsonError {
    #[error("not JSON at byte {0}")]
    Syntax(usize),
    #[error("nested deeper than {DEPTH_MAX}")]
    Depth,
    #[error("not UTF-8")]
    Utf8,
}

/// Exactly one JSON value.
pub fn parse(bytes: &[u8]) -> Result<Node<'_>, JsonError> {
    let text = std::str::from_utf8(bytes).map_err(|_| JsonError::Utf8)?;
    let mut reader = Reader { text, at: 0, roomy: ROOMY };
    let node = reader.value(0)?;
    reader.space();
    if reader.at == text.len() { Ok(node) } else { Err(reader.bad()) }
}

/// Of the form of a number: RFC 8259, section 6, but for zeros in front, which are let pass.
fn is_number(text: &[u8]) -> bool {
    let digits = |text: &mut &[u8]| -> bool {
        let count = text.iter().take_while(|b| b.is_ascii_digit()).count();
        *text = &text[count..];
        count > 0
    };
    let mut rest = text.strip_prefix(b"-").unwrap_or(text);
    if !digits(&mut rest) {
        return false;
    }
    if let Some(fraction) = rest.strip_prefix(b".") {
        rest = fraction;
        if !digits(&mut rest) {
            return false;
        }
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        rest = exponent.strip_prefix(b"+").or_else(|| exponent.strip_prefix(b"-")).unwrap_or(exponent);
        if !digits(&mut rest) {
            return false;
        }
    }
    rest.is_empty()
}

/// Bytes in front that are neither the end of a string nor special in it.
fn plain_run(bytes: &[u8]) -> usize {
    let special = |b: &u8| matches!(b, b'"' | b'\\' | 0..0x20);
    let mut at = 0;
    // Sixteen at a time: the compiler compares them at once.
    while let Some(some) = bytes.get(at..at + 16) {
        if some.iter().fold(false, |any, b| any | special(b)) {
            break;
        }
        at += 16;
    }
    bytes[at..].iter().position(special).map_or(bytes.len(), |n| at + n)
}

/// Members that the first objects have room for, and how many objects: an envelope, its rows and its source. More would
/// be memory for the asking.
const MEMBERS: usize = 20;
const ROOMY: usize = 4;

pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Objects that may still begin with room.
    roomy: usize,
}

impl<'a> Reader<'a> {
    /// For who knows the form of the text: no space is passed over. Objects begin without room.
    pub(crate) fn new(text: &'a str) -> Self {
        Reader { text, at: 0, roomy: 0 }
    }
    /// Takes what comes next if it is `what`.
    pub(crate) fn eat(&mut self, what: &[u8]) -> bool {
        let is = self.text.as_bytes()[self.at..].starts_with(what);
        self.at += if is { what.len() } else { 0 };
        is
    }
    /// A string that has no escapes; `None` = it is not here, and nothing was taken.
    pub(crate) fn plain_string(&mut self) -> Option<&'a str> {
        let bytes = self.text.as_bytes();
        if self.peek() != Some(b'"') {
            return None;
        }
        let from = self.at + 1;
        let end = from + plain_run(&bytes[from..]);
        if bytes.get(end) != Some(&b'"') {
            return None;
        }
        self.at = end + 1;
        self.text.get(from..end)
    }
    /// A whole number of at most 18 digits; `None` = it is not here, and nothing was taken.
    pub(crate) fn short_integer(&mut self) -> Option<i64> {
        let rest = &self.text.as_bytes()[self.at..];
        let (negative, digits) = match rest.split_first() {
            Some((b'-', digits)) => (true, digits),
            _ => (false, rest),
        };
        let (mut number, mut count) = (0i64, 0);
        while let Some(digit) = digits.get(count).filter(|b| b.is_ascii_digit()) {
            if count == 18 {
                return None;
            }
            number = number * 10 + i64::from(digit - b'0');
            count += 1;
        }
        if count == 0 || matches!(digits.get(count), Some(b'.' | b'e' | b'E' | b'-' | b'+')) {
            return None;
        }
        self.at += count + usize::from(negative);
        Some(if negative { -number } else { number })
    }
    fn bad(&self) -> JsonError {
        JsonError::Syntax(self.at)
    }
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }
    fn take(&mut self, b: u8) -> Result<(), JsonError> {
        if self.peek() == Some(b) {
            self.at += 1;
            Ok(())
        } else {
            Err(self.bad())
        }
    }
    fn word(&mut self, word: &str, node: Node<'a>) -> Result<Node<'a>, JsonError> {
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(node)
        } else {
            Err(self.bad())
        }
    }

    /// The value that comes next; `depth` = containers around it.
    pub(crate) fn value(&mut self, depth: usize) -> Result<Node<'a>, JsonError> {
        if depth > DEPTH_MAX {
            return Err(JsonError::Depth);
        }
        self.space();
        match self.peek().ok_or(self.bad())? {
            b'n' => self.word("null", Node::Null),
            b't' => self.word("true", Node::Bool(true)),
            b'f' => self.word("false", Node::Bool(false)),
            b'"' => Ok(Node::String(self.string()?)),
            b'[' => self.array(depth),
            b'{' => self.object(depth),
            b'-' | b'0'..=b'9' => self.number(),
            _ => Err(self.bad()),
        }
    }

    fn array(&mut self, depth: usize) -> Result<Node<'a>, JsonError> {
        self.at += 1;
        let mut items = Vec::new();
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Node::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Node::Array(items));
                }
                _ => return Err(self.bad()),
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Node<'a>, JsonError> {
        self.at += 1;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Node::Object(Vec::new()));
        }
        let room = if self.roomy > 0 { MEMBERS } else { 0 };
        self.roomy = self.roomy.saturating_sub(1);
        let mut members = Vec::with_capacity(room);
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.bad());
            }
            let name = self.string()?;
            self.space();
            self.take(b':')?;
            members.push((name, self.value(depth + 1)?));
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Node::Object(members));
                }
                _ => return Err(self.bad()),
            }
        }
    }

    fn number(&mut self) -> Result<Node<'a>, JsonError> {
        let from = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')) {
            self.at += 1;
        }
        let text = &self.text[from..self.at];
        if is_number(text.as_bytes()) { Ok(Node::Number(text)) } else { Err(JsonError::Syntax(from)) }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        self.at += 1;
        let from = self.at;
        let bytes = self.text.as_bytes();
        self.at += plain_run(&bytes[from..]);
        match bytes.get(self.at) {
            Some(b'"') => {
                let s = &self.text[from..self.at];
                self.at += 1;
                return Ok(Cow::Borrowed(s));
            }
            Some(b'\\') => {}
            _ => return Err(self.bad()),
        }
        let mut out = String::from(&self.text[from..self.at]);
        loop {
            let run = self.at;
            self.at += plain_run(&bytes[run..]);
            out.push_str(&self.text[run..self.at]);
            match bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(out));
                }
                Some(b'\\') => {
                    self.at += 1;
                    let c = self.escape()?;
                    out.push(c);
                }
                _ => return Err(self.bad()),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let b = self.peek().ok_or(self.bad())?;
        self.at += 1;
        Ok(match b {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.unit()?;
                if !(0xd800..0xe000).contains(&first) {
                    return char::from_u32(u32::from(first)).ok_or(self.bad());
                }
                self.take(b'\\')?;
                self.take(b'u')?;
                let second = self.unit()?;
                return char::decode_utf16([first, second]).next().and_then(Result::ok).ok_or(self.bad());
            }
            _ => return Err(self.bad()),
        })
    }

    fn unit(&mut self) -> Result<u16, JsonError> {
        let hex = self.text.get(self.at..self.at + 4).ok_or(self.bad())?;
        if !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(self.bad());
        }
        self.at += 4;
        u16::from_str_radix(hex, 16).map_err(|_| self.bad())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn integers_are_their_digits(v: i64, shift in 0u32..64) {
            for v in [v, v >> shift, i64::MIN, i64::MAX, 0] {
                let mut out = Vec::new();
                put_i64(&mut out, v);
                prop_assert_eq!(String::from_utf8(out).unwrap(), v.to_string());
            }
        }

        #[test]
        fn plain_texts_and_others_are_read_back(text in "[a-z]{0,70}(\\PC|\\pC){0,3}[a-zé]{0,40}") {
            let mut out = Vec::new();
            put_string(&mut out, &text);
            let node = parse(&out).unwrap();
            prop_assert_eq!(node.as_str(), Some(&text[..]));
            prop_assert!(out.iter().all(|b| (0x20..0xf0).contains(b)), "nothing is left to be escaped");
        }
    }

    #[test]
    fn floats_print_as_java_prints_them() {
        // Source: Double.toString of JDK 21.
        for (v, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (100.0, "100.0"),
            (0.001, "0.001"),
            (0.00099, "9.9E-4"),
            (1_234_567.5, "1234567.5"),
            (9_999_999.0, "9999999.0"),
            (10_000_000.0, "1.0E7"),
            (5e-324, "4.9E-324"),
            (1e-323, "9.9E-324"),
            (-2e23, "-2.0E23"),
            (1.797_693_134_862_315_7e308, "1.7976931348623157E308"),
            (-1e300, "-1.0E300"),
            (f64::NAN, "\"NaN\""),
            (f64::NEG_INFINITY, "\"-Infinity\""),
        ] {
            let mut out = Vec::new();
            put_f64(&mut out, v);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
        let mut out = Vec::new();
        put_f32(&mut out, 1e-45);
        assert_eq!(out, b"1.4E-45");
        out.clear();
        put_f32(&mut out, -3.402_823_5e38);
        assert_eq!(out, b"-3.4028235E38");
        out.clear();
        // It is 2747518.25, exactly between two of eight digits.
        put_f32(&mut out, 2_747_518.2);
        assert_eq!(out, b"2747518.2");
    }

    #[test]
    fn numbers_are_of_their_form() {
        for good in ["0", "-1", "12.50", "1e5", "1E-5", "-0.1e+10", "9223372036854775807", "01"] {
            assert_eq!(parse(good.as_bytes()), Ok(Node::Number(good)), "{good}");
        }
        for bad in ["-", "1.", ".5", "1e", "1e+", "--1", "1-1", "1.2.3", "+1", "1e1.5", "-e1"] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn hostile_texts_are_refused() {
        for bad in
            ["", "{", "[1,", "\"a", "\"\\u12", "\"\\ud800x\"", "nul", "1 2", "{\"a\" 1}", "{a:1}", "\"\u{1}\"", "+"]
        {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(parse("[".repeat(100_000).as_bytes()), Err(JsonError::Depth));
    }

    proptest! {
        #[test]
        fn strings_come_back(s in any::<String>()) {
            let mut out = Vec::new();
            put_string(&mut out, &s);
            prop_assert_eq!(parse(&out).unwrap(), Node::String(s.clone().into()));
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), s);
        }

        #[test]
        fn floats_have_the_digits_that_the_library_gives_them(bits in any::<u64>(), low in 0u64..1_000_000) {
            // Of two that are as near and as short, Java's has the even digit at its end, the library's has not always.
            let is_even = |ours: &Scientific, theirs: &Scientific, rounded: &dyn Fn(usize) -> String| {
                ours.len == theirs.len && *ours == Scientific::read(&rounded(ours.len - 1))
            };
            for v in [f64::from_bits(bits), f64::from_bits(low), low as f64 / 3.0, low as f64, low as f64 * 1e-3] {
                prop_assume!(v.is_finite());
                let (ours, theirs) = (Scientific::of(v), Scientific::read(&format!("{v:e}")));
                let even = is_even(&ours, &theirs, &|digits| format!("{v:.digits$e}"));
                prop_assert!(ours.len == 2 && theirs.len == 1 || ours == theirs || even, "{v:e}: {ours:?}");
                let v = f32::from_bits(bits as u32);
                prop_assume!(v.is_finite());
                let (ours, theirs) = (Scientific::of(v), Scientific::read(&format!("{v:e}")));
                let even = is_even(&ours, &theirs, &|digits| format!("{v:.digits$e}"));
                prop_assert!(ours.len == 2 && theirs.len == 1 || ours == theirs || even, "{v:e}: {ours:?}");
            }
        }

        #[test]
        fn floats_come_back(bits in any::<u64>()) {
            let v = f64::from_bits(bits);
            prop_assume!(v.is_finite());
            let mut out = Vec::new();
            put_f64(&mut out, v);
            prop_assert_eq!(std::str::from_utf8(&out).unwrap().parse::<f64>().unwrap().to_bits(), bits);
        }

        #[test]
        fn base64_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut out = Vec::new();
            put_base64(&mut out, &bytes);
            let text = std::str::from_utf8(&out[1..out.len() - 1]).unwrap();
            prop_assert_eq!(from_base64(text).unwrap(), bytes);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
