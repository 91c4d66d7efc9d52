//! The entry table of a compacted segment is lost, its batches are not: it is made again, and nothing that was left is lost.

use super::*;

fn filled(seed: u64) -> Rig {
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
            if rng.below(12) == 0 {
                rig.internal();
            }
        }
        rig.ms += 2_000 * (round % 2);
        // Some with a map that holds few keys: segments that were seen in part.
        rig.compact(rig.policy(), if rng.below(3) == 0 { 4 * 24 } else { 1 << 20 });
    }
    rig
}

#[test]
fn a_lost_table_of_a_compacted_segment_is_made_again() {
    let (mut tried, mut gaps) = (0, 0);
    for seed in 0..4 {
        let rig = filled(seed);
        let (want, end, last) = (rig.read(), rig.log.high_watermark(), rig.log.last_index());
        gaps += rig.log.segments().iter().flat_map(|s| &s.rows).filter(|r| r.kind == EntryKind::Gap).count();
        rig.disk.disk.power_cut(Cut::KeepAll, &mut Rng::new(1));
        let disk = rig.disk.disk.fork();
        // Base offset, generation, "ent".
        let compacted =
            |name: &String| name.ends_with(".ent") && name.rsplit('/').next().unwrap().split('.').count() == 3;
        for name in disk.files().into_iter().map(|(name, _)| name).filter(compacted) {
            for how in 0..3 {
                let disk = disk.fork();
                match how {
                    0 => disk.unlink(&name).unwrap(),
                    1 => disk.damage(&name, |bytes| bytes.fill(0)),
                    _ => disk.truncate(&name, 80).unwrap(),
                }
                disk.kill();
                let mut rig = Rig::on(disk, 700, false);
                let about = format!("seed {seed}, {name}, {how}");
                assert_eq!((rig.log.high_watermark(), rig.log.last_index()), (end, last), "{about}");
                assert_eq!(rig.read(), want, "{about}");
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
    assert!(tried > 15 && gaps > 25, "{tried} tables of segments with {gaps} gaps");
}
