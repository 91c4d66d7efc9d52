//! What had committed is visible.
//!
//! A commit is in the WAL, hence in our stream, before views of the server show it: for microseconds as a rule, for as long
//! as it takes where its backend waits for a synchronous standby. Who takes a view to be placed behind the stream's start,
//! and cannot know by name what came before that start, waits here first.

use super::transport::Transport;
use super::{SourceConfig, source_error};
use bytes::Bytes;
use catchwater_base::log;
use catchwater_capture::source::SourceError;
use catchwater_runtime::time::sleep;
use std::collections::BTreeSet;
use std::time::Duration;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// After so many (10 s) it is told what is waited for.
const LOOKS: u32 = 200;

/// Waits until every view shows all that had committed before the call. Of the transactions that had an id then, those are
/// waited for that may have committed: one that is seen idle, in wait for its client's next statement, has not. (Who may
/// not see others' activity cannot tell, and waits for the end of all of them; so does everybody for prepared ones.)
pub(super) async fn wait_for_commits(config: &SourceConfig, reader: &mut Transport) -> Result<(), SourceError> {
    let fail = |f| source_error(config, f);
    // Ids that are given out from here on are above it.
    let own = reader.query("SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text").await.map_err(fail)?;
    let own = own.first().and_then(|r| text(r.first()?)).unwrap_or_default();
    // An activity is read before its backend's id, so one that is idle here was idle with this id or before it had one.
    let sql = format!(
        "SELECT x::pg_catalog.text, EXISTS (SELECT 1 FROM pg_catalog.pg_stat_activity a \
           WHERE a.backend_xid = x::pg_catalog.xid AND a.state LIKE 'idle in transaction%')::pg_catalog.text \
         FROM pg_catalog.pg_snapshot_xip(pg_catalog.pg_current_snapshot()) AS x WHERE x < '{own}'::pg_catalog.xid8"
    );
    let (mut idle, mut looks) = (BTreeSet::new(), 0u32);
    loop {
        let mut waits = Vec::new();
        for row in reader.query(&sql).await.map_err(fail)? {
            let Some(xid) = row.first().and_then(text) else { continue };
            if row.get(1).and_then(text).as_deref() == Some("true") {
                idle.insert(xid);
            } else if !idle.contains(&xid) {
                waits.push(xid);
            }
        }
        if waits.is_empty() {
            return Ok(());
        }
        looks = looks.saturating_add(1);
        if looks == LOOKS {
            let (name, ids) = (&config.source, waits.join(", "));
            log!(Warn, "source.waits_for_commits", "source {name}: a snapshot waits for the end of transactions {ids}");
        }
        sleep(PAUSE).await;
    }
}

fn text(value: &Option<Bytes>) -> Option<String> {
    Some(String::from_utf8_lossy(value.as_ref()?).into_owned())
}
