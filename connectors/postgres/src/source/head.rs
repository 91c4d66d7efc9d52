//! Where the server stands now: everything that was committed before the question ends at or below the answer.

use super::SourceConfig;
use super::errors::source_error;
use super::login::session;
use super::open::slot_row;
use super::slot;
use crate::catalog::{self, Wanted};
use crate::session::Session;
use crate::types::schema::PgTypes;
use catchwater_capture::source::SourceError;
use catchwater_change::Native;

const HEAD: &str = "SELECT ((CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END) \
    - '0/0'::pg_lsn)::int8, pg_size_bytes(current_setting('wal_segment_size'))";
/// Bytes of a page of WAL, of its header, and of the header of a segment's first page. Source: PostgreSQL's
/// `xlog_internal.h` (`XLOG_BLCKSZ`, `SizeOfXLogShortPHD`, `SizeOfXLogLongPHD`), sizes with 8-byte alignment.
const PAGE: u64 = 8192;
const SHORT_HEADER: u64 = 24;
const LONG_HEADER: u64 = 40;

/// Reads only; a connection of its own.
pub async fn head(config: &SourceConfig) -> Result<Native, SourceError> {
    let session = session(config).await?;
    let row = session.client.query_one(HEAD, &[]).await.map_err(|e| source_error(config, e.into()))?;
    Ok(Native::postgres(end_of(&row)))
}

/// The tables that the source would capture now, as `schema.table`, as the catalogue shows them; what cannot be captured is among
/// them. Reads only; a connection of its own.
///
/// # Errors
/// What a connection says.
pub async fn captured(config: &SourceConfig) -> Result<Vec<String>, SourceError> {
    let session = session(config).await?;
    let found = catalog::load(&session.client, Wanted::Captured(config), &mut PgTypes::new()).await;
    let found = found.map_err(|f| source_error(config, f))?;
    Ok(found.iter().map(|t| format!("{}.{}", t.schema, t.name)).collect())
}

/// The server's end of WAL now, as a stream counts; `None` = it gave no answer.
pub(super) async fn wal_end(sql: &Session) -> Option<u64> {
    let row = sql.client.query_one(HEAD, &[]).await.ok()?;
    Some(end_of(&row))
}

fn end_of(row: &tokio_postgres::Row) -> u64 {
    let (lsn, segment): (i64, i64) = (row.get(0), row.get(1));
    end_of_records(lsn.unsigned_abs(), segment.unsigned_abs())
}

/// Whether somebody streams from the source's slot now; `None` = it does not exist. Reads only.
///
/// # Errors
/// A slot that belongs to another database or plugin, besides what a connection says.
pub async fn is_slot_held(config: &SourceConfig) -> Result<Option<bool>, SourceError> {
    let session = session(config).await?;
    let Some(row) = slot_row(config, &session).await? else { return Ok(None) };
    // Of another database or plugin it is not the source's, and nobody could start from it.
    slot::judge_owner(&config.slot(), &row, &config.connect.database)?;
    Ok(Some(row.active_pid.is_some()))
}

/// The next record of an empty page is inserted behind the page's header, which no stream position ever says of what lies
/// before it: that ends where the page begins. No record ends at these places.
fn end_of_records(insert: u64, segment: u64) -> u64 {
    match insert % PAGE {
        LONG_HEADER if segment > 0 && insert % segment == LONG_HEADER => insert - LONG_HEADER,
        SHORT_HEADER => insert - SHORT_HEADER,
        _ => insert,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_a_page_header_is_where_the_page_begins() {
        const SEGMENT: u64 = 16 << 20;
        for (insert, want) in [
            (SEGMENT + 40, SEGMENT),
            (SEGMENT + PAGE + 24, SEGMENT + PAGE),
            (SEGMENT + PAGE + 40, SEGMENT + PAGE + 40),
            (SEGMENT + 48, SEGMENT + 48),
            (SEGMENT, SEGMENT),
            (0, 0),
        ] {
            assert_eq!(end_of_records(insert, SEGMENT), want, "{insert}");
        }
    }
}
