//! Pure. Types of extensions that Debezium 3.7 writes as structs and lists: PostGIS's `geometry` and `geography` (their
//! EWKB, the SRID beside it), pgvector's `vector`, `halfvec` and `sparsevec`; and back to the very text of the server.
//!
//! Source: recordings `postgis`, `vectors`.

use crate::encode::debezium_json::value::bare;
use crate::float_text;
use crate::json::{self, Node};

/// Flag of an EWKB type word: an SRID follows it. Source: PostGIS, `doc/ZMSgeoms.txt`.
const HAS_SRID: u32 = 0x2000_0000;

/// True if a value of the type is no text in the records.
pub fn is_structured(native: &str) -> bool {
    matches!(bare(native), "geometry" | "geography" | "vector" | "halfvec" | "sparsevec")
}

/// Writes `text` in the form of the extension's type `native`; `None` (and nothing written) if it is none of these or does
/// not parse, else whether [`read`] gives the same text back.
pub fn put(out: &mut Vec<u8>, native: &str, text: &str) -> Option<bool> {
    let from = out.len();
    let done = match bare(native) {
        "geometry" => spot(out, text, ",\"extensions\":null}"),
        "geography" => spot(out, text, "}"),
        "vector" => list(out, text, |out, item| item.parse().ok().map(|v| json::put_f64(out, v))),
        "halfvec" => list(out, text, |out, item| item.parse().ok().map(|v| json::put_f32(out, v))),
        "sparsevec" => sparse(out, text),
        _ => return None,
    };
    if done.is_none() {
        out.truncate(from);
        return None;
    }
    let written = std::str::from_utf8(&out[from..]).ok()?;
    let back = json::parse(written.as_bytes()).ok().and_then(|node| read(&node, native));
    Some(back.as_deref() == Some(text))
}

/// The text that [`put`] wrote; `None` = of another type, or damaged.
pub fn read(node: &Node<'_>, native: &str) -> Option<String> {
    match (bare(native), node) {
        ("geometry" | "geography", Node::Object(_)) => {
            let bytes = json::from_base64(node.get("wkb")?.as_str()?)?;
            let mut text = String::with_capacity(bytes.len() * 2);
            for b in bytes {
                text.push_str(&format!("{b:02X}"));
            }
            Some(text)
        }
        ("vector" | "halfvec", Node::Array(items)) => {
            let items: Option<Vec<String>> = items.iter().map(number).collect();
            Some(format!("[{}]", items?.join(",")))
        }
        ("sparsevec", Node::Object(_)) => {
            let Node::Array(pairs) = node.get("vector")? else { return None };
            let mut cells = Vec::with_capacity(pairs.len());
            for pair in pairs {
                let Node::Array(pair) = pair else { return None };
                let [at, value] = &pair[..] else { return None };
                cells.push((at.as_i64()?, number(value)?));
            }
            cells.sort_by_key(|(at, _)| *at);
            let cells: Vec<String> = cells.into_iter().map(|(at, v)| format!("{at}:{v}")).collect();
            Some(format!("{{{}}}/{}", cells.join(","), node.get("dimensions")?.as_i64()?))
        }
        _ => None,
    }
}

/// The elements of all three are single floats.
fn number(node: &Node<'_>) -> Option<String> {
    let Node::Number(text) = node else { return None };
    Some(float_text::of_f32(text.parse().ok()?))
}

fn spot(out: &mut Vec<u8>, hex: &str, end: &str) -> Option<()> {
    let wkb = json::from_hex(hex)?;
    let word = |at: usize| -> Option<u32> {
        let bytes: [u8; 4] = wkb.get(at..at + 4)?.try_into().ok()?;
        match wkb.first()? {
            0 => Some(u32::from_be_bytes(bytes)),
            1 => Some(u32::from_le_bytes(bytes)),
            _ => None,
        }
    };
    let srid = if word(1)? & HAS_SRID == 0 { None } else { Some(word(5)?) };
    out.extend_from_slice(b"{\"wkb\":");
    json::put_base64(out, &wkb);
    out.extend_from_slice(b",\"srid\":");
    match srid {
        Some(srid) => json::put_i64(out, i64::from(srid as i32)),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(end.as_bytes());
    Some(())
}

/// `[1,2.5]`.
fn list(out: &mut Vec<u8>, text: &str, put: impl Fn(&mut Vec<u8>, &str) -> Option<()>) -> Option<()> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    out.push(b'[');
    for (i, item) in inner.split(',').enumerate() {
        if i > 0 {
            out.push(b',');
        }
        put(out, item)?;
    }
    out.push(b']');
    Some(())
}

/// `{1:1.5,3:-2}/12`: indexes from one, then the dimensions.
fn sparse(out: &mut Vec<u8>, text: &str) -> Option<()> {
    let (cells, dimensions) = text.split_once('/')?;
    let inner = cells.strip_prefix('{')?.strip_suffix('}')?;
    let mut pairs: Vec<(u32, f64)> = Vec::new();
    for cell in inner.split(',').filter(|c| !c.is_empty()) {
        let (at, value) = cell.split_once(':')?;
        pairs.push((at.parse().ok()?, value.parse().ok()?));
    }
    out.extend_from_slice(b"{\"dimensions\":");
    json::put_i64(out, dimensions.parse().ok()?);
    out.extend_from_slice(b",\"vector\":[");
    // The order in which a `java.util.HashMap` made for so many pairs is walked; a Short's hash is itself.
    let mut buckets = (pairs.len().max(1) as u32).next_power_of_two();
    while pairs.len() as u32 > buckets / 4 * 3 + buckets % 4 * 3 / 4 {
        buckets *= 2;
    }
    pairs.sort_by_key(|(at, _)| at & (buckets - 1));
    for (i, (at, value)) in pairs.iter().enumerate() {
        out.extend_from_slice(if i == 0 { b"[" } else { b",[" });
        json::put_i64(out, i64::from(*at));
        out.push(b',');
        json::put_f64(out, *value);
        out.push(b']');
    }
    out.extend_from_slice(b"]}");
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_as_they_were() {
        for (native, text, want) in [
            (
                "gis.geometry(Point,4326)",
                "0101000020E6100000000000000000F03F0000000000000040",
                r#"{"wkb":"AQEAACDmEAAAAAAAAAAA8D8AAAAAAAAAQA==","srid":4326,"extensions":null}"#,
            ),
            (
                "geometry",
                "0101000000000000000000F03F000000000000F03F",
                r#"{"wkb":"AQEAAAAAAAAAAADwPwAAAAAAAPA/","srid":null,"extensions":null}"#,
            ),
            ("geography", "0107000020E610000000000000", r#"{"wkb":"AQcAACDmEAAAAAAAAA==","srid":4326}"#),
            ("vector(4)", "[1,2.5,-3e-10,1e+20]", "[1.0,2.5,-3.0E-10,1.0E20]"),
            ("halfvec", "[0.099975586,65504,-5.9604645e-08]", "[0.099975586,65504.0,-5.9604645E-8]"),
            (
                "public.sparsevec",
                "{1:1.5,3:-2,10:1e-05}/12",
                r#"{"dimensions":12,"vector":[[1,1.5],[10,1.0E-5],[3,-2.0]]}"#,
            ),
            ("sparsevec(5)", "{}/5", r#"{"dimensions":5,"vector":[]}"#),
        ] {
            let mut out = Vec::new();
            assert_eq!(put(&mut out, native, text), Some(true), "{native}");
            assert_eq!(String::from_utf8_lossy(&out), want);
        }
    }

    #[test]
    fn what_is_none_stays_text() {
        for (native, text) in [
            ("geometry", ""),
            ("geometry", "01"),
            ("geometry", "0101000020E6"),
            ("geometry", "zz"),
            ("vector", "1,2"),
            ("vector", "[1,x]"),
            ("sparsevec", "{1:2}"),
            ("sparsevec", "{1}/2"),
            ("citext", "[1]"),
        ] {
            let mut out = Vec::new();
            assert_eq!(put(&mut out, native, text), None, "{native} {text}");
            assert!(out.is_empty());
        }
    }
}
