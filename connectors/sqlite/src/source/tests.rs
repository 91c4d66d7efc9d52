//! Random statements against a shadow, stream, snapshot, schema changes, preflight.

mod conformance;

use super::*;
use crate::sink::tests::Dir;
use crate::types::quoted;
use catchwater_base::Rng;
use catchwater_capture::source::{EventBatch, View};
use catchwater_change::{Cell, Op, Row, Value};
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A database with the schema `sql`, in WAL mode.
fn database(dir: &Dir, sql: &str) -> PathBuf {
    let file = dir.0.join("shop.db");
    let db = Connection::open(&file).unwrap();
    db.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).unwrap();
    db.execute_batch(sql).unwrap();
    file
}

fn fast(file: &std::path::Path) -> SourceConfig {
    SourceConfig { busy_ms: 2_000, chunk_rows: 3, ..SourceConfig::new(file) }
}

/// Keys and rows as text that keeps storage classes apart.
fn show(row: &Row) -> Vec<String> {
    row.cells
        .iter()
        .map(|c| match c {
            Cell::Null => "NULL".into(),
            Cell::Value(v) => format!("{v:?}"),
            other => panic!("{other:?}"),
        })
        .collect()
}

// ---- REPLACE and all that: thousands of random statements against a shadow ----

/// Applies what the change table says to a shadow, and checks that each operation is of the right kind.
struct Shadow {
    seq: i64,
    keyed: BTreeMap<Vec<String>, Vec<String>>,
    bag: Vec<Vec<String>>,
}

impl Shadow {
    fn take(&mut self, db: &Connection, table: &Table, kinds: bool) -> Result<(), String> {
        let mut statement = db.prepare("SELECT * FROM _catchwater_changes WHERE seq > ?1 ORDER BY seq").unwrap();
        let mut rows = statement.query([self.seq]).unwrap();
        while let Some(r) = rows.next().unwrap() {
            let seq: i64 = r.get(0).unwrap();
            if seq != self.seq + 1 {
                return Err(format!("seq {seq} after {}", self.seq));
            }
            self.seq = seq;
            let op: i64 = r.get(2).unwrap();
            let cells: Vec<String> =
                (0..table.columns.len()).map(|i| format!("{:?}", r.get_ref(4 + i).unwrap())).collect();
            if table.key.is_empty() {
                match op {
                    triggers::CREATE => self.bag.push(cells),
                    triggers::DELETE => {
                        let at = self.bag.iter().position(|b| *b == cells).ok_or("a delete of no row")?;
                        self.bag.swap_remove(at);
                    }
                    other => return Err(format!("operation {other} on a table without key")),
                }
                continue;
            }
            let key: Vec<String> = table.key.iter().map(|k| cells[*k].clone()).collect();
            let there = self.keyed.contains_key(&key);
            let right = match op {
                triggers::CREATE => !there,
                triggers::UPDATE | triggers::DELETE => there,
                other => return Err(format!("operation {other}")),
            };
            if kinds && !right {
                return Err(format!(
                    "operation {op} of key {key:?}, which is {}there",
                    if there { "" } else { "not " }
                ));
            }
            match op {
                triggers::DELETE => {
                    self.keyed.remove(&key);
                }
                _ => {
                    self.keyed.insert(key, cells);
                }
            }
        }
        Ok(())
    }

    fn compare(&self, db: &Connection, table: &Table) -> Result<(), String> {
        let names: Vec<String> = table.columns.iter().map(|c| quoted(&c.name)).collect();
        let mut statement = db.prepare(&format!("SELECT {} FROM {}", names.join(", "), quoted(&table.name))).unwrap();
        let mut rows = statement.query([]).unwrap();
        let mut want = Vec::new();
        while let Some(r) = rows.next().unwrap() {
            want.push((0..names.len()).map(|i| format!("{:?}", r.get_ref(i).unwrap())).collect::<Vec<_>>());
        }
        let mut have: Vec<Vec<String>> = self.keyed.values().chain(&self.bag).cloned().collect();
        want.sort();
        have.sort();
        if want == have { Ok(()) } else { Err(format!("table {want:?}\nshadow {have:?}")) }
    }
}

/// A random statement on `t(id, u, v, a)`.
fn statement(rng: &mut Rng, keyed: bool, rowid: bool) -> String {
    let value = |rng: &mut Rng| match rng.below(9) {
        0 => "NULL".to_owned(),
        1 => format!("'k{}'", rng.below(4)),
        2 => format!("'K{}'", rng.below(4)),
        3 => format!("x'0{}'", rng.below(4)),
        4 => format!("{}.5", rng.below(4)),
        _ => rng.below(6).to_string(),
    };
    let id = |rng: &mut Rng| rng.between(1, 6).to_string();
    let row = |rng: &mut Rng| {
        let id = if rng.chance(100_000) { "NULL".into() } else { id(rng) };
        format!("({id}, {}, {}, {})", value(rng), value(rng), rng.below(100))
    };
    let or = |rng: &mut Rng| ["", "", " OR REPLACE", " OR IGNORE", " OR REPLACE"][rng.below(5) as usize];
    let filter = |rng: &mut Rng| match rng.below(4) {
        0 => String::new(),
        1 => format!(" WHERE u = {}", value(rng)),
        2 => format!(" WHERE id > {}", id(rng)),
        _ => format!(" WHERE id = {}", id(rng)),
    };
    if rowid && rng.chance(200_000) {
        return match rng.below(3) {
            0 => format!("UPDATE{} t SET rowid = rowid + {}{}", or(rng), rng.below(3), filter(rng)),
            _ => format!(
                "INSERT{} INTO t(rowid, id, u, v, a) VALUES ({}, {}, {}, {}, 1)",
                or(rng),
                rng.below(6),
                id(rng),
                value(rng),
                value(rng)
            ),
        };
    }
    match rng.below(12) {
        0..=3 => format!("INSERT{} INTO t(id, u, v, a) VALUES {}", or(rng), row(rng)),
        4 => {
            let rows: Vec<String> = (0..rng.between(2, 4)).map(|_| row(rng)).collect();
            format!("INSERT{} INTO t(id, u, v, a) VALUES {}", or(rng), rows.join(", "))
        }
        5 => format!("INSERT{} INTO t(id, u, v, a) SELECT id + {}, u, v, a FROM t", or(rng), rng.below(3)),
        6 if keyed => format!(
            "INSERT INTO t(id, u, v, a) VALUES {} ON CONFLICT (id) DO UPDATE SET u = excluded.u, a = a + 1",
            row(rng)
        ),
        7 => format!("UPDATE{} t SET id = id + {}{}", or(rng), rng.below(3), filter(rng)),
        8 => format!("UPDATE{} t SET u = {}, v = {}{}", or(rng), value(rng), value(rng), filter(rng)),
        9 => format!("UPDATE{} t SET a = a + 1{}", or(rng), filter(rng)),
        _ => format!("DELETE FROM t{}", filter(rng)),
    }
}

fn random_statements(schema: &str, exact_kinds: bool, keyed: bool, seeds: std::ops::Range<u64>) -> usize {
    let mut count = 0;
    for seed in seeds {
        let mut rng = Rng::new(seed);
        let mut db = Connection::open_in_memory().unwrap();
        db.execute_batch(schema).unwrap();
        db.pragma_update(None, "recursive_triggers", rng.chance(500_000)).unwrap();
        attach::attach(&mut db, &SourceConfig::new("x.db"), wall()).unwrap();
        let table = Table::read(&db, "t").unwrap();
        let rowid = matches!(table.identity, catalog::RowIdentity::Rowid(_));
        let mut shadow = Shadow { seq: 0, keyed: BTreeMap::new(), bag: Vec::new() };
        let mut story = Vec::new();
        for _ in 0..60 {
            let sql = if rng.chance(80_000) {
                format!("BEGIN; {}; ROLLBACK", statement(&mut rng, keyed, rowid))
            } else {
                statement(&mut rng, keyed, rowid)
            };
            story.push(sql.clone());
            // Constraint failures are part of life; the statement leaves nothing then.
            if db.execute_batch(&sql).is_err() && !db.is_autocommit() {
                db.execute_batch("ROLLBACK").unwrap();
            }
            count += 1;
            let checked = shadow.take(&db, &table, exact_kinds).and_then(|()| shadow.compare(&db, &table));
            if let Err(e) = checked {
                panic!("seed {seed}, {schema}\n{}\n{e}", story.join(";\n"));
            }
        }
    }
    count
}

#[test]
fn random_statements_never_lose_a_row() {
    // (schema, every operation of the right kind, has a key)
    let shapes = [
        ("CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE, v UNIQUE, a)", true, true),
        ("CREATE TABLE t(id INTEGER PRIMARY KEY, u, v, a, UNIQUE (u, v))", true, true),
        ("CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT COLLATE NOCASE UNIQUE, v, a)", true, true),
        ("CREATE TABLE t(id PRIMARY KEY NOT NULL, u UNIQUE, v, a)", true, true),
        ("CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE, v, a) WITHOUT ROWID", true, true),
        ("CREATE TABLE t(id, u NOT NULL, v, a UNIQUE, PRIMARY KEY (id, u)) WITHOUT ROWID", true, false),
        ("CREATE TABLE t(id, u TEXT NOT NULL COLLATE NOCASE, v, a, PRIMARY KEY (u))", true, false),
        ("CREATE TABLE t(id, u TEXT NOT NULL COLLATE NOCASE, v, a, PRIMARY KEY (u)) WITHOUT ROWID", true, false),
        ("CREATE TABLE t(id, u, v, a)", true, false),
        ("CREATE TABLE t(id, u UNIQUE, v, a)", true, false),
        ("CREATE TABLE t(id INTEGER PRIMARY KEY, u, v, a); CREATE UNIQUE INDEX i ON t(u) WHERE a > 50", true, true),
        // No other unique key: REPLACE of the same key is reported as a creation.
        ("CREATE TABLE t(id INTEGER PRIMARY KEY, u, v, a)", false, true),
        ("CREATE TABLE t(id PRIMARY KEY, u, v, a) WITHOUT ROWID", false, true),
    ];
    let mut count = 0;
    for (i, (schema, kinds, keyed)) in shapes.iter().enumerate() {
        let from = 1000 * i as u64;
        count += random_statements(schema, *kinds, *keyed, from..from + 30);
    }
    assert!(count > 20_000, "{count} statements");
}

// ---- the source as the capture sees it ----

async fn take(source: &mut SqliteSource, until: impl Fn(&[Item]) -> bool) -> Vec<Item> {
    let mut all = Vec::new();
    for _ in 0..200 {
        let mut batch = EventBatch::new(1 << 20);
        source.next(&mut batch).await.unwrap();
        all.append(&mut batch.items);
        if until(&all) {
            return all;
        }
    }
    panic!("never came: {all:?}");
}

fn commits(items: &[Item]) -> usize {
    items.iter().filter(|i| matches!(i, Item::Commit { .. })).count()
}

fn rows(items: &[Item]) -> Vec<String> {
    items
        .iter()
        .filter_map(|i| match i {
            Item::Row(r) => {
                let row = r.after.as_ref().or(r.before.as_ref()).unwrap();
                Some(format!("{} {} {}", r.table.name, r.op.letter(), show(row).join(",")))
            }
            _ => None,
        })
        .collect()
}

const SHOP: &str = "
CREATE TABLE customers(id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT UNIQUE);
CREATE TABLE notes(text);
INSERT INTO customers VALUES (1, 'ada', 'a@x'), (2, 'bob', NULL), (3, 'cy', 'c@x'), (4, 'di', 'd@x');
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_then_stream_then_restart_gives_every_change_once() {
    let dir = Dir::new("stream");
    let file = database(&dir, SHOP);
    let writer = Connection::open(&file).unwrap();
    let mut source = SqliteSource::new(fast(&file));
    assert_eq!(source.preflight().await, vec![]);
    let opened = source.open(Start::Fresh, None).await.unwrap();
    assert_eq!(opened.tables.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["customers", "notes"]);
    // Written after the start: in the stream, not in the snapshot.
    writer.execute_batch("BEGIN; INSERT INTO notes VALUES (1.5); INSERT INTO notes VALUES (x'00ff'); COMMIT").unwrap();
    let mut snapshot = source.snapshot().unwrap();
    let chunks = snapshot.plan(&opened.tables).await.unwrap();
    assert_eq!(chunks.iter().filter(|c| c.last_of_table).count(), 2);
    let mut read = Vec::new();
    for chunk in &chunks {
        let end = snapshot.read(chunk, &mut read).await.unwrap();
        assert_eq!(end.view, View::Exported);
    }
    snapshot.close().await;
    assert_eq!(read.len(), 4);
    assert!(read.iter().all(|r| r.op == Op::Read));

    let items = take(&mut source, |i| commits(i) == 1).await;
    assert!(matches!(items[0], Item::Begin { .. }), "{items:?}");
    assert_eq!(rows(&items), ["notes c Float64(1.5)", "notes c Bytes(b\"\\0\\xff\")"]);
    let Some(Item::Commit { native: first, txn, .. }) = items.last().cloned() else { panic!() };

    writer.execute("UPDATE customers SET email = 'b@x' WHERE id = 2", []).unwrap();
    let items = take(&mut source, |i| commits(i) == 1).await;
    assert_eq!(rows(&items), ["customers u Int(2),Text(\"bob\"),Text(\"b@x\")"]);
    let Some(Item::Commit { native: second, .. }) = items.last().cloned() else { panic!() };
    // Not confirmed: reading again from the first gives the same unit, with the same id.
    source.close().await;
    writer.execute("INSERT OR REPLACE INTO customers VALUES (9, 'eve', 'b@x')", []).unwrap();
    let mut source = SqliteSource::new(fast(&file));
    let again = source.open(Start::After(first.clone()), Some(opened.identity.clone())).await.unwrap();
    assert_eq!(again.identity, opened.identity);
    let items = take(&mut source, |i| commits(i) == 2).await;
    assert_eq!(
        rows(&items),
        [
            "customers u Int(2),Text(\"bob\"),Text(\"b@x\")",
            "customers d Int(2),Text(\"bob\"),Text(\"b@x\")",
            "customers c Int(9),Text(\"eve\"),Text(\"b@x\")"
        ]
    );
    let natives: Vec<Native> = items
        .iter()
        .filter_map(|i| match i {
            Item::Commit { native, .. } => Some(native.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(natives[0], second);
    assert!(txn.0 != natives[0].as_bytes());

    // Confirmed changes are purged, and a start below them is a gap.
    source.confirm(&second);
    for _ in 0..500 {
        let left: i64 = writer.query_row("SELECT min(seq) FROM _catchwater_changes", [], |r| r.get(0)).unwrap();
        if left as u64 > second.as_sqlite().unwrap() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    source.close().await;
    let mut source = SqliteSource::new(fast(&file));
    let e = source.open(Start::After(first), Some(opened.identity.clone())).await.unwrap_err();
    assert_eq!((e.class, e.code.0), (SourceClass::Gap, codes::CHANGES_LOST), "{e}");
    let opened = source.open(Start::After(second), Some(opened.identity)).await.unwrap();
    assert_eq!(rows(&take(&mut source, |i| commits(i) == 1).await).len(), 2);
    assert_eq!(opened.tables.len(), 2);
    source.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_columns_new_tables_and_broken_triggers() {
    let dir = Dir::new("ddl");
    let file = database(&dir, SHOP);
    let writer = Connection::open(&file).unwrap();
    let mut source = SqliteSource::new(fast(&file));
    let opened = source.open(Start::Fresh, None).await.unwrap();
    writer
        .execute_batch(
            "BEGIN; UPDATE customers SET name = 'Ada' WHERE id = 1; ALTER TABLE customers ADD COLUMN age INTEGER DEFAULT 7;
             UPDATE customers SET age = 30 WHERE id = 2; CREATE TABLE late(k TEXT PRIMARY KEY);
             INSERT INTO late VALUES ('x'); COMMIT",
        )
        .unwrap();
    let items = take(&mut source, |i| commits(i) == 1).await;
    let seen = rows(&items);
    // What was written before the triggers knew the column comes again with it.
    assert!(seen.contains(&"customers u Int(1),Text(\"Ada\"),Text(\"a@x\"),Int(7)".into()), "{seen:?}");
    assert!(seen.contains(&"customers u Int(2),Text(\"bob\"),Null,Int(30)".replace("Null", "NULL")), "{seen:?}");
    assert!(seen.contains(&"late c Text(\"x\")".into()), "{seen:?}");
    for (i, item) in items.iter().enumerate() {
        // S4: the shape comes before its first row.
        let Item::Row(r) = item else { continue };
        let known = opened.tables.iter().any(|t| t == &r.table)
            || items[..i].iter().any(|s| matches!(s, Item::Schema(t) if *t == r.table));
        assert!(known, "{}", r.table.name);
    }
    writer.execute("INSERT INTO customers VALUES (8, 'z', NULL, 1)", []).unwrap();
    let items = take(&mut source, |i| commits(i) == 1).await;
    assert_eq!(rows(&items), ["customers c Int(8),Text(\"z\"),NULL,Int(1)"]);
    writer.execute_batch("ALTER TABLE customers RENAME COLUMN name TO full_name").unwrap();
    writer.execute("UPDATE customers SET full_name = 'y' WHERE id = 8", []).unwrap();
    let items = take(&mut source, |i| commits(i) == 1).await;
    assert!(rows(&items).contains(&"customers u Int(8),Text(\"y\"),NULL,Int(1)".into()));
    assert!(items.iter().any(|i| matches!(i, Item::Schema(t) if t.column("full_name").is_some())));
    let Some(Item::Commit { native, .. }) = items.last().cloned() else { panic!() };

    // A rebuilt table has lost its triggers: changes may be missing, so it stops by name.
    writer
        .execute_batch("BEGIN; CREATE TABLE n(text); DROP TABLE notes; ALTER TABLE n RENAME TO notes; INSERT INTO notes VALUES (1); COMMIT")
        .unwrap();
    let e = loop {
        let mut batch = EventBatch::new(1 << 20);
        if let Err(e) = source.next(&mut batch).await {
            break e;
        }
    };
    assert_eq!((e.class, e.code.0), (SourceClass::Gap, codes::TRIGGERS_GONE), "{e}");
    source.close().await;
    // Another capture takes over: the first one's identity no longer fits.
    let mut other = SqliteSource::new(fast(&file));
    other.open(Start::Fresh, None).await.unwrap();
    let e = source.open(Start::After(native), Some(opened.identity)).await.unwrap_err();
    assert_eq!((e.class, e.code.0), (SourceClass::Identity, codes::OTHER_DATABASE), "{e}");
    other.close().await;
}

/// A change of schema right behind the one that is being followed was once taken for our own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schema_changes_in_a_row_are_all_followed() {
    let dir = Dir::new("ddl-row");
    let file = database(&dir, "CREATE TABLE t(id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)");
    let writer = Connection::open(&file).unwrap();
    let mut source = SqliteSource::new(fast(&file));
    source.open(Start::Fresh, None).await.unwrap();
    let mut rng = Rng::new(5);
    for n in 0..60 {
        writer.execute_batch("UPDATE t SET id = id").unwrap();
        tokio::time::sleep(std::time::Duration::from_micros(rng.below(3_000))).await;
        writer.execute_batch(&format!("ALTER TABLE t ADD COLUMN c{n}")).unwrap();
        writer.execute_batch(&format!("UPDATE t SET c{n} = {n}")).unwrap();
        let want = format!("Int({n})");
        let seen = take(&mut source, |i| rows(i).last().is_some_and(|r| r.ends_with(&want)));
        tokio::time::timeout(std::time::Duration::from_secs(5), seen).await.expect("the new column is followed");
    }
    source.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn preflight_names_what_is_wrong() {
    let dir = Dir::new("preflight");
    let codes_of = |found: Vec<Finding>| found.iter().map(|f| (f.code.0, f.severity)).collect::<Vec<_>>();
    let find = async |config: SourceConfig| codes_of(SqliteSource::new(config).preflight().await);
    let error = |code| vec![(code, Severity::Error)];
    assert_eq!(find(SourceConfig::new(dir.0.join("none.db"))).await, error(codes::FILE_MISSING));
    let garbage = dir.0.join("garbage.db");
    std::fs::write(&garbage, "no database ".repeat(100)).unwrap();
    assert_eq!(find(SourceConfig::new(&garbage)).await, error(codes::NOT_A_DATABASE));
    let file = database(
        &dir,
        "CREATE TABLE t(a PRIMARY KEY); CREATE VIEW w AS SELECT 1; CREATE TABLE e(a, b); CREATE UNIQUE INDEX x ON e(lower(a))",
    );
    let with = |tables: &[&str]| SourceConfig {
        tables: tables.iter().map(|t| (*t).to_owned()).collect(),
        ..SourceConfig::new(&file)
    };
    assert_eq!(find(with(&["t"])).await, vec![]);
    assert_eq!(find(with(&["t", "gone"])).await, error(codes::TABLE_MISSING));
    assert_eq!(find(with(&["w"])).await, error(codes::TABLE_MISSING));
    assert_eq!(find(with(&["e"])).await, error(codes::NOT_CAPTURABLE));
    assert_eq!(find(with(&["nothing*"])).await, error(codes::TABLE_MISSING));
    let plain = dir.0.join("plain.db");
    Connection::open(&plain).unwrap().execute_batch("CREATE TABLE t(a)").unwrap();
    assert_eq!(find(SourceConfig::new(&plain)).await, [(codes::WRITERS_WAIT, Severity::Warning)]);
    // Nothing of this changed the file.
    let left: i64 =
        Connection::open(&plain).unwrap().query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0)).unwrap();
    assert_eq!(left, 1);
}

/// The stream waits for the lock with a change in hand, and the holder of the lock changes the table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_that_comes_while_a_unit_waits_to_be_closed_is_followed() {
    let dir = Dir::new("waits");
    let file = database(&dir, "CREATE TABLE t(id INTEGER PRIMARY KEY)");
    let mut source = SqliteSource::new(fast(&file));
    source.open(Start::Fresh, None).await.unwrap();
    drop(source.snapshot().unwrap());
    let writer = Connection::open(&file).unwrap();
    writer.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    for round in 0..3 {
        writer
            .execute_batch(&format!(
                "INSERT INTO t(id) VALUES ({round}); BEGIN IMMEDIATE; ALTER TABLE t ADD COLUMN c{round} DEFAULT 7"
            ))
            .unwrap();
        // Longer than the pause between two looks.
        tokio::time::sleep(std::time::Duration::from_millis(120)).await;
        writer.execute_batch(&format!("COMMIT; INSERT INTO t(id) VALUES (10 + {round})")).unwrap();
        let found = async {
            loop {
                let mut batch = EventBatch::new(1 << 20);
                source.next(&mut batch).await.unwrap();
                let rows = batch.items.iter().filter_map(|i| match i {
                    Item::Row(row) => row.after.as_ref(),
                    _ => None,
                });
                if rows
                    .clone()
                    .any(|r| r.cells.len() == 2 + round && matches!(r.cells[0], Cell::Value(Value::Int(i)) if i >= 10))
                {
                    return;
                }
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(5), found).await.expect("the new column is captured");
    }
    source.close().await;
}

/// Writers go on while chunks are read: each chunk is exactly what its position says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_after_a_crash_have_exact_views() {
    let dir = Dir::new("chunks");
    let file = database(&dir, "CREATE TABLE t(a INTEGER, b TEXT, n INTEGER, PRIMARY KEY (a, b)) WITHOUT ROWID");
    let writer = Connection::open(&file).unwrap();
    for i in 0..20 {
        writer.execute("INSERT INTO t VALUES (?1, ?2, 0)", rusqlite::params![i % 3, format!("k{i}")]).unwrap();
    }
    let mut source = SqliteSource::new(fast(&file));
    let opened = source.open(Start::Fresh, None).await.unwrap();
    drop(source.snapshot().unwrap());
    // The exported view is gone.
    let mut snapshot = source.snapshot().unwrap();
    let chunks = snapshot.plan(&opened.tables).await.unwrap();
    assert!(chunks.len() >= 6);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let thread = std::thread::spawn(move || {
        writer.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
        while !stopped.load(Ordering::Relaxed) {
            writer.execute_batch("UPDATE t SET n = n + 1").unwrap();
            // Without a gap SQLite's lock is never seen free on a loaded machine.
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    });
    let mut count = 0;
    for chunk in &chunks {
        let mut read = Vec::new();
        let end = snapshot.read(chunk, &mut read).await.unwrap();
        let View::Exact(at) = end.view else { panic!() };
        let at = at.as_sqlite().unwrap();
        assert_eq!(at % 20, 0, "a view inside a transaction");
        for row in &read {
            let Cell::Value(Value::Int(n)) = row.after.as_ref().unwrap().cells[2] else { panic!() };
            assert_eq!(n as u64, at / 20, "20 changes per transaction: the row is as old as its position");
        }
        count += read.len();
    }
    assert_eq!(count, 20);
    stop.store(true, Ordering::Relaxed);
    thread.join().unwrap();
    snapshot.close().await;
    source.close().await;
}
