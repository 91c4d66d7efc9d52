//! S17: what may hide a gap stops the source with a named error, and says how to repair it: nothing of the changes in
//! between comes in part, the target stays as it was, and after the repair it equals the source. The repair of a gap is
//! `catchwater pipeline reset`: the target shows the old state until it shows the new one.

use catchwater_tests::broker::{Broker, binary};
use catchwater_tests::dev::ledger;
use catchwater_tests::pg::{Database, Pg, difference};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(90);
const ROWS: u32 = 300;

/// What follows a stop of the source.
enum Repair {
    /// `pipeline reset`, as the error says.
    Reset,
    /// The SQL of the error's next step, at the source; then a start.
    Sql,
}

struct Case {
    source: Database,
    target: Database,
    node: Broker,
}

impl Case {
    fn new(name: &str) -> Option<Case> {
        let source = Database::create("pg15", &format!("gap_{name}"))?;
        let target = Database::create("pg15", &format!("gap_{name}_to"))?;
        let rows = format!(
            "CREATE TABLE t (id int PRIMARY KEY, a int); CREATE TABLE u (id int PRIMARY KEY);
             INSERT INTO t SELECT i, 0 FROM generate_series(1, {ROWS}) i; INSERT INTO u VALUES (1)"
        );
        source.pg.run(&rows).expect("tables");
        let yaml = format!(
            "version: 1\npipeline: shop\nsources:\n  {0}:\n    postgres: {{ url: \"{1}\", tables: [t, u] }}\nsinks:\n  copy:\n    from: {0}\n    postgres: {{ url: \"{2}\" }}\n",
            source.name(),
            source.url(),
            target.url()
        );
        let case = Case { source, target, node: Broker::start() };
        let file = case.node.data_dir().with_file_name("shop.yaml");
        std::fs::write(&file, &yaml).expect("the file");
        case.command(&format!("apply {}", file.display()));
        case.source.pg.run("UPDATE t SET a = 1 WHERE id % 2 = 0; DELETE FROM t WHERE id = 7").expect("changes");
        case.equal("before");
        Some(case)
    }

    fn equal(&self, when: &str) {
        let both = || {
            let d = difference(&self.source.pg, "t", &self.target.pg, "t");
            if d.is_empty() { difference(&self.source.pg, "u", &self.target.pg, "u") } else { d }
        };
        self.wait(when, both);
    }

    fn command(&self, words: &str) {
        let out = Command::new(binary().expect("the binary"))
            .args(words.split_whitespace())
            .args(["--http", self.node.http()])
            .output()
            .expect("the command");
        assert!(out.status.success(), "{words}: {}", String::from_utf8_lossy(&out.stderr));
    }

    /// Waits until nothing is missing.
    fn wait(&self, what: &str, mut missing: impl FnMut() -> String) {
        let until = Instant::now() + LIMIT;
        loop {
            let said = missing();
            if said.is_empty() {
                return;
            }
            assert!(Instant::now() < until, "{what}: {said}\n{}", self.node.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn slot(&self) -> String {
        format!("catchwater_{}", self.source.name())
    }

    /// Of the source, as the node tells it: state, error with its code, next step.
    fn told(&self) -> (String, String, String) {
        let out = Command::new("curl").args(["-s", &format!("http://{}/api/v1/lag", self.node.http())]).output();
        let text = out.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
        let lines: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let of = lines.as_array().into_iter().flatten().find(|l| l["kind"] == "source").cloned().unwrap_or_default();
        let text = |key: &str| of[key].as_str().unwrap_or_default().to_owned();
        (text("state"), text("error"), text("next"))
    }

    /// The fault has been made while the node stood still: more changes come, and the start must stop at it.
    fn stops_with(&mut self, code: &str) {
        self.source
            .pg
            .run("UPDATE t SET a = 2 WHERE id % 3 = 0; DELETE FROM t WHERE id = 8; INSERT INTO t VALUES (1000, 0)")
            .expect("changes in the gap");
        let before = self.target.pg.rows("SELECT t::text FROM t ORDER BY id").expect("the target");
        self.node.restart().expect("the node itself starts");
        let stopped = || match self.told() {
            (state, error, _) if state == "needs_person" && error.contains(code) => String::new(),
            other => format!("{other:?}"),
        };
        self.wait(code, stopped);
        let after = self.target.pg.rows("SELECT t::text FROM t ORDER BY id").expect("the target");
        assert_eq!(before, after, "{code}: a part of the gap came");
    }

    /// What to do, as the node says.
    fn next(&self, code: &str) -> String {
        let mut next = String::new();
        self.wait(code, || {
            next = self.told().2;
            if next.is_empty() { "no next step".into() } else { String::new() }
        });
        next
    }

    /// Runs the command that the error names; looks at the target all the while.
    fn reset(&self, code: &str) {
        let next = self.next(code);
        let words = next.split_once("catchwater ").map(|(_, words)| words.to_owned());
        let words = words.unwrap_or_else(|| panic!("{code} names no command: {next}"));
        let old = count(&self.target.pg);
        let stop = AtomicBool::new(false);
        std::thread::scope(|s| {
            let watcher = s.spawn(|| {
                let pg = self.target.connect();
                let mut seen = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let now = count(&pg);
                    if seen.last() != Some(&now) {
                        seen.push(now);
                    }
                    std::thread::sleep(Duration::from_millis(2));
                }
                seen
            });
            self.command(&words);
            self.equal(code);
            stop.store(true, Ordering::Relaxed);
            let seen = watcher.join().expect("the watcher");
            assert!(
                seen.iter().all(|n| *n == old || *n == count(&self.source.pg)),
                "{code}: {old} rows, then {seen:?}"
            );
        });
    }

    fn goes_on(&mut self, what: &str) {
        self.source
            .pg
            .run("INSERT INTO t VALUES (2000, 1); DELETE FROM t WHERE id = 9; INSERT INTO u VALUES (5)")
            .expect("more");
        self.equal(what);
        // And from where it stands.
        self.node.kill();
        self.source.pg.run("INSERT INTO t VALUES (2001, 1); UPDATE t SET a = 7 WHERE id = 2000").expect("more");
        self.node.restart().expect("start");
        self.equal(what);
        ledger(self.node.http()).expect("no row disappears");
    }
}

fn count(pg: &Pg) -> u64 {
    pg.one("SELECT count(*) FROM t").ok().and_then(|n| n.parse().ok()).unwrap_or_default()
}

/// `fault` at the source while the node stands; the code; the repair.
fn gap(name: &str, code: &str, fault: impl Fn(&Case) -> String, repair: Repair) {
    let Some(mut case) = Case::new(name) else { return };
    case.node.stop().expect("stop");
    for sql in fault(&case).split("---") {
        case.source.pg.rows(sql).unwrap_or_else(|e| panic!("{sql}: {e:#}"));
    }
    case.stops_with(code);
    match repair {
        Repair::Reset => case.reset(code),
        Repair::Sql => {
            let next = case.next(code);
            // A start does what the command behind it would do.
            let (sql, restart) = next.split_once("; then: ").unwrap_or((&next, ""));
            assert!(restart.is_empty() || restart.starts_with("catchwater pipeline restart "), "{next}");
            case.node.stop().expect("stop");
            case.source.pg.run(sql).unwrap_or_else(|e| panic!("{sql}: {e:#}"));
            case.node.restart().expect("start");
        }
    }
    case.equal(code);
    case.goes_on(code);
}

#[test]
fn a_dropped_slot() {
    gap("dropped", "CW0514", |c| format!("SELECT pg_drop_replication_slot('{}')", c.slot()), Repair::Reset);
}

#[test]
fn a_slot_made_again() {
    let fault = |c: &Case| {
        let slot = c.slot();
        // Something is lost between.
        format!(
            "SELECT pg_drop_replication_slot('{slot}')---UPDATE t SET a = 5 WHERE id = 1 RETURNING 1---SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"
        )
    };
    gap("again", "CW0515", fault, Repair::Reset);
}

#[test]
fn a_slot_that_somebody_else_read() {
    let fault = |c: &Case| {
        format!(
            "INSERT INTO t VALUES (900, 9) RETURNING 1---SELECT pg_replication_slot_advance('{}', pg_current_wal_insert_lsn())",
            c.slot()
        )
    };
    gap("read", "CW0515", fault, Repair::Reset);
}

#[test]
fn a_publication_dropped_and_made_again() {
    let fault = |c: &Case| {
        let name = c.slot();
        format!("DROP PUBLICATION {name}---CREATE PUBLICATION {name} FOR TABLE t, u WITH (publish_via_partition_root)")
    };
    gap("pub_again", "CW0521", fault, Repair::Reset);
}

#[test]
fn a_publication_that_is_gone() {
    gap("pub_gone", "CW0521", |c| format!("DROP PUBLICATION {}", c.slot()), Repair::Reset);
}

#[test]
fn a_publication_that_was_widened() {
    let fault = |c: &Case| format!("CREATE TABLE w (id int PRIMARY KEY)---ALTER PUBLICATION {} ADD TABLE w", c.slot());
    gap("wide", "CW0521", fault, Repair::Sql);
}

/// The server leaves out what the publication said at that place of the log, whatever it says later.
#[test]
fn a_publication_that_published_less_for_a_while() {
    let fault = |c: &Case| format!("ALTER PUBLICATION {} SET (publish = 'insert')", c.slot());
    gap("less", "CW0521", fault, Repair::Reset);
}

#[test]
fn a_publication_that_lacked_a_table() {
    let fault = |c: &Case| format!("ALTER PUBLICATION {} DROP TABLE u---INSERT INTO u VALUES (3)", c.slot());
    gap("lacks", "CW0521", fault, Repair::Reset);
}

/// Its list of tables is the same again when the source looks.
#[test]
fn a_publication_that_lacked_a_table_and_has_it_again() {
    let fault = |c: &Case| {
        let name = c.slot();
        format!(
            "ALTER PUBLICATION {name} DROP TABLE u---INSERT INTO u VALUES (3)---ALTER PUBLICATION {name} ADD TABLE u"
        )
    };
    gap("away", "CW0521", fault, Repair::Reset);
}

#[test]
fn a_publication_that_had_a_row_filter_for_a_while() {
    let fault = |c: &Case| {
        let name = c.slot();
        format!(
            "ALTER PUBLICATION {name} SET TABLE t WHERE (id < 100), u---INSERT INTO t VALUES (4000, 1)---ALTER PUBLICATION {name} SET TABLE t, u"
        )
    };
    gap("filtered", "CW0521", fault, Repair::Reset);
}

#[test]
fn a_publication_with_a_row_filter() {
    let fault = |c: &Case| format!("ALTER PUBLICATION {} SET TABLE t WHERE (id < 100), u", c.slot());
    gap("filter", "CW0521", fault, Repair::Reset);
}

/// What it leaves out from now on never comes, so a source that streams stops as well.
#[test]
fn a_publication_that_is_narrowed_while_the_source_streams() {
    let Some(mut case) = Case::new("narrowed") else { return };
    case.source.pg.run(&format!("ALTER PUBLICATION {} SET (publish = 'insert')", case.slot())).expect("narrowed");
    case.source.pg.run("UPDATE t SET a = 9 WHERE id < 20").expect("changes that do not come");
    case.wait("it stops", || match case.told() {
        (state, error, _) if state == "needs_person" && error.contains("CW0521") => String::new(),
        other => format!("{other:?}"),
    });
    case.reset("CW0521");
    case.goes_on("CW0521");
}

/// The stream itself ends there; the command is one that can be run as it is printed.
#[test]
fn a_publication_that_is_dropped_while_the_source_streams() {
    let Some(mut case) = Case::new("gone") else { return };
    case.source.pg.run(&format!("DROP PUBLICATION {}", case.slot())).expect("dropped");
    case.source.pg.run("UPDATE t SET a = 9 WHERE id < 20").expect("changes that do not come");
    case.wait("it stops", || match case.told() {
        (state, error, _) if state == "needs_person" && error.contains("CW0521") => String::new(),
        other => format!("{other:?}"),
    });
    case.reset("CW0521");
    case.goes_on("CW0521");
}

/// A database that was put back from a dump: another one by its slot, though it has the same name and server.
#[test]
fn a_database_of_an_old_dump() {
    let fault = |c: &Case| {
        let slot = c.slot();
        format!(
            "SELECT pg_drop_replication_slot('{slot}')---DROP PUBLICATION {slot}---DROP TABLE t---CREATE TABLE t (id int PRIMARY KEY, a int)---INSERT INTO t SELECT i, 44 FROM generate_series(1, 50) i RETURNING 1"
        )
    };
    gap("dump", "CW0514", fault, Repair::Reset);
}
