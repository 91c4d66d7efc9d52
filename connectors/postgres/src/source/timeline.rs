//! A server that was promoted or set back: whether its history holds what the log holds.

use super::stream::{lsn_text, parse_lsn};
use super::transport::Transport;
use super::{SourceConfig, source_error};
use crate::codes::source as code;
use catchwater_capture::source::{SourceClass, SourceError};

pub(super) async fn history(
    config: &SourceConfig,
    transport: &mut Transport,
    timeline: u32,
) -> Result<Vec<u8>, SourceError> {
    let rows = transport.query(&format!("TIMELINE_HISTORY {timeline}")).await.map_err(|f| source_error(config, f))?;
    let content = rows.first().and_then(|r| r.get(1)?.as_ref().map(|b| b.to_vec()));
    Ok(content.unwrap_or_default())
}

/// The new timeline must have left ours at or after our position.
/// Source: PostgreSQL 15, `src/backend/access/transam/timeline.c`: lines `<parent timeline> <switch point> <reason>`.
pub(super) fn check_timeline(before: u32, now: u32, position: u64, history: &[u8]) -> Result<(), SourceError> {
    let text = String::from_utf8_lossy(history);
    let switch = text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let parent: u32 = words.next()?.parse().ok()?;
        (parent == before).then(|| parse_lsn(words.next()?))?
    });
    match switch {
        Some(switch) if position <= switch => Ok(()),
        Some(switch) => Err(SourceError::new(
            SourceClass::Gap,
            code::TIMELINE,
            format!(
                "the server switched from timeline {before} to {now} at {}, and the log holds changes up to {}: the new primary lacks them",
                lsn_text(switch),
                lsn_text(position)
            ),
            "the log and the new primary have different histories: the source must be read again",
        )),
        None => Err(SourceError::new(
            SourceClass::Gap,
            code::TIMELINE,
            format!("the server is on timeline {now}, whose history does not contain ours, {before}"),
            "the source must be read again",
        )),
    }
}

/// What was captured was on the server's disk before. One whose log ends in front of it was put back, with its slot and on the same
/// timeline, as a copy of its files or its disk does: it would begin anew where we have been, and be taken for known there.
pub(super) fn check_end(end: u64, position: u64) -> Result<(), SourceError> {
    if end >= position {
        return Ok(());
    }
    Err(SourceError::new(
        SourceClass::Gap,
        code::TIMELINE,
        format!(
            "the server's log ends at {}, and ours holds changes up to {}: the server was put back to an earlier state",
            lsn_text(end),
            lsn_text(position)
        ),
        "the log and the server have different histories: the source must be read again",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_was_put_back_is_seen_by_the_end_of_its_log() {
        assert!(check_end(0x300_0000, 0x300_0000).is_ok());
        let why = check_end(0x2ff_ffff, 0x300_0000).map_err(|e| (e.class, e.code.0));
        assert_eq!(why, Err((SourceClass::Gap, code::TIMELINE)));
    }

    #[test]
    fn a_promoted_server_must_hold_what_the_log_holds() {
        let history = b"1\t0/3000000\tno recovery target specified\n\n2\t0/5000000\tbefore 2026\n";
        assert!(check_timeline(1, 3, 0x300_0000, history).is_ok());
        assert_eq!(check_timeline(1, 3, 0x300_0001, history).map_err(|e| e.class), Err(SourceClass::Gap));
        assert!(check_timeline(2, 3, 0x4ff_ffff, history).is_ok());
        assert_eq!(check_timeline(7, 3, 1, history).map_err(|e| e.class), Err(SourceClass::Gap));
    }
}
