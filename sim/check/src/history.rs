//! Pure. One line of a history, as `docs/formats/history.md` pictures it.
//!
//! Lines come from other programs: a line is bounded, unknown fields are ignored, unknown operations are an error (they
//! might be the ones that matter).

use serde::{Deserialize, Serialize};

/// Version of the format; the head line carries it.
pub const VERSION: u32 = 1;
/// Bytes of one line.
pub const LINE_BYTES_MAX: usize = 64 << 20;

/// Microseconds on a clock that all writers of one history share.
pub type Micros = u64;

/// First line of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub history: u32,
    #[serde(default)]
    pub run: String,
    #[serde(default)]
    pub seed: u64,
}

/// When an operation was begun and when its outcome was known. `end` is missing as long as it is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    pub at: Micros,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Micros>,
}

/// What the client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Acknowledged.
    Ok,
    /// Surely without effect.
    Fail,
    /// Nobody knows.
    Info,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    #[default]
    Uncommitted,
    Committed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    Commit,
    Abort,
}

/// One record that a poll gave: offset, producer, sequence, CRC-32C of the value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Polled(pub u64, pub String, pub u64, pub u32);

/// One operation. `tp` is `topic/partition`; `process` one client instance, alone in its thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Op {
    /// What a partition is, where it is not the default: kept whole but for [`Op::Trim`], not compacted.
    Topic {
        tp: String,
        /// Log start may rise by itself (time, size).
        #[serde(default, skip_serializing_if = "is_false")]
        retention: bool,
        /// Only the last value of each key is kept for ever.
        #[serde(default, skip_serializing_if = "is_false")]
        compact: bool,
    },
    /// One record handed to a producer. (producer, seq) is its id and stands in its key or value, so that every reader
    /// finds it; `seq` rises with the order of sending.
    Send {
        #[serde(flatten)]
        span: Span,
        process: String,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        client: String,
        tp: String,
        producer: String,
        seq: u64,
        crc: u32,
        #[serde(default, skip_serializing_if = "is_false")]
        idempotent: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        txn: Option<String>,
        /// Only where the topic is compacted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        result: Outcome,
        /// Where it lies, if the client was told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offset: Option<u64>,
    },
    /// A consumer looked at [from, next): all there is to see in it is in `records`.
    Poll {
        #[serde(flatten)]
        span: Span,
        process: String,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        client: String,
        tp: String,
        #[serde(default)]
        isolation: Isolation,
        from: u64,
        next: u64,
        records: Vec<Polled>,
        /// It does not go on where the last one ended: an explicit seek, or the start of an assignment.
        #[serde(default, skip_serializing_if = "is_false")]
        seek: bool,
    },
    /// What a client was told about the ends of a partition.
    Bounds {
        #[serde(flatten)]
        span: Span,
        process: String,
        tp: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        log_start: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lso: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hw: Option<u64>,
    },
    /// DeleteRecords: everything below `offset` may go.
    Trim {
        #[serde(flatten)]
        span: Span,
        process: String,
        tp: String,
        offset: u64,
        result: Outcome,
    },
    /// End of a transaction.
    Txn {
        #[serde(flatten)]
        span: Span,
        process: String,
        txn: String,
        ending: Ending,
        result: Outcome,
    },
    /// A group's position is written (also a reset by an operator).
    Commit {
        #[serde(flatten)]
        span: Span,
        process: String,
        group: String,
        tp: String,
        offset: u64,
        result: Outcome,
    },
    /// A group's position is read; no offset = none is there.
    Committed {
        #[serde(flatten)]
        span: Span,
        process: String,
        group: String,
        tp: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offset: Option<u64>,
    },
    /// Something was broken on purpose. A history without faults proves little, and the report says so.
    Fault { at: Micros, what: String },
    /// From here on everything is healed and fresh clients read all partitions from their log start to their end.
    Final { at: Micros },
}

fn is_false(b: &bool) -> bool {
    !*b
}

/// Why a line cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("line {line}: {bytes} bytes, at most {LINE_BYTES_MAX}")]
    TooLong { line: u64, bytes: usize },
    #[error("line {line}: {cause}")]
    Json { line: u64, cause: serde_json::Error },
    #[error("line 1: history version {0}, this checker reads {VERSION}")]
    Version(u32),
    #[error("line {line}: an operation ends before it begins")]
    Backwards { line: u64 },
}

/// The text of one line, without its line feed.
pub fn encode(op: &Op) -> Result<String, serde_json::Error> {
    serde_json::to_string(op)
}

/// Reads line number `line` (from 1).
pub fn decode(text: &str, line: u64) -> Result<Op, LineError> {
    if text.len() > LINE_BYTES_MAX {
        return Err(LineError::TooLong { line, bytes: text.len() });
    }
    let op: Op = serde_json::from_str(text).map_err(|cause| LineError::Json { line, cause })?;
    match op.span() {
        Some(Span { at, end: Some(end) }) if end < at => Err(LineError::Backwards { line }),
        _ => Ok(op),
    }
}

/// Reads the head.
pub fn decode_head(text: &str) -> Result<Head, LineError> {
    let head: Head = serde_json::from_str(text).map_err(|cause| LineError::Json { line: 1, cause })?;
    if head.history == VERSION { Ok(head) } else { Err(LineError::Version(head.history)) }
}

impl Op {
    pub fn span(&self) -> Option<Span> {
        match self {
            Op::Send { span, .. }
            | Op::Poll { span, .. }
            | Op::Bounds { span, .. }
            | Op::Trim { span, .. }
            | Op::Txn { span, .. }
            | Op::Commit { span, .. }
            | Op::Committed { span, .. } => Some(*span),
            Op::Fault { at, .. } | Op::Final { at } => Some(Span { at: *at, end: None }),
            Op::Topic { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The block of the page `docs/formats/history.md`: each line reads, and is written the same.
    #[test]
    fn golden_lines() {
        let page = include_str!("../../../docs/formats/history.md");
        let block = page.split("```golden history\n").nth(1).unwrap().split("```").next().unwrap();
        let mut lines = block.lines();
        let head = decode_head(lines.next().unwrap()).unwrap();
        assert_eq!((head.history, head.seed), (1, 7));
        let mut checker = crate::Checker::new(head);
        let mut kinds = std::collections::BTreeSet::new();
        for (n, text) in lines.enumerate() {
            let op = decode(text, n as u64 + 2).unwrap();
            assert_eq!(encode(&op).unwrap(), text);
            kinds.insert(text.split('"').nth(3).unwrap().to_owned());
            checker.feed(op);
        }
        assert_eq!(kinds.len(), 10, "one line of each sort: {kinds:?}");
        let report = checker.finish();
        assert_eq!(report.anomalies, vec![]);
    }

    #[test]
    fn bad_lines_are_named() {
        let check = |text: &str, want: &str| {
            let e = decode(text, 3).unwrap_err().to_string();
            assert!(e.contains(want), "{e}");
        };
        check(r#"{"op":"guess","at":1}"#, "unknown variant `guess`");
        check(r#"{"op":"final"}"#, "missing field `at`");
        check(r#"{"op":"trim","at":5,"end":4,"process":"a","tp":"t/0","offset":1,"result":"ok"}"#, "ends before");
        assert!(decode_head(r#"{"history":2}"#).unwrap_err().to_string().contains("version 2"));
    }
}
