//! Pure. Walk: row-change 2/17. pgoutput (protocol versions 1 to 4) bytes → [`Message`], and the two frames that carry them.
//!
//! Bytes are foreign: every count is bounded by what is left before anything is allocated; a message of unknown type, a
//! tail left over or a short body is an error with the place, never a panic and never skipped. Tuples are checked once
//! here and walked in place later ([`Tuple::columns`]): slices of the frame, no copy. Of version 3 nothing is read that 2
//! has not: prepared transactions are not asked for, they come as plain ones when they are committed.
//! Source: PostgreSQL 15 manual, 55.9 "Logical Replication Message Formats", 55.4 "Streaming Replication Protocol".

use bytes::{Buf, Bytes};

/// Microseconds from 1970-01-01 to 2000-01-01, where PostgreSQL counts from.
pub const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;
/// Columns of a table: PostgreSQL's limit is 1,600.
const COLUMNS_MAX: usize = 1_664;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("{what} ends early")]
    Short { what: &'static str },
    #[error("{left} bytes are left over after {what}")]
    Left { what: &'static str, left: usize },
    #[error("message type 0x{0:02x} is not known")]
    Message(u8),
    #[error("frame type 0x{0:02x} is not known")]
    Frame(u8),
    #[error("{what} has the unknown mark 0x{mark:02x}")]
    Mark { what: &'static str, mark: u8 },
    #[error("{what} claims {count}, more than its bytes can hold")]
    Count { what: &'static str, count: u64 },
    #[error("a name is not UTF-8")]
    Utf8,
}

/// What a CopyData of the replication stream holds.
#[derive(Clone, PartialEq, Debug)]
pub enum Frame {
    /// Place of the message in the WAL, when it was sent (microseconds since 2000), and the message.
    Data { start: u64, sent: i64, body: Bytes },
    /// Everything below `end` was sent; `reply` asks for an answer at once.
    KeepAlive { end: u64, reply: bool },
}

#[derive(Clone, PartialEq, Debug)]
pub enum Message {
    Begin {
        final_lsn: u64,
        time: i64,
        xid: u32,
    },
    Commit {
        lsn: u64,
        end_lsn: u64,
        time: i64,
    },
    Origin {
        lsn: u64,
        name: String,
    },
    Relation(Relation),
    Type {
        oid: u32,
    },
    Insert {
        oid: u32,
        new: Tuple,
    },
    Update {
        oid: u32,
        old: Option<OldTuple>,
        new: Tuple,
    },
    Delete {
        oid: u32,
        old: OldTuple,
    },
    Truncate {
        oids: Vec<u32>,
    },
    Logical {
        transactional: bool,
        /// Where its WAL record ends.
        lsn: u64,
        prefix: String,
        content: Bytes,
    },
    /// Version 2: messages of a transaction that is still open follow, each with the id of its (sub)transaction after
    /// the tag.
    StreamStart {
        xid: u32,
    },
    StreamStop,
    StreamCommit {
        xid: u32,
        lsn: u64,
        end_lsn: u64,
        time: i64,
    },
    /// All of the transaction if `sub` = `xid`.
    StreamAbort {
        xid: u32,
        sub: u32,
    },
}

/// A table as it is from here on.
#[derive(Clone, PartialEq, Debug)]
pub struct Relation {
    pub oid: u32,
    pub namespace: String,
    pub name: String,
    /// `d n f i`.
    pub identity: u8,
    pub columns: Vec<RelationColumn>,
    /// The message without its tag: its xxh3-128 is the fingerprint.
    pub body: Bytes,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RelationColumn {
    pub is_key: bool,
    pub name: String,
    pub type_oid: u32,
    pub modifier: i32,
}

#[derive(Clone, PartialEq, Debug)]
pub enum OldTuple {
    /// Only the identity's columns are set, the others are `Null`.
    Key(Tuple),
    Full(Tuple),
}

/// A checked tuple.
#[derive(Clone, PartialEq, Debug)]
pub struct Tuple {
    count: u16,
    body: Bytes,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum ColumnData<'a> {
    Null,
    /// TOASTed and not changed: not sent.
    Unchanged,
    Text(&'a [u8]),
    Binary(&'a [u8]),
}

struct Cursor<'a> {
    at: &'a mut Bytes,
    what: &'static str,
}

impl Cursor<'_> {
    fn need(&self, n: usize) -> Result<(), DecodeError> {
        if self.at.len() < n { Err(DecodeError::Short { what: self.what }) } else { Ok(()) }
    }
    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.need(1)?;
        Ok(self.at.get_u8())
    }
    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.need(2)?;
        Ok(self.at.get_u16())
    }
    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.need(4)?;
        Ok(self.at.get_u32())
    }
    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.need(8)?;
        Ok(self.at.get_u64())
    }
    fn text(&mut self) -> Result<String, DecodeError> {
        let end = self.at.iter().position(|b| *b == 0).ok_or(DecodeError::Short { what: self.what })?;
        let text = self.at.split_to(end);
        self.at.advance(1);
        String::from_utf8(text.to_vec()).map_err(|_| DecodeError::Utf8)
    }
    fn end(&self) -> Result<(), DecodeError> {
        if self.at.is_empty() { Ok(()) } else { Err(DecodeError::Left { what: self.what, left: self.at.len() }) }
    }
    /// Walks over a tuple and cuts it off.
    fn tuple(&mut self) -> Result<Tuple, DecodeError> {
        let count = self.u16()?;
        if usize::from(count) > COLUMNS_MAX || usize::from(count) > self.at.len() {
            return Err(DecodeError::Count { what: "a tuple", count: u64::from(count) });
        }
        let mut end = 0usize;
        for _ in 0..count {
            let mark = *self.at.get(end).ok_or(DecodeError::Short { what: self.what })?;
            end += 1;
            match mark {
                b'n' | b'u' => {}
                b't' | b'b' => {
                    let len = self.at.get(end..end + 4).and_then(|b| <[u8; 4]>::try_from(b).ok());
                    let len = len.map(u32::from_be_bytes).ok_or(DecodeError::Short { what: self.what })? as usize;
                    end += 4;
                    if len > self.at.len() - end {
                        return Err(DecodeError::Count { what: "a column", count: len as u64 });
                    }
                    end += len;
                }
                mark => return Err(DecodeError::Mark { what: "a column", mark }),
            }
        }
        Ok(Tuple { count, body: self.at.split_to(end) })
    }
    fn mark(&mut self, want: u8) -> Result<(), DecodeError> {
        match self.u8()? {
            m if m == want => Ok(()),
            mark => Err(DecodeError::Mark { what: self.what, mark }),
        }
    }
}

/// The body of a CopyData of the stream.
pub fn frame(mut body: Bytes) -> Result<Frame, DecodeError> {
    let mut c = Cursor { at: &mut body, what: "a replication frame" };
    match c.u8()? {
        b'w' => {
            let start = c.u64()?;
            c.u64()?; // end of WAL
            let sent = c.u64()? as i64;
            Ok(Frame::Data { start, sent, body })
        }
        b'k' => {
            let end = c.u64()?;
            c.u64()?;
            let reply = c.u8()? == 1;
            c.end()?;
            Ok(Frame::KeepAlive { end, reply })
        }
        tag => Err(DecodeError::Frame(tag)),
    }
}

/// True for messages that carry the id of their (sub)transaction inside a block of an open transaction.
pub fn is_held(body: &[u8]) -> bool {
    matches!(body.first(), Some(b'R' | b'Y' | b'I' | b'U' | b'D' | b'T' | b'M'))
}

/// One pgoutput message.
pub fn message(mut body: Bytes) -> Result<Message, DecodeError> {
    // Of a table's description alone the bytes are kept.
    let whole = if body.first() == Some(&b'R') { body.clone() } else { Bytes::new() };
    let mut c = Cursor { at: &mut body, what: "a message" };
    let tag = c.u8()?;
    let out = match tag {
        b'B' => {
            c.what = "Begin";
            Message::Begin { final_lsn: c.u64()?, time: c.u64()? as i64, xid: c.u32()? }
        }
        b'C' => {
            c.what = "Commit";
            c.u8()?;
            Message::Commit { lsn: c.u64()?, end_lsn: c.u64()?, time: c.u64()? as i64 }
        }
        b'O' => {
            c.what = "Origin";
            Message::Origin { lsn: c.u64()?, name: c.text()? }
        }
        b'R' => {
            c.what = "Relation";
            let (oid, namespace, name, identity) = (c.u32()?, c.text()?, c.text()?, c.u8()?);
            let count = usize::from(c.u16()?);
            // Smallest column: flags, empty name, type, modifier.
            if count > COLUMNS_MAX || count > c.at.len() / 10 {
                return Err(DecodeError::Count { what: "Relation", count: count as u64 });
            }
            let mut columns = Vec::with_capacity(count);
            for _ in 0..count {
                columns.push(RelationColumn {
                    is_key: c.u8()? & 1 != 0,
                    name: c.text()?,
                    type_oid: c.u32()?,
                    modifier: c.u32()? as i32,
                });
            }
            Message::Relation(Relation { oid, namespace, name, identity, columns, body: whole.slice(1..) })
        }
        b'Y' => {
            c.what = "Type";
            let oid = c.u32()?;
            c.text()?;
            c.text()?;
            Message::Type { oid }
        }
        b'I' => {
            c.what = "Insert";
            let oid = c.u32()?;
            c.mark(b'N')?;
            Message::Insert { oid, new: c.tuple()? }
        }
        b'U' => {
            c.what = "Update";
            let oid = c.u32()?;
            let old = match c.u8()? {
                b'K' => Some(OldTuple::Key(c.tuple()?)),
                b'O' => Some(OldTuple::Full(c.tuple()?)),
                b'N' => None,
                mark => return Err(DecodeError::Mark { what: "Update", mark }),
            };
            if old.is_some() {
                c.mark(b'N')?;
            }
            Message::Update { oid, old, new: c.tuple()? }
        }
        b'D' => {
            c.what = "Delete";
            let oid = c.u32()?;
            let old = match c.u8()? {
                b'K' => OldTuple::Key(c.tuple()?),
                b'O' => OldTuple::Full(c.tuple()?),
                mark => return Err(DecodeError::Mark { what: "Delete", mark }),
            };
            Message::Delete { oid, old }
        }
        b'T' => {
            c.what = "Truncate";
            let count = c.u32()? as usize;
            c.u8()?;
            if count > c.at.len() / 4 {
                return Err(DecodeError::Count { what: "Truncate", count: count as u64 });
            }
            let oids = (0..count).map(|_| c.u32()).collect::<Result<_, _>>()?;
            Message::Truncate { oids }
        }
        b'M' => {
            c.what = "Message";
            let transactional = c.u8()? & 1 != 0;
            let (lsn, prefix) = (c.u64()?, c.text()?);
            let len = c.u32()? as usize;
            c.need(len)?;
            let content = c.at.split_to(len);
            Message::Logical { transactional, lsn, prefix, content }
        }
        b'S' => {
            c.what = "StreamStart";
            let xid = c.u32()?;
            c.u8()?; // first block of it
            Message::StreamStart { xid }
        }
        b'E' => Message::StreamStop,
        b'c' => {
            c.what = "StreamCommit";
            let xid = c.u32()?;
            c.u8()?;
            Message::StreamCommit { xid, lsn: c.u64()?, end_lsn: c.u64()?, time: c.u64()? as i64 }
        }
        b'A' => {
            c.what = "StreamAbort";
            let out = Message::StreamAbort { xid: c.u32()?, sub: c.u32()? };
            // Version 4 with `streaming parallel`: where and when.
            if !c.at.is_empty() {
                c.u64()?;
                c.u64()?;
            }
            out
        }
        tag => return Err(DecodeError::Message(tag)),
    };
    c.end()?;
    Ok(out)
}

impl Tuple {
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
    pub fn bytes(&self) -> usize {
        self.body.len()
    }
    /// The columns in order. What is kept of them is cut off by [`Tuple::keep`]: most columns are numbers and times, and a
    /// slice that counts its owners costs more than reading one of them.
    pub fn columns(&self) -> impl Iterator<Item = ColumnData<'_>> {
        let mut rest = &self.body[..];
        (0..self.count).map(move |_| {
            // `Cursor::tuple` walked over these very bytes.
            let (mark, data, behind) = match *rest {
                [mark @ (b't' | b'b'), a, b, c, d, ref data @ ..] => {
                    let (data, behind) = data.split_at(u32::from_be_bytes([a, b, c, d]) as usize);
                    (mark, data, behind)
                }
                [mark, ref behind @ ..] => (mark, &[][..], behind),
                [] => (b'n', &[][..], &[][..]),
            };
            rest = behind;
            match mark {
                b'u' => ColumnData::Unchanged,
                b't' => ColumnData::Text(data),
                b'b' => ColumnData::Binary(data),
                _ => ColumnData::Null,
            }
        })
    }
    /// A column's bytes as a slice of the frame.
    pub fn keep(&self, data: &[u8]) -> Bytes {
        self.body.slice_ref(data)
    }
}

#[cfg(test)]
mod tests;
