//! Pure. What a table looks like at one place of the stream. Stored as a TABLE record of `__catchwater_captures`
//! (format page: `docs/formats/checkpoint.md`), numbered by [`TableSchema::schema_no`], named by each row's stamp.

use catchwater_record::TopicId;

/// Type of a column: the tag says what `Value` carries; the native type's name says the rest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Type {
    Bool,
    Int {
        bits: u32,
        unsigned: bool,
    },
    Float {
        bits: u32,
    },
    /// `precision` 0 = unbounded.
    Decimal {
        precision: u32,
        scale: i32,
    },
    /// `length` 0 = none.
    Text {
        length: u32,
    },
    Bytes,
    Date,
    /// `digits` after the second. With a zone the value is text.
    Time {
        digits: u32,
        zone: bool,
    },
    Timestamp {
        digits: u32,
    },
    Instant {
        digits: u32,
    },
    Interval,
    Uuid,
    Json {
        binary: bool,
    },
    Enum {
        labels: Vec<String>,
    },
    Array {
        element: Box<Type>,
    },
    /// `varying` or exactly `length` bits; the value is text of 0 and 1.
    Bits {
        length: u32,
        varying: bool,
    },
    Xml,
    /// Text as the source prints it.
    Other,
}

/// In the number of a column that its source's catalogue does not show any more, beside its place: no column ever has it.
pub const UNKNOWN_ID: u32 = 1 << 30;

/// One column. `id` survives a rename (attnum; else its place when first seen), unless it is not known ([`UNKNOWN_ID`]).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Column {
    pub id: u32,
    pub name: String,
    /// As the server prints it: `numeric(12,2)`, `character varying(20)`.
    pub native_type: String,
    /// The domain's name as the server prints it, where [`Column::native_type`] is what the domain stands on; empty = none.
    pub domain: String,
    /// oid or the like; 0 = none.
    pub native_id: u32,
    /// typmod or the like; -1 = none.
    pub modifier: i32,
    pub kind: Type,
    /// May be NULL; `None` = unknown.
    pub nullable: Option<bool>,
    pub generated: bool,
    pub identity: bool,
    /// Default expression as the server prints it, empty = none.
    pub default: String,
    /// What rows older than the column have in it, in the form of [`crate::exact::text_of`]; `None` = NULL, or not known.
    /// Unlike `default` it never changes: PostgreSQL's `attmissingval`.
    pub missing: Option<String>,
    pub comment: String,
}

/// Where the key comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum KeyFrom {
    None = 0,
    PrimaryKey = 1,
    IdentityIndex = 2,
    MessageKeyColumns = 3,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableSchema {
    /// Number of this schema, unique per source; 0 = not numbered yet (the capture numbers it).
    pub schema_no: u32,
    /// Number of the table in this source; 0 = not numbered yet.
    pub table_no: u32,
    /// oid; 0 = none.
    pub native_id: u64,
    pub database: String,
    pub schema: String,
    pub name: String,
    pub comment: String,
    /// PostgreSQL's replica identity `d n f i`, 0 = unknown.
    pub identity: u8,
    pub key_from: KeyFrom,
    pub columns: Vec<Column>,
    /// Indexes into `columns`, in key order; empty = keyless.
    pub key: Vec<u16>,
    /// Other unique keys: name and column indexes.
    pub unique: Vec<(String, Vec<u16>)>,
    /// xxh3-128 of what the wire says; equal = the same shape.
    pub fingerprint: [u8; 16],
    /// Topic the table goes to; none until routed.
    pub topic: TopicId,
}

impl TableSchema {
    /// True for [`TableSchema::messages`].
    pub fn is_messages(&self) -> bool {
        self.name.is_empty() && self.schema.is_empty()
    }

    /// What logical messages are of: no table, but a place for their two parts, prefix and content. Its names are empty, as
    /// they are in Debezium's records.
    pub fn messages(database: &str) -> Self {
        let column = |id: u32, name: &str, kind: Type| Column {
            id,
            name: name.to_owned(),
            native_type: String::new(),
            domain: String::new(),
            native_id: 0,
            modifier: -1,
            kind,
            nullable: Some(false),
            generated: false,
            identity: false,
            default: String::new(),
            missing: None,
            comment: String::new(),
        };
        TableSchema {
            schema_no: 0,
            table_no: 0,
            native_id: 0,
            database: database.to_owned(),
            schema: String::new(),
            name: String::new(),
            comment: String::new(),
            identity: b'n',
            key_from: KeyFrom::None,
            columns: vec![column(1, "prefix", Type::Text { length: 0 }), column(2, "content", Type::Bytes)],
            key: Vec::new(),
            unique: Vec::new(),
            fingerprint: [0; 16],
            topic: TopicId::NONE,
        }
    }

    pub fn column(&self, name: &str) -> Option<(usize, &Column)> {
        self.columns.iter().enumerate().find(|(_, c)| c.name == name)
    }
    pub fn is_key(&self, index: usize) -> bool {
        self.key.iter().any(|k| usize::from(*k) == index)
    }
    /// `schema.name`, as users write it.
    pub fn qualified(&self) -> String {
        if self.schema.is_empty() { self.name.clone() } else { format!("{}.{}", self.schema, self.name) }
    }
}
