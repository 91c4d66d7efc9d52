//! Pure. A cut: "every record of this source with commit_seq <= S lies below these end offsets". Derived from the log;
//! losing one costs time, never rows. Stored in `__catchwater_cuts`; page `docs/formats/cuts.md`.

use crate::stamp::Native;
use crate::wire::{Reader, StoredError, Writer};
use bytes::{BufMut, Bytes};
use catchwater_base::Wall;
use catchwater_record::{CaptureId, CommitSeq, Incarnation, Offset, TopicPartition};

/// Topic of the cuts; all of a source are in one partition, by murmur2 of its id's 8 bytes.
pub const CUTS_TOPIC: &str = "__catchwater_cuts";
pub const CUTS_PARTITIONS: u32 = 16;
const FORMAT: u8 = 1;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cut {
    pub incarnation: Incarnation,
    pub commit_seq: CommitSeq,
    pub native: Native,
    /// Commit time of the newest transaction covered.
    pub commit_time: Wall,
    /// When the cut was written.
    pub written: Wall,
    /// All partitions of the source, not only the changed ones.
    pub full: bool,
    pub ends: Vec<(TopicPartition, Offset)>,
}

impl Cut {
    /// Key of a source's cuts.
    pub fn key(source: CaptureId) -> Bytes {
        Bytes::copy_from_slice(&source.0.to_be_bytes())
    }

    /// The source a cut's key names.
    pub fn source(key: &[u8]) -> Option<CaptureId> {
        key.try_into().ok().map(u64::from_be_bytes).map(CaptureId)
    }

    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.0.put_u8(FORMAT);
        w.0.put_u16(self.incarnation.0);
        w.0.put_u64(self.commit_seq.0);
        w.bytes(self.native.as_bytes());
        w.0.put_i64(self.commit_time.as_micros());
        w.0.put_i64(self.written.as_micros());
        w.0.put_u8(u8::from(self.full));
        w.ends(&self.ends);
        w.0.freeze()
    }

    pub fn decode(bytes: &[u8]) -> Result<Cut, StoredError> {
        let mut r = Reader(bytes);
        match r.u8()? {
            FORMAT => {}
            other => return Err(StoredError::Format(other)),
        }
        let (incarnation, commit_seq, native) = (Incarnation(r.u16()?), CommitSeq(r.u64()?), r.bytes()?);
        let length = native.len() as u64;
        let cut = Cut {
            incarnation,
            commit_seq,
            native: Native::new(native).ok_or(StoredError::Illegal { what: "native length", got: length })?,
            commit_time: Wall::from_micros(r.i64()?),
            written: Wall::from_micros(r.i64()?),
            full: r.u8()? == 1,
            ends: r.ends()?,
        };
        r.end()?;
        Ok(cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use catchwater_record::TopicId;

    #[test]
    fn golden_bytes_and_every_prefix_refused() {
        let cut = Cut {
            incarnation: Incarnation(1),
            commit_seq: CommitSeq(0x0102),
            native: Native::postgres(0x16b_3748),
            commit_time: Wall::from_micros(3),
            written: Wall::from_micros(4),
            full: true,
            ends: vec![(TopicPartition::new(TopicId([0xaa; 16]), 2), Offset(5))],
        };
        let bytes = cut.encode();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let want = "01 0001 0000000000000102 00000009 0100000000016b3748 0000000000000003 0000000000000004 01 \
                    00000001 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 00000002 0000000000000005";
        assert_eq!(hex, want.replace(' ', ""));
        let page = include_str!("../../docs/formats/cuts.md").replace(' ', "");
        assert!(page.contains(&format!("`{hex}`")), "the page has other golden bytes");
        assert_eq!(Cut::decode(&bytes), Ok(cut));
        for n in 0..bytes.len() {
            assert!(Cut::decode(&bytes[..n]).is_err(), "prefix {n}");
        }
        assert_eq!(Cut::source(&Cut::key(CaptureId(7))), Some(CaptureId(7)));
    }
}
