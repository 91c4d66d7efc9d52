//! SQL sessions on tokio-postgres: connected, with the settings our text forms need, and a task that moves the bytes.

use crate::config::{ConnectConfig, quote_literal};
use crate::fault::Fault;
use crate::types::SESSION;
use catchwater_runtime::spawn::{self, Task};
use catchwater_runtime::time::timeout;
use std::time::Duration;
use tokio_postgres::{Client, NoTls};

/// A session; dropping it closes the connection.
pub struct Session {
    pub client: Client,
    _task: Task<()>,
}

impl Session {
    /// `settings` come after ours.
    pub async fn connect(config: &ConnectConfig, application: &str, settings: &[(&str, &str)]) -> Result<Self, Fault> {
        let limit = Duration::from_millis(u64::from(config.connect_timeout_ms));
        let mut pg = tokio_postgres::Config::new();
        pg.host(&config.host)
            .port(config.port)
            .user(&config.user)
            .dbname(&config.database)
            .application_name(application)
            .ssl_mode(tokio_postgres::config::SslMode::Disable)
            .connect_timeout(limit)
            .tcp_user_timeout(Duration::from_secs(30))
            .keepalives_idle(Duration::from_secs(15))
            .keepalives_interval(Duration::from_secs(5));
        if let Some(password) = &config.password {
            pg.password(password);
        }
        let (client, connection) = timeout(limit, pg.connect(NoTls))
            .await
            .map_err(|_| Fault::Unreachable(format!("no answer within {} ms", limit.as_millis())))?
            .map_err(|e| match Fault::from(e) {
                // A failure to connect is not a lost connection.
                Fault::Closed(text) | Fault::Protocol(text) => Fault::Unreachable(text),
                other => other,
            })?;
        let task = spawn::spawn("postgres session", async move {
            // The client's calls report the failure; here it only ends the task.
            let _ = connection.await;
        });
        let session = Session { client, _task: task };
        let sql: String = SESSION
            .iter()
            .chain(settings)
            .filter(|(k, _)| *k != "client_encoding")
            .map(|(k, v)| format!("SET {k} TO {};", quote_literal(v)))
            .collect();
        timeout(limit, session.client.batch_execute(&sql))
            .await
            .map_err(|_| Fault::Unreachable(format!("no answer within {} ms", limit.as_millis())))??;
        Ok(session)
    }

    /// Major version times 10,000 plus minor, as `server_version_num`.
    pub async fn version(&self) -> Result<i32, Fault> {
        let row = self.client.query_one("SELECT current_setting('server_version_num')::int4", &[]).await?;
        Ok(row.get(0))
    }
}
