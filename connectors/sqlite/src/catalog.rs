//! What a table looks like, read from SQLite's own catalogue: columns, key, unique keys, kind of row identity.

use crate::types::{cell_of, kind_of, quoted};
use catchwater_change::{Cell, Column, KeyFrom, TableSchema, exact};
use catchwater_record::TopicId;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension};

/// A table as the catalogue shows it. Generated columns are left out: nobody can write them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    pub name: String,
    pub columns: Vec<TableColumn>,
    /// Indexes into `columns`, in key order; empty = no primary key.
    pub key: Vec<usize>,
    pub identity: RowIdentity,
    pub uniques: Vec<Unique>,
    /// It has triggers that are not ours.
    pub user_triggers: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableColumn {
    pub name: String,
    pub declared: String,
    pub not_null: bool,
    /// SQL text, empty = none.
    pub default: String,
}

/// What rows older than the column have in it: ADD COLUMN takes a constant, and no default is ever changed. Forms of a
/// constant that nobody writes there (`1e3`, `+7`, TRUE before 3.23) are left to NULL.
fn constant(column: &Column) -> Option<String> {
    let text = column.default.trim();
    let text = text.strip_prefix('(').and_then(|t| t.strip_suffix(')')).map_or(text, str::trim);
    let inner = |open: &str| text.strip_prefix(open).and_then(|t| t.strip_suffix('\''));
    let (unquoted, bytes);
    let stored = if let Some(inner) = inner("'") {
        unquoted = inner.replace("''", "'");
        // One constant, not two with an operator between.
        if inner.replace("''", "").contains('\'') {
            return None;
        }
        ValueRef::Text(unquoted.as_bytes())
    } else if let Some(digits) = inner("x'").or_else(|| inner("X'")) {
        let pairs = digits.as_bytes().chunks(2).map(|p| u8::from_str_radix(std::str::from_utf8(p).ok()?, 16).ok());
        bytes = pairs.collect::<Option<Vec<u8>>>()?;
        ValueRef::Blob(&bytes)
    } else if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false") {
        ValueRef::Integer(i64::from(text.eq_ignore_ascii_case("true")))
    } else if let Ok(i) = text.parse::<i64>() {
        ValueRef::Integer(i)
    } else {
        ValueRef::Real(text.parse::<f64>().ok().filter(|f| f.is_finite())?)
    };
    match cell_of(column, stored) {
        Cell::Value(value) => Some(exact::text_of(&column.kind, &value)),
        _ => None,
    }
}

/// What tells two rows of a table apart for certain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RowIdentity {
    /// This column is the rowid.
    Alias(usize),
    /// The rowid under a name that no column has.
    Rowid(&'static str),
    /// WITHOUT ROWID: the primary key.
    Key,
}

/// A unique index, the primary key's among them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unique {
    pub name: String,
    pub is_primary: bool,
    /// Column and collation; `None` in the place of an expression.
    pub columns: Vec<Option<(String, String)>>,
}

/// Why a table cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TableError {
    #[error("table {0} does not exist")]
    Missing(String),
    #[error("{0} is a view")]
    View(String),
    #[error("{0} is a virtual table, on which no trigger can stand")]
    Virtual(String),
    #[error(
        "{0} has columns named rowid, oid and _rowid_ and no INTEGER PRIMARY KEY, so its rows cannot be told apart"
    )]
    NoIdentity(String),
    #[error("{table} has the unique index {index} on an expression, so what INSERT OR REPLACE removes cannot be seen")]
    UniqueExpression { table: String, index: String },
    #[error("{table} has {columns} columns; at most {most} can be captured")]
    TooManyColumns { table: String, columns: usize, most: usize },
    #[error(transparent)]
    Sql(#[from] SqlText),
}

/// SQLite's own words.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct SqlText(pub String);

impl From<rusqlite::Error> for TableError {
    fn from(e: rusqlite::Error) -> Self {
        TableError::Sql(SqlText(e.to_string()))
    }
}

/// Names of the tables a user made.
pub fn user_tables(db: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = db.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
         AND name NOT LIKE '\\_catchwater\\_%' ESCAPE '\\' AND name NOT LIKE 'catchwater\\_%' ESCAPE '\\' \
         AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name",
    )?;
    let names = statement.query_map([], |r| r.get(0))?;
    names.collect()
}

impl Table {
    pub fn read(db: &Connection, name: &str) -> Result<Table, TableError> {
        let found: Option<(String, String, String)> = db
            .query_row(
                "SELECT name, type, coalesce(sql, '') FROM sqlite_schema WHERE name = ?1 COLLATE NOCASE AND type IN ('table','view')",
                [name],
                |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)),
            )
            .optional()?;
        let Some((name, kind, sql)) = found else { return Err(TableError::Missing(name.to_owned())) };
        if kind == "view" {
            return Err(TableError::View(name));
        }
        if sql.trim_start().to_ascii_uppercase().starts_with("CREATE VIRTUAL") {
            return Err(TableError::Virtual(name));
        }
        let (mut columns, mut key) = (Vec::new(), Vec::new());
        let mut hidden = Vec::new();
        let mut statement =
            db.prepare("SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1)")?;
        let mut rows = statement.query([&name])?;
        while let Some(r) = rows.next()? {
            let column: String = r.get(0)?;
            if r.get::<_, i64>(5)? != 0 {
                hidden.push(column);
                continue;
            }
            let place: i64 = r.get(4)?;
            if place > 0 {
                key.push((place, columns.len()));
            }
            columns.push(TableColumn {
                name: column,
                declared: r.get::<_, Option<String>>(1)?.unwrap_or_default(),
                not_null: r.get::<_, i64>(2)? != 0,
                default: r.get::<_, Option<String>>(3)?.unwrap_or_default(),
            });
        }
        key.sort_unstable();
        let key: Vec<usize> = key.into_iter().map(|(_, i)| i).collect();
        let without_rowid: bool =
            db.query_row("SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?1", [&name], |r| {
                r.get::<_, i64>(0).map(|v| v != 0)
            })?;
        let uniques = uniques(db, &name)?;
        let identity = if without_rowid {
            RowIdentity::Key
        } else if key.len() == 1
            && columns[key[0]].declared.eq_ignore_ascii_case("INTEGER")
            && !uniques.iter().any(|u| u.is_primary)
        {
            RowIdentity::Alias(key[0])
        } else {
            let taken = |n: &str| columns.iter().map(|c| &c.name).chain(&hidden).any(|c| c.eq_ignore_ascii_case(n));
            match ["rowid", "_rowid_", "oid"].into_iter().find(|n| !taken(n)) {
                Some(n) => RowIdentity::Rowid(n),
                None => return Err(TableError::NoIdentity(name)),
            }
        };
        let user_triggers = db.query_row(
            "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE \
             AND name NOT LIKE '\\_catchwater\\_%' ESCAPE '\\'",
            [&name],
            |r| r.get::<_, i64>(0).map(|n| n > 0),
        )?;
        Ok(Table { name, columns, key, identity, uniques, user_triggers })
    }

    /// Can its changes be seen completely?
    pub fn check_capturable(&self) -> Result<(), TableError> {
        /// SQLite's own bound is 2,000 columns per table; our change table has four more.
        const MOST: usize = 990;
        if self.columns.len() > MOST {
            return Err(TableError::TooManyColumns {
                table: self.name.clone(),
                columns: self.columns.len(),
                most: MOST,
            });
        }
        match self.uniques.iter().find(|u| u.columns.iter().any(Option::is_none)) {
            Some(u) => Err(TableError::UniqueExpression { table: self.name.clone(), index: u.name.clone() }),
            None => Ok(()),
        }
    }

    /// As the log describes it. `schema_no` and numbers are the capture's.
    pub fn schema(&self, database: &str) -> TableSchema {
        let index = |name: &str| self.columns.iter().position(|c| c.name == name).map(|i| i as u16);
        let columns: Vec<Column> = self
            .columns
            .iter()
            .enumerate()
            .map(|(i, c)| Column {
                id: i as u32 + 1,
                name: c.name.clone(),
                native_type: c.declared.clone(),
                domain: String::new(),
                native_id: 0,
                modifier: -1,
                kind: kind_of(&c.declared),
                // The rowid is never NULL, whatever its column says.
                nullable: Some(!c.not_null && !matches!(self.identity, RowIdentity::Alias(a) if a == i)),
                generated: false,
                identity: matches!(self.identity, RowIdentity::Alias(a) if a == i),
                default: c.default.clone(),
                missing: None,
                comment: String::new(),
            })
            .map(|c| Column { missing: constant(&c), ..c })
            .collect();
        let unique = self
            .uniques
            .iter()
            .filter(|u| !u.is_primary)
            .filter_map(|u| {
                let columns: Option<Vec<u16>> =
                    u.columns.iter().map(|c| c.as_ref().and_then(|(n, _)| index(n))).collect();
                Some((u.name.clone(), columns?))
            })
            .collect();
        let mut shape = format!("{}\n", self.name);
        for c in &self.columns {
            shape.push_str(&format!("{}\t{}\t{}\n", c.name, c.declared, c.not_null));
        }
        shape.push_str(&format!("{:?}", self.key));
        TableSchema {
            schema_no: 0,
            table_no: 0,
            native_id: 0,
            database: database.to_owned(),
            schema: "main".into(),
            name: self.name.clone(),
            comment: String::new(),
            identity: 0,
            key_from: if self.key.is_empty() { KeyFrom::None } else { KeyFrom::PrimaryKey },
            columns,
            key: self.key.iter().map(|i| *i as u16).collect(),
            unique,
            fingerprint: catchwater_base::hash::xxh3_128(shape.as_bytes()).to_be_bytes(),
            topic: TopicId::NONE,
        }
    }
}

fn uniques(db: &Connection, table: &str) -> rusqlite::Result<Vec<Unique>> {
    let mut list = db.prepare("SELECT name, origin FROM pragma_index_list(?1) WHERE \"unique\" = 1 ORDER BY name")?;
    let names: Vec<(String, String)> =
        list.query_map([table], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
    let mut out = Vec::new();
    for (name, origin) in names {
        let mut info = db.prepare("SELECT cid, name, coll FROM pragma_index_xinfo(?1) WHERE key = 1 ORDER BY seqno")?;
        let columns = info
            .query_map([&name], |r| {
                let expression = r.get::<_, i64>(0)? < 0;
                let column: Option<String> = r.get(1)?;
                let collation: String = r.get(2)?;
                Ok(column.filter(|_| !expression).map(|c| (c, collation)))
            })?
            .collect::<rusqlite::Result<_>>()?;
        out.push(Unique { name, is_primary: origin == "pk", columns });
    }
    Ok(out)
}

/// Key, columns and foreign keys are what a sink wants to know: see `sink/ddl.rs`.
pub fn exists(db: &Connection, table: &str) -> rusqlite::Result<bool> {
    db.query_row(
        &format!("SELECT count(*) FROM {} WHERE type = 'table' AND name = ?1 COLLATE NOCASE", quoted("sqlite_schema")),
        [table],
        |r| r.get::<_, i64>(0).map(|n| n > 0),
    )
}
