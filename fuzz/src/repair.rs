//! Pure. Checksums and lengths put right after a mutation, so that the decoder behind them is reached. Each function takes
//! bytes of any kind and gives back bytes that pass the outermost check if they are long enough. Layouts:
//! `docs/formats/{journal,segment,manifest,snap}.md`.

use catchwater_record::crc::crc32c;

fn put(bytes: &mut [u8], at: usize, crc: u32) {
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    bytes[at..at + 4].iter().rev().fold(0, |n, b| n << 8 | usize::from(*b))
}

/// Magic and checksum of a slot: bytes 8 to its end.
pub fn slot(bytes: &mut [u8], kind: u16) {
    if bytes.len() < 32 {
        return;
    }
    bytes[..4].copy_from_slice(b"CWP1");
    bytes[16..18].copy_from_slice(&kind.to_le_bytes());
    bytes[18..20].copy_from_slice(&1u16.to_le_bytes());
    let len = (bytes.len() - 32) as u32;
    bytes[20..24].copy_from_slice(&len.to_le_bytes());
    let crc = crc32c(&bytes[8..]);
    put(bytes, 4, crc);
}

/// Checksums of the rows of a `.txn`, and its length: whole rows.
pub fn txn(bytes: &mut Vec<u8>) {
    bytes.truncate(bytes.len() / 40 * 40);
    for row in bytes.chunks_exact_mut(40) {
        let crc = crc32c(&row[4..]);
        row[..4].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Length and checksum of a `.snap`: bytes 0..36 and the payload.
pub fn snap(bytes: &mut [u8]) {
    if bytes.len() < 40 {
        return;
    }
    bytes[..4].copy_from_slice(b"CWS1");
    bytes[4..6].copy_from_slice(&1u16.to_le_bytes());
    let len = (bytes.len() - 40) as u32;
    bytes[32..36].copy_from_slice(&len.to_le_bytes());
    let mut hashed = bytes[..36].to_vec();
    hashed.extend_from_slice(&bytes[40..]);
    let crc = crc32c(&hashed);
    put(bytes, 36, crc);
}

/// A head of 64 bytes with its checksum over bytes 0..60.
pub fn head64(bytes: &mut [u8], magic: &[u8; 4]) {
    if bytes.len() >= 64 {
        bytes[..4].copy_from_slice(magic);
        bytes[4..6].copy_from_slice(&1u16.to_le_bytes());
        let crc = crc32c(&bytes[..60]);
        put(bytes, 60, crc);
    }
}

/// A footer of 96 bytes with its checksum over bytes 0..92.
pub fn footer(bytes: &mut [u8]) {
    if bytes.len() >= 96 {
        bytes[..4].copy_from_slice(b"CWEF");
        let crc = crc32c(&bytes[..92]);
        put(bytes, 92, crc);
    }
}

/// A flush: header, each frame that its directory names, directory.
pub fn flush(bytes: &mut [u8]) {
    if bytes.len() < 64 {
        return;
    }
    bytes[..4].copy_from_slice(b"CWJ1");
    let lsn: [u8; 8] = [bytes[8], bytes[9], bytes[10], bytes[11], bytes[12], bytes[13], bytes[14], bytes[15]];
    let (dir_at, count) = (64usize.saturating_add(u32_at(bytes, 32)), u32_at(bytes, 36));
    if let Some(end) = count.checked_mul(24).and_then(|n| n.checked_add(dir_at)).filter(|end| *end <= bytes.len()) {
        let places: Vec<usize> = (0..count).map(|i| u32_at(bytes, dir_at + i * 24 + 20)).collect();
        for at in places {
            if at < dir_at {
                bytes.get_mut(at + 8..at + 16).into_iter().for_each(|to| to.copy_from_slice(&lsn));
                frame(&mut bytes[at..dir_at]);
            }
        }
        let crc = crc32c(&bytes[dir_at..end]);
        put(bytes, 40, crc);
    }
    let crc = crc32c(&bytes[8..64]);
    put(bytes, 4, crc);
}

/// A frame of the journal: header and context, and the body's sum where it is not a batch's own.
pub fn frame(bytes: &mut [u8]) {
    if bytes.len() < 64 {
        return;
    }
    let (context, body) = (usize::from(bytes[6]) | usize::from(bytes[7]) << 8, u32_at(bytes, 56));
    let body_at = 64 + context;
    let Some(end) = body_at.checked_add(body).filter(|end| *end <= bytes.len()) else { return };
    let entry_of_data = bytes[4] == 1 && bytes[5] == 1;
    if entry_of_data {
        batch(&mut bytes[body_at..end]);
    }
    let sum = match (entry_of_data, bytes.get(body_at + 17..body_at + 21)) {
        (true, Some(crc)) if end - body_at >= 61 => u32::from_be_bytes([crc[0], crc[1], crc[2], crc[3]]),
        _ => crc32c(&bytes[body_at..end]),
    };
    put(bytes, 60, sum);
    let crc = crc32c(&bytes[4..body_at]);
    put(bytes, 0, crc);
}

/// Length, magic and checksum of a record batch.
pub fn batch(bytes: &mut [u8]) {
    if bytes.len() < 61 {
        return;
    }
    let len = (bytes.len() - 12) as i32;
    bytes[8..12].copy_from_slice(&len.to_be_bytes());
    bytes[16] = 2;
    let crc = crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
}
