//! Pure. What Debezium's properties say of how a source is read, and of which rows its first snapshot has. A connector is
//! asked to honour it; what it says nothing of stays as it is.

use crate::shape::Pattern;
use std::collections::BTreeMap;

#[derive(Clone, PartialEq, Debug, Default)]
pub struct Reading {
    /// `publish.via.partition.root` = false: each partition is a table of its own, under its own name.
    pub leaves: bool,
    /// `lsn.flush.mode` = manual: the source is never told what it may forget; somebody else tells it.
    pub unconfirmed: bool,
    /// `snapshot.include.collection.list`: the first snapshot reads these alone.
    pub snapshot_tables: Option<Pattern>,
    /// `snapshot.select.statement.overrides.SCHEMA.TABLE`: what the first snapshot reads of a table, by `schema.table`.
    pub snapshot_selects: BTreeMap<String, String>,
}

/// Property that lists the tables; with a point and a table behind it, the statement.
pub const SELECTS: &str = "snapshot.select.statement.overrides";

impl Reading {
    /// True if nothing is asked.
    pub fn is_plain(&self) -> bool {
        *self == Reading::default()
    }

    /// True if the first snapshot reads the table.
    pub fn reads(&self, table: &str) -> bool {
        self.snapshot_tables.as_ref().is_none_or(|p| p.fits(table))
    }

    /// Statements of the tables in the list; one without a table in the list, and a table without one, are faults.
    pub fn take_selects(&mut self, listed: Option<&str>, given: &BTreeMap<&str, &str>) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let listed: Vec<&str> =
            listed.unwrap_or_default().split(',').map(str::trim).filter(|t| !t.is_empty()).collect();
        for table in &listed {
            match given.get(format!("{SELECTS}.{table}").as_str()).map(|s| s.trim()).filter(|s| !s.is_empty()) {
                Some(statement) => {
                    let statement = statement.trim_end_matches([';', ' ', '\n', '\t']);
                    self.snapshot_selects.insert((*table).to_owned(), statement.to_owned());
                }
                None => faults.push((SELECTS.to_owned(), format!("there is no `{SELECTS}.{table}`"))),
            }
        }
        for key in given.keys() {
            let table = key.strip_prefix(SELECTS).and_then(|rest| rest.strip_prefix('.'));
            if table.is_some_and(|t| !listed.contains(&t)) {
                faults.push(((*key).to_owned(), format!("the table is not in `{SELECTS}`")));
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_of_listed_tables() {
        let given: BTreeMap<&str, &str> = [
            ("snapshot.select.statement.overrides.public.a", "SELECT * FROM a WHERE id > 5 ; "),
            ("snapshot.select.statement.overrides.public.b", "SELECT 1"),
        ]
        .into();
        let mut reading = Reading::default();
        assert_eq!(reading.take_selects(Some("public.a , public.c"), &given).len(), 2);
        assert_eq!(reading.snapshot_selects, [("public.a".into(), "SELECT * FROM a WHERE id > 5".into())].into());
        assert!(Reading::default().is_plain() && !reading.is_plain());
    }
}
