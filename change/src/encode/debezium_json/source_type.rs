//! Pure. What `column.propagate.source.type` and `datatype.propagate.source.type` say of a column: the type's name in the
//! catalogue, its length and its scale as PostgreSQL's JDBC driver counts them. A length is that of the printed value for
//! times and dates, and [`NO_LENGTH`] where a type has none. Source: records of a real Debezium 3.7.0.Final
//! (`connectors/postgres/tests/golden/debezium.txt`, scenario `propagate`).

use super::value::bare;
use crate::schema::{Column, Type};

/// "As long as you like".
const NO_LENGTH: u32 = i32::MAX as u32;
/// Digits of a `numeric` that says nothing of them: 131072 before the point, 16383 behind it, as printed.
const NUMERIC_LENGTH: u32 = 131_089;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceType {
    /// `int4`, `_varchar`, `serial`, `mood`.
    pub name: String,
    pub length: Option<u32>,
    pub scale: i32,
}

/// What is said of it.
pub fn source_type(column: &Column) -> SourceType {
    let (items, dimensions) = match column.native_type.strip_suffix("[]") {
        Some(items) => (items, "_"),
        None => (column.native_type.as_str(), ""),
    };
    let kind = match &column.kind {
        Type::Array { element } => element,
        kind => kind,
    };
    let base = name(items);
    let (length, scale) = size(kind, &base, column.modifier);
    let domain = column.domain.strip_suffix("[]").unwrap_or(&column.domain);
    let name = if domain.is_empty() { base } else { name(domain) };
    let serial = if column.default.contains("nextval(") { serial(&name) } else { None };
    let length = match (bare(items), first_number(items)) {
        ("vector" | "halfvec" | "sparsevec", dimensions) => dimensions,
        _ => Some(length),
    };
    SourceType { name: format!("{dimensions}{}", serial.unwrap_or(&name)), length, scale }
}

fn serial(name: &str) -> Option<&'static str> {
    match name {
        "int2" => Some("smallserial"),
        "int4" => Some("serial"),
        "int8" => Some("bigserial"),
        _ => None,
    }
}

/// The catalogue's name of a type as `format_type` prints it: `timestamp(3) without time zone` → `timestamp`,
/// `other."Mood"` → `Mood`.
pub(super) fn name(text: &str) -> String {
    let plain = without_brackets(text);
    let known = match plain.as_str() {
        "smallint" => "int2",
        "integer" => "int4",
        "bigint" => "int8",
        "real" => "float4",
        "double precision" => "float8",
        "boolean" => "bool",
        "character varying" => "varchar",
        "character" => "bpchar",
        "bit varying" => "varbit",
        "\"char\"" => "char",
        "time without time zone" => "time",
        "time with time zone" => "timetz",
        "timestamp without time zone" => "timestamp",
        "timestamp with time zone" => "timestamptz",
        fields if fields.starts_with("interval ") => "interval",
        other => return last_part(other),
    };
    known.to_owned()
}

/// Without `(…)`, wherever it stands; names in quotes stay as they are.
fn without_brackets(text: &str) -> String {
    let (mut out, mut quoted, mut inside) = (String::with_capacity(text.len()), false, false);
    for c in text.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                out.push(c);
            }
            '(' if !quoted => inside = true,
            ')' if !quoted => inside = false,
            _ if inside => {}
            _ => out.push(c),
        }
    }
    out
}

/// Without its schema and quotes.
fn last_part(text: &str) -> String {
    let (mut out, mut quoted, mut chars) = (String::new(), false, text.chars().peekable());
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                out.push('"');
            }
            '"' => quoted = !quoted,
            '.' if !quoted => out.clear(),
            _ => out.push(c),
        }
    }
    out
}

/// `vector(3)` → 3.
fn first_number(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once('(')?;
    rest.split([',', ')']).next()?.trim().parse().ok()
}

fn size(kind: &Type, name: &str, modifier: i32) -> (u32, i32) {
    // What stands behind the seconds: a point and digits; one digit is given three places.
    let fraction = |digits: u32| match digits {
        0 => 0,
        1 => 3,
        n => n + 1,
    };
    match kind {
        Type::Bool => (1, 0),
        Type::Int { .. } if name == "oid" => (10, 0),
        Type::Int { bits: 0..=16, .. } => (5, 0),
        Type::Int { bits: 17..=32, .. } => (10, 0),
        Type::Int { .. } => (19, 0),
        Type::Float { bits: 32 } => (8, 8),
        Type::Float { .. } => (17, 17),
        Type::Decimal { precision: 0, .. } if name == "money" => (NO_LENGTH, 0),
        Type::Decimal { precision: 0, .. } => (NUMERIC_LENGTH, 0),
        Type::Decimal { precision, scale } => (*precision, *scale),
        Type::Text { length: 0 } if name == "char" => (1, 0),
        Type::Text { length: n @ 1.. } => (*n, 0),
        Type::Date => (13, 0),
        Type::Time { digits, zone } => (8 + fraction(*digits) + if *zone { 6 } else { 0 }, *digits as i32),
        Type::Timestamp { digits } => (22 + fraction(*digits), *digits as i32),
        Type::Instant { digits } => (28 + fraction(*digits), *digits as i32),
        Type::Interval => (49, if modifier < 0 { 6 } else { modifier & 0xffff }),
        Type::Bits { length: n @ 1.., .. } => (*n, 0),
        _ => (NO_LENGTH, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(native: &str, kind: Type) -> Column {
        Column {
            id: 1,
            name: "c".into(),
            native_type: native.into(),
            domain: String::new(),
            native_id: 0,
            modifier: -1,
            kind,
            nullable: Some(true),
            generated: false,
            identity: false,
            default: String::new(),
            missing: None,
            comment: String::new(),
        }
    }

    #[test]
    fn names_are_those_of_the_catalogue() {
        for (native, expected) in [
            ("timestamp(3) without time zone", "timestamp"),
            ("interval day to second(2)", "interval"),
            ("character varying(20)[]", "_varchar"),
            ("\"char\"", "char"),
            ("other.mood", "mood"),
            ("\"My schema\".\"Mo.od (x)\"", "Mo.od (x)"),
            ("\"a\"\"b\"", "a\"b"),
            ("geometry(Point,4326)", "geometry"),
        ] {
            assert_eq!(source_type(&column(native, Type::Other)).name, expected, "{native}");
        }
        let domain = Column { domain: "shop.addr".into(), ..column("inet", Type::Other) };
        assert_eq!(source_type(&domain).name, "addr", "what it stands on is the value's affair");
        let money = Column { domain: "price".into(), ..column("money", Type::Decimal { precision: 0, scale: 0 }) };
        assert_eq!((source_type(&money).name.as_str(), source_type(&money).length), ("price", Some(NO_LENGTH)));
        let mut serial = column("bigint", Type::Int { bits: 64, unsigned: false });
        serial.default = "nextval('t_id_seq'::regclass)".into();
        assert_eq!(source_type(&serial).name, "bigserial");
    }

    #[test]
    fn a_vector_has_its_dimensions_or_no_length() {
        assert_eq!(source_type(&column("vector(3)", Type::Other)).length, Some(3));
        assert_eq!(source_type(&column("public.halfvec", Type::Other)).length, None);
    }
}
