//! Tables of the target. A column gets the source's own type when the source is PostgreSQL and the target knows that
//! type, else the mapped one. Type names are never taken from a record into SQL: the target's catalogue looks them up
//! and prints them. Only the key is NOT NULL: a source may give up any other NOT NULL later. Every step may be repeated.

use super::SinkConfig;
use super::error::fault;
use super::sql::{quoted, schema_of};
use crate::config::{quote_ident, quote_literal};
use crate::session::Session;
use crate::types::{literal, schema};
use catchwater_base::crash_point;
use catchwater_change::{Column, exact};
use catchwater_deliver::columns::is_type;
use catchwater_deliver::sink::{DdlStep, Refilled, SinkError, Types};

pub async fn apply(config: &SinkConfig, session: &Session, step: &DdlStep) -> Result<(), SinkError> {
    let sql = statement(config, session, step).await?;
    crash_point!("sink.before_ddl");
    session.client.batch_execute(&sql).await.map_err(|e| fault(config, e.into()))?;
    crash_point!("sink.after_ddl");
    Ok(())
}

async fn statement(config: &SinkConfig, session: &Session, step: &DdlStep) -> Result<String, SinkError> {
    Ok(match step {
        DdlStep::CreateTable { name, like, types } => {
            let mut parts = Vec::new();
            for (i, column) in like.columns.iter().enumerate() {
                if column.generated {
                    continue;
                }
                let null = if like.is_key(i) { " NOT NULL" } else { "" };
                let kind = type_of(config, session, column, types).await?;
                parts.push(format!("{} {kind}{null}{}", quote_ident(&column.name), default_of(column)));
            }
            if !like.key.is_empty() {
                let key: Vec<String> =
                    like.key.iter().map(|k| quote_ident(&like.columns[usize::from(*k)].name)).collect();
                parts.push(format!("PRIMARY KEY ({})", key.join(", ")));
            }
            let row = session
                .client
                .query_one("SELECT to_regnamespace($1) IS NOT NULL", &[&quote_ident(schema_of(name))])
                .await;
            let exists: bool = row.map_err(|e| fault(config, e.into()))?.get(0);
            let make = if exists {
                String::new() // asking again would need CREATE on the database
            } else {
                format!("CREATE SCHEMA IF NOT EXISTS {};", quote_ident(schema_of(name)))
            };
            format!("{make} CREATE TABLE IF NOT EXISTS {} ({})", quoted(name), parts.join(", "))
        }
        DdlStep::AddColumns { name, columns, types } => {
            let mut parts = Vec::new();
            for column in columns {
                let kind = type_of(config, session, column, types).await?;
                // A constant: the server notes it once and writes no row.
                let default = default_of(column);
                parts.push(format!("ADD COLUMN IF NOT EXISTS {} {kind}{default}", quote_ident(&column.name)));
            }
            if parts.is_empty() {
                return Ok(String::new());
            }
            format!("ALTER TABLE {} {}", quoted(name), parts.join(", "))
        }
        DdlStep::Refill { name, columns } => {
            let (table, mut sets, mut filled, mut defaults) = (quoted(name), Vec::new(), Vec::new(), Vec::new());
            for Refilled { column, from } in columns {
                let c = quote_ident(&column.name);
                let value = column.missing.as_deref().and_then(|text| exact::value_of(&column.kind, text));
                let value = value.map(|v| quote_literal(&literal(&v)));
                // What the column of before gave to rows that do not name it is not this one's.
                defaults.push(match &value {
                    Some(v) => format!("ALTER COLUMN {c} SET DEFAULT {v}"),
                    None => format!("ALTER COLUMN {c} DROP DEFAULT"),
                });
                match (from, value) {
                    (Some(from), _) => {
                        sets.push(format!("{c} = {}", quote_ident(from)));
                        filled.push("true".to_owned());
                    }
                    (None, Some(v)) => {
                        sets.push(format!("{c} = {v}"));
                        filled.push("true".to_owned());
                    }
                    (None, None) => {
                        sets.push(format!("{c} = NULL"));
                        filled.push(format!("{c} IS NOT NULL"));
                    }
                }
            }
            let (sets, filled, defaults) = (sets.join(", "), filled.join(" OR "), defaults.join(", "));
            format!("UPDATE {table} SET {sets} WHERE {filled}; ALTER TABLE {table} {defaults}")
        }
        DdlStep::DropNotNull { name, column } => {
            format!("ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL", quoted(name), quote_ident(column))
        }
    })
}

/// What rows that do not name the column get in it.
fn default_of(column: &Column) -> String {
    let value = column.missing.as_deref().and_then(|text| exact::value_of(&column.kind, text));
    value.map(|v| format!(" DEFAULT {}", quote_literal(&literal(&v)))).unwrap_or_default()
}

/// The column's type, printed by the target or made of constants.
async fn type_of(config: &SinkConfig, session: &Session, column: &Column, given: &Types) -> Result<String, SinkError> {
    if let Some(text) = given.get(&column.name).filter(|t| is_type(t)) {
        return Ok(text.clone());
    }

    if schema::is_native(column) && !column.native_type.is_empty() {
        // to_regtype is NULL for what is not there, an error for text that is no type name at all.
        let asked = session
            .client
            .query_one("SELECT format_type(to_regtype($1)::oid, $2)", &[&column.native_type, &column.modifier])
            .await;
        match asked {
            Ok(row) => {
                if let Some(text) = row.get::<_, Option<String>>(0) {
                    return Ok(text);
                }
            }
            Err(e) if e.as_db_error().is_some() => {}
            Err(e) => return Err(fault(config, e.into())),
        }
    }
    Ok(schema::mapped(&column.kind))
}
