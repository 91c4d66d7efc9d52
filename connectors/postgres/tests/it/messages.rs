//! Logical messages (`pg_logical_emit_message`) as Debezium's connector writes them, and generated columns.

use crate::rig::Rig;
use crate::support::*;
use catchwater_capture::State;
use catchwater_capture::source::Source;
use catchwater_change::stamp::flag;
use serde_json::json;

/// `prefix content` of the messages in the log, in order of what they say of their place.
fn messages(rig: &Rig) -> Vec<(String, String)> {
    let mut all = rig.records("shop.message");
    all.sort_by_key(|r| r.stamp.as_ref().map(|s| s.version));
    let text = |v: &serde_json::Value| v.as_str().unwrap().to_owned();
    all.iter().map(|r| (text(&r.value["message"]["prefix"]), text(&r.value["message"]["content"]))).collect()
}

/// Transactional ones stand at their place among the rows and go with a rollback; the others come at once and stay. The
/// worker is killed between and inside: none is lost, none comes twice. Prefixes are chosen by both lists.
#[tokio::test(flavor = "multi_thread")]
async fn messages_come_once_and_at_their_place() {
    for (n, server) in servers().into_iter().enumerate() {
        let streaming = n % 2 == 1;
        let db = database_on(&server, "messages").await;
        db.exec(&format!("ALTER DATABASE {} SET logical_decoding_work_mem = '64kB'", db.name)).await;
        db.exec("CREATE TABLE t(id int PRIMARY KEY, v text)").await;
        let mut source = db.config(&["t"]);
        source.streaming = streaming;
        let mut rig = Rig::new(source).await;
        rig.properties =
            vec![("message.prefix.exclude.list", "secret.*".into()), ("provide.transaction.metadata", "true".into())];
        let mut running = rig.start();
        running.until("streaming", |s| s.get().state == State::Streaming).await;
        db.exec("SELECT pg_logical_emit_message(true, 'alone', 'in a transaction')").await;
        db.exec("SELECT pg_logical_emit_message(false, 'loose', '\\x00ff01'::bytea)").await;
        db.exec(
            "BEGIN; INSERT INTO t VALUES (1, 'a'); SELECT pg_logical_emit_message(true, '', 'between rows');
             SELECT pg_logical_emit_message(false, 'loose', 'from inside'); INSERT INTO t VALUES (2, 'b'); COMMIT",
        )
        .await;
        db.exec("BEGIN; SELECT pg_logical_emit_message(true, 'gone', ''); SELECT pg_logical_emit_message(false, 'stays', ''); ROLLBACK").await;
        db.exec("SELECT pg_logical_emit_message(true, 'secret one', 'x'), pg_logical_emit_message(false, 'secret two', 'x')").await;
        db.exec("SELECT pg_logical_emit_message(true, 'catchwater', 'ours'), pg_logical_emit_message(false, 'catchwater', 'ours')").await;
        let mut want: Vec<(String, String)> = Vec::new();
        let add =
            |want: &mut Vec<(String, String)>, prefix: &str, content: &str| want.push((prefix.into(), content.into()));
        add(&mut want, "alone", "aW4gYSB0cmFuc2FjdGlvbg==");
        add(&mut want, "loose", "AP8B");
        add(&mut want, "loose", "ZnJvbSBpbnNpZGU=");
        add(&mut want, "", "YmV0d2VlbiByb3dz");
        add(&mut want, "stays", "");
        running.until("the first messages", |_| messages(&rig).len() >= 5).await;
        // Killed at whatever await it stands, again and again, while a transaction above the server's bound is written.
        for round in 0..4 {
            drop(running);
            db.exec(&format!(
                "BEGIN; SELECT pg_logical_emit_message(true, 'large', 'before');
                 INSERT INTO t SELECT {round} * 1000 + g + 10, repeat('x', 200) FROM generate_series(1, 900) g;
                 SELECT pg_logical_emit_message(true, 'large', 'after'); COMMIT;
                 SELECT pg_logical_emit_message(false, 'loose', 'round {round}')"
            ))
            .await;
            add(&mut want, "large", "YmVmb3Jl");
            add(&mut want, "large", "YWZ0ZXI=");
            add(&mut want, "loose", ["cm91bmQgMA==", "cm91bmQgMQ==", "cm91bmQgMg==", "cm91bmQgMw=="][round]);
            running = rig.start();
            let some = want.len() - 2 + round % 3;
            running.until("some of the round", |_| messages(&rig).len() >= some).await;
        }
        running.until("all", |_| messages(&rig).len() >= want.len()).await;
        db.exec("INSERT INTO t VALUES (9, 'end')").await;
        running.until("the end", |_| rig.records("shop.public.t").iter().any(|r| r.key["id"] == 9)).await;
        assert_eq!(messages(&rig), want, "{server}");

        let all = rig.records("shop.message");
        let of = |content: &str| all.iter().find(|r| r.value["message"]["content"] == content).unwrap();
        let (inside, loose) = (of("YmV0d2VlbiByb3dz"), of("AP8B"));
        assert_eq!(inside.key, json!({"prefix": ""}));
        let fields: Vec<&String> = loose.value.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["op", "ts_ms", "source", "transaction", "message"]);
        assert_eq!((&loose.value["op"], &loose.value["transaction"]), (&json!("m"), &json!(null)));
        let source = &loose.value["source"];
        assert_eq!((&source["txId"], &source["schema"], &source["table"]), (&json!(null), &json!(""), &json!("")));
        let stamp = loose.stamp.as_ref().unwrap();
        assert_eq!(
            (stamp.op, stamp.total, stamp.flags & (flag::FIRST | flag::LAST)),
            (b'm', 1, flag::FIRST | flag::LAST)
        );
        assert!(inside.value["source"]["txId"].is_u64());
        // BEGIN, row, message, row, END: the message has an ordinal as they have.
        let rows = rig.records("shop.public.t");
        let row = |id: i64| rows.iter().find(|r| r.key["id"] == id).unwrap().stamp.clone().unwrap().version;
        let at = inside.stamp.as_ref().unwrap().version;
        assert_eq!((row(1).commit_seq, row(2).commit_seq), (at.commit_seq, at.commit_seq));
        assert_eq!((row(1).ordinal, at.ordinal, row(2).ordinal), (1, 2, 3));
        // A transactional message is an event as a row is, and what belongs to no transaction has no BEGIN.
        let ends = rig.records("shop.transaction");
        let end = |n: u64| ends.iter().any(|r| r.value["status"] == "END" && r.value["event_count"] == n);
        assert!(end(3) && end(1), "{ends:?}");
        assert_eq!(inside.value["transaction"]["total_order"], 2);
        assert!(ends.iter().all(|r| !r.value["id"].as_str().unwrap().starts_with("message")));
        // One row of the table for each insert: the messages moved nothing.
        assert_eq!(rows.len(), 2 + 4 * 900 + 1);
        running.stop.stop();
        assert_eq!((&mut running.task).await.unwrap(), "Stopped");
        db.drop().await;
    }
}

/// What the include list does not name does not come, and without messages there is no topic.
#[tokio::test(flavor = "multi_thread")]
async fn without_messages_there_is_no_topic() {
    let Some(db) = database("nomessages").await else { return };
    db.exec("CREATE TABLE t(id int PRIMARY KEY)").await;
    let mut rig = Rig::new(db.config(&["t"])).await;
    rig.properties = vec![("message.prefix.include.list", "app\\..*".into())];
    let mut running = rig.start();
    running.until("streaming", |s| s.get().state == State::Streaming).await;
    db.exec("SELECT pg_logical_emit_message(true, 'other', 'x'), pg_logical_emit_message(false, 'app', 'x')").await;
    db.exec("INSERT INTO t VALUES (1)").await;
    running.until("the row", |_| rig.records("shop.public.t").len() == 1).await;
    assert!(rig.cluster.topics().iter().all(|(name, ..)| name.as_str() != "shop.message"));
    db.exec("SELECT pg_logical_emit_message(true, 'APP.one', 'x')").await;
    running.until("the message", |_| messages(&rig).len() == 1).await;
    assert_eq!(messages(&rig), [("APP.one".to_owned(), "eA==".to_owned())]);
    db.drop().await;
}

/// A stored generated column: sent by PostgreSQL 18, and then equal in snapshot and stream; before, in neither. A
/// publication of the user's that does not send it is taken as it is; one that begins to is followed.
#[tokio::test(flavor = "multi_thread")]
async fn generated_columns_come_where_the_server_sends_them() {
    for server in servers() {
        let db = database_on(&server, "generated").await;
        let sent = db.version().await >= 180_000;
        let virtual_too = if sent { ", w int GENERATED ALWAYS AS (n * 3) VIRTUAL" } else { "" };
        db.exec(&format!(
            "CREATE TABLE t(id int PRIMARY KEY, g int GENERATED ALWAYS AS (n * 2) STORED, n int {virtual_too});
             CREATE TABLE f(id int, g text GENERATED ALWAYS AS ('g' || id::text) STORED); ALTER TABLE f REPLICA IDENTITY FULL;
             INSERT INTO t(id, n) VALUES (1, 10); INSERT INTO f(id) VALUES (1)"
        ))
        .await;
        let mut rig = Rig::new(db.config(&["t", "f"])).await;
        let mut running = rig.start();
        running.until("streaming", |s| s.get().state == State::Streaming).await;
        db.exec("INSERT INTO t(id, n) VALUES (2, 20); UPDATE t SET n = 11 WHERE id = 1; UPDATE f SET id = 2").await;
        let last =
            |rig: &Rig, topic: &str| rig.records(topic).into_iter().max_by_key(|r| r.stamp.clone().unwrap().version);
        let count = |rig: &Rig| (rig.records("shop.public.t").len(), rig.records("shop.public.f").len());
        running.until("the changes", |_| count(&rig) == (3, 2)).await;
        let read: Vec<_> = rig.records("shop.public.t").into_iter().filter(|r| r.value["op"] == "r").collect();
        if sent {
            assert_eq!(read[0].value["after"], json!({"id": 1, "g": 20, "n": 10}));
            assert_eq!(last(&rig, "shop.public.t").unwrap().value["after"], json!({"id": 1, "g": 22, "n": 11}));
            let full = last(&rig, "shop.public.f").unwrap().value;
            assert_eq!((&full["before"], &full["after"]), (&json!({"id": 1, "g": "g1"}), &json!({"id": 2, "g": "g2"})));
        } else {
            assert_eq!(read[0].value["after"], json!({"id": 1, "n": 10}));
            assert_eq!(last(&rig, "shop.public.t").unwrap().value["after"], json!({"id": 1, "n": 11}));
        }
        let shapes = "SELECT count(*)::text FROM pg_publication WHERE pubname LIKE 'catchwater%'";
        assert_eq!(db.one(shapes).await, "1");
        if sent {
            // The binary form, and a restart: the catalogue's shape is the wire's.
            drop(running);
            rig.source.binary = true;
            let mut running = rig.start();
            db.exec("UPDATE t SET n = 12 WHERE id = 1").await;
            running.until("after the restart", |_| count(&rig).0 == 4).await;
            assert_eq!(last(&rig, "shop.public.t").unwrap().value["after"], json!({"id": 1, "g": 24, "n": 12}));
            let numbers: std::collections::BTreeSet<u32> =
                rig.records("shop.public.t").iter().map(|r| r.stamp.as_ref().unwrap().schema_no).collect();
            assert_eq!(numbers.len(), 1, "one shape all the way");
            drop(running);
        } else {
            drop(running);
        }
        db.drop().await;
        if !sent {
            continue;
        }
        let db = database_on(&server, "generated_given").await;
        db.exec("CREATE TABLE t(id int PRIMARY KEY, g int GENERATED ALWAYS AS (id * 2) STORED)").await;
        db.exec("CREATE PUBLICATION given FOR TABLE t WITH (publish_via_partition_root = true)").await;
        let mut config = db.config(&["t"]);
        config.publication = Some("given".into());
        let mut source = catchwater_connector_postgres::PgSource::new(config);
        let known = source.identify().await.unwrap();
        let opened = source.open(catchwater_capture::source::Start::Fresh, Some(known)).await.unwrap();
        assert_eq!(opened.tables[0].columns.len(), 1);
        db.exec("INSERT INTO t(id) VALUES (1)").await;
        db.exec("ALTER PUBLICATION given SET (publish_generated_columns = stored)").await;
        db.exec("INSERT INTO t(id) VALUES (2)").await;
        let txns = read_until(&mut source, |t| t.len() == 2).await;
        assert_eq!(show_all(&txns), [["c t none -> 1"], ["c t none -> 2,4"]]);
        source.close().await;
        db.drop().await;
    }
}
