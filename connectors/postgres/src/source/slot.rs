//! Pure. May this slot be used? Compares what the server shows with what the log holds (capture.md 8.3).

use crate::codes::source as code;
use catchwater_capture::source::{SourceClass, SourceError};
use catchwater_record::CaptureEpoch;

/// A row of `pg_replication_slots`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlotRow {
    pub plugin: String,
    pub database: String,
    pub active_pid: Option<i32>,
    /// Who holds it, when that may be seen.
    pub active_application: Option<String>,
    pub confirmed: Option<u64>,
    pub wal_status: String,
}

/// What to do with a slot that passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Free,
    /// An older worker of ours holds it: terminate that connection, look again.
    OursBefore {
        pid: i32,
    },
}

const PREFIX: &str = "catchwater/";

/// `catchwater/<source>/<epoch>`; a long source name is cut so that the epoch stays inside PostgreSQL's 63 bytes.
pub fn application(source: &str, epoch: CaptureEpoch) -> String {
    let epoch = format!("/{epoch}");
    let room = crate::config::NAME_BYTES_MAX - PREFIX.len() - epoch.len();
    let mut cut = source.len().min(room);
    while !source.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{PREFIX}{}{epoch}", &source[..cut])
}

/// The epoch in a name made by [`application`] for this source.
fn epoch_of(application_name: &str, source: &str) -> Option<CaptureEpoch> {
    let (_, epoch) = application_name.rsplit_once('/')?;
    let epoch = CaptureEpoch(epoch.parse().ok()?);
    (application(source, epoch) == application_name).then_some(epoch)
}

/// Refuses a slot of another database or plugin.
pub fn judge_owner(slot: &str, row: &SlotRow, database: &str) -> Result<(), SourceError> {
    if row.plugin == "pgoutput" && row.database == database {
        return Ok(());
    }
    let what = format!(
        "replication slot {slot} belongs to plugin '{}' in database '{}', not to pgoutput in '{database}'",
        row.plugin, row.database
    );
    Err(SourceError::new(
        SourceClass::Config,
        code::SLOT_FOREIGN,
        what,
        "give the source another slot name, or the slot's database",
    ))
}

/// What this slot row means for a start after `position` (`None` = only who holds it is asked).
pub fn judge(
    slot: &str,
    row: Option<&SlotRow>,
    database: &str,
    position: Option<u64>,
    source: &str,
    ours: CaptureEpoch,
) -> Result<Verdict, SourceError> {
    let fail = |class, code, what: String, next: &str| Err(SourceError::new(class, code, what, next));
    let Some(row) = row else {
        return fail(
            SourceClass::Gap,
            code::SLOT_MISSING,
            format!("replication slot {slot} does not exist: the changes since our position are not kept"),
            "find out who dropped it; the source must be read again",
        );
    };
    judge_owner(slot, row, database)?;
    if row.wal_status == "lost" || (row.confirmed.is_none() && position.is_some()) {
        return fail(
            SourceClass::Gap,
            code::SLOT_LOST,
            format!("replication slot {slot} was invalidated: the server removed WAL that it still needed"),
            "raise max_slot_wal_keep_size; the source must be read again",
        );
    }
    if let (Some(confirmed), Some(position)) = (row.confirmed, position)
        && confirmed > position
    {
        return fail(
            SourceClass::Gap,
            code::SLOT_AHEAD,
            format!(
                "replication slot {slot} is confirmed up to {}, but the log holds changes only up to {}",
                super::stream::lsn_text(confirmed),
                super::stream::lsn_text(position)
            ),
            "somebody else read from the slot, or it was made anew, or the log went back: the source must be read again",
        );
    }
    let Some(pid) = row.active_pid else { return Ok(Verdict::Free) };
    let holder = row.active_application.as_deref().unwrap_or("");
    match epoch_of(holder, source) {
        // Our own epoch: a connection of this very lease whose end the server has not noticed.
        Some(epoch) if epoch <= ours => Ok(Verdict::OursBefore { pid }),
        Some(epoch) => fail(
            SourceClass::Config,
            code::SLOT_IN_USE,
            format!("replication slot {slot} is used by a newer worker of this source (epoch {epoch}, ours is {ours})"),
            "",
        ),
        None => fail(
            // A connection without a name may be one that begins or ends, also our own of before a kill: looked at again.
            if holder.is_empty() { SourceClass::Retry } else { SourceClass::Config },
            code::SLOT_IN_USE,
            format!("replication slot {slot} is in use by process {pid} (application_name '{holder}')"),
            "end that process, or give the source another slot name",
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn row() -> SlotRow {
        SlotRow {
            plugin: "pgoutput".into(),
            database: "shop".into(),
            active_pid: None,
            active_application: None,
            confirmed: Some(100),
            wal_status: "reserved".into(),
        }
    }

    fn check(row: Option<SlotRow>, want: Result<Verdict, (SourceClass, u16)>) {
        let got = judge("s", row.as_ref(), "shop", Some(100), "src", CaptureEpoch(5));
        assert_eq!(got.map_err(|e| (e.class, e.code.0)), want, "{row:?}");
    }

    #[test]
    fn slots_as_they_may_be_found() {
        check(Some(row()), Ok(Verdict::Free));
        check(Some(SlotRow { confirmed: Some(99), ..row() }), Ok(Verdict::Free));
        check(Some(SlotRow { confirmed: Some(101), ..row() }), Err((SourceClass::Gap, code::SLOT_AHEAD)));
        check(None, Err((SourceClass::Gap, code::SLOT_MISSING)));
        check(Some(SlotRow { plugin: "wal2json".into(), ..row() }), Err((SourceClass::Config, code::SLOT_FOREIGN)));
        check(Some(SlotRow { database: "other".into(), ..row() }), Err((SourceClass::Config, code::SLOT_FOREIGN)));
        check(Some(SlotRow { wal_status: "lost".into(), ..row() }), Err((SourceClass::Gap, code::SLOT_LOST)));
        let held = |name: &str| Some(SlotRow { active_pid: Some(7), active_application: Some(name.into()), ..row() });
        check(held("catchwater/src/4"), Ok(Verdict::OursBefore { pid: 7 }));
        check(held("catchwater/src/5"), Ok(Verdict::OursBefore { pid: 7 }));
        check(held("catchwater/src/6"), Err((SourceClass::Config, code::SLOT_IN_USE)));
        check(held("catchwater/other/4"), Err((SourceClass::Config, code::SLOT_IN_USE)));
        check(held(""), Err((SourceClass::Retry, code::SLOT_IN_USE)));
        check(held("debezium"), Err((SourceClass::Config, code::SLOT_IN_USE)));
    }

    #[test]
    fn long_names_keep_their_epoch() {
        let name = application(&"a".repeat(80), CaptureEpoch(123));
        assert_eq!(name.len(), 63);
        assert_eq!(epoch_of(&name, &"a".repeat(80)), Some(CaptureEpoch(123)));
        assert_eq!(epoch_of(&name, "b"), None);
    }
}
