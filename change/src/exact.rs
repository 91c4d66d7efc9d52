//! Pure. `cw.exact`: the source's own text of those cells whose Debezium form cannot be turned back into the value
//! (an interval with months as microseconds, NaN in a decimal). Rare, so one optional record header; sinks prefer it,
//! Debezium's readers never see it.
//!
//! `version u8 = 1 | n × (side u8: 0 before, 1 after | column index u16 | len u32 | UTF-8 text)`, big endian.

use bytes::{BufMut, Bytes, BytesMut};

/// Name of the record header.
pub const EXACT_HEADER: &[u8] = b"cw.exact";

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExactCell {
    pub after: bool,
    pub column: u16,
    pub text: String,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ExactError {
    #[error("header ends early")]
    Short,
    #[error("version {0} is not known")]
    Version(u8),
    #[error("text is not UTF-8")]
    Utf8,
}

pub fn encode(cells: &[ExactCell]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(1);
    for c in cells {
        out.put_u8(u8::from(c.after));
        out.put_u16(c.column);
        out.put_u32(c.text.len() as u32);
        out.put_slice(c.text.as_bytes());
    }
    out.freeze()
}

pub fn decode(bytes: &[u8]) -> Result<Vec<ExactCell>, ExactError> {
    let (version, mut rest) = bytes.split_first().ok_or(ExactError::Short)?;
    if *version != 1 {
        return Err(ExactError::Version(*version));
    }
    let mut out = Vec::new();
    while !rest.is_empty() {
        let (head, tail) = rest.split_first_chunk::<7>().ok_or(ExactError::Short)?;
        let len = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        let (text, tail) = tail.split_at_checked(len).ok_or(ExactError::Short)?;
        let text = std::str::from_utf8(text).map_err(|_| ExactError::Utf8)?.to_owned();
        out.push(ExactCell { after: head[0] == 1, column: u16::from_be_bytes([head[1], head[2]]), text });
        rest = tail;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_every_prefix_refused() {
        let cells = vec![
            ExactCell { after: true, column: 3, text: "1 mon".into() },
            ExactCell { after: false, column: 0, text: "NaN".into() },
        ];
        let bytes = encode(&cells);
        assert_eq!(decode(&bytes), Ok(cells));
        assert_eq!(decode(&[]), Err(ExactError::Short));
        assert_eq!(decode(&[2]), Err(ExactError::Version(2)));
        assert_eq!(decode(&bytes[..bytes.len() - 1]), Err(ExactError::Short));
    }
}
