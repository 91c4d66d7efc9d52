//! Pure. Where each capture stands in this partition: its epoch and the last position that entered.
//!
//! Walk: row-change 10/17
//!
//! This is what makes "a source transaction is in the log exactly once" a property of the log: position and rows are
//! one entry. Speculative, with undo, like [`crate::producer`]. Rules, in order (the first that fits):
//! epoch below the known one = fenced · no positions = new · last ≤ known = duplicate · first ≤ known = partly ·
//! `prev` ≠ known = gap (an append before this one did not enter; if this one did, that one, sent again, would pass
//! for a duplicate and be lost) · new.

use crate::format::context::{CaptureContext, Fence};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use catchwater_record::position::POSITION_BYTES_MAX;
use catchwater_record::{CaptureEpoch, CaptureId, CommitSeq, EntryIndex, Position};
use std::collections::BTreeMap;

/// One capture, as remembered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CaptureState {
    pub epoch: CaptureEpoch,
    /// None = only fenced so far.
    pub position: Position,
    /// The entry that brought `position`.
    pub last_index: EntryIndex,
    pub commit_seq: CommitSeq,
}

/// What a capture's append is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    New,
    /// Everything in it entered before; the newest of it with that entry.
    Duplicate(EntryIndex),
    /// Positions up to the known one entered before: cut, send the rest.
    Partly(Position),
    Gap(Position),
    Fenced(CaptureEpoch),
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Captures {
    known: BTreeMap<CaptureId, CaptureState>,
}

/// The value before a change, for a truncation.
pub type Before = (CaptureId, Option<CaptureState>);

impl Captures {
    pub fn get(&self, id: CaptureId) -> Option<&CaptureState> {
        self.known.get(&id)
    }
    pub fn len(&self) -> usize {
        self.known.len()
    }
    /// Entries that brought the newest position of each.
    pub fn last_entries(&self) -> impl Iterator<Item = EntryIndex> + '_ {
        self.known.values().map(|state| state.last_index)
    }
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub fn check(&self, append: &CaptureContext) -> Standing {
        let known = self.known.get(&append.capture);
        if let Some(k) = known
            && append.epoch < k.epoch
        {
            return Standing::Fenced(k.epoch);
        }
        if !append.has_positions() {
            return Standing::New;
        }
        let position = known.map_or(Position::NONE, |k| k.position.clone());
        if append.last <= position {
            Standing::Duplicate(known.map_or(EntryIndex::ZERO, |k| k.last_index))
        } else if append.first <= position {
            Standing::Partly(position)
        } else if append.prev != position {
            Standing::Gap(position)
        } else {
            Standing::New
        }
    }

    /// A fence below the known epoch would let an older worker in.
    pub fn check_fence(&self, fence: Fence) -> Standing {
        match self.known.get(&fence.capture) {
            Some(k) if fence.epoch < k.epoch => Standing::Fenced(k.epoch),
            _ => Standing::New,
        }
    }

    pub fn append(&mut self, context: &CaptureContext, index: EntryIndex) -> Before {
        let before = self.known.get(&context.capture).cloned();
        let state = self.entry(context.capture, context.epoch);
        if context.has_positions() {
            state.position = context.last.clone();
            state.last_index = index;
            state.commit_seq = context.commit_seq;
        }
        (context.capture, before)
    }

    pub fn fence(&mut self, fence: Fence) -> Before {
        let before = self.known.get(&fence.capture).cloned();
        self.entry(fence.capture, fence.epoch);
        (fence.capture, before)
    }

    pub fn drop_capture(&mut self, capture: CaptureId) -> Before {
        (capture, self.known.remove(&capture))
    }

    pub fn restore(&mut self, (capture, before): Before) {
        match before {
            Some(state) => self.known.insert(capture, state),
            None => self.known.remove(&capture),
        };
    }

    fn entry(&mut self, capture: CaptureId, epoch: CaptureEpoch) -> &mut CaptureState {
        let state = self.known.entry(capture).or_insert(CaptureState {
            epoch,
            position: Position::NONE,
            last_index: EntryIndex::ZERO,
            commit_seq: CommitSeq(0),
        });
        state.epoch = state.epoch.max(epoch);
        state
    }

    /// Section 2 of `.snap`.
    pub fn encode(&self, out: &mut BytesMut) {
        for (id, c) in &self.known {
            let position = c.position.as_bytes();
            out.put_u64_le(id.0);
            out.put_u32_le(c.epoch.0);
            out.put_u16_le(position.len() as u16);
            out.put_u16_le(0);
            out.put_u64_le(c.last_index.0);
            out.put_u64_le(c.commit_seq.0);
            out.put_slice(position);
            out.put_bytes(0, position.len().next_multiple_of(8) - position.len());
        }
    }

    /// `None` if the bytes are not a section 2.
    pub fn decode(mut bytes: Bytes) -> Option<Self> {
        const FIXED: usize = 32;
        let mut known = BTreeMap::new();
        while bytes.has_remaining() {
            if bytes.remaining() < FIXED {
                return None;
            }
            let id = CaptureId(bytes.get_u64_le());
            let epoch = CaptureEpoch(bytes.get_u32_le());
            let len = usize::from(bytes.get_u16_le());
            bytes.get_u16_le();
            let last_index = EntryIndex(bytes.get_u64_le());
            let commit_seq = CommitSeq(bytes.get_u64_le());
            if len > POSITION_BYTES_MAX || bytes.remaining() < len.next_multiple_of(8) {
                return None;
            }
            let position = Position::new(bytes.split_to(len)).ok()?;
            bytes.advance(len.next_multiple_of(8) - len);
            known.insert(id, CaptureState { epoch, position, last_index, commit_seq });
        }
        Some(Captures { known })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn pos(n: u32) -> Position {
        if n == 0 { Position::NONE } else { Position::copy_from(&n.to_be_bytes()).unwrap() }
    }
    fn append(epoch: u32, prev: u32, first: u32, last: u32) -> CaptureContext {
        CaptureContext {
            capture: CaptureId(1),
            epoch: CaptureEpoch(epoch),
            flags: 0,
            commit_seq: CommitSeq(u64::from(last)),
            prev: pos(prev),
            first: pos(first),
            last: pos(last),
            txn: None,
        }
    }

    #[test]
    fn the_five_answers() {
        let mut c = Captures::default();
        let mut index = 0;
        let mut offer = |a: CaptureContext, want: Standing| {
            index += 1;
            let found = c.check(&a);
            if found == Standing::New {
                c.append(&a, EntryIndex(index));
            }
            assert_eq!(found, want, "{a:?}");
        };
        offer(append(1, 4, 5, 6), Standing::Gap(pos(0)));
        offer(append(1, 0, 1, 3), Standing::New);
        offer(append(1, 3, 4, 6), Standing::New);
        offer(append(1, 3, 4, 6), Standing::Duplicate(EntryIndex(3)));
        offer(append(1, 0, 1, 2), Standing::Duplicate(EntryIndex(3)));
        offer(append(1, 3, 5, 8), Standing::Partly(pos(6)));
        // The one between (7, 8) was refused: if this entered, that one would be taken for a duplicate.
        offer(append(1, 8, 9, 10), Standing::Gap(pos(6)));
        offer(append(1, 6, 7, 8), Standing::New);
        offer(append(2, 8, 9, 9), Standing::New);
        offer(append(1, 9, 10, 10), Standing::Fenced(CaptureEpoch(2)));
        // Cuts and checkpoints carry no position: the epoch alone decides.
        offer(append(2, 0, 0, 0), Standing::New);
        offer(append(1, 0, 0, 0), Standing::Fenced(CaptureEpoch(2)));
        offer(append(2, 9, 10, 10), Standing::New);
    }

    #[test]
    fn a_fence_shuts_out_the_older_worker_and_keeps_the_position() {
        let mut c = Captures::default();
        c.append(&append(1, 0, 1, 3), EntryIndex(1));
        let fence = |epoch| Fence { capture: CaptureId(1), epoch: CaptureEpoch(epoch) };
        assert_eq!(c.check_fence(fence(1)), Standing::New);
        c.fence(fence(5));
        assert_eq!(c.check_fence(fence(4)), Standing::Fenced(CaptureEpoch(5)));
        assert_eq!(c.check(&append(4, 3, 4, 4)), Standing::Fenced(CaptureEpoch(5)));
        assert_eq!(c.check(&append(5, 3, 4, 4)), Standing::New);
        assert_eq!(c.get(CaptureId(1)).unwrap().position, pos(3));
    }

    proptest! {
        /// A worker that sends runs of a source of 30 rows in any order, repeated or torn, gets each row in once.
        #[test]
        fn every_row_enters_once_and_in_order(ops in prop::collection::vec((1u32..30, 1u32..6, any::<bool>()), 1..80)) {
            let mut c = Captures::default();
            let mut entered: Vec<u32> = Vec::new();
            for (i, (first, len, honest)) in ops.into_iter().enumerate() {
                let known = entered.last().copied().unwrap_or(0);
                let first = if honest { known + 1 } else { first };
                let prev = if honest { known } else { first - 1 };
                let last = first + len - 1;
                let a = append(1, prev, first, last);
                match c.check(&a) {
                    Standing::New => {
                        c.append(&a, EntryIndex(i as u64 + 1));
                        entered.extend(first..=last);
                    }
                    Standing::Duplicate(_) => prop_assert!(last <= known),
                    Standing::Partly(p) => prop_assert!(p == pos(known) && first <= known && known < last),
                    Standing::Gap(p) => prop_assert!(p == pos(known) && first > known + 1),
                    Standing::Fenced(_) => prop_assert!(false, "one epoch only"),
                }
                let mut out = BytesMut::new();
                c.encode(&mut out);
                let decoded = Captures::decode(out.freeze());
                prop_assert_eq!(decoded.as_ref(), Some(&c));
            }
            prop_assert_eq!(entered.clone(), (1..=entered.len() as u32).collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Captures::decode(Bytes::from(bytes));
        }
    }
}
