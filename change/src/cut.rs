//! Pure. A cut: "every record of this source with commit_seq <= S lies below these end offsets". Derived from the log;
//! losing one costs time, never rows. Stored in `__catchwater_cuts`; page `docs/formats/cuts.md`.

use crate::stamp::Native;
use catchwater_base::Wall;
use catchwater_record::{CommitSeq, Incarnation, Offset, TopicPartition};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cut {
    pub incarnation: Incarnation,
    pub commit_seq: CommitSeq,
    pub native: Native,
    /// Commit time of the newest transaction covered.
    pub commit_time: Wall,
    /// When the cut was written.
    pub written: Wall,
    /// All partitions of the source, not only the changed ones.
    pub full: bool,
    pub ends: Vec<(TopicPartition, Offset)>,
}
