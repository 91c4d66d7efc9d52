//! TLS and lists of hosts against real servers. `cargo xtask db` makes the certificates and the rules of who gets in.

use super::support::{Db, database_on, servers};
use catchwater_capture::source::Source;
use catchwater_connector_postgres::{ConnectConfig, PgSink, PgSource, SinkConfig};
use catchwater_deliver::sink::Sink;

/// The server's folder with `ca.crt` and the rest.
fn folder(server: &str) -> Option<String> {
    ["CW_PG15", "CW_PG16", "CW_PG17", "CW_PG18"]
        .iter()
        .find(|v| std::env::var(format!("{v}_URL")).as_deref() == Ok(server))
        .and_then(|v| std::env::var(format!("{v}_DIR")).ok())
}

/// Roles are the server's: made once, whoever comes first.
async fn roles(db: &Db) {
    for role in ["tls_only", "clear_only", "cert_only", "scram_only"] {
        let sql = format!(
            "DO $$ BEGIN PERFORM pg_advisory_xact_lock(77); \
             IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = '{role}') THEN \
             CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'pa ss'; END IF; END $$"
        );
        db.exec(&sql).await;
    }
}

/// What both say to a URL.
async fn asked(db: &Db, url: &str) -> u16 {
    let (source, sink) = each_asked(db, url).await;
    assert_eq!(source, sink, "{url}: source and sink differ");
    source
}

/// What source and sink say to a URL: 0 = they get in, else the last two digits of their code.
async fn each_asked(db: &Db, url: &str) -> (u16, u16) {
    let mut config = db.config(&["t"]);
    config.connect = ConnectConfig::parse(url).unwrap();
    let findings = PgSource::new(config).preflight().await;
    let source = findings.first().map_or(0, |f| f.code.0);
    let sink = PgSink::new(SinkConfig::new(ConnectConfig::parse(url).unwrap())).preflight().await;
    let sink = sink.err().map_or(0, |e| e.code.0);
    (source % 100, sink % 100)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mode_gets_in_or_says_why_not() {
    if servers().is_empty() {
        eprintln!("SKIP db pg15: CW_PG15_URL is not set (tls modes)");
    }
    for server in servers() {
        let Some(dir) = folder(&server) else {
            eprintln!("SKIP TLS: no certificates of {server}");
            continue;
        };
        let db = database_on(&server, "tls_modes").await;
        db.exec("CREATE TABLE t(id int PRIMARY KEY)").await;
        roles(&db).await;
        let ca = format!("{dir}/ca.crt");
        let client = format!("sslcert={dir}/client.crt&sslkey={dir}/client.key");
        let (tls, auth) = (4, 2);
        for (role, query, want) in [
            ("tls_only", "".to_owned(), 0),
            ("tls_only", "sslmode=disable".into(), auth),
            ("tls_only", "sslmode=allow".into(), 0),
            ("tls_only", "sslmode=require".into(), 0),
            ("tls_only", format!("sslmode=verify-ca&sslrootcert={ca}"), 0),
            ("tls_only", format!("sslmode=verify-full&sslrootcert={ca}"), 0),
            ("tls_only", format!("sslmode=verify-full&sslrootcert={dir}/stranger.crt"), tls),
            ("tls_only", format!("sslmode=verify-ca&sslrootcert={dir}/stranger.crt"), tls),
            ("tls_only", format!("sslmode=require&sslrootcert={dir}/stranger.crt"), tls),
            ("tls_only", format!("sslmode=prefer&sslrootcert={dir}/stranger.crt"), tls),
            ("tls_only", format!("sslmode=verify-ca&sslrootcert={dir}/absent.crt"), tls),
            ("tls_only", format!("sslmode=verify-ca&sslrootcert={dir}/port"), tls),
            ("clear_only", "".into(), 0),
            ("clear_only", "sslmode=allow".into(), 0),
            ("clear_only", "sslmode=require".into(), auth),
            ("cert_only", "".into(), auth),
            ("cert_only", client.clone(), 0),
            ("cert_only", format!("sslmode=verify-full&sslrootcert={ca}&{client}"), 0),
            // A certificate of another authority: the server refuses it inside of TLS.
            ("cert_only", format!("sslmode=require&sslcert={dir}/stranger.crt&sslkey={dir}/stranger.key"), tls),
            ("scram_only:pa ss", format!("sslmode=verify-full&sslrootcert={ca}"), 0),
            ("scram_only:other", format!("sslmode=verify-full&sslrootcert={ca}"), auth),
        ] {
            let login = role.replace(' ', "%20");
            let url = db.url.replace("postgres@", &format!("{login}@"));
            assert_eq!(asked(&db, &format!("{url}?{query}")).await, want, "{server}: {role} {query}");
        }
        // The name counts for verify-full alone: the certificate is that of 127.0.0.1 and localhost, not of 127.0.0.2.
        let url = db.url.replace("postgres@127.0.0.1", "tls_only@localhost");
        assert_eq!(asked(&db, &format!("{url}?sslmode=verify-full&sslrootcert={ca}")).await, 0);
        db.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_connection_of_a_source_is_encrypted_and_the_stream_flows() {
    use super::support::{Txn, read_until};
    use catchwater_capture::source::Start;
    for server in servers() {
        let Some(dir) = folder(&server) else { continue };
        let db = database_on(&server, "tls_stream").await;
        db.exec("CREATE TABLE t(id int PRIMARY KEY, v text)").await;
        let mut config = db.config(&["t"]);
        config.connect =
            ConnectConfig::parse(&format!("{}?sslmode=verify-full&sslrootcert={dir}/ca.crt", db.url)).unwrap();
        let mut source = PgSource::new(config);
        let known = source.identify().await.unwrap();
        source.open(Start::Fresh, Some(known)).await.unwrap();
        let clear = "SELECT count(*) FILTER (WHERE NOT ssl) || ' of ' || count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE application_name LIKE 'catchwater/%' AND datname = current_database()";
        assert_eq!(db.one(clear).await, "0 of 3", "{server}: SQL, exporter, stream");
        // More than a TLS record at a time, in both forms: one wide row and many small ones.
        db.exec("INSERT INTO t VALUES (0, repeat('x', 3000000))").await;
        db.exec("INSERT INTO t SELECT g, repeat('y', 100) FROM generate_series(1, 20000) g").await;
        let rows = |txns: &[Txn]| txns.iter().map(|t| t.rows.len()).sum::<usize>();
        let txns = read_until(&mut source, |txns| rows(txns) >= 20_001).await;
        assert_eq!((txns.len(), rows(&txns)), (2, 20_001));
        source.close().await;
        db.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_hosts_leads_to_the_one_that_will_do() {
    let Some(db) = super::support::database("hosts").await else { return };
    db.exec("CREATE TABLE t(id int PRIMARY KEY)").await;
    let (head, tail) = db.url.split_once('@').unwrap();
    let (place, name) = tail.split_once('/').unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let list = |target: &str| format!("{head}@127.0.0.1:{free},{place}/{name}?target_session_attrs={target}");
    for (target, want) in
        [("any", 0), ("read-write", 0), ("primary", 0), ("prefer-standby", 0), ("standby", 1), ("read-only", 1)]
    {
        assert_eq!(asked(&db, &list(target)).await, want, "{target}");
    }
    // A primary whose database is set to read-only is no server to write to: the source reads it, the sink says so.
    let read_only = 12;
    db.exec(&format!("ALTER DATABASE {} SET default_transaction_read_only = on", db.name)).await;
    for (target, want) in [("read-write", (1, 1)), ("primary", (0, read_only)), ("read-only", (0, read_only))] {
        assert_eq!(each_asked(&db, &list(target)).await, want, "{target}, read-only by default");
    }
    db.drop().await;
}
