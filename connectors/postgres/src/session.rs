//! SQL sessions on tokio-postgres: connected, with the settings our text forms need, and a task that moves the bytes.

use crate::config::{ConnectConfig, Host, SslMode, quote_literal};
use crate::dial::{Dialer, Shown, silent};
use crate::fault::Fault;
use crate::types::SESSION;
use catchwater_runtime::spawn::{self, Task};
use catchwater_runtime::time::timeout;
use tokio_postgres::{Client, NoTls};

/// A session; dropping it closes the connection.
pub struct Session {
    pub client: Client,
    is_encrypted: bool,
    host: Host,
    _task: Task<()>,
}

impl Session {
    /// `settings` come after ours.
    pub async fn connect(config: &ConnectConfig, application: &str, settings: &[(&str, &str)]) -> Result<Self, Fault> {
        let mut pg = tokio_postgres::Config::new();
        pg.user(&config.user)
            .dbname(&config.database)
            .application_name(application)
            // The wire is encrypted already, if it is to be.
            .ssl_mode(tokio_postgres::config::SslMode::Disable);
        if let Some(password) = &config.password {
            pg.password(password);
        }
        let mut dialer = Dialer::new(config);
        let limit = dialer.limit();
        let session = loop {
            let wire = dialer.next().await?;
            let is_encrypted = wire.is_encrypted();
            let login = match timeout(limit, pg.connect_raw(wire, NoTls)).await {
                Err(_) => Err(silent(limit)),
                Ok(login) => login.map_err(Fault::from),
            };
            let (client, connection) = match login {
                Ok(login) => login,
                Err(fault) => {
                    dialer.failed(match fault {
                        // A failure to connect is not a lost connection.
                        Fault::Closed(text) | Fault::Protocol(text) => Fault::Unreachable(text),
                        other => other,
                    })?;
                    continue;
                }
            };
            let on = |name| connection.parameter(name) == Some("on");
            let shown = Shown { standby: on("in_hot_standby"), read_only: on("default_transaction_read_only") };
            if !dialer.fits(shown)? {
                continue;
            }
            let task = spawn::spawn("postgres session", async move {
                // The client's calls report the failure; here it only ends the task.
                let _ = connection.await;
            });
            break Session { client, is_encrypted, host: dialer.host().clone(), _task: task };
        };
        timeout(limit, session.set(settings)).await.map_err(|_| silent(limit))??;
        Ok(session)
    }

    /// The settings that our text forms need, and `more` after them.
    pub async fn set(&self, more: &[(&str, &str)]) -> Result<(), Fault> {
        let sql: String = SESSION
            .iter()
            .chain(more)
            .filter(|(k, _)| *k != "client_encoding")
            .map(|(k, v)| format!("SET {k} TO {};", quote_literal(v)))
            .collect();
        Ok(self.client.batch_execute(&sql).await?)
    }

    /// What a person should know of the way to the server; `None` = it is safe, or stays on this machine.
    pub fn exposure(&self, config: &ConnectConfig) -> Option<String> {
        let mode = config.tls.mode;
        if self.host.is_loopback() || (self.is_encrypted && mode >= SslMode::VerifyCa) {
            None
        } else if self.is_encrypted {
            Some(format!("TLS to {}, and nobody checks the server's certificate (sslmode={})", self.host, mode.name()))
        } else {
            Some(format!("in the clear to {} (sslmode={})", self.host, mode.name()))
        }
    }

    /// Major version times 10,000 plus minor, as `server_version_num`.
    pub async fn version(&self) -> Result<i32, Fault> {
        let row = self.client.query_one("SELECT current_setting('server_version_num')::int4", &[]).await?;
        Ok(row.get(0))
    }
}
