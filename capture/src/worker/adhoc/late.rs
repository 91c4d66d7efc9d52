//! Tables that came to the source after it began (`worker::late`) and that can be read in the order of their key.

use super::{AdHoc, has_order, last_given, refuse};
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

    /// Asks for tables that the source wants to be read once more: at the boundary behind the transaction that showed it, before
    /// a checkpoint lies above that.
    pub fn ask_again(&mut self, begun: &mut Begun<'_>) {
        for given in std::mem::take(&mut begun.again) {
            let (name, source) = (given.qualified(), begun.session.config.source.clone());
            let is_read = begun.wants_rows(&given)
                && begun.late.has_stretches
                && has_order(&given)
                && !begun.late.statements.contains(&name);
            let number = begun.number_of(&given).filter(|_| is_read);
            let execute = Execute {
                id: Some("columns made again".into()),
                tables: Vec::new(),
                conditions: Vec::new(),
                rows_per_second: 0,
                blocking: false,
            };
            let seq = last_given(begun);
            let asked = number.map(|no| self.ask_for(begun, &execute, vec![no], seq));
            match asked {
                Some(Ok(_)) => log!(
                    Info,
                    "source.columns",
                    "source {source}: {name} had a column made again, or names exchanged, beside changes of its rows: they are read once more"
                ),
                Some(Err(_)) | None => log!(
                    Warn,
                    "source.columns",
                    "source {source}: {name} had a column made again, or names exchanged, beside changes of its rows: targets may show what they had in \
                     the one of before; compare, or read it again: catchwater pipeline reset"
                ),
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
