//! Tables that came to the source after it began (`worker::late`) and that can be read in the order of their key.

use super::{AdHoc, refuse};
use crate::signal::Execute;
use crate::worker::start::Begun;
use catchwater_base::log;
use catchwater_record::CommitSeq;

/// Id of what is asked for, where a signal has its own.
pub(super) const ID: &str = "late table";

impl AdHoc<'_> {
    /// Asks for what nobody has asked for, in the order in which it came.
    pub fn ask_late(&mut self, begun: &mut Begun<'_>) {
        let tables = std::mem::take(&mut begun.late.ordered);
        let numbers: Vec<u32> = tables.iter().filter_map(|t| begun.number_of(t)).collect();
        if numbers.is_empty() {
            return;
        }
        let execute = Execute {
            id: Some(ID.into()),
            tables: Vec::new(),
            conditions: Vec::new(),
            rows_per_second: 0,
            blocking: false,
        };
        let names = tables.iter().map(|t| t.qualified()).collect::<Vec<_>>().join(", ");
        match self.ask_for(begun, &execute, numbers.clone(), CommitSeq(0)) {
            Ok(_) => log!(
                Info,
                "capture.late_table",
                "source {}: {names} came later: its rows are read beside the stream",
                begun.session.config.source
            ),
            Err(why) => {
                begun.give_up_late(&numbers.into_iter().collect());
                refuse(begun, &format!("the rows of {names} are not read: {why}"));
            }
        }
    }

    /// A number for a snapshot that is not of a signal.
    pub fn take_number(&mut self) -> u32 {
        let number = self.next_snapshot;
        self.next_snapshot += 1;
        number
    }
}
