//! Pure. The tables of a source and their numbers: a shape is known by (table, fingerprint), so a restart finds the number
//! that old rows carry and later DDL cannot bend them (capture.md 5).

use catchwater_base::hash;
use catchwater_change::TableSchema;
use catchwater_change::checkpoint::TableRecord;
use catchwater_record::TopicId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What names a table over its renames: the native id, else the qualified name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum TableKey {
    Native(u64),
    Name(String),
}

#[derive(Debug, Default)]
pub struct Tables {
    numbers: BTreeMap<TableKey, u32>,
    shapes: BTreeMap<(u32, [u8; 16]), Arc<TableSchema>>,
    next_table: u32,
    next_schema: u32,
}

/// What the registry knows of a shape.
#[derive(Debug, PartialEq)]
pub enum Shape {
    Known(Arc<TableSchema>),
    /// To be written as a TABLE record (with its topic) and then given to [`Tables::learn`].
    New(Box<TableSchema>),
}

impl Tables {
    /// Takes in a stored TABLE record.
    pub fn learn(&mut self, schema: TableSchema) -> Arc<TableSchema> {
        self.next_table = self.next_table.max(schema.table_no + 1);
        self.next_schema = self.next_schema.max(schema.schema_no + 1);
        self.numbers.insert(key_of(&schema), schema.table_no);
        let at = (schema.table_no, schema.fingerprint);
        let schema = Arc::new(schema);
        self.shapes.insert(at, schema.clone());
        schema
    }

    /// The shape is the first one of its table.
    pub fn is_first(&self, schema: &TableSchema) -> bool {
        !self.numbers.values().any(|no| *no == schema.table_no)
    }

    /// The shape of a number.
    pub fn numbered(&self, schema_no: u32) -> Option<Arc<TableSchema>> {
        self.shapes.values().find(|s| s.schema_no == schema_no).cloned()
    }

    pub fn learn_record(&mut self, record: &TableRecord) {
        self.learn(record.schema.clone());
    }

    /// The numbered form of a shape as the source gave it. A topic that changed (deleted and made again) is a new shape.
    pub fn resolve(&mut self, given: &TableSchema, topic: TopicId) -> Shape {
        let mut schema = given.clone();
        if schema.fingerprint == [0; 16] {
            schema.fingerprint =
                hash::xxh3_128(format!("{:?}{:?}", schema.columns, schema.key).as_bytes()).to_be_bytes();
        }
        let fresh = self.next_table.max(1);
        schema.table_no = self.numbers.get(&key_of(&schema)).copied().unwrap_or(fresh);
        schema.topic = topic;
        if let Some(known) = self.shapes.get(&(schema.table_no, schema.fingerprint))
            && known.topic == topic
            && known.name == schema.name
            && known.schema == schema.schema
        {
            return Shape::Known(known.clone());
        }
        schema.schema_no = self.next_schema.max(1);
        Shape::New(Box::new(schema))
    }
}

fn key_of(schema: &TableSchema) -> TableKey {
    match schema.native_id {
        0 => TableKey::Name(schema.qualified()),
        id => TableKey::Native(id),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use catchwater_change::{Column, KeyFrom, Type};

    pub fn table(schema: &str, name: &str) -> TableSchema {
        TableSchema {
            schema_no: 0,
            table_no: 0,
            native_id: 0,
            database: "db".into(),
            schema: schema.into(),
            name: name.into(),
            comment: String::new(),
            identity: b'd',
            key_from: KeyFrom::PrimaryKey,
            columns: vec![Column {
                id: 1,
                name: "id".into(),
                native_type: "integer".into(),
                domain: String::new(),
                native_id: 23,
                modifier: -1,
                kind: Type::Int { bits: 32, unsigned: false },
                nullable: Some(false),
                generated: false,
                identity: false,
                default: String::new(),
                missing: None,
                comment: String::new(),
            }],
            key: vec![0],
            unique: Vec::new(),
            fingerprint: [1; 16],
            topic: TopicId::NONE,
        }
    }

    #[test]
    fn shapes_keep_their_numbers_and_new_ones_get_the_next() {
        let topic = TopicId([5; 16]);
        let mut t = Tables::default();
        let Shape::New(first) = t.resolve(&table("s", "a"), topic) else { panic!("nothing is known yet") };
        assert!(t.is_first(&first));
        assert_eq!((first.table_no, first.schema_no), (1, 1));
        let first = t.learn(*first);
        assert_eq!(t.resolve(&table("s", "a"), topic), Shape::Known(first));
        let changed = TableSchema { fingerprint: [2; 16], ..table("s", "a") };
        let Shape::New(second) = t.resolve(&changed, topic) else { panic!("another shape") };
        assert_eq!((second.table_no, second.schema_no), (1, 2));
        assert!(!t.is_first(&second));
        t.learn(*second);
        let Shape::New(other) = t.resolve(&table("s", "b"), topic) else { panic!("another table") };
        assert_eq!((other.table_no, other.schema_no), (2, 3));
    }
}
