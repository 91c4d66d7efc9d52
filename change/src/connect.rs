//! Pure. Records as Kafka Connect's transforms see them: values in a tree beside the tree of their schemas.
//!
//! ```text
//! bytes of a record with its schema ──read──► Record { key, value, headers } ──transforms──► Record ──write──► bytes
//! ```
//! Only records of sources with transforms that change values are taken apart so; all others go the short way from row to
//! bytes. Reading and writing again gives the same bytes. Source: Kafka 4.3 `org.apache.kafka.connect.data`, `JsonConverter`.

pub mod cast;
pub mod convert;
pub mod described;
pub mod geometry;
pub mod moment;
pub mod paths;
pub mod read;
pub mod smt;
pub mod write;
pub mod zone;

use std::sync::Arc;

/// `Schema.Type`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    Int8,
    Int16,
    Int32,
    Int64,
    Float32,
    Float64,
    Boolean,
    String,
    Bytes,
    Array,
    Map,
    Struct,
}

const KINDS: [(Kind, &str, &str); 12] = [
    (Kind::Int8, "int8", "int8"),
    (Kind::Int16, "int16", "int16"),
    (Kind::Int32, "int32", "int32"),
    (Kind::Int64, "int64", "int64"),
    (Kind::Float32, "float32", "float"),
    (Kind::Float64, "float64", "double"),
    (Kind::Boolean, "boolean", "boolean"),
    (Kind::String, "string", "string"),
    (Kind::Bytes, "bytes", "bytes"),
    (Kind::Array, "array", "array"),
    (Kind::Map, "map", "map"),
    (Kind::Struct, "struct", "struct"),
];

impl Kind {
    /// By its name in Connect, `float64`.
    pub fn named(name: &str) -> Option<Kind> {
        KINDS.iter().find(|(_, connect, _)| *connect == name).map(|(kind, ..)| *kind)
    }
    /// By what JsonConverter calls it, `double`.
    fn written(name: &str) -> Option<Kind> {
        KINDS.iter().find(|(.., json)| *json == name).map(|(kind, ..)| *kind)
    }
    fn json(self) -> &'static str {
        KINDS.iter().find(|(kind, ..)| *kind == self).map_or("", |(.., json)| json)
    }
    pub fn name(self) -> &'static str {
        KINDS.iter().find(|(kind, ..)| *kind == self).map_or("", |(_, connect, _)| connect)
    }
}

/// A Connect schema.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Schema {
    pub kind: Kind,
    pub optional: bool,
    pub name: Option<String>,
    pub version: Option<i64>,
    pub doc: Option<String>,
    pub parameters: Vec<(String, String)>,
    pub default: Option<Data>,
    /// Of a struct.
    pub fields: Vec<Field>,
    /// Of a map.
    pub keys: Option<Arc<Schema>>,
    /// Of an array and of a map.
    pub items: Option<Arc<Schema>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field {
    pub name: String,
    pub schema: Arc<Schema>,
}

/// A value. Floats keep their text, which is Java's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Data {
    Null,
    Bool(bool),
    Int(i64),
    Float(String),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Data>),
    Map(Vec<(Data, Data)>),
    /// One for each field of the schema.
    Struct(Vec<Data>),
}

/// A value and its schema; none = there is nothing, as in a tombstone.
pub type Part = Option<(Arc<Schema>, Data)>;

/// A header, its value with a schema, or as the text that stands in the record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    pub name: String,
    pub value: HeaderValue,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HeaderValue {
    /// As it stands.
    Written(Option<Vec<u8>>),
    Data(Arc<Schema>, Data),
}

/// A record on its way through transforms.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Record {
    pub key: Part,
    pub value: Part,
    pub headers: Vec<Header>,
}

impl Schema {
    pub fn new(kind: Kind) -> Schema {
        Schema {
            kind,
            optional: false,
            name: None,
            version: None,
            doc: None,
            parameters: Vec::new(),
            default: None,
            fields: Vec::new(),
            keys: None,
            items: None,
        }
    }

    /// Of a map that has no schema in Connect.
    pub fn none() -> Schema {
        Schema::new(Kind::Map)
    }

    fn is_none(&self) -> bool {
        self.kind == Kind::Map && self.keys.is_none()
    }

    pub fn optional(kind: Kind, optional: bool) -> Arc<Schema> {
        Arc::new(Schema { optional, ..Schema::new(kind) })
    }

    /// `SchemaUtil.copySchemaBasics`: name, version, text, parameters; neither optional nor with a default.
    fn basics(&self, kind: Kind) -> Schema {
        Schema {
            name: self.name.clone(),
            version: self.version,
            doc: self.doc.clone(),
            parameters: self.parameters.clone(),
            ..Schema::new(kind)
        }
    }

    pub fn place(&self, field: &str) -> Option<usize> {
        self.fields.iter().position(|f| f.name == field)
    }

    pub fn field(&self, field: &str) -> Option<&Arc<Schema>> {
        self.fields.iter().find(|f| f.name == field).map(|f| &f.schema)
    }

    pub fn is_named(&self, name: &str) -> bool {
        self.name.as_deref() == Some(name)
    }
}
