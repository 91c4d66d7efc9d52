//! Pure. Which columns of a table a sink takes, and what they are called and of which type at the target.
//!
//! [`Columns::shape`] makes of a source's table the shape that the target has: columns that are left out count as made by
//! somebody else (`generated`), so that neither DDL nor writes name them; places stay, so rows need no change.

use catchwater_change::TableSchema;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Longest name of a type that somebody gives.
const TYPE_CHARS_MAX: usize = 100;

/// The choice for one table.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Columns {
    /// Only these; `None` = all.
    pub keep: Option<BTreeSet<String>>,
    /// Not these.
    pub drop: BTreeSet<String>,
    /// Source column → name at the target.
    pub names: BTreeMap<String, String>,
    /// Source column → type in a table that we make, in the target's words.
    pub types: BTreeMap<String, String>,
    /// As Kafka Connect's sinks: key columns are always taken, names that no column has mean nothing.
    pub lenient: bool,
    /// Names are written in small letters, as a target that is given them without quotes would.
    pub fold: bool,
    /// What the table's key has to be; `None` = whatever it is.
    pub key: Option<BTreeSet<String>>,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ColumnsError {
    #[error("{table} has no column {column}, which the sink's file names; it has {have}")]
    Unknown { table: String, column: String, have: String },
    #[error("column {column} of {table} is part of the key and cannot be left out")]
    Key { table: String, column: String },
    #[error("columns {first} and {second} of {table} would both be {name}")]
    Same { table: String, first: String, second: String, name: String },
    #[error("no column of {table} is left")]
    Empty { table: String },
    #[error("the sink's file names {named} as the key of {table}, and the key of its records is {key}")]
    OtherKey { table: String, named: String, key: String },
}

/// What a table becomes, and the types that are given for its columns, by their names at the target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shaped {
    pub schema: Arc<TableSchema>,
    pub types: BTreeMap<String, String>,
}

impl Columns {
    fn takes(&self, column: &str) -> bool {
        self.keep.as_ref().is_none_or(|k| k.contains(column)) && !self.drop.contains(column)
    }

    /// Every name it holds of the source's columns.
    pub fn named(&self) -> impl Iterator<Item = &String> {
        self.keep.iter().flatten().chain(&self.drop).chain(self.names.keys()).chain(self.types.keys())
    }

    /// `was`: a column of this name was part of an earlier form of the table. `keyed`: rows are found by their key.
    pub fn shape(
        &self,
        table: &Arc<TableSchema>,
        keyed: bool,
        was: impl Fn(&str) -> bool,
    ) -> Result<Shaped, ColumnsError> {
        if *self == Columns::default() {
            return Ok(Shaped { schema: table.clone(), types: BTreeMap::new() });
        }
        let name = || table.qualified();
        if !self.lenient
            && let Some(unknown) = self.named().find(|n| table.column(n).is_none() && !was(n))
        {
            let have: Vec<&str> = table.columns.iter().map(|c| c.name.as_str()).collect();
            return Err(ColumnsError::Unknown { table: name(), column: unknown.clone(), have: have.join(", ") });
        }
        let key: BTreeSet<&String> =
            table.key.iter().filter_map(|k| Some(&table.columns.get(usize::from(*k))?.name)).collect();
        if let Some(named) = self.key.as_ref().filter(|named| keyed && !named.iter().eq(key.iter().copied())) {
            let list = |of: &mut dyn Iterator<Item = &String>| of.map(String::as_str).collect::<Vec<_>>().join(", ");
            let (named, key) = (list(&mut named.iter()), list(&mut key.into_iter()));
            let key = if key.is_empty() { "none".to_owned() } else { key };
            return Err(ColumnsError::OtherKey { table: name(), named, key });
        }
        let mut shape = (**table).clone();
        let (mut types, mut seen) = (BTreeMap::new(), BTreeMap::<String, String>::new());
        for (i, column) in shape.columns.iter_mut().enumerate() {
            let source = column.name.clone();
            let key = table.is_key(i);
            let taken = self.takes(&source) || (self.lenient && key);
            if !taken {
                if key && keyed {
                    return Err(ColumnsError::Key { table: name(), column: source });
                }
                column.generated = true;
            }
            if let Some(given) = self.names.get(&source) {
                column.name.clone_from(given);
            }
            if self.fold {
                column.name.make_ascii_lowercase();
            }
            if column.generated {
                continue;
            }
            if let Some(given) = self.types.get(&source) {
                types.insert(column.name.clone(), given.clone());
            }
            if let Some(first) = seen.insert(column.name.clone(), source.clone()) {
                return Err(ColumnsError::Same { table: name(), first, second: source, name: column.name.clone() });
            }
        }
        if seen.is_empty() && !table.columns.iter().all(|c| c.generated) {
            return Err(ColumnsError::Empty { table: name() });
        }
        // One that is left out may not stand in the way of one that took its name.
        for column in shape.columns.iter_mut().filter(|c| c.generated && seen.contains_key(&c.name)) {
            column.name = format!("{} (left out)", column.name);
        }
        Ok(Shaped { schema: Arc::new(shape), types })
    }
}

/// Can this stand as a type in SQL text? Words, a list of numbers, brackets of an array: `numeric(14,2)`, `double precision`,
/// `timestamp(3) with time zone`, `app.mood[]`. The target says whether it knows it.
pub fn is_type(text: &str) -> bool {
    let mut rest = text;
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ' ' | '.');
    let mut numbers = false;
    if text.len() > TYPE_CHARS_MAX || !text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return false;
    }
    loop {
        rest = rest.trim_start_matches(word);
        if rest.is_empty() {
            return true;
        }
        if let Some(inner) = rest.strip_prefix('(').filter(|_| !numbers) {
            let Some((list, after)) = inner.split_once(')') else { return false };
            if !list.split(',').all(|n| !n.is_empty() && n.len() <= 9 && n.trim().bytes().all(|b| b.is_ascii_digit())) {
                return false;
            }
            (numbers, rest) = (true, after);
        } else if let Some(after) = rest.strip_prefix("[]") {
            rest = after;
        } else {
            return false;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::table;
    use catchwater_change::Type;

    const INT: Type = Type::Int { bits: 64, unsigned: false };

    fn set(of: &[&str]) -> BTreeSet<String> {
        of.iter().map(|s| (*s).to_owned()).collect()
    }
    fn map(of: &[(&str, &str)]) -> BTreeMap<String, String> {
        of.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }
    /// Names of what is taken, or the error.
    fn shaped(columns: &Columns) -> String {
        let source = table("public", "t", &[("id", INT), ("Total", INT), ("note", INT)], &["id"]);
        match columns.shape(&source, true, |n| n == "old") {
            Ok(s) => {
                let taken: Vec<&str> =
                    s.schema.columns.iter().filter(|c| !c.generated).map(|c| c.name.as_str()).collect();
                let types: Vec<String> = s.types.iter().map(|(c, t)| format!("{c}:{t}")).collect();
                format!("{} {}", taken.join(","), types.join(",")).trim().to_owned()
            }
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn columns_are_taken_named_and_typed() {
        let default = Columns::default;
        for (columns, want) in [
            (default(), "id,Total,note"),
            (Columns { drop: set(&["note"]), ..default() }, "id,Total"),
            (Columns { keep: Some(set(&["id", "note"])), ..default() }, "id,note"),
            (
                Columns { names: map(&[("Total", "sum")]), types: map(&[("Total", "numeric(9,2)")]), ..default() },
                "id,sum,note sum:numeric(9,2)",
            ),
            (Columns { fold: true, ..default() }, "id,total,note"),
            // The name of what is left out is free.
            (Columns { drop: set(&["note"]), names: map(&[("Total", "note")]), ..default() }, "id,note"),
            // A column that is gone from the table is no mistake.
            (Columns { drop: set(&["old"]), ..default() }, "id,Total,note"),
            (Columns { keep: Some(set(&["note", "nothing"])), lenient: true, ..default() }, "id,note"),
            (
                Columns { drop: set(&["noet"]), ..default() },
                "public.t has no column noet, which the sink's file names; it has id, Total, note",
            ),
            (
                Columns { drop: set(&["id"]), ..default() },
                "column id of public.t is part of the key and cannot be left out",
            ),
            (Columns { key: Some(set(&["id"])), ..default() }, "id,Total,note"),
            (
                Columns { key: Some(set(&["note", "Total"])), ..default() },
                "the sink's file names Total, note as the key of public.t, and the key of its records is id",
            ),
            (
                Columns { names: map(&[("Total", "note")]), ..default() },
                "columns Total and note of public.t would both be note",
            ),
        ] {
            assert_eq!(shaped(&columns), want, "{columns:?}");
        }
        // Rows that are only added need no key.
        let source = table("public", "t", &[("id", INT), ("a", INT)], &["id"]);
        let columns = Columns { drop: set(&["id"]), ..default() };
        assert!(columns.shape(&source, false, |_| false).unwrap().schema.columns[0].generated);
    }

    #[test]
    fn a_type_that_is_given_is_a_type_and_nothing_else() {
        for yes in
            ["numeric(14,2)", "double precision", "timestamp(3) with time zone", "app.mood[]", "text", "int4[][]"]
        {
            assert!(is_type(yes), "{yes}");
        }
        for no in [
            "",
            "text; DROP TABLE t",
            "text)",
            "numeric(14",
            "(3)",
            "numeric(1)(2)",
            "text--",
            "\"x\"",
            "int/**/",
            "a(b)",
            "numeric()",
            "text'",
        ] {
            assert!(!is_type(no), "{no}");
        }
    }
}
