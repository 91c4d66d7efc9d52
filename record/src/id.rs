//! Pure. Newtypes for ids and places. No bare integer crosses a `pub` of another crate where one of these fits.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl From<$inner> for $name {
            fn from(v: $inner) -> Self { $name(v) }
        }
    };
}

number!(/// Place of a record in a partition, dense from 0. Kafka's offset.
    Offset(u64));
number!(/// Place of an entry in its Raft log, +1 each, first is 1. Seen by `raft` and `storage` only.
    EntryIndex(u64));
number!(/// Kafka's leader epoch = the Raft term; below 2^31.
    LeaderEpoch(u32));
number!(/// Kafka's producer id; -1 (absent) is `Option::None` everywhere.
    ProducerId(i64));
number!(ProducerEpoch(i16));
number!(/// Number of a partition inside its topic.
    PartitionId(u32));
number!(/// +1 per captured transaction or snapshot chunk of a source; never reset within an incarnation.
    CommitSeq(u64));
number!(/// A capture = a source of the log: given to the name once, kept over incarnations.
    CaptureId(u64));
number!(/// Fences an older worker of one capture; equals the task's epoch.
    CaptureEpoch(u32));
number!(TaskId(u64));
number!(/// Fences an older holder of a task; strictly rising.
    TaskEpoch(u32));
number!(NodeId(u32));
number!(/// A Raft group; 0 is the controller group.
    Gid(u64));
number!(/// Of a source: +1 when it is dropped and made anew under its name.
    Incarnation(u16));
number!(/// Version of the set of tasks a node has seen.
    TasksVersion(u64));
number!(RevisionNo(u64));

impl Offset {
    pub const ZERO: Offset = Offset(0);
    pub const fn plus(self, n: u64) -> Offset {
        Offset(self.0 + n)
    }
    /// As the wire's i64.
    pub fn wire(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

impl EntryIndex {
    pub const ZERO: EntryIndex = EntryIndex(0);
    pub const fn next(self) -> EntryIndex {
        EntryIndex(self.0 + 1)
    }
    pub const fn prev(self) -> EntryIndex {
        EntryIndex(self.0.saturating_sub(1))
    }
}

/// A topic's id: 16 bytes, zero = none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    pub const NONE: TopicId = TopicId([0; 16]);
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// Kafka's form of an id back into its 16 bytes; `None` if `text` is not 22 characters of that form.
    pub fn parse(text: &str) -> Option<Self> {
        let mut value = 0u128;
        let digits = text.as_bytes();
        for (i, byte) in digits.iter().enumerate() {
            let six = u128::try_from(ALPHABET.iter().position(|c| c == byte)?).ok()?;
            // The last character holds the two lowest bits, with four zeros behind them.
            value = match i {
                21 if six & 15 == 0 => value << 2 | six >> 4,
                0..21 => value << 6 | six,
                _ => return None,
            };
        }
        (digits.len() == 22).then(|| TopicId(value.to_be_bytes()))
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl fmt::Display for TopicId {
    /// Kafka's form: URL-safe base64 without padding, 22 characters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = u128::from_be_bytes(self.0);
        for i in 0..22 {
            let shift = 122 - 6 * i;
            let six = if shift >= 0 { (value >> shift) & 63 } else { (value << (-shift)) & 63 };
            write!(f, "{}", char::from(ALPHABET[six as usize]))?;
        }
        Ok(())
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One partition of one topic, by id: what the log is addressed with inside Catchwater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TopicPartition {
    pub topic: TopicId,
    pub partition: PartitionId,
}

impl TopicPartition {
    pub const fn new(topic: TopicId, partition: u32) -> Self {
        TopicPartition { topic, partition: PartitionId(partition) }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {} of topic {}", self.partition.0, self.topic)
    }
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(std::sync::Arc<str>);
        impl $name {
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{:?}", &*self.0) }
        }
        impl From<&str> for $name {
            fn from(s: &str) -> Self { $name(s.into()) }
        }
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str { &self.0 }
        }
        impl From<String> for $name {
            fn from(s: String) -> Self { $name(s.into()) }
        }
    };
}

text!(/// A topic's name as clients know it. Legality is [`TopicName::is_legal`].
    TopicName);
text!(GroupName);
text!(SourceName);
text!(PipelineName);
text!(NodeName);
text!(/// Transaction id of a source, opaque, at most 64 bytes when stored.
    SinkName);

impl TopicName {
    /// Kafka's rule: `[A-Za-z0-9._-]{1,249}`, neither `.` nor `..`.
    pub fn is_legal(name: &str) -> bool {
        !name.is_empty()
            && name.len() <= 249
            && name != "."
            && name != ".."
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    }
}

/// Transaction id of a source: opaque bytes, at most 64.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TxnId(pub bytes::Bytes);

impl fmt::Debug for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TxnId({})", String::from_utf8_lossy(&self.0).escape_debug())
    }
}

/// Who asks: judged by `coordinator::rights`, named in the audit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// `User:alice`, `User:ANONYMOUS`, or `Node:<id>` for a node's own workers (never obtainable by a client).
    pub principal: String,
    pub groups: Vec<String>,
    pub host: String,
}

impl Caller {
    pub fn node(id: NodeId) -> Self {
        Caller { principal: format!("Node:{id}"), groups: Vec::new(), host: "127.0.0.1".into() }
    }
    /// A node of the cluster itself.
    pub fn is_node(&self) -> bool {
        self.principal.starts_with("Node:")
    }
    pub fn anonymous(host: impl Into<String>) -> Self {
        Caller { principal: "User:ANONYMOUS".into(), groups: Vec::new(), host: host.into() }
    }
}

/// A user-visible error code, shown as `CW0311`; the register is `docs/errors/`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ErrorCode(pub u16);

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CW{:04}", self.0)
    }
}
impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_follow_kafkas_rule() {
        for ok in ["a", "A.b_c-9", "..."] {
            assert!(TopicName::is_legal(ok), "{ok}");
        }
        for bad in ["", ".", "..", "a b", "ä", "a/b", &"x".repeat(250)] {
            assert!(!TopicName::is_legal(bad), "{bad}");
        }
    }

    #[test]
    fn topic_id_prints_as_kafka_prints_it() {
        // Source: java.util.Base64 url encoder without padding over the same 16 bytes.
        let id = TopicId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!(id.to_string(), "AAECAwQFBgcICQoLDA0ODw");
        assert_eq!(TopicId([255; 16]).to_string(), "_____________________w");
    }
}
