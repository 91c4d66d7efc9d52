//! Pure. Catalogue type → [`Type`], and [`Type`] → the column type of a table we create from another system's schema.

use catchwater_change::{Column, Type};
use std::collections::BTreeMap;

/// A row of `pg_type`, as far as decoding needs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PgType {
    pub oid: u32,
    pub name: String,
    /// With its schema where the session needs it.
    pub text: String,
    /// `b` base, `c` composite, `d` domain, `e` enum, `p` pseudo, `r` range, `m` multirange.
    pub kind: u8,
    pub category: u8,
    /// Of an array, 0 = none.
    pub element: u32,
    pub delimiter: u8,
    /// Of a domain: what it stands on and that one's modifier.
    pub base: u32,
    pub base_modifier: i32,
    pub labels: Vec<String>,
    /// Has a binary form; one without is sent as text among binary columns.
    pub sends: bool,
    /// Types of a composite's attributes, in order.
    pub attributes: Vec<u32>,
}

/// Types by oid.
pub type PgTypes = BTreeMap<u32, PgType>;

/// Oids that are the same in every PostgreSQL. Source: `src/include/catalog/pg_type.dat`.
pub mod oid {
    pub const BOOL: u32 = 16;
    pub const BYTEA: u32 = 17;
    pub const CHAR: u32 = 18;
    pub const NAME: u32 = 19;
    pub const INT8: u32 = 20;
    pub const INT2: u32 = 21;
    pub const INT2VECTOR: u32 = 22;
    pub const INT4: u32 = 23;
    pub const TEXT: u32 = 25;
    pub const OID: u32 = 26;
    pub const OIDVECTOR: u32 = 30;
    pub const JSON: u32 = 114;
    pub const XML: u32 = 142;
    pub const FLOAT4: u32 = 700;
    pub const FLOAT8: u32 = 701;
    pub const MONEY: u32 = 790;
    pub const BPCHAR: u32 = 1042;
    pub const VARCHAR: u32 = 1043;
    pub const DATE: u32 = 1082;
    pub const TIME: u32 = 1083;
    pub const TIMESTAMP: u32 = 1114;
    pub const TIMESTAMPTZ: u32 = 1184;
    pub const INTERVAL: u32 = 1186;
    pub const TIMETZ: u32 = 1266;
    pub const BIT: u32 = 1560;
    pub const VARBIT: u32 = 1562;
    pub const NUMERIC: u32 = 1700;
    pub const UUID: u32 = 2950;
    pub const JSONB: u32 = 3802;
    /// First oid that `CREATE` gives out; below are built-in objects.
    pub const FIRST_NORMAL: u32 = 16384;
}

/// Depth of domains over arrays over domains… we follow.
const DEPTH_MAX: u8 = 8;

/// What a column of this type carries.
pub fn kind(types: &PgTypes, oid: u32, modifier: i32) -> Type {
    kind_at(types, oid, modifier, 0)
}

fn kind_at(types: &PgTypes, oid: u32, modifier: i32, depth: u8) -> Type {
    let length = |m: i32| if m >= 4 { (m - 4) as u32 } else { 0 };
    let digits = |m: i32| if (0..=6).contains(&m) { m as u32 } else { 6 };
    match oid {
        oid::BOOL => Type::Bool,
        oid::BYTEA => Type::Bytes,
        oid::INT2 => Type::Int { bits: 16, unsigned: false },
        oid::INT4 => Type::Int { bits: 32, unsigned: false },
        // oid is unsigned 32 bits: the next signed size holds it.
        oid::INT8 | oid::OID => Type::Int { bits: 64, unsigned: false },
        oid::FLOAT4 => Type::Float { bits: 32 },
        oid::FLOAT8 => Type::Float { bits: 64 },
        oid::NUMERIC if modifier >= 4 => {
            let m = modifier - 4;
            // 11 bits, signed: negative scales exist since PostgreSQL 15.
            Type::Decimal { precision: ((m >> 16) & 0xffff) as u32, scale: ((m & 0x7ff) ^ 1024) - 1024 }
        }
        oid::NUMERIC | oid::MONEY => Type::Decimal { precision: 0, scale: 0 },
        oid::TEXT | oid::NAME | oid::CHAR => Type::Text { length: 0 },
        oid::BPCHAR | oid::VARCHAR => Type::Text { length: length(modifier) },
        oid::DATE => Type::Date,
        oid::TIME => Type::Time { digits: digits(modifier), zone: false },
        oid::TIMETZ => Type::Time { digits: digits(modifier), zone: true },
        oid::TIMESTAMP => Type::Timestamp { digits: digits(modifier) },
        oid::TIMESTAMPTZ => Type::Instant { digits: digits(modifier) },
        oid::INTERVAL => Type::Interval,
        oid::UUID => Type::Uuid,
        oid::JSON => Type::Json { binary: false },
        oid::JSONB => Type::Json { binary: true },
        oid::XML => Type::Xml,
        oid::BIT => Type::Bits { length: modifier.max(1) as u32, varying: false },
        oid::VARBIT => Type::Bits { length: modifier.max(0) as u32, varying: true },
        // Printed without braces.
        oid::INT2VECTOR | oid::OIDVECTOR => Type::Other,
        _ => {
            let Some(t) = types.get(&oid) else { return Type::Other };
            if depth >= DEPTH_MAX {
                return Type::Other;
            }
            match t.kind {
                b'd' => kind_at(types, t.base, if modifier >= 0 { modifier } else { t.base_modifier }, depth + 1),
                b'e' => Type::Enum { labels: t.labels.clone() },
                b'b' if t.category == b'A' && t.element != 0 => {
                    let comma = types.get(&t.element).is_none_or(|e| e.delimiter == b',');
                    if !comma {
                        return Type::Other; // box[] is split by ';'
                    }
                    Type::Array { element: Box::new(kind_at(types, t.element, modifier, depth + 1)) }
                }
                b'b' if t.category == b'S' => Type::Text { length: 0 }, // citext and the like
                _ => Type::Other,
            }
        }
    }
}

/// What a domain over a type that is known by its name alone (no [`Type`] of its own, or one that `money`, `oid`, `name`,
/// `"char"` and `citext` share with others) is written as: that type's text; of an array of such domains with `[]`.
/// `None` = it is no such type.
pub fn stands_on(types: &PgTypes, oid: u32) -> Option<String> {
    let mut t = types.get(&oid)?;
    let is_array = t.kind == b'b' && t.category == b'A' && t.element != 0;
    if is_array {
        t = types.get(&t.element)?;
    }
    for _ in 0..DEPTH_MAX {
        if t.kind != b'd' {
            return None;
        }
        match types.get(&t.base) {
            Some(base) if base.kind == b'd' => t = base,
            Some(base) => {
                let by_name = matches!(t.base, oid::MONEY | oid::OID | oid::NAME | oid::CHAR)
                    || (base.kind == b'b' && base.category == b'S' && t.base >= oid::FIRST_NORMAL)
                    || kind(types, t.base, -1) == Type::Other;
                return by_name.then(|| format!("{}{}", base.text, if is_array { "[]" } else { "" }));
            }
            None => return None,
        }
    }
    None
}

/// The oids a set of types leans on that are not in it yet.
pub fn missing(types: &PgTypes) -> Vec<u32> {
    let mut out: Vec<u32> =
        types.values().flat_map(|t| [t.element, t.base]).filter(|oid| *oid != 0 && !types.contains_key(oid)).collect();
    out.sort_unstable();
    out.dedup();
    out
}

/// Column type for a table we create, when the source's own type is not to be had in the target. Made of numbers and
/// constants only, so it is safe in SQL text.
pub fn mapped(kind: &Type) -> String {
    match kind {
        Type::Bool => "boolean".into(),
        Type::Int { bits: 0..=16, unsigned: false } => "smallint".into(),
        Type::Int { bits: 0..=16, unsigned: true } | Type::Int { bits: 17..=32, unsigned: false } => "integer".into(),
        Type::Int { bits: 17..=32, unsigned: true } | Type::Int { unsigned: false, .. } => "bigint".into(),
        Type::Int { unsigned: true, .. } => "numeric(20)".into(),
        Type::Float { bits: 32 } => "real".into(),
        Type::Float { .. } => "double precision".into(),
        Type::Decimal { precision: p @ 1..=1000, scale } if (0..=*p as i32).contains(scale) => {
            format!("numeric({p},{scale})")
        }
        Type::Decimal { .. } => "numeric".into(),
        Type::Text { length: n @ 1..=10_485_760 } => format!("character varying({n})"),
        Type::Bytes => "bytea".into(),
        Type::Date => "date".into(),
        Type::Time { digits, zone } => {
            format!("time({}) {} time zone", digits.min(&6), if *zone { "with" } else { "without" })
        }
        Type::Timestamp { digits } => format!("timestamp({}) without time zone", digits.min(&6)),
        Type::Instant { digits } => format!("timestamp({}) with time zone", digits.min(&6)),
        Type::Interval => "interval".into(),
        Type::Uuid => "uuid".into(),
        Type::Json { binary: true } => "jsonb".into(),
        Type::Json { binary: false } => "json".into(),
        Type::Array { element } if !matches!(**element, Type::Array { .. }) => format!("{}[]", mapped(element)),
        Type::Bits { length: n @ 1..=83_886_080, varying: false } => format!("bit({n})"),
        Type::Bits { length: n @ 1..=83_886_080, varying: true } => format!("bit varying({n})"),
        Type::Bits { .. } => "bit varying".into(),
        Type::Xml => "xml".into(),
        // Enums of ours have no name in the target; text holds any label, also one added later.
        Type::Text { .. } | Type::Enum { .. } | Type::Other | Type::Array { .. } => "text".into(),
    }
}

/// True if the column was described by a PostgreSQL server, so that its own type name is worth asking the target for.
pub fn is_native(column: &Column) -> bool {
    column.native_id != 0
}
