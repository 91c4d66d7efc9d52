//! Pure. Where a Debezium connector stands, as Kafka Connect keeps it, and what is left of the transaction it stands in:
//! a source that takes over its slot begins behind the last row that Debezium gave out, with none twice and none missing.
//!
//! Debezium keeps two places: `lsn_commit`, the end of the last transaction it has done with, and the row it gave out last
//! (`lsn_proc`, its transaction `txId`, and how many rows it gave out of those that share that place). The next transaction
//! behind the first is either that of the row, of which a beginning is left out, or another, of which nothing is.
//! Source: debezium/debezium, `WalPositionLocator`, `PostgresOffsetContext`, 3.7.0; recordings `offsets.jsonl`.

/// What was given out before the take-over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// End of the commit record of the last transaction that is done with.
    pub commit: u64,
    /// The transaction behind it that is partly done with.
    pub part: Option<Part>,
}

/// Rows of one transaction that were given out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// The wire's 32 bits of it.
    pub xid: u32,
    /// All of its rows below this place …
    pub lsn: u64,
    /// … and so many at it.
    pub rows: u64,
}

/// The numbers of an offset that matter. Absent = `None`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ConnectOffset {
    pub lsn: Option<u64>,
    pub lsn_proc: Option<u64>,
    pub lsn_commit: Option<u64>,
    pub lsn_events_processed: Option<u64>,
    pub tx_id: Option<u64>,
    pub message_type: String,
    /// `snapshot` is set: a snapshot's offset.
    pub snapshot: bool,
    pub snapshot_completed: bool,
}

impl Taken {
    /// `Err` = why such an offset cannot be taken over.
    pub fn from_connect(offset: &ConnectOffset) -> Result<Taken, String> {
        if offset.snapshot {
            if !offset.snapshot_completed {
                return Err("a snapshot is under way there: let it end".into());
            }
            let commit = offset.lsn.ok_or("the offset has no lsn")?;
            return Ok(Taken { commit, part: None });
        }
        let commit = offset.lsn_commit.ok_or("the offset has no lsn_commit: let it capture another transaction")?;
        let Some(lsn) = offset.lsn_proc.or(offset.lsn) else { return Ok(Taken { commit, part: None }) };
        let rows = match offset.message_type.as_str() {
            // Nothing of a transaction is given out with its begin; with its commit it is done with.
            "BEGIN" | "COMMIT" => return Ok(Taken { commit, part: None }),
            "MESSAGE" => 1,
            // Releases before 3.7 do not count rows that share a place (COPY): at least one was given out.
            _ => offset.lsn_events_processed.unwrap_or(1),
        };
        let xid = offset.tx_id.ok_or("the offset has no txId")? as u32;
        Ok(Taken { commit, part: Some(Part { xid, lsn, rows }) })
    }
}

impl Part {
    /// True if the next row of the transaction, at this place, was given out. Counts.
    pub fn had(&mut self, lsn: u64) -> bool {
        if lsn == self.lsn && self.rows > 0 {
            self.rows -= 1;
            return true;
        }
        lsn < self.lsn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset() -> ConnectOffset {
        ConnectOffset {
            lsn: Some(110),
            lsn_proc: Some(110),
            lsn_commit: Some(100),
            lsn_events_processed: Some(2),
            tx_id: Some(7),
            message_type: "INSERT".into(),
            ..ConnectOffset::default()
        }
    }

    #[test]
    fn a_row_names_its_transaction_and_how_much_of_it_is_done() {
        let taken = Taken::from_connect(&offset());
        assert_eq!(taken, Ok(Taken { commit: 100, part: Some(Part { xid: 7, lsn: 110, rows: 2 }) }));
        let mut part = Part { xid: 7, lsn: 110, rows: 2 };
        let had: Vec<bool> = [90, 104, 110, 110, 110, 120].into_iter().map(|lsn| part.had(lsn)).collect();
        assert_eq!(had, [true, true, true, true, false, false]);
    }

    #[test]
    fn what_else_an_offset_may_be() {
        for kind in ["BEGIN", "COMMIT"] {
            let o = ConnectOffset { message_type: kind.into(), ..offset() };
            assert_eq!(Taken::from_connect(&o), Ok(Taken { commit: 100, part: None }));
        }
        let old = ConnectOffset { lsn_events_processed: None, ..offset() };
        assert_eq!(Taken::from_connect(&old).ok().and_then(|t| t.part).map(|p| p.rows), Some(1));
        let snapshot = ConnectOffset { snapshot: true, lsn_commit: None, ..offset() };
        assert!(Taken::from_connect(&snapshot).is_err());
        let done = ConnectOffset { snapshot_completed: true, ..snapshot };
        assert_eq!(Taken::from_connect(&done), Ok(Taken { commit: 110, part: None }));
        assert!(Taken::from_connect(&ConnectOffset { lsn_commit: None, ..offset() }).is_err());
        assert!(Taken::from_connect(&ConnectOffset { tx_id: None, ..offset() }).is_err());
    }
}
