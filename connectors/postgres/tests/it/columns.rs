//! Columns and their names, from source to target: a stream names them, and the catalogue it is read with is of another moment.

use crate::pipeline::{Rig, Running, alive};
use crate::support::*;
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
