//! Room on the disk. Below a floor nothing is produced any more, so that what is journaled always fits into segments; when
//! there is no room at all the reserve file is given up, so that manifests and removals still fit. Reading, retention and
//! the node's own small writes go on all the while; producing goes on within a second of room coming back.
//!
//! Looked at by the segment writer, every [`LOOK_EVERY`] and each time it has written a sixteenth of the floor.

use super::{Inner, LogDirConfig, lock, metrics};
use catchwater_base::{Clock, Mono, crash_point, log};
use catchwater_runtime::thread::Mutex;
use catchwater_storage::disk::{Disk, DiskError, DiskExt, DiskFault, DiskOp, Space};
use catchwater_storage::journal::JournalEvent;
use catchwater_storage::recover::Layout;
use catchwater_storage::segment::SegmentEvent;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How often the room is looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Fewer bytes than this are not worth a look.
const STEP_LEAST: u64 = 1 << 20;
/// Above the floor; many times what a segment writer holds back.
const NEAR_BYTES: u64 = 64 << 20;
/// The default floor is at least this, bytes.
const FLOOR_LEAST: u64 = 2 << 30;
/// Of a large disk 5 % would be more than any node needs to end its work: the share counts up to here, bytes.
const FLOOR_SHARE_MOST: u64 = 8 << 30;

/// What is known of the room.
pub(super) struct Room {
    /// `min.free.bytes`, or `None` for the default.
    min_free_bytes: Option<u64>,
    /// Bytes of the whole journal at its largest, twice.
    journal_bytes: u64,
    reserve_bytes: u64,
    /// Less than the floor is free.
    low: AtomicBool,
    /// The floor is near: what can be removed later must be sealed while there is room for that.
    near: AtomicBool,
    /// Bytes above the floor, at the last look.
    above: AtomicU64,
    /// Something waits for room.
    waits: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    looked: Option<Mono>,
    /// Written into segments since.
    written_bytes: u64,
    floor: u64,
    reserve: bool,
    /// It was said that there is no room at all; said again only after there was some.
    full_told: bool,
}

impl Room {
    pub(super) fn new(config: &LogDirConfig) -> Self {
        Room {
            min_free_bytes: config.min_free_bytes,
            journal_bytes: config.journal_file_bytes.saturating_mul(u64::from(config.journal_files_max)),
            reserve_bytes: config.reserve_bytes,
            low: AtomicBool::new(false),
            near: AtomicBool::new(false),
            above: AtomicU64::new(u64::MAX),
            waits: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// Producing is refused.
    pub(super) fn is_out(&self) -> bool {
        self.low.load(Ordering::Relaxed) || self.waits.load(Ordering::Relaxed)
    }

    /// Less than [`NEAR_BYTES`] above the floor, or below it.
    pub(super) fn is_near(&self) -> bool {
        self.near.load(Ordering::Relaxed)
    }

    pub(super) fn above_floor(&self) -> u64 {
        self.above.load(Ordering::Relaxed)
    }

    fn floor(&self, total: u64) -> u64 {
        match self.min_free_bytes {
            Some(bytes) => bytes,
            None => FLOOR_LEAST.max((total / 20).min(FLOOR_SHARE_MOST)).max(self.journal_bytes.saturating_mul(2)),
        }
    }

    /// True if room changed sides.
    fn judge(&self, space: Space) -> bool {
        let floor = self.floor(space.total);
        let was = self.low.load(Ordering::Relaxed);
        // Back above the floor by a little, so that one batch does not make it swing.
        let low = space.free < if was { floor.saturating_add(floor / 64) } else { floor };
        self.low.store(low, Ordering::Relaxed);
        self.above.store(space.free.saturating_sub(floor), Ordering::Relaxed);
        self.near.store(space.free < floor.saturating_add(NEAR_BYTES), Ordering::Relaxed);
        low != was
    }
}

fn reserve_path(layout: &Layout) -> String {
    format!("{}/reserve", layout.root)
}

/// At the start, before anything is written: how much room there is, and the reserve.
pub(super) fn begin(disk: &dyn Disk, layout: &Layout, room: &Room) -> Result<(), DiskError> {
    let space = disk.space(&layout.root)?;
    room.judge(space);
    let held = hold_reserve(disk, layout, room, space)?;
    lock(&room.state).reserve = held;
    tell(room, space);
    Ok(())
}

/// Makes the reserve if there is room for it; true if it is there. Its blocks count, not its content.
fn hold_reserve(disk: &dyn Disk, layout: &Layout, room: &Room, space: Space) -> Result<bool, DiskError> {
    let path = reserve_path(layout);
    match disk.length(&path) {
        Ok(len) if len == room.reserve_bytes && len > 0 => return Ok(true),
        Ok(_) => disk.unlink(&path)?,
        Err(e) if e.kind == DiskFault::NotFound => {}
        Err(e) => return Err(e),
    }
    if room.reserve_bytes == 0 || space.free < room.reserve_bytes.saturating_mul(2) {
        return Ok(false);
    }
    let made = disk
        .create_new(&path)
        .and_then(|()| disk.run(DiskOp::Fallocate { path: path.as_str().into(), len: room.reserve_bytes }));
    match made {
        Ok(_) => Ok(true),
        Err(e) if e.kind == DiskFault::NoSpace => disk.unlink(&path).map(|()| false),
        Err(e) => Err(e),
    }
}

fn tell(room: &Room, space: Space) {
    metrics::DISK_FREE_BYTES.set(i64::try_from(space.free).unwrap_or(i64::MAX));
    metrics::DISK_LOW.set(i64::from(room.is_out()));
}

impl Inner {
    /// An operation of either thread found no room.
    pub(super) fn no_space(&self, error: &DiskError) {
        metrics::NO_SPACE.inc();
        self.room.waits.store(true, Ordering::Relaxed);
        metrics::DISK_LOW.set(1);
        let (told, reserve) = {
            let mut state = lock(&self.room.state);
            // The segment writer looks again soon, not at once: nothing changes by itself within microseconds.
            (std::mem::replace(&mut state.full_told, true), std::mem::take(&mut state.reserve))
        };
        if !told {
            log!(
                Error,
                "disk.full",
                "CW0204 the disk is full: {error}; nothing is lost, producing is refused until there is room"
            );
        }
        if reserve {
            crash_point!("reserve.before_drop");
            // A failure leaves it for the next start.
            let _ = self.disk.unlink(&reserve_path(&self.layout));
            crash_point!("reserve.after_drop");
            log!(Warn, "disk.reserve", "the reserve of {} bytes is given up", self.room.reserve_bytes);
            self.space_back();
        }
    }

    fn space_back(&self) {
        self.tell_journal(JournalEvent::SpaceBack);
        self.tell_segments([SegmentEvent::SpaceBack]);
    }

    /// Looks at the room if it is time; `written_bytes` were written since the last call. By the segment writer.
    pub(super) fn look_at_room(&self, written_bytes: u64) {
        let now = self.clock.now().mono;
        {
            let mut state = lock(&self.room.state);
            state.written_bytes += written_bytes;
            let much = state.written_bytes >= (state.floor / 16).max(STEP_LEAST);
            if !much && state.looked.is_some_and(|at| now.since(at) < LOOK_EVERY) {
                return;
            }
            (state.looked, state.written_bytes) = (Some(now), 0);
        }
        let Ok(space) = self.disk.space(&self.layout.root) else { return };
        lock(&self.room.state).floor = self.room.floor(space.total);
        if self.room.judge(space) {
            let (floor, free) = (self.room.floor(space.total), space.free);
            if self.room.low.load(Ordering::Relaxed) {
                log!(
                    Warn,
                    "disk.low",
                    "CW0204 {free} bytes are free, fewer than min.free.bytes ({floor}): producing is refused"
                );
            } else {
                log!(Info, "disk.room", "{free} bytes are free again: producing goes on");
            }
        }
        if self.room.waits.swap(false, Ordering::Relaxed) {
            // Tried anew; who finds no room again says so.
            self.space_back();
        } else {
            let held = {
                let mut state = lock(&self.room.state);
                state.full_told &= self.room.low.load(Ordering::Relaxed);
                state.reserve
            };
            if !held
                && !self.room.low.load(Ordering::Relaxed)
                && let Ok(held) = hold_reserve(&*self.disk, &self.layout, &self.room, space)
            {
                lock(&self.room.state).reserve = held;
            }
        }
        tell(&self.room, space);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(min_free_bytes: Option<u64>) -> Room {
        Room::new(&LogDirConfig { min_free_bytes, ..LogDirConfig::default() })
    }

    #[test]
    fn the_floor_is_five_percent_within_bounds_and_what_the_journal_may_hold() {
        const GIB: u64 = 1 << 30;
        assert_eq!(room(None).floor(10 * GIB), 2 * GIB);
        assert_eq!(room(None).floor(100 * GIB), 5 * GIB);
        assert_eq!(room(None).floor(20_000 * GIB), 8 * GIB);
        assert_eq!(room(Some(7)).floor(20_000 * GIB), 7);
        let journal = (GIB, 16);
        let large = LogDirConfig {
            min_free_bytes: None,
            journal_file_bytes: journal.0,
            journal_files_max: journal.1,
            ..LogDirConfig::default()
        };
        assert_eq!(Room::new(&large).floor(10 * GIB), 32 * GIB);
    }

    #[test]
    fn room_is_back_a_little_above_the_floor() {
        let room = room(Some(6400));
        let told: Vec<(bool, bool)> = [7000, 6400, 6399, 6450, 6500, 6401]
            .map(|free| (room.judge(Space { free, total: 10_000 }), room.is_out()))
            .into();
        assert_eq!(told, [(false, false), (false, false), (true, true), (false, true), (true, false), (false, false)]);
        assert_eq!(room.above_floor(), 1);
    }
}
