//! F4 and F5 whole: a small directory, as it is left by a kill and by a clean stop, cut at every length and flipped at every
//! byte of every file. Judged each time: no wrong byte is served; what was acknowledged is there or is said to be lost; the
//! log start stays where it was, and nothing has become old; hard state does not go back; of a bit in the journal at most
//! one group suffers. Then the directory lives on, and is judged again.
//!
//! `CW_DAMAGE=N` tries every N-th place (1 = all: the full form, minutes); the default a few hundred places.

use super::*;
use crate::retain::{Retention, choose};

/// Retention by time in this world: no record is so old, and whatever lost its time would be.
const NOW_MS: i64 = 1_100_000;
const KEEP_MS: u64 = 1_095_000;

/// Small: every byte is tried.
fn small() -> DirConfig {
    DirConfig {
        journal_file_bytes: 24 << 10,
        journal_files: 2,
        journal_files_max: 6,
        buffer_bytes: 8 << 10,
        segment_bytes: 3 << 10,
        rows_max: 12,
        snap_bytes: 6 << 10,
        ..DirConfig::tiny()
    }
}

/// One way to leave a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Killed,
    /// Everything in files and synced, the journal drained; then killed.
    Drained,
    Stopped,
}

fn left(end: End, loose: bool, steps: usize) -> World {
    let mut world = World::with(21, small());
    if loose {
        world.loose = vec![Gid(2)];
        world.tell(DirEvent::Durability(Gid(2), Durability::Relaxed(LOOSE)));
    }
    let mut world = busy_with(world, steps);
    for _ in 0..if loose { 30 } else { 0 } {
        world.settle();
        world.clock += 30;
        world.tell(DirEvent::Wake);
    }
    let open = |world: &World| world.groups.values().any(|m| m.acked < m.submitted.len());
    assert!(!open(&world), "everything is acknowledged");
    match end {
        End::Killed => {}
        End::Drained => {
            world.settle();
            world.tell(DirEvent::CloseJournal);
            world.settle();
            world.tell(DirEvent::CloseSegments);
            world.settle();
        }
        End::Stopped => {
            world.settle();
            world.stop();
        }
    }
    world.disk.kill();
    world
}

/// What came of one damage.
#[derive(Debug)]
enum Outcome {
    /// Said at the start, and refused.
    Refused,
    /// These groups say that they are not whole; the others are.
    Started(Vec<Gid>),
}

/// What a sound directory would give.
struct Sound {
    starts: BTreeMap<Gid, Offset>,
}

/// Recovers and compares every group with what was asked of it. `Err`: something is wrong and nobody says so.
fn judge(world: &World, sound: &Sound, disk: &MemoryDisk) -> Result<Outcome, String> {
    disk.kill();
    let found = match recover_whole(disk, &world.layout, NEW) {
        Ok(found) => found,
        Err(_) => return Ok(Outcome::Refused),
    };
    disk.kill();
    quarantine(disk, &world.layout, &found.groups).map_err(|e| format!("quarantine: {e}"))?;
    settle(disk, &world.layout, &found.leftovers, &found.journal.free).map_err(|e| format!("settle: {e}"))?;
    let mut touched = Vec::new();
    for (gid, model) in &world.groups {
        let want = model.now();
        let Some((group, _)) = found.groups.iter().find(|(g, _)| g.gid == *gid) else {
            return Err(format!("group {gid} is gone"));
        };
        let closed = matches!(group.verdict, Verdict::Suspect | Verdict::Damaged);
        let mut damaged = closed;
        for segment in &group.segments {
            for row in segment.rows.whole().iter().filter(|r| r.kind == EntryKind::Data) {
                let name = (segment.base_index, segment.base_offset, segment.generation);
                let range = FileRead::of_row(*gid, name, row);
                // A closed group serves nothing: what it keeps may be what a lost frame had made void.
                let right = |e: &NewEntry, body: &Bytes| e.index == row.index && e.body == *body;
                let void = |body: &Bytes| closed && model.submitted.iter().any(|e| right(e, body));
                match read_batches(disk, &world.layout, &range) {
                    Ok(body) if want.iter().any(|e| right(e, &body)) || void(&body) => {}
                    Ok(_) => return Err(format!("group {gid}: wrong bytes of entry {} were served", row.index)),
                    Err(_) => damaged = true,
                }
            }
        }
        if let Some(entry) =
            group.journaled.iter().find(|e| !(want.contains(e) || (closed && model.submitted.contains(e))))
        {
            return Err(format!("group {gid}: a wrong entry {} came back", entry.index));
        }
        let got = try_contents(disk, &world.layout, group);
        damaged |= got.is_err();
        if !damaged {
            let first = group.first_index;
            let want: Vec<_> = want.into_iter().filter(|e| e.index >= first).collect();
            let got = got.unwrap_or_default();
            if got != want {
                let short = |log: &[NewEntry]| log.last().map(|e| (e.index.0, e.term.0));
                let bare = |e: &NewEntry| NewEntry { body: Bytes::new(), ..e.clone() };
                let unlike = want.iter().zip(&got).find(|(a, b)| a != b).map(|(a, b)| (bare(a), bare(b)));
                return Err(format!(
                    "group {gid} ({:?}) lost something and says nothing: to {:?} of {:?}, unlike {unlike:?}, {:?}",
                    group.verdict,
                    short(&got),
                    short(&want),
                    found.report
                ));
            }
            check_since(world.seed, group, &got);
        }
        if !closed {
            if group.log_start != sound.starts[gid] {
                return Err(format!(
                    "group {gid}: the log start moved from {} to {}",
                    sound.starts[gid], group.log_start
                ));
            }
            let end = got_end(group);
            let gone = choose(&group.segments, end, Retention { ms: Some(KEEP_MS), bytes: None }, NOW_MS);
            if let Some(start) = gone {
                return Err(format!("group {gid}: retention would let everything below {start} go"));
            }
            let term = model.hards.last().map_or(0, |h| h.term);
            if group.verdict == Verdict::Ok && group.hard.term < term {
                return Err(format!("group {gid}: hard state went back from {term} to {}", group.hard.term));
            }
        }
        if damaged || group.verdict != Verdict::Ok {
            touched.push(*gid);
        }
    }
    Ok(Outcome::Started(touched))
}

fn got_end(group: &RecoveredGroup) -> Offset {
    let placed =
        group.segments.iter().rev().find_map(|s| s.rows.last()).map(|r| r.base_offset.plus(u64::from(r.count)));
    group.journaled.last().map(NewEntry::end_offset).or(placed).unwrap_or(group.log_start)
}

/// What the first start made of it lives on: appends, seals, recycles, stops; then it is looked at again.
fn live_on(world: &World, disk: &MemoryDisk) -> Result<(), String> {
    disk.kill();
    let mut found = recover_whole(disk, &world.layout, NEW).map_err(|e| format!("the next start: {e}"))?;
    let identity = disk.identity(&world.layout.root).map_err(|e| e.to_string())?;
    let running = BootState {
        boot_id: identity.boot_id,
        mount_id: identity.mount_id,
        last_lsn: found.journal.last_lsn,
        checkpoint_lsn: found.checkpoint_lsn,
        clean: false,
    };
    write_boot_state(disk, &world.layout, found.boot, running).map_err(|e| e.to_string())?;
    settle_relaxed(disk, &world.layout, &mut found.groups).map_err(|e| e.to_string())?;
    let closed: Vec<Gid> = found.groups.iter().filter(|(_, f)| f.quarantine.is_some()).map(|(g, _)| g.gid).collect();
    quarantine(disk, &world.layout, &found.groups).map_err(|e| e.to_string())?;
    settle(disk, &world.layout, &found.leftovers, &found.journal.free).map_err(|e| e.to_string())?;
    let now = Now { mono: Mono::from_millis(world.clock), wall: Wall::from_millis(1_090_000) };
    let open: Vec<Gid> = found.groups.iter().map(|(g, _)| g.gid).filter(|g| !closed.contains(g)).collect();
    let mut dir = Dir::open(&world.layout, &world.config, found, now);
    let mut out = Effects::new();
    let run = |dir: &mut Dir, event: DirEvent, out: &mut Effects<DirEffect>| -> Result<(), String> {
        dir.handle(now, event, out);
        loop {
            let effects: Vec<_> = out.drain().collect();
            if effects.is_empty() {
                return Ok(());
            }
            for effect in effects {
                match effect {
                    DirEffect::Disk { token, op, .. } => {
                        let result = disk.run(op);
                        dir.handle(now, DirEvent::Done(token, result), out);
                    }
                    DirEffect::Stop(e) => return Err(format!("it stopped: {e}")),
                    _ => {}
                }
            }
        }
    };
    run(&mut dir, DirEvent::Wake, &mut out)?;
    for gid in open {
        let commit = world.groups[&gid].now().last().map_or(EntryIndex::ZERO, |e| e.index);
        run(&mut dir, DirEvent::Committed(gid, commit), &mut out)?;
    }
    run(&mut dir, DirEvent::CloseJournal, &mut out)?;
    run(&mut dir, DirEvent::CloseSegments, &mut out)?;
    disk.kill();
    Ok(())
}

/// One damage of one file: a cut, or a bit.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Cut(usize),
    Flip(usize, u8),
}

/// Length of the image of which the full form flips every byte.
const IMAGE_BYTES: usize = 256 << 10;

/// What sort of file it is.
fn kind(name: &str) -> &str {
    let name = name.rsplit('/').next().unwrap_or(name);
    match name.rsplit_once('.') {
        Some((stem, "a" | "b")) => stem,
        Some((_, ending)) => ending,
        None => name,
    }
}

fn every(end: End, loose: bool) {
    walk(&left(end, loose, 160), end, loose, true);
}

fn walk(world: &World, end: End, loose: bool, cuts: bool) {
    let step: usize = std::env::var("CW_DAMAGE").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    let whole = world.disk.memory().fork();
    let found = recover_whole(&whole.fork(), &world.layout, NEW).unwrap();
    let sound = Sound { starts: found.groups.iter().map(|(g, _)| (g.gid, g.log_start)).collect() };
    match judge(world, &sound, &whole.fork()) {
        Ok(Outcome::Started(touched)) if touched.is_empty() => {}
        other => panic!("without damage: {other:?}"),
    }
    let files: Vec<(String, Vec<u8>)> = whole.files().into_iter().filter(|(_, bytes)| !bytes.is_empty()).collect();
    let total: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    let step = if step > 0 { step } else { total / 90 };
    let mut rng = Rng::new(7 + end as u64);
    let mut next = rng.below(step as u64) as usize;
    let only = std::env::var("CW_DAMAGE_FILE").unwrap_or_default();
    let (mut base, mut places, mut refused, mut said, mut harmless) = (0, 0, 0, 0, 0);
    let mut wrong: Vec<String> = Vec::new();
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, bytes) in &files {
        while next < base + bytes.len() {
            let at = next - base;
            next += step;
            if !name.contains(&only) {
                continue;
            }
            let flip = Harm::Flip(at, rng.below(8) as u8);
            for harm in if cuts { vec![Harm::Cut(at), flip] } else { vec![flip] } {
                places += 1;
                *kinds.entry(kind(name)).or_default() += 1;
                let disk = whole.fork();
                disk.damage(name, |bytes| match harm {
                    Harm::Cut(at) => bytes.truncate(at),
                    Harm::Flip(at, bit) => bytes[at] ^= 1 << bit,
                });
                let before = wrong.len();
                match judge(world, &sound, &disk) {
                    Err(why) => wrong.push(format!("{name}, {} bytes, {harm:?}: {why}", bytes.len())),
                    Ok(Outcome::Refused) => refused += 1,
                    Ok(Outcome::Started(touched)) => {
                        if touched.len() > 1 && name.ends_with(".wal") && matches!(harm, Harm::Flip(..)) {
                            wrong.push(format!("{name} {harm:?}: groups {touched:?} touched by one bit"));
                        }
                        said += usize::from(!touched.is_empty());
                        harmless += usize::from(touched.is_empty());
                        // What a start said stays said; what it did not need to say stays whole.
                        if places % 5 == 0 {
                            let again = live_on(world, &disk).and_then(|()| judge(world, &sound, &disk));
                            match again {
                                Ok(Outcome::Started(then)) if then.iter().all(|g| touched.contains(g)) => {}
                                other => wrong.push(format!("{name} {harm:?}: {touched:?}, then {other:?}")),
                            }
                        }
                    }
                }
                if wrong.len() > before && wrong.len() <= 40 {
                    println!("WRONG {}", wrong[before]);
                }
            }
        }
        base += bytes.len();
    }
    let of: Vec<String> = kinds.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
    println!(
        "F4 {end:?}{}: {} files, {total} bytes, {places} places ({}): {refused} starts refused, {said} said, {harmless} harmless, \
         {} wrong; a bit of the journal touched one group at most",
        if loose { ", relaxed" } else { "" },
        files.len(),
        of.join(", "),
        wrong.len()
    );
    assert!(wrong.is_empty(), "{} of {places} places: {}", wrong.len(), wrong[0]);
    assert!(places > 80 && said + refused > 0, "{places} places, {said} said: the test proves nothing");
}

#[test]
fn a_bit_flipped_at_any_byte_of_a_larger_image_is_said_or_harmless() {
    let steps = (1..).map(|n| 160 + 20 * n);
    let bytes = |w: &World| w.disk.memory().files().iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    let world = steps.map(|n| left(End::Killed, false, n)).find(|w| bytes(w) >= IMAGE_BYTES);
    walk(&world.expect("the load grows"), End::Killed, false, false);
}

#[test]
fn damage_anywhere_after_a_kill_is_said_or_harmless() {
    every(End::Killed, false);
}

#[test]
fn damage_anywhere_in_drained_files_is_said_or_harmless() {
    every(End::Drained, false);
}

#[test]
fn damage_anywhere_after_a_clean_stop_is_said_or_harmless() {
    every(End::Stopped, false);
}

#[test]
fn damage_anywhere_with_a_relaxed_group_is_said_or_harmless() {
    every(End::Killed, true);
}
