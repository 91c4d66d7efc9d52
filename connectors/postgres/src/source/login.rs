//! Our connections to the source: sessions for SQL, which begin with `database.initial.statements`, and the one for the
//! stream, which does not.

use super::transport::{Mode, Transport};
use super::{SourceConfig, source_error};
use crate::codes::source as code;
use crate::config::quote_ident;
use crate::fault::Fault;
use crate::session::Session;
use catchwater_capture::source::{SourceClass, SourceError};
use catchwater_runtime::time::timeout;
use std::time::Duration;

/// Our forms beside those that each session has. search_path: types and defaults are printed with their schema.
const FORMS: &[(&str, &str)] = &[("search_path", "pg_catalog")];
/// An initial statement sets something; one that works longer is not one.
const INITIAL_LIMIT: Duration = Duration::from_secs(120);

/// A session for the catalogue and for rows.
pub(super) async fn session(config: &SourceConfig) -> Result<Session, SourceError> {
    let settings = [FORMS[0], ("statement_timeout", "120s"), ("lock_timeout", "10s")];
    let session = Session::connect(&config.connect, &config.application(), &settings).await;
    let session = session.map_err(|f| not_admitted(config, f))?;
    if !config.reading.initial_statements.is_empty() {
        run_initial(config, &session).await?;
        // What it was told may go before our limits, not before the forms in which we read.
        session.set(FORMS).await.map_err(|f| source_error(config, f))?;
    }
    Ok(session)
}

/// `database.initial.statements`, one by one and in their order, as Debezium does. Their text is not shown: it may hold a
/// secret.
pub(super) async fn run_initial(config: &SourceConfig, session: &Session) -> Result<(), SourceError> {
    for (sql, number) in config.reading.initial_statements.iter().zip(1..) {
        let fault = match timeout(INITIAL_LIMIT, session.client.batch_execute(sql)).await {
            Ok(Ok(())) => continue,
            Ok(Err(e)) => Fault::from(e),
            Err(_) => Fault::Closed(format!("no answer to it within {} s", INITIAL_LIMIT.as_secs())),
        };
        let said = match fault.sqlstate() {
            // The message has a part of the statement.
            "42601" => "it is no SQL (SQLSTATE 42601)".to_owned(),
            _ => fault.to_string(),
        };
        let error = source_error(config, fault);
        if error.is_retry() {
            return Err(error); // the connection, not the statement
        }
        return Err(SourceError::new(
            SourceClass::Config,
            code::INITIAL_STATEMENT,
            format!("statement {number} of database.initial.statements failed: {said}"),
            "set right what it asks for, or take it out",
        ));
    }
    Ok(())
}

/// A fault before the session is there. 55000: the database takes no connections now (`ALLOW_CONNECTIONS false`, or it is
/// being made, moved or dropped): that ends by itself or by its owner, so it is tried again.
fn not_admitted(config: &SourceConfig, fault: Fault) -> SourceError {
    match fault.sqlstate() {
        "55000" | "55006" => SourceError::new(
            SourceClass::Retry,
            code::UNREACHABLE,
            format!("PostgreSQL at {} takes no connections now: {fault}", config.connect.place()),
            format!(
                "it is tried again; if nobody is at work there: ALTER DATABASE {} ALLOW_CONNECTIONS true;",
                quote_ident(&config.connect.database)
            ),
        ),
        _ => source_error(config, fault),
    }
}

/// A connection for the stream. Without the initial statements, as in Debezium: it takes none.
pub(super) async fn replication(config: &SourceConfig) -> Result<Transport, SourceError> {
    Transport::connect(&config.connect, &config.application(), Mode::Replication).await.map_err(|fault| {
        match fault.sqlstate() {
            "42501" => SourceError::new(
                SourceClass::Rights,
                code::NO_REPLICATION_RIGHT,
                format!("user '{}' may not replicate: {fault}", config.connect.user),
                format!("ALTER ROLE {} REPLICATION;", quote_ident(&config.connect.user)),
            ),
            "53300" => SourceError::new(
                SourceClass::Retry,
                code::NO_FREE_SENDER,
                format!("no free WAL sender: {fault}"),
                "raise max_wal_senders",
            ),
            _ => not_admitted(config, fault),
        }
    })
}
