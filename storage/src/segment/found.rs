//! Pure. One segment, and what recovery knows of a group: the segment writer begins with it.

use crate::entry::{EpochStart, GroupSpec, Loose, NewEntry};
use crate::format::manifest::SegmentState;
use crate::format::row;
use crate::format::slot::Side;
use crate::journal::Persisted;
use bytes::Bytes;
use catchwater_record::crc::Crc64;
use catchwater_record::{EntryIndex, Gid, Offset};

/// One segment as recovery found it (or as it is now).
#[derive(Clone, Debug)]
pub struct Segment {
    pub base_index: EntryIndex,
    pub base_offset: Offset,
    pub generation: u32,
    pub created_ms: i64,
    pub state: SegmentState,
    pub rows: u32,
    /// Indexes covered by gap rows beyond one for each row; 0 unless compacted.
    pub gaps: u64,
    pub last_term: u32,
    /// First offset after the segment.
    pub next_offset: Offset,
    pub max_ts: i64,
    pub min_ts: i64,
    /// Largest timestamp of the first batch; `None` = not known.
    pub first_ts: Option<i64>,
    pub log_len: u32,
    pub ext_len: u32,
    pub has_ext: bool,
    /// Bytes of its `.txn`; 0 = there is none.
    pub txn_len: u32,
    /// Control batches are in it.
    pub control: bool,
    pub sealed_at_ms: i64,
    /// Bytes behind the known ends must go before anything is appended.
    pub cut: bool,
    /// Written since the last sync.
    pub dirty: bool,
    /// Running checksums; `None` = read the files again at the seal.
    pub sums: Option<Box<Sums>>,
}

/// Running checksums of the three files.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    pub(super) log: Crc64,
    pub(super) ent: Crc64,
    pub(super) ext: Crc64,
}

impl Segment {
    pub fn last_index(&self) -> EntryIndex {
        EntryIndex(self.base_index.0 + u64::from(self.rows) + self.gaps).prev()
    }
    pub(super) fn has_record(&self) -> bool {
        self.next_offset > self.base_offset
    }
    pub(crate) fn ent_len(&self) -> u64 {
        (row::HEADER_BYTES + self.rows as usize * row::ROW_BYTES) as u64
    }
    pub(crate) fn is_open(&self) -> bool {
        self.state == SegmentState::Active
    }
}

/// What recovery hands over of one group.
#[derive(Clone, Debug)]
pub struct FoundGroup {
    pub gid: Gid,
    pub spec: GroupSpec,
    /// The group's directory exists, and its name is durable.
    pub made: bool,
    /// Generation of the newest valid manifest (0 = none) and the side the next goes to.
    pub manifest: (u64, Side),
    pub manifest_exists: [bool; 2],
    /// Both copies are there and undamaged.
    pub manifest_whole: bool,
    pub log_start: Offset,
    /// As in the manifest.
    pub deletes_gone: Offset,
    pub first_index: EntryIndex,
    /// Where the first index begins; the log start may lie behind it.
    pub first_offset: Offset,
    pub prev_term: u32,
    pub epochs: Vec<EpochStart>,
    /// Ascending; all but the last of the open ones are rolled.
    pub segments: Vec<Segment>,
    /// Set if the group's verdict is Suspect or Damaged: its entries that only the journal has. Such a group is not opened
    /// here (nothing of it is written, cut or removed); [`crate::recover::quarantine`] keeps these entries.
    pub quarantine: Option<Vec<NewEntry>>,
    /// The frame with the snapshot that its log begins with is lost, or a manifest cannot be read.
    pub begins_unknown: bool,
    /// Its files were there and are not: what the journal has of it is not all there was.
    pub gone: bool,
    /// Tables of such a group that were made again: written if it goes on all the same.
    pub mend: Vec<(String, Bytes)>,
    /// Names in the group's directory that belong to nothing: removed before the next append.
    pub stale: Vec<String>,
    /// Indexes of the `.snap` files, ascending.
    pub snaps: Vec<EntryIndex>,
    /// Bytes of batches behind the newest snapshot.
    pub bytes_since_snap: u64,
    /// Set if the group is relaxed (`storage.durability`).
    pub loose: Option<Loose>,
    /// Entries that only the journal has, as the flushes brought them.
    pub journaled: Vec<Persisted>,
}

impl FoundGroup {
    /// A replica that has nothing on disk but its CREATE frame.
    pub fn fresh(gid: Gid, spec: GroupSpec) -> Self {
        FoundGroup {
            gid,
            spec,
            made: false,
            manifest: (0, Side::A),
            manifest_exists: [false, false],
            manifest_whole: false,
            log_start: Offset::ZERO,
            deletes_gone: Offset::ZERO,
            first_index: EntryIndex(1),
            first_offset: Offset::ZERO,
            prev_term: 0,
            epochs: Vec::new(),
            segments: Vec::new(),
            quarantine: None,
            begins_unknown: false,
            gone: false,
            mend: Vec::new(),
            stale: Vec::new(),
            snaps: Vec::new(),
            bytes_since_snap: 0,
            loose: None,
            journaled: Vec::new(),
        }
    }
}
