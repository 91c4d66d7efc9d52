//! Pure. Types that have no variant of their own: column bytes of the binary format → the very text that the server prints.
//!
//! By the type's name, built-in ones and those of hstore, ltree, PostGIS and pgvector. Source: the `*_send` and `*_out`
//! functions of PostgreSQL 15 (`network.c`, `mac.c`, `geo_ops.c`, `rangetypes.c`, `multirangetypes.c`, `tsvector.c`,
//! `jsonpath.c`), contrib `hstore_io.c`, `ltree_io.c`; PostGIS 3.3 `lwgeom_inout.c`; pgvector 0.8 `vector.c`, `halfvec.c`,
//! `sparsevec.c`. Checked against text by `tests/it/binary.rs`.

use super::binary::{self, BinaryError};
use super::literal;
use bytes::{Buf, Bytes};
use catchwater_change::Type;
use catchwater_change::float_text::{of_f32, of_f64};
use core::net::{Ipv4Addr, Ipv6Addr};

const BUILT_IN: &[&str] = &[
    "inet",
    "cidr",
    "macaddr",
    "macaddr8",
    "pg_lsn",
    "xid",
    "xid8",
    "point",
    "lseg",
    "box",
    "path",
    "polygon",
    "line",
    "circle",
    "tsvector",
    "tsquery",
    "jsonpath",
    "int2vector",
    "oidvector",
    "tid",
    "cid",
    "refcursor",
    "txid_snapshot",
    "pg_snapshot",
    "int4range",
    "int8range",
    "numrange",
    "daterange",
    "tsrange",
    "tstzrange",
    "int4multirange",
    "int8multirange",
    "nummultirange",
    "datemultirange",
    "tsmultirange",
    "tstzmultirange",
];
const OF_EXTENSIONS: &[&str] =
    &["hstore", "ltree", "lquery", "ltxtquery", "geometry", "geography", "vector", "halfvec", "sparsevec"];

/// True if [`text`] knows the type. Another's type may have a built-in name.
pub fn fits(name: &str, built_in: bool) -> bool {
    if built_in { BUILT_IN.contains(&name) } else { OF_EXTENSIONS.contains(&name) }
}

/// True if [`text`] takes a type of that name for a composite.
pub fn is_free(name: &str) -> bool {
    let named = BUILT_IN.contains(&name) || OF_EXTENSIONS.contains(&name);
    !named && !name.contains(['.', '(']) && !name.ends_with("range")
}

/// The name without schema and modifier.
fn bare(native: &str) -> &str {
    let name = native.split('(').next().unwrap_or(native);
    name.rsplit('.').next().unwrap_or(name)
}

/// `native` is the type as the server prints it.
pub fn text(native: &str, mut bytes: Bytes) -> Result<String, BinaryError> {
    let b = &mut bytes;
    let name = bare(native);
    let out = match name {
        "inet" => network(b, false)?,
        "cidr" => network(b, true)?,
        "macaddr" | "macaddr8" => {
            let pairs: Vec<String> = b.iter().map(|x| format!("{x:02x}")).collect();
            b.clear();
            pairs.join(":")
        }
        "pg_lsn" => {
            let (high, low) = (u32_of(b)?, u32_of(b)?);
            format!("{high:X}/{low:X}")
        }
        "xid" => u32_of(b)?.to_string(),
        "xid8" => (u64::from(u32_of(b)?) << 32 | u64::from(u32_of(b)?)).to_string(),
        "point" => point(b)?,
        "lseg" => format!("[{},{}]", point(b)?, point(b)?),
        "box" => format!("{},{}", point(b)?, point(b)?),
        "line" => format!("{{{},{},{}}}", double(b)?, double(b)?, double(b)?),
        "circle" => format!("<{},{}>", point(b)?, double(b)?),
        "polygon" => format!("({})", points(b)?),
        "path" => {
            let closed = u8_of(b)? != 0;
            let inner = points(b)?;
            if closed { format!("({inner})") } else { format!("[{inner}]") }
        }
        "tsvector" => lexemes(b)?,
        "tsquery" => super::tsquery::text(b)?,
        "int2vector" | "oidvector" => numbers(b)?,
        "tid" => format!("({},{})", u32_of(b)?, u16_of(b)?),
        "cid" => u32_of(b)?.to_string(),
        "refcursor" => utf8(std::mem::take(b))?,
        "txid_snapshot" | "pg_snapshot" => {
            let count = u32_of(b)? as usize;
            let (xmin, xmax) = (u64_of(b)?, u64_of(b)?);
            if count > b.len() / 8 {
                return Err(BinaryError::Foreign);
            }
            let running: Vec<String> =
                (0..count).map(|_| Ok(u64_of(b)?.to_string())).collect::<Result<_, BinaryError>>()?;
            format!("{xmin}:{xmax}:{}", running.join(","))
        }
        "jsonpath" | "ltree" | "lquery" | "ltxtquery" => {
            // A version, 1 since they exist, then their text.
            if u8_of(b)? != 1 {
                return Err(BinaryError::Foreign);
            }
            utf8(std::mem::take(b))?
        }
        "hstore" => pairs(b)?,
        "geometry" | "geography" => {
            let hex: String = b.iter().map(|x| format!("{x:02X}")).collect();
            b.clear();
            hex
        }
        "vector" => {
            let count = usize::from(u16_of(b)?);
            u16_of(b)?;
            let items: Vec<String> = (0..count).map(|_| single(b)).collect::<Result<_, _>>()?;
            format!("[{}]", items.join(","))
        }
        "halfvec" => {
            let count = usize::from(u16_of(b)?);
            u16_of(b)?;
            let items: Vec<String> =
                (0..count).map(|_| Ok(of_f32(half(u16_of(b)?)))).collect::<Result<_, BinaryError>>()?;
            format!("[{}]", items.join(","))
        }
        "sparsevec" => sparse(b)?,
        _ => match (name.strip_suffix("multirange"), name.strip_suffix("range")) {
            (Some(of), _) => {
                let count = u32_of(b)?;
                let mut parts = Vec::new();
                for _ in 0..count {
                    let mut part = sized(b)?.ok_or(BinaryError::Foreign)?;
                    parts.push(range(of, &mut part)?);
                }
                format!("{{{}}}", parts.join(","))
            }
            (None, Some(of)) => range(of, b)?,
            _ => composite(b)?,
        },
    };
    if b.is_empty() { Ok(out) } else { Err(BinaryError::Foreign) }
}

/// `timetz`: microseconds, then seconds west of UTC.
pub fn timetz(mut bytes: Bytes) -> Result<String, BinaryError> {
    if bytes.len() != 12 {
        return Err(BinaryError::Foreign);
    }
    let (micros, west) = (bytes.get_i64(), bytes.get_i32());
    let all = west.unsigned_abs();
    let sign = if west > 0 { '-' } else { '+' };
    let mut out = format!("{}{sign}{:02}", super::time::print_time(micros), all / 3600);
    let (minutes, seconds) = (all / 60 % 60, all % 60);
    if minutes != 0 || seconds != 0 {
        out.push_str(&format!(":{minutes:02}"));
    }
    if seconds != 0 {
        out.push_str(&format!(":{seconds:02}"));
    }
    Ok(out)
}

fn u8_of(b: &mut Bytes) -> Result<u8, BinaryError> {
    if b.is_empty() { Err(BinaryError::Foreign) } else { Ok(b.get_u8()) }
}
fn u16_of(b: &mut Bytes) -> Result<u16, BinaryError> {
    if b.len() < 2 { Err(BinaryError::Foreign) } else { Ok(b.get_u16()) }
}
fn u32_of(b: &mut Bytes) -> Result<u32, BinaryError> {
    if b.len() < 4 { Err(BinaryError::Foreign) } else { Ok(b.get_u32()) }
}
fn double(b: &mut Bytes) -> Result<String, BinaryError> {
    if b.len() < 8 { Err(BinaryError::Foreign) } else { Ok(of_f64(b.get_f64())) }
}
fn single(b: &mut Bytes) -> Result<String, BinaryError> {
    if b.len() < 4 { Err(BinaryError::Foreign) } else { Ok(of_f32(b.get_f32())) }
}
fn u64_of(b: &mut Bytes) -> Result<u64, BinaryError> {
    if b.len() < 8 { Err(BinaryError::Foreign) } else { Ok(b.get_u64()) }
}
fn utf8(bytes: Bytes) -> Result<String, BinaryError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| BinaryError::NotUtf8)
}
/// A length, −1 = NULL, and so many bytes.
fn sized(b: &mut Bytes) -> Result<Option<Bytes>, BinaryError> {
    match u32_of(b)? as i32 {
        -1 => Ok(None),
        len => {
            let len = usize::try_from(len).ok().filter(|len| *len <= b.len()).ok_or(BinaryError::Foreign)?;
            Ok(Some(b.split_to(len)))
        }
    }
}

/// An array of one dimension, printed with blanks alone.
fn numbers(b: &mut Bytes) -> Result<String, BinaryError> {
    let (dimensions, _, of) = (u32_of(b)?, u32_of(b)?, u32_of(b)?);
    let count = match dimensions {
        0 => 0,
        1 => {
            let count = u32_of(b)? as usize;
            u32_of(b)?;
            count
        }
        _ => return Err(BinaryError::Foreign),
    };
    if count > b.len() / 4 {
        return Err(BinaryError::Foreign);
    }
    let one = |b: &mut Bytes| binary::attribute(of, sized(b)?.ok_or(BinaryError::Foreign)?);
    let all: Vec<String> = (0..count).map(|_| one(b)).collect::<Result<_, _>>()?;
    Ok(all.join(" "))
}

/// `(1,"a b",)`: each attribute with its type beside it. Source: `rowtypes.c`.
fn composite(b: &mut Bytes) -> Result<String, BinaryError> {
    let count = u32_of(b)? as usize;
    if count > b.len() / 8 {
        return Err(BinaryError::Foreign);
    }
    let mut out = String::from("(");
    for at in 0..count {
        if at > 0 {
            out.push(',');
        }
        let of = u32_of(b)?;
        let Some(bytes) = sized(b)? else { continue };
        let text = binary::attribute(of, bytes)?;
        let odd = |c: char| matches!(c, '"' | '\\' | '(' | ')' | ',' | ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}');
        if !text.is_empty() && !text.contains(odd) {
            out.push_str(&text);
            continue;
        }
        out.push('"');
        for c in text.chars() {
            if matches!(c, '"' | '\\') {
                out.push(c);
            }
            out.push(c);
        }
        out.push('"');
    }
    out.push(')');
    Ok(out)
}

fn point(b: &mut Bytes) -> Result<String, BinaryError> {
    Ok(format!("({},{})", double(b)?, double(b)?))
}

fn points(b: &mut Bytes) -> Result<String, BinaryError> {
    let count = u32_of(b)? as usize;
    if count > b.len() / 16 {
        return Err(BinaryError::Foreign);
    }
    let all: Vec<String> = (0..count).map(|_| point(b)).collect::<Result<_, _>>()?;
    Ok(all.join(","))
}

fn network(b: &mut Bytes, cidr: bool) -> Result<String, BinaryError> {
    let (family, bits, _, len) = (u8_of(b)?, u8_of(b)?, u8_of(b)?, u8_of(b)?);
    let (address, all) = match (family, len, b.len()) {
        (2, 4, 4) => (Ipv4Addr::from(u32_of(b)?).to_string(), 32),
        (3, 16, 16) => (ipv6(b.get_u128()), 128),
        _ => return Err(BinaryError::Foreign),
    };
    Ok(if cidr || bits != all { format!("{address}/{bits}") } else { address })
}

/// Addresses that hold one of IPv4 in their last words end with that.
fn ipv6(bits: u128) -> String {
    let address = Ipv6Addr::from(bits);
    if bits >> 32 == 0 && bits >> 16 != 0 {
        return format!("::{}", Ipv4Addr::from(bits as u32));
    }
    address.to_string()
}

fn range(of: &str, b: &mut Bytes) -> Result<String, BinaryError> {
    let kind = match of {
        "int4" => Type::Int { bits: 32, unsigned: false },
        "int8" => Type::Int { bits: 64, unsigned: false },
        "num" => Type::Decimal { precision: 0, scale: 0 },
        "date" => Type::Date,
        "ts" => Type::Timestamp { digits: 6 },
        "tstz" => Type::Instant { digits: 6 },
        _ => return Err(BinaryError::Foreign),
    };
    let flags = u8_of(b)?;
    let has = |bit: u8| flags & bit != 0;
    if has(0x01) {
        return Ok("empty".into());
    }
    let mut bound = |infinite: bool| -> Result<String, BinaryError> {
        if infinite {
            return Ok(String::new());
        }
        let bytes = sized(b)?.ok_or(BinaryError::Foreign)?;
        let text = literal(&binary::decode(&kind, "", bytes)?);
        Ok(if text.contains(' ') { format!("\"{text}\"") } else { text })
    };
    let (lower, upper) = (bound(has(0x08))?, bound(has(0x10))?);
    let (open, close) = (if has(0x02) { '[' } else { '(' }, if has(0x04) { ']' } else { ')' });
    Ok(format!("{open}{lower},{upper}{close}"))
}

fn lexemes(b: &mut Bytes) -> Result<String, BinaryError> {
    let count = u32_of(b)?;
    let mut out = String::new();
    for i in 0..count {
        let end = b.iter().position(|x| *x == 0).ok_or(BinaryError::Foreign)?;
        let word = utf8(b.split_to(end))?;
        b.advance(1);
        if i > 0 {
            out.push(' ');
        }
        out.push('\'');
        for c in word.chars() {
            if matches!(c, '\'' | '\\') {
                out.push(c);
            }
            out.push(c);
        }
        out.push('\'');
        for at in 0..u16_of(b)? {
            let place = u16_of(b)?;
            out.push(if at == 0 { ':' } else { ',' });
            out.push_str(&(place & 0x3fff).to_string());
            out.push_str(["", "C", "B", "A"][usize::from(place >> 14)]);
        }
    }
    Ok(out)
}

fn pairs(b: &mut Bytes) -> Result<String, BinaryError> {
    let count = u32_of(b)?;
    let mut out = String::new();
    let quoted = |text: &str, out: &mut String| {
        out.push('"');
        for c in text.chars() {
            if matches!(c, '"' | '\\') {
                out.push('\\');
            }
            out.push(c);
        }
        out.push('"');
    };
    for i in 0..count {
        if i > 0 {
            out.push_str(", ");
        }
        quoted(&utf8(sized(b)?.ok_or(BinaryError::Foreign)?)?, &mut out);
        out.push_str("=>");
        match sized(b)? {
            Some(value) => quoted(&utf8(value)?, &mut out),
            None => out.push_str("NULL"),
        }
    }
    Ok(out)
}

/// IEEE half precision.
fn half(bits: u16) -> f32 {
    let (sign, exponent, fraction) = (u32::from(bits >> 15) << 31, (bits >> 10) & 0x1f, u32::from(bits & 0x3ff));
    match exponent {
        0 => f32::from_bits(sign | (fraction as f32 * 2f32.powi(-24)).to_bits()),
        31 => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        e => f32::from_bits(sign | (u32::from(e) + 112) << 23 | fraction << 13),
    }
}

fn sparse(b: &mut Bytes) -> Result<String, BinaryError> {
    let (dimensions, count) = (u32_of(b)?, u32_of(b)? as usize);
    u32_of(b)?;
    if b.len() / 8 != count || !b.len().is_multiple_of(8) {
        return Err(BinaryError::Foreign);
    }
    let places: Vec<u32> = (0..count).map(|_| u32_of(b)).collect::<Result<_, _>>()?;
    let mut cells = Vec::with_capacity(count);
    for at in places {
        cells.push(format!("{}:{}", u64::from(at) + 1, single(b)?));
    }
    Ok(format!("{{{}}}/{dimensions}", cells.join(",")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn unhex(text: &str) -> Bytes {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pair = |p: &[u8]| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap();
        digits.chunks(2).map(pair).collect::<Vec<u8>>().into()
    }

    #[test]
    fn bytes_of_extensions_are_their_texts() {
        for (native, bytes, want) in [
            // Source: `vector_send`, `halfvec_send`, `sparsevec_send`, pgvector 0.8.5 on PostgreSQL 16.14.
            ("vector(2)", "0002 0000 3f800000 3dcccccd", "[1,0.1]"),
            ("ext.halfvec", "0003 0000 2e66 7bff 8001", "[0.099975586,65504,-5.9604645e-08]"),
            ("sparsevec", "0000000c 00000002 00000000 00000000 00000009 3fc00000 c0000000", "{1:1.5,10:-2}/12"),
            // Source: `geometry_send`, PostGIS 3.3.
            (
                "gis.geometry(Point,4326)",
                "0101000020e6100000000000000000f03f0000000000000040",
                "0101000020E6100000000000000000F03F0000000000000040",
            ),
        ] {
            assert_eq!(text(native, unhex(bytes)).as_deref(), Ok(want), "{native}");
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), small in prop::collection::vec(0u8..3, 0..40)) {
            let few: Vec<u8> = small.iter().flat_map(|b| [0, 0, 0, *b]).collect();
            for name in BUILT_IN.iter().chain(OF_EXTENSIONS) {
                let _ = text(name, bytes.clone().into());
                let _ = text(name, few.clone().into());
            }
            let _ = timetz(bytes.into());
        }
    }
}
