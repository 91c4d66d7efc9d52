//! Pure. What can go wrong with a connection to PostgreSQL, before source or sink decide what it means for them.

/// A failure of a connection or a statement. Texts hold no password and, for classes 22 and 23, no row value.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    #[error("{0}")]
    Unreachable(String),
    #[error("{0}")]
    Auth(String),
    /// 28000: no rule of the server lets us in like this.
    #[error("{0}")]
    NotAdmitted(String),
    #[error("TLS: {0}")]
    Tls(String),
    /// 3D000.
    #[error("{0}")]
    NoDatabase(String),
    #[error("connection lost: {0}")]
    Closed(String),
    #[error("the server's bytes make no sense: {0}")]
    Protocol(String),
    #[error("a message of {bytes} bytes is above the limit of {bytes_max}")]
    TooLarge { bytes: usize, bytes_max: usize },
    #[error("{message} (SQLSTATE {sqlstate})")]
    Server { sqlstate: String, message: String },
}

impl Fault {
    pub fn from_server(sqlstate: String, message: String) -> Self {
        match sqlstate.as_str() {
            "28P01" => Fault::Auth(message),
            "28000" => Fault::NotAdmitted(message),
            "3D000" => Fault::NoDatabase(message),
            // Going down, starting up, terminated by an administrator, too many connections.
            "57P01" | "57P02" | "57P03" => Fault::Closed(message),
            // Messages of these classes quote the offending value.
            s if s.starts_with("22") || s.starts_with("23") => {
                Fault::Server { sqlstate, message: "a value was refused".into() }
            }
            _ => Fault::Server { sqlstate, message },
        }
    }

    pub fn sqlstate(&self) -> &str {
        match self {
            Fault::Server { sqlstate, .. } => sqlstate,
            _ => "",
        }
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(e: tokio_postgres::Error) -> Self {
        use std::error::Error as _;
        if let Some(db) = e.as_db_error() {
            return Fault::from_server(db.code().code().to_owned(), db.message().to_owned());
        }
        let io = e.source().and_then(|s| s.downcast_ref::<std::io::Error>());
        if let Some(io) = io
            && let fault @ Fault::Tls(_) = crate::tls::fault_of(io)
        {
            return fault;
        }
        let mut text = e.to_string();
        if let Some(source) = e.source() {
            text = format!("{text}: {source}");
        }
        if e.is_closed() || io.is_some() {
            Fault::Closed(text)
        } else if text.contains("password missing") || text.contains("authentication") {
            Fault::Auth(text)
        } else {
            Fault::Protocol(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_rows_stay_out_of_messages() {
        let f = Fault::from_server("22P02".into(), "invalid input syntax for type integer: \"4111 1111\"".into());
        assert!(!f.to_string().contains("4111"), "{f}");
        let f = Fault::from_server("42P01".into(), "relation \"x\" does not exist".into());
        assert!(f.to_string().contains("\"x\""), "{f}");
    }
}
