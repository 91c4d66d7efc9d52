#![allow(clippy::unwrap_used)]

use super::*;
use crate::disk::memory::MemoryDisk;
use crate::disk::{Disk, DiskExt};
use crate::entry::EntryKind;
use bytes::Bytes;
use catchwater_base::Wall;
use catchwater_record::{LeaderEpoch, Offset};

const GID: Gid = Gid(7);

/// A journal on a disk in memory: two files of 64 KiB, eight at most.
struct World {
    disk: MemoryDisk,
    journal: Journal,
    at_ms: u64,
    sent: u64,
    persisted: u64,
    lsn: u64,
    /// The segment writer is as fast as can be.
    drains: bool,
}

impl World {
    fn new() -> World {
        let disk = MemoryDisk::new();
        disk.run(DiskOp::MkDir { path: "j".into() }).unwrap();
        let config = JournalConfig {
            dir: "j".into(),
            dir_id: [1; 16],
            file_bytes: 64 << 10,
            files: 2,
            files_max: 8,
            buffer_bytes: 16 << 10,
        };
        let journal = Journal::open(config, FoundJournal::default());
        World { disk, journal, at_ms: 1_000, sent: 0, persisted: 0, lsn: 0, drains: false }
    }

    /// Hands the event in and runs every operation that comes of it.
    fn tell(&mut self, event: JournalEvent) {
        let now =
            Now { mono: Mono::from_millis(self.at_ms), wall: Wall::from_millis(i64::try_from(self.at_ms).unwrap()) };
        let mut out = Effects::new();
        self.journal.handle(now, event, &mut out);
        loop {
            let effects: Vec<JournalEffect> = out.drain().collect();
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                match effect {
                    JournalEffect::Disk { token, op, .. } => {
                        let result = self.disk.run(op);
                        self.journal.handle(now, JournalEvent::Done(token, result), &mut out);
                    }
                    JournalEffect::Persisted(groups) => {
                        self.persisted += groups.iter().map(|g| g.entries.len() as u64).sum::<u64>();
                        self.lsn = groups.iter().map(|g| g.lsn).max().unwrap_or(self.lsn);
                        if self.drains {
                            self.journal.handle(now, JournalEvent::Drained(GID, self.lsn), &mut out);
                        }
                    }
                    JournalEffect::Stop(error) => panic!("{error}"),
                    _ => {}
                }
            }
        }
    }

    /// So many entries of 12 KiB, each a flush of its own.
    fn append(&mut self, count: u64) {
        self.append_of(count, 12 << 10);
    }

    fn append_of(&mut self, count: u64, bytes: usize) {
        for _ in 0..count {
            let batch = self.batch(bytes);
            self.tell(JournalEvent::Queue(vec![batch]));
        }
        assert_eq!(self.persisted, self.sent, "there is a file for all of them");
    }

    fn batch(&mut self, bytes: usize) -> JournalBatch {
        self.sent += 1;
        let entry = NewEntry {
            index: EntryIndex(self.sent),
            term: LeaderEpoch(1),
            kind: EntryKind::Data,
            flags: 0,
            base_offset: Offset(self.sent - 1),
            count: 1,
            max_ts: 1,
            body: vec![5; bytes].into(),
            context: Bytes::new(),
        };
        JournalBatch { gid: GID, tag: Some(self.sent), entries: vec![entry], ..JournalBatch::default() }
    }

    /// Everything is durable in segments.
    fn drain(&mut self) {
        self.tell(JournalEvent::Drained(GID, self.lsn));
    }

    /// Goes on until nothing is to be done before `until_ms`, as the journal's thread does.
    fn rest(&mut self, until_ms: u64) {
        for _ in 0..1_000 {
            match self.journal.deadline().filter(|at| at.as_millis() <= until_ms) {
                Some(at) => {
                    self.at_ms = self.at_ms.max(at.as_millis());
                    self.tell(JournalEvent::Wake);
                }
                None => {
                    self.at_ms = until_ms;
                    return;
                }
            }
        }
        panic!("it never rests");
    }
}

#[test]
fn what_a_burst_has_made_is_kept_for_the_next_one_and_goes_a_minute_later() {
    let mut world = World::new();
    world.append(20);
    let grown = world.journal.file_count();
    assert!(grown >= 5, "nothing was given back: {grown} files");
    let filled_ms = world.at_ms;
    // The next burst finds them: nothing is made, nothing is removed in between.
    for _ in 0..3 {
        world.drain();
        world.rest(world.at_ms + 5_000);
        assert_eq!(world.journal.file_count(), grown);
        world.append(15);
        assert_eq!(world.journal.file_count(), grown);
    }
    world.drain();
    assert!(world.at_ms - filled_ms < KEEP_MS);
    let last_ms = world.at_ms;
    world.rest(last_ms + KEEP_MS - 1);
    assert_eq!(world.journal.file_count(), grown);
    // A minute after a file was last filled they go by themselves, and the thread has nothing to wake for.
    world.rest(last_ms + KEEP_MS + 1_000);
    assert_eq!(world.journal.file_count(), 2);
    assert_eq!(world.journal.deadline(), None);
    // And what is written then is written into those that stayed.
    world.append(2);
}

#[test]
fn a_flush_is_sealed_when_nothing_follows_and_only_once() {
    let mut world = World::new();
    world.append(3);
    let lsn = world.journal.durable_lsn();
    let seal_at = world.journal.deadline().unwrap();
    assert_eq!(seal_at.as_millis(), world.at_ms + SEAL_AFTER_MS);
    world.rest(seal_at.as_millis() - 1);
    assert_eq!(world.journal.durable_lsn(), lsn, "not before its time");
    world.rest(seal_at.as_millis());
    assert_eq!(world.journal.durable_lsn(), lsn + 1, "an empty flush behind the last one with content");
    world.rest(seal_at.as_millis() + 60_000);
    assert_eq!(world.journal.durable_lsn(), lsn + 1, "an idle journal writes nothing");
    // What follows in time needs no seal.
    world.append(1);
    world.at_ms += SEAL_AFTER_MS - 1;
    world.append(1);
    assert_eq!(world.journal.durable_lsn(), lsn + 3);
}

/// It would spin else, on a full disk or behind a slow segment writer.
#[test]
fn a_seal_without_room_waits_for_room_and_not_for_the_clock() {
    let mut world = World::new();
    world.disk.set_capacity(2 * (64 << 10));
    for _ in 0..2 {
        world.append(3);
        world.append_of(1, 11 << 10);
    }
    let lsn = world.journal.durable_lsn();
    let seal_at = world.journal.deadline().unwrap();
    world.rest(seal_at.as_millis() + 1_000);
    assert_eq!(world.journal.durable_lsn(), lsn, "there is no room");
    assert_eq!(world.journal.deadline(), None);
    world.disk.set_capacity(1 << 30);
    world.tell(JournalEvent::SpaceBack);
    assert_eq!(world.journal.durable_lsn(), lsn + 1, "sealed as soon as there is");
}

/// Generations on the disk, ascending.
fn generations(world: &World) -> Vec<u64> {
    let names = world.disk.list("j").unwrap();
    let header = |name: &String| world.disk.read(&format!("j/{name}"), 0, 64).unwrap();
    let headers = names.iter().filter_map(|n| crate::format::journal::FileHeader::decode(&header(n)));
    let mut found: Vec<u64> = headers.map(|h| h.file_gen).collect();
    found.sort_unstable();
    found
}

#[test]
fn an_entry_longer_than_a_file_makes_one_longer_and_none_is_passed_over() {
    let mut world = World::new();
    // Short ones, a long one, another short one; then all are free, and the oldest of them is too short.
    world.append(8);
    world.append_of(1, 200 << 10);
    world.append(8);
    world.drain();
    for round in 0..40u64 {
        // What fits, what only just does not, what is many times longer: in changing order, drained now and then.
        let bytes = [12 << 10, 200 << 10, 50 << 10, 64 << 10, 1 << 10, 500 << 10][(round * 5 % 6) as usize];
        world.append_of(1, bytes);
        let found = generations(&world);
        let run = found.windows(2).all(|w| w[1] == w[0] + 1);
        assert!(run, "round {round}: a hole in the generations is damage to the next start: {found:?}");
        if round % 2 == 1 {
            world.drain();
        }
    }
    assert!(world.journal.file_count() <= 8, "files are used again: {}", world.journal.file_count());
}

/// Frames to copy forward and an entry that fills a file: put first, they would push it from file to file.
#[test]
fn what_is_forwarded_pushes_no_large_entry_away_and_large_entries_do_not_starve_it() {
    let mut world = World::new();
    let hard = |gid| JournalBatch {
        gid: Gid(gid),
        hard: Some(Hard { term: 1, vote: 1, commit: EntryIndex(0) }),
        ..JournalBatch::default()
    };
    world.tell(JournalEvent::Queue((100..400).map(hard).collect()));
    for bytes in [40 << 10, 52 << 10, 56 << 10, 120 << 10] {
        for _ in 0..20 {
            world.append_of(1, bytes);
            world.drain();
        }
        // All at once: nothing but the large ones is ever written unless it goes with them.
        world.drains = true;
        let all = (0..40).map(|_| world.batch(bytes)).collect();
        world.tell(JournalEvent::Queue(all));
        world.drains = false;
        assert_eq!(world.persisted, world.sent);
        assert!(world.journal.file_count() <= 4, "{bytes}: {} files", world.journal.file_count());
    }
}

#[test]
fn a_file_that_cannot_become_longer_waits_for_room_and_the_journal_goes_on() {
    let mut world = World::new();
    world.append(1);
    let sent = world.sent;
    let used: usize = world.disk.files().iter().map(|(_, bytes)| bytes.len()).sum();
    world.disk.set_capacity(used as u64 + (100 << 10));
    let batch = world.batch(300 << 10);
    world.tell(JournalEvent::Queue(vec![batch]));
    assert_eq!(world.persisted, sent, "there is no room for it");
    world.tell(JournalEvent::Wake);
    assert_eq!((world.persisted, world.journal.file_count()), (sent, 2));
    world.disk.set_capacity(u64::MAX);
    world.tell(JournalEvent::SpaceBack);
    assert_eq!(world.persisted, world.sent);
    world.append(3);
}
