//! What goes wrong at a PostgreSQL target: rows that it cannot hold, tables that somebody changed, rights, its disk. Each time
//! one clear error, everything else goes on, and every row that a sink took is applied, folded, parked or filtered.

use catchwater_tests::dev::Dev;
use catchwater_tests::pg::{Database, Pg};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

fn pipeline(a: &Database, url: &str, more: &str) -> String {
    let name = a.name();
    format!(
        "version: 1\npipeline: p\nsources:\n  {name}:\n    postgres: {{ url: \"{}\", tables: [t, ok] }}\nsinks:\n  copy:\n    from: {name}\n    postgres: {{ url: \"{url}\" }}\n{more}",
        a.url()
    )
}

fn api(dev: &Dev) -> serde_json::Value {
    let out = Command::new("curl").args(["-s", &format!("http://{}/api/v1/lag", dev.http)]).output().expect("curl");
    let lines: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
    lines.as_array().into_iter().flatten().find(|l| l["kind"] == "sink").cloned().unwrap_or_default()
}

/// State and error of the sink hold these words.
fn says(dev: &Dev, words: &[&str]) {
    let seen = || format!("{} {}", api(dev)["state"], api(dev)["error"]);
    let missing = || words.iter().find(|w| !seen().contains(**w)).map(|w| format!("`{w}` is not in {}", seen()));
    dev.wait(LIMIT, || missing().unwrap_or_default()).unwrap_or_else(|e| panic!("{e:#}"));
}

fn rows(dev: &Dev, at: &Pg, sql: &str, want: &str) {
    let seen = || at.one(sql).unwrap_or_else(|e| format!("{e:#}"));
    dev.wait(LIMIT, || if seen() == want { String::new() } else { format!("{sql}: {} {}", seen(), api(dev)) })
        .unwrap_or_else(|e| panic!("{e:#}"));
}

fn cli(dev: &Dev, args: &[&str]) -> (i32, String) {
    let binary = catchwater_tests::broker::binary().expect("binary");
    let out = Command::new(binary)
        .args(args)
        .args(["--http", &dev.http])
        .env_remove("RUST_BACKTRACE")
        .output()
        .expect("runs");
    let text = [out.stdout, out.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
    (out.status.code().unwrap_or(-1), text)
}

#[test]
fn each_kind_of_poison_row_is_set_aside_with_its_reason() {
    let Some(a) = Database::create("pg15", "poison_kinds_a") else { return };
    let Some(b) = Database::create("pg15", "poison_kinds_b") else { return };
    // A target that stores other characters.
    let latin = format!("{}_l", b.name());
    let admin = b.connect();
    admin
        .run(&format!("CREATE DATABASE {latin} TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'"))
        .expect("latin1");
    let url = b.url().replace(b.name(), &latin);
    let target = Pg::connect(&url).expect("the target");
    a.pg.run(
        "CREATE TABLE t (id int PRIMARY KEY, a text, n numeric, b text, u int); CREATE TABLE ok (id int PRIMARY KEY)",
    )
    .expect("tables");
    target
        .run("CREATE TABLE t (id int PRIMARY KEY, a varchar(5) CHECK (a <> 'bad'), n numeric(4,2), b text NOT NULL, u int UNIQUE); INSERT INTO t VALUES (99, '', 0, '', 99)")
        .expect("another shape");
    let types = format!(
        "    on_error: {{ row: park_key, max: 500/1000 }}\n    tables:\n      {}.public.t: {{ columns: {{ n: {{ type: \"numeric(4,2)\" }} }} }}\n",
        a.name()
    );
    let mut dev = Dev::new(&pipeline(&a, &url, &types));
    dev.start().expect("start");
    a.pg.run(
        "INSERT INTO t VALUES (1, 'fine', 1, '', 1), (2, 'too long', 1, '', 2), (3, 'x', 99999, '', 3), (4, 'bad', 1, '', 4),
         (5, 'x', 1, NULL, 5), (6, '€', 1, '', 6), (7, 'x', 1, '', 99), (8, 'fine', 2, '', 8); INSERT INTO ok VALUES (1)",
    )
    .expect("rows");
    rows(&dev, &target, "SELECT string_agg(id::text, ',' ORDER BY id) FROM t", "1,8,99");
    rows(&dev, &target, "SELECT count(*) FROM ok", "1");
    let (_, listed) = cli(&dev, &["dlq", "list", "p"]);
    for (id, why) in [
        (2, "too long"),
        (3, "out of the column's range"),
        (4, "check constraint"),
        (5, "NOT NULL column would be null, column b"),
        (6, "encoding does not have"),
        (7, "unique key would occur twice"),
    ] {
        let line = listed
            .lines()
            .find(|l| l.contains(&format!("{{\"id\":{id}}}")))
            .unwrap_or_else(|| panic!("{id}: {listed}"));
        assert!(line.contains(why) && line.contains("CW0609"), "{line}");
    }
    assert_eq!(dev.ledger().expect("rows in = rows out"), 9);
    assert!(!dev.log().contains("99999") && !dev.log().contains("too long"), "a value in the log: {}", dev.log());
    drop(dev);
    drop(target);
    admin.run(&format!("DROP DATABASE {latin} WITH (FORCE)")).expect("gone");
}

#[test]
fn what_somebody_does_to_the_targets_tables() {
    let Some(a) = Database::create("pg15", "changed_a") else { return };
    let Some(b) = Database::create("pg15", "changed_b") else { return };
    a.pg.run("CREATE TABLE t (id int PRIMARY KEY, a text); CREATE TABLE ok (id int PRIMARY KEY)").expect("tables");
    a.pg.run("INSERT INTO t VALUES (1, 'x'); INSERT INTO ok VALUES (1)").expect("rows");
    let role = format!("w_{}", std::process::id());
    b.pg.run(&format!("DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN; GRANT CREATE ON DATABASE {} TO {role}; GRANT ALL ON SCHEMA public TO {role}", b.name()))
        .expect("a user");
    let url = b.url().replace("postgres@", &format!("{role}@"));
    let mut dev = Dev::new(&pipeline(&a, &url, ""));
    dev.start().expect("start");
    rows(&dev, &b.pg, "SELECT count(*) FROM t", "1");
    let again = |dev: &Dev| {
        let (code, text) = cli(dev, &["pipeline", "restart", "p"]);
        assert_eq!(code, 0, "{text}");
    };
    // A column has another name: made again it would be NULL in every old row, so it is not.
    b.pg.run("ALTER TABLE t RENAME COLUMN a TO elsewhere").expect("another name");
    a.pg.run("INSERT INTO t VALUES (2, 'y')").expect("a row");
    says(&dev, &["needs_person", "CW0696", "column a of public.t"]);
    b.pg.run("ALTER TABLE t RENAME COLUMN elsewhere TO a").expect("its name");
    again(&dev);
    rows(&dev, &b.pg, "SELECT string_agg(a, ',' ORDER BY id) FROM t", "x,y");
    // One that is new at the source is added.
    a.pg.run("ALTER TABLE t ADD COLUMN late text; INSERT INTO t VALUES (30, 'x', 'l'); DELETE FROM t WHERE id = 30")
        .expect("a column more");
    rows(&dev, &b.pg, "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'late'", "1");
    // A column that came later is gone, and made by hand.
    a.pg.run("UPDATE t SET late = 'l'").expect("rows");
    rows(&dev, &b.pg, "SELECT count(late) FROM t", "2");
    b.pg.run("ALTER TABLE t DROP COLUMN late").expect("a column less");
    a.pg.run("UPDATE t SET late = 'm' WHERE id = 2").expect("a row");
    says(&dev, &["needs_person", "CW0696", "column late of public.t"]);
    b.pg.run("ALTER TABLE t ADD COLUMN late text").expect("by hand");
    again(&dev);
    rows(&dev, &b.pg, "SELECT late FROM t WHERE id = 2", "m");
    // The key is gone; put back, and the sink goes on.
    b.pg.run("ALTER TABLE t DROP CONSTRAINT t_pkey").expect("no key");
    a.pg.run("INSERT INTO t VALUES (3, 'z')").expect("a row");
    says(&dev, &["needs_person", "CW0677", "public.t"]);
    b.pg.run("ALTER TABLE t ADD PRIMARY KEY (id)").expect("a key");
    again(&dev);
    rows(&dev, &b.pg, "SELECT count(*) FROM t", "3");
    // The whole table is gone: made anew it would lack its rows, so it is not.
    b.pg.run("DROP TABLE ok").expect("no table");
    a.pg.run("INSERT INTO ok VALUES (2)").expect("a row");
    says(&dev, &["needs_person", "CW0695", "public.ok"]);
    assert_eq!(b.pg.one("SELECT to_regclass('ok') IS NULL").expect("target"), "t");
    b.pg.run(&format!("CREATE TABLE ok (id int PRIMARY KEY); ALTER TABLE ok OWNER TO {role}")).expect("made again");
    again(&dev);
    rows(&dev, &b.pg, "SELECT count(*) FROM ok", "1");
    dev.wait(LIMIT, || match cli(&dev, &["sink", "rebuild", "p", "copy"]) {
        (0, _) => String::new(),
        (_, text) => text,
    })
    .expect("rebuilt");
    rows(&dev, &b.pg, "SELECT count(*) FROM ok", "2");
    rows(&dev, &b.pg, "SELECT count(a) || ' ' || count(late) FROM t", "3 2");
    // Another right less: it is named, and granted again.
    b.pg.run(&format!("ALTER TABLE ok OWNER TO postgres; GRANT SELECT, UPDATE, DELETE ON ok TO {role}"))
        .expect("revoked");
    a.pg.run("INSERT INTO ok VALUES (3)").expect("a row");
    says(&dev, &["needs_person", "CW0611", "permission denied for table ok"]);
    b.pg.run(&format!("GRANT INSERT ON ok TO {role}")).expect("granted");
    again(&dev);
    rows(&dev, &b.pg, "SELECT count(*) FROM ok", "3");
    dev.ledger().expect("rows in = rows out");
    drop(dev);
    b.pg.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).expect("the user goes");
}

/// A tablespace on a small filesystem of its own, unmounted when dropped.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(b: &Database) -> Option<Small> {
        let data = b.pg.one("SHOW data_directory").ok()?;
        let dir = std::path::Path::new(&data).parent()?.join(format!("small-{}", std::process::id()));
        std::fs::create_dir_all(&dir).ok()?;
        let ran = |program: &str, args: &[&std::ffi::OsStr]| {
            Command::new(program).args(args).output().is_ok_and(|o| o.status.success())
        };
        if !ran(
            "mount",
            &["-t".as_ref(), "tmpfs".as_ref(), "-o".as_ref(), "size=2m".as_ref(), "tmpfs".as_ref(), dir.as_os_str()],
        ) {
            let _ = std::fs::remove_dir(&dir);
            return None;
        }
        let small = Small(dir);
        let reference = format!("--reference={data}");
        (ran("chown", &[reference.as_ref(), small.0.as_os_str()])
            && ran("chmod", &["700".as_ref(), small.0.as_os_str()]))
        .then_some(small)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).output();
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_target_whose_disk_is_full_is_waited_for() {
    let Some(a) = Database::create("pg15", "full_a") else { return };
    let Some(b) = Database::create("pg15", "full_b") else { return };
    let Some(small) = Small::mount(&b) else {
        catchwater_tests::skip("full_target", "no filesystem of its own can be mounted here");
        return;
    };
    let space = format!("small_{}", std::process::id());
    a.pg.run("CREATE TABLE t (id int PRIMARY KEY, a text); CREATE TABLE ok (id int PRIMARY KEY)").expect("tables");
    b.pg.run(&format!("CREATE TABLESPACE {space} LOCATION '{}'", small.0.display())).expect("a tablespace");
    b.pg.run(&format!("CREATE TABLE t (id int PRIMARY KEY, a text) TABLESPACE {space}; CREATE TABLE filler (x text) TABLESPACE {space}")).expect("tables");
    while b.pg.run("INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 50)").is_ok() {}
    let mut dev = Dev::new(&pipeline(&a, b.url(), ""));
    dev.start().expect("start");
    a.pg.run("INSERT INTO t SELECT i, repeat('y', 1000) FROM generate_series(1, 200) i").expect("rows");
    says(&dev, &["retrying", "53100"]);
    // The capture goes on meanwhile.
    let topic = format!("{}.public.t", a.name());
    dev.wait(LIMIT, || match catchwater_tests::bank::read_topic(&dev.kafka, &topic).map_or(0, |r| r.len()) {
        200 => String::new(),
        n => format!("{n} of 200 records"),
    })
    .expect("captured");
    b.pg.run("DROP TABLE filler").expect("room");
    rows(&dev, &b.pg, "SELECT count(*) FROM t", "200");
    assert_eq!(dev.ledger().expect("rows in = rows out"), 200);
    drop(dev);
    b.pg.run("DROP TABLE t").expect("gone");
    b.pg.run(&format!("DROP TABLESPACE {space}")).expect("gone");
}
