//! Rows that fit only together, beside one that does not fit: tables that refer to each other in a circle, and rows that
//! give each other a value, of a source whose keys are checked at its commit. Only what is refused by itself, and what
//! depends on it, is set aside, at every kind of target, in the first snapshot and behind it; and a replay brings it all back.

use catchwater_tests::dev::Dev;
use catchwater_tests::pg::{Database, Pg};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const ROWS: &str =
    "SELECT coalesce(string_agg(id || ':' || coalesce(o::text, '-') || ':' || u, ' ' ORDER BY id), '') FROM ";

/// `p` and `q` refer to each other, `c` to `p`; `u` is unique in each.
fn tables(rule: &str, check: &str) -> String {
    let one = |t: &str, more: &str| format!("CREATE TABLE {t} (id int PRIMARY KEY, o int, u int UNIQUE{more});");
    let key = |t: &str, to: &str| format!("ALTER TABLE {t} ADD FOREIGN KEY (o) REFERENCES {to} (id) {rule};");
    let unique = if check.is_empty() { " DEFERRABLE INITIALLY DEFERRED" } else { "" };
    [one("p", unique), one("q", &format!("{unique}{check}")), one("c", ""), key("p", "q"), key("q", "p"), key("c", "p")]
        .concat()
}

fn sqlite(dev: &Dev) -> rusqlite::Connection {
    rusqlite::Connection::open(dev.folder().join("t.db")).expect("the file")
}

fn cli(dev: &Dev, args: &[&str]) -> String {
    let binary = catchwater_tests::broker::binary().expect("binary");
    let out = Command::new(binary).args(args).args(["--http", &dev.http]).env_remove("RUST_BACKTRACE").output();
    let out = out.expect("runs");
    [out.stdout, out.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat()
}

/// All three tables at all three targets.
fn reads(dev: &Dev, targets: &[&Pg], want: [&str; 3]) {
    let seen = || {
        let mut out = Vec::new();
        for (table, want) in ["p", "q", "c"].iter().zip(want) {
            let sql = format!("{ROWS}{table}");
            for target in targets {
                let got = target.one(&sql).unwrap_or_else(|e| format!("{e:#}"));
                out.extend((got != want).then(|| format!("{} {table}: {got}", target.url())));
            }
            let sql = format!(
                "SELECT coalesce(group_concat(r, ' '), '') FROM (SELECT id || ':' || coalesce(o, '-') || ':' || u AS r FROM {table} ORDER BY id)"
            );
            let got: String = sqlite(dev).query_row(&sql, [], |r| r.get(0)).unwrap_or_else(|e| e.to_string());
            out.extend((got != want).then(|| format!("sqlite {table}: {got}")));
        }
        out.join("\n")
    };
    dev.wait(LIMIT, || match seen() {
        none if none.is_empty() => none,
        some => format!("{some}\n{}", cli(dev, &["lag"])),
    })
    .unwrap_or_else(|e| panic!("{e:#}"));
}

#[test]
fn only_what_is_refused_by_itself_or_depends_on_it_is_set_aside() {
    let Some(a) = Database::create("pg15", "together_a") else { return };
    let Some(b) = Database::create("pg15", "together_b") else { return };
    let Some(d) = Database::create("pg15", "together_d") else { return };
    let rule = "DEFERRABLE INITIALLY DEFERRED";
    a.pg.run(&tables(rule, "")).expect("the source's tables");
    let check = " CHECK (u NOT IN (666, 667, 668))";
    b.pg.run(&tables("", check)).expect("keys that are checked at once");
    d.pg.run(&tables(rule, check)).expect("keys that wait");
    let pair =
        |id: i32, u: i32| format!("INSERT INTO p VALUES ({id}, {id}, {id}); INSERT INTO q VALUES ({id}, {id}, {u});");
    let child = |id: i32, of: i32| format!("INSERT INTO c VALUES ({id}, {of}, {id});");
    let all = |rows: Vec<String>| format!("BEGIN; {} COMMIT", rows.concat());
    a.pg.run(&all(vec![pair(1, 1), pair(2, 666), pair(3, 3), child(1, 1), child(2, 2), child(3, 3)])).expect("before");
    let source = a.name();
    let sink = |name: &str, to: &str| {
        format!("  {name}:\n    from: {source}\n    {to}\n    on_error: {{ row: park_key, max: 100/1000 }}\n")
    };
    let mut dev = Dev::new("");
    let file = dev.folder().join("t.db");
    let sinks = [
        sink("now", &format!("postgres: {{ url: \"{}\" }}", b.url())),
        sink("late", &format!("postgres: {{ url: \"{}\" }}", d.url())),
        sink("lite", &format!("sqlite: {{ file: \"{}\" }}", file.display())),
    ];
    let text = format!(
        "version: 1\npipeline: p\nsources:\n  {source}:\n    postgres: {{ url: \"{}\", tables: [p, q, c] }}\nsinks:\n{}",
        a.url(),
        sinks.concat()
    );
    std::fs::write(dev.folder().join("pipeline.yaml"), text).expect("the file");
    let ours = |t: &str, to: &str, check: &str| {
        format!("CREATE TABLE {t} (id int PRIMARY KEY NOT NULL, o int REFERENCES {to} (id), u int UNIQUE{check});")
    };
    let lite = [ours("p", "q", ""), ours("q", "p", check), ours("c", "p", "")].concat();
    sqlite(&dev).execute_batch(&lite).expect("tables of the file");
    dev.start().expect("start");
    // The pair of the refused row, and what hangs on it.
    reads(&dev, &[&b.pg, &d.pg], ["1:1:1 3:3:3", "1:1:1 3:3:3", "1:1:1 3:3:3"]);
    assert_eq!(dev.ledger().expect("rows in = rows out"), 27);

    // Behind the snapshot: a swap and a longer chain beside another such pair, and a row that waits for the first one.
    a.pg.run(&all(vec![
        pair(4, 667),
        pair(5, 5),
        "UPDATE p SET u = CASE id WHEN 1 THEN 3 ELSE 1 END WHERE id IN (1, 3); UPDATE q SET u = 30 WHERE id = 3; "
            .into(),
        "UPDATE q SET u = CASE id WHEN 1 THEN 5 WHEN 5 THEN 30 ELSE 1 END WHERE id IN (1, 3, 5); ".into(),
        child(4, 4),
        child(5, 5),
        "UPDATE c SET u = 20 WHERE id = 2; ".into(),
    ]))
    .expect("behind it");
    let want = ["1:1:3 3:3:1 5:5:5", "1:1:5 3:3:1 5:5:30", "1:1:1 3:3:3 5:5:5"];
    reads(&dev, &[&b.pg, &d.pg], want);
    dev.ledger().expect("rows in = rows out");

    // A pair that goes, another that takes over its values, beside a refused row: the target alone knows who refers to what.
    a.pg.run(&all(vec![pair(6, 6), pair(7, 7)])).expect("two more");
    let with = |of: &str, more: &str| format!("{of}{more}");
    let six = [with(want[0], " 6:6:6 7:7:7"), with(want[1], " 6:6:6 7:7:7"), want[2].to_owned()];
    reads(&dev, &[&b.pg, &d.pg], [&six[0], &six[1], &six[2]]);
    a.pg.run(&all(vec![
        "DELETE FROM q WHERE id = 6; UPDATE q SET u = 668 WHERE id = 7; INSERT INTO p VALUES (8, 8, 6); ".into(),
        "INSERT INTO q VALUES (8, 8, 6); INSERT INTO c VALUES (9, 2, 9); ".into(),
        "DELETE FROM p WHERE id = 6; ".into(),
    ]))
    .expect("taken over");
    let eight = [with(want[0], " 7:7:7 8:8:6"), with(want[1], " 7:7:7 8:8:6"), want[2].to_owned()];
    reads(&dev, &[&b.pg, &d.pg], [&eight[0], &eight[1], &eight[2]]);
    a.pg.run("UPDATE q SET u = 7 WHERE id = 7").expect("repaired at the source");

    // Repaired, all of it comes.
    for target in [&b.pg, &d.pg] {
        target.run("ALTER TABLE q DROP CONSTRAINT q_u_check").expect("repaired");
    }
    let lite = "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, ' CHECK (u NOT IN (666, 667, 668))', '') WHERE name = 'q'; PRAGMA writable_schema = OFF;";
    sqlite(&dev).execute_batch(lite).expect("repaired");
    let said = cli(&dev, &["dlq", "replay", "p"]);
    let want = [
        "1:1:3 2:2:2 3:3:1 4:4:4 5:5:5 7:7:7 8:8:6",
        "1:1:5 2:2:666 3:3:1 4:4:667 5:5:30 7:7:7 8:8:6",
        "1:1:1 2:2:20 3:3:3 4:4:4 5:5:5 9:2:9",
    ];
    reads(&dev, &[&b.pg, &d.pg], want);
    assert!(!said.contains("CW0"), "{said}");
    a.pg.run("DELETE FROM c WHERE id = 2; UPDATE p SET u = 40 WHERE id = 2").expect("no key is parked any more");
    let want = [want[0].replace("2:2:2", "2:2:40"), want[1].to_owned(), want[2].replace("2:2:20 ", "")];
    reads(&dev, &[&b.pg, &d.pg], [&want[0], &want[1], &want[2]]);
}
