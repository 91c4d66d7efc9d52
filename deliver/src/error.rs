//! Why a sink stands still: a code with a page in `docs/errors/`, what failed, and the next step.

use crate::batch::ApplyError;
use crate::columns::ColumnsError;
use crate::evolve::EvolveError;
use crate::mode::ModeError;
use crate::plan::PlanError;
use crate::regroup::OrderError;
use crate::sink::SinkError;
use crate::wire::WireError;
use catchwater_record::{ErrorCode, TopicPartition};

/// Codes of deliver's own: 0670–0689. 0601–0669 belong to the sinks.
pub mod code {
    pub const ORDER: u16 = 670;
    pub const SINK_AHEAD: u16 = 671;
    pub const NEEDS_REBUILD: u16 = 672;
    pub const OTHER_INCARNATION: u16 = 673;
    pub const LATE_TABLE: u16 = 674;
    pub const UNREADABLE: u16 = 675;
    pub const TYPE: u16 = 676;
    pub const KEY: u16 = 677;
    pub const SAME_TARGET: u16 = 678;
    pub const NO_ROW: u16 = 679;
    pub const REFUSED: u16 = 680;
    pub const LOG_DENIED: u16 = 681;
    pub const COLUMN: u16 = 682;
    pub const TOO_MANY_REFUSED: u16 = 683;
    pub const MODE: u16 = 684;
    pub const PARKED_UNREADABLE: u16 = 685;
    pub const LETTER_UNREADABLE: u16 = 686;
    pub const NO_LETTER: u16 = 687;
    pub const REBUILD: u16 = 691;
    pub const COLUMNS: u16 = 694;
    pub const TARGET_GONE: u16 = 695;
    pub const COLUMN_GONE: u16 = 696;
    pub const SHARED_TOPIC: u16 = 697;
    pub const OUTBOX_TABLE: u16 = 698;
    pub const TRANSFORMED: u16 = 699;
    pub const NO_TABLE: u16 = 692;
}

/// Never holds a value of a row, nor a secret.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what}")]
pub struct Failure {
    pub code: ErrorCode,
    pub what: String,
    /// The next step for a person; may be empty.
    pub next: String,
}

impl Failure {
    pub fn new(code: u16, what: impl Into<String>, next: impl Into<String>) -> Self {
        Failure { code: ErrorCode(code), what: what.into(), next: next.into() }
    }
}

impl From<SinkError> for Failure {
    fn from(e: SinkError) -> Self {
        Failure { code: e.code, what: e.what, next: e.next }
    }
}

impl Failure {
    /// `name` says which table a partition belongs to.
    pub(crate) fn order(e: &OrderError, name: impl Fn(TopicPartition) -> String) -> Self {
        match e {
            OrderError::NotAscending { at, last, next } => Failure::new(
                code::ORDER,
                format!("version {next} after {last} in {}", name(*at)),
                "the topic was written by something else than its capture, or this is a bug: report it",
            ),
            OrderError::LateTable { at, seq } => Failure::new(
                code::LATE_TABLE,
                format!(
                    "{} has rows of transaction {seq}, at or below the sink's position, and is new to this sink",
                    name(*at)
                ),
                "use a new sink name (it starts from the beginning), or leave the table out of `from`",
            ),
            OrderError::Incarnation { .. } => Failure::new(
                code::OTHER_INCARNATION,
                e.to_string(),
                "the source was dropped and made anew: rebuild the sink under a new name",
            ),
        }
    }
}

impl From<EvolveError> for Failure {
    fn from(e: EvolveError) -> Self {
        match &e {
            EvolveError::Type { .. } => Failure::new(
                code::TYPE,
                e.to_string(),
                "change the target column to a type that holds both (text always does), or say in `columns` of the sink's file that its type is meant",
            ),
            EvolveError::Refused { .. } => {
                Failure::new(code::REFUSED, e.to_string(), "change the target, or set on_schema_change: additive")
            }
        }
    }
}

impl From<ModeError> for Failure {
    fn from(e: ModeError) -> Self {
        Failure::new(code::MODE, e.to_string(), "choose another mode for the sink, or leave the table out of `from`")
    }
}

impl From<ColumnsError> for Failure {
    fn from(e: ColumnsError) -> Self {
        let next = match e {
            ColumnsError::OtherKey { .. } => "rows are written by the key of their records: name its columns, or none",
            _ => "correct `select` or `columns` of the table in the sink's file",
        };
        Failure::new(code::COLUMNS, e.to_string(), next)
    }
}

impl From<PlanError> for Failure {
    fn from(e: PlanError) -> Self {
        match &e {
            PlanError::Key { .. } => {
                Failure::new(code::KEY, e.to_string(), "give the target table the source's primary key")
            }
            PlanError::Column { .. } => Failure::new(code::COLUMN, e.to_string(), "add the column to the target"),
            PlanError::SameTarget { .. } => Failure::new(
                code::SAME_TARGET,
                e.to_string(),
                "keep the source's schemas, or choose tables with `from`",
            ),
        }
    }
}

impl From<ApplyError> for Failure {
    fn from(e: ApplyError) -> Self {
        Failure::new(code::NO_ROW, e.to_string(), "the source must send whole rows of this table")
    }
}

impl From<WireError> for Failure {
    fn from(e: WireError) -> Self {
        Failure::new(code::UNREADABLE, e.to_string(), "the topic holds what its capture does not write: report it")
    }
}

/// `target` had rows of ours and is missing.
pub(crate) fn target_gone(target: &str) -> Failure {
    Failure::new(
        code::TARGET_GONE,
        format!("{target} is gone from the target, and rows were delivered to it"),
        "make it again, empty if need be, and restart the pipeline; catchwater sink rebuild then fills it from the log",
    )
}

/// `target` took rows with these columns and lacks them.
pub(crate) fn columns_gone(target: &str, columns: &[&str]) -> Failure {
    let (one, they) = match columns.len() {
        1 => ("column", "it"),
        _ => ("columns", "them"),
    };
    Failure::new(
        code::COLUMN_GONE,
        format!(
            "{one} {} of {target} is gone from the target, and rows were delivered with {they}",
            columns.join(", ")
        ),
        "rename it back, or add it by hand (catchwater sink rebuild then fills it from the log), or leave it out in the sink's file; then restart the pipeline",
    )
}

pub(crate) fn shared_topic(first: &str, second: &str) -> Failure {
    Failure::new(
        code::SHARED_TOPIC,
        format!("tables {first} and {second} go to one topic, and a sink reads one table from each"),
        "take the router out of the source's transforms, or capture the tables for this sink by a source of its own",
    )
}

pub(crate) fn outbox_table(table: &str) -> Failure {
    Failure::new(
        code::OUTBOX_TABLE,
        format!(
            "the rows of {table} are events of an outbox: no topic holds the table, and a sink has nothing to copy"
        ),
        "leave the table out of the sink's `tables`, or capture it for this sink by a source without the router",
    )
}

pub(crate) fn transformed(table: &str) -> Failure {
    Failure::new(
        code::TRANSFORMED,
        format!("transforms of the source changed the records of {table}: they are no rows any more"),
        "leave the table out of the sink's `tables`, or capture it for this sink by a source without these transforms",
    )
}

/// Something that is no table has the name `target`.
pub(crate) fn no_table(target: &str) -> Failure {
    Failure::new(
        code::NO_TABLE,
        format!("{target} is at the target, and is no table that rows can be delivered to"),
        "a view, a foreign table or a sequence has its name: rename that, or give the sink's table another name; then restart the pipeline",
    )
}

pub(crate) fn denied(what: &str) -> Failure {
    Failure::new(code::LOG_DENIED, what, "the log is not there for this sink yet; it is tried again")
}

pub(crate) fn ahead(at: TopicPartition, why: &str) -> Failure {
    Failure::new(
        code::SINK_AHEAD,
        format!("the sink is ahead of the log at {at}: {why}"),
        "the log was restored or replaced: use a new sink name, or restore the newer log",
    )
}

pub(crate) fn deletes_gone(at: TopicPartition) -> Failure {
    Failure::new(
        code::NEEDS_REBUILD,
        format!("deletes that this sink has not seen are gone from the log of {at}"),
        "compaction removes a delete after delete.retention.ms: rebuild the sink under a new name",
    )
}

pub(crate) fn rebuild(at: TopicPartition) -> Failure {
    Failure::new(
        code::NEEDS_REBUILD,
        format!("the log of {at} no longer reaches back to where this sink stands"),
        "retention has removed rows the sink never saw: rebuild it under a new name from a fresh snapshot",
    )
}
