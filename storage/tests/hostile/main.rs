//! Every stored file is foreign bytes: a directory in which any file says anything, with its checksums made right again,
//! never makes recovery, check, dump or the opening of a log panic, run away, or take more memory than 16 times the
//! directory and 64 KiB.
//!
//! `CW_HOSTILE=N` runs N mutations (default 300), `CW_SEED` begins elsewhere.
#![allow(clippy::unwrap_used)]

mod sys;

use bytes::Bytes;
use catchwater_base::{Effects, Local, Mono, Now, Rng, Wall};
use catchwater_record::batch::{build::Builder, patch};
use catchwater_record::crc::{crc32c, crc32c_of};
use catchwater_record::{EntryIndex, Gid, LeaderEpoch, Offset, PartitionId, TopicId};
use catchwater_storage::check::check;
use catchwater_storage::dir::{Dir, DirConfig, DirEffect, DirEvent};
use catchwater_storage::disk::memory::MemoryDisk;
use catchwater_storage::disk::{Disk, DiskExt};
use catchwater_storage::dump::dump;
use catchwater_storage::format::context::{LogStart, TrimReason};
use catchwater_storage::format::slot::BootState;
use catchwater_storage::journal::JournalBatch;
use catchwater_storage::recover::{Layout, NewIdentity, recover_whole, write_boot_state};
use catchwater_storage::repair::plan;
use catchwater_storage::{EntryKind, GroupSpec, Hard, Log, NewEntry, Verdict, derive_flags};
use std::panic::{AssertUnwindSafe, catch_unwind};

const NEW: NewIdentity = NewIdentity { cluster_id: [1; 16], dir_id: [2; 16], node: 1 };
/// What one mutation may take at most beyond the start, per byte of the directory, and in all.
const PER_BYTE: usize = 16;
const FLAT_BYTES: usize = 64 << 10;
const NASTY: [u64; 9] =
    [0, 1, 0x7f, 0xffff, 0x7fff_ffff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, u64::MAX, 0x4000_0000_0000_0000];

fn entry(index: u64, offset: u64, begins: bool) -> NewEntry {
    let (kind, body, context) = if begins {
        (EntryKind::Noop, Bytes::new(), Bytes::new())
    } else if index.is_multiple_of(7) {
        let start = LogStart { offset: Offset(0), reason: TrimReason::Retention };
        (EntryKind::LogStart, Bytes::new(), start.encode())
    } else {
        let mut builder = Builder::new().producer((index % 3) as i64, 0, (index / 3) as i32);
        builder.push(5, None, Some(&[index as u8; 300]), []);
        let mut batch = builder.finish();
        patch(&mut batch, Offset(offset), LeaderEpoch(1));
        (EntryKind::Data, batch.freeze(), Bytes::new())
    };
    let count = u32::from(kind == EntryKind::Data);
    let flags = derive_flags(kind, &body, &context);
    let max_ts = if count == 1 { 5 } else { -1 };
    let (index, term, base_offset) = (EntryIndex(index), LeaderEpoch(1), Offset(offset));
    NewEntry { index, term, kind, flags, base_offset, count, max_ts, body, context }
}

/// Sealed and open segments, snapshots, manifests, and entries that only the journal has.
fn directory() -> (MemoryDisk, Layout) {
    filled(&DirConfig::tiny(), 60, entry)
}

/// Two groups of so many entries each. The last ten are in the journal alone, the newest snapshot is of the middle.
fn filled(config: &DirConfig, entries: u64, entry: fn(u64, u64, bool) -> NewEntry) -> (MemoryDisk, Layout) {
    let (disk, layout) = (MemoryDisk::new(), Layout::new("/data/log"));
    let found = recover_whole(&disk, &layout, NEW).unwrap();
    let state = BootState { last_lsn: 3, checkpoint_lsn: 1, ..BootState::default() };
    write_boot_state(&disk, &layout, found.boot, state).unwrap();
    let now = Now { mono: Mono::from_millis(1), wall: Wall::from_millis(1) };
    let mut dir = Dir::open(&layout, config, found, now);
    let mut out = Effects::new();
    let placed = entries - 10;
    let mut run = |dir: &mut Dir, event, segments: bool, snap: (EntryIndex, Offset)| {
        dir.handle(now, event, &mut out);
        let mut held = Vec::new();
        loop {
            let effects: Vec<DirEffect> = out.drain().collect();
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                match effect {
                    DirEffect::Disk { token, op, point } => {
                        let journal = matches!(point, catchwater_storage::dir::DirPoint::Journal(_));
                        if journal || segments {
                            let result = disk.run(op);
                            dir.handle(now, DirEvent::Done(token, result), &mut out);
                        } else {
                            held.push(token);
                        }
                    }
                    DirEffect::WantSnap(gid) => {
                        let payload = Log::open(catchwater_storage::RecoveredGroup::fresh(gid, spec(gid)))
                            .unwrap()
                            .snapshot_payload()
                            .2;
                        dir.handle(now, DirEvent::Snap(gid, snap.0, snap.1, payload), &mut out);
                    }
                    DirEffect::Stop(e) => panic!("{e}"),
                    _ => {}
                }
            }
        }
    };
    let none = (EntryIndex(20), Offset(16));
    run(&mut dir, DirEvent::Wake, true, none);
    let mut groups = [Gid(1), Gid(2)].map(|gid| (gid, 0, none));
    for (gid, ..) in &groups {
        run(&mut dir, DirEvent::Create(*gid, spec(*gid)), true, none);
    }
    for indexes in [1..placed, placed..entries + 1] {
        for (gid, offset, snap) in &mut groups {
            for index in indexes.clone() {
                let e = entry(index, *offset, index == 1);
                *offset = e.end_offset().0;
                let hard = (index == 1).then_some(Hard { term: 1, vote: 1 << 32, commit: EntryIndex(0) });
                let batch =
                    JournalBatch { gid: *gid, tag: Some(index), hard, entries: vec![e], ..JournalBatch::default() };
                run(&mut dir, DirEvent::Batch(batch), index < placed, *snap);
                if index < placed {
                    run(&mut dir, DirEvent::Committed(*gid, EntryIndex(index)), true, *snap);
                }
                if index > 50 {
                    *snap = (EntryIndex(index), Offset(*offset));
                }
            }
        }
    }
    disk.kill();
    (disk, layout)
}

fn spec(gid: Gid) -> GroupSpec {
    let conf = Bytes::from_static(b"conf");
    GroupSpec {
        topic: TopicId([gid.0 as u8; 16]),
        partition: PartitionId(0),
        incarnation: 1,
        conf,
        conf_index: EntryIndex::ZERO,
    }
}

fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..rng.between(1, 4) {
        let at = rng.below(bytes.len().max(1) as u64) as usize;
        match rng.below(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << rng.below(8),
            1 => bytes.truncate(at),
            2 if !bytes.is_empty() => {
                let len = rng.between(1, 64) as usize;
                let piece: Vec<u8> = bytes[at..].iter().copied().take(len).collect();
                bytes.splice(at..at, piece);
            }
            _ => {
                // A number where one stands: in the first fields of something, on a multiple of its width.
                let width = [2, 4, 8][rng.below(3) as usize];
                let near = if rng.chance(600_000) { rng.below(200) as usize } else { at };
                let number = NASTY[rng.below(NASTY.len() as u64) as usize].to_le_bytes();
                let from = near / width * width;
                for (to, byte) in bytes.iter_mut().skip(from).zip(&number[..width]) {
                    *to = *byte;
                }
            }
        }
    }
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(to) = bytes.get_mut(at..at + 4) {
        to.copy_from_slice(&value.to_le_bytes());
    }
}

/// Makes the checksums right again, so that the content is what is judged.
fn repair(name: &str, bytes: &mut [u8]) {
    let len = bytes.len();
    if name.ends_with(".a") || name.ends_with(".b") {
        if len >= 32 {
            let payload = u32::from_le_bytes(bytes[20..24].try_into().unwrap()) as usize;
            let end = 32usize.saturating_add(payload).min(len);
            let crc = crc32c(&bytes[8..end]);
            put(bytes, 4, crc);
        }
    } else if name.ends_with(".snap") && len >= 40 {
        put(bytes, 32, (len - 40) as u32);
        let crc = crc32c_of(&[&bytes[..36], &bytes[40..]]);
        put(bytes, 36, crc);
    } else if name.ends_with(".ent") && len >= 64 {
        let crc = crc32c(&bytes[..60]);
        put(bytes, 60, crc);
        let head: Vec<u8> = bytes[8..24].to_vec();
        let mut at = 64;
        while at + 48 <= len {
            if bytes[at..].starts_with(b"CWEF") && at + 96 <= len {
                let crc = crc32c(&bytes[at..at + 92]);
                put(bytes, at + 92, crc);
                break;
            }
            let crc = crc32c_of(&[&head, &bytes[at + 4..at + 48]]);
            put(bytes, at, crc);
            at += 48;
        }
    } else if name.ends_with(".wal") && len >= 64 {
        let crc = crc32c(&bytes[..60]);
        put(bytes, 60, crc);
        for at in (4096..len.saturating_sub(128)).step_by(4096) {
            if bytes[at..].starts_with(b"CWJ1") {
                let context = usize::from(u16::from_le_bytes([bytes[at + 70], bytes[at + 71]]));
                let frame = at + 64..(at + 128 + context).min(len);
                let crc = crc32c(&bytes[frame.start + 4..frame.end]);
                put(bytes, at + 64, crc);
                let crc = crc32c(&bytes[at + 8..at + 64]);
                put(bytes, at + 4, crc);
            }
        }
    }
}

/// Everything that reads a directory, on this one.
fn read_all(disk: &MemoryDisk, layout: &Layout, name: &str) {
    if let Ok(found) = recover_whole(disk, layout, NEW) {
        for (group, _) in found.groups {
            if group.verdict == Verdict::Ok {
                let _ = Log::open(group);
            }
        }
    }
    disk.kill();
    let _ = check(disk, layout);
    disk.kill();
    let _ = dump(disk, name, 1_000, &mut drop);
}

/// A log of many small batches: what a look holds is the table of one segment, not those of the directory.
#[test]
fn what_a_check_and_a_plan_take_does_not_grow_with_the_log() {
    fn small(index: u64, offset: u64, begins: bool) -> NewEntry {
        let mut of = entry(if begins { 1 } else { 2 }, offset, begins);
        if !begins {
            let mut builder = Builder::new();
            builder.push(5, None, Some(b"x"), []);
            let mut batch = builder.finish();
            patch(&mut batch, Offset(offset), LeaderEpoch(1));
            (of.body, of.flags) = (batch.freeze(), 0);
        }
        of.index = EntryIndex(index);
        of
    }
    const ROWS: u64 = 2_000;
    let config = DirConfig { segment_bytes: 1 << 20, rows_max: ROWS as u32, snap_bytes: 16 << 10, ..DirConfig::tiny() };
    let peaks = |segments: u64, damaged: bool| {
        let (disk, layout) = filled(&config, segments * ROWS - 1_000, small);
        let logs: Vec<String> =
            disk.files().into_iter().map(|(name, _)| name).filter(|name| name.ends_with(".log")).collect();
        assert_eq!(logs.len() as u64, 2 * segments, "{logs:?}");
        for log in logs.iter().filter(|_| damaged) {
            disk.damage(log, |bytes| bytes[66] ^= 1);
        }
        disk.kill();
        let (checked, check_peak) = sys::peak_of(|| check(&disk, &layout).unwrap());
        assert_eq!(checked.findings.len(), if damaged { logs.len() } else { 0 }, "{:?}", checked.findings);
        assert!(checked.batches > 2 * segments * ROWS - 2_100, "{}", checked.batches);
        disk.kill();
        let (plan, plan_peak) = sys::peak_of(|| plan(&disk, &layout).unwrap());
        assert_eq!(plan.closed.len(), if damaged { 2 } else { 0 });
        (check_peak, plan_peak)
    };
    for damaged in [false, true] {
        let (few, many) = (peaks(3, damaged), peaks(9, damaged));
        // Twelve tables more are 1.1 MB.
        println!("damaged {damaged}: check and plan of 6 segments {few:?}, of 18 {many:?}");
        assert!(many.0 < few.0 + 100_000 && many.1 < few.1 + 100_000, "damaged {damaged}: {few:?} {many:?}");
    }
}

#[test]
fn no_stored_file_can_make_a_reader_panic_or_take_memory_it_should_not() {
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let (runs, from) = (number("CW_HOSTILE", 300), number("CW_SEED", 0));
    let (disk, layout) = directory();
    let files: Vec<(String, Vec<u8>)> = disk.files().into_iter().filter(|(_, b)| !b.is_empty()).collect();
    let kinds = [".wal", ".log", ".ent", ".ext", ".snap", "manifest", "boot.state", "dir.meta"];
    assert!(kinds.iter().all(|k| files.iter().any(|(name, _)| name.contains(k))), "every kind of file is there");
    let total: usize = files.iter().map(|(_, b)| b.len()).sum();
    let ((), sound) = sys::peak_of(|| read_all(&disk, &layout, "/data/log/dir.meta.a"));
    let mut most = 0;
    for seed in from..from + runs {
        let mut rng = Rng::new(seed);
        let kind = kinds[(seed % kinds.len() as u64) as usize];
        let of_kind: Vec<_> = files.iter().filter(|(name, _)| name.contains(kind)).collect();
        let (name, bytes) = of_kind[rng.below(of_kind.len() as u64) as usize];
        let mut bad = bytes.clone();
        mutate(&mut bad, &mut rng);
        if rng.chance(850_000) {
            repair(name, &mut bad);
        }
        let fork = disk.fork();
        fork.damage(name, |bytes| *bytes = bad);
        let what = format!("seed {seed}: {name}");
        let (outcome, peak) = sys::peak_of(|| catch_unwind(AssertUnwindSafe(|| read_all(&fork, &layout, name))));
        assert!(outcome.is_ok(), "{what}: a panic");
        let budget = PER_BYTE * total + FLAT_BYTES;
        assert!(peak <= budget, "{what}: {peak} bytes of memory for a directory of {total}, at most {budget}");
        most = most.max(peak);
    }
    println!("{runs} directories of {total} bytes; peak {most}, of a sound one {sound}");
    assert!(disk.list("/data/log").is_ok());
}
