//! Pure. What Debezium's properties say of how a source is read, and of which rows its first snapshot has. A connector is
//! asked to honour it; what it says nothing of stays as it is.

use crate::shape::Pattern;
use std::collections::BTreeMap;

/// Debezium's `snapshot.mode`: when the tables are read, and whether changes follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SnapshotMode {
    /// Before the first change.
    #[default]
    Initial,
    /// That, and again whenever a worker begins.
    Always,
    /// Before the first change, and none comes: the capture is complete.
    InitialOnly,
    /// Never.
    NoData,
}

impl SnapshotMode {
    /// The words of a pipeline file and of Debezium.
    pub const WORDS: [&str; 4] = ["initial", "always", "initial_only", "no_data"];

    pub fn parse(word: &str) -> Option<SnapshotMode> {
        let all = [SnapshotMode::Initial, SnapshotMode::Always, SnapshotMode::InitialOnly, SnapshotMode::NoData];
        all.into_iter().find(|mode| mode.word() == word)
    }
    pub fn word(self) -> &'static str {
        match self {
            SnapshotMode::Initial => "initial",
            SnapshotMode::Always => "always",
            SnapshotMode::InitialOnly => "initial_only",
            SnapshotMode::NoData => "no_data",
        }
    }
    /// The tables are read when the capture begins.
    pub fn reads_first(self) -> bool {
        self != SnapshotMode::NoData
    }
}

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
    /// `database.initial.statements`: run at the beginning of each session, in this order; not of the stream's connection.
    pub initial_statements: Vec<String>,
    /// `guardrail.collections.max` and `.limit.action`.
    pub guardrail: Option<Guardrail>,
    /// `replica.identity.autoset.values`: what is set at each start where a table has another.
    pub identities: Vec<(Pattern, ReplicaIdentity)>,
}

/// What old rows hold, as `ALTER TABLE … REPLICA IDENTITY` says it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReplicaIdentity {
    Default,
    Full,
    /// By its name.
    Index(String),
}

/// A source of more tables is a mistake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Guardrail {
    pub tables_max: u32,
    /// It does not begin; else it is said.
    pub fails: bool,
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

    /// What `replica.identity.autoset.values` says of a table, `schema.table`; two that fit it say nothing.
    pub fn identity_of(&self, table: &str) -> Result<Option<&ReplicaIdentity>, String> {
        let mut fit = self.identities.iter().filter(|(tables, _)| tables.fits(table)).map(|(_, identity)| identity);
        match (fit.next(), fit.next()) {
            (found, None) => Ok(found),
            _ => Err(format!("more than one entry of replica.identity.autoset.values fits {table}")),
        }
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

/// `schema.table:FULL,schema[.].*:INDEX name`. Source: Debezium 3.7 `ReplicaIdentityMapper`.
pub fn identities(list: &str) -> Result<Vec<(Pattern, ReplicaIdentity)>, String> {
    const SHAPE: &str = "TABLES:DEFAULT, TABLES:FULL or TABLES:INDEX name, and a comma between";
    let mut out = Vec::new();
    for entry in list.split(',').map(str::trim).filter(|e| !e.is_empty()) {
        let (tables, identity) = entry.split_once(':').ok_or_else(|| format!("`{entry}`: {SHAPE}"))?;
        let (word, index) = identity.split_once(' ').unwrap_or((identity, ""));
        let identity = match (word.to_ascii_uppercase().as_str(), index.trim()) {
            ("DEFAULT", "") => ReplicaIdentity::Default,
            ("FULL", "") => ReplicaIdentity::Full,
            ("INDEX", name) if !name.is_empty() => ReplicaIdentity::Index(name.to_owned()),
            ("NOTHING", "") => {
                return Err(format!(
                    "`{entry}`: the application's own UPDATE and DELETE would fail on a published table"
                ));
            }
            _ => return Err(format!("`{entry}`: {SHAPE}")),
        };
        out.push((Pattern::parse(tables)?, identity));
    }
    Ok(out)
}

/// A list of statements with `;` between; `;;` is one in a statement. As Debezium's, so neither quotes nor comments hide
/// one. Whoever begins a transaction here would keep it open for as long as the session lives.
pub fn statements(list: &str) -> Result<Vec<String>, String> {
    const TRANSACTIONS: [&str; 8] = ["begin", "start", "commit", "end", "rollback", "abort", "savepoint", "prepare"];
    let mut out = vec![String::new()];
    let mut rest = list.chars().peekable();
    while let Some(c) = rest.next() {
        match (c, out.last_mut()) {
            (';', Some(last)) if rest.peek() == Some(&';') => {
                rest.next();
                last.push(';');
            }
            (';', _) => out.push(String::new()),
            (c, Some(last)) => last.push(c),
            (_, None) => {}
        }
    }
    let out: Vec<String> = out.iter().map(|s| s.trim()).filter(|s| !s.is_empty()).map(str::to_owned).collect();
    let word = |s: &String| s.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default().to_ascii_lowercase();
    match out.iter().find(|s| TRANSACTIONS.contains(&word(s).as_str())) {
        Some(s) => Err(format!("`{}` is of transactions, and each statement is one of its own", word(s))),
        None => Ok(out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_semicolons_are_one() {
        let of = |list: &str| statements(list).unwrap_or_else(|why| vec![why]);
        assert_eq!(of("SET a TO 1; SET b TO ';;' ;"), ["SET a TO 1", "SET b TO ';'"]);
        // Pairs are taken from the left.
        assert_eq!(of("a;;;b"), ["a;", "b"]);
        assert_eq!(of(" ; ;"), [""; 0]);
        assert_eq!(of("x;;"), ["x;"]);
        assert!(of("SET a TO 1; Begin; SET b TO 2")[0].contains("`begin`"));
        assert_eq!(of("beginning"), ["beginning"]);
    }

    #[test]
    fn identities_are_of_tables_by_expressions() {
        let of = |list: &str| identities(list).map(|identities| Reading { identities, ..Reading::default() });
        let reading = of("public[.]a:FULL, shop.*:INDEX by_code,public.c:default").unwrap_or_default();
        assert_eq!(reading.identity_of("public.a"), Ok(Some(&ReplicaIdentity::Full)));
        assert_eq!(reading.identity_of("shop.x"), Ok(Some(&ReplicaIdentity::Index("by_code".into()))));
        assert_eq!(reading.identity_of("public.c"), Ok(Some(&ReplicaIdentity::Default)));
        assert_eq!(reading.identity_of("public.ab"), Ok(None));
        assert!(of("a.*:FULL,ab:DEFAULT").unwrap_or_default().identity_of("ab").is_err());
        for wrong in ["public.a", "public.a:SOME", "public.a:INDEX", "public.a:NOTHING", "(:FULL"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

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
