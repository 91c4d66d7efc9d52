//! Columns and their names, from source to target: a stream names them, and the catalogue it is read with is of another moment.

use crate::pipeline::{Rig, Running, alive};
use crate::support::*;
use catchwater_capture::signal;
use catchwater_connector_postgres::ConnectConfig;
use std::time::{Duration, Instant};

/// Waits until the target's table has the rows of the source's.
async fn alike(
    source: &Db,
    target: &Db,
    table: &str,
    columns: &str,
    when: &str,
    (capture, deliver): (&mut Running, &mut Running),
) {
    let start = Instant::now();
    let sql = format!(
        "SELECT coalesce(jsonb_agg(to_jsonb(x) ORDER BY x::text), '[]')::text FROM (SELECT {columns} FROM {table}) x"
    );
    let want = source.one(&sql).await;
    loop {
        let got = target.client.query_one(&sql, &[]).await.map_or_else(|e| e.to_string(), |r| r.get(0));
        if got == want {
            return;
        }
        alive(&format!("{when}, {table}: {got} for {want}"), capture, deliver).await;
        assert!(start.elapsed() < Duration::from_secs(20), "{when}, {table}: {got}\n{want}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A column that is dropped and made again under its name looks to the stream like the one before, and a renamed one like a new
/// one; both are told by their numbers.
#[tokio::test(flavor = "multi_thread")]
async fn columns_that_are_made_again_or_renamed_have_their_own_values() {
    let Some(source) = database("from_columns").await else { return };
    let target = database("to_columns").await.unwrap();
    source
        .exec(
            "CREATE TABLE t(id int PRIMARY KEY, d text, e text, a int, b text); CREATE TABLE bare(a int, b text);
             ALTER TABLE bare REPLICA IDENTITY FULL; INSERT INTO bare VALUES (1, 'one'), (2, 'two');
             INSERT INTO t SELECT g, 'd' || g, 'e' || g, g, 'b' || g FROM generate_series(1, 5) g",
        )
        .await;
    let mut rig = Rig::new(&source, &target).await;
    rig.source = source.config(&["t", "bare"]);
    let (mut capture, mut deliver) = (rig.capture(), rig.deliver());
    // (what is done while both run, and while they are down; columns of `t`, of `bare`)
    let steps: [(&str, &str, &str, &str); 9] = [
        ("", "", "id, d, e, a, b", "a, b"),
        (
            "ALTER TABLE t DROP b; ALTER TABLE t ADD b text; UPDATE t SET b = 'new' WHERE id = 5;
             ALTER TABLE bare DROP b; ALTER TABLE bare ADD b text; UPDATE bare SET b = 'new' WHERE a = 2",
            "",
            "id, d, e, a, b",
            "a, b",
        ),
        (
            "ALTER TABLE t RENAME a TO c; UPDATE t SET c = 50 WHERE id = 5; ALTER TABLE bare RENAME a TO c; DELETE FROM bare WHERE c = 1",
            "",
            "id, d, e, c, b",
            "c, b",
        ),
        // Rows of the old column stand in the stream when the catalogue has the new one.
        (
            "",
            "UPDATE t SET b = 'old' WHERE id < 4; INSERT INTO bare VALUES (3, 'old'), (4, 'old');
             ALTER TABLE t DROP b; ALTER TABLE t ADD b text DEFAULT 'seven'; UPDATE t SET b = 'eight' WHERE id = 1;
             ALTER TABLE bare DROP b; ALTER TABLE bare ADD b text; UPDATE bare SET b = 'eight' WHERE c = 3",
            "id, d, e, c, b",
            "c, b",
        ),
        (
            "ALTER TABLE t RENAME d TO x; ALTER TABLE t RENAME e TO d; ALTER TABLE t RENAME x TO e; UPDATE t SET d = 'now' WHERE id = 2",
            "",
            "id, d, e, c, b",
            "c, b",
        ),
        ("", "UPDATE t SET b = 'nine' WHERE id = 3; DELETE FROM t WHERE id = 4", "id, d, e, c, b", "c, b"),
        // All of it in one transaction, in a savepoint of one, and in one that is read later: the table is read once more.
        (
            "BEGIN; UPDATE t SET b = 'ten' WHERE id < 4; ALTER TABLE t DROP b; ALTER TABLE t ADD b text;
             UPDATE t SET b = 'eleven' WHERE id = 1; COMMIT",
            "",
            "id, d, e, c, b",
            "c, b",
        ),
        (
            "BEGIN; SAVEPOINT s; ALTER TABLE t DROP b; ALTER TABLE t ADD b text; RELEASE s; UPDATE t SET b = 'twelve' WHERE id < 3;
             COMMIT; UPDATE t SET c = 7 WHERE id = 5",
            "",
            "id, d, e, c, b",
            "c, b",
        ),
        (
            "",
            "BEGIN; UPDATE t SET b = 'old' WHERE id < 4; ALTER TABLE t DROP b; ALTER TABLE t ADD b text DEFAULT 'thirteen';
             UPDATE t SET b = 'new' WHERE id = 1; COMMIT",
            "id, d, e, c, b",
            "c, b",
        ),
    ];
    for (no, (live, down, of_t, of_bare)) in steps.into_iter().enumerate() {
        for sql in live.split(';') {
            source.exec(sql).await;
        }
        if !down.is_empty() {
            drop((capture, deliver));
            for sql in down.split(';') {
                source.exec(sql).await;
            }
            (capture, deliver) = (rig.capture(), rig.deliver());
        }
        for (table, columns) in [("t", of_t), ("bare", of_bare)] {
            alike(&source, &target, table, columns, &format!("step {no}"), (&mut capture, &mut deliver)).await;
        }
    }
    drop((capture, deliver));
    target.drop().await;
    source.drop().await;
}

/// Columns that exchange their names: what the wire names, the catalogue of a later moment gives to the other one.
#[tokio::test(flavor = "multi_thread")]
async fn columns_that_exchange_their_names_keep_their_values() {
    for server in servers() {
        let (source, target) = (database_on(&server, "from_names").await, database_on(&server, "to_names").await);
        source
            .exec(
                "CREATE TABLE t(id int PRIMARY KEY, a text NOT NULL, g text GENERATED ALWAYS AS ('g') STORED, k int, b text);
                 INSERT INTO t(id, a, k, b) SELECT g, 'a' || g, g, 'b' || g FROM generate_series(1, 6) g",
            )
            .await;
        let mut rig = Rig::new(&source, &target).await;
        rig.source = source.config(&["t"]);
        let (mut capture, mut deliver) = (rig.capture(), rig.deliver());
        let swap = |a: &str, b: &str| {
            format!(
                "ALTER TABLE t RENAME {a} TO tmp; ALTER TABLE t RENAME {b} TO {a}; ALTER TABLE t RENAME tmp TO {b};"
            )
        };
        // (what is done, columns)
        let steps = [
            ("SELECT 1".into(), "id, a, k, b"),
            // A shape that the log has not yet, and that the catalogue does not show any more when it comes.
            (
                format!(
                    "BEGIN; ALTER TABLE t ADD c text; UPDATE t SET c = 'c', a = 'A' WHERE id < 3; {} COMMIT",
                    swap("a", "c")
                ),
                "id, a, k, b, c",
            ),
            ("UPDATE t SET a = 'new' WHERE id = 4".into(), "id, a, k, b, c"),
            // In a savepoint; changes behind it, too.
            (
                format!(
                    "BEGIN; ALTER TABLE t ADD d text; UPDATE t SET d = 'd', b = 'B' WHERE id > 4; SAVEPOINT s; {} RELEASE s; \
                     UPDATE t SET d = 'D' WHERE id = 1; COMMIT",
                    swap("b", "d")
                ),
                "id, a, k, b, c, d",
            ),
            // Read later than it happened, by when the catalogue has the names of after.
            (
                format!(
                    "ALTER TABLE t ADD e int; UPDATE t SET e = 7 WHERE id = 2; UPDATE t SET e = id + 10, k = 3; {}",
                    swap("k", "e")
                ),
                "id, a, k, b, c, d, e",
            ),
        ];
        for (no, (sql, columns)) in steps.into_iter().enumerate() {
            // A source tells of a new shape with the next change.
            let sql = format!("{sql}; UPDATE t SET id = id WHERE id = 6");
            if no == 4 {
                drop((capture, deliver));
                source.exec(&sql).await;
                (capture, deliver) = (rig.capture(), rig.deliver());
            } else {
                source.exec(&sql).await;
            }
            alike(&source, &target, "t", columns, &format!("{server}, step {no}"), (&mut capture, &mut deliver)).await;
        }
        drop((capture, deliver));
        target.drop().await;
        source.drop().await;
    }
}

/// A column that came and was renamed while nobody read: its rows are told under a name that the table has no more, behind the shape
/// of today.
#[tokio::test(flavor = "multi_thread")]
async fn columns_renamed_while_the_source_was_down_keep_their_values() {
    let Some(source) = database("from_renamed").await else { return };
    let target = database("to_renamed").await.unwrap();
    source.exec("CREATE TABLE t(id int PRIMARY KEY, a text); CREATE TABLE w(id int PRIMARY KEY, x int, a text); ALTER TABLE w DROP x").await;
    source.exec("INSERT INTO t VALUES (1, 'a'); INSERT INTO w VALUES (1, 'a')").await;
    let mut rig = Rig::new(&source, &target).await;
    rig.source = source.config(&["t", "w"]);
    let (mut capture, mut deliver) = (rig.capture(), rig.deliver());
    for table in ["t", "w"] {
        alike(&source, &target, table, "id, a", "at first", (&mut capture, &mut deliver)).await;
    }
    drop((capture, deliver));
    for table in ["t", "w"] {
        let sql = format!(
            "INSERT INTO {table} VALUES (2, 'b'); ALTER TABLE {table} ADD c int DEFAULT 7; INSERT INTO {table} VALUES (3, 'c', 30);
             ALTER TABLE {table} ADD d text DEFAULT 'd'; UPDATE {table} SET c = 10 WHERE id = 1;
             ALTER TABLE {table} RENAME c TO r; INSERT INTO {table} VALUES (4, 'd', 40, 'x')"
        );
        for sql in sql.split(';') {
            source.exec(sql).await;
        }
    }
    (capture, deliver) = (rig.capture(), rig.deliver());
    for table in ["t", "w"] {
        alike(&source, &target, table, "id, a, r, d", "renamed", (&mut capture, &mut deliver)).await;
    }
    // All of it in one batch of the target, the names of before and of after.
    drop(deliver);
    for table in ["t", "w"] {
        let sql = format!(
            "ALTER TABLE {table} ADD f int; INSERT INTO {table} VALUES (5, 'e', 50, 'x', 5); ALTER TABLE {table} RENAME f TO g;
             INSERT INTO {table} VALUES (6, 'f', 60, 'x', 6)"
        );
        for sql in sql.split(';') {
            source.exec(sql).await;
        }
    }
    let start = Instant::now();
    let status = capture.status.clone().unwrap();
    while status.get().rows < 12 {
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", status.get());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    deliver = rig.deliver();
    for table in ["t", "w"] {
        alike(&source, &target, table, "id, a, r, d, g", "in one batch", (&mut capture, &mut deliver)).await;
    }
    // Back to the name it had, while both run, and while both are down.
    let back = |table: &str, id: u32, name: &str| {
        format!(
            "INSERT INTO {table} VALUES ({id}, 'as before'); ALTER TABLE {table} RENAME a TO {name};
             INSERT INTO {table} VALUES ({id} + 1, 'away'); ALTER TABLE {table} RENAME {name} TO a;
             INSERT INTO {table} VALUES ({id} + 2, 'back')"
        )
    };
    for table in ["t", "w"] {
        let sql = back(table, 10, "y");
        let (away, back) = sql.split_at(sql.rfind("ALTER").unwrap());
        for (sql, columns, when) in [(away, "id, y, r, d, g", "away"), (back, "id, a, r, d, g", "back")] {
            for sql in sql.split(';') {
                source.exec(sql).await;
            }
            alike(&source, &target, table, columns, when, (&mut capture, &mut deliver)).await;
        }
    }
    drop((capture, deliver));
    for table in ["t", "w"] {
        for sql in back(table, 20, "z").split(';') {
            source.exec(sql).await;
        }
    }
    (capture, deliver) = (rig.capture(), rig.deliver());
    for table in ["t", "w"] {
        alike(&source, &target, table, "id, a, r, d, g", "back, read later", (&mut capture, &mut deliver)).await;
    }
    // What no row follows, the stream does not tell: who reads the table once more asks the catalogue.
    source.exec("ALTER TABLE t DROP d; ALTER TABLE t RENAME r TO n; ALTER TABLE t ADD h text DEFAULT 'h'").await;
    let asked = signal::parse("execute-snapshot", r#"{"data-collections":["public.t"]}"#).unwrap();
    assert_eq!(capture.status.clone().unwrap().signal(asked).await.unwrap().unwrap(), "asked for: public.t");
    alike(&source, &target, "t", "id, a, n, g, h", "read once more", (&mut capture, &mut deliver)).await;
    // A target that begins with all of it: its tables are made as they are now, and get the rows of before.
    drop(deliver);
    let fresh = database("to_renamed_later").await.unwrap();
    rig.target = ConnectConfig::parse(&fresh.url).unwrap();
    deliver = rig.deliver();
    alike(&source, &fresh, "t", "id, a, n, g, h", "from the beginning", (&mut capture, &mut deliver)).await;
    alike(&source, &fresh, "w", "id, a, r, d, g", "from the beginning", (&mut capture, &mut deliver)).await;
    fresh.drop().await;
    drop((capture, deliver));
    target.drop().await;
    source.drop().await;
}

/// A column comes while the target waits for the end of the first snapshot, with the rows of before in the log and none of them at the
/// target.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_before_a_column_that_comes_under_the_first_snapshot_have_its_value() {
    let Some(source) = database("from_held").await else { return };
    let target = database("to_held").await.unwrap();
    source
        .exec("CREATE TABLE t(id int PRIMARY KEY); CREATE TABLE z(id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
        .await;
    let holds = connect(&source.url).await;
    holds.batch_execute("SELECT pg_advisory_lock(7)").await.unwrap();
    let mut rig = Rig::new(&source, &target).await;
    rig.source = source.config(&["t", "z"]);
    let waits = "SELECT z.* FROM z, (SELECT pg_advisory_lock_shared(7)) AS x".to_owned();
    rig.source.reading.snapshot_selects.insert("public.z".into(), waits);
    let (mut capture, mut deliver) = (rig.capture(), rig.deliver());
    let has = |table: &str, column: &str| {
        format!(
            "SELECT (EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass('{table}') AND attname = '{column}'))::text"
        )
    };
    let start = Instant::now();
    while target.one(&has("t", "id")).await != "true" || !rig.has("shop.public.t", "\"id\":2") {
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", capture.status.clone().unwrap().get());
        alive("the first table", &mut capture, &mut deliver).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(capture);
    source.exec("ALTER TABLE t ADD c int DEFAULT 7; INSERT INTO t VALUES (3, 8)").await;
    capture = rig.capture();
    while target.one(&has("t", "c")).await != "true" {
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", capture.status.clone().unwrap().get());
        alive("the column", &mut capture, &mut deliver).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(target.one("SELECT count(*)::text FROM t").await, "0");
    holds.batch_execute("SELECT pg_advisory_unlock(7)").await.unwrap();
    alike(&source, &target, "t", "id, c", "whole", (&mut capture, &mut deliver)).await;
    drop((capture, deliver));
    target.drop().await;
    source.drop().await;
}
