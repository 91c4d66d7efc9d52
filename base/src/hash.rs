//! Pure. Hash maps whose order does not differ between runs, and the stored hashes.
//!
//! Keyed by SipHash-1-3 with a seed from outside, so that names chosen by strangers cannot be made to collide, and
//! a simulated run repeats. Where order matters to a result, use `BTreeMap`.

use siphasher::sip::SipHasher13;
use std::hash::BuildHasher;

#[derive(Clone, Debug)]
pub struct Seeded {
    k0: u64,
    k1: u64,
}

impl Seeded {
    pub const fn new(seed: u64) -> Self {
        Seeded { k0: seed, k1: seed.rotate_left(32) ^ 0x5bd1_e995_9e37_79b9 }
    }
}

impl Default for Seeded {
    fn default() -> Self {
        Seeded::new(0)
    }
}

impl BuildHasher for Seeded {
    type Hasher = SipHasher13;
    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.k0, self.k1)
    }
}

#[allow(clippy::disallowed_types)]
pub type Map<K, V> = std::collections::HashMap<K, V, Seeded>;
#[allow(clippy::disallowed_types)]
pub type Set<K> = std::collections::HashSet<K, Seeded>;

/// xxh3-64 of `bytes`: the stored 64-bit hash (fixed by the format pages).
pub fn xxh3_64(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// xxh3-128 of `bytes`: fingerprints.
pub fn xxh3_128(bytes: &[u8]) -> u128 {
    xxhash_rust::xxh3::xxh3_128(bytes)
}
