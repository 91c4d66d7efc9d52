//! Pure. What a partition remembers of each idempotent producer: its epoch and its last five batches.
//!
//! Walk: row-change 10/17
//! Walk: produce-fetch 7/14
//!
//! The state is speculative: it includes what is not committed yet. Who truncates puts the value before back
//! ([`crate::Log`] keeps it for everything above the commit index). An unknown producer may start at any sequence: its
//! state may have expired. Source: KIP-98, KIP-360.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use catchwater_record::batch::{ATTR_CONTROL, ATTR_TRANSACTIONAL, HEADER_BYTES};
use catchwater_record::{Offset, ProducerEpoch, ProducerId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Batches remembered per producer: Kafka's clients have at most five in flight.
pub const BATCHES_KEPT: usize = 5;
const SEQUENCE_MASK: i64 = 0x7fff_ffff;

/// The header fields that matter here, from the first 61 bytes of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchMark {
    pub producer: Option<ProducerId>,
    pub epoch: ProducerEpoch,
    pub base_sequence: i32,
    pub last_offset_delta: i32,
    pub max_ts: i64,
    pub attributes: i16,
}

impl BatchMark {
    /// `None` if `header` is shorter than a batch header.
    pub fn read(header: &[u8]) -> Option<Self> {
        let mut h = header.get(21..HEADER_BYTES)?;
        let attributes = h.get_i16();
        let last_offset_delta = h.get_i32();
        let _base_timestamp = h.get_i64();
        let max_ts = h.get_i64();
        let producer = Some(h.get_i64()).filter(|id| *id >= 0).map(ProducerId);
        let epoch = ProducerEpoch(h.get_i16());
        let base_sequence = h.get_i32();
        Some(BatchMark { producer, epoch, base_sequence, last_offset_delta, max_ts, attributes })
    }
    fn is_control(&self) -> bool {
        self.attributes & ATTR_CONTROL != 0
    }
    fn is_transactional(&self) -> bool {
        self.attributes & ATTR_TRANSACTIONAL != 0
    }
    fn last_sequence(&self) -> i32 {
        ((i64::from(self.base_sequence) + i64::from(self.last_offset_delta)) & SEQUENCE_MASK) as i32
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Batch {
    last_seq: i32,
    offset_delta: i32,
    last_offset: i64,
    ts: i64,
}

impl Batch {
    fn first_seq(&self) -> i32 {
        ((i64::from(self.last_seq) - i64::from(self.offset_delta)) & SEQUENCE_MASK) as i32
    }
}

/// When this node last heard of a producer, by its own clock: the timestamps of records are the client's, and may be as old
/// as what it copies. Not stored, and no part of what a replay gives again: equal to any other.
#[derive(Clone, Copy, Debug)]
enum Heard {
    /// Since the last look.
    New,
    /// Read from a snapshot: its newest record may tell.
    Restored,
    At(i64),
}

impl PartialEq for Heard {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Heard {}

/// One producer, as remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Producer {
    heard: Heard,
    epoch: i16,
    count: u8,
    batches: [Batch; BATCHES_KEPT],
    coordinator_epoch: i32,
    last_ts: i64,
    txn_first_offset: i64,
}

/// What a producer's next batch is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sequence {
    New,
    /// Written before; there.
    Duplicate {
        base: Offset,
        end: Offset,
    },
    Fenced {
        known: ProducerEpoch,
    },
    OutOfOrder {
        expected: i32,
    },
    /// Written before, but too long ago to know where.
    Stale,
}

impl Producer {
    /// First offset of its open transaction.
    pub fn open_transaction(&self) -> Option<Offset> {
        u64::try_from(self.txn_first_offset).ok().map(Offset)
    }
}

/// A producer as DescribeProducers tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerTold {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
    /// Of its newest batch; `None` = only a marker in this epoch.
    pub last_sequence: Option<i32>,
    /// Largest timestamp of its newest batch, ms.
    pub last_ms: i64,
    /// -1 = no transaction of it was ever ended here.
    pub coordinator_epoch: i32,
    pub open_transaction: Option<Offset>,
}

/// Producers that all logs of a node remember together. Above the limit the oldest idle ones go (the broker's ticks).
#[derive(Debug)]
pub struct ProducerBudget {
    known: AtomicU64,
    limit: u64,
}

impl ProducerBudget {
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(ProducerBudget { known: AtomicU64::new(0), limit })
    }
    pub fn known(&self) -> u64 {
        self.known.load(Ordering::Relaxed)
    }
    /// How many too many.
    pub fn excess(&self) -> u64 {
        self.known().saturating_sub(self.limit)
    }
    /// One log remembers `now` producers, and told of `before` last.
    pub fn account(&self, before: u64, now: u64) {
        if now >= before {
            self.known.fetch_add(now - before, Ordering::Relaxed);
        } else {
            self.known.fetch_sub(before - now, Ordering::Relaxed);
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Producers {
    known: BTreeMap<i64, Producer>,
}

impl Producers {
    pub fn len(&self) -> usize {
        self.known.len()
    }
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
    pub fn get(&self, id: ProducerId) -> Option<&Producer> {
        self.known.get(&id.0)
    }
    /// Puts a value back that [`Producers::append`] gave out.
    pub fn restore(&mut self, id: ProducerId, before: Option<Producer>) {
        match before {
            Some(p) => self.known.insert(id.0, p),
            None => self.known.remove(&id.0),
        };
    }

    pub fn check(&self, batch: &BatchMark) -> Sequence {
        let Some(id) = batch.producer else { return Sequence::New };
        let Some(known) = self.known.get(&id.0) else { return Sequence::New };
        if batch.epoch.0 < known.epoch {
            return Sequence::Fenced { known: ProducerEpoch(known.epoch) };
        }
        if batch.is_control() {
            return Sequence::New;
        }
        if batch.epoch.0 > known.epoch {
            let starts = batch.base_sequence == 0;
            return if starts { Sequence::New } else { Sequence::OutOfOrder { expected: 0 } };
        }
        let kept = &known.batches[..usize::from(known.count)];
        let Some(newest) = kept.last() else { return Sequence::New };
        let (first, last) = (batch.base_sequence, batch.last_sequence());
        if let Some(same) = kept.iter().find(|b| b.first_seq() == first && b.last_seq == last) {
            let end = (same.last_offset + 1) as u64;
            return Sequence::Duplicate { base: Offset(end - 1 - same.offset_delta as u64), end: Offset(end) };
        }
        let expected = ((i64::from(newest.last_seq) + 1) & SEQUENCE_MASK) as i32;
        if first == expected {
            return Sequence::New;
        }
        // How far its last record lies behind the newest one, modulo 2^31: less than half way round = behind.
        let behind = (i64::from(newest.last_seq) - i64::from(last)) & SEQUENCE_MASK;
        if behind < (1 << 30) { Sequence::Stale } else { Sequence::OutOfOrder { expected } }
    }

    /// Remembers a batch that is in the log now. Gives out what was known before; `None` if the batch has no producer.
    pub fn append(&mut self, batch: &BatchMark, base: Offset) -> Option<(ProducerId, Option<Producer>)> {
        let id = batch.producer?;
        let before = self.known.get(&id.0).copied();
        let mut next = before.unwrap_or(Producer {
            heard: Heard::New,
            epoch: batch.epoch.0,
            count: 0,
            batches: [Batch::default(); BATCHES_KEPT],
            coordinator_epoch: -1,
            last_ts: -1,
            txn_first_offset: -1,
        });
        if batch.epoch.0 != next.epoch {
            next.epoch = batch.epoch.0;
            next.count = 0;
            next.batches = [Batch::default(); BATCHES_KEPT];
        }
        next.heard = Heard::New;
        next.last_ts = next.last_ts.max(batch.max_ts);
        if batch.is_control() {
            next.txn_first_offset = -1;
        } else {
            if batch.is_transactional() && next.txn_first_offset < 0 {
                next.txn_first_offset = base.wire();
            }
            if usize::from(next.count) == BATCHES_KEPT {
                next.batches.copy_within(1.., 0);
                next.count -= 1;
            }
            next.batches[usize::from(next.count)] = Batch {
                last_seq: batch.last_sequence(),
                offset_delta: batch.last_offset_delta,
                last_offset: base.wire() + i64::from(batch.last_offset_delta),
                ts: batch.max_ts,
            };
            next.count += 1;
        }
        self.known.insert(id.0, next);
        Some((id, before))
    }

    /// First offset and producer of every open transaction.
    pub fn open_transactions(&self) -> impl Iterator<Item = (Offset, ProducerId)> {
        self.known.iter().filter_map(|(id, p)| Some((p.open_transaction()?, ProducerId(*id))))
    }
    /// Notes who was heard of since the last look. One read from a snapshot is as idle as its newest record is old, or, if that
    /// says nothing (older than `idle_ms`, from the future, none), as if it were heard of now.
    pub fn look(&mut self, now_ms: i64, idle_ms: i64) {
        let oldest_ms = now_ms.saturating_sub(idle_ms);
        for p in self.known.values_mut() {
            let said = p.last_ts > oldest_ms && p.last_ts <= now_ms;
            p.heard = match p.heard {
                Heard::Restored if said => Heard::At(p.last_ts),
                Heard::New | Heard::Restored => Heard::At(now_ms),
                at @ Heard::At(_) => at,
            };
        }
    }
    /// When each producer that may be forgotten was last heard of, ms; behind [`Producers::look`].
    pub fn idle_since(&self) -> impl Iterator<Item = i64> {
        self.known.values().filter(|p| p.txn_first_offset < 0).filter_map(|p| match p.heard {
            Heard::At(ms) => Some(ms),
            Heard::New | Heard::Restored => None,
        })
    }
    /// The coordinator whose marker ended this producer's transaction.
    pub fn marked(&mut self, id: ProducerId, coordinator_epoch: i32) {
        if let Some(producer) = self.known.get_mut(&id.0) {
            producer.coordinator_epoch = coordinator_epoch;
        }
    }
    pub fn told(&self) -> impl Iterator<Item = ProducerTold> + '_ {
        self.known.iter().map(|(id, p)| {
            let last = usize::from(p.count).checked_sub(1).and_then(|at| p.batches.get(at));
            ProducerTold {
                id: ProducerId(*id),
                epoch: ProducerEpoch(p.epoch),
                last_sequence: last.map(|b| b.last_seq),
                last_ms: last.map_or(p.last_ts, |b| b.ts),
                coordinator_epoch: p.coordinator_epoch,
                open_transaction: p.open_transaction(),
            }
        })
    }
    /// The newest batch of each: epoch, and the last offset of its data (`None` = only a marker in this epoch).
    pub fn last_batches(&self) -> impl Iterator<Item = (i64, i16, Option<u64>)> + '_ {
        self.known.iter().map(|(id, p)| {
            let last = usize::from(p.count).checked_sub(1).and_then(|at| p.batches.get(at));
            (*id, p.epoch, last.and_then(|b| u64::try_from(b.last_offset).ok()))
        })
    }

    /// Forgets at most so many producers without an open transaction that were not heard of since `before_ms`, as of the last look.
    pub fn forget(&mut self, before_ms: i64, most: usize) -> usize {
        let had = self.known.len();
        let mut gone = 0;
        self.known.retain(|_, p| {
            let idle = p.txn_first_offset < 0 && matches!(p.heard, Heard::At(ms) if ms <= before_ms);
            gone += usize::from(idle);
            !idle || gone > most
        });
        had - self.known.len()
    }

    /// Section 1 of `.snap`.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.known.len() as u32);
        out.put_u32_le(0);
        for (id, p) in &self.known {
            out.put_i64_le(*id);
            out.put_i16_le(p.epoch);
            out.put_u16_le(u16::from(p.count));
            out.put_i32_le(p.coordinator_epoch);
            out.put_i64_le(p.last_ts);
            out.put_i64_le(p.txn_first_offset);
            out.put_u64_le(0);
            for b in &p.batches[..usize::from(p.count)] {
                out.put_i32_le(b.last_seq);
                out.put_i32_le(b.offset_delta);
                out.put_i64_le(b.last_offset);
                out.put_i64_le(b.ts);
            }
        }
    }

    /// `None` if the bytes are not a section 1.
    pub fn decode(mut bytes: Bytes) -> Option<Self> {
        const FIXED: usize = 40;
        const EACH: usize = 24;
        if bytes.remaining() < 8 {
            return None;
        }
        let count = bytes.get_u32_le();
        bytes.get_u32_le();
        let mut known = BTreeMap::new();
        for _ in 0..count {
            if bytes.remaining() < FIXED {
                return None;
            }
            let id = bytes.get_i64_le();
            let epoch = bytes.get_i16_le();
            let n = usize::from(bytes.get_u16_le());
            let coordinator_epoch = bytes.get_i32_le();
            let last_ts = bytes.get_i64_le();
            let txn_first_offset = bytes.get_i64_le();
            bytes.get_u64_le();
            if n > BATCHES_KEPT || bytes.remaining() < n * EACH || id < 0 {
                return None;
            }
            let mut batches = [Batch::default(); BATCHES_KEPT];
            for b in &mut batches[..n] {
                *b = Batch {
                    last_seq: bytes.get_i32_le(),
                    offset_delta: bytes.get_i32_le(),
                    last_offset: bytes.get_i64_le(),
                    ts: bytes.get_i64_le(),
                };
                if b.last_seq < 0 || b.offset_delta < 0 || b.last_offset < i64::from(b.offset_delta) {
                    return None;
                }
            }
            let heard = Heard::Restored;
            let p = Producer { heard, epoch, count: n as u8, batches, coordinator_epoch, last_ts, txn_first_offset };
            known.insert(id, p);
        }
        (!bytes.has_remaining()).then_some(Producers { known })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn mark(epoch: i16, base_sequence: i32, count: i32) -> BatchMark {
        BatchMark {
            producer: Some(ProducerId(9)),
            epoch: ProducerEpoch(epoch),
            base_sequence,
            last_offset_delta: count - 1,
            max_ts: 5,
            attributes: 0,
        }
    }

    /// Appends whatever the check lets through, at dense offsets.
    struct Log(Producers, u64);
    impl Log {
        fn offer(&mut self, m: BatchMark) -> Sequence {
            let found = self.0.check(&m);
            if found == Sequence::New {
                self.0.append(&m, Offset(self.1));
                self.1 += (m.last_offset_delta + 1) as u64;
            }
            found
        }
    }
    fn log() -> Log {
        Log(Producers::default(), 0)
    }

    #[test]
    fn a_repeat_gets_its_old_offsets_back_for_five_batches() {
        let mut l = log();
        for i in 0..7 {
            assert_eq!(l.offer(mark(0, i * 2, 2)), Sequence::New);
        }
        assert_eq!(l.offer(mark(0, 0, 2)), Sequence::Stale);
        assert_eq!(l.offer(mark(0, 2, 2)), Sequence::Stale);
        for i in 2..7u64 {
            let want = Sequence::Duplicate { base: Offset(i * 2), end: Offset(i * 2 + 2) };
            assert_eq!(l.offer(mark(0, i as i32 * 2, 2)), want);
        }
        // The same first sequence with another length is no repeat.
        assert_eq!(l.offer(mark(0, 12, 1)), Sequence::Stale);
    }

    #[test]
    fn a_hole_is_out_of_order_and_an_unknown_producer_may_start_anywhere() {
        let mut l = log();
        assert_eq!(l.offer(mark(0, 500, 1)), Sequence::New);
        assert_eq!(l.offer(mark(0, 502, 1)), Sequence::OutOfOrder { expected: 501 });
        assert_eq!(l.offer(mark(0, 501, 1)), Sequence::New);
    }

    #[test]
    fn an_older_epoch_is_fenced_and_a_newer_one_starts_at_zero() {
        let mut l = log();
        assert_eq!(l.offer(mark(3, 0, 1)), Sequence::New);
        assert_eq!(l.offer(mark(2, 1, 1)), Sequence::Fenced { known: ProducerEpoch(3) });
        assert_eq!(l.offer(mark(4, 1, 1)), Sequence::OutOfOrder { expected: 0 });
        assert_eq!(l.offer(mark(4, 0, 1)), Sequence::New);
        assert_eq!(l.offer(mark(3, 1, 1)), Sequence::Fenced { known: ProducerEpoch(4) });
    }

    #[test]
    fn sequences_wrap_from_the_largest_to_zero() {
        let mut l = log();
        assert_eq!(l.offer(mark(0, i32::MAX - 1, 4)), Sequence::New); // MAX-1, MAX, 0, 1
        assert_eq!(l.offer(mark(0, i32::MAX - 1, 4)), Sequence::Duplicate { base: Offset(0), end: Offset(4) });
        assert_eq!(l.offer(mark(0, 3, 1)), Sequence::OutOfOrder { expected: 2 });
        assert_eq!(l.offer(mark(0, 2, 1)), Sequence::New);
        assert_eq!(l.offer(mark(0, i32::MAX - 5, 1)), Sequence::Stale);
    }

    #[test]
    fn transactions_open_and_close_and_hold_a_producer_against_expiry() {
        let mut p = Producers::default();
        let mut m = mark(0, 0, 1);
        m.attributes = ATTR_TRANSACTIONAL;
        p.append(&m, Offset(0));
        p.look(1000, 10);
        assert_eq!(p.forget(1000, 9), 0);
        m.attributes = ATTR_TRANSACTIONAL | ATTR_CONTROL;
        m.base_sequence = -1;
        p.append(&m, Offset(1));
        assert_eq!(p.check(&mark(0, 1, 1)), Sequence::New);
        p.look(2000, 10);
        assert_eq!(p.forget(1999, 9), 0);
        assert_eq!(p.forget(2000, 9), 1);
    }

    /// What a client copies is as old as it is: a retry must find its batch all the same.
    #[test]
    fn a_producer_is_as_idle_as_this_node_heard_nothing_of_it() {
        let mut p = Producers::default();
        p.append(&mark(0, 0, 1), Offset(0)); // written at 5 ms of the client's time
        p.look(1_000_000, 1000);
        assert_eq!((p.forget(999_999, 9), p.idle_since().collect::<Vec<_>>()), (0, vec![1_000_000]));
        p.look(1_000_500, 1000);
        p.append(&mark(0, 1, 1), Offset(1));
        assert_eq!(p.idle_since().count(), 0, "not looked at since");
        p.look(1_000_700, 1000);
        assert_eq!(p.idle_since().collect::<Vec<_>>(), [1_000_700]);
        // From a snapshot: its newest record tells if it can.
        let mut bytes = BytesMut::new();
        p.encode(&mut bytes);
        for (now_ms, heard_ms) in [(900, 5), (1_004, 5), (1_005, 1_005), (9_999, 9_999), (4, 4)] {
            let mut again = Producers::decode(bytes.clone().freeze()).unwrap();
            assert_eq!(again, p);
            again.look(now_ms, 1000);
            assert_eq!(again.idle_since().collect::<Vec<_>>(), [heard_ms], "{now_ms}");
        }
    }

    #[test]
    fn no_more_are_forgotten_than_asked() {
        let mut p = Producers::default();
        for id in 0..5 {
            p.append(&BatchMark { producer: Some(ProducerId(id)), ..mark(0, 0, 1) }, Offset(id as u64));
        }
        p.look(10, 1000);
        assert_eq!((p.forget(10, 2), p.len(), p.forget(9, 2), p.forget(10, 9)), (2, 3, 0, 3));
    }

    #[test]
    fn golden_section_bytes() {
        let mut p = Producers::default();
        p.append(&mark(2, 7, 3), Offset(100));
        let mut out = BytesMut::new();
        p.encode(&mut out);
        let mut want = vec![1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 255, 255, 255, 255];
        want.extend([5, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]);
        want.extend([9, 0, 0, 0, 2, 0, 0, 0, 102, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(out.to_vec(), want);
    }

    proptest! {
        /// Against a model that remembers every batch: offers of a client that repeats, skips and bumps its epoch.
        #[test]
        fn agrees_with_a_list_of_all_batches(ops in prop::collection::vec((0u8..4, 1i32..4, 0usize..8), 1..60),
                                             start in prop_oneof![Just(0), Just(i32::MAX - 3), 0..i32::MAX]) {
            let mut l = log();
            let mut all: Vec<(BatchMark, u64)> = Vec::new();
            let (mut epoch, mut next) = (0i16, start);
            for (op, count, back) in ops {
                match op {
                    0 | 1 => {
                        let m = mark(epoch, next, count);
                        all.push((m, l.1));
                        prop_assert_eq!(l.offer(m), Sequence::New);
                        next = ((i64::from(next) + i64::from(count)) & SEQUENCE_MASK) as i32;
                    }
                    2 if all.len() > back => {
                        let (m, base) = all[all.len() - 1 - back];
                        let found = l.offer(m);
                        if m.epoch.0 < epoch {
                            prop_assert_eq!(found, Sequence::Fenced { known: ProducerEpoch(epoch) });
                        } else if back < BATCHES_KEPT {
                            let end = base + (m.last_offset_delta + 1) as u64;
                            prop_assert_eq!(found, Sequence::Duplicate { base: Offset(base), end: Offset(end) });
                        } else {
                            prop_assert_eq!(found, Sequence::Stale);
                        }
                    }
                    3 => {
                        epoch += 1;
                        next = 0;
                        let m = mark(epoch, next, count);
                        all.push((m, l.1));
                        prop_assert_eq!(l.offer(m), Sequence::New);
                        next = count;
                    }
                    _ => {}
                }
                let mut out = BytesMut::new();
                l.0.encode(&mut out);
                let decoded = Producers::decode(out.freeze());
                prop_assert_eq!(decoded.as_ref(), Some(&l.0));
            }
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Producers::decode(Bytes::from(bytes));
        }
    }
}
