//! `replica.identity.autoset.values`: tables are given the replica identity that the property names, at each start and when a
//! table comes later, before anything of them is captured. What cannot be set is said (`source.replica_identity`), and the table is
//! captured as it is, as Debezium does.

use super::{SourceConfig, source_error};
use crate::catalog::CatalogTable;
use crate::codes::source as code;
use crate::config::quote_ident;
use crate::fault::Fault;
use crate::session::Session;
use catchwater_base::log;
use catchwater_capture::reading::ReplicaIdentity;
use catchwater_capture::source::{SourceClass, SourceError};

/// The statement, if the table has another identity than is wished.
fn statement(table: &CatalogTable, wish: &ReplicaIdentity) -> Option<String> {
    let is_so = match wish {
        ReplicaIdentity::Default => table.identity == b'd',
        ReplicaIdentity::Full => table.identity == b'f',
        ReplicaIdentity::Index(name) => {
            table.identity == b'i' && table.indexes.iter().any(|i| i.identity && i.name == *name)
        }
    };
    let what = match wish {
        ReplicaIdentity::Default => "DEFAULT".to_owned(),
        ReplicaIdentity::Full => "FULL".to_owned(),
        ReplicaIdentity::Index(name) => format!("USING INDEX {}", quote_ident(name)),
    };
    let name = format!("{}.{}", quote_ident(&table.schema), quote_ident(&table.name));
    (!is_so).then(|| format!("ALTER TABLE {name} REPLICA IDENTITY {what}"))
}

/// Of a table without identity: true if it is given one at the start.
pub(super) fn gives(config: &SourceConfig, table: &CatalogTable) -> bool {
    let wish = config.reading.identity_of(&format!("{}.{}", table.schema, table.name));
    matches!(wish, Ok(Some(ReplicaIdentity::Full | ReplicaIdentity::Index(_))))
}

/// True if a table is another now. Two entries that fit one table are an error.
pub(super) async fn set(config: &SourceConfig, sql: &Session, tables: &[CatalogTable]) -> Result<bool, SourceError> {
    let mut changed = false;
    if config.reading.identities.is_empty() {
        return Ok(changed);
    }
    for table in tables.iter().filter(|t| matches!(t.kind, b'r' | b'p')) {
        let name = format!("{}.{}", table.schema, table.name);
        let wish = config.reading.identity_of(&name).map_err(|what| {
            SourceError::new(SourceClass::Config, code::NO_IDENTITY, what, "make the expressions fit different tables")
        })?;
        let Some(sql_text) = wish.and_then(|wish| statement(table, wish)) else { continue };
        let source = config.source.as_str();
        match sql.client.batch_execute(&sql_text).await {
            Ok(()) => {
                changed = true;
                log!(Info, "source.replica_identity", "source {source}: {sql_text}");
            }
            Err(e) => {
                let fault = Fault::from(e);
                if sql.client.is_closed() {
                    return Err(source_error(config, fault));
                }
                log!(
                    Warn,
                    "source.replica_identity",
                    "source {source}: the replica identity of {name} stays as it is: {fault}; to set it: {sql_text};"
                );
            }
        }
    }
    Ok(changed)
}
