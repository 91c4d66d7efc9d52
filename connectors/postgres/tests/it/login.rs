//! Logins by password: SCRAM-SHA-256, MD5 and clear text, for the replication transport of the source and for the sink's
//! driver. The server asks members of `catchwater_scram`, `catchwater_md5` and `catchwater_clear` for it (`xtask db`).

use super::sink::claim;
use super::support::{Db, connect, database, read_until};
use catchwater_capture::source::{Source, SourceClass, Start};
use catchwater_connector_postgres::{ConnectConfig, PgSink, PgSource, SinkConfig, SourceConfig, TableRef};
use catchwater_deliver::sink::{Sink, SinkClass};
use catchwater_record::CaptureEpoch;

const PASSWORD: &str = "p@ss:w/rd 100%";
/// As it stands in a URL.
const ENCODED: &str = "p%40ss%3Aw%2Frd%20100%25";

fn url(db: &Db, role: &str, password: &str) -> String {
    let (_, place) = db.url.split_once('@').unwrap();
    format!("postgres://{role}:{password}@{place}")
}

fn source(db: &Db, url: &str) -> PgSource {
    let connect = ConnectConfig::parse(url).unwrap();
    PgSource::new(SourceConfig::new(
        db.name.as_str().into(),
        CaptureEpoch(1),
        connect,
        vec![TableRef::parse("public.t")],
    ))
}

async fn logs_in(method: &str, stored_as: &str) {
    let Some(db) = database(&format!("login_{method}")).await else { return };
    let role = format!("{}_role", db.name);
    let group = format!("catchwater_{method}");
    let admin = connect(&db.url).await;
    // The group may be there, or be made by another test at this moment.
    let _ = admin.batch_execute(&format!("CREATE ROLE {group}")).await;
    db.exec(&format!(
        "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); SET password_encryption = '{stored_as}'; \
         CREATE ROLE {role} LOGIN REPLICATION PASSWORD '{PASSWORD}' IN ROLE {group}; \
         ALTER TABLE t OWNER TO {role}; GRANT CREATE ON DATABASE {0} TO {role}",
        db.name
    ))
    .await;
    let stored = db.one(&format!("SELECT left(rolpassword, 3) FROM pg_authid WHERE rolname = '{role}'")).await;
    assert_eq!(stored, if stored_as == "md5" { "md5" } else { "SCR" });

    let right = url(&db, &role, ENCODED);
    let mut reading = source(&db, &right);
    let known = reading.identify().await.unwrap_or_else(|e| panic!("{method}: {e:?}"));
    let opened = reading.open(Start::Fresh, Some(known)).await.unwrap_or_else(|e| panic!("{method}: {e:?}"));
    assert_eq!(opened.tables.len(), 1);
    db.exec("INSERT INTO t VALUES (2)").await;
    let txns = read_until(&mut reading, |txns| !txns.is_empty()).await;
    assert_eq!(txns[0].rows.len(), 1);
    reading.close().await;

    let mut sink = PgSink::new(SinkConfig::new(ConnectConfig::parse(&right).unwrap()));
    sink.preflight().await.unwrap_or_else(|e| panic!("{method}: {e:?}"));
    sink.open(claim(1)).await.unwrap_or_else(|e| panic!("{method}: {e:?}"));
    drop(sink.lane().await.unwrap_or_else(|e| panic!("{method}: {e:?}")));
    sink.shutdown().await;

    // A wrong or missing password is refused by name, so the method above was asked for.
    for wrong in ["wrong", ""] {
        let wrong = url(&db, &role, wrong);
        let refused = source(&db, &wrong).identify().await.expect_err("a wrong password");
        assert_eq!((refused.class, refused.code.0), (SourceClass::Config, 502), "{method}: {refused:?}");
        let mut sink = PgSink::new(SinkConfig::new(ConnectConfig::parse(&wrong).unwrap()));
        let refused = sink.open(claim(2)).await.map(drop).expect_err("a wrong password");
        assert_eq!((refused.class, refused.code.0), (SinkClass::Config, 602), "{method}: {refused:?}");
    }
    drop(admin);
    db.exec(&format!("REASSIGN OWNED BY {role} TO postgres; DROP OWNED BY {role}")).await;
    let server = connect(&std::env::var("CW_PG15_URL").unwrap()).await;
    db.drop().await;
    server.batch_execute(&format!("DROP ROLE {role}")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn scram_sha_256() {
    logs_in("scram", "scram-sha-256").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn md5() {
    logs_in("md5", "md5").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clear_text() {
    logs_in("clear", "scram-sha-256").await;
}
