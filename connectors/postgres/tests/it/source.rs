//! The stream: what each statement of an application becomes, resuming, the slot's guards, preflight.

use crate::support::*;
use catchwater_capture::source::{
    ChunkMethod, EventBatch, Item, Source, SourceClass, SourceError, Start, View, identity_tag as tag,
};
use catchwater_change::{KeyFrom, Native, SourceInfo, Type, Value};
use catchwater_connector_postgres::source::decode;
use catchwater_connector_postgres::{ConnectConfig, PgSource};
use catchwater_record::CaptureEpoch;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const MARKER: &str = "CREATE TABLE marker(id int PRIMARY KEY);";

#[tokio::test(flavor = "multi_thread")]
async fn each_statement_becomes_the_right_events() {
    let Some(db) = database("events").await else { return };
    db.exec(MARKER).await;
    db.exec(
        "CREATE TYPE mood AS ENUM ('sad','ok');
         CREATE TABLE t(id int PRIMARY KEY, name text NOT NULL DEFAULT 'x', big text, m mood,
           twice int GENERATED ALWAYS AS (id * 2) STORED);
         ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
         CREATE TABLE f(a int, b text); ALTER TABLE f REPLICA IDENTITY FULL;
         ALTER TABLE f ALTER b SET STORAGE EXTERNAL;
         CREATE TABLE part(id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
         CREATE TABLE part1 PARTITION OF part FOR VALUES FROM (0) TO (10);
         CREATE TABLE part2 PARTITION OF part FOR VALUES FROM (10) TO (20)",
    )
    .await;
    let (mut source, opened) = db.open(&["t", "public.f", "part", "marker"]).await;
    assert_eq!(opened.tables.len(), 4);
    let t = opened.tables.iter().find(|t| t.name == "t").unwrap();
    assert_eq!(
        (t.key_from, &t.key[..], t.columns.len()),
        (KeyFrom::PrimaryKey, &[0u16][..], 4),
        "generated is left out"
    );
    assert_eq!(t.columns[3].kind, Type::Enum { labels: vec!["sad".into(), "ok".into()] });
    assert_eq!((t.columns[1].nullable, t.columns[1].default.as_str()), (Some(false), "'x'::text"));
    let big = "b".repeat(20_000);
    db.exec("INSERT INTO t(id, name, m) VALUES (1,'a','ok'),(2,'b',NULL)").await;
    db.exec("UPDATE t SET name = 'c' WHERE id = 1").await;
    db.exec("UPDATE t SET id = 3 WHERE id = 2").await;
    db.exec("BEGIN; INSERT INTO t(id) VALUES (9); ROLLBACK").await;
    db.exec(
        "BEGIN; INSERT INTO t(id) VALUES (10); SAVEPOINT s; INSERT INTO t(id) VALUES (11); ROLLBACK TO s;
         INSERT INTO f VALUES (1,'one'); RELEASE s; COMMIT",
    )
    .await;
    db.exec(&format!("UPDATE t SET big = '{big}' WHERE id = 1")).await;
    db.exec("UPDATE t SET name = 'd' WHERE id = 1").await;
    db.exec("DELETE FROM t WHERE id = 3").await;
    db.exec(&format!("UPDATE f SET b = '{big}'")).await;
    db.exec("UPDATE f SET a = 2").await;
    db.exec("DELETE FROM f").await;
    db.exec("INSERT INTO part VALUES (1,1)").await;
    db.exec("UPDATE part SET id = 11").await;
    db.exec("TRUNCATE t, f").await;
    db.exec("BEGIN; SELECT pg_logical_emit_message(true,'x','y'); INSERT INTO t(id) VALUES (5); COMMIT").await;
    db.exec("ALTER TABLE t ADD COLUMN extra int; INSERT INTO t(id, extra) VALUES (6, 7)").await;
    db.exec("ALTER TABLE t RENAME name TO label; ALTER TABLE t DROP COLUMN big; INSERT INTO t(id) VALUES (7)").await;
    db.exec("INSERT INTO marker VALUES (1)").await;
    let txns = read_to_marker(&mut source).await;
    let got: Vec<Vec<String>> =
        show_all(&txns).into_iter().map(|rows| rows.into_iter().map(|r| r.replace(&big, "BIG")).collect()).collect();
    let want: &[&[&str]] = &[
        &["c t none -> 1,a,NULL,ok", "c t none -> 2,b,NULL,NULL"],
        &["u t none -> 1,c,NULL,ok"],
        &["u t 2,-,-,- -> 3,b,NULL,NULL"],
        &["c t none -> 10,x,NULL,NULL", "c f none -> 1,one"],
        &["u t none -> 1,c,BIG,ok"],
        &["u t none -> 1,d,UNAVAILABLE,ok"],
        &["d t 3,-,-,- -> none"],
        &["u f 1,one -> 1,BIG"],
        &["u f 1,BIG -> 2,BIG"],
        &["d f 2,BIG -> none"],
        &["c part none -> 1,1"],
        &["d part 1,- -> none", "c part none -> 11,1"],
        &["t t", "t f"],
        &["m  none -> x,\\x79", "c t none -> 5,x,NULL,NULL"],
        &["c t none -> 6,x,NULL,NULL,7"],
        &["c t none -> 7,x,NULL,NULL"],
    ];
    for (g, w) in got.iter().zip(want) {
        assert_eq!(g, w);
    }
    assert_eq!(got.len(), want.len());
    // Positions rise, transaction ids are the server's.
    assert!(txns.windows(2).all(|w| w[0].native < w[1].native));
    assert!(txns.iter().all(|t| t.id == (t.xid as u32).to_string()));
    let last = &txns.last().unwrap().rows[0].table;
    assert_eq!(last.columns[1].name, "label");
    source.close().await;
    db.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_and_the_wire_have_one_fingerprint() {
    for server in servers() {
        let db = database_on(&server, "fingerprint").await;
        db.exec(MARKER).await;
        db.exec(
            "CREATE SCHEMA \"odd name\"; CREATE DOMAIN \"odd name\".d AS numeric(10,2);
             CREATE TABLE \"odd name\".\"T\"(a int, b varchar(7), c \"odd name\".d[], drop_me int, g int GENERATED ALWAYS AS (a) STORED, PRIMARY KEY (b, a));
             ALTER TABLE \"odd name\".\"T\" DROP COLUMN drop_me;
             CREATE TABLE i(a int NOT NULL, b text); CREATE UNIQUE INDEX ia ON i(a); ALTER TABLE i REPLICA IDENTITY USING INDEX ia;
             CREATE TABLE f(a int PRIMARY KEY, b text); ALTER TABLE f REPLICA IDENTITY FULL",
        )
        .await;
        let (mut source, opened) = db.open(&["odd name.T", "i", "f", "marker"]).await;
        db.exec(
            "INSERT INTO \"odd name\".\"T\"(a,b,c) VALUES (1,'x','{1.50}'); INSERT INTO i VALUES (1,'a');
             INSERT INTO f VALUES (1,'a'); INSERT INTO marker VALUES (1)",
        )
        .await;
        let txns = read_until(&mut source, |t| t.iter().any(|t| t.rows.iter().any(|r| r.table.name == "marker"))).await;
        let mut seen = 0;
        for row in txns.iter().flat_map(|t| &t.rows) {
            let known = opened.tables.iter().find(|t| t.native_id == row.table.native_id).unwrap();
            assert_eq!(known, &row.table, "{}", row.table.name);
            seen += 1;
        }
        assert_eq!(seen, 4);
        let t = opened.tables.iter().find(|t| t.name == "T").unwrap();
        assert_eq!(t.key, [1, 0], "the key's own order");
        let i = opened.tables.iter().find(|t| t.name == "i").unwrap();
        assert_eq!((i.key_from, &i.key[..]), (KeyFrom::IdentityIndex, &[0u16][..]));
        source.close().await;
        db.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn resuming_after_any_commit_gives_exactly_the_rest() {
    for server in servers() {
        let db = database_on(&server, "resume").await;
        db.exec(MARKER).await;
        db.exec("CREATE TABLE t(id int PRIMARY KEY, v int)").await;
        let (mut source, opened) = db.open(&["t", "marker"]).await;
        for i in 0..20 {
            db.exec(&format!("BEGIN; INSERT INTO t VALUES ({i}, 0); UPDATE t SET v = {i} WHERE id = {i}; COMMIT"))
                .await;
        }
        db.exec("INSERT INTO marker VALUES (1)").await;
        let all = read_to_marker(&mut source).await;
        assert_eq!(all.len(), 20);
        source.close().await;
        for at in [0usize, 1, 7, 19] {
            let mut again = PgSource::new(db.config(&["t", "marker"]));
            let after = if at == 0 { opened.native.clone() } else { all[at - 1].native.clone() };
            again.open(Start::After(after), Some(opened.identity.clone())).await.unwrap();
            // The server's LSNs, ids and rows are the same again (S3); only `last_commit_lsn` begins at the position, where a
            // slot that was just made had none.
            let mut rest = read_to_marker(&mut again).await;
            for row in rest[0].rows.iter_mut().filter(|_| at == 0) {
                let SourceInfo::Postgres { last_commit_lsn, .. } = &mut row.info else { panic!("{:?}", row.info) };
                assert!(last_commit_lsn.take().is_some());
            }
            assert_eq!(rest, all[at..], "after commit {at}");
            again.close().await;
        }
        db.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn confirming_moves_the_slot_and_a_slot_ahead_of_us_is_a_gap() {
    let Some(db) = database("confirm").await else { return };
    db.exec(MARKER).await;
    db.exec("CREATE TABLE t(id int PRIMARY KEY)").await;
    let (mut source, opened) = db.open(&["t", "marker"]).await;
    db.exec("INSERT INTO t VALUES (1)").await;
    db.exec("INSERT INTO t VALUES (2)").await;
    db.exec("INSERT INTO marker VALUES (1)").await;
    let all = read_to_marker(&mut source).await;
    let slot =
        "SELECT (confirmed_flush_lsn - '0/0')::text FROM pg_replication_slots WHERE database = current_database()";
    let before: u64 = db.one(slot).await.parse().unwrap();
    assert_eq!(Native::postgres(before), opened.native, "nothing is confirmed by reading");
    source.confirm(&all[1].native);
    source.confirm(&all[0].native); // never back
    let want = all[1].native.as_postgres().unwrap();
    let start = Instant::now();
    while db.one(slot).await.parse::<u64>().unwrap() != want {
        assert!(start.elapsed() < LIMIT, "the slot follows");
        tokio::task::yield_now().await;
    }
    source.close().await;
    let open = |after: Native| {
        let config = db.config(&["t", "marker"]);
        let identity = opened.identity.clone();
        async move { PgSource::new(config).open(Start::After(after), Some(identity)).await }
    };
    assert!(open(all[1].native.clone()).await.is_ok());
    let e = open(all[0].native.clone()).await.unwrap_err();
    assert_eq!((e.class, e.code.0), (SourceClass::Gap, 515), "{e}");
    db.drop().await;
}

async fn refused(
    source: &mut PgSource,
    start: Start,
    known: Option<catchwater_capture::source::Identity>,
) -> SourceError {
    match source.open(start, known).await {
        Ok(_) => panic!("the start is refused"),
        Err(e) => e,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_that_would_hide_a_gap_are_refused() {
    let Some(db) = database("guards").await else { return };
    db.exec("CREATE TABLE t(id int PRIMARY KEY); CREATE TABLE u(id int PRIMARY KEY)").await;
    let config = db.config(&["t"]);
    let (mut source, opened) = db.open(&["t"]).await;
    let after = || Start::After(opened.native.clone());
    let known = || Some(opened.identity.clone());
    // A stranger's second start: the slot is there, the log (no tag 6, no slot name) knows nothing of it.
    let mut second = PgSource::new(config.clone());
    let fresh = second.identify().await.unwrap();
    assert!(!fresh.tags.contains_key(&tag::SLOT), "the name is not free");
    let e = refused(&mut second, Start::Fresh, Some(fresh)).await;
    assert_eq!((e.class, e.code.0), (SourceClass::Config, 520), "{e}");
    // A worker with an older epoch must not push out a newer one; one with a newer epoch does.
    let mut older =
        PgSource::new(catchwater_connector_postgres::SourceConfig { epoch: CaptureEpoch(0), ..config.clone() });
    let e = refused(&mut older, after(), known()).await;
    assert_eq!((e.class, e.code.0), (SourceClass::Config, 519), "{e}");
    let mut newer =
        PgSource::new(catchwater_connector_postgres::SourceConfig { epoch: CaptureEpoch(2), ..config.clone() });
    newer.open(after(), known()).await.unwrap();
    let mut batch = EventBatch::new(1 << 20);
    let lost = loop {
        if let Err(e) = source.next(&mut batch).await {
            break e;
        }
    };
    assert_eq!((lost.class, lost.code.0), (SourceClass::Retry, 505), "the zombie's stream ends: {lost}");
    newer.close().await;
    // Another server.
    let mut identity = opened.identity.clone();
    identity.tags.insert(tag::SYSTEM_ID, vec![0u8; 8].into());
    let e = refused(&mut newer, after(), Some(identity)).await;
    assert_eq!((e.class, e.code.0), (SourceClass::Identity, 517), "{e}");
    // A server that was put back to an earlier state, with its slot: its log ends in front of what ours holds.
    let ahead = Native::postgres(opened.native.as_postgres().unwrap() + (1 << 40));
    let e = refused(&mut newer, Start::After(ahead), known()).await;
    assert_eq!((e.class, e.code.0), (SourceClass::Gap, 518), "{e}");
    assert!(e.what.contains("put back to an earlier state"), "{e}");
    // The publication was widened, then made anew.
    let publication = format!("catchwater_{}", db.name);
    db.exec(&format!("ALTER PUBLICATION {publication} ADD TABLE u")).await;
    let e = refused(&mut newer, after(), known()).await;
    assert_eq!((e.class, e.code.0), (SourceClass::Config, 521), "{e}");
    assert!(e.next.contains("SET TABLE \"public\".\"t\""), "{}", e.next);
    db.exec(&format!(
        "DROP PUBLICATION {publication}; CREATE PUBLICATION {publication} FOR TABLE t WITH (publish_via_partition_root)"
    ))
    .await;
    let e = refused(&mut newer, after(), known()).await;
    assert_eq!((e.class, e.code.0), (SourceClass::Config, 521), "{e}");
    assert!(e.what.contains("made again"), "{e}");
    // The slot is gone: never made anew.
    db.exec("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()")
        .await;
    let e = refused(&mut newer, after(), known()).await;
    assert_eq!((e.class, e.code.0), (SourceClass::Gap, 514), "{e}");
    // Half made: identity without a consistent point. The slot is ours and is made again.
    let mut half = PgSource::new(db.config(&["t"]));
    let seen = half.identify().await.unwrap();
    half.open(Start::Fresh, Some(seen.clone())).await.unwrap();
    drop(half);
    let mut again = PgSource::new(db.config(&["t"]));
    let opened = again.open(Start::Fresh, Some(seen)).await.unwrap();
    assert!(opened.identity.tags.contains_key(&tag::CONSISTENT_POINT));
    again.close().await;
    db.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keep_alives_are_answered_while_nobody_reads_and_idle_comes_every_second() {
    let Some(db) = database("alive").await else { return };
    db.exec(MARKER).await;
    db.exec("CREATE TABLE t(id int PRIMARY KEY, v text)").await;
    db.exec(&format!("ALTER DATABASE {} SET wal_sender_timeout = '2s'", db.name)).await;
    let (mut source, _) = db.open(&["t", "marker"]).await;
    // Far more than all buffers between hold.
    db.exec("INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 100000) g").await;
    db.exec("INSERT INTO marker VALUES (1)").await;
    // Not a synchronisation: the time itself is what is tested, thrice the server's patience.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let txns = read_to_marker(&mut source).await;
    assert_eq!(txns[0].rows.len(), 100_000);
    let mut last = Instant::now();
    for _ in 0..3 {
        let mut batch = EventBatch::new(1 << 20);
        source.next(&mut batch).await.unwrap();
        assert!(matches!(batch.items.last(), Some(Item::Idle(_))), "{:?}", batch.items.last());
        assert!(last.elapsed() < Duration::from_millis(1500), "{:?}", last.elapsed());
        last = Instant::now();
    }
    source.close().await;
    db.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_publication_lets_the_server_forget() {
    let Some(db) = database("quiet").await else { return };
    db.exec("CREATE TABLE t(id int PRIMARY KEY); CREATE TABLE other(v text)").await;
    let (mut source, opened) = db.open(&["t"]).await;
    db.exec("INSERT INTO other SELECT repeat('x', 500) FROM generate_series(1, 2000)").await;
    let end: String = db.one("SELECT (pg_current_wal_flush_lsn() - '0/0')::text").await;
    let end = Native::postgres(end.parse().unwrap());
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < LIMIT);
        let mut batch = EventBatch::new(1 << 20);
        source.next(&mut batch).await.unwrap();
        assert!(batch.items.iter().all(|i| matches!(i, Item::Idle(_))), "nothing of the other table");
        if let Some(Item::Idle(native)) = batch.items.last()
            && *native >= end
        {
            // It may be resumed from, and nothing is missed.
            source.confirm(native);
            source.close().await;
            let mut again = PgSource::new(db.config(&["t"]));
            again.open(Start::After(native.clone()), Some(opened.identity.clone())).await.unwrap();
            db.exec("INSERT INTO t VALUES (1)").await;
            let txns = read_until(&mut again, |t| !t.is_empty()).await;
            assert_eq!(show_all(&txns), [["c t none -> 1"]]);
            again.close().await;
            break;
        }
    }
    db.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_and_stream_meet_without_gap_and_without_overlap() {
    for server in servers() {
        let db = database_on(&server, "snapshot").await;
        db.exec(MARKER).await;
        db.exec("CREATE TABLE t(id int PRIMARY KEY, v int, pad text); INSERT INTO t SELECT g, 0, repeat('p', 100) FROM generate_series(1, 30000) g; ANALYZE t").await;
        db.exec(
            "CREATE TABLE part(id int PRIMARY KEY, v int) PARTITION BY HASH (id);
             CREATE TABLE part1 PARTITION OF part FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE part2 PARTITION OF part FOR VALUES WITH (MODULUS 2, REMAINDER 1);
             INSERT INTO part SELECT g, g FROM generate_series(1, 1000) g",
        )
        .await;
        // Writers that run through all of it.
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let mut writers = Vec::new();
        for w in 0..3 {
            let (url, stop) = (db.url.clone(), stop.clone());
            writers.push(tokio::spawn(async move {
                let client = connect(&url).await;
                let mut n = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    n += 1;
                    let id = 100_000 * (w + 1) + n;
                    let sql = format!(
                        "BEGIN; INSERT INTO t VALUES ({id}, 1, ''); UPDATE t SET v = v + 1 WHERE id = {}; DELETE FROM t WHERE id = {}; COMMIT",
                        n % 5000 + 1,
                        10_000 + w * 5000 + n % 5000
                    );
                    client.batch_execute(&sql).await.unwrap();
                }
            }));
        }
        let (mut source, opened) = db.open(&["t", "part", "marker"]).await;
        let mut snapshot = source.snapshot().unwrap();
        let (mut state, mut parts): (BTreeMap<i64, i64>, BTreeMap<i64, i64>) = Default::default();
        let chunks = snapshot.plan(&opened.tables).await.unwrap();
        assert!(chunks.iter().filter(|c| c.table.name == "part").count() >= 2, "leaf by leaf");
        assert_eq!(chunks.iter().filter(|c| c.last_of_table).count(), 3);
        for chunk in &chunks {
            assert_eq!(chunk.method, ChunkMethod::Exported);
            let mut rows = Vec::new();
            let end = snapshot.read(chunk, &mut rows).await.unwrap();
            assert_eq!((end.view, end.rows), (View::Exported, rows.len() as u64));
            for row in rows {
                let cells = row.after.unwrap().cells;
                let map = if row.table.name == "t" { &mut state } else { &mut parts };
                assert!(map.insert(int(&cells[0]), int(&cells[1])).is_none(), "a row twice");
            }
        }
        snapshot.close().await;
        assert_eq!(parts.len(), 1000);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for w in writers {
            w.await.unwrap();
        }
        db.exec("INSERT INTO marker VALUES (1)").await;
        // Replayed strictly: an insert of what is there, or a change of what is not, is an overlap or a gap.
        for txn in read_to_marker(&mut source).await {
            for row in txn.rows {
                let key = |r: &catchwater_change::Row| int(&r.cells[0]);
                match (row.op.letter(), &row.before, &row.after) {
                    ('c', _, Some(a)) => assert!(state.insert(key(a), int(&a.cells[1])).is_none(), "overlap"),
                    ('u', _, Some(a)) => assert!(state.insert(key(a), int(&a.cells[1])).is_some(), "gap"),
                    ('d', Some(b), _) => assert!(state.remove(&key(b)).is_some(), "gap"),
                    other => panic!("{other:?}"),
                }
            }
        }
        let want: BTreeMap<i64, i64> = db
            .client
            .query("SELECT id::int8, v::int8 FROM t", &[])
            .await
            .unwrap()
            .iter()
            .map(|r| (r.get(0), r.get(1)))
            .collect();
        assert!(state == want, "{} against {} rows", state.len(), want.len());
        source.close().await;
        db.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_the_rest_is_read_by_key_ranges_that_cover_all_rows_once() {
    let Some(db) = database("chunks").await else { return };
    db.exec(MARKER).await;
    db.exec(
        "CREATE TABLE t(a text COLLATE \"C\", b char(5), v text, PRIMARY KEY (b, a));
         INSERT INTO t SELECT 'it''s ' || g, CASE g % 3 WHEN 0 THEN 'a\\' WHEN 1 THEN 'ü' ELSE 'c' END, repeat('v', 600) FROM generate_series(1, 60000) g;
         ANALYZE t; CREATE TABLE nokey(a int); ALTER TABLE nokey REPLICA IDENTITY FULL; INSERT INTO nokey VALUES (1),(1)",
    )
    .await;
    let (mut source, opened) = db.open(&["t", "nokey", "marker"]).await;
    source.close().await;
    let mut source = PgSource::new(db.config(&["t", "nokey", "marker"]));
    let opened = source.open(Start::After(opened.native), Some(opened.identity)).await.unwrap();
    let mut snapshot = source.snapshot().unwrap();
    let chunks = snapshot.plan(&opened.tables).await.unwrap();
    assert!(chunks.iter().filter(|c| c.table.name == "t").count() > 1, "several ranges");
    let mut seen = std::collections::BTreeSet::new();
    let mut keyless = 0;
    let mut place = Native::default();
    for chunk in &chunks {
        assert_eq!(chunk.method, ChunkMethod::Chunked);
        let mut rows = Vec::new();
        let end = snapshot.read(chunk, &mut rows).await.unwrap();
        let View::Visibility { xmin, xmax, place: at, .. } = end.view else { panic!("{:?}", end.view) };
        assert!(xmin <= xmax && at >= opened.native);
        place = place.max(at);
        for row in rows {
            let cells = row.after.unwrap().cells;
            if row.table.name == "t" {
                assert!(seen.insert((text(&cells[0]), text(&cells[1]))), "a row twice");
            } else {
                keyless += 1;
            }
        }
    }
    assert_eq!((seen.len(), keyless), (60_000, 2));
    // The stream reaches the place of the last chunk although nobody writes.
    let start = Instant::now();
    'read: loop {
        assert!(start.elapsed() < LIMIT);
        let mut batch = EventBatch::new(1 << 20);
        source.next(&mut batch).await.unwrap();
        for item in &batch.items {
            if let Item::Idle(n) | Item::Commit { native: n, .. } = item
                && *n >= place
            {
                break 'read;
            }
        }
    }
    snapshot.close().await;
    source.close().await;
    db.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn preflight_names_each_fault_with_its_cure() {
    let Some(db) = database("preflight").await else { return };
    db.exec(
        "CREATE TABLE good(id int PRIMARY KEY); CREATE TABLE bare(a int); CREATE UNLOGGED TABLE fast(id int PRIMARY KEY);
         CREATE VIEW v AS SELECT 1 AS a",
    )
    .await;
    let user = format!("u_{}", db.name);
    db.exec(&format!("DROP ROLE IF EXISTS {user}; CREATE ROLE {user} LOGIN")).await;
    let mut source = PgSource::new(db.config(&["good"]));
    assert_eq!(source.preflight().await, vec![], "nothing is wrong");
    let mut config = db.config(&["good", "bare", "fast", "v", "absent", "nowhere.*"]);
    config.connect.user = user.clone();
    let findings = PgSource::new(config).preflight().await;
    let codes: Vec<u16> = findings.iter().map(|f| f.code.0).collect();
    for want in [509, 510, 511, 512, 513, 527] {
        assert!(codes.contains(&want), "CW{want:04} is missing in {findings:#?}");
    }
    assert_eq!(codes.iter().filter(|c| **c == 513).count(), 2);
    assert_eq!(codes.iter().filter(|c| **c == 511).count(), 2);
    let identity = findings.iter().find(|f| f.code.0 == 512).unwrap();
    assert_eq!(identity.sql, ["ALTER TABLE \"public\".\"bare\" REPLICA IDENTITY FULL;"]);
    db.exec(&identity.sql[0]).await;
    assert_eq!(PgSource::new(db.config(&["bare"])).preflight().await, vec![], "the cure cures");
    // A policy would hide rows from the snapshot.
    db.exec(&format!(
        "CREATE TABLE veiled(id int PRIMARY KEY); ALTER TABLE veiled ENABLE ROW LEVEL SECURITY; GRANT SELECT ON veiled TO {user};
         CREATE PUBLICATION \"catchwater_{}\" FOR TABLE veiled WITH (publish_via_partition_root = true); ALTER ROLE {user} REPLICATION",
        db.name
    ))
    .await;
    let mut config = db.config(&["veiled"]);
    config.connect.user = user.clone();
    let findings = PgSource::new(config.clone()).preflight().await;
    assert_eq!(findings.iter().map(|f| f.code.0).collect::<Vec<_>>(), [527], "{findings:#?}");
    assert_eq!(findings[0].sql, [format!("ALTER ROLE \"{user}\" BYPASSRLS;")]);
    db.exec(&findings[0].sql[0]).await;
    assert_eq!(PgSource::new(config).preflight().await, vec![], "the cure cures");
    // What open refuses is the same.
    let mut source = PgSource::new(db.config(&["fast"]));
    let e = refused(&mut source, Start::Fresh, None).await;
    assert_eq!(e.code.0, 513);

    // Errors of the connection itself.
    let one = async |url: &str| -> (u16, bool) {
        let mut config = db.config(&["good"]);
        config.connect = ConnectConfig::parse(url).unwrap();
        let findings = PgSource::new(config).preflight().await;
        assert_eq!(findings.len(), 1, "{findings:?}");
        (findings[0].code.0, findings[0].retry)
    };
    assert_eq!(one(&db.url.replace(&db.name, "no_such_database")).await, (503, false));
    assert_eq!(one(&db.url.replace("postgres@", "no_such_user@")).await, (502, false));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert_eq!(one(&format!("postgres://x@127.0.0.1:{free}/x")).await, (501, true));
    db.exec(&format!("DROP OWNED BY {user}; DROP ROLE {user}")).await;
    db.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_dropped_and_made_again_is_not_lost_in_silence() {
    let Some(db) = database("remade").await else { return };
    db.exec("CREATE TABLE t(id int PRIMARY KEY); CREATE TABLE u(id int PRIMARY KEY)").await;
    let (mut source, _) = db.open(&["t", "u"]).await;
    db.exec("DROP TABLE t; CREATE TABLE t(id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    let start = Instant::now();
    let e = loop {
        assert!(start.elapsed() < LIMIT);
        let mut batch = EventBatch::new(1 << 20);
        if let Err(e) = source.next(&mut batch).await {
            break e;
        }
    };
    assert_eq!((e.class, e.code.0), (SourceClass::Config, 521), "{e}");
    assert!(e.what.contains("public.t"), "{e}");
    source.close().await;
    db.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exported_snapshot_ends_with_its_last_reader() {
    let Some(db) = database("export").await else { return };
    db.exec("CREATE TABLE t(id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    let (mut source, opened) = db.open(&["t"]).await;
    let held = "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND backend_xmin IS NOT NULL AND pid <> pg_backend_pid() AND application_name LIKE 'catchwater/%'";
    assert_ne!(db.one(held).await, "0", "the export holds the server's horizon");
    let mut one = source.snapshot().unwrap();
    let mut two = source.snapshot().unwrap();
    let chunks = one.plan(&opened.tables).await.unwrap();
    one.close().await;
    let mut rows = Vec::new();
    // Dropped in the middle of a use: the next use begins anew.
    let cut = tokio::time::timeout(Duration::from_micros(1), two.read(&chunks[0], &mut rows)).await;
    assert!(cut.is_err() && rows.is_empty());
    let end = two.read(&chunks[0], &mut rows).await.unwrap();
    assert_eq!((end.view, rows.len()), (View::Exported, 1));
    two.close().await;
    let start = Instant::now();
    while db.one(held).await != "0" {
        assert!(start.elapsed() < LIMIT, "nothing holds it any more");
        tokio::task::yield_now().await;
    }
    let mut later = source.snapshot().unwrap();
    let chunks = later.plan(&opened.tables).await.unwrap();
    assert_eq!(chunks[0].method, ChunkMethod::Chunked);
    later.close().await;
    source.close().await;
    db.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_above_the_limit_stops_with_its_name_before_it_is_read() {
    let Some(db) = database("toolarge").await else { return };
    db.exec("CREATE TABLE t(id int PRIMARY KEY, v text)").await;
    let mut config = db.config(&["t"]);
    config.row_bytes_max = 100_000;
    let mut source = PgSource::new(config);
    let known = source.identify().await.unwrap();
    source.open(Start::Fresh, Some(known)).await.unwrap();
    db.exec("INSERT INTO t VALUES (1, repeat('x', 150000))").await;
    let mut batch = EventBatch::new(1 << 20);
    let e = loop {
        if let Err(e) = source.next(&mut batch).await {
            break e;
        }
    };
    assert_eq!((e.class, e.code.0), (SourceClass::RowTooLarge, 522), "{e}");
    source.close().await;
    db.drop().await;
}

/// Bytes recorded from this very server decode without an unknown message: the decoder's own tests are hand made.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_recorded_from_the_server_decode() {
    for server in servers() {
        let db = database_on(&server, "recorded").await;
        db.exec(
            "CREATE TYPE mood AS ENUM ('a'); CREATE TABLE t(id int PRIMARY KEY, m mood, big text);
             CREATE PUBLICATION p FOR TABLE t",
        )
        .await;
        let slot = format!("{}_s", db.name);
        db.exec(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")).await;
        db.exec("INSERT INTO t VALUES (1,'a',repeat('x',100)); UPDATE t SET id = 2; UPDATE t SET m = NULL; DELETE FROM t; TRUNCATE t").await;
        db.exec("SELECT pg_logical_emit_message(true, 'p', 'c')").await;
        let rows = db
            .client
            .query(
                &format!(
                    "SELECT data FROM pg_logical_slot_get_binary_changes('{slot}', NULL, NULL, 'proto_version', '1', 'publication_names', 'p', 'messages', 'true')"
                ),
                &[],
            )
            .await
            .unwrap();
        let mut tags = String::new();
        for r in &rows {
            let data: Vec<u8> = r.get(0);
            let whole = bytes::Bytes::from(data);
            decode::message(whole.clone()).unwrap();
            tags.push(char::from(whole[0]));
            for n in 1..whole.len() {
                assert!(decode::message(whole.slice(..n)).is_err(), "a cut message is refused");
            }
        }
        assert!("BYRIUDTCM".chars().all(|t| tags.contains(t)), "{tags} on {server}");
        db.drop().await;
    }
}

/// What else the wire may carry beside rows: prepared transactions come when they are committed and not before, origins
/// bear no rows, a nested savepoint that was rolled back leaves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn prepared_transactions_messages_origins_and_savepoints() {
    for server in servers() {
        let db = database_on(&server, "wire").await;
        db.exec("CREATE TABLE t(id int PRIMARY KEY, v text); CREATE TABLE marker(id int PRIMARY KEY)").await;
        let (mut source, _) = db.open(&["t", "marker"]).await;
        let name = format!("p_{}", db.name);
        db.exec(&format!("BEGIN; INSERT INTO t VALUES (1, 'prepared'); PREPARE TRANSACTION '{name}'")).await;
        db.exec(&format!("BEGIN; INSERT INTO t VALUES (9, 'gone'); PREPARE TRANSACTION '{name}_b'")).await;
        db.exec("INSERT INTO t VALUES (2, 'between')").await;
        db.exec("SELECT pg_logical_emit_message(false, 'app', 'at once'); SELECT pg_logical_emit_message(true, '', 'in one')")
            .await;
        db.exec(&format!("ROLLBACK PREPARED '{name}_b'")).await;
        db.exec(&format!("COMMIT PREPARED '{name}'")).await;
        db.exec(
            "BEGIN; INSERT INTO t VALUES (3, 'kept'); SAVEPOINT a; INSERT INTO t VALUES (4, 'x'); SAVEPOINT b; \
             INSERT INTO t VALUES (5, 'x'); ROLLBACK TO a; SELECT pg_logical_emit_message(true, 'app', 'inside'); \
             INSERT INTO t VALUES (6, 'kept'); COMMIT",
        )
        .await;
        let origin = format!("o_{}", db.name);
        db.exec(&format!("SELECT pg_replication_origin_create('{origin}')")).await;
        db.exec(&format!("SELECT pg_replication_origin_session_setup('{origin}')")).await;
        db.exec("INSERT INTO t VALUES (7, 'from elsewhere')").await;
        db.exec("SELECT pg_replication_origin_session_reset()").await;
        db.exec(&format!("SELECT pg_replication_origin_drop('{origin}')")).await;
        db.exec("INSERT INTO marker VALUES (1)").await;
        let marked = |txns: &[Txn]| txns.iter().any(|t| t.rows.iter().any(|r| r.table.name == "marker"));
        let txns = read_until(&mut source, marked).await;
        let ids: Vec<Vec<Value>> = txns
            .iter()
            .filter(|t| t.rows.iter().any(|r| r.table.name == "t"))
            // Messages have their own tests.
            .map(|t| {
                t.rows
                    .iter()
                    .filter(|r| r.table.name == "t")
                    .filter_map(|r| r.after.as_ref()?.cells[0].value().cloned())
                    .collect()
            })
            .collect();
        let int = |v: &[i64]| v.iter().map(|v| Value::Int(*v)).collect::<Vec<_>>();
        assert_eq!(ids, [int(&[2]), int(&[1]), int(&[3, 6]), int(&[7])], "{server}: in commit order");
        source.close().await;
        db.drop().await;
    }
}
