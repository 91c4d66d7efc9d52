//! The capture's conformance suite against the source.

use super::*;
use catchwater_capture::conformance::{self, Ask, Change, ITEM, OTHER, Probe};
use catchwater_runtime::time;
use std::future::ready;
use std::time::Duration;

struct FileProbe {
    dir: Dir,
    file: PathBuf,
    files: u32,
    /// The application's connection, and one with a transaction that stays open.
    writer: Option<Connection>,
    open: Option<Connection>,
}

fn sql(changes: &[Change]) -> String {
    let one = |change: &Change| match change {
        Change::Insert(t, id, v) => format!("INSERT INTO {t}(id, v) VALUES ({id}, '{v}');"),
        Change::Update(t, id, v) => format!("UPDATE {t} SET v = '{v}' WHERE id = {id};"),
        Change::Delete(t, id) => format!("DELETE FROM {t} WHERE id = {id};"),
        Change::Truncate(_) => unreachable!("the source says that there is no TRUNCATE"),
    };
    changes.iter().map(one).collect()
}

impl FileProbe {
    fn connect(&self) -> Connection {
        let db = Connection::open(&self.file).unwrap();
        db.busy_timeout(Duration::from_secs(20)).unwrap();
        db
    }
    fn exec(&mut self, sql: &str) {
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.connect(),
        };
        writer.execute_batch(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
        self.writer = Some(writer);
    }
    fn one(&self, sql: &str) -> i64 {
        self.connect().query_row(sql, [], |r| r.get(0)).unwrap()
    }
}

impl Probe for FileProbe {
    fn unmet(&self) -> Vec<(Ask, &'static str)> {
        vec![
            (Ask::Beside, "a file has one writer at a time, and while it holds the file no unit can be closed"),
            (Ask::Cut, "there is no connection that could break"),
            (Ask::Restart, "there is no server"),
            (Ask::LargeRow, "the source has no row.max.bytes; SQLite itself bounds a row (S7 is not met)"),
        ]
    }
    fn fresh(&mut self) -> Fut<'_, ()> {
        (self.writer, self.open) = (None, None);
        self.files += 1;
        self.file = self.dir.0.join(format!("{}.db", self.files));
        let db = self.connect();
        db.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).unwrap();
        for table in [ITEM, OTHER] {
            db.execute_batch(&format!("CREATE TABLE {table}(id INTEGER PRIMARY KEY, v TEXT)")).unwrap();
        }
        Box::pin(ready(()))
    }
    fn source(&mut self) -> Box<dyn Source> {
        Box::new(SqliteSource::new(fast(&self.file)))
    }
    fn commit<'a>(&'a mut self, changes: &'a [Change]) -> Fut<'a, ()> {
        self.exec(&format!("BEGIN IMMEDIATE; {} COMMIT", sql(changes)));
        Box::pin(ready(()))
    }
    fn roll_back<'a>(&'a mut self, changes: &'a [Change]) -> Fut<'a, ()> {
        self.exec(&format!("BEGIN IMMEDIATE; {} ROLLBACK", sql(changes)));
        Box::pin(ready(()))
    }
    fn savepoint<'a>(&'a mut self, kept: &'a [Change], undone: &'a [Change]) -> Fut<'a, ()> {
        let (kept, undone) = (sql(kept), sql(undone));
        self.exec(&format!("BEGIN IMMEDIATE; {kept} SAVEPOINT s; {undone} ROLLBACK TO s; RELEASE s; COMMIT"));
        Box::pin(ready(()))
    }
    fn begin<'a>(&'a mut self, changes: &'a [Change]) -> Fut<'a, ()> {
        let db = self.connect();
        db.execute_batch(&format!("BEGIN IMMEDIATE; {}", sql(changes))).unwrap();
        self.open = Some(db);
        Box::pin(ready(()))
    }
    fn end(&mut self, commit: bool) -> Fut<'_, ()> {
        let db = self.open.take().unwrap();
        db.execute_batch(if commit { "COMMIT" } else { "ROLLBACK" }).unwrap();
        Box::pin(ready(()))
    }
    fn add_column(&mut self) -> Fut<'_, ()> {
        self.exec(&format!("ALTER TABLE {ITEM} ADD COLUMN extra INTEGER DEFAULT 7"));
        Box::pin(ready(()))
    }
    fn cut(&mut self) -> Fut<'_, ()> {
        unreachable!()
    }
    fn restart(&mut self) -> Fut<'_, ()> {
        unreachable!()
    }
    fn unknown(&mut self) -> Fut<'_, ()> {
        self.exec("INSERT INTO _catchwater_changes(tbl, op, ver) SELECT tbl, 9, ver FROM _catchwater_changes LIMIT 1");
        Box::pin(ready(()))
    }
    fn forgot<'a>(&'a mut self, upto: &'a Native) -> Fut<'a, bool> {
        let purged = self.one("SELECT purged FROM _catchwater_meta");
        let kept = self.one("SELECT coalesce(min(seq), 9e18) FROM _catchwater_changes");
        let upto = upto.as_sqlite().unwrap() as i64;
        Box::pin(async move {
            time::sleep(Duration::from_millis(1)).await;
            purged >= upto || kept > upto
        })
    }
    fn leftovers(&mut self) -> Fut<'_, Vec<String>> {
        (self.writer, self.open) = (None, None);
        let mut left = Vec::new();
        // Files of this process; only where the system shows them.
        for entry in std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            if target.to_string_lossy().starts_with(&*self.file.to_string_lossy()) {
                left.push(format!("open: {}", target.display()));
            }
        }
        let db = Connection::open(&self.file).unwrap();
        db.busy_timeout(Duration::ZERO).unwrap();
        let busy = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get::<_, i64>(0)).unwrap();
        if busy != 0 {
            left.push("a snapshot or a lock holds the log".into());
        }
        if db.execute_batch("BEGIN EXCLUSIVE; ROLLBACK").is_err() {
            left.push("a lock".into());
        }
        Box::pin(ready(left))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sqlite_source_passes_the_conformance_suite() {
    let mut probe = FileProbe { dir: Dir::new("suite"), file: PathBuf::new(), files: 0, writer: None, open: None };
    conformance::run(&mut probe).await;
}
