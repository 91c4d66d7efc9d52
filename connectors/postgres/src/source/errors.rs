//! Pure. What failed, for a person: faults of the connection, the stream and the disk → class, code, next step (S9).

use super::decode::DecodeError;
use super::large::LargeError;
use super::{SourceConfig, values};
use crate::codes::source as code;
use crate::fault::Fault;
use catchwater_capture::source::{SourceClass, SourceError};

pub(super) fn not_open() -> SourceError {
    SourceError::new(SourceClass::Bug, code::NOT_UNDERSTOOD, "the source is not open", "")
}

pub(super) fn broken(what: &str) -> SourceError {
    SourceError::new(
        SourceClass::Unknown,
        code::NOT_UNDERSTOOD,
        format!("the replication stream makes no sense: {what}"),
        "",
    )
}

/// What was held is sent again from the server, so a full or broken disk is tried again; a bound that is too small is not.
pub(super) fn large_error(e: LargeError) -> SourceError {
    match &e {
        LargeError::Stream(what) => broken(what),
        LargeError::Full(_) => SourceError::new(
            SourceClass::Config,
            code::SPILL,
            e.to_string(),
            "take `streaming` out of the source: the server keeps open transactions then",
        ),
        LargeError::Io { .. } | LargeError::Damaged { .. } => SourceError::new(
            SourceClass::Retry,
            code::SPILL,
            e.to_string(),
            "make room on the disk of the data directory",
        ),
    }
}

pub(super) fn not_understood(e: DecodeError) -> SourceError {
    let what = format!("the replication stream is not understood: {e}");
    SourceError::new(SourceClass::Unknown, code::NOT_UNDERSTOOD, what, "report it with the server's version")
}

pub(super) fn row_error(e: values::RowError) -> SourceError {
    match e {
        values::RowError::Utf8 { .. } => SourceError::new(
            SourceClass::Unknown,
            code::NOT_UTF8,
            e.to_string(),
            "the database's encoding is probably SQL_ASCII: repair the value, or leave the column out",
        ),
        _ => SourceError::new(SourceClass::Unknown, code::NOT_UNDERSTOOD, e.to_string(), ""),
    }
}

/// A URL that is not taken, as an error with its code.
pub fn url_error(e: &crate::config::UrlError) -> SourceError {
    let code = if e.is_tls() { code::TLS } else { code::URL };
    SourceError::new(SourceClass::Config, code, e.to_string(), e.cure())
}

/// A fault outside the stream.
pub(crate) fn source_error(config: &SourceConfig, fault: Fault) -> SourceError {
    let at = &config.connect;
    let new = SourceError::new;
    match &fault {
        Fault::Unreachable(e) => new(
            SourceClass::Retry,
            code::UNREACHABLE,
            format!("cannot reach PostgreSQL at {}: {e}", at.place()),
            "check that the server runs and that host and port of the URL are right",
        ),
        Fault::Auth(e) | Fault::NotAdmitted(e) => new(
            SourceClass::Config,
            code::AUTH,
            format!("PostgreSQL at {} refuses user '{}': {e}", at.place(), at.user),
            "check user and password of the URL and the server's pg_hba.conf",
        ),
        Fault::Tls(e) => new(
            SourceClass::Config,
            code::TLS,
            format!("TLS to PostgreSQL at {}: {e}", at.place()),
            "check sslmode, sslrootcert, sslcert and sslkey of the URL and the server's certificate",
        ),
        Fault::NoDatabase(e) => new(
            SourceClass::Config,
            code::NO_DATABASE,
            format!("PostgreSQL at {}: {e}", at.place()),
            "check the database name at the end of the URL",
        ),
        Fault::Closed(_) => new(SourceClass::Retry, code::LOST, format!("PostgreSQL at {}: {fault}", at.place()), ""),
        Fault::TooLarge { .. } => new(
            SourceClass::RowTooLarge,
            code::ROW_TOO_LARGE,
            format!("{fault}: a row above row.max.bytes = {}", config.row_bytes_max),
            "leave the table out of `tables` (catchwater apply), or keep such values elsewhere",
        ),
        Fault::Protocol(_) => new(SourceClass::Unknown, code::NOT_UNDERSTOOD, fault.to_string(), ""),
        Fault::Server { sqlstate, message } => {
            let (class, code, next) = match sqlstate.as_str() {
                "55000" if message.contains("can no longer") || message.contains("has been invalidated") => (
                    SourceClass::Gap,
                    code::SLOT_LOST,
                    "the changes are gone from the server: the source must be read again",
                ),
                "55006" => (SourceClass::Retry, code::SLOT_IN_USE, ""),
                "22021" => (
                    SourceClass::Unknown,
                    code::NOT_UTF8,
                    "the database's encoding is probably SQL_ASCII: repair the value, or leave the column out",
                ),
                "42501" => (
                    SourceClass::Rights,
                    code::STATEMENT,
                    "catchwater doctor FILE names the missing right and the SQL that gives it",
                ),
                s if s.starts_with("08")
                    || s.starts_with("53")
                    || s.starts_with("57")
                    || s.starts_with("58")
                    || s.starts_with("40") =>
                {
                    (SourceClass::Retry, code::LOST, "")
                }
                "55P03" => (SourceClass::Retry, code::LOST, ""),
                _ => (SourceClass::Config, code::STATEMENT, ""),
            };
            new(class, code, format!("PostgreSQL at {}: {fault}", at.place()), next)
        }
    }
}

/// A fault of the stream: a publication that is missing shows only here.
pub(super) fn stream_error(config: &SourceConfig, fault: Fault) -> SourceError {
    match &fault {
        Fault::Server { sqlstate, .. } if sqlstate == "42704" => SourceError::new(
            SourceClass::Config,
            code::PUBLICATION,
            format!("{fault}"),
            "it was dropped, and what was changed meanwhile is not in the stream: the source must be read again",
        ),
        _ => source_error(config, fault),
    }
}
