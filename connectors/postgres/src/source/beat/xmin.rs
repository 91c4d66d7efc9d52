//! `xmin.fetch.interval.ms`: the slot's `catalog_xmin`, asked for every so many milliseconds on a connection and in a task of its own;
//! records of the stream have the one that was asked for last. It is a state of the slot at some moment, and nothing of the row.
//! Source: Debezium 3.7 (`PostgresStreamingChangeEventSource`).

use super::super::SourceConfig;
use super::super::login::run_initial;
use crate::fault::Fault;
use crate::session::Session;
use catchwater_base::log;
use catchwater_runtime::spawn::{self, Task};
use catchwater_runtime::time::sleep;
use std::time::Duration;

const ASK: &str = "SELECT catalog_xmin::text::int8 FROM pg_replication_slots WHERE slot_name = $1";
/// The server ends an answer that takes longer.
const STATEMENT_LIMIT: &str = "10s";
/// Shortest time between two questions, milliseconds: a shorter interval is taken for this.
const EVERY_MS_MIN: u64 = 10;

/// Asks once on `sql`, so that the first row has it, and from then on in a task that ends when it is dropped.
pub(in super::super) async fn start(config: &SourceConfig, sql: &Session) -> Result<Option<Task<()>>, Fault> {
    let Some(every_ms) = config.xmin_every_ms else { return Ok(None) };
    ask(config, sql).await?;
    let config = config.clone();
    Ok(Some(spawn::spawn("postgres xmin", async move {
        let mut session = None;
        let mut failing = false;
        loop {
            sleep(Duration::from_millis(every_ms.max(EVERY_MS_MIN))).await;
            match again(&config, &mut session).await {
                Ok(()) => failing = false,
                // Once for a row of failures.
                Err(why) if !failing => {
                    failing = true;
                    log!(Warn, "source.xmin", "source {}: xmin.fetch.interval.ms: {why}", config.source);
                }
                Err(_) => {}
            }
        }
    })))
}

async fn again(config: &SourceConfig, session: &mut Option<Session>) -> Result<(), Fault> {
    if session.as_ref().is_none_or(|s| s.client.is_closed()) {
        let settings = [("statement_timeout", STATEMENT_LIMIT)];
        let made = Session::connect(&config.connect, &config.application(), &settings).await?;
        run_initial(config, &made).await.map_err(|e| Fault::Closed(e.what))?;
        *session = Some(made);
    }
    match session {
        Some(session) => ask(config, session).await,
        None => Ok(()),
    }
}

async fn ask(config: &SourceConfig, sql: &Session) -> Result<(), Fault> {
    let found = sql.client.query_opt(ASK, &[&config.slot()]).await?;
    let xmin: Option<i64> = found.and_then(|row| row.get(0));
    if let Some(xmin) = xmin.and_then(|x| u64::try_from(x).ok()) {
        config.xmin.set(xmin);
    }
    Ok(())
}
