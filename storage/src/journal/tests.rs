#![allow(clippy::unwrap_used)]

use super::*;
use crate::disk::Disk;
use crate::disk::memory::MemoryDisk;
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
        World { disk, journal, at_ms: 1_000, sent: 0, persisted: 0, lsn: 0 }
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
            let batch =
                JournalBatch { gid: GID, tag: Some(self.sent), entries: vec![entry], ..JournalBatch::default() };
            self.tell(JournalEvent::Queue(vec![batch]));
        }
        assert_eq!(self.persisted, self.sent, "there is a file for all of them");
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
