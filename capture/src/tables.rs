//! Pure. The tables of a source and their numbers: a shape is known by (table, fingerprint), so a restart finds the number
//! that old rows carry and later DDL cannot bend them (capture.md 5).

use catchwater_base::hash;
use catchwater_change::checkpoint::TableRecord;
use catchwater_change::{TableSchema, Version};
use catchwater_record::{CommitSeq, TopicId};
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
    /// By table and number, with where the number was given.
    shapes: BTreeMap<(u32, u32), (Version, Arc<TableSchema>)>,
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
    /// Takes in a TABLE record, stored or to be stored.
    pub fn learn(&mut self, record: &TableRecord) -> Arc<TableSchema> {
        let schema = Arc::new(record.schema.clone());
        self.next_table = self.next_table.max(schema.table_no + 1);
        self.next_schema = self.next_schema.max(schema.schema_no + 1);
        self.numbers.insert(key_of(&schema), schema.table_no);
        self.shapes.insert((schema.table_no, schema.schema_no), (record.from, schema.clone()));
        schema
    }

    /// The shape is the first one of its table.
    pub fn is_first(&self, schema: &TableSchema) -> bool {
        !self.numbers.values().any(|no| *no == schema.table_no)
    }

    /// The shape of a number.
    pub fn numbered(&self, schema_no: u32) -> Option<Arc<TableSchema>> {
        self.shapes.iter().find(|((_, no), _)| *no == schema_no).map(|(_, (_, s))| s.clone())
    }

    /// The shapes of a table, by number.
    fn of(&self, table_no: u32) -> impl DoubleEndedIterator<Item = &(Version, Arc<TableSchema>)> {
        self.shapes.range((table_no, 0)..=(table_no, u32::MAX)).map(|(_, shape)| shape)
    }

    /// The newest shape of a table that goes to `topic` under the names it has in `given`.
    pub fn newest_of(&self, given: &TableSchema, topic: TopicId) -> Option<Arc<TableSchema>> {
        let (_, newest) = self.of(*self.numbers.get(&key_of(given))?).next_back()?;
        let is_it = newest.topic == topic && newest.name == given.name && newest.schema == given.schema;
        is_it.then(|| newest.clone())
    }

    /// The shape has a number already, the newest if it has several: a unit of a snapshot may have been read before what the
    /// stream has told since.
    pub fn known(&self, given: &TableSchema, topic: TopicId) -> Option<Arc<TableSchema>> {
        let no = self.numbers.get(&key_of(given))?;
        let is_it = |s: &&Arc<TableSchema>| {
            s.fingerprint == given.fingerprint && s.topic == topic && s.name == given.name && s.schema == given.schema
        };
        self.of(*no).map(|(_, s)| s).rev().find(is_it).cloned()
    }

    /// The numbered form of a shape as the source gave it, of rows in the transaction of `at`. A topic that changed (deleted and
    /// made again) is a new shape, and so is one that a table comes back to: numbers say which names are the newest. After a
    /// restart a transaction finds the number it had.
    pub fn resolve(&self, given: &TableSchema, topic: TopicId, at: Version) -> Shape {
        let mut schema = given.clone();
        if schema.fingerprint == [0; 16] {
            schema.fingerprint =
                hash::xxh3_128(format!("{:?}{:?}", schema.columns, schema.key).as_bytes()).to_be_bytes();
        }
        let fresh = self.next_table.max(1);
        schema.table_no = self.numbers.get(&key_of(&schema)).copied().unwrap_or(fresh);
        schema.topic = topic;
        // Numbers of another incarnation were given before all of this one.
        let given_at = |from: &Version| if from.incarnation == at.incarnation { from.commit_seq } else { CommitSeq(0) };
        let of = || self.of(schema.table_no);
        let in_force = of().filter(|(from, _)| given_at(from) < at.commit_seq).max_by_key(|(from, _)| given_at(from));
        let own = of().filter(|(from, _)| given_at(from) == at.commit_seq);
        let is_it = |known: &&Arc<TableSchema>| {
            known.fingerprint == schema.fingerprint
                && known.topic == topic
                && known.name == schema.name
                && known.schema == schema.schema
        };
        let candidates = in_force.into_iter().chain(own).chain(of().next_back()).map(|(_, known)| known);
        if let Some(known) = candidates.into_iter().find(is_it) {
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
    use catchwater_record::Incarnation;

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

    fn at(seq: u64) -> Version {
        Version { incarnation: Incarnation(1), commit_seq: CommitSeq(seq), ordinal: 0 }
    }

    /// What [`Tables::resolve`] finds or gives, and whether it gave it.
    fn number(t: &mut Tables, given: &TableSchema, topic: TopicId, seq: u64) -> (u32, u32, bool) {
        match t.resolve(given, topic, at(seq)) {
            Shape::Known(known) => (known.table_no, known.schema_no, false),
            Shape::New(schema) => {
                let made = t.learn(&TableRecord { schema: *schema, from: at(seq), flags: 0 });
                (made.table_no, made.schema_no, true)
            }
        }
    }

    #[test]
    fn shapes_keep_their_numbers_and_new_ones_get_the_next() {
        let topic = TopicId([5; 16]);
        let mut t = Tables::default();
        let Shape::New(first) = t.resolve(&table("s", "a"), topic, at(1)) else { panic!("nothing is known yet") };
        assert!(t.is_first(&first));
        assert_eq!(number(&mut t, &table("s", "a"), topic, 1), (1, 1, true));
        assert!(!t.is_first(&first));
        assert_eq!(number(&mut t, &table("s", "a"), topic, 9), (1, 1, false));
        let changed = TableSchema { fingerprint: [2; 16], ..table("s", "a") };
        assert_eq!(number(&mut t, &changed, topic, 10), (1, 2, true));
        assert_eq!(number(&mut t, &table("s", "b"), topic, 11), (2, 3, true));
        assert_eq!(number(&mut t, &table("s", "a"), TopicId([6; 16]), 1), (1, 4, true), "another topic");
    }

    #[test]
    fn a_shape_that_a_table_comes_back_to_is_its_newest_and_a_transaction_that_comes_again_finds_its_own() {
        let topic = TopicId([5; 16]);
        let mut t = Tables::default();
        let (one, two) = (table("s", "a"), TableSchema { fingerprint: [2; 16], ..table("s", "a") });
        assert_eq!(number(&mut t, &one, topic, 1), (1, 1, true));
        assert_eq!(number(&mut t, &two, topic, 5), (1, 2, true));
        assert_eq!(number(&mut t, &one, topic, 9), (1, 3, true));
        for (given, seq, no) in [(&one, 1, 1), (&one, 4, 1), (&two, 5, 2), (&two, 8, 2), (&one, 9, 3), (&one, 20, 3)] {
            assert_eq!(number(&mut t, given, topic, seq), (1, no, false), "at {seq}");
        }
        // What the catalogue shows before the stream has come to it.
        assert_eq!(number(&mut t, &one, topic, 6), (1, 3, false));
        assert_eq!(t.newest_of(&two, topic).map(|s| s.schema_no), Some(3));
        // Twice in one transaction.
        assert_eq!(number(&mut t, &two, topic, 30), (1, 4, true));
        for _ in 0..2 {
            assert_eq!(number(&mut t, &one, topic, 30), (1, 3, false));
            assert_eq!(number(&mut t, &two, topic, 30), (1, 4, false));
        }
        // Of another incarnation, whose numbers are its own.
        let later = Version { incarnation: Incarnation(2), ..at(2) };
        assert!(matches!(t.resolve(&two, topic, later), Shape::Known(known) if known.schema_no == 4));
    }
}
