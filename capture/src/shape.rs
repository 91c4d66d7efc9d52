//! Pure but for [`Shaped`]. Which columns, rows and keys of a source the log gets: Debezium's column lists, masks,
//! truncation, `message.key.columns`, `field.name.adjustment.mode`, skipped operations. A [`Shaped`] source stands between a connector and the worker:
//! the worker sees tables and rows as if the source had them so.
//!
//! A shape of the source that the rules touch becomes another shape, with a fingerprint made of the old one and of what
//! was done to it: changed rules are a changed table. A row keeps its place in its transaction, or is left out before it
//! has one. Key columns stay even if a list leaves them out. What is masked is masked before anything is encoded.

use crate::error::code;
use crate::source::{
    Capabilities, Chunk, ChunkEnd, Each, EventBatch, Expected, Finding, Identity, Item, Opened, Progress, Snapshot,
    Source, SourceClass, SourceError, Start, Stretch, StretchEnd, View,
};
use catchwater_base::hash;
use catchwater_change::encode::debezium_json as encode;
use catchwater_change::encode::debezium_json::{
    NameMode, Options, cut_units, is_domain_array, is_key_there, is_known, key_changed, source_type,
};
use catchwater_change::value::Text;
use catchwater_change::{Cell, Column, KeyFrom, Native, Op, Row, RowChange, TableSchema, Type, Value};
use catchwater_record::ErrorCode;
use catchwater_runtime::Fut;
use regex_lite::Regex;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

mod sent;

use sent::Sent;

/// Names by regular expressions, anchored, letter case ignored: Debezium's lists.
#[derive(Clone, Debug)]
pub struct Pattern {
    any: Vec<Regex>,
    text: String,
}

impl Pattern {
    /// `a,b`; a comma inside an expression is `\,`.
    pub fn parse(list: &str) -> Result<Self, String> {
        let mut any = Vec::new();
        for part in Pattern::parts(list) {
            let made = Regex::new(&format!("^(?i:{part})$"));
            any.push(made.map_err(|e| format!("`{part}` is no regular expression: {e}"))?);
        }
        if any.is_empty() { Err("the list is empty".into()) } else { Ok(Pattern { any, text: list.to_owned() }) }
    }
    /// The expressions of a list.
    pub fn parts(list: &str) -> Vec<String> {
        let list = list.replace("\\,", "\u{0}");
        list.split(',').map(|p| p.trim().replace('\u{0}', ",")).filter(|p| !p.is_empty()).collect()
    }
    pub fn fits(&self, name: &str) -> bool {
        self.any.iter().any(|r| r.is_match(name))
    }
}

/// What becomes of a text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mask {
    /// So many asterisks, whatever was there, NULL too.
    Stars(u32),
    /// The first so many characters.
    Truncate(u32),
    /// The first so many UTF-16 code units, what Java counts; half a character is none.
    TruncateUnits(u32),
    Hash {
        algorithm: Algorithm,
        salt: String,
        v2: bool,
        /// Digits that the column has room for; 0 = all.
        length: u32,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl Mask {
    pub fn hash(algorithm: &str, salt: &str, v2: bool) -> Option<Self> {
        let algorithm = match algorithm.to_ascii_uppercase().as_str() {
            "SHA-224" => Algorithm::Sha224,
            "SHA-256" => Algorithm::Sha256,
            "SHA-384" => Algorithm::Sha384,
            "SHA-512" => Algorithm::Sha512,
            _ => return None,
        };
        Some(Mask::Hash { algorithm, salt: salt.to_owned(), v2, length: 0 })
    }

    /// `None` = NULL.
    fn apply(&self, text: Option<&str>) -> Option<String> {
        match self {
            Mask::Stars(n) => Some("*".repeat(*n as usize)),
            Mask::Truncate(n) => text.map(|t| t.chars().take(*n as usize).collect()),
            Mask::TruncateUnits(n) => text.map(|t| cut_units(t, *n as usize).to_owned()),
            Mask::Hash { algorithm, salt, v2, length } => text.map(|t| {
                let value = if *v2 { t.as_bytes().to_vec() } else { java_serialized(t) };
                let mut digits = match algorithm {
                    Algorithm::Sha224 => digest::<Sha224>(salt, &value),
                    Algorithm::Sha256 => digest::<Sha256>(salt, &value),
                    Algorithm::Sha384 => digest::<Sha384>(salt, &value),
                    Algorithm::Sha512 => digest::<Sha512>(salt, &value),
                };
                if *length > 0 {
                    digits.truncate(*length as usize);
                }
                digits
            }),
        }
    }

    /// The mask for values of this column: a hash is cut to its length, as Debezium does, so that a copy of the column
    /// has room for it.
    fn within(self, column: &Column, defects: bool) -> Self {
        match (self, &column.kind) {
            (Mask::Hash { algorithm, salt, v2, .. }, Type::Text { length }) => {
                let length = if column.native_type == "\"char\"" { 1 } else { *length };
                Mask::Hash { algorithm, salt, v2, length }
            }
            (Mask::Truncate(n), _) if defects => Mask::TruncateUnits(n),
            (mask, _) => mask,
        }
    }

    /// Debezium's order among masks of one column.
    pub fn rank(&self) -> u8 {
        match self {
            Mask::Truncate(_) | Mask::TruncateUnits(_) => 0,
            Mask::Stars(_) => 1,
            Mask::Hash { v2, .. } => 2 + u8::from(*v2),
        }
    }

    /// What the column's schema says of it.
    fn parameter(&self) -> (String, String) {
        match self {
            Mask::Truncate(n) | Mask::TruncateUnits(n) => ("truncateLength".into(), n.to_string()),
            Mask::Stars(_) | Mask::Hash { .. } => ("masked".into(), "true".into()),
        }
    }
}

fn digest<D: Digest>(salt: &str, value: &[u8]) -> String {
    let mut d = D::new();
    d.update(salt.as_bytes());
    d.update(value);
    d.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// The first version of the hash is over the text as Java's serialization writes it.
/// Source: Java Object Serialization Specification, 6.4; modified UTF-8: `java.io.DataInput`.
fn java_serialized(text: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(text.len());
    for unit in text.encode_utf16() {
        match unit {
            1..=0x7f => body.push(unit as u8),
            0 | 0x80..=0x7ff => body.extend_from_slice(&[0xc0 | (unit >> 6) as u8, 0x80 | (unit & 0x3f) as u8]),
            _ => body.extend_from_slice(&[
                0xe0 | (unit >> 12) as u8,
                0x80 | (unit >> 6 & 0x3f) as u8,
                0x80 | (unit & 0x3f) as u8,
            ]),
        }
    }
    let mut out = vec![0xac, 0xed, 0, 5];
    match u16::try_from(body.len()) {
        Ok(len) => {
            out.push(0x74);
            out.extend_from_slice(&len.to_be_bytes());
        }
        Err(_) => {
            out.push(0x7c);
            out.extend_from_slice(&(body.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&body);
    out
}

/// The rules of one source.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Over `schema.table.column`.
    pub include: Option<Pattern>,
    pub exclude: Option<Pattern>,
    pub masks: Vec<(Pattern, Mask)>,
    /// Over `schema.table`: the columns of the key.
    pub keys: Vec<(Pattern, Vec<String>)>,
    /// Keep columns of types that Debezium does not know.
    pub unknown_types: bool,
    /// Letters of operations that are left out.
    pub skipped: Vec<char>,
    /// They were named: Debezium's publication does not have them then, and its slot does not send them ([`sent`]).
    pub unpublished: bool,
    /// Leave out updates that change no captured column.
    pub skip_unchanged: bool,
    /// Over prefixes of logical messages.
    pub messages_include: Option<Pattern>,
    pub messages_exclude: Option<Pattern>,
    /// `compat.defects`: what Debezium lets through or loses by mistake.
    pub defects: bool,
    /// What columns are called in the log.
    pub field_names: NameMode,
    /// Columns whose schema says what they are at the source: over `schema.table.column`, and over `schema.table.type`.
    pub propagate: Option<Pattern>,
    pub propagate_types: Option<Pattern>,
    /// Their names at the source: by the shape's fingerprint, then by the new name. Rules that are copies share it.
    renamed: Renamed,
}

type Renamed = Arc<Mutex<BTreeMap<[u8; 16], BTreeMap<String, String>>>>;

impl Default for Rules {
    fn default() -> Self {
        Rules {
            include: None,
            exclude: None,
            masks: Vec::new(),
            keys: Vec::new(),
            unknown_types: true,
            skipped: Vec::new(),
            unpublished: false,
            skip_unchanged: false,
            messages_include: None,
            messages_exclude: None,
            defects: false,
            field_names: NameMode::None,
            propagate: None,
            propagate_types: None,
            renamed: Renamed::default(),
        }
    }
}

/// What the rules make of one shape.
struct Plan {
    table: Arc<TableSchema>,
    /// Columns of the source, by place.
    keep: Vec<usize>,
    masks: Vec<Option<Mask>>,
    /// Two columns that would have one name.
    clash: Option<String>,
}

impl Rules {
    /// True if rows pass as they are.
    pub fn is_nothing(&self) -> bool {
        let Rules { include, exclude, masks, keys, unknown_types, skipped, skip_unchanged, field_names, .. } = self;
        self.messages_include.is_none()
            && self.messages_exclude.is_none()
            && include.is_none()
            && exclude.is_none()
            && masks.is_empty()
            && keys.is_empty()
            && *unknown_types
            && skipped.is_empty()
            && !skip_unchanged
            && !self.defects
            && *field_names == NameMode::None
    }

    /// True if [`Rules::parameters`] may say anything.
    pub fn has_parameters(&self) -> bool {
        !self.masks.is_empty() || self.propagate.is_some() || self.propagate_types.is_some()
    }

    /// Parameters of a column's inline schema. Of what applies to it Debezium takes the first: a mask says that it is one.
    pub fn parameters(&self, table: &TableSchema, column: &Column) -> Vec<(String, String)> {
        let column = &self.column_of_source(table, column);
        let name = format!("{}.{}", table.qualified(), column.name);
        // Said of every column that a list names, also where there is nothing to mask.
        let of = source_type(column);
        let hashed = |mask: &Mask| self.is_said_instead(table, column, mask);
        if let Some((_, mask)) = self.masks.iter().find(|(p, _)| p.fits(&name)).filter(|(_, m)| !hashed(m)) {
            // Nothing can be cut of a column that has no room for more.
            let cuts = |n: u32| is_domain_array(column) || of.length.is_none_or(|length| length > n);
            let says = !matches!(mask, Mask::Truncate(n) if !cuts(*n));
            return if says { vec![mask.parameter()] } else { Vec::new() };
        }
        if !self.propagates(table, column) {
            return Vec::new();
        }
        let said = [
            ("type", Some(of.name.to_uppercase())),
            ("length", of.length.map(|n| n.to_string())),
            ("scale", Some(of.scale.to_string())),
            ("name", Some(column.name.clone())),
        ];
        said.into_iter().filter_map(|(k, v)| Some((format!("__debezium.source.column.{k}"), v?))).collect()
    }

    /// True if the schema of a column says its type. `column` = under its name at the source.
    fn propagates(&self, table: &TableSchema, column: &Column) -> bool {
        let fits = |pattern: &Option<Pattern>, last: &str| {
            pattern.as_ref().is_some_and(|p| p.fits(&format!("{}.{last}", table.qualified())))
        };
        fits(&self.propagate, &column.name) || fits(&self.propagate_types, &source_type(column).name)
    }

    /// With the defects: Debezium takes one of all that is asked for of a column, and its source type goes before a hash.
    fn is_said_instead(&self, table: &TableSchema, column: &Column, mask: &Mask) -> bool {
        self.defects && matches!(mask, Mask::Hash { .. }) && self.propagates(table, column)
    }

    /// Tells the encoder what it has to know of the rules.
    pub fn tell(&self, options: &mut Options) {
        if !self.has_parameters() {
            return;
        }
        let (rules, masks) = (self.clone(), self.clone());
        options.parameters.0 = Some(Arc::new(move |table, column| rules.parameters(table, column)));
        options.masks.0 = Some(Arc::new(move |table, column| {
            let column = masks.column_of_source(table, column);
            let mask = masks.mask(table, &column)?.clone().within(&column, masks.defects);
            let whole = matches!(mask, Mask::Stars(_) | Mask::Hash { .. });
            whole.then(|| -> encode::Mask { Arc::new(move |text| mask.apply(text)) })
        }));
    }

    /// Under its name at the source.
    fn column_of_source(&self, table: &TableSchema, column: &Column) -> Column {
        let renamed = self.renamed.lock().unwrap_or_else(PoisonError::into_inner);
        let before = renamed.get(&table.fingerprint).and_then(|names| names.get(&column.name));
        Column { name: before.unwrap_or(&column.name).clone(), ..column.clone() }
    }

    /// True if messages of that prefix are taken.
    fn takes_messages(&self, prefix: &str) -> bool {
        self.messages_include.as_ref().is_none_or(|p| p.fits(prefix))
            && !self.messages_exclude.as_ref().is_some_and(|p| p.fits(prefix))
    }

    fn mask(&self, table: &TableSchema, column: &Column) -> Option<&Mask> {
        let textual = matches!(
            column.kind,
            Type::Text { .. } | Type::Enum { .. } | Type::Json { .. } | Type::Xml | Type::Uuid | Type::Other
        );
        let name = format!("{}.{}", table.qualified(), column.name);
        let meets = |mask: &Mask| match mask {
            _ if !self.defects => true,
            // By the value, not by the type.
            Mask::Truncate(_) | Mask::TruncateUnits(_) => is_text_in_record(column),
            Mask::Stars(_) | Mask::Hash { .. } => is_text_of_jdbc(column),
        };
        let fits = |mask: &Mask| textual && meets(mask) && !self.is_said_instead(table, column, mask);
        // Debezium looks at the first alone, whatever it can do to the column.
        let mut named = self.masks.iter().filter(|(p, _)| p.fits(&name)).map(|(_, m)| m);
        if self.defects { named.next().filter(|m| fits(m)) } else { named.find(|m| fits(m)) }
    }

    fn plan(&self, given: &Arc<TableSchema>) -> Plan {
        let name = given.qualified();
        let key = self.keys.iter().find(|(p, _)| p.fits(&name)).and_then(|(_, columns)| {
            let places = columns.iter().map(|c| given.column(c).map(|(at, _)| at as u16));
            places.collect::<Option<Vec<u16>>>()
        });
        let kept_key = key.as_ref().unwrap_or(&given.key);
        let keep: Vec<usize> = (0..given.columns.len())
            .filter(|at| {
                let column = &given.columns[*at];
                let full = format!("{name}.{}", column.name);
                let listed = self.include.as_ref().is_none_or(|p| p.fits(&full))
                    && !self.exclude.as_ref().is_some_and(|p| p.fits(&full));
                let known = match self.defects {
                    true => {
                        let known = debezium_knows(column) && !is_domain_array(column);
                        let is_lost = is_lost_array(column) && !is_domain_array(column);
                        !is_lost && (self.unknown_types || known)
                    }
                    false => self.unknown_types || debezium_knows(column),
                };
                (listed && known) || kept_key.iter().any(|k| usize::from(*k) == *at)
            })
            .collect();
        let mask = |column: &Column| self.mask(given, column).cloned().map(|m| m.within(column, self.defects));
        let mut masks: Vec<Option<Mask>> = keep.iter().map(|at| mask(&given.columns[*at])).collect();
        let renamed: Vec<(String, String)> = keep
            .iter()
            .map(|at| &given.columns[*at].name)
            .map(|name| (self.field_names.field(name).into_owned(), name.clone()))
            .collect();
        let names_stay = renamed.iter().all(|(new, old)| new == old);
        let mut taken = BTreeMap::new();
        let clash = renamed.iter().find_map(|(new, old)| {
            let first = taken.insert(new, old)?;
            Some(format!("columns {first:?} and {old:?} of table {name} both become {new:?}"))
        });
        if keep.len() == given.columns.len() && masks.iter().all(Option::is_none) && key.is_none() && names_stay {
            return Plan { table: given.clone(), keep, masks, clash: None };
        }
        let moved = |at: &u16| keep.iter().position(|k| *k == usize::from(*at)).map(|p| p as u16);
        let mut table = (**given).clone();
        let kept = keep.iter().map(|at| given.columns[*at].clone());
        table.columns = kept.zip(&renamed).map(|(c, (new, _))| Column { name: new.clone(), ..c }).collect();
        table.unique = given
            .unique
            .iter()
            .filter_map(|(n, columns)| Some((n.clone(), columns.iter().map(moved).collect::<Option<_>>()?)))
            .collect();
        if let Some(key) = &key {
            table.key_from = KeyFrom::MessageKeyColumns;
            table.key = key.iter().filter_map(moved).collect();
        } else {
            table.key = given.key.iter().filter_map(moved).collect();
        }
        let mut done = format!("{keep:?}{masks:?}{key:?}");
        if !names_stay {
            done.push_str(&format!("{renamed:?}"));
        }
        let mixed = [&given.fingerprint[..], done.as_bytes()].concat();
        table.fingerprint = hash::xxh3_128(&mixed).to_be_bytes();
        if !names_stay {
            let mut known = self.renamed.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(table.fingerprint, renamed.into_iter().collect());
        }
        if self.defects {
            // The key has it in clear there; the encoder masks it in the row.
            masks.iter_mut().enumerate().filter(|(at, _)| is_key_there(&table, *at)).for_each(|(_, mask)| *mask = None);
        }
        Plan { table: Arc::new(table), keep, masks, clash }
    }
}

/// Debezium masks what JDBC calls a text: no `citext`, `ltree`, JSON, XML, uuid, address.
fn is_text_of_jdbc(column: &Column) -> bool {
    match (&column.kind, column.native_type.rsplit('.').next()) {
        (Type::Text { .. } | Type::Enum { .. }, name) => name != Some("citext"),
        _ => false,
    }
}

/// Types whose values are texts in Debezium's records.
fn is_text_in_record(column: &Column) -> bool {
    const OTHERS: [&str; 12] = [
        "cidr",
        "daterange",
        "inet",
        "int4range",
        "int8range",
        "ltree",
        "macaddr",
        "macaddr8",
        "numrange",
        "tsrange",
        "tstzrange",
        "tsvector",
    ];
    let name = column.native_type.rsplit('.').next().unwrap_or_default();
    column.kind != Type::Other || OTHERS.contains(&name)
}

/// Arrays that Debezium 3.7 has no form for, whatever `include.unknown.datatypes` says: the type of their items is known.
fn is_lost_array(column: &Column) -> bool {
    let Type::Array { element } = &column.kind else { return false };
    matches!(**element, Type::Interval | Type::Xml | Type::Bits { varying: true, .. })
        || matches!(column.native_type.as_str(), "money[]" | "name[]" | "point[]")
}

/// Types that Debezium 3.7 drops from records unless `include.unknown.datatypes`.
fn debezium_knows(column: &Column) -> bool {
    match &column.kind {
        // Arrays without commas between their items are of this kind, too.
        Type::Other => is_known(column.native_type.trim_end_matches("[]")),
        Type::Array { element } => match &**element {
            Type::Interval | Type::Xml | Type::Bits { varying: true, .. } => false,
            Type::Decimal { .. } => column.native_type != "money[]",
            Type::Text { .. } => column.native_type != "name[]",
            Type::Other if column.native_type == "point[]" => false,
            Type::Other => {
                let element = Column {
                    kind: Type::Other,
                    native_type: column.native_type.trim_end_matches("[]").to_owned(),
                    ..column.clone()
                };
                debezium_knows(&element)
            }
            _ => true,
        },
        _ => true,
    }
}

impl Plan {
    /// The shape, if it is one that records can have.
    fn legal(&self) -> Result<&Arc<TableSchema>, SourceError> {
        match &self.clash {
            None => Ok(&self.table),
            Some(what) => Err(SourceError {
                class: SourceClass::Config,
                code: ErrorCode(code::ROUTE),
                what: what.clone(),
                next: "rename one of them, leave it out (`column.exclude.list`), or take another \
                       `field.name.adjustment.mode`"
                    .into(),
            }),
        }
    }

    fn row(&self, row: Row) -> Row {
        if self.keep.len() == row.cells.len() && self.masks.iter().all(Option::is_none) {
            return row;
        }
        let mut cells: Vec<Option<Cell>> = row.cells.into_iter().map(Some).collect();
        let taken = self.keep.iter().map(|at| cells.get_mut(*at).and_then(Option::take).unwrap_or(Cell::Absent));
        let masked = taken.zip(&self.masks).map(|(cell, mask)| match (mask, cell) {
            (None, cell) => cell,
            (Some(mask), Cell::Null) => mask.apply(None).map_or(Cell::Null, |t| Cell::Value(Value::Text(t.into()))),
            (Some(mask), Cell::Value(Value::Text(t))) => text(mask, t.as_str(), Value::Text),
            (Some(mask), Cell::Value(Value::Json(t))) => text(mask, t.as_str(), Value::Json),
            // A value that is no text would pass unmasked: it does not.
            (Some(_), Cell::Value(_)) => Cell::Null,
            (Some(_), cell) => cell,
        });
        Row::new(masked.collect())
    }

    fn change(&self, mut change: RowChange) -> RowChange {
        change.before = change.before.map(|r| self.row(r));
        change.after = change.after.map(|r| self.row(r));
        change.table = self.table.clone();
        change
    }
}

fn text(mask: &Mask, text: &str, of: fn(Text) -> Value) -> Cell {
    mask.apply(Some(text)).map_or(Cell::Null, |t| Cell::Value(of(t.into())))
}

/// True if both images are whole and equal.
fn is_unchanged(change: &RowChange) -> bool {
    let whole = |row: &Row| !row.cells.iter().any(|c| matches!(c, Cell::Absent | Cell::Unavailable));
    match (&change.before, &change.after) {
        (Some(before), Some(after)) => change.op == Op::Update && whole(before) && whole(after) && before == after,
        _ => false,
    }
}

/// Plans by the shape they are for; shared with the snapshot's reader.
#[derive(Default)]
struct Plans {
    /// The shape as the source gave it is held, so that its address stays its own.
    by_shape: BTreeMap<usize, (Arc<TableSchema>, Arc<Plan>)>,
    /// Newest shape as the source gave it, by the table's name.
    given: BTreeMap<String, Arc<TableSchema>>,
}

struct Shaper {
    rules: Rules,
    plans: Mutex<Plans>,
}

impl Shaper {
    fn plan(&self, given: &Arc<TableSchema>) -> Arc<Plan> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let at = Arc::as_ptr(given) as usize;
        if let Some((_, plan)) = plans.by_shape.get(&at) {
            return plan.clone();
        }
        let plan = Arc::new(self.rules.plan(given));
        plans.by_shape.insert(at, (given.clone(), plan.clone()));
        plans.given.insert(given.qualified(), given.clone());
        plan
    }

    /// The source's own shape of a table that the worker names.
    fn given(&self, shaped: &Arc<TableSchema>) -> Arc<TableSchema> {
        let plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let of_it = plans.by_shape.values().find(|(_, plan)| Arc::ptr_eq(&plan.table, shaped)).map(|(given, _)| given);
        of_it.or_else(|| plans.given.get(&shaped.qualified())).unwrap_or(shaped).clone()
    }

    /// A logical message.
    fn takes(&self, change: &RowChange) -> bool {
        match change.after.as_ref().and_then(|r| r.cells.first()) {
            Some(Cell::Value(Value::Text(prefix))) => self.rules.takes_messages(prefix.as_str()),
            _ => true,
        }
    }

    fn passes(&self, change: &RowChange) -> bool {
        // With the defects the records are compared (`Options::skips_unchanged`).
        let compares = self.rules.skip_unchanged && !self.rules.defects;
        let left_out = self.rules.skipped.contains(&change.op.letter()) || (compares && is_unchanged(change));
        // Both halves of a change of the key are left out.
        let halves = self.rules.defects && ['c', 'd'].iter().all(|op| self.rules.skipped.contains(op));
        !(left_out || halves && change.op == Op::Update && key_changed(change))
    }
}

/// A source seen through rules.
pub struct Shaped {
    inner: Box<dyn Source>,
    shaper: Arc<Shaper>,
    /// Filled by the source, not shaped yet: a dropped `next` must not lose it (S6).
    raw: EventBatch,
    sent: Sent,
}

/// `source`, or what the rules make of it.
pub fn shaped(source: Box<dyn Source>, rules: &Rules) -> Box<dyn Source> {
    if rules.is_nothing() {
        return source;
    }
    let shaper = Arc::new(Shaper { rules: rules.clone(), plans: Mutex::default() });
    Box::new(Shaped { inner: source, shaper, raw: EventBatch::new(0), sent: Sent::default() })
}

impl Source for Shaped {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    fn preflight(&mut self) -> Fut<'_, Vec<Finding>> {
        self.inner.preflight()
    }
    fn identify(&mut self) -> Fut<'_, Result<Identity, SourceError>> {
        self.inner.identify()
    }
    fn open(&mut self, start: Start, known: Option<Identity>) -> Fut<'_, Result<Opened, SourceError>> {
        self.raw = EventBatch::new(0);
        self.sent = Sent::default();
        Box::pin(async move {
            let mut opened = self.inner.open(start, known).await?;
            let shaped = opened.tables.iter().map(|t| self.shaper.plan(t).legal().cloned());
            opened.tables = shaped.collect::<Result<_, _>>()?;
            Ok(opened)
        })
    }
    fn next<'a>(&'a mut self, out: &'a mut EventBatch) -> Fut<'a, Result<Progress, SourceError>> {
        Box::pin(async move {
            // What a dropped call left goes out at once.
            let mut done = if self.raw.items.is_empty() {
                self.raw = EventBatch::new(out.room());
                self.inner.next(&mut self.raw).await
            } else {
                Ok(Progress::Items)
            };
            let follows = self.shaper.rules.unpublished && !self.shaper.rules.skipped.is_empty();
            for mut item in std::mem::take(&mut self.raw.items) {
                if let Item::Row(change) = &mut item
                    && follows
                {
                    let is_sent = !self.shaper.rules.skipped.contains(&change.op.letter());
                    if let Some(begin) = self.sent.row(change, is_sent) {
                        out.push(begin);
                    }
                }
                match item {
                    Item::Begin { .. } if follows => self.sent.begin(item),
                    Item::Commit { .. } if follows => {
                        if let Some(begin) = self.sent.commit() {
                            out.push(begin);
                        }
                        out.push(item);
                    }
                    Item::Schema(given) => match self.shaper.plan(&given).legal() {
                        Ok(table) => out.push(Item::Schema(table.clone())),
                        Err(e) => {
                            done = Err(e);
                            break;
                        }
                    },
                    Item::Again(given) => {
                        if let Ok(table) = self.shaper.plan(&given).legal() {
                            out.push(Item::Again(table.clone()));
                        }
                    }
                    Item::Row(change) if change.op == Op::Message => {
                        if self.shaper.takes(&change) {
                            out.push(Item::Row(change));
                        }
                    }
                    Item::Row(change) => {
                        let plan = self.shaper.plan(&change.table);
                        let change = plan.change(change);
                        if self.shaper.passes(&change) {
                            out.push(Item::Row(change));
                        }
                    }
                    item => out.push(item),
                }
            }
            self.raw.clear();
            done
        })
    }
    fn confirm(&mut self, upto: &Native) {
        self.inner.confirm(upto);
    }
    fn snapshot(&mut self) -> Result<Box<dyn Snapshot>, SourceError> {
        let inner = self.inner.snapshot()?;
        Ok(Box::new(ShapedSnapshot { inner, shaper: self.shaper.clone() }))
    }
    fn statements(&self) -> std::collections::BTreeSet<String> {
        self.inner.statements()
    }
    fn readers_max(&self) -> usize {
        self.inner.readers_max()
    }
    fn lag_bytes(&self) -> Option<u64> {
        self.inner.lag_bytes()
    }
    fn behind_since(&self) -> Option<catchwater_base::Wall> {
        self.inner.behind_since()
    }
    fn slot(&self) -> Option<crate::source::SlotState> {
        self.inner.slot()
    }
    fn close(&mut self) -> Fut<'_, ()> {
        self.inner.close()
    }
    fn detach<'a>(&'a mut self, identity: &'a Identity, opened: bool) -> Fut<'a, Result<(), SourceError>> {
        self.inner.detach(identity, opened)
    }
    fn detach_sql(&self, identity: &Identity, opened: bool) -> String {
        self.inner.detach_sql(identity, opened)
    }
}

struct ShapedSnapshot {
    inner: Box<dyn Snapshot>,
    shaper: Arc<Shaper>,
}

impl Snapshot for ShapedSnapshot {
    fn plan(&mut self, tables: &[Arc<TableSchema>]) -> Fut<'_, Result<Vec<Chunk>, SourceError>> {
        let given: Vec<Arc<TableSchema>> = tables.iter().map(|t| self.shaper.given(t)).collect();
        Box::pin(async move {
            let mut chunks = self.inner.plan(&given).await?;
            chunks.iter_mut().for_each(|c| c.table = self.shaper.plan(&c.table).table.clone());
            Ok(chunks)
        })
    }
    fn read<'a>(&'a mut self, chunk: &'a Chunk, out: &'a mut Vec<RowChange>) -> Fut<'a, Result<ChunkEnd, SourceError>> {
        Box::pin(async move {
            let own = Chunk { table: self.shaper.given(&chunk.table), ..chunk.clone() };
            let plan = self.shaper.plan(&own.table);
            let from = out.len();
            let end = self.inner.read(&own, out).await?;
            let rows: Vec<RowChange> = out.drain(from..).collect();
            let skipped = self.shaper.rules.skipped.contains(&Op::Read.letter());
            out.extend(rows.into_iter().filter(|_| !skipped).map(|r| plan.change(r)));
            Ok(end)
        })
    }
    fn read_each<'a>(&'a mut self, chunk: &'a Chunk, each: &'a mut Each<'_>) -> Fut<'a, Result<View, SourceError>> {
        Box::pin(async move {
            let own = Chunk { table: self.shaper.given(&chunk.table), ..chunk.clone() };
            let plan = self.shaper.plan(&own.table);
            let skipped = self.shaper.rules.skipped.contains(&Op::Read.letter());
            let mut shaped = |row| if skipped { Ok(()) } else { each(plan.change(row)) };
            self.inner.read_each(&own, &mut shaped).await
        })
    }
    fn joined(&mut self, tables: &[Arc<TableSchema>]) {
        let given: Vec<Arc<TableSchema>> = tables.iter().map(|t| self.shaper.given(t)).collect();
        self.inner.joined(&given);
    }
    fn share(&mut self, readers: usize) {
        self.inner.share(readers);
    }
    fn stretches<'a>(&'a mut self, of: &'a Stretch) -> Fut<'a, Result<Expected, SourceError>> {
        Box::pin(async move {
            let own = Stretch { table: self.shaper.given(&of.table), ..of.clone() };
            self.inner.stretches(&own).await
        })
    }
    fn stretch<'a>(
        &'a mut self,
        of: &'a Stretch,
        out: &'a mut Vec<RowChange>,
    ) -> Fut<'a, Result<StretchEnd, SourceError>> {
        Box::pin(async move {
            let own = Stretch { table: self.shaper.given(&of.table), ..of.clone() };
            let from = out.len();
            let end = self.inner.stretch(&own, out).await?;
            let rows: Vec<RowChange> = out.drain(from..).collect();
            let skipped = self.shaper.rules.skipped.contains(&Op::Read.letter());
            if let Some(first) = rows.first().filter(|_| !skipped) {
                let plan = self.shaper.plan(&first.table);
                plan.legal()?;
                out.extend(rows.into_iter().map(|r| plan.change(r)));
            }
            Ok(end)
        })
    }
    fn close(&mut self) -> Fut<'_, ()> {
        self.inner.close()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

#[cfg(test)]
mod tests;
