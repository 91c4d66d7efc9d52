//! Pure. How a capture ends, and the codes a person sees.

use crate::source::{SourceClass, SourceError};
use catchwater_record::{CaptureEpoch, ErrorCode};

/// How [`crate::Worker::run`] ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// As wished: everything read is in the log and confirmed.
    Stopped,
    /// Another worker holds the capture; nothing is wrong.
    Fenced { by: CaptureEpoch },
    /// A person must act.
    Failed { code: ErrorCode, what: String, next: String },
}

/// Codes of this crate; pages in `docs/errors/`.
pub mod code {
    /// Preflight found what must be cured first.
    pub const PREFLIGHT: u16 = 580;
    /// Another history sits below our position.
    pub const HISTORY: u16 = 581;
    /// Two tables meet on one topic name, or a name is too long.
    pub const ROUTE: u16 = 582;
    /// The topic belongs to somebody else, or cannot be made.
    pub const TOPIC: u16 = 583;
    /// A batch is refused for good (too large, invalid, denied).
    pub const APPEND: u16 = 584;
    /// A stored record of this capture cannot be read.
    pub const STORED: u16 = 585;
    /// A row cannot become a record.
    pub const ENCODE: u16 = 586;
    /// There are rows of this capture but neither checkpoint nor cut.
    pub const NO_CHECKPOINT: u16 = 587;
    /// The source broke its contract.
    pub const CONTRACT: u16 = 588;
    /// The log does not answer.
    pub const LOG: u16 = 589;
    /// Options that decide which records exist were changed while the log holds part of what they decide.
    pub const SWITCH: u16 = 590;
    /// A signal that cannot be followed, or an ad hoc snapshot that was given up.
    pub const SIGNAL: u16 = 591;
    /// A row of an outbox table that cannot be an event, or a table that cannot be an outbox.
    pub const OUTBOX: u16 = 592;
}

/// Why an attempt ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Trouble {
    /// Begin again after a back-off.
    Retry {
        code: ErrorCode,
        what: String,
    },
    End(End),
    Stop,
    /// The tables were to be read, and no change: they are in the log.
    Complete,
}

impl Trouble {
    pub fn fail(code: u16, what: impl Into<String>, next: impl Into<String>) -> Trouble {
        Trouble::End(End::Failed { code: ErrorCode(code), what: what.into(), next: next.into() })
    }
    pub fn retry(code: u16, what: impl Into<String>) -> Trouble {
        Trouble::Retry { code: ErrorCode(code), what: what.into() }
    }
}

impl From<SourceError> for Trouble {
    fn from(e: SourceError) -> Self {
        match e.class {
            SourceClass::Retry => Trouble::Retry { code: e.code, what: e.what },
            _ => Trouble::End(End::Failed { code: e.code, what: e.what, next: e.next }),
        }
    }
}
