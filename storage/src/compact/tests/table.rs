//! The entry table of a compacted segment is lost, its batches are not: it is made again, and nothing that was left is lost.

use super::captured::Said;
use super::*;
use crate::format::context::{Fence, encode_conf};
use catchwater_record::{CaptureEpoch, CaptureId};

fn filled(seed: u64, others: bool) -> Rig {
    let mut rng = Rng::new(seed);
    let mut rig = Rig::new(700);
    let mut sequence = 0;
    for round in 0..3 {
        for _ in 0..45 {
            let keys: Vec<(u8, bool)> =
                (0..1 + rng.below(4)).map(|_| (rng.below(14) as u8, rng.below(5) > 0)).collect();
            let producer = (rng.below(3) == 0).then(|| {
                sequence += keys.len() as i32;
                (7, sequence - keys.len() as i32)
            });
            rig.append(producer, codec(rng.below(5) as u8), &keys);
            // The entry that begins a term.
            if (rig.log.last_index().0 + 1).is_multiple_of(50) {
                rig.internal();
            }
            if others && rng.below(7) == 0 {
                rig.other(&mut rng);
            }
        }
        rig.ms += 2_000 * (round % 2);
        // Some with a map that holds few keys: segments that were seen in part.
        rig.compact(rig.policy(), if rng.below(3) == 0 { 4 * 24 } else { 1 << 20 });
    }
    rig
}

impl Rig {
    /// An entry of its own that stays, with a context.
    fn other(&mut self, rng: &mut Rng) {
        let (kind, context) = match rng.below(2) {
            0 => (EntryKind::Conf, encode_conf(&[1, 0, 0, 0]).unwrap()),
            _ => (EntryKind::Ctl, Fence { capture: CaptureId(2), epoch: CaptureEpoch(1) }.encode()),
        };
        let entry = self.entry(kind, BytesMut::new(), context);
        self.submit(vec![entry], None);
    }
}

/// Tables of compacted segments, by their names: base offset, generation, "ent".
fn compacted_tables(disk: &MemoryDisk) -> Vec<String> {
    let names = disk.files().into_iter().map(|(name, _)| name);
    names.filter(|n| n.ends_with(".ent") && n.rsplit('/').next().unwrap().split('.').count() == 3).collect()
}

fn lose(disk: &MemoryDisk, name: &str, how: u64) {
    match how {
        0 => disk.unlink(name).unwrap(),
        1 => disk.damage(name, |bytes| bytes.fill(0)),
        2 => disk.truncate(name, 80).unwrap(),
        // The first row alone.
        _ => disk.damage(name, |bytes| bytes[70] ^= 1),
    }
    disk.kill();
}

/// A log that a capture writes: each batch has a context, so each index is known, and the table is what it was.
#[test]
fn a_lost_table_of_a_compacted_segment_of_a_capture_is_made_again() {
    let (mut tried, mut gaps, mut inner) = (0, 0, 0);
    for seed in 0..6 {
        let mut rng = Rng::new(100 + seed);
        let mut rig = Rig::new(700);
        for round in 0..3 {
            for _ in 0..50 {
                let keys = 1 + rng.below(4);
                let said: Vec<Said> = (0..keys)
                    .flat_map(|_| match (rng.below(14) as u8 % 10, rng.below(9)) {
                        (key, 0) => vec![(Some(key), b'd'), (Some(key), b'b')],
                        (key, 1) => vec![(Some(key), b'p')],
                        (_, 2) if rng.below(4) == 0 => vec![(None, b't')],
                        (key, _) => vec![(Some(key), b'u')],
                    })
                    .collect();
                rig.capture(&said);
                match rng.below(16) {
                    0 => rig.internal(),
                    1 if seed % 2 == 0 => rig.other(&mut rng),
                    _ => {}
                }
            }
            rig.ms += 2_000 * (round % 2);
            rig.compact(rig.policy(), if rng.below(3) == 0 { 4 * 24 } else { 1 << 20 });
        }
        let (want, end, last) = (rig.said(), rig.log.high_watermark(), rig.log.last_index());
        let (position, rows) = (rig.log.capture_last(CaptureId(1)), rig.rows());
        gaps += rows.iter().filter(|r| r.kind == EntryKind::Gap).count();
        inner += rows.iter().filter(|r| r.kind == EntryKind::Ctl).count();
        rig.disk.disk.power_cut(Cut::KeepAll, &mut Rng::new(1));
        for name in compacted_tables(&rig.disk.disk) {
            for how in 0..4 {
                let disk = rig.disk.disk.fork();
                lose(&disk, &name, how);
                let mut rig = Rig::on(disk, 700, false);
                let about = format!("seed {seed}, {name}, {how}");
                assert_eq!((rig.log.high_watermark(), rig.log.last_index()), (end, last), "{about}");
                assert_eq!(
                    (rig.said(), rig.log.capture_last(CaptureId(1))),
                    (want.clone(), position.clone()),
                    "{about}"
                );
                // Where nothing but batches stands, gaps are what they were, too.
                let kept = |rows: &[Row]| -> Vec<Row> {
                    rows.iter().filter(|r| seed % 2 == 1 || r.kind == EntryKind::Data).copied().collect()
                };
                assert_eq!(kept(&rig.rows()), kept(&rows), "{about}");
                rig.ms = 9_000;
                for key in 0..40 {
                    rig.capture(&[(Some(key % 10), b'u')]);
                }
                rig.compact(rig.policy(), 1 << 20).expect("more is due");
                let more = rig.said();
                let disk = rig.disk.disk.fork();
                disk.power_cut(Cut::LoseAll, &mut Rng::new(2));
                assert_eq!(Rig::on(disk, 700, false).said(), more, "{about}: after a power cut");
                tried += 1;
            }
        }
    }
    assert!(
        tried > 30 && gaps > 50 && inner > 5,
        "{tried} tables of segments with {gaps} gaps, {inner} entries of their own"
    );
}

#[test]
fn a_lost_table_of_a_compacted_segment_is_made_again() {
    let (mut tried, mut gaps) = (0, 0);
    for seed in 0..8 {
        let before = filled(seed, seed >= 4);
        let rig = &before;
        let (want, end, last) = (rig.read(), rig.log.high_watermark(), rig.log.last_index());
        gaps += rig.rows().iter().filter(|r| r.kind == EntryKind::Gap).count();
        rig.disk.disk.power_cut(Cut::KeepAll, &mut Rng::new(1));
        for name in compacted_tables(&rig.disk.disk) {
            for how in 0..4 {
                let disk = rig.disk.disk.fork();
                lose(&disk, &name, how);
                let mut rig = Rig::on(disk, 700, false);
                let about = format!("seed {seed}, {name}, {how}");
                assert_eq!((rig.log.high_watermark(), rig.log.last_index()), (end, last), "{about}");
                assert_eq!(rig.read(), want, "{about}");
                let others = |s: &Rig| -> Vec<EntryIndex> {
                    let rows = s.rows().into_iter();
                    rows.filter(|r| matches!(r.kind, EntryKind::Conf | EntryKind::Ctl)).map(|r| r.index).collect()
                };
                assert_eq!(others(&rig), others(&before), "{about}");
                // It is written, serves the next round, and is found whole after that.
                rig.written = want.clone();
                for key in 0..40 {
                    rig.append(None, Codec::None, &[(key % 14, true)]);
                }
                rig.ms += 5_000;
                rig.compact(rig.policy(), 1 << 20).expect("more is due");
                let more = rig.read();
                let disk = rig.disk.disk.fork();
                disk.power_cut(Cut::LoseAll, &mut Rng::new(2));
                assert_eq!(Rig::on(disk, 700, false).read(), more, "{about}: after a power cut");
                tried += 1;
            }
        }
    }
    assert!(tried > 30 && gaps > 50, "{tried} tables of segments with {gaps} gaps");
}

/// Batches that are missing are not taken for ones that were compacted.
#[test]
fn a_compacted_segment_that_lost_batches_is_damaged() {
    let mut closed = 0;
    for seed in [1, 2, 5, 6] {
        let rig = filled(seed, seed > 4);
        rig.disk.disk.power_cut(Cut::KeepAll, &mut Rng::new(1));
        for table in compacted_tables(&rig.disk.disk) {
            let log = table.replace(".ent", ".log");
            let bytes = rig.disk.disk.read_all(&log).unwrap().unwrap_or_default();
            let mut ends = Vec::new();
            let mut rest = &bytes[..];
            while let Ok((_, after)) = BatchView::split(rest) {
                ends.push((bytes.len() - rest.len()) as u64);
                rest = after;
            }
            // Its table is whole, lost, or has one bad row.
            for with in 0..3 {
                for cut in [0, 1, ends.len() / 2, ends.len().saturating_sub(2), ends.len().saturating_sub(1)] {
                    let Some(cut) = ends.get(cut).copied() else { continue };
                    let disk = rig.disk.disk.fork();
                    match cut {
                        0 => disk.unlink(&log).unwrap(),
                        cut => disk.truncate(&log, cut).unwrap(),
                    }
                    match with {
                        0 => {}
                        1 => disk.unlink(&table).unwrap(),
                        _ => disk.damage(&table, |bytes| bytes[70] ^= 1),
                    }
                    disk.kill();
                    let found = recover(&disk, &rig.layout, NEW).unwrap();
                    let (group, _) = found.groups.iter().find(|(g, _)| g.gid == GID).unwrap();
                    assert_eq!(
                        group.verdict,
                        Verdict::Damaged,
                        "seed {seed}, {log} cut at {cut} of {}, {with}",
                        bytes.len()
                    );
                    closed += 1;
                }
            }
        }
    }
    assert!(closed > 50, "{closed}");
}
