//! Pure. The SQL that stands in the captured database: change table, pending tables, triggers.
//!
//! Each trigger writes one wide row per change, values stored natively. One writer at a time makes `seq` the commit order,
//! and a rollback gives numbers back, so it is dense.
//!
//! **REPLACE deletes rows without firing delete triggers** (unless the writer set `recursive_triggers`). So a table whose
//! rows can collide in anything but the key we report gets BEFORE triggers that note who could collide (the *pending*
//! table) and AFTER triggers that report who is gone. A row counts as gone when no row with its identity *and* its key
//! is left. Keys are compared byte by byte (COLLATE BINARY): a target does not know the source's collations.
//! Tested by thousands of random statements (`source/tests.rs`). The statements of the triggers run in the writer's own
//! SQLite, of any version since 3.8.

use crate::catalog::{RowIdentity, Table};
use crate::types::quoted;

/// Operations in `_catchwater_changes.op`.
pub const CREATE: i64 = 1;
pub const UPDATE: i64 = 2;
pub const DELETE: i64 = 3;

/// Format of these tables.
pub const FORMAT: i64 = 1;

/// The tables of a capture.
pub const TABLES: &str = "
CREATE TABLE _catchwater_meta(id INTEGER PRIMARY KEY CHECK (id = 1), format INTEGER NOT NULL, uuid BLOB NOT NULL,
  purged INTEGER NOT NULL);
CREATE TABLE _catchwater_tables(tbl INTEGER NOT NULL, ver INTEGER NOT NULL, name TEXT NOT NULL, columns TEXT NOT NULL,
  key TEXT NOT NULL, PRIMARY KEY (tbl, ver));
CREATE TABLE _catchwater_units(seq INTEGER PRIMARY KEY, at INTEGER NOT NULL);
CREATE TABLE _catchwater_changes(seq INTEGER PRIMARY KEY AUTOINCREMENT, tbl INTEGER NOT NULL, op INTEGER NOT NULL,
  ver INTEGER NOT NULL);
";

/// Which row a fragment speaks of.
#[derive(Clone, Copy)]
enum Of<'a> {
    /// `NEW` or `OLD`, or the captured table by its name: columns by their own names.
    Row(&'a str),
    /// The pending table.
    Pending,
}

/// The triggers of one table under its number and version.
pub struct Triggers<'a> {
    pub table: &'a Table,
    pub number: i64,
    pub version: i64,
}

impl Triggers<'_> {
    /// Can REPLACE remove a row that is not the one it writes?
    pub fn needs_pending(&self) -> bool {
        let only_key = match self.table.identity {
            RowIdentity::Alias(_) => self.table.uniques.is_empty(),
            RowIdentity::Key => self.table.uniques.iter().all(|u| u.is_primary && binary(u)),
            // The rowid itself is a second unique key, and without a key the rowid is all there is.
            RowIdentity::Rowid(_) => false,
        };
        !only_key
    }

    /// Drops and makes pending table and triggers.
    pub fn install(&self) -> String {
        let mut sql = self.remove();
        let t = quoted(&self.table.name);
        let mut trigger = |kind: &str, when: &str, body: String| {
            sql.push_str(&format!(
                "CREATE TRIGGER _catchwater_{}_{kind} {when} ON {t} BEGIN {body} END;\n",
                self.number
            ));
        };
        if self.needs_pending() {
            let clear = format!("DELETE FROM {};", self.pending());
            trigger("bi", "BEFORE INSERT", format!("{clear} {}", self.note(false)));
            trigger("ai", "AFTER INSERT", format!("{} {} {clear}", self.gone(), self.created()));
            trigger("bu", "BEFORE UPDATE", format!("{clear} {}", self.note(true)));
            trigger("au", "AFTER UPDATE", format!("{} {} {clear}", self.gone(), self.updated()));
            let same = self.same_identity(Of::Pending, Of::Row("OLD"));
            let forget = format!("DELETE FROM {} WHERE {same};", self.pending());
            trigger("ad", "AFTER DELETE", format!("{} {forget}", self.deleted("OLD", None)));
            let columns: Vec<String> = (0..self.identity().len())
                .map(|i| format!("r{i}"))
                .chain(self.cells().map(|i| format!("c{i}")))
                .collect();
            sql.push_str(&format!("CREATE TABLE {}({});\n", self.pending(), columns.join(", ")));
        } else {
            trigger("ai", "AFTER INSERT", self.created());
            trigger("au", "AFTER UPDATE", self.updated());
            trigger("ad", "AFTER DELETE", self.deleted("OLD", None));
        }
        sql
    }

    /// Drops them.
    pub fn remove(&self) -> String {
        let mut sql = String::new();
        for kind in ["bi", "ai", "bu", "au", "ad"] {
            sql.push_str(&format!("DROP TRIGGER IF EXISTS _catchwater_{}_{kind};\n", self.number));
        }
        sql.push_str(&format!("DROP TABLE IF EXISTS {};\n", self.pending()));
        sql
    }

    /// Reports every row that is there as created: a table that begins to be captured beside a running stream.
    pub fn report_all(&self) -> String {
        let t = quoted(&self.table.name);
        let cells: Vec<String> = self.table.columns.iter().map(|c| format!("{t}.{}", quoted(&c.name))).collect();
        format!("{} SELECT {}, {CREATE}, {}, {} FROM {t};", self.into(), self.number, self.version, cells.join(", "))
    }

    /// Reports again, under this version, what an older one could not say because it did not know the columns `new`
    /// (indexes): rows that changed above `seq`; of a table without a key all rows that have something in them, because
    /// one of them can only be found by all its cells later.
    pub fn report_again(&self, new: &[usize], seq: i64) -> String {
        if self.table.key.is_empty() {
            return self.report_again_keyless(new);
        }
        let t = quoted(&self.table.name);
        let cells: Vec<String> = self.table.columns.iter().map(|c| format!("{t}.{}", quoted(&c.name))).collect();
        let same: Vec<String> = self
            .table
            .key
            .iter()
            .map(|k| format!("x.c{k} IS {t}.{} COLLATE BINARY", quoted(&self.table.columns[*k].name)))
            .collect();
        format!(
            "{} SELECT {n}, {UPDATE}, {v}, {} FROM {t} WHERE EXISTS (SELECT 1 FROM _catchwater_changes x WHERE x.seq > {seq} \
             AND x.tbl = {n} AND x.ver < {v} AND x.op <> {DELETE} AND {});",
            self.into(),
            cells.join(", "),
            same.join(" AND "),
            n = self.number,
            v = self.version,
        )
    }

    fn report_again_keyless(&self, new: &[usize]) -> String {
        let t = quoted(&self.table.name);
        let cell = |i: usize| format!("{t}.{}", quoted(&self.table.columns[i].name));
        let filled: Vec<String> = new.iter().map(|i| format!("{} IS NOT NULL", cell(*i))).collect();
        if filled.is_empty() {
            return String::new();
        }
        let filled = filled.join(" OR ");
        let before: Vec<String> =
            self.cells().map(|i| if new.contains(&i) { "NULL".into() } else { cell(i) }).collect();
        let after: Vec<String> = self.cells().map(cell).collect();
        let (into, n, v) = (self.into(), self.number, self.version);
        format!(
            "{into} SELECT {n}, {DELETE}, {v}, {} FROM {t} WHERE {filled}; {into} SELECT {n}, {CREATE}, {v}, {} FROM {t} WHERE {filled};",
            before.join(", "),
            after.join(", ")
        )
    }

    fn pending(&self) -> String {
        format!("_catchwater_pending_{}", self.number)
    }

    fn cells(&self) -> std::ops::Range<usize> {
        0..self.table.columns.len()
    }

    fn into(&self) -> String {
        let columns: Vec<String> = self.cells().map(|i| format!(", c{i}")).collect();
        format!("INSERT INTO _catchwater_changes(tbl, op, ver{})", columns.join(""))
    }

    /// Names of the columns that identify a row.
    fn identity(&self) -> Vec<String> {
        match self.table.identity {
            RowIdentity::Alias(i) => vec![self.table.columns[i].name.clone()],
            RowIdentity::Rowid(name) => vec![name.to_owned()],
            RowIdentity::Key => self.table.key.iter().map(|k| self.table.columns[*k].name.clone()).collect(),
        }
    }

    fn column(&self, of: Of<'_>, index: usize) -> String {
        match of {
            Of::Row(name) => format!("{name}.{}", quoted(&self.table.columns[index].name)),
            Of::Pending => format!("{}.c{index}", self.pending()),
        }
    }

    /// Same row of the table.
    fn same_identity(&self, a: Of<'_>, b: Of<'_>) -> String {
        let names = self.identity();
        let place = |of: Of<'_>, i: usize| match of {
            Of::Row(row) => format!("{row}.{}", quoted(&names[i])),
            Of::Pending => format!("{}.r{i}", self.pending()),
        };
        let parts: Vec<String> =
            (0..names.len()).map(|i| format!("{} IS {} COLLATE BINARY", place(a, i), place(b, i))).collect();
        format!("({})", parts.join(" AND "))
    }

    /// Same key, as a target sees it. Without a key no two are the same.
    fn same_key(&self, a: Of<'_>, b: Of<'_>) -> String {
        if self.table.key.is_empty() {
            return "0".into();
        }
        let parts: Vec<String> = self
            .table
            .key
            .iter()
            .map(|k| format!("{} IS {} COLLATE BINARY", self.column(a, *k), self.column(b, *k)))
            .collect();
        format!("({})", parts.join(" AND "))
    }

    /// Who could collide with NEW.
    fn note(&self, update: bool) -> String {
        let t = quoted(&self.table.name);
        let mut ways: Vec<String> = Vec::new();
        if !matches!(self.table.identity, RowIdentity::Key) {
            let rowid = quoted(&self.identity()[0]);
            ways.push(format!("{t}.{rowid} = NEW.{rowid}"));
        }
        for unique in &self.table.uniques {
            let parts: Option<Vec<String>> = unique
                .columns
                .iter()
                .map(|c| {
                    let (name, collation) = c.as_ref()?;
                    let name = quoted(name);
                    Some(format!("{t}.{name} = NEW.{name} COLLATE {}", quoted(collation)))
                })
                .collect();
            if let Some(parts) = parts {
                ways.push(format!("({})", parts.join(" AND ")));
            }
        }
        let others = if update {
            format!(" AND NOT {}", self.same_identity(Of::Row(&t), Of::Row("OLD")))
        } else {
            String::new()
        };
        let columns: Vec<String> = self
            .identity()
            .iter()
            .map(|n| format!("{t}.{}", quoted(n)))
            .chain(self.cells().map(|i| self.column(Of::Row(&t), i)))
            .collect();
        format!(
            "INSERT INTO {} SELECT {} FROM {t} WHERE ({}){others};",
            self.pending(),
            columns.join(", "),
            ways.join(" OR ")
        )
    }

    /// Reports pending rows that are gone, but for one whose key NEW has taken over.
    fn gone(&self) -> String {
        let p = self.pending();
        let t = quoted(&self.table.name);
        // The first comparison finds the row by its index, in the column's own collation; the second is exact.
        let found: Vec<String> =
            self.identity().iter().enumerate().map(|(i, n)| format!("{t}.{} = {p}.r{i}", quoted(n))).collect();
        let (left, taken) = if self.table.key.is_empty() {
            // A row under its rowid is another row, if NEW has it.
            (String::new(), format!("NOT {}", self.same_identity(Of::Pending, Of::Row("NEW"))))
        } else {
            (format!(" AND {}", self.same_key(Of::Row(&t), Of::Pending)), "1".into())
        };
        let cells: Vec<String> = self.cells().map(|i| format!("{p}.c{i}")).collect();
        format!(
            "{} SELECT {}, {DELETE}, {}, {} FROM {p} WHERE NOT {} AND NOT ({taken} AND EXISTS (SELECT 1 FROM {t} WHERE {}{left}));",
            self.into(),
            self.number,
            self.version,
            cells.join(", "),
            self.same_key(Of::Pending, Of::Row("NEW")),
            found.join(" AND "),
        )
    }

    fn written(&self, op: String) -> String {
        let cells: Vec<String> = self.cells().map(|i| self.column(Of::Row("NEW"), i)).collect();
        format!("{} SELECT {}, {op}, {}, {};", self.into(), self.number, self.version, cells.join(", "))
    }

    fn deleted(&self, row: &str, only: Option<String>) -> String {
        let cells: Vec<String> = self.cells().map(|i| self.column(Of::Row(row), i)).collect();
        let only = only.map(|o| format!(" WHERE {o}")).unwrap_or_default();
        format!("{} SELECT {}, {DELETE}, {}, {}{only};", self.into(), self.number, self.version, cells.join(", "))
    }

    /// NEW's key stands in the pending table: the row it had is replaced.
    fn replaced(&self) -> String {
        format!("EXISTS (SELECT 1 FROM {} WHERE {})", self.pending(), self.same_key(Of::Pending, Of::Row("NEW")))
    }

    fn created(&self) -> String {
        let op = if self.needs_pending() && !self.table.key.is_empty() {
            format!("CASE WHEN {} THEN {UPDATE} ELSE {CREATE} END", self.replaced())
        } else {
            CREATE.to_string()
        };
        self.written(op)
    }

    fn updated(&self) -> String {
        if self.table.key.is_empty() {
            // A change of a row without a key is its delete and its creation.
            return format!("{} {}", self.deleted("OLD", None), self.written(CREATE.to_string()));
        }
        let same = self.same_key(Of::Row("OLD"), Of::Row("NEW"));
        let kept = if self.needs_pending() { format!("{same} OR {}", self.replaced()) } else { same.clone() };
        format!(
            "{} {}",
            self.deleted("OLD", Some(format!("NOT {same}"))),
            self.written(format!("CASE WHEN {kept} THEN {UPDATE} ELSE {CREATE} END"))
        )
    }
}

fn binary(unique: &crate::catalog::Unique) -> bool {
    unique.columns.iter().all(|c| c.as_ref().is_some_and(|(_, collation)| collation.eq_ignore_ascii_case("BINARY")))
}
