//! What the log directories of the process count; `catchwater/metrics.rs` writes them out. Names: storage.md 18.1.

use catchwater_base::metric::{Counter, Gauge, Histogram};

/// Time of one journal flush with content, as the journal thread sees it.
pub static FLUSH_TIME: Histogram = Histogram::new();
/// Bytes of journal flushes, padding included.
pub static FLUSH_BYTES: Counter = Counter::new();
/// Seals: flushes without content at idle times.
pub static SEALS: Counter = Counter::new();
/// Share of the journal in use, percent.
pub static JOURNAL_USED_PERCENT: Gauge = Gauge::new();
/// Bytes of the journal that only it holds for certain.
pub static CHECKPOINT_LAG_BYTES: Gauge = Gauge::new();
/// Bytes in segment files that are not known durable there.
pub static SEGMENT_DIRTY_BYTES: Gauge = Gauge::new();
/// Bytes handed to the journal and not durable yet.
pub static WAITING_BYTES: Gauge = Gauge::new();
/// Bytes durable and not in segment files yet.
pub static UNPLACED_BYTES: Gauge = Gauge::new();
/// Room on the filesystem of the log directory, bytes.
pub static DISK_FREE_BYTES: Gauge = Gauge::new();
/// 1 while producing is refused because there is too little room.
pub static DISK_LOW: Gauge = Gauge::new();
/// Operations that found no room.
pub static NO_SPACE: Counter = Counter::new();
/// Records of relaxed topics that a power loss took, as far as they left traces.
pub static RELAXED_LOST_RECORDS: Counter = Counter::new();
/// Age of the oldest acknowledged entry that a power loss would take now, µs.
pub static RELAXED_WINDOW_US: Gauge = Gauge::new();
/// 1 once a log directory has stopped.
pub static DISK_OFFLINE: Gauge = Gauge::new();
/// 1 while flushes take ten times what they usually take.
pub static DISK_SLOW: Gauge = Gauge::new();
/// Time that the recovery of log directories took at the start, µs.
pub static RECOVERY_US: Gauge = Gauge::new();
/// Bytes of the journal that it read.
pub static RECOVERY_BYTES: Gauge = Gauge::new();
/// Partitions by the verdict that it gave them.
pub static RECOVERY_VERDICTS: [(&str, Counter); 4] = [
    ("ok", Counter::new()),
    ("suspect", Counter::new()),
    ("hard state uncertain", Counter::new()),
    ("damaged", Counter::new()),
];
/// Files that were lost or damaged and were made again at the start.
pub static DAMAGE_REPAIRED: Counter = Counter::new();
/// Bytes of stored files that could not be read when the segment writer needed them.
pub static DAMAGE_DETECTED: Counter = Counter::new();
