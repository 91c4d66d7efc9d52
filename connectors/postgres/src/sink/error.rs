//! Pure. SQLSTATE → what the worker does (deliver.md 13). Nothing of a row gets into a text: for classes 22 and 23 the
//! server's own message is left out, names of table, column and constraint stay.

use super::SinkConfig;
use crate::codes::sink as code;
use crate::config::UrlError;
use crate::fault::Fault;
use catchwater_deliver::sink::{Others, SinkClass, SinkError};

/// A URL that is not taken, as an error with its code.
pub fn url_error(e: &UrlError) -> SinkError {
    let code = if e.is_tls() { code::TLS } else { code::URL };
    SinkError::new(SinkClass::Config, code, e.to_string(), e.cure())
}

/// The contract was not kept by our own caller.
pub fn misuse(what: &str) -> SinkError {
    SinkError::new(SinkClass::Bug, code::MISUSE, what, "")
}

/// A fault of a connection or of a statement that writes no rows.
pub fn fault(config: &SinkConfig, f: Fault) -> SinkError {
    let at = config.connect.place();
    let new = SinkError::new;
    match &f {
        Fault::Unreachable(e) => new(
            SinkClass::Environment,
            code::UNREACHABLE,
            format!("cannot reach PostgreSQL at {at}: {e}"),
            "check that the server runs and that host and port of the URL are right",
        ),
        Fault::Auth(e) | Fault::NotAdmitted(e) => new(
            SinkClass::Config,
            code::AUTH,
            format!("PostgreSQL at {at} refuses user '{}': {e}", config.connect.user),
            "check user and password of the URL and the server's pg_hba.conf",
        ),
        Fault::Tls(e) => new(
            SinkClass::Config,
            code::TLS,
            format!("TLS to PostgreSQL at {at}: {e}"),
            "check sslmode, sslrootcert, sslcert and sslkey of the URL and the server's certificate",
        ),
        Fault::NoDatabase(e) => new(
            SinkClass::Config,
            code::NO_DATABASE,
            format!("PostgreSQL at {at}: {e}"),
            "create the database, or correct its name at the end of the URL",
        ),
        Fault::Closed(_) => new(SinkClass::Environment, code::LOST, format!("PostgreSQL at {at}: {f}"), ""),
        Fault::Protocol(_) | Fault::TooLarge { .. } => {
            new(SinkClass::Environment, code::LOST, format!("PostgreSQL at {at}: {f}"), "")
        }
        Fault::Server { sqlstate, .. } => {
            let (class, code, next) = classify(sqlstate);
            new(class, code, format!("PostgreSQL at {at}: {f}"), next)
        }
    }
}

/// A fault of a statement that writes rows of `table`.
pub fn row_fault(config: &SinkConfig, table: &str, e: tokio_postgres::Error) -> SinkError {
    let Some(db) = e.as_db_error() else { return fault(config, e.into()) };
    let sqlstate = db.code().code().to_owned();
    let (class, code, next) = classify(&sqlstate);
    let mut what = format!("{table}: ");
    match class {
        SinkClass::Row if sqlstate == "23514" && db.constraint().is_none() => {
            what.push_str("no partition of the table takes the row");
        }
        SinkClass::Row => what.push_str(phrase(&sqlstate)),
        _ => return with_table(fault(config, e.into()), table),
    }
    if let Some(column) = db.column() {
        what.push_str(&format!(", column {column}"));
    }
    if let Some(constraint) = db.constraint() {
        what.push_str(&format!(", constraint {constraint}"));
    }
    what.push_str(&format!(" (SQLSTATE {sqlstate})"));
    // Another row may be what is missing, or in the way.
    let others = match &*sqlstate {
        "23503" => Some(Others::Missing),
        "23505" | "23P01" => Some(Others::InTheWay),
        _ => None,
    };
    SinkError { others, ..SinkError::new(class, code, what, next) }
}

/// A unique key refused a row.
pub fn is_taken(e: &SinkError) -> bool {
    e.class == SinkClass::Row && e.what.ends_with("(SQLSTATE 23505)")
}

/// A foreign key refused a row.
pub fn is_reference(e: &SinkError) -> bool {
    e.class == SinkClass::Row && e.what.ends_with("(SQLSTATE 23503)")
}

fn with_table(mut e: SinkError, table: &str) -> SinkError {
    e.what = format!("{table}: {}", e.what);
    e
}

fn phrase(sqlstate: &str) -> &'static str {
    match sqlstate {
        "23502" => "a NOT NULL column would be null",
        "23503" => "a foreign key would point to nothing",
        "23505" => "a unique key would occur twice",
        "23514" => "a check constraint is violated",
        "23P01" => "an exclusion constraint is violated",
        "21000" => "one statement meets a row twice",
        "22001" => "a text is too long for its column",
        "22003" => "a number is out of the column's range",
        "22007" | "22008" => "a date or time is not legal in the column",
        "22021" => "a text holds a byte the target's encoding cannot store (NUL, for instance)",
        "22P05" => "a text has a character that the target's encoding does not have, or its type (\\u0000 in jsonb)",
        "22P02" => "a value is not legal in the column's type",
        "P0001" | "P0004" => "a trigger or function of the target refuses it",
        "44000" => "the check option of a view of the target is violated",
        _ => "a value was refused",
    }
}

/// What a SQLSTATE asks for.
pub fn classify(sqlstate: &str) -> (SinkClass, u16, &'static str) {
    let starts = |p: &str| sqlstate.starts_with(p);
    match sqlstate {
        "25006" => (SinkClass::Environment, code::READ_ONLY, "the server became read-only: look for the primary"),
        "55P03" => {
            (SinkClass::Environment, code::LOCKED, "another session holds a lock on the target for more than 5 s")
        }
        "40001" | "40P01" => (SinkClass::Conflict, code::CONFLICT, ""),
        "42P01" | "42703" | "42804" | "42P10" | "3F000" => {
            (SinkClass::Schema, code::SCHEMA, "the target's tables were changed by somebody else")
        }
        "42501" => (
            SinkClass::Config,
            code::RIGHTS,
            "grant it (tables: SELECT, INSERT, UPDATE, DELETE, TRUNCATE; schemas: USAGE, CREATE), then catchwater pipeline restart",
        ),
        "53100" => (SinkClass::Environment, code::SERVER, "make room on the target's disk; the sink goes on by itself"),
        _ if starts("28") || starts("3D") || starts("0A") => (SinkClass::Config, code::STATEMENT, ""),
        _ if starts("08") || starts("53") || starts("58") || starts("57") => (SinkClass::Environment, code::SERVER, ""),
        // The database accepts no connections for now (ALLOW_CONNECTIONS false, a maintenance window).
        "55000" => (SinkClass::Environment, code::SERVER, ""),
        // Idle in transaction for too long: the server closed the session.
        "25P03" => (SinkClass::Environment, code::LOST, ""),
        // A trigger or function of the target speaks of the row that it was given.
        "P0001" | "P0004" | "44000" => (
            SinkClass::Row,
            code::ROW,
            "repair the row, or the trigger or view of the target; the sink stands until then",
        ),
        _ if starts("22") || starts("23") || sqlstate == "21000" => {
            (SinkClass::Row, code::ROW, "repair the row or the target's constraint; the sink stands until then")
        }
        _ => (SinkClass::Bug, code::STATEMENT, "report it with the text"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_of_the_design_has_its_class() {
        for (states, class) in [
            (
                &["08006", "53100", "53300", "57P01", "57P03", "58030", "25006", "55P03", "55000"][..],
                SinkClass::Environment,
            ),
            (&["40001", "40P01"], SinkClass::Conflict),
            (&["22001", "22P02", "23502", "23503", "23505", "23514", "23P01", "21000", "P0001"], SinkClass::Row),
            (&["42P01", "42703", "42804", "42P10"], SinkClass::Schema),
            (&["28P01", "3D000", "42501", "0A000"], SinkClass::Config),
            (&["42601", "XX000"], SinkClass::Bug),
        ] {
            for s in states {
                assert_eq!(classify(s).0, class, "{s}");
            }
        }
    }
}
