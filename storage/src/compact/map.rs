//! Pure. Key to last offset, in 24 bytes a key: a keyed 128-bit hash (SipHash-1-3) stands for the key.
//!
//! Two keys of one hash would lose a record: with 5 million keys the odds are 2^-84, and who does not know the secret
//! cannot look for them. Open addressing, at most nine tenths full.

use catchwater_record::Offset;
use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;

/// Bytes of memory for one key.
pub const SLOT_BYTES: u64 = 24;
const SLOTS_MIN: usize = 1 << 10;
const EMPTY: u64 = u64::MAX;

/// See the file head.
#[derive(Clone, Debug)]
pub struct KeyMap {
    slots: Vec<[u64; 3]>,
    used: usize,
    slots_max: usize,
    secret: (u64, u64),
}

impl KeyMap {
    /// Grows up to `bytes_max`.
    pub fn new(bytes_max: u64, secret: (u64, u64)) -> Self {
        let slots_max = usize::try_from(bytes_max / SLOT_BYTES).unwrap_or(usize::MAX).max(SLOTS_MIN);
        KeyMap { slots: Vec::new(), used: 0, slots_max, secret }
    }

    pub fn len(&self) -> usize {
        self.used
    }
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    fn hash(&self, key: &[u8]) -> (u64, u64) {
        let mut hasher = SipHasher13::new_with_keys(self.secret.0, self.secret.1);
        hasher.write(key);
        let hash = hasher.finish128();
        (hash.h1, hash.h2)
    }

    fn place(&self, hash: (u64, u64)) -> usize {
        let mut at = (hash.0 % self.slots.len() as u64) as usize;
        while self.slots[at][2] != EMPTY && (self.slots[at][0], self.slots[at][1]) != hash {
            at = (at + 1) % self.slots.len();
        }
        at
    }

    /// Notes a later offset of `key`; false = the map is full and knows nothing of it.
    #[must_use]
    pub fn put(&mut self, key: &[u8], offset: Offset) -> bool {
        let hash = self.hash(key);
        if !self.slots.is_empty() {
            let at = self.place(hash);
            if self.slots[at][2] != EMPTY {
                self.slots[at][2] = self.slots[at][2].max(offset.0);
                return true;
            }
        }
        if (self.used + 1) * 10 > self.slots.len() * 9 {
            if self.slots.len() >= self.slots_max {
                return false;
            }
            self.grow();
        }
        let at = self.place(hash);
        self.slots[at] = [hash.0, hash.1, offset.0];
        self.used += 1;
        true
    }

    fn grow(&mut self) {
        let len = (self.slots.len() * 2).clamp(SLOTS_MIN, self.slots_max);
        let old = std::mem::replace(&mut self.slots, vec![[0, 0, EMPTY]; len]);
        for slot in old.into_iter().filter(|s| s[2] != EMPTY) {
            let at = self.place((slot[0], slot[1]));
            self.slots[at] = slot;
        }
    }

    pub fn get(&self, key: &[u8]) -> Option<Offset> {
        if self.slots.is_empty() {
            return None;
        }
        let slot = self.slots[self.place(self.hash(key))];
        (slot[2] != EMPTY).then_some(Offset(slot[2]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn it_is_a_map_until_it_is_full(puts in proptest::collection::vec((0u32..3_000, 0u64..1 << 40), 0..4_000)) {
            let mut map = KeyMap::new(2_000 * SLOT_BYTES, (1, 2));
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            for (key, offset) in puts {
                if map.put(&key.to_be_bytes(), Offset(offset)) {
                    let known = model.entry(key).or_insert(offset);
                    *known = (*known).max(offset);
                } else {
                    prop_assert!(!model.contains_key(&key) && model.len() >= 1_799);
                }
            }
            prop_assert_eq!(map.len(), model.len());
            for key in 0..3_000u32 {
                prop_assert_eq!(map.get(&key.to_be_bytes()), model.get(&key).map(|o| Offset(*o)));
            }
        }
    }
}
