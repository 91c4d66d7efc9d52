//! `.txn`: whatever is lost or damaged of it, of tables or of snapshots, a read_committed reader is told the same.

use super::*;
use crate::check::{Weight, check};
use crate::format::snap::{SECTION_ABORTED, Snap, sections};
use crate::format::txn::Aborted;

/// Transactions of three producers, interleaved, every other one aborted, over many small segments. Ends when the disk does.
fn load(rig: &mut Rig) {
    let mut sequence = [0; 3];
    for n in 0..40i64 {
        for id in 0..3 {
            if rig.dead {
                return;
            }
            match (n + id) % 4 {
                0 | 1 => {
                    rig.transactional(70 + id, sequence[id as usize], Ok((n % 5) as u8));
                    sequence[id as usize] += 1;
                }
                2 => rig.transactional(70 + id, 0, Err((n + id) % 8 == 2)),
                _ => rig.append(None, Codec::None, &[(9, true)]),
            }
        }
    }
}

fn aborted(log: &Log) -> Vec<Aborted> {
    log.aborted(Offset::ZERO, Offset(u64::MAX)).copied().collect()
}

fn files(rig: &Rig, ending: &str) -> Vec<(String, Vec<u8>)> {
    rig.disk.disk.files().into_iter().filter(|(name, _)| name.ends_with(ending)).collect()
}

fn filled() -> Rig {
    let mut rig = Rig::new(900);
    load(&mut rig);
    rig
}

#[test]
fn snapshots_leave_to_the_files_what_is_sealed() {
    let rig = filled();
    let all = aborted(&rig.log);
    let filed: Vec<Aborted> =
        files(&rig, ".txn").iter().flat_map(|(_, bytes)| Aborted::decode_all(bytes).unwrap()).collect();
    assert!(all.len() > 10 && filed.len() > 6, "{} aborted, {} in files", all.len(), filed.len());
    assert!(all.starts_with(&filed), "in the order of their markers");
    let (_, newest) = files(&rig, ".snap").pop().unwrap();
    let snap = Snap::decode(&newest.into()).unwrap();
    let told = sections(&snap.payload).unwrap().into_iter().find(|(kind, _)| *kind == SECTION_ABORTED);
    let told = told.map_or(0, |(_, rows)| Aborted::decode_all(&rows).unwrap().len());
    assert!(told < all.len() / 2, "{told} of {} in the snapshot", all.len());
    // They go with their segments.
    let mut rig = rig;
    let end = rig.log.high_watermark();
    let last = files(&rig, ".txn").pop().unwrap().0;
    rig.tell(DirEvent::Trim(GID, end, None));
    assert!(files(&rig, ".txn").iter().all(|(name, _)| *name > last), "those of removed segments are gone");
}

#[test]
fn whatever_is_lost_the_reader_is_told_the_same() {
    let mut rig = filled();
    rig.disk.disk.power_cut(Cut::KeepAll, &mut Rng::new(1));
    let (disk, all) = (rig.disk.disk.fork(), aborted(&rig.log));
    drop(rig);
    let names: Vec<String> = disk.files().into_iter().map(|(name, _)| name).collect();
    let sealed = |ending: &str| names.iter().filter(|n| n.ends_with(ending)).cloned().collect::<Vec<_>>();
    let txn = sealed(".txn");
    let table = |n: &String| n.replace(".txn", ".ent");
    let cases: Vec<(&str, Vec<String>, bool)> = vec![
        ("nothing", vec![], false),
        ("one of them is removed", vec![txn[1].clone()], false),
        ("all of them are removed", txn.clone(), false),
        ("one is damaged", vec![txn[2].clone()], true),
        ("a table is removed", vec![table(&txn[1])], false),
        ("a table and its file are removed", vec![table(&txn[1]), txn[1].clone()], false),
        ("the newest snapshot is damaged", vec![sealed(".snap").pop().unwrap()], true),
        ("all snapshots are removed", sealed(".snap"), false),
    ];
    for (what, gone, flip) in cases {
        let disk = disk.fork();
        for name in &gone {
            if flip {
                disk.damage(name, |bytes| bytes[17] ^= 4);
            } else {
                disk.unlink(name).unwrap();
            }
        }
        disk.kill();
        let checked = check(&disk, &Layout::new("/data/log")).unwrap();
        let weight = if gone.is_empty() { None } else { Some(Weight::Warning) };
        let txn_alone = gone.iter().all(|n| n.ends_with(".txn"));
        assert!(
            !txn_alone || checked.worst().filter(|w| *w > Weight::Note) == weight,
            "{what}: {:?}",
            checked.findings
        );
        disk.kill();
        rig = Rig::on(disk, 900, false);
        assert_eq!(aborted(&rig.log), all, "{what}");
        if gone.iter().all(|n| n.ends_with(".txn")) {
            for (name, bytes) in files(&rig, ".txn") {
                assert!(Aborted::decode_all(&bytes).is_some(), "{what}: {name} is whole again");
            }
            assert!(files(&rig, ".txn").len() >= txn.len(), "{what}: all are there again");
        }
        load(&mut rig);
        let disk = rig.disk.disk.fork();
        let more = aborted(&rig.log);
        assert!(more.len() > all.len() && more.starts_with(&all), "{what}");
        disk.power_cut(Cut::LoseAll, &mut Rng::new(2));
        assert_eq!(aborted(&Rig::on(disk, 900, false).log), more, "{what}: after a power cut");
    }
}

/// F4 for `.txn`; `CW_DAMAGE=N` tries every N-th byte (1 = all).
#[test]
fn a_bit_flipped_at_any_byte_of_a_txn_file_changes_nothing() {
    let rig = filled();
    rig.disk.disk.power_cut(Cut::KeepAll, &mut Rng::new(1));
    let (whole, all) = (rig.disk.disk.fork(), aborted(&rig.log));
    let txn = files(&rig, ".txn");
    drop(rig);
    let total: usize = txn.iter().map(|(_, bytes)| bytes.len()).sum();
    let step = std::env::var("CW_DAMAGE").ok().and_then(|s| s.parse().ok()).unwrap_or(total / 23);
    let mut rng = Rng::new(5);
    let places = txn.iter().flat_map(|(name, bytes)| (0..bytes.len()).map(move |at| (name, at)));
    let mut tried = 0;
    for (name, at) in places.step_by(step) {
        let (disk, bit) = (whole.fork(), rng.below(8));
        disk.damage(name, |bytes| bytes[at] ^= 1 << bit);
        disk.kill();
        let rig = Rig::on(disk, 900, false);
        assert_eq!(aborted(&rig.log), all, "bit {bit} of byte {at} of {name}");
        tried += 1;
    }
    println!("F4 .txn: {} files, {total} bytes, {tried} places: the same is aborted", txn.len());
    assert!(tried > 20, "{tried} places");
}

#[test]
fn a_power_cut_at_any_operation_loses_no_row() {
    let whole = aborted(&filled().log);
    let (mut at, mut cuts) = (0, 0);
    loop {
        let mut rig = Rig::new(900);
        rig.disk.left.store(at, Ordering::Relaxed);
        load(&mut rig);
        if !rig.dead {
            break;
        }
        let disk = rig.disk.disk.fork();
        drop(rig);
        disk.power_cut([Cut::LoseAll, Cut::Random][cuts % 2], &mut Rng::new(at.unsigned_abs()));
        let rig = Rig::on(disk, 900, false);
        let end = rig.log.high_watermark();
        let want: Vec<Aborted> = whole.iter().filter(|a| a.last < end).copied().collect();
        assert_eq!(aborted(&rig.log), want, "operation {at}");
        (at, cuts) = (at + 13, cuts + 1);
    }
    assert!(cuts > 30, "{cuts} power cuts");
}
