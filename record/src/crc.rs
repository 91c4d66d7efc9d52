//! Pure. CRC-32C (Castagnoli), the checksum of Kafka's batches and of all our own formats.

use crc_fast::{CrcAlgorithm, Digest};

/// CRC-32C of one slice.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// CRC-32C over several slices in order.
pub fn crc32c_of(parts: &[&[u8]]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    for part in parts {
        digest.update(part);
    }
    digest.finalize() as u32
}

/// CRC-32C takes a byte by a table of its low byte; each entry has a highest byte of its own, so a step can be taken back.
const STEPS: [u32; 256] = steps();

const fn steps() -> [u32; 256] {
    let mut out = [0; 256];
    let mut at = 0;
    while at < 256 {
        let (mut state, mut bit) = (at as u32, 0);
        while bit < 8 {
            state = (state >> 1) ^ (0x82f6_3b78 & (state & 1).wrapping_neg());
            bit += 1;
        }
        out[at] = state;
        at += 1;
    }
    out
}

/// The step whose entry has this highest byte.
const BACK: [u8; 256] = back();

const fn back() -> [u8; 256] {
    let mut out = [0; 256];
    let mut at = 0;
    while at < 256 {
        out[(STEPS[at] >> 24) as usize] = at as u8;
        at += 1;
    }
    out
}

/// The first four bytes (as a little-endian number) of the only message that has checksum `crc` and goes on with `rest`.
pub fn crc32c_first_word(crc: u32, rest: &[&[u8]]) -> u32 {
    let mut state = !crc;
    for byte in rest.iter().rev().flat_map(|part| part.iter().rev()) {
        let step = BACK[(state >> 24) as usize];
        state = ((state ^ STEPS[usize::from(step)]) << 8) | u32::from(step ^ byte);
    }
    // Four steps over a word are those over its sum with the state, and zeros.
    for _ in 0..4 {
        let step = BACK[(state >> 24) as usize];
        state = ((state ^ STEPS[usize::from(step)]) << 8) | u32::from(step);
    }
    !state
}

/// CRC-64/NVMe of one slice: whole files.
pub fn crc64(bytes: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes)
}

/// Running CRC-64/NVMe for files that are read in pieces.
#[derive(Clone, Copy, Debug)]
pub struct Crc64(Digest);

impl Default for Crc64 {
    fn default() -> Self {
        Crc64(Digest::new(CrcAlgorithm::Crc64Nvme))
    }
}

impl Crc64 {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    pub fn finish(&self) -> u64 {
        self.0.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values_of_the_catalogue() {
        // Source: reveng CRC catalogue, check value of "123456789".
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc64(b"123456789"), 0xae8b_1486_0a79_9888);
        assert_eq!(crc32c_of(&[b"1234", b"56789"]), 0xe306_9283);
    }

    #[test]
    fn the_first_word_of_a_message_follows_from_its_checksum() {
        assert_eq!(crc32c_first_word(0xe306_9283, &[b"5678", b"9"]), u32::from_le_bytes(*b"1234"));
        for word in [0, 1, 0x8000_0000, 0x1234_5678, u32::MAX] {
            for rest in [&b""[..], b"x", b"a longer rest of the message"] {
                let crc = crc32c_of(&[&word.to_le_bytes(), rest]);
                assert_eq!(crc32c_first_word(crc, &[rest]), word);
            }
        }
    }
}
