//! The sink against its conformance suite and its own stories.

use super::*;
use catchwater_deliver::conformance::{self, Probe};
use rusqlite::types::ValueRef;

struct File {
    config: SinkConfig,
    _dir: Dir,
}

/// A directory that goes with its test.
pub struct Dir(pub std::path::PathBuf);

impl Dir {
    pub fn new(name: &str) -> Dir {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("catchwater-sqlite-{name}-{}-{n}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Probe for File {
    fn sink(&mut self) -> Box<dyn Sink> {
        Box::new(SqliteSink::new(self.config.clone()))
    }
    fn name(&self, table: &str) -> TargetName {
        TargetName { schema: String::new(), name: table.into() }
    }
    fn rows<'a>(&'a mut self, table: &'a TargetName, columns: &'a [String]) -> Fut<'a, Vec<Vec<Option<String>>>> {
        let db = Connection::open(&self.config.file).unwrap();
        let names: Vec<String> = columns.iter().map(|c| crate::types::quoted(c)).collect();
        let sql = format!("SELECT {} FROM {}", names.join(", "), crate::types::quoted(&table.name));
        let mut statement = db.prepare(&sql).unwrap();
        let mut rows = statement.query([]).unwrap();
        let mut out = Vec::new();
        while let Some(r) = rows.next().unwrap() {
            let cells = (0..columns.len()).map(|i| match r.get_ref(i).unwrap() {
                ValueRef::Null => None,
                ValueRef::Integer(i) => Some(i.to_string()),
                ValueRef::Real(f) => Some(f.to_string()),
                ValueRef::Text(t) => Some(String::from_utf8(t.to_vec()).unwrap()),
                ValueRef::Blob(b) => Some(b.iter().map(|b| format!("{b:02x}")).collect()),
            });
            out.push(cells.collect::<Vec<_>>());
        }
        out.sort();
        Box::pin(std::future::ready(out))
    }
    fn sql<'a>(&'a mut self, statements: &'a str) -> Fut<'a, Option<Result<(), String>>> {
        let db = Connection::open(&self.config.file).unwrap();
        let done = db.execute_batch(&format!("BEGIN IMMEDIATE; {statements}; COMMIT")).map_err(|e| e.to_string());
        Box::pin(std::future::ready(Some(done)))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sqlite_sink_passes_the_conformance_suite() {
    let dir = Dir::new("sink");
    let config = SinkConfig { busy_ms: 100, ..SinkConfig::new(dir.0.join("copy.db")) };
    conformance::run(&mut File { config, _dir: dir }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_files_are_named() {
    let dir = Dir::new("wrong");
    let claim = |fence| Claim {
        pipeline: "p".into(),
        sink: "s".into(),
        source: "x".into(),
        cluster: [1; 16],
        fence,
        incarnation: catchwater_record::Incarnation(0),
    };
    let garbage = dir.0.join("garbage.db");
    std::fs::write(
        &garbage,
        "this is no database, it only says so at some length, more than a hundred bytes, \
        because SQLite reads a header of one hundred bytes",
    )
    .unwrap();
    for (file, code) in [(garbage, codes::SINK_NOT_A_DATABASE), (dir.0.join("no/such/dir.db"), codes::SINK_FILE)] {
        let e = SqliteSink::new(SinkConfig::new(file)).open(claim(1)).await.unwrap_err();
        assert_eq!((e.class, e.code.0), (SinkClass::Config, code), "{e}");
    }
    // Held by another program: waits, then says so, and works once it is free.
    let file = dir.0.join("held.db");
    let mut sink = SqliteSink::new(SinkConfig { busy_ms: 20, ..SinkConfig::new(&file) });
    sink.open(claim(1)).await.unwrap();
    let other = Connection::open(&file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let e = sink.open(claim(2)).await.unwrap_err();
    assert_eq!((e.class, e.code.0), (SinkClass::Environment, codes::SINK_BUSY), "{e}");
    other.execute_batch("ROLLBACK").unwrap();
    sink.open(claim(2)).await.unwrap();
    sink.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn preflight_says_what_is_wrong_and_changes_nothing() {
    let dir = Dir::new("preflight");
    let listing = || {
        let mut names: Vec<_> = std::fs::read_dir(&dir.0).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let check = async |file: &str| {
        let found = SqliteSink::new(SinkConfig { busy_ms: 20, ..SinkConfig::new(dir.0.join(file)) }).preflight().await;
        found.map_err(|e| (e.class, e.code.0))
    };
    // A file that is missing is made by the sink, not by a look at it.
    assert_eq!(check("new.db").await, Ok(()));
    assert!(listing().is_empty(), "{:?}", listing());
    assert_eq!(check("no/such/dir.db").await, Err((SinkClass::Config, codes::SINK_FILE)));
    // One that is there keeps its journal mode, its bytes and its neighbours.
    let there = dir.0.join("there.db");
    let db = Connection::open(&there).unwrap();
    db.execute_batch("CREATE TABLE t(a); INSERT INTO t VALUES (1)").unwrap();
    let before = (std::fs::read(&there).unwrap(), listing());
    assert_eq!(check("there.db").await, Ok(()));
    assert_eq!((std::fs::read(&there).unwrap(), listing()), before);
    let mode: String = db.query_row("PRAGMA journal_mode", [], |r| r.get(0)).unwrap();
    assert_eq!(mode, "delete");
    // One held by another program is fine: the sink waits for it.
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(check("there.db").await, Ok(()));
    db.execute_batch("ROLLBACK").unwrap();
    // An empty file is a database without tables.
    std::fs::write(dir.0.join("empty.db"), "").unwrap();
    assert_eq!(check("empty.db").await, Ok(()));
    std::fs::write(dir.0.join("garbage.db"), "no database, but long enough to have a header of one. ".repeat(40))
        .unwrap();
    assert_eq!(check("garbage.db").await, Err((SinkClass::Config, codes::SINK_NOT_A_DATABASE)));
    std::fs::create_dir(dir.0.join("folder.db")).unwrap();
    assert_eq!(check("folder.db").await, Err((SinkClass::Config, codes::SINK_FILE)));
}
