//! A node's disk and what writes to it. (A list of frames for now; the journal and segment machines take its place.)

use crate::engine::Micros;
use crate::swarm::Swarm;
use bytes::Bytes;
use catchwater_base::{Rng, mutant};
use catchwater_raft::{Event, ReadyNo};
use catchwater_record::{EntryIndex, Gid, Offset};
use catchwater_storage::{FileRange, GroupSpec, Hard, NewEntry, RecoveredGroup, Row};
use std::collections::BTreeMap;

/// What the storage of a node wants from the world.
pub enum Wish {
    /// Call [`NodeStorage::done`] with this number after that time.
    Done(Micros, u64),
    /// For the replica.
    Event(Gid, Event),
    /// State of the replica at a committed index, please.
    Snapshot(Gid),
    Stopped(String),
}

#[derive(Clone)]
enum Frame {
    Hard(Hard),
    Entry(NewEntry),
}

pub struct NodeStorage {
    rng: Rng,
    fsync: (Micros, Micros),
    fsync_tail: u32,
    specs: BTreeMap<Gid, GroupSpec>,
    durable: Vec<(Gid, Frame)>,
    /// Not written yet.
    queue: Vec<(Gid, Frame)>,
    queue_tags: Vec<(Gid, ReadyNo)>,
    /// Being written.
    flight: Vec<(Gid, Frame)>,
    flight_tags: Vec<(Gid, ReadyNo)>,
    busy: Option<u64>,
    next: u64,
}

impl NodeStorage {
    pub fn new(seed: u64, swarm: &Swarm, groups: &[(Gid, GroupSpec)]) -> Self {
        NodeStorage {
            rng: Rng::new(seed),
            fsync: swarm.fsync,
            fsync_tail: swarm.fsync_tail,
            specs: groups.iter().cloned().collect(),
            durable: Vec::new(),
            queue: Vec::new(),
            queue_tags: Vec::new(),
            flight: Vec::new(),
            flight_tags: Vec::new(),
            busy: None,
            next: 0,
        }
    }

    pub fn persist(
        &mut self,
        gid: Gid,
        ready: ReadyNo,
        entries: Vec<NewEntry>,
        hard: Option<Hard>,
        _truncate_from: Option<EntryIndex>,
        out: &mut Vec<Wish>,
    ) {
        self.queue.extend(hard.map(|h| (gid, Frame::Hard(h))));
        self.queue.extend(entries.into_iter().map(|e| (gid, Frame::Entry(e))));
        self.queue_tags.push((gid, ready));
        self.flush(out);
    }

    fn flush(&mut self, out: &mut Vec<Wish>) {
        if self.busy.is_some() || self.queue_tags.is_empty() {
            return;
        }
        self.flight = std::mem::take(&mut self.queue);
        self.flight_tags = std::mem::take(&mut self.queue_tags);
        self.next += 1;
        self.busy = Some(self.next);
        let mut delay = self.rng.between(self.fsync.0, self.fsync.1);
        if self.rng.chance(self.fsync_tail) {
            delay += 500_000;
        }
        out.push(Wish::Done(delay, self.next));
    }

    pub fn done(&mut self, token: u64, out: &mut Vec<Wish>) {
        if self.busy != Some(token) {
            return;
        }
        self.busy = None;
        if !mutant!("fsync_lies") {
            self.durable.append(&mut self.flight);
        }
        out.extend(self.flight_tags.drain(..).map(|(gid, ready)| Wish::Event(gid, Event::Persisted(ready))));
        self.flush(out);
    }

    pub fn crash(&mut self, _power: bool) {
        let keep = self.rng.below(self.flight.len() as u64 + 1) as usize;
        self.durable.extend(self.flight.drain(..).take(keep));
        self.flight.clear();
        self.queue.clear();
        self.queue_tags.clear();
        self.flight_tags.clear();
        self.busy = None;
    }

    pub fn recover(&mut self) -> Result<Vec<RecoveredGroup>, String> {
        let mut found: BTreeMap<Gid, RecoveredGroup> =
            self.specs.iter().map(|(g, s)| (*g, RecoveredGroup::fresh(*g, s.clone()))).collect();
        for (gid, frame) in &self.durable {
            let Some(group) = found.get_mut(gid) else { continue };
            match frame {
                Frame::Hard(hard) => group.hard = *hard,
                Frame::Entry(e) => {
                    group.journaled.retain(|j| j.index < e.index);
                    group.journaled.push(e.clone());
                }
            }
        }
        Ok(found.into_values().collect())
    }

    /// Whole entries for a cold read.
    pub fn entries(&self, _gid: Gid, _rows: &[Row]) -> Option<Vec<NewEntry>> {
        None
    }

    pub fn read(&self, _ranges: &[FileRange]) -> Result<Vec<Bytes>, String> {
        Err("no files".into())
    }
    pub fn started(&mut self, _out: &mut Vec<Wish>) {}
    pub fn committed(&mut self, _gid: Gid, _upto: EntryIndex) {}
    pub fn snapshot(&mut self, _gid: Gid, _payload: (EntryIndex, Offset, Bytes), _out: &mut Vec<Wish>) {}
    pub fn calm(&mut self) {
        self.fsync_tail = 0;
    }
}
