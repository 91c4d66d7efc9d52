//! `SnapshotMode::Always`: a worker that begins reads its tables once more, as one blocking snapshot. It is asked for here, in
//! the log as any other, so that one which is interrupted goes on at the next start and none is begun beside it.
//!
//! Tables without a key are not read in its order: each is read again as a whole, as after a crash (`fill`).

use super::{AdHoc, Job, has_order, refuse};
use crate::error::Trouble;
use crate::signal::Execute;
use crate::worker::start::{Begun, History};
use catchwater_change::TableSchema;
use catchwater_change::checkpoint::{ChunkPhase, ChunkRecord, WHOLE_TABLE, chunk_flag};
use catchwater_record::CommitSeq;

/// Id of what is asked for, where a signal has its own.
const ID: &str = "snapshot.mode";

/// One that an earlier worker asked for is not at its end.
pub(in crate::worker) fn is_begun(history: &History) -> bool {
    let is_open = |c: &ChunkRecord| matches!(c.phase, ChunkPhase::Planned | ChunkPhase::Open);
    history
        .chunks
        .iter()
        .filter(|((.., unit), c)| *unit == WHOLE_TABLE && c.flags & chunk_flag::AD_HOC != 0 && is_open(c))
        .any(|((snapshot, table_no, _), c)| Job::restored(*snapshot, *table_no, c).id.as_deref() == Some(ID))
}

impl<'a> AdHoc<'a> {
    pub(in crate::worker) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Asks for all tables that the snapshots of this source have; durable when it returns.
    pub(in crate::worker) async fn read_again(&mut self, begun: &mut Begun<'a>) -> Result<(), Trouble> {
        let config = &begun.session.config;
        let (pattern, signals) = (config.snapshot_tables.clone(), config.signals.table.clone());
        let is_read = |t: &TableSchema| {
            let name = t.qualified();
            !t.key.is_empty() && signals.as_ref() != Some(&name) && pattern.as_ref().is_none_or(|p| p.fits(&name))
        };
        // In the source's own order: parents before children.
        let given = begun.opened.tables.iter().filter(|t| is_read(t));
        let (ordered, others): (Vec<_>, Vec<_>) = given.cloned().partition(|t| has_order(t));
        for table in others {
            refuse(begun, &format!("{} is not read again: its key may be NULL", table.qualified()));
        }
        let number = |t: &std::sync::Arc<TableSchema>| {
            begun.numbered.get(&(std::sync::Arc::as_ptr(t) as usize)).map(|n| n.table.table_no)
        };
        let numbers: Vec<u32> = ordered.iter().filter_map(number).collect();
        if !numbers.is_empty() {
            let execute = Execute {
                id: Some(ID.into()),
                tables: Vec::new(),
                conditions: Vec::new(),
                rows_per_second: 0,
                blocking: true,
            };
            if let Err(why) = self.ask_for(begun, &execute, numbers, CommitSeq(0)) {
                refuse(begun, &format!("the tables are not read again: {why}"));
            }
        }
        begun.session.flush_stored().await?;
        begun.session.tell_finished().await
    }
}
