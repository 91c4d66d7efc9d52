//! Planted damage (F4, F5): whatever bit is flipped, no wrong byte comes back, it is seen or harmless, and of a journal
//! flip at most one group suffers; what can be made again is made again.
//!
//! `CW_FLIPS=N` tries every N-th byte of every file (1 = all: the full form), the default a share of a few hundred.

use super::*;
use crate::check::{Weight, check};
use crate::format::journal::FileHeader;

/// Files by kind, with their share of the flips.
const KINDS: [&str; 8] = [".wal", ".log", ".ent", ".ext", ".snap", "manifest.", "boot.state", "dir.meta"];

fn image(world: &World) -> Vec<(String, Vec<u8>)> {
    world.disk.memory().files().into_iter().filter(|(_, bytes)| !bytes.is_empty()).collect()
}

/// Recovers the damaged disk and compares every group with what was asked of it. Gives the groups that are not whole.
fn judge(world: &World, disk: &MemoryDisk, what: &str) -> Vec<Gid> {
    disk.kill();
    let found = recover_whole(disk, &world.layout, NEW).unwrap_or_else(|e| panic!("{what}: {e}"));
    disk.kill();
    let mut touched = Vec::new();
    // Tables made again are written before anything reads them.
    let rewritten = disk.fork();
    let disk = if found.leftovers.rebuilt.is_empty() {
        disk
    } else {
        settle(&rewritten, &world.layout, &found.leftovers, &[]).unwrap();
        &rewritten
    };
    for (gid, model) in &world.groups {
        let want = model.now();
        let (group, _) = found.groups.iter().find(|(g, _)| g.gid == *gid).unwrap_or_else(|| panic!("{what}: {gid}"));
        let mut damaged = group.verdict != Verdict::Ok;
        // A group that is put aside serves nothing: what it keeps may be what a lost frame had made void.
        let closed = matches!(group.verdict, Verdict::Suspect | Verdict::Damaged);
        // Whoever opens the group believes these headers: what producers may write next hangs on them.
        for (row, header, _) in group.since_snap.iter().filter(|_| group.verdict == Verdict::Ok) {
            let known = want.iter().find(|e| e.index == row.index);
            assert!(known.is_some_and(|e| e.body.starts_with(header)), "{what}: a wrong header of {:?}", row.index);
        }
        for segment in &group.segments {
            for row in segment.rows.whole().iter().filter(|r| r.kind == EntryKind::Data) {
                let name = (segment.base_index, segment.base_offset, segment.generation);
                let range = FileRead::of_row(*gid, name, row);
                match read_batches(disk, &world.layout, &range) {
                    Ok(body) => {
                        let is = |e: &NewEntry| e.index == row.index && e.body == body;
                        let right = want.iter().any(is) || (closed && model.submitted.iter().any(is));
                        assert!(right, "{what}: wrong bytes were served");
                    }
                    Err(_) => damaged = true,
                }
            }
        }
        for entry in &group.journaled {
            let known = want.contains(entry) || (closed && model.submitted.contains(entry));
            assert!(known, "{what}: a wrong entry came back");
        }
        // A context is checked when it is read, as a batch is.
        let got = try_contents(disk, &world.layout, group);
        damaged |= got.is_err();
        if !damaged {
            let first = group.first_index;
            let want: Vec<_> = want.into_iter().filter(|e| e.index >= first).collect();
            let got = got.unwrap_or_default();
            let short = |log: &[NewEntry]| log.iter().map(|e| (e.index.0, e.term.0)).collect::<Vec<_>>();
            assert!(
                got == want,
                "{what}: group {gid} lost something and says nothing\nwant {:?}\ngot {:?}\n{:?}",
                short(&want),
                short(&got),
                found.report
            );
            check_since(world.seed, group, &got);
            assert!(group.hard.term >= model.hards.last().map_or(0, |h| h.term), "{what}: hard state went back");
        }
        if damaged {
            touched.push(*gid);
        }
    }
    touched
}

#[test]
fn a_flipped_bit_anywhere_is_seen_or_harmless_and_never_served() {
    let every: usize = std::env::var("CW_FLIPS").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    let world = busy(7);
    let disk = world.disk.memory().fork();
    disk.kill();
    assert!(judge(&world, &disk, "no damage").is_empty());
    let sound = check(&disk, &world.layout).unwrap();
    assert!(sound.findings.iter().all(|f| f.weight == Weight::Note), "{:?}", sound.findings);
    let mut rng = Rng::new(99);
    let files = image(&world);
    let (mut seen, mut checked, mut flips) = (BTreeMap::new(), 0u64, 0u64);
    for kind in KINDS {
        let of_kind: Vec<_> = files.iter().filter(|(name, _)| name.contains(kind)).collect();
        let total: usize = of_kind.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(total > 0, "the load leaves no {kind}");
        let step = if every > 0 { every } else { (total / 40).max(1) };
        let mut next = rng.below(step as u64) as usize;
        let mut base = 0;
        for (name, bytes) in of_kind {
            while next < base + bytes.len() {
                let at = next - base;
                next += step;
                let bit = rng.below(8) as u8;
                disk.damage(name, |bytes| bytes[at] ^= 1 << bit);
                let what = format!("bit {bit} of byte {at} of {name}");
                let touched = judge(&world, &disk, &what);
                assert!(touched.len() <= 1, "{what}: groups {touched:?} touched by one bit");
                *seen.entry(kind).or_insert(0) += touched.len();
                flips += 1;
                // What a start does not look at, the check does: sealed bytes, both copies of a slot, snapshots.
                if flips.is_multiple_of(3) && kind != ".wal" {
                    let found = check(&disk, &world.layout).unwrap();
                    let worst = found.worst().unwrap_or(Weight::Note);
                    let live = is_live(&found, name, at, bytes);
                    assert!(worst >= Weight::Warning || !live, "{what}: the check saw nothing");
                    assert!(touched.is_empty() || worst == Weight::Damage, "{what}: {:?}", found.findings);
                    checked += 1;
                }
                disk.damage(name, |bytes| bytes[at] ^= 1 << bit);
            }
            base += bytes.len();
        }
    }
    println!("{flips} flips, {checked} checked, groups touched by kind: {seen:?}");
    // The test would prove nothing if damage never showed.
    assert!(seen[".log"] > 0 && seen[".ext"] > 0 && flips >= 200, "{seen:?}");
}

/// Bytes that mean something: rows and batches that the journal does not bring anew, slots up to their length.
fn is_live(found: &crate::check::Checked, name: &str, at: usize, bytes: &[u8]) -> bool {
    if name.ends_with(".a") || name.ends_with(".b") {
        let len = u32::from_le_bytes(bytes[20..24].try_into().unwrap()) as usize;
        return at < 32 + len;
    }
    if name.ends_with(".snap") {
        return true;
    }
    let sealed = |s: &&crate::segment::Segment| s.state == crate::format::manifest::SegmentState::Sealed;
    found.found.groups.iter().any(|(_, files)| {
        files.segments.iter().filter(sealed).any(|s| {
            let stem = crate::segment::segment_stem(s.base_offset, s.generation);
            name.contains(&format!("{:016x}/{stem}.", files.gid.0))
        })
    })
}

#[test]
fn what_can_be_made_again_is_made_again() {
    let mut by_kind: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for (seed, drained) in [(7, false), (9, true)] {
        let mut world = busy(seed);
        if drained {
            // Everything in files, nothing only in the journal: what files say is all there is.
            world.settle();
            world.tell(DirEvent::CloseJournal);
            world.settle();
            world.tell(DirEvent::CloseSegments);
            world.settle();
        }
        let before = world.disk.memory().fork();
        for (name, bytes) in image(&world) {
            let Some(kind) =
                [".ent", ".snap", "manifest.", "boot.state", "dir.meta"].into_iter().find(|k| name.contains(k))
            else {
                continue;
            };
            for way in ["deleted", "zeroed", "cut"] {
                let disk = before.fork();
                match way {
                    "deleted" => disk.unlink(&name).unwrap(),
                    "zeroed" => disk.damage(&name, |bytes| bytes.fill(0)),
                    _ => disk.damage(&name, |bytes| bytes.truncate(bytes.len() / 2)),
                }
                let touched = judge(&world, &disk, &format!("seed {seed}: {name} ({} bytes) {way}", bytes.len()));
                let count = by_kind.entry(kind).or_default();
                count.0 += 1;
                count.1 += touched.len() as u32;
                assert!(touched.is_empty(), "seed {seed}: {name} {way}: {touched:?} not made again");
            }
        }
    }
    println!("files lost, and groups that suffered: {by_kind:?}");
    assert!(by_kind[".ent"].0 > 60 && by_kind["manifest."].0 > 15, "{by_kind:?}");
}

/// A journal file has its length before it has its name: whatever is cut off, at a block's boundary or to nothing, is said by
/// every group that may have lost something.
#[test]
fn a_journal_file_cut_at_a_block_is_said() {
    let world = busy(7);
    let whole = world.disk.memory().fork();
    let (mut cuts, mut said) = (0, 0);
    for (name, bytes) in image(&world).into_iter().filter(|(name, _)| name.ends_with(".wal")) {
        for len in (0..bytes.len()).step_by(4096) {
            let disk = whole.fork();
            disk.damage(&name, |bytes| bytes.truncate(len));
            let what = format!("{name} cut to {len} of {}", bytes.len());
            // The judge panics if a group says that it is whole and is not.
            let touched = judge(&world, &disk, &what);
            assert!(len > 3 * 4096 || !touched.is_empty(), "{what}: nobody says so");
            said += usize::from(!touched.is_empty());
            cuts += 1;
        }
    }
    assert!(cuts > 30 && said > 10, "{said} of {cuts}");
}

/// Builds before did not note the length of a journal file: such directories open as they did.
#[test]
fn a_directory_that_does_not_say_lengths_opens() {
    let world = busy(9);
    let disk = world.disk.memory().fork();
    let mut without = 0;
    for (name, bytes) in image(&world).into_iter().filter(|(name, _)| name.ends_with(".wal")) {
        let Some(header) = FileHeader::decode(&bytes) else { continue };
        assert_eq!(u64::from(header.blocks) * 4096, bytes.len() as u64);
        disk.damage(&name, |bytes| bytes[..4096].copy_from_slice(&FileHeader { blocks: 0, ..header }.encode()));
        without += 1;
    }
    assert!(without > 1);
    assert!(judge(&world, &disk, "no lengths").is_empty());
}

/// Once the journal has let go of a group's CREATE frame, only the manifest says whose log it is: there are two copies then.
#[test]
fn one_copy_of_the_first_manifest_is_enough() {
    let mut world = World::new(300);
    world.append_to(Gid(1));
    // The others write the journal full, so that it goes round.
    for n in 0..400 {
        world.append_to(Gid(2 + n % 2));
        world.settle();
    }
    let whole = world.disk.memory().fork();
    let mut places = 0;
    for (name, bytes) in image(&world).into_iter().filter(|(name, _)| name.contains("0000000000000001/manifest.")) {
        for at in [0, 9, 40, 60] {
            let disk = whole.fork();
            disk.damage(&name, |bytes| bytes[at] ^= 4);
            let touched = judge(&world, &disk, &format!("byte {at} of {} of {name}", bytes.len()));
            assert!(touched.is_empty(), "byte {at} of {name}: {touched:?}");
            places += 1;
        }
    }
    assert!(places >= 4, "{places} places");
}

#[test]
fn a_damaged_batch_of_a_producer_behind_the_snapshot_puts_its_group_aside() {
    let mut tried = 0;
    for seed in 7..60 {
        tried += damage_batches_of_producers(seed);
        if tried > 4 {
            return;
        }
    }
    panic!("{tried}");
}

fn damage_batches_of_producers(seed: u64) -> u32 {
    let world = busy(seed);
    let disk = world.disk.memory().fork();
    disk.kill();
    let found = recover_whole(&disk, &world.layout, NEW).unwrap();
    let mut tried = 0;
    for (group, _) in &found.groups {
        let told: BTreeSet<EntryIndex> =
            group.since_snap.iter().filter(|(_, header, _)| !header.is_empty()).map(|(row, ..)| row.index).collect();
        for segment in &group.segments {
            let stem = crate::segment::segment_stem(segment.base_offset, segment.generation);
            let log = format!("/data/log/p/{:016x}/{stem}.log", group.gid.0);
            for row in segment.rows.whole().iter().filter(|r| told.contains(&r.index)) {
                // The header, and the last byte of the records: its checksum covers both.
                for at in [row.pos + 43, row.pos + row.len - 1] {
                    let damaged = disk.fork();
                    damaged.damage(&log, |bytes| bytes[at as usize] ^= 1);
                    damaged.kill();
                    let again = recover_whole(&damaged, &world.layout, NEW).unwrap();
                    let of = |g: &&(RecoveredGroup, FoundGroup)| g.0.gid == group.gid;
                    let (again, kept) = again.groups.iter().find(of).unwrap();
                    assert_eq!(again.verdict, Verdict::Damaged, "byte {at} of {log}");
                    assert!(kept.quarantine.is_some());
                    tried += 1;
                }
            }
        }
    }
    tried
}

/// The newest journal file is followed by none that would tell of it: `boot.state` does. Removed, or zeros where it begins
/// (as a file looks that was never used), it is missed by every group that may have lost something, as any other is.
#[test]
fn a_journal_file_that_is_gone_or_begins_with_zeros_is_said() {
    let (mut gone, mut newest_said) = (0, 0);
    for seed in [7, 8, 9] {
        let world = busy(seed);
        let whole = world.disk.memory().fork();
        let newest = recovered_newest(&whole, &world);
        for (name, bytes) in image(&world).into_iter().filter(|(name, _)| name.ends_with(".wal")) {
            if FileHeader::decode(&bytes).is_none() {
                continue; // never used
            }
            for way in ["removed", "two blocks of zeros", "zeros"] {
                let disk = whole.fork();
                match way {
                    "removed" => disk.unlink(&name).unwrap(),
                    "zeros" => disk.damage(&name, |bytes| bytes.fill(0)),
                    _ => disk.damage(&name, |bytes| bytes[..2 * 4096].fill(0)),
                }
                // The judge panics if a group says that it is whole and is not.
                let touched = judge(&world, &disk, &format!("seed {seed}: {name} {way}"));
                gone += 1;
                newest_said += usize::from(name == newest && !touched.is_empty());
            }
        }
    }
    assert!(gone > 20 && newest_said == 9, "the newest was missed {newest_said} times, {gone} files were gone");
}

fn recovered_newest(whole: &MemoryDisk, world: &World) -> String {
    let disk = whole.fork();
    disk.kill();
    let found = recover_whole(&disk, &world.layout, NEW).unwrap();
    found.journal.live.last().unwrap().path.to_string()
}
