//! Pure. Walk: row-change 17/17. What the server may forget: the standby status message, and the rule that it never goes
//! back. The position comes from the last committed checkpoint; the keep-alive's end of WAL never gets here by itself.

use crate::source::decode::POSTGRES_EPOCH_MICROS;
use bytes::{BufMut, BytesMut};
use catchwater_base::Wall;

/// Position confirmed so far and told so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ack {
    upto: u64,
    told: u64,
}

impl Ack {
    pub fn new(start: u64) -> Self {
        Ack { upto: start, told: 0 }
    }
    /// The latest wins, never backwards.
    pub fn confirm(&mut self, upto: u64) {
        self.upto = self.upto.max(upto);
    }
    /// True if the server does not know the newest position yet.
    pub fn is_news(&self) -> bool {
        self.upto > self.told
    }
    /// The CopyData message that tells it; `reply` asks the server where it stands.
    pub fn status(&mut self, now: Wall, reply: bool) -> BytesMut {
        self.told = self.upto;
        let mut out = BytesMut::with_capacity(39);
        out.put_u8(b'd');
        out.put_u32(4 + 34);
        out.put_u8(b'r');
        for _write_flush_apply in 0..3 {
            out.put_u64(self.upto);
        }
        out.put_i64(now.as_micros() - POSTGRES_EPOCH_MICROS);
        out.put_u8(u8::from(reply));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confirmed_position_never_goes_back() {
        let mut ack = Ack::new(100);
        assert!(ack.is_news());
        ack.confirm(300);
        ack.confirm(200);
        let bytes = ack.status(Wall::from_micros(POSTGRES_EPOCH_MICROS + 5), true);
        assert_eq!(bytes.len(), 39);
        assert_eq!(&bytes[..6], b"d\0\0\0\x26r");
        for at in [6, 14, 22] {
            assert_eq!(&bytes[at..at + 8], &300u64.to_be_bytes());
        }
        assert_eq!((&bytes[30..38], bytes[38]), (&5i64.to_be_bytes()[..], 1));
        assert!(!ack.is_news());
    }
}
