//! Pure. SQLite's result codes → classes of the two contracts. Texts of SQLite name tables, columns and constraints,
//! never a value: values are bound.

use crate::codes;
use catchwater_capture::source::{SourceClass, SourceError};
use catchwater_deliver::sink::{Others, SinkClass, SinkError};
use rusqlite::{Error, ErrorCode};

/// What SQLite said, without the statement.
pub fn text(e: &Error) -> String {
    match e {
        Error::SqliteFailure(code, Some(message)) if !message.is_empty() => {
            let _ = code;
            message.clone()
        }
        Error::SqliteFailure(code, _) => code.to_string(),
        Error::SqlInputError { msg, .. } => msg.clone(),
        Error::InvalidColumnType(_, name, kind) => format!("column {name} holds {kind}"),
        Error::QueryReturnedNoRows => "a row of ours is missing".into(),
        other => other.to_string(),
    }
}

fn code(e: &Error) -> Option<ErrorCode> {
    match e {
        Error::SqliteFailure(f, _) => Some(f.code),
        Error::SqlInputError { error, .. } => Some(error.code),
        _ => None,
    }
}

/// `what` = what was being done.
pub fn source(what: &str, e: &Error) -> SourceError {
    let said = format!("{what}: {}", text(e));
    let new = |class, code, next: &str| SourceError::new(class, code, said.clone(), next);
    match code(e) {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => new(
            SourceClass::Retry,
            codes::SOURCE_BUSY,
            "another program holds the database; it is tried again. Long write transactions keep captures waiting",
        ),
        Some(ErrorCode::CannotOpen) => new(
            SourceClass::Config,
            codes::FILE_MISSING,
            "give the path of an existing SQLite file that this user may read and write",
        ),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            new(SourceClass::Config, codes::NOT_A_DATABASE, "check it with: sqlite3 FILE 'PRAGMA integrity_check'")
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => new(
            SourceClass::Rights,
            codes::READ_ONLY,
            "the capture writes triggers and a change table into the database: give it write access to the file and its directory",
        ),
        Some(
            ErrorCode::DiskFull | ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory | ErrorCode::OperationInterrupted,
        ) => new(SourceClass::Retry, codes::SOURCE_BUSY, "the disk or the system refuses; it is tried again"),
        _ => new(SourceClass::Bug, codes::CHANGES_LOST, "report this"),
    }
}

pub fn sink(what: &str, e: &Error) -> SinkError {
    let said = format!("{what}: {}", text(e));
    let new = |class, code, next: &str| SinkError::new(class, code, said.clone(), next);
    match code(e) {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            new(SinkClass::Environment, codes::SINK_BUSY, "another program holds the target; it is tried again")
        }
        Some(
            ErrorCode::DiskFull | ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory | ErrorCode::OperationInterrupted,
        ) => new(SinkClass::Environment, codes::SINK_BUSY, "the disk or the system refuses; it is tried again"),
        Some(ErrorCode::CannotOpen) => new(
            SinkClass::Config,
            codes::SINK_FILE,
            "give a path in a directory that exists and that this user may write",
        ),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            new(SinkClass::Config, codes::SINK_NOT_A_DATABASE, "give another file, or remove this one if it may go")
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => {
            new(SinkClass::Config, codes::SINK_READ_ONLY, "give this user write access to the file and its directory")
        }
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig) => {
            let e =
                new(SinkClass::Row, codes::SINK_ROW, "the target's constraint does not hold for a row of the source");
            // Another row may be what is missing, or in the way.
            let help = [("UNIQUE", Others::InTheWay), ("FOREIGN KEY", Others::Missing)];
            let others =
                help.into_iter().find(|(t, _)| said.contains(&format!("{t} constraint failed"))).map(|(_, o)| o);
            SinkError { others, ..e }
        }
        Some(ErrorCode::SchemaChanged) => new(SinkClass::Schema, codes::SINK_TABLE, ""),
        _ if is_schema(&said) => {
            new(SinkClass::Schema, codes::SINK_TABLE, "the target's table was changed under the sink")
        }
        _ => new(SinkClass::Bug, codes::SINK_BUG, "report this"),
    }
}

/// SQLite reports a missing table or column with its general code.
fn is_schema(said: &str) -> bool {
    ["no such table", "no such column", "has no column named", "ON CONFLICT clause does not match"]
        .iter()
        .any(|t| said.contains(t))
}

/// The database answered nothing we expect: the blocking pool or our thread died.
pub fn thread(what: &str) -> String {
    format!("the thread of {what} ended")
}
