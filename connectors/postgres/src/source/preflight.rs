//! What stands in the way of a source, all of it at once, each with the SQL that cures it (capture.md 8.4). Reads only.

use super::autoset;
use super::login::session;
use super::open::{
    GUARDRAIL_CURE, VERSION_MIN, create_publication_sql, difference, publication, quoted, too_old, uncapturable,
};
use super::{SourceConfig, source_error};
use crate::catalog::{self, Wanted};
use crate::codes::source as code;
use crate::config::quote_ident;
use crate::fault::Fault;
use crate::session::Session;
use crate::types::schema::PgTypes;
use catchwater_capture::source::{Finding, Severity, SourceError};
use catchwater_record::ErrorCode;

/// A transaction open for longer holds up the making of a slot.
const OLD_TRANSACTION_S: f64 = 60.0;

fn finding(code: u16, fault: String, evidence: String, cure: &str, sql: Vec<String>) -> Finding {
    Finding {
        code: ErrorCode(code),
        severity: Severity::Error,
        fault,
        evidence,
        cure: cure.to_owned(),
        sql,
        retry: false,
    }
}

pub(super) async fn run(config: &SourceConfig) -> Vec<Finding> {
    let mut out = Vec::new();
    if let Err(e) = look(config, &mut out).await {
        out.push(Finding {
            retry: e.is_retry(),
            code: e.code,
            severity: Severity::Error,
            fault: e.what,
            evidence: String::new(),
            cure: e.next,
            sql: Vec::new(),
        });
    }
    out
}

async fn look(config: &SourceConfig, out: &mut Vec<Finding>) -> Result<(), SourceError> {
    let sql = session(config).await?;
    let fail = |e: tokio_postgres::Error| source_error(config, Fault::from(e));
    let version = sql.version().await.map_err(|f| source_error(config, f))?;
    if version < VERSION_MIN {
        return Err(too_old(version));
    }
    if let Some(how) = sql.exposure(&config.connect) {
        out.push(Finding {
            severity: Severity::Warning,
            ..finding(
                code::EXPOSED,
                "others on the network may read the rows or stand in for the server".into(),
                how,
                "put sslmode=verify-full and sslrootcert into the URL",
                vec![],
            )
        });
    }
    server(config, &sql, out).await.map_err(fail)?;
    let mut types = PgTypes::new();
    let found = catalog::load(&sql.client, Wanted::Captured(config), &mut types).await;
    let found = found.map_err(|f| source_error(config, f))?;
    for wanted in config.missing(found.iter().map(|f| (f.schema.as_str(), f.name.as_str()))) {
        out.push(finding(
            code::NO_TABLE,
            format!("table {wanted} does not exist"),
            format!("database {} has no such relation", config.connect.database),
            "check the spelling; names are case-sensitive and need their schema unless it is public",
            vec![],
        ));
    }
    if let Some((guardrail, what)) = config.above_guardrail(found.len()) {
        let evidence = "guardrail.collections.limit.action says what follows".into();
        let severity = if guardrail.fails { Severity::Error } else { Severity::Warning };
        out.push(Finding { severity, ..finding(code::GUARDRAIL, what, evidence, GUARDRAIL_CURE, vec![]) });
    }
    let mut capturable = Vec::new();
    for t in found {
        let name = format!("{}.{}", t.schema, t.name);
        if let Some(what) = uncapturable(config, &t) {
            out.push(finding(
                code::TABLE_KIND,
                format!("{name} cannot be captured"),
                format!("it is {what}: the server writes no logical changes of it"),
                "take it out of the source's tables",
                if t.persistence == b'u' { vec![format!("ALTER TABLE {} SET LOGGED;", quoted(&t))] } else { vec![] },
            ));
            continue;
        }
        if t.lacks_identity() && !config.without_identity && !autoset::gives(config, &t) {
            out.push(finding(
                code::NO_IDENTITY,
                format!("table {name} has no replica identity"),
                "it has no primary key, and its REPLICA IDENTITY names nothing: UPDATE and DELETE of the application would fail".into(),
                "give it a primary key, or let old rows be written in full",
                vec![format!("ALTER TABLE {} REPLICA IDENTITY FULL;", quoted(&t))],
            ));
        }
        if !t.may_select {
            out.push(finding(
                code::NO_SELECT,
                format!("user '{}' may not read table {name}", config.connect.user),
                "the snapshot needs SELECT".into(),
                "grant it",
                vec![format!("GRANT SELECT ON {} TO {};", quoted(&t), quote_ident(&config.connect.user))],
            ));
        }
        if t.rows_hidden {
            out.push(finding(
                code::NO_SELECT,
                format!("row-level security of {name} may hide rows from user '{}'", config.connect.user),
                "the snapshot would lack them, while the stream has all".into(),
                "let the user see every row",
                vec![format!("ALTER ROLE {} BYPASSRLS;", quote_ident(&config.connect.user))],
            ));
        }
        capturable.push(t);
    }
    match publication(config, &sql, version).await? {
        Some(p) => {
            if let Some((what, cure)) = difference(config, &p, &capturable, true, None, version) {
                out.push(finding(
                    code::PUBLICATION,
                    format!("publication {} does not fit the source", config.publication()),
                    what,
                    "set it to the captured tables, or name another publication",
                    vec![cure],
                ));
            }
        }
        None if capturable.is_empty() => {}
        None => {
            let row = sql.client.query_one("SELECT has_database_privilege(current_database(), 'CREATE')", &[]).await;
            let may_create: bool = row.map_err(fail)?.get(0);
            let foreign: Vec<String> =
                capturable.iter().filter(|t| !t.owned).map(|t| format!("{}.{}", t.schema, t.name)).collect();
            if !may_create || !foreign.is_empty() {
                let mut evidence = Vec::new();
                if !may_create {
                    evidence.push(format!("no CREATE on database {}", config.connect.database));
                }
                if !foreign.is_empty() {
                    evidence.push(format!("not owner of {}", foreign.join(", ")));
                }
                out.push(finding(
                    code::NO_PUBLICATION_RIGHT,
                    format!("user '{}' may not create the publication", config.connect.user),
                    evidence.join("; "),
                    "create it once as a superuser",
                    vec![format!("{};", create_publication_sql(config, &capturable, version))],
                ));
            }
        }
    }
    Ok(())
}

async fn server(config: &SourceConfig, sql: &Session, out: &mut Vec<Finding>) -> Result<(), tokio_postgres::Error> {
    let row = sql
        .client
        .query_one(
            "SELECT current_setting('wal_level'), \
               current_setting('max_replication_slots')::int8 - (SELECT count(*) FROM pg_replication_slots), \
               current_setting('max_wal_senders')::int8 - (SELECT count(*) FROM pg_stat_replication), \
               (SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user), \
               EXISTS (SELECT 1 FROM pg_roles WHERE rolname IN ('rds_replication', 'cloudsqlreplica') \
                 AND pg_has_role(oid, 'MEMBER')), \
               EXISTS (SELECT 1 FROM pg_replication_slots WHERE slot_name = $1::text::name), \
               (SELECT count(*) FROM pg_replication_slots WHERE NOT active), \
               pg_is_in_recovery()",
            &[&config.slot()],
        )
        .await?;
    let wal_level: String = row.get(0);
    let (slots, senders): (i64, i64) = (row.get(1), row.get(2));
    let (replication, cloud, slot_exists): (bool, bool, bool) = (row.get(3), row.get(4), row.get(5));
    let unused: i64 = row.get(6);
    if wal_level != "logical" {
        out.push(finding(
            code::WAL_LEVEL,
            "the server does not write logical changes".into(),
            format!("wal_level = {wal_level}"),
            "set it and restart the server",
            vec!["ALTER SYSTEM SET wal_level = 'logical'; -- then restart".into()],
        ));
    }
    if row.get::<_, bool>(7) {
        out.push(finding(
            code::WAL_LEVEL,
            "the server is a standby".into(),
            "pg_is_in_recovery() is true; capturing from a standby is not built yet".into(),
            "point the URL at the primary",
            vec![],
        ));
    }
    if slots < 1 && !slot_exists {
        out.push(finding(
            code::NO_FREE_SLOT,
            "no replication slot is free".into(),
            format!("max_replication_slots is reached; {unused} slots are not in use"),
            "drop a slot nobody needs, or raise max_replication_slots and restart",
            vec![
                "SELECT slot_name, plugin, database, active, restart_lsn FROM pg_replication_slots;".into(),
                "SELECT pg_drop_replication_slot('NAME');".into(),
            ],
        ));
    }
    if senders < 2 {
        out.push(finding(
            code::NO_FREE_SENDER,
            "too few WAL senders are free".into(),
            format!("{} free, the first start needs 2", senders.max(0)),
            "raise max_wal_senders and restart",
            vec!["ALTER SYSTEM SET max_wal_senders = 20; -- then restart".into()],
        ));
    }
    if !replication && !cloud {
        out.push(finding(
            code::NO_REPLICATION_RIGHT,
            format!("user '{}' may not replicate", config.connect.user),
            "the role has neither REPLICATION nor SUPERUSER".into(),
            "grant it as a superuser",
            vec![format!("ALTER ROLE {} REPLICATION;", quote_ident(&config.connect.user))],
        ));
    }
    if !slot_exists {
        let rows = sql
            .client
            .query(
                "SELECT coalesce(pid, 0), extract(epoch FROM now() - xact_start)::float8 FROM pg_stat_activity \
                 WHERE backend_xid IS NOT NULL AND xact_start < now() - make_interval(secs => $1) \
                 UNION ALL SELECT 0, extract(epoch FROM now() - prepared)::float8 FROM pg_prepared_xacts \
                 WHERE prepared < now() - make_interval(secs => $1) ORDER BY 2 DESC LIMIT 5",
                &[&OLD_TRANSACTION_S],
            )
            .await?;
        for r in rows {
            let (pid, age): (i32, f64) = (r.get(0), r.get(1));
            let who = if pid == 0 { "a prepared transaction".to_owned() } else { format!("process {pid}") };
            out.push(Finding {
                severity: Severity::Warning,
                ..finding(
                    code::OLD_TRANSACTION,
                    "an old transaction will hold up the making of the slot".into(),
                    format!("{who}, open for {age:.0} s"),
                    "let it end, or end it",
                    if pid == 0 { vec![] } else { vec![format!("SELECT pg_terminate_backend({pid});")] },
                )
            });
        }
    }
    Ok(())
}
