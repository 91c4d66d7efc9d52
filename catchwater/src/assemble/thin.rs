//! Pure. What the records of captures are to compaction: the log's storage knows no stamp.

use catchwater_change::Stamp;
use catchwater_change::stamp::{STAMP_HEADER, flag};
use catchwater_record::batch::iterate::RecordView;
use catchwater_storage::compact::Nature;

/// A record without a stamp (of the captures' own topics) is whole. One whose stamp a newer version wrote takes nobody's
/// place.
pub fn nature(record: &RecordView<'_>) -> Nature {
    let Some(stamp) = record.header(STAMP_HEADER) else { return Nature::Whole };
    match Stamp::peek(stamp.unwrap_or_default()) {
        Some((b'd', _)) => Nature::Delete,
        Some((_, flags)) if flags & (flag::INCOMPLETE | flag::ROW_COMES) == 0 => Nature::Whole,
        _ => Nature::Part,
    }
}
