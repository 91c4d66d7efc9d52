//! `heartbeat.action.query`: SQL that the source runs every so many milliseconds on a connection and in a task of its own,
//! so that a query that waits for a lock holds up nothing. A query that fails is logged and tried again at its next time.

mod xmin;

use super::SourceConfig;
use super::login::run_initial;
use crate::fault::Fault;
use crate::session::Session;
use catchwater_base::log;
use catchwater_runtime::spawn::{self, Task};
use catchwater_runtime::time::sleep;
use std::time::Duration;
pub(super) use xmin::start as ask_xmin;

/// The server ends a run that takes longer.
const STATEMENT_LIMIT: &str = "10s";

/// Ends when it is dropped; the first run is at once.
pub(super) fn start(config: &SourceConfig) -> Option<Task<()>> {
    let (every_ms, sql) = config.heartbeat.clone()?;
    let config = config.clone();
    Some(spawn::spawn("postgres heartbeat", async move {
        let mut session = None;
        let mut failing = false;
        loop {
            match run(&config, &mut session, &sql).await {
                Ok(()) => failing = false,
                // Once for a row of failures.
                Err(why) if !failing => {
                    failing = true;
                    log!(Warn, "source.heartbeat", "source {}: heartbeat.action.query: {why}", config.source);
                }
                Err(_) => {}
            }
            sleep(Duration::from_millis(every_ms)).await;
        }
    }))
}

async fn run(config: &SourceConfig, session: &mut Option<Session>, sql: &str) -> Result<(), Fault> {
    if session.as_ref().is_none_or(|s| s.client.is_closed()) {
        let settings = [("statement_timeout", STATEMENT_LIMIT)];
        let made = Session::connect(&config.connect, &config.application(), &settings).await?;
        run_initial(config, &made).await.map_err(|e| Fault::Closed(e.what))?;
        *session = Some(made);
    }
    match session {
        Some(session) => session.client.batch_execute(sql).await.map_err(Fault::from),
        None => Ok(()),
    }
}
