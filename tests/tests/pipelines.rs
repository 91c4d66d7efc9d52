//! Stored pipelines: `plan`, `apply`, `diff`, `rollback`, `pipeline …` on a node started by `start`. What a plan says is
//! what happens, nothing happens without it, several run at once, and all of it survives `kill -9`.

use catchwater_tests::broker::{Broker, binary};
use catchwater_tests::dev::Dev;
use catchwater_tests::pg::{Database, difference};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(40);

/// A node and a folder with files for it.
struct Rig {
    node: Broker,
    folder: PathBuf,
}

impl Rig {
    fn new(name: &str) -> Rig {
        let folder = std::env::temp_dir().join(format!("catchwater-pipelines.{}.{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("folder");
        Rig { node: Broker::start(), folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).expect("file");
        self.path(name).display().to_string()
    }

    /// One command; (exit code, envelope).
    fn run(&self, args: &[&str]) -> (i32, Value) {
        let out = Command::new(binary().expect("binary"))
            .args(["-o", "json"])
            .args(args)
            .env("CATCHWATER_HTTP", self.node.http())
            .env("CATCHWATER_BOOTSTRAP", self.node.kafka())
            .output()
            .expect("runs");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let value = serde_json::from_str(&text)
            .unwrap_or_else(|e| panic!("{args:?}: {e}: {text:?} {}", String::from_utf8_lossy(&out.stderr)));
        (out.status.code().unwrap_or(-1), value)
    }

    fn done(&self, args: &[&str]) -> Value {
        let (code, mut value) = self.run(args);
        assert_eq!((code, &value["ok"]), (0, &Value::Bool(true)), "{args:?}: {value}");
        value["result"].take()
    }

    /// Code of the error and exit code of a command that must fail.
    fn refused(&self, args: &[&str]) -> (String, i32) {
        let (code, value) = self.run(args);
        assert_eq!(value["ok"], false, "{args:?}: {value}");
        (value["error"]["code"].as_str().unwrap_or_default().to_owned(), code)
    }

    fn classes(plan: &Value) -> Vec<String> {
        let steps = plan["steps"].as_array().expect("steps");
        steps.iter().map(|s| format!("{} {}", word(&s["class"]), word(&s["node"]))).collect()
    }

    fn state(&self, pipeline: &str) -> String {
        let all = self.done(&["pipeline", "list"]);
        let found = all.as_array().expect("list").iter().find(|p| p["pipeline"] == pipeline).cloned();
        found.map_or("gone".into(), |p| word(&p["state"]).to_owned())
    }

    fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !done() {
            assert!(Instant::now() < deadline, "{what}\n{}", self.node.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn word(v: &Value) -> &str {
    v.as_str().unwrap_or_default()
}

fn shop(file: &Path, rows: u32) -> Connection {
    let db = Connection::open(file).expect("sqlite");
    db.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)").expect("table");
    for i in 0..rows {
        db.execute("INSERT INTO t VALUES (?1, ?2)", (i, format!("v{i}"))).expect("row");
    }
    db
}

/// Rows of `t`; 0 while there is no such table.
fn count(file: &Path) -> u32 {
    let Ok(db) = Connection::open(file) else { return 0 };
    let _ = db.busy_timeout(Duration::from_secs(5));
    db.query_row("SELECT count(*) FROM t", [], |r| r.get(0)).unwrap_or(0)
}

fn text(name: &str, source: &str, to: &str, more: &str) -> String {
    format!(
        "version: 1\npipeline: {name}\nsources:\n  {source}:\n    sqlite: {{ file: {source}.db, tables: [t] }}\nsinks:\n  copy:\n    from: {source}\n    sqlite: {{ file: {to} }}\n{more}"
    )
}

#[test]
fn a_plan_is_applied_as_it_was_shown_and_survives_kill_9() {
    let mut rig = Rig::new("life");
    let (a, b) = (shop(&rig.path("a.db"), 20), shop(&rig.path("b.db"), 5));
    let one = rig.write("one.yaml", &text("one", "a", "a_copy.db", ""));
    let two = rig.write("two.yaml", &text("two", "b", "b_copy.db", ""));

    let plan = rig.done(&["plan", &one]);
    assert_eq!(Rig::classes(&plan), ["resnapshot source a", "rebuild sink copy"]);
    assert_eq!(rig.state("one"), "gone", "a plan changes nothing");
    assert_eq!(rig.refused(&["apply", &one, "--plan-hash", "00"]), ("CW0342".into(), 2));
    assert_eq!(rig.state("one"), "gone", "nor does a stale one");
    let done = rig.done(&["apply", &one, "--plan-hash", word(&plan["hash"]), "-m", "first"]);
    assert_eq!(done[0]["revision"], 1);
    assert_eq!(rig.refused(&["apply", &one, "--plan-hash", word(&plan["hash"])]).0, "CW0342", "its base is older now");
    rig.done(&["apply", "-f", &two]);
    rig.until("both copies", || count(&rig.path("a_copy.db")) == 20 && count(&rig.path("b_copy.db")) == 5);
    assert_eq!(rig.done(&["apply", &one])[0]["revision"], 1, "the same text is no new revision");

    // One is paused, the other goes on, also over a death.
    rig.done(&["pipeline", "pause", "one"]);
    rig.until("paused", || rig.state("one") == "paused");
    let lag = rig.done(&["lag"]);
    let states: Vec<_> =
        lag.as_array().expect("lag").iter().map(|l| (word(&l["pipeline"]), word(&l["state"]))).collect();
    assert_eq!(states.iter().filter(|s| **s == ("one", "paused")).count(), 2, "{states:?}");
    rig.node.kill();
    a.execute("INSERT INTO t VALUES (100, 'while down')", []).expect("row");
    b.execute("INSERT INTO t VALUES (100, 'while down')", []).expect("row");
    rig.node.restart().expect("restart");
    rig.until("the one that runs", || count(&rig.path("b_copy.db")) == 6);
    assert_eq!((rig.state("one").as_str(), count(&rig.path("a_copy.db"))), ("paused", 20));
    rig.done(&["pipeline", "resume", "one"]);
    rig.until("the one that was paused", || count(&rig.path("a_copy.db")) == 21);

    // Another batch size restarts the sink alone.
    let larger = rig.write("one.yaml", &text("one", "a", "a_copy.db", "    batch: { rows: 7 }\n"));
    let changed = rig.done(&["diff", &larger]);
    assert!(word(&changed["diff"]).contains("\n+    batch: { rows: 7 }"), "{changed}");
    let done = rig.done(&["apply", &larger]);
    assert_eq!((&done[0]["revision"], Rig::classes(&done[0]["plan"])), (&2.into(), vec!["restart sink copy".into()]));
    a.execute("INSERT INTO t VALUES (101, 'after')", []).expect("row");
    rig.until("the restarted sink", || count(&rig.path("a_copy.db")) == 22);
    let revisions = rig.done(&["pipeline", "revisions", "one"]);
    assert_eq!((word(&revisions[0]["message"]), &revisions[1]["revision"]), ("first", &2.into()));
    assert_eq!(rig.done(&["rollback", "one", "--to", "1"])["revision"], 3);
    let shown = rig.done(&["pipeline", "show", "one"]);
    assert_eq!(word(&shown["text"]), text("one", "a", "a_copy.db", ""));
    rig.done(&["pipeline", "restart", "one"]);
    a.execute("DELETE FROM t WHERE id = 101", []).expect("row");
    rig.until("after the rollback and a restart", || count(&rig.path("a_copy.db")) == 21);

    // Everything that was done, and refused, is in the audit, in one chain over the death.
    let said = rig.done(&["audit", "list", "--limit", "100"]);
    let said: Vec<String> = said
        .as_array()
        .expect("records")
        .iter()
        .map(|r| format!("{} {} {}", word(&r["action"]), word(&r["on"]), word(&r["decision"])))
        .collect();
    let wanted = [
        "pipeline.apply pipeline one refused CW0342",
        "pipeline.apply pipeline one allowed",
        "pipeline.apply pipeline one refused CW0342",
        "pipeline.apply pipeline two allowed",
        "pipeline.apply pipeline one allowed",
        "pipeline.pause pipeline one allowed",
        "pipeline.resume pipeline one allowed",
        "pipeline.apply pipeline one allowed",
        "pipeline.rollback pipeline one allowed",
        "pipeline.restart pipeline one allowed",
    ];
    assert_eq!(said, wanted);
    assert_eq!(rig.done(&["audit", "verify"])["records"], wanted.len() as u64);
}

#[test]
fn output_that_cannot_be_written_and_words_that_are_not_understood_are_errors() {
    let run = |words: &[&str], to: Stdio| {
        let out = Command::new(binary().expect("binary"))
            .args(words)
            .stdout(to)
            .stderr(Stdio::piped())
            .output()
            .expect("run");
        (
            out.status.code(),
            String::from_utf8_lossy(&out.stdout).into_owned(),
            String::from_utf8_lossy(&out.stderr).into_owned(),
        )
    };
    let full = || Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full"));
    for words in [&["version"][..], &["explain", "CW0001"], &["-o", "json", "version"], &["--help"], &["--version"]] {
        let (code, _, told) = run(words, full());
        assert_eq!(code, Some(3), "{words:?}: {told}");
        assert!(told.contains("error[CW0014]"), "{words:?}: {told}");
    }
    let (code, out, told) = run(&["plan", "-o", "json", "--nonsense"], Stdio::piped());
    let envelope: Value = serde_json::from_str(&out).expect("an envelope");
    assert_eq!(
        (code, &envelope["ok"], word(&envelope["error"]["code"])),
        (Some(2), &json!(false), "CW0015"),
        "{out} {told}"
    );
    assert!(word(&envelope["error"]["message"]).contains("--nonsense"), "{out}");
    let (code, out, told) = run(&["plan", "--nonsense"], Stdio::piped());
    assert!(code == Some(2) && out.is_empty() && told.contains("--nonsense"), "{out} {told}");
}

#[test]
fn what_would_go_wrong_without_a_word_is_refused() {
    let rig = Rig::new("refused");
    let _a = shop(&rig.path("a.db"), 3);
    let one = rig.write("one.yaml", &text("one", "a", "copy.db", ""));
    rig.done(&["apply", &one]);
    rig.until("the copy", || count(&rig.path("copy.db")) == 3);

    let bad = rig.write("bad.yaml", &text("one", "a", "copy.db", "    batch: { row: 7 }\n"));
    assert_eq!(rig.refused(&["apply", &bad]), ("CW0311".into(), 2));
    let renamed = rig.write("renamed.yaml", &text("one", "a", "copy.db", "    tables: { a.main.t: { name: t2 } }\n"));
    assert_eq!(rig.refused(&["plan", &renamed]), ("CW0341".into(), 2));
    assert_eq!(rig.refused(&["apply", &renamed]), ("CW0341".into(), 2));
    let same_source = rig.write("other.yaml", &text("other", "a", "other.db", ""));
    assert_eq!(rig.refused(&["apply", &same_source]), ("CW0341".into(), 2));
    let no_file = rig.write("nofile.yaml", &text("third", "missing", "third.db", ""));
    let (code, exit) = rig.refused(&["apply", &no_file]);
    assert!(code.starts_with("CW055") && exit == 3, "{code} {exit}");
    let no_sink = text("one", "a", "copy.db", "").split("sinks:").next().expect("text").to_owned();
    let no_sink = rig.write("nosink.yaml", &no_sink);
    assert_eq!(rig.refused(&["apply", &no_sink]), ("CW0343".into(), 2));
    for args in [&["pipeline", "pause", "none"][..], &["pipeline", "show", "none"], &["rollback", "none", "--to", "1"]]
    {
        assert_eq!(rig.refused(args), ("CW0344".into(), 2), "{args:?}");
    }
    assert_eq!(rig.refused(&["rollback", "one", "--to", "9"]), ("CW0345".into(), 2));
    assert_eq!(rig.refused(&["pipeline", "delete", "one"]), ("CW0343".into(), 2));
    assert_eq!(rig.state("one"), "running", "{}", rig.node.log());
    assert_eq!(rig.done(&["pipeline", "show", "one"])["revision"], 1);
    // A web page in this machine's browser, and one whose name resolves to it.
    let curl = |header: &str, kind: &str| {
        let url = format!("http://{}/api/v1/pipelines/one/pause", rig.node.http());
        let out = Command::new("curl")
            .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", "-H", header, "-H", kind, &url])
            .output();
        String::from_utf8_lossy(&out.expect("curl").stdout).into_owned()
    };
    let json = "Content-Type: application/json";
    assert_eq!(curl("Origin: http://example.com", json), "403");
    assert_eq!(curl("Host: example.com", json), "403");
    assert_eq!(curl("X-Nothing: 1", "Content-Type: text/plain"), "403");
    assert_eq!(rig.state("one"), "running");
    assert_eq!(curl("X-Nothing: 1", json), "200");
}

#[test]
fn a_node_that_leaves_gives_back_what_it_made() {
    let Some((a, b)) = Database::create("pg15", "given_a").zip(Database::create("pg15", "given_b")) else { return };
    a.pg.run("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')").expect("table");
    let mut rig = Rig::new("given");
    let file = |sinks: &str| {
        format!(
            "version: 1\npipeline: pg\nsources:\n  {name}:\n    postgres: {{ url: \"{}\", tables: [t] }}\n{sinks}",
            a.url(),
            name = a.name()
        )
    };
    let sink =
        |n: &str| format!("  {n}:\n    from: {}.*\n    postgres: {{ url: \"{}\", schema: {n} }}\n", a.name(), b.url());
    let left = || {
        let slots = format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'catchwater_{}'", a.name());
        let of = |q: &str| b.pg.one(q).unwrap_or("0".into());
        format!("{} {}", a.pg.one(&slots).expect("slots"), of("SELECT count(*) FROM catchwater.position"))
    };
    let two = rig.write("pg.yaml", &file(&format!("sinks:\n{}{}", sink("one"), sink("two"))));
    rig.done(&["apply", &two]);
    rig.until("both schemas", || {
        difference(&a.pg, "t", &b.pg, "one.t").is_empty() && difference(&a.pg, "t", &b.pg, "two.t").is_empty()
    });
    assert_eq!(left(), "1 2");
    let one = rig.write("pg.yaml", &file(&format!("sinks:\n{}", sink("one"))));
    rig.done(&["apply", &one, "--allow-destructive"]);
    rig.until("one position goes", || left() == "1 1");
    a.pg.run("INSERT INTO t VALUES (2, 'b')").expect("row");
    rig.until("the other sink goes on", || difference(&a.pg, "t", &b.pg, "one.t").is_empty());
    // Paused, then the node dies, then it is deleted: the next process knows whose the slot is.
    rig.done(&["pipeline", "pause", "pg"]);
    rig.until("paused", || rig.state("pg") == "paused");
    rig.node.kill();
    rig.node.restart().expect("restart");
    rig.done(&["pipeline", "delete", "pg", "--allow-destructive"]);
    rig.until("slot and position go", || left() == "0 0");
    assert_eq!(rig.state("pg"), "gone");
    assert_eq!(b.pg.one("SELECT count(*) FROM one.t").expect("the table stays"), "2");
    rig.until("no task is left", || rig.done(&["lag"]).as_array().is_some_and(Vec::is_empty));
}

/// A node that dies at any step of an apply has the old text with the old tasks, or the new one with the new tasks; the same
/// apply again ends in the new one.
#[test]
fn an_apply_that_dies_is_done_or_not_done() {
    if !catchwater_tests::broker::has_crash_points("apply_that_dies") {
        return;
    }
    let mut rig = Rig::new("half");
    let _a = shop(&rig.path("a.db"), 20);
    let one = rig.write("one.yaml", &text("one", "a", "copy_0.db", ""));
    rig.done(&["apply", &one]);
    rig.until("the first copy", || count(&rig.path("copy_0.db")) == 20);
    let points = ["apply.before_sources", "apply.before_change", "apply.after_change"];
    let mut sinks = text("one", "a", "copy_0.db", "");
    for (i, point) in points.iter().enumerate() {
        let before = (rig.done(&["pipeline", "show", "one"])["revision"].clone(), sinks.clone());
        // One sink more, and another block of the one that is there.
        sinks += &format!("  more_{i}:\n    from: a\n    sqlite: {{ file: more_{i}.db }}\n");
        let file = rig.write("next.yaml", &sinks);
        rig.node.kill();
        rig.node.restart_with(&[("CATCHWATER_CRASH_AT", &format!("{point}:1"))]).expect("restart");
        assert_ne!(rig.run(&["apply", &file]).0, 0, "{point} was not passed");
        rig.node.kill();
        rig.node.restart_with(&[]).expect("restart");
        let shown = rig.done(&["pipeline", "show", "one"]);
        let is_new = word(&shown["text"]) == sinks;
        assert!(is_new || word(&shown["text"]) == before.1, "{point}: neither text: {shown}");
        assert_eq!(is_new, shown["revision"] != before.0, "{point}: {shown}");
        let wanted = if is_new { i + 3 } else { i + 2 };
        let tasks = || rig.done(&["lag"]).as_array().expect("lag").len();
        rig.until(&format!("{point}: tasks of the text"), || tasks() == wanted);
        rig.done(&["apply", &file]);
        rig.until(&format!("{point}: the new copy"), || count(&rig.path(&format!("more_{i}.db"))) == 20);
        assert_eq!((tasks(), rig.state("one")), (i + 3, "running".to_owned()), "{point}");
    }
    assert_eq!(count(&rig.path("copy_0.db")), 20);
    rig.done(&["audit", "verify"]);
}

/// A table that is taken out of the file leaves the publication, and what the server had written of it before is left out of the
/// stream; one that is new in the file joins by itself. Nobody runs SQL, and nothing stops, whatever is written meanwhile.
#[test]
fn tables_leave_and_join_a_running_source() {
    let Some((a, b)) = Database::create("pg15", "join_a").zip(Database::create("pg15", "join_b")) else { return };
    a.pg.run("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE gone (id int PRIMARY KEY); CREATE TABLE new (id int PRIMARY KEY)")
        .expect("tables");
    let rig = Rig::new("join");
    let text = |tables: &str| {
        format!(
            "version: 1\npipeline: join\nsources:\n  {name}:\n    postgres: {{ url: \"{}\", tables: [{tables}] }}\nsinks:\n  copy:\n    from: {name}.*\n    postgres: {{ url: \"{}\" }}\n",
            a.url(),
            b.url(),
            name = a.name()
        )
    };
    let equal = |what: &str, table: &str| rig.until(what, || difference(&a.pg, table, &b.pg, table).is_empty());
    rig.done(&["apply", &rig.write("join.yaml", &text("t, gone"))]);
    a.pg.run("INSERT INTO t VALUES (1); INSERT INTO gone VALUES (1)").expect("rows");
    equal("the first rows", "gone");
    // Rows of the table in the WAL between the source's end and its next beginning.
    rig.done(&["pipeline", "pause", "join"]);
    rig.until("paused", || {
        a.pg.one("SELECT active::text FROM pg_replication_slots WHERE slot_name LIKE '%join_a%'")
            .is_ok_and(|s| s == "false")
    });
    a.pg.run("INSERT INTO gone SELECT g FROM generate_series(2, 100) g; INSERT INTO t VALUES (2)").expect("rows");
    rig.done(&["apply", &rig.write("join.yaml", &text("t, new"))]);
    a.pg.run("INSERT INTO gone VALUES (101); INSERT INTO t VALUES (3)").expect("rows");
    rig.done(&["pipeline", "resume", "join"]);
    equal("it goes on without the table", "t");
    assert_eq!(b.pg.one("SELECT count(*) FROM gone").expect("count"), "1", "what was taken out stays as it was");
    let published = "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_publication_tables";
    assert_eq!(a.pg.one(published).expect("publication"), "new t");
    a.pg.run("INSERT INTO new VALUES (1); INSERT INTO gone VALUES (102); INSERT INTO t VALUES (4)").expect("rows");
    equal("the new table joined", "new");
    equal("and the old one goes on", "t");
    // Put back, it was away: its changes are missing, and that is said.
    rig.done(&["apply", &rig.write("join.yaml", &text("t, new, gone"))]);
    rig.until("it is refused", || rig.done(&["lag"]).to_string().contains("CW0521"));
    // A table that no text meant is still a stranger.
    rig.done(&["apply", &rig.write("join.yaml", &text("t, new"))]);
    equal("it goes on", "t");
    a.pg.run(&format!("CREATE TABLE odd (id int PRIMARY KEY); ALTER PUBLICATION catchwater_{} ADD TABLE odd; INSERT INTO odd VALUES (1)", a.name()))
        .expect("widened");
    rig.until("it is refused", || rig.done(&["lag"]).to_string().contains("public.odd"));
}

/// A node of `dev` runs its file and what is applied to it while it runs; what an earlier run stored there does not begin by
/// itself, and says so.
#[test]
fn dev_runs_its_file_and_what_is_applied_to_it() {
    let mut dev = Dev::new(&text("one", "one", "one-copy.db", ""));
    let folder = dev.folder().to_owned();
    drop((shop(&folder.join("one.db"), 3), shop(&folder.join("two.db"), 3)));
    dev.start().expect("starts");
    let two = folder.join("two.yaml");
    std::fs::write(&two, text("two", "two", "two-copy.db", "")).expect("file");
    let run = |http: &str, args: &[&str]| {
        let out = Command::new(binary().expect("binary"))
            .args(["-o", "json"])
            .args(args)
            .env("CATCHWATER_HTTP", http)
            .output()
            .expect("runs");
        serde_json::from_slice::<Value>(&out.stdout).expect("an envelope")
    };
    let copied = |rows: u32| {
        let here = count(&folder.join("two-copy.db"));
        if here == rows { String::new() } else { format!("{here} rows, not {rows}") }
    };
    let path = two.display().to_string();
    assert_eq!(run(&dev.http, &["plan", &path])["ok"], true);
    let applied = run(&dev.http, &["apply", &path]);
    assert_eq!(applied["ok"], true, "{applied}");
    dev.wait(LIMIT, || copied(3)).expect("the second pipeline runs beside the first");
    for name in ["one", "two"] {
        for what in ["pause", "resume", "restart"] {
            assert_eq!(run(&dev.http, &["pipeline", what, name])["ok"], true, "{what} {name}");
        }
    }
    dev.stop().expect("ends");
    // The next run of the first file knows of the second and does not run it, until it is applied again.
    let source = Connection::open(folder.join("two.db")).expect("source");
    source.execute("INSERT INTO t VALUES (100, 'more')", []).expect("row");
    drop(source);
    dev.start().expect("starts again");
    let refused = run(&dev.http, &["pipeline", "restart", "two"]);
    assert_eq!((&refused["ok"], word(&refused["error"]["code"])), (&Value::Bool(false), "CW0353"), "{refused}");
    assert_eq!(run(&dev.http, &["apply", &path])["ok"], true);
    dev.wait(LIMIT, || copied(4)).expect("it goes on where it was");
    dev.stop().expect("ends");
}

#[test]
fn a_source_at_another_url_is_asked_and_an_ad_hoc_snapshot_that_is_given_up_is_shown() {
    let Some(d) = Database::create("pg15", "pipelines_moved") else { return };
    d.pg.run("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')").expect("table");
    let rig = Rig::new("moved");
    let file = |url: &str, name: &str| {
        let text = format!(
            "version: 1\npipeline: p\nsources:\n  {}:\n    postgres: {{ url: \"{url}\", tables: [t] }}\n",
            d.name()
        );
        rig.write(name, &text)
    };
    rig.done(&["apply", &file(d.url(), "here.yaml")]);
    rig.until("runs", || rig.state("p") == "running");

    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("port");
    let away = file(&format!("postgres://postgres@{free}/{}", d.name()), "away.yaml");
    let (code, plan) = rig.run(&["plan", &away]);
    assert!(code != 0 && plan.to_string().contains("CW0501"), "{plan}");
    assert_eq!(rig.refused(&["apply", &away]).0, "CW0501");

    // What the server does not take as a condition is the answer of the command; what is wrong with rows shows later.
    let with = |filter| rig.run(&["pipeline", "snapshot", "p", "--table", "public.t", "--where", filter]);
    rig.until("asked", || with("1 / (id - id) = 1").0 == 0);
    let (code, answer) = with("nosuch = 1");
    let error = &answer["error"];
    assert_eq!((code, word(&error["code"])), (2, "CW0591"), "{answer}");
    assert!(
        word(&error["message"]).contains("condition for public.t") && error.to_string().contains("42703"),
        "{answer}"
    );
    assert!(word(&error["next"]).contains("one SQL condition"), "{answer}");
    let refused = || rig.done(&["pipeline", "snapshot", "p"])[0]["refused"].clone();
    rig.until("given up", || refused()["count"].as_u64().is_some_and(|n| n > 0));
    assert!(word(&refused()["last"]).contains("public.t is given up: CW0528"), "{}", refused());

    // Nor is what a sink would stop at: the records that transforms of its source change.
    let cast = "    debezium: { transforms: cast, transforms.cast.type: \"org.apache.kafka.connect.transforms.InsertField$Value\", \
                transforms.cast.static.field: f, transforms.cast.static.value: v }\n";
    let text = std::fs::read_to_string(rig.path("here.yaml")).expect("text");
    let sinks =
        format!("sinks:\n  s:\n    from: {}\n    postgres: {{ url: \"{}\", schema: other }}\n", d.name(), d.url());
    let changed = rig.write("changed.yaml", &format!("{text}{cast}{sinks}"));
    let (code, warned) = rig.run(&["validate", &changed]);
    assert!(code == 0 && warned.to_string().contains("CW0699"), "{warned}");
    assert_eq!(rig.refused(&["plan", &changed]).0, "CW0341");
    assert_eq!(rig.refused(&["apply", &changed]).0, "CW0699");
    let alone = rig.write("alone.yaml", &format!("{text}{cast}"));
    assert_eq!(rig.run(&["plan", &alone]).0, 0);

    // Nor where a pattern takes the table and a predicate names its topic: the catalogue says so, of a source that runs, too.
    d.pg.run("CREATE TABLE plain (id int PRIMARY KEY)").expect("table");
    let only = "transforms.cast.static.value: v, predicates: of, predicates.of.type: \
         org.apache.kafka.connect.transforms.predicates.TopicNameMatches, predicates.of.pattern: \".*[.]t\", \
         transforms.cast.predicate: of";
    let by_topic = cast.replace("transforms.cast.static.value: v", only);
    let every = text.replace("tables: [t]", "tables: [\"public.*\"]");
    let pattern = rig.write("pattern.yaml", &format!("{every}{by_topic}{sinks}"));
    assert_eq!(rig.run(&["validate", &pattern]).0, 0);
    let (code, plan) = rig.run(&["plan", &pattern]);
    assert!(code == 2 && plan.to_string().contains("change the records of public.t:"), "{plan}");
    assert_eq!(rig.refused(&["apply", &pattern]).0, "CW0699");
    let fits = rig.write(
        "fits.yaml",
        &format!(
            "{every}{by_topic}{}",
            sinks.replace("from: ", "from: [").replace("\n    postgres", ".public.plain]\n    postgres")
        ),
    );
    let (code, plan) = rig.run(&["plan", &fits]);
    assert_eq!(code, 0, "{plan}");
    let doctor = rig.run(&["doctor", &pattern]).1;
    assert!(doctor.to_string().contains("CW0699"), "{doctor}");

    // A target that takes no rows is no target: said before anything is stored.
    d.pg.run(&format!("ALTER DATABASE {} SET default_transaction_read_only = on", d.name())).expect("read-only");
    let text = std::fs::read_to_string(rig.path("here.yaml")).expect("text");
    let to = rig.write(
        "to.yaml",
        &format!(
            "{text}sinks:\n  s:\n    from: {}\n    postgres: {{ url: \"{}\", schema: other }}\n",
            d.name(),
            d.url()
        ),
    );
    assert_eq!(rig.refused(&["apply", &to]).0, "CW0612");
}
