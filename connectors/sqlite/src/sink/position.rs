//! Where a sink stands: one row per (pipeline, sink, source, lane) of `catchwater_position`, in the target itself, changed
//! in the same transaction as the rows. The table of deliver.md 7 in SQLite's words; `seq` is NULL until the first
//! commit, `native` holds the bytes of what `position` shows to people.

use crate::codes;
use crate::fault;
use catchwater_base::Wall;
use catchwater_change::Native;
use catchwater_deliver::sink::{Claim, Mark, Owner, SinkClass, SinkError};
use catchwater_record::{CommitSeq, Incarnation};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS catchwater_position(
  pipeline TEXT NOT NULL, sink TEXT NOT NULL, source TEXT NOT NULL, lane INTEGER NOT NULL,
  cluster BLOB NOT NULL, fence INTEGER NOT NULL, incarnation INTEGER NOT NULL,
  seq INTEGER, done BLOB NOT NULL, offsets BLOB NOT NULL, position TEXT NOT NULL, native BLOB NOT NULL,
  commit_us INTEGER NOT NULL, updated_at TEXT NOT NULL,
  PRIMARY KEY (pipeline, sink, source, lane))";

fn fenced() -> SinkError {
    SinkError::new(SinkClass::Fenced, codes::SINK_FENCED, "a newer owner holds the target", "")
}

/// Installs the fence; returns what the target holds.
pub fn claim(db: &mut Connection, claim: &Claim) -> Result<Option<Mark>, SinkError> {
    let failed = |e: rusqlite::Error| fault::sink("claim the target", &e);
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    tx.execute_batch(TABLE).map_err(failed)?;
    let names = params![claim.pipeline.as_str(), claim.sink.as_str(), claim.source.as_str()];
    let found: Option<(Vec<u8>, i64)> = tx
        .query_row(
            "SELECT cluster, fence FROM catchwater_position WHERE pipeline = ?1 AND sink = ?2 AND source = ?3 AND lane = 0",
            names,
            |r| Ok((r.get(0)?, r.get(1)?)),
        )
        .optional()
        .map_err(failed)?;
    match found {
        Some((cluster, _)) if cluster != claim.cluster => {
            return Err(SinkError::new(
                SinkClass::Config,
                codes::SINK_FOREIGN,
                "the target is held by another Catchwater cluster",
                format!(
                    "give this sink a target of its own; if that cluster is gone (a throw-away dev that was killed): {}",
                    forget_sql(claim.pipeline.as_str(), claim.sink.as_str(), &cluster)
                ),
            ));
        }
        Some((_, fence)) if fence >= claim.fence => return Err(fenced()),
        _ => {}
    }
    tx.execute(
        "INSERT INTO catchwater_position VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6, NULL, x'', x'', '', x'', 0, datetime('now')) \
         ON CONFLICT (pipeline, sink, source, lane) DO UPDATE SET fence = excluded.fence",
        params![
            claim.pipeline.as_str(),
            claim.sink.as_str(),
            claim.source.as_str(),
            &claim.cluster[..],
            claim.fence,
            i64::from(claim.incarnation.0)
        ],
    )
    .map_err(failed)?;
    let mark = read(&tx, claim)?;
    tx.commit().map_err(failed)?;
    Ok(mark)
}

/// Deletes the rows of one sink of one cluster; without the table there is nothing to do.
pub fn forget(db: &mut Connection, owner: &Owner) -> Result<(), SinkError> {
    let failed = |e: rusqlite::Error| fault::sink("delete the position", &e);
    if !crate::catalog::exists(db, "catchwater_position").map_err(failed)? {
        return Ok(());
    }
    // After a power cut the row may be there again: refused with its SQL, and the end does not wait for the disk.
    db.pragma_update(None, "synchronous", "NORMAL").map_err(failed)?;
    db.execute(
        "DELETE FROM catchwater_position WHERE pipeline = ?1 AND sink = ?2 AND cluster = ?3",
        params![owner.pipeline.as_str(), owner.sink.as_str(), &owner.cluster[..]],
    )
    .map(drop)
    .map_err(failed)
}

/// The same for a person.
pub fn forget_sql(pipeline: &str, sink: &str, cluster: &[u8]) -> String {
    let hex: String = cluster.iter().map(|b| format!("{b:02x}")).collect();
    // Names of pipelines and sinks are `[a-z0-9_]`.
    format!("DELETE FROM catchwater_position WHERE pipeline = '{pipeline}' AND sink = '{sink}' AND cluster = x'{hex}';")
}

fn read(db: &Connection, claim: &Claim) -> Result<Option<Mark>, SinkError> {
    let failed = |e: rusqlite::Error| fault::sink("read the position", &e);
    type Stored = (i64, Option<i64>, Vec<u8>, Vec<u8>, i64);
    let (incarnation, seq, offsets, native, commit_us): Stored = db
        .query_row(
            "SELECT incarnation, seq, offsets, native, commit_us FROM catchwater_position \
             WHERE pipeline = ?1 AND sink = ?2 AND source = ?3 AND lane = 0",
            params![claim.pipeline.as_str(), claim.sink.as_str(), claim.source.as_str()],
            |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?)),
        )
        .map_err(failed)?;
    let Some(seq) = seq else { return Ok(None) };
    let damaged = || {
        SinkError::new(
            SinkClass::Config,
            codes::SINK_MOVED,
            "the row of this sink in catchwater_position cannot be read",
            "somebody changed it: restore the target, or begin again under a new sink name",
        )
    };
    Ok(Some(Mark {
        incarnation: Incarnation(u16::try_from(incarnation).map_err(|_| damaged())?),
        seq: CommitSeq(u64::try_from(seq).map_err(|_| damaged())?),
        offsets: Mark::decode_offsets(&offsets).ok_or_else(damaged)?,
        native: Native::new(native.into()).ok_or_else(damaged)?,
        commit_time: Wall::from_micros(commit_us),
    }))
}

/// Does this claim still hold the target, and where did it stand? Inside a write transaction, so the answer stays true
/// until its end.
pub fn check(db: &Connection, claim: &Claim) -> Result<Option<i64>, SinkError> {
    let failed = |e: rusqlite::Error| fault::sink("check the fence", &e);
    let found: Option<(i64, Option<i64>)> = db
        .prepare_cached(
            "SELECT fence, seq FROM catchwater_position WHERE pipeline = ?1 AND sink = ?2 AND source = ?3 AND lane = 0",
        )
        .and_then(|mut s| {
            s.query_row(params![claim.pipeline.as_str(), claim.sink.as_str(), claim.source.as_str()], |r| {
                Ok((r.get(0)?, r.get(1)?))
            })
            .optional()
        })
        .map_err(failed)?;
    match found {
        Some((fence, seq)) if fence == claim.fence => Ok(seq),
        Some(_) => Err(fenced()),
        None => Err(SinkError::new(
            SinkClass::UnknownOutcome,
            codes::SINK_MOVED,
            "the row of this sink in catchwater_position is gone",
            "",
        )),
    }
}

/// The last statement of a transaction: hits exactly one row, else nothing of it may stand.
pub fn advance(db: &Connection, claim: &Claim, prev: Option<i64>, mark: &Mark) -> Result<(), SinkError> {
    let failed = |e: rusqlite::Error| fault::sink("write the position", &e);
    let hit = db
        .prepare_cached(
            "UPDATE catchwater_position SET incarnation = ?1, seq = ?2, offsets = ?3, position = ?4, native = ?5, \
             commit_us = ?6, updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') \
             WHERE pipeline = ?7 AND sink = ?8 AND source = ?9 AND lane = 0 AND fence = ?10 AND seq IS ?11",
        )
        .and_then(|mut s| {
            s.execute(params![
                i64::from(mark.incarnation.0),
                mark.seq.0 as i64,
                mark.encode_offsets(),
                mark.native.to_string(),
                mark.native.as_bytes(),
                mark.commit_time.as_micros(),
                claim.pipeline.as_str(),
                claim.sink.as_str(),
                claim.source.as_str(),
                claim.fence,
                prev,
            ])
        })
        .map_err(failed)?;
    match hit {
        1 => Ok(()),
        _ => Err(SinkError::new(
            SinkClass::UnknownOutcome,
            codes::SINK_MOVED,
            "the position is not where this sink left it",
            "it is opened again and read",
        )),
    }
}
