//! Traps that the engine's design names: what must not happen to offsets after a long compaction, and to segments that hold no
//! record.

use super::*;
use crate::retain::{Retention, choose};

fn segment(base: u64, count: u32) -> SegmentInfo {
    let (base_index, base_offset) = (EntryIndex(base + 1), Offset(base));
    let row = Row {
        index: base_index,
        term: LeaderEpoch(1),
        kind: EntryKind::Data,
        flags: 0,
        base_offset,
        count,
        max_ts: 0,
        pos: 0,
        len: 100,
        ext_pos: 0,
        ext_len: 0,
    };
    SegmentInfo {
        base_index,
        base_offset,
        generation: 1,
        sealed: true,
        compacted: true,
        created_ms: 0,
        rows: vec![row].into(),
    }
}

/// What is left of very much is little, and would fit into one file: but offsets are told from its base in 31 bits.
#[test]
fn segments_2_31_offsets_apart_do_not_become_one_after_compaction() {
    const MOST: u32 = i32::MAX as u32;
    let spans = |counts: &[u32]| {
        let mut base = 7;
        let segments = counts.iter().map(|count| {
            let made = segment(base, *count);
            base += u64::from(*count);
            made
        });
        group(&segments.collect::<Vec<_>>(), 1 << 30)
    };
    assert_eq!(spans(&[1 << 30, MOST - (1 << 30)]), [2], "just within");
    assert_eq!(spans(&[1 << 30, MOST - (1 << 30) + 1]), [1, 1], "one offset too many");
    assert_eq!(spans(&[1 << 30, MOST - (1 << 30), 1]), [2, 1]);
    assert_eq!(spans(&[MOST, 1, 5]), [1, 2], "one may be so long by itself");
    assert_eq!(spans(&[1 << 29; 9]), [3, 3, 3]);
    // The same of indexes: entries without an offset count, too.
    let (one, mut far) = (segment(0, 1), segment(1, 1));
    far.base_index = EntryIndex(u64::from(MOST) + 1);
    let mut row = *far.rows.first().unwrap();
    for (index, groups) in [(u64::from(MOST) + 1, vec![2]), (u64::from(MOST) + 2, vec![1, 1])] {
        row.index = EntryIndex(index);
        far.rows = vec![row].into();
        assert_eq!(group(&[one.clone(), far.clone()], 1 << 30), groups, "index {index}");
    }
}

/// However many entries without a record there are, and however old they get: the segment they are in stays open, since a file
/// name is an offset, and two would have the same. Readers, retention and the next start pass over them.
#[test]
fn a_segment_of_internal_entries_only_is_not_closed_and_holds_nothing_up() {
    let mut rig = Rig::new(4_000);
    let limits = SegmentLimits { bytes: 4_000, ms: 1_000, jitter_ms: 0, delete_delay_ms: 0 };
    rig.tell(DirEvent::Limits(GID, limits));
    let logs = |rig: &Rig| {
        let names = rig.disk.disk.files();
        names.iter().filter(|(name, _)| name.ends_with(".ent")).count()
    };
    // Three times as many as a segment has rows, over days.
    for _ in 0..3_000 {
        rig.internal();
        rig.ms += 100_000;
    }
    assert_eq!(logs(&rig), 1);
    let retention = Retention { ms: Some(1), bytes: Some(0) };
    assert_eq!(choose(rig.log.segments(), rig.log.high_watermark(), retention, rig.ms), None);
    for round in 0..3 {
        rig.append(None, Codec::None, &[(1, true), (2, true)]);
        for _ in 0..1_500 {
            rig.internal();
            rig.ms += 1_000;
        }
        let read: Vec<u64> = rig.read().into_iter().map(|(offset, ..)| offset).collect();
        assert_eq!(read, (0..2 * (round + 1)).collect::<Vec<u64>>());
    }
    assert!(logs(&rig) > 1, "those with a record are closed");
    let end = rig.log.high_watermark();
    // All records are old: everything goes, whatever lies between.
    assert_eq!(choose(rig.log.segments(), end, retention, rig.ms), Some(end));
    // The next start finds them all.
    let (last, written) = (rig.log.last_index(), rig.written.clone());
    let again = rig.reopen(Some((Cut::LoseAll, 1)));
    assert_eq!((again.log.last_index(), again.log.high_watermark()), (last, end));
    assert_eq!(again.read(), written);
}
