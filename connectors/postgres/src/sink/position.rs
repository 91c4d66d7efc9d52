//! Walk: row-change 15/17. The position row (deliver.md 7, the form is fixed): who may write, and up to where the source
//! is applied. A claim raises the fence; an advance is the last statement before COMMIT and must hit exactly one row.

use super::error::fault;
use super::{Claimed, SinkConfig};
use crate::codes::sink as code;
use crate::config::{quote_ident, quote_literal};
use crate::session::Session;
use bytes::Bytes;
use catchwater_base::{Wall, crash_point};
use catchwater_change::Native;
use catchwater_deliver::sink::{Claim, Mark, Owner, SinkClass, SinkError};
use catchwater_record::{CommitSeq, Incarnation};
use tokio_postgres::{Client, Row};

/// What a claim found.
pub struct Found {
    pub mark: Option<Mark>,
    /// As stored; -1 = nothing yet.
    pub seq: i64,
}

/// `seq` of a row that was claimed and holds nothing yet: no transaction has a number below 0.
const NOTHING: i64 = -1;

fn table(config: &SinkConfig) -> String {
    format!("{}.position", quote_ident(&config.state_schema))
}

/// Makes the table when it is missing. Without the right to do so it must be there.
pub async fn ensure(config: &SinkConfig, session: &Session) -> Result<(), SinkError> {
    let fail = |e: tokio_postgres::Error| fault(config, e.into());
    let name = table(config);
    let found = look(config, session).await?;
    if found.table {
        return Ok(());
    }
    let schema = quote_ident(&config.state_schema);
    // IF NOT EXISTS asks for the right to create schemas even where there is nothing to create.
    let make = match found.schema {
        true => String::new(),
        false => format!("CREATE SCHEMA IF NOT EXISTS {schema}; "),
    };
    let sql = format!(
        "{make}CREATE TABLE IF NOT EXISTS {name} (\
           pipeline text, sink text, source text, lane int, \
           cluster uuid NOT NULL, fence bigint NOT NULL, incarnation int NOT NULL, \
           seq bigint NOT NULL, done bytea NOT NULL, offsets bytea NOT NULL, \
           position text NOT NULL, commit_ts timestamptz, updated_at timestamptz NOT NULL, \
           PRIMARY KEY (pipeline, sink, source, lane)) WITH (fillfactor = 20)",
    );
    match session.client.batch_execute(&sql).await {
        Ok(()) => Ok(()),
        // Another worker made it at the same moment: IF NOT EXISTS does not cover that.
        Err(_) if look(config, session).await?.table => Ok(()),
        Err(e) if e.code().is_some_and(|c| c.code() == "42501") => Err(no_right(config, found.schema)),
        Err(e) => Err(fail(e)),
    }
}

fn no_right(config: &SinkConfig, has_schema: bool) -> SinkError {
    let (schema, user) = (quote_ident(&config.state_schema), quote_ident(&config.connect.user));
    let sql = match has_schema {
        true => format!("GRANT USAGE, CREATE ON SCHEMA {schema} TO {user};"),
        false => format!("CREATE SCHEMA {schema} AUTHORIZATION {user};"),
    };
    SinkError::new(
        SinkClass::Config,
        code::RIGHTS,
        format!("user '{}' may not make the position table {}", config.connect.user, table(config)),
        format!("as a superuser: {sql} then catchwater pipeline restart"),
    )
}

/// What [`ensure`] will need; nothing is made.
pub async fn preflight(config: &SinkConfig, session: &Session) -> Result<(), SinkError> {
    let row = session.client.query_one("SELECT current_setting('transaction_read_only') = 'on'", &[]).await;
    if row.map_err(|e| fault(config, e.into()))?.get(0) {
        return Err(SinkError::new(
            SinkClass::Config,
            code::READ_ONLY,
            format!("{} is read-only: a standby, or default_transaction_read_only is on", config.connect.place()),
            "name the primary in the URL, or all hosts with target_session_attrs=read-write",
        ));
    }
    let found = look(config, session).await?;
    if found.table || found.may_make { Ok(()) } else { Err(no_right(config, found.schema)) }
}

struct Looked {
    schema: bool,
    table: bool,
    /// The right to make what is missing.
    may_make: bool,
}

/// By the catalogue: `to_regclass` fails for want of the right to use the schema.
async fn look(config: &SinkConfig, session: &Session) -> Result<Looked, SinkError> {
    let sql = "SELECT n.oid IS NOT NULL, c.oid IS NOT NULL, CASE WHEN n.oid IS NULL \
         THEN has_database_privilege(current_database(), 'CREATE') \
         ELSE has_schema_privilege(n.oid, 'USAGE') AND has_schema_privilege(n.oid, 'CREATE') END \
       FROM (VALUES ($1::text)) w(name) LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = w.name \
         LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = 'position'";
    let row = session.client.query_one(sql, &[&config.state_schema]).await.map_err(|e| fault(config, e.into()))?;
    Ok(Looked { schema: row.get(0), table: row.get(1), may_make: row.get(2) })
}

/// Installs the fence; 0 rows = a newer owner or another cluster holds the row.
pub async fn claim(config: &SinkConfig, session: &Session, claim: &Claim) -> Result<Found, SinkError> {
    let fail = |e: tokio_postgres::Error| match e.code().map(|c| c.code()) {
        Some("42703" | "42804" | "42P10") => SinkError::new(
            SinkClass::Config,
            code::POSITION_TABLE,
            format!("table {} exists and is not a position table of ours", table(config)),
            "name another schema with state:",
        ),
        _ => fault(config, e.into()),
    };
    let name = table(config);
    let cluster = uuid_text(claim.cluster);
    let (pipeline, sink, source) = (claim.pipeline.as_str(), claim.sink.as_str(), claim.source.as_str());
    crash_point!("sink.before_claim");
    // One statement: rows of an earlier, larger number of lanes are fenced with it.
    let rows = session
        .client
        .query(
            &format!(
                "WITH others AS (UPDATE {name} SET fence = $6 WHERE pipeline = $1 AND sink = $2 AND source = $3 AND lane > 0 \
                   AND fence < $6 AND cluster = $5::text::uuid) \
                 INSERT INTO {name} AS position (pipeline, sink, source, lane, cluster, fence, incarnation, seq, done, offsets, position, updated_at) \
                 VALUES ($1, $2, $3, $4, $5::text::uuid, $6, $7, {NOTHING}, '', '', '', now()) \
                 ON CONFLICT (pipeline, sink, source, lane) DO UPDATE SET fence = excluded.fence \
                 WHERE position.fence < excluded.fence AND position.cluster = excluded.cluster \
                 RETURNING incarnation, seq, offsets, position, (extract(epoch FROM commit_ts) * 1000000)::bigint"
            ),
            &[&pipeline, &sink, &source, &0i32, &cluster, &claim.fence, &i32::from(claim.incarnation.0)],
        )
        .await
        .map_err(fail)?;
    crash_point!("sink.after_claim");
    match rows.first() {
        Some(row) => read(row).ok_or_else(|| {
            SinkError::new(
                SinkClass::Config,
                code::POSITION_TABLE,
                format!("the row of {pipeline}/{sink}/{source} in {name} cannot be read"),
                "it was changed by hand: restore it, or delete it to deliver everything again",
            )
        }),
        None => Err(why_refused(config, session, claim).await),
    }
}

/// Why a claim or an advance hit no row.
async fn why_refused(config: &SinkConfig, session: &Session, claim: &Claim) -> SinkError {
    let name = table(config);
    let row = session
        .client
        .query_opt(
            &format!(
                "SELECT cluster::text, fence FROM {name} WHERE pipeline = $1 AND sink = $2 AND source = $3 AND lane = 0"
            ),
            &[&claim.pipeline.as_str(), &claim.sink.as_str(), &claim.source.as_str()],
        )
        .await;
    let row = match row {
        Ok(row) => row,
        Err(e) => return fault(config, e.into()),
    };
    let Some(row) = row else {
        return SinkError::new(
            SinkClass::UnknownOutcome,
            code::MOVED,
            format!("the position row in {name} was deleted"),
            "",
        );
    };
    let (cluster, fence): (String, i64) = (row.get(0), row.get(1));
    if cluster != uuid_text(claim.cluster) {
        return SinkError::new(
            SinkClass::Config,
            code::FOREIGN_CLUSTER,
            format!("the target belongs to cluster {cluster}: its row in {name} says so"),
            format!(
                "two clusters must not write one target; if that one is gone (a throw-away dev that was killed): {}",
                delete_sql(config, claim.pipeline.as_str(), claim.sink.as_str(), &cluster)
            ),
        );
    }
    if fence >= claim.fence {
        return SinkError::new(
            SinkClass::Fenced,
            code::FENCED,
            format!("fence {fence} stands in the target, ours is {}: a newer worker delivers", claim.fence),
            "",
        );
    }
    SinkError::new(SinkClass::UnknownOutcome, code::MOVED, "the position in the target moved under us", "")
}

fn read(row: &Row) -> Option<Found> {
    let (incarnation, seq): (i32, i64) = (row.get(0), row.get(1));
    if seq == NOTHING {
        return Some(Found { mark: None, seq });
    }
    let offsets: Vec<u8> = row.get(2);
    let position: String = row.get(3);
    let commit: Option<i64> = row.get(4);
    Some(Found {
        seq,
        mark: Some(Mark {
            incarnation: Incarnation(u16::try_from(incarnation).ok()?),
            seq: CommitSeq(u64::try_from(seq).ok()?),
            offsets: Mark::decode_offsets(&offsets)?,
            native: native_of(&position)?,
            commit_time: Wall::from_micros(commit.unwrap_or(0)),
        }),
    })
}

/// The last statement before COMMIT. 0 rows: a newer owner, or an earlier transaction of ours got through after all.
pub async fn advance(config: &SinkConfig, session: &Session, claimed: &Claimed, mark: &Mark) -> Result<(), SinkError> {
    let claim = &claimed.claim;
    let seq = i64::try_from(mark.seq.0).map_err(|_| super::misuse("a commit sequence above 2^63"))?;
    let sql = format!(
        "UPDATE {} SET seq = $1, done = '', offsets = $2, position = $3, incarnation = $4, \
           commit_ts = 'epoch'::timestamptz + $5::bigint * interval '1 microsecond', updated_at = now() \
         WHERE pipeline = $6 AND sink = $7 AND source = $8 AND lane = 0 AND fence = $9 AND seq = $10",
        table(config)
    );
    let hit = session
        .client
        .execute(
            &sql,
            &[
                &seq,
                &mark.encode_offsets(),
                &mark.native.to_string(),
                &i32::from(mark.incarnation.0),
                &mark.commit_time.as_micros(),
                &claim.pipeline.as_str(),
                &claim.sink.as_str(),
                &claim.source.as_str(),
                &claim.fence,
                &claimed.seq(),
            ],
        )
        .await
        .map_err(|e| fault(config, e.into()))?;
    if hit == 1 { Ok(()) } else { Err(why_not_advanced(config, session, claimed).await) }
}

async fn why_not_advanced(config: &SinkConfig, session: &Session, claimed: &Claimed) -> SinkError {
    let client: &Client = &session.client;
    // Our rows must be gone before anybody looks further.
    if let Err(e) = client.batch_execute("ROLLBACK").await {
        return fault(config, e.into());
    }
    let name = table(config);
    let claim = &claimed.claim;
    let row = client
        .query_opt(
            &format!("SELECT fence FROM {name} WHERE pipeline = $1 AND sink = $2 AND source = $3 AND lane = 0"),
            &[&claim.pipeline.as_str(), &claim.sink.as_str(), &claim.source.as_str()],
        )
        .await;
    match row {
        Err(e) => fault(config, e.into()),
        Ok(Some(row)) if row.get::<_, i64>(0) == claim.fence => SinkError::new(
            SinkClass::UnknownOutcome,
            code::MOVED,
            format!("the position in {name} moved under us: an earlier commit of ours got through"),
            "",
        ),
        Ok(_) => why_refused(config, session, claim).await,
    }
}

/// Deletes the rows of one sink of one cluster; without the table there is nothing to do.
pub async fn forget(config: &SinkConfig, session: &Session, owner: &Owner) -> Result<(), SinkError> {
    let done = session
        .client
        .execute(
            &format!("DELETE FROM {} WHERE pipeline = $1 AND sink = $2 AND cluster = $3::text::uuid", table(config)),
            &[&owner.pipeline.as_str(), &owner.sink.as_str(), &uuid_text(owner.cluster)],
        )
        .await;
    match done {
        Ok(_) => Ok(()),
        Err(e) if e.code().is_some_and(|c| matches!(c.code(), "42P01" | "3F000")) => Ok(()),
        Err(e) => Err(fault(config, e.into())),
    }
}

/// The same for a person.
pub fn forget_sql(config: &SinkConfig, pipeline: &str, sink: &str, cluster: &[u8; 16]) -> String {
    delete_sql(config, pipeline, sink, &uuid_text(*cluster))
}

fn delete_sql(config: &SinkConfig, pipeline: &str, sink: &str, cluster: &str) -> String {
    format!(
        "DELETE FROM {} WHERE pipeline = {} AND sink = {} AND cluster = {};",
        table(config),
        quote_literal(pipeline),
        quote_literal(sink),
        quote_literal(cluster)
    )
}

/// Back from `Native`'s text for people.
fn native_of(text: &str) -> Option<Native> {
    if text.is_empty() {
        return Some(Native::default());
    }
    if let Some(seq) = text.strip_prefix("seq ") {
        return Some(Native::sqlite(seq.parse().ok()?));
    }
    if let Some((high, low)) = text.split_once('/') {
        let half = |t: &str| u32::from_str_radix(t, 16).ok().map(u64::from);
        return Some(Native::postgres(half(high)? << 32 | half(low)?));
    }
    let pairs = text.as_bytes().chunks(2);
    let bytes: Option<Vec<u8>> = pairs.map(|p| u8::from_str_radix(std::str::from_utf8(p).ok()?, 16).ok()).collect();
    Native::new(Bytes::from(bytes?))
}

fn uuid_text(id: [u8; 16]) -> String {
    let hex: String = id.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn natives_come_back_from_their_text() {
        for native in [
            Native::postgres(0x16_b374_8af0),
            Native::sqlite(12),
            Native::default(),
            Native::new(Bytes::from_static(&[2, 0xff, 0])).unwrap(),
        ] {
            assert_eq!(native_of(&native.to_string()), Some(native));
        }
    }

    #[test]
    fn uuids_print_as_the_server_does() {
        assert_eq!(uuid_text([7; 16]), "07070707-0707-0707-0707-070707070707");
    }
}
