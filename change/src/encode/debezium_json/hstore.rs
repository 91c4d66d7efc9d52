//! Pure. PostgreSQL's `hstore` text and the two forms Debezium gives it.

use crate::encode::form::HstoreMode;
use crate::json;

/// Pairs of an hstore: a value may be NULL.
pub type Pairs = [(String, Option<String>)];

/// Writes the pairs: as JSON text of an object, or as the object itself.
pub fn put(out: &mut Vec<u8>, mode: HstoreMode, pairs: &Pairs) {
    match mode {
        HstoreMode::Map => put_object(out, pairs, json::put_string),
        HstoreMode::Json => {
            let mut object = Vec::new();
            put_object(&mut object, pairs, json::put_inner_string);
            json::put_string(out, std::str::from_utf8(&object).unwrap_or("{}"));
        }
    }
}

fn put_object(out: &mut Vec<u8>, pairs: &Pairs, put_string: fn(&mut Vec<u8>, &str)) {
    out.push(b'{');
    for (i, at) in java_order(pairs).into_iter().enumerate() {
        let (key, value) = &pairs[at];
        if i > 0 {
            out.push(b',');
        }
        put_string(out, key);
        out.push(b':');
        match value {
            Some(v) => put_string(out, v),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.push(b'}');
}

/// The order a `java.util.HashMap` of these keys is walked in: Debezium's reader collects the pairs into one.
/// Source: OpenJDK, `HashMap.hash`, `HashMap.resize` (16 buckets, doubled above three quarters; order inside a bucket is
/// that of arrival); `String.hashCode` over UTF-16 units.
fn java_order(pairs: &Pairs) -> Vec<usize> {
    let mut buckets = 16usize;
    while pairs.len() > buckets / 4 * 3 {
        buckets *= 2;
    }
    let bucket = |key: &str| {
        let hash = key.encode_utf16().fold(0u32, |h, unit| h.wrapping_mul(31).wrapping_add(u32::from(unit)));
        (hash ^ (hash >> 16)) as usize & (buckets - 1)
    };
    let mut order: Vec<usize> = (0..pairs.len()).collect();
    order.sort_by_key(|at| bucket(&pairs[*at].0));
    order
}

/// `"k 1"=>"v", "k2"=>NULL`; `None` = no such text.
pub fn parse(text: &str) -> Option<Vec<(String, Option<String>)>> {
    fn quoted(rest: &mut &str) -> Option<String> {
        *rest = rest.strip_prefix('"')?;
        let mut out = String::new();
        let mut chars = rest.char_indices();
        while let Some((i, c)) = chars.next() {
            match c {
                '"' => {
                    *rest = &rest[i + 1..];
                    return Some(out);
                }
                '\\' => out.push(chars.next()?.1),
                c => out.push(c),
            }
        }
        None
    }
    let mut rest = text;
    let mut out = Vec::new();
    while !rest.is_empty() {
        let key = quoted(&mut rest)?;
        rest = rest.strip_prefix("=>")?;
        let value = match rest.strip_prefix("NULL") {
            Some(tail) => {
                rest = tail;
                None
            }
            None => Some(quoted(&mut rest)?),
        };
        out.push((key, value));
        rest = match rest.strip_prefix(", ") {
            Some(tail) => tail,
            None if rest.is_empty() => rest,
            None => return None,
        };
    }
    Some(out)
}
