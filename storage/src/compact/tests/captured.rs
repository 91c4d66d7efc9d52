//! Batches of a capture under compaction, and what the older manifest copy says after a switch.

use super::*;
use crate::format::context::CaptureContext;
use catchwater_record::{CaptureEpoch, CaptureId, CommitSeq, Position};

/// `d` deletes, `p` says a part; a record without the header is whole.
pub fn nature(record: &RecordView<'_>) -> Nature {
    match record.header(b"op").flatten() {
        Some(b"d") => Nature::Delete,
        Some(b"p") => Nature::Part,
        _ => Nature::Whole,
    }
}

/// One row of a capture: key (`None` = a truncate), operation; `b` is the tombstone.
pub(super) type Said = (Option<u8>, u8);

impl Rig {
    pub(super) fn capture(&mut self, said: &[Said]) {
        let n = self.log.last_index().0 as u32 + 1;
        let pos = |n: u32| Position::copy_from(&n.to_be_bytes()).unwrap();
        let known = self.log.capture_last(CaptureId(1)).map_or(Position::NONE, |(_, last)| last);
        let context = CaptureContext {
            capture: CaptureId(1),
            epoch: CaptureEpoch(1),
            flags: 0,
            commit_seq: CommitSeq(u64::from(n)),
            prev: known,
            first: pos(n),
            last: pos(n),
            txn: None,
        };
        let mut builder = Builder::new();
        for (key, op) in said {
            let key = key.map(|k| format!("key-{k}").into_bytes());
            let value = (*op != b'b').then_some(&b"value"[..]);
            builder.push(self.ms, key.as_deref(), value, [(&b"op"[..], Some(&[*op][..]))]);
        }
        let entry = self.entry(EntryKind::Data, builder.finish(), context.encode());
        self.submit(vec![entry], None);
    }

    /// Key and operation of every record below the newest segment.
    pub(super) fn said(&self) -> Vec<(u64, Said)> {
        let end = self.log.segments().last().unwrap().base_offset;
        let (mut out, mut next) = (Vec::new(), Offset(0));
        while next < end {
            let ReadPlan::Files(read) = self.log.plan_read(next, end, 1 << 20) else { break };
            let bytes = read_batches(&self.disk.disk, &self.layout, &read).unwrap();
            let mut rest = &bytes[..];
            while let Ok((batch, after)) = BatchView::split(rest) {
                rest = after;
                next = batch.offset().plus(u64::from(batch.offset_count()));
                let body = section(&batch, 1 << 20).unwrap();
                for record in records(&body, batch.records_count() as u32) {
                    let r = record.unwrap();
                    let key = r.key.map(|k| k[4] - b'0');
                    let op = r.header(b"op").flatten().map_or(b'?', |op| op[0]);
                    out.push((batch.offset().0 + r.offset_delta as u64, (key, op)));
                }
            }
        }
        out
    }

    fn fill(&mut self) {
        for _ in 0..4 {
            self.capture(&[(Some(9), b'u'), (Some(8), b'u'), (Some(9), b'u')]);
        }
    }
}

#[test]
fn of_a_capture_deletes_stay_with_their_tombstones_and_truncates_and_parts_stay() {
    let mut rig = Rig::new(250);
    let policy = Policy { segment_bytes: 250, ..rig.policy() };
    rig.capture(&[(Some(1), b'c'), (Some(2), b'c')]);
    rig.capture(&[(Some(3), b'c'), (None, b't')]);
    rig.capture(&[(Some(1), b'd'), (Some(1), b'b')]);
    rig.capture(&[(Some(2), b'p'), (Some(3), b'd'), (Some(3), b'b'), (Some(3), b'c')]);
    rig.fill();
    rig.compact(policy, 1 << 20).unwrap();
    let below = |rig: &Rig, upto: u64| rig.said().into_iter().filter(|(at, _)| *at < upto).collect::<Vec<_>>();
    let (k, none) = (|n: u8| Some(n), None);
    // Of key 3 the creation behind its tombstone says all; the part of key 2 does not take its creation's place.
    let want = [
        (1, (k(2), b'c')),
        (3, (none, b't')),
        (4, (k(1), b'd')),
        (5, (k(1), b'b')),
        (6, (k(2), b'p')),
        (9, (k(3), b'c')),
    ];
    assert_eq!(below(&rig, 10), want);
    let thinned = rig.log.thinned();
    assert_eq!(
        thinned.below,
        rig.log.segments().iter().rev().find(|s| s.generation > 0).map(|s| end_offset(s.rows.last().unwrap())).unwrap()
    );
    assert!(thinned.whole_from >= thinned.below && thinned.deletes_gone == Offset(0), "{thinned:?}");
    rig.ms += 1_000;
    rig.fill();
    rig.compact(policy, 1 << 20).unwrap();
    let want = [(1, (k(2), b'c')), (3, (none, b't')), (6, (k(2), b'p')), (9, (k(3), b'c'))];
    assert_eq!(below(&rig, 10), want, "the delete goes with its tombstone");
    assert_eq!(rig.log.thinned().deletes_gone, Offset(6));
    let rig = rig.reopen(Some((Cut::LoseAll, 1)));
    assert_eq!(rig.log.thinned().deletes_gone, Offset(6), "known after a power cut");
    assert_eq!(below(&rig, 10), want);
    // A whole record takes the place of all that was said in parts.
    let mut rig = rig;
    rig.capture(&[(Some(2), b'u')]);
    rig.fill();
    rig.compact(policy, 1 << 20).unwrap();
    assert!(below(&rig, 10).iter().all(|(_, (key, _))| *key != k(2)));
}

/// The newest position of a capture is known from what compaction leaves, without a snapshot of the state.
#[test]
fn a_capture_that_is_quiet_keeps_its_position() {
    let mut rig = Rig::new(250);
    rig.capture(&[(Some(1), b'c'), (Some(2), b'c')]);
    for i in 0..8 {
        rig.append(None, Codec::None, &[(1, true), (2, true), (60 + i, true)]);
    }
    let policy = rig.policy();
    rig.compact(policy, 1 << 20).unwrap();
    let known = rig.log.capture_last(CaptureId(1));
    let dir = group_dir(&rig.layout.groups(), GID);
    for name in rig.disk.disk.list(&dir).unwrap().iter().filter(|n| n.ends_with(".snap")) {
        rig.disk.disk.unlink(&format!("{dir}/{name}")).unwrap();
    }
    let rig = rig.reopen(None);
    assert!(known.is_some() && rig.log.capture_last(CaptureId(1)) == known);
}

/// The newer copy of the manifest may be damaged later: the older one must not name files that are gone.
#[test]
fn files_go_only_when_both_copies_of_the_manifest_name_their_successors() {
    let mut rig = script();
    let policy = rig.policy();
    rig.compact(policy, 1 << 20).unwrap();
    rig.ms += 60_000;
    rig.tell(DirEvent::Wake);
    let new = rig.read();
    for side in ["a", "b"] {
        let disk = rig.disk.disk.fork();
        disk.kill();
        let path = format!("{}/manifest.{side}", group_dir(&rig.layout.groups(), GID));
        disk.damage(&path, |bytes| bytes[40] ^= 1);
        assert_eq!(Rig::on(disk, 700, false).read(), new, "manifest.{side} is damaged");
    }
}

/// No batch that a plan over files gives ends behind the plan's end, also behind gaps and markers; what it gives begins where
/// it was asked for, and is as many bytes as it says at most.
#[test]
fn a_plan_ends_where_its_last_batch_does_or_later() {
    let mut rig = script();
    rig.transactional(77, 0, Ok(1));
    rig.transactional(77, 0, Err(false));
    rig.append(None, Codec::None, &[(1, true)]);
    let policy = rig.policy();
    for round in 0..2 {
        let end = rig.log.high_watermark();
        let mut plans = 0;
        for from in 0..end.0 {
            for max_bytes in [1, 300, 1 << 20] {
                let plan = rig.log.plan_read(Offset(from), end, max_bytes);
                let ReadPlan::Files(read) = &plan else { continue };
                plans += 1;
                let bytes = read_batches(&rig.disk.disk, &rig.layout, read).unwrap();
                let (mut rest, mut ends) = (&bytes[..], Vec::new());
                while let Ok((batch, after)) = BatchView::split(rest) {
                    rest = after;
                    ends.push(batch.offset().plus(u64::from(batch.offset_count())));
                }
                let about = format!("from {from}, {max_bytes} bytes, round {round}");
                assert!(ends[0] > Offset(from), "{about}");
                assert!(rig.log.plan_end(&plan).is_some_and(|end| end >= *ends.last().unwrap()), "{about}");
                assert!(ends.len() == 1 || bytes.len() as u64 <= read.bytes, "{about}");
                let none = FileRead { at_least_one: false, max_bytes: 60, ..*read };
                assert_eq!(read_batches(&rig.disk.disk, &rig.layout, &none), Ok(Bytes::new()), "{about}");
            }
        }
        assert!(plans > 20, "{plans}");
        rig.compact(policy, 1 << 20);
    }
}
