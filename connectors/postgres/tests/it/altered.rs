//! A table that is altered at random beside changes of its rows, under kills, pauses and ad hoc snapshots of both ends: the target has
//! what the source has, under the names that it has there. `CW_SEEDS=7` or `7..40`: other seeds than the check's.

use crate::pipeline::{Rig, Running, alive};
use crate::support::*;
use catchwater_base::Rng;
use catchwater_capture::signal;
use catchwater_connector_postgres::ConnectConfig;
use std::time::{Duration, Instant};

/// What is put into columns, by their type.
const TYPES: [(&str, &[&str]); 4] = [
    ("text", &["'a'", "''", "'it''s'", "NULL"]),
    ("int", &["0", "-7", "2147483647", "NULL"]),
    ("numeric", &["1.50", "'NaN'", "NULL"]),
    ("boolean", &["true", "false", "NULL"]),
];

/// What the source has, as the statements so far have made it.
struct Table {
    /// Name and type of each column but the key.
    columns: Vec<(String, usize)>,
    /// Names that no column has any more.
    free: Vec<(String, usize)>,
    made: u32,
    rng: Rng,
}

impl Table {
    /// A new one, or one that a column had before. Of that type: a target keeps columns that the source has no more, with theirs.
    fn name(&mut self, kind: usize) -> String {
        let of: Vec<usize> = (0..self.free.len()).filter(|at| self.free[*at].1 == kind).collect();
        if !of.is_empty() && self.rng.below(2) == 0 {
            return self.free.swap_remove(of[self.rng.below(of.len() as u64) as usize]).0;
        }
        self.made += 1;
        format!("c{}", self.made)
    }

    fn value(&mut self, kind: usize) -> &'static str {
        let of = TYPES[kind].1;
        of[self.rng.below(of.len() as u64) as usize]
    }

    fn add(&mut self, name: String, kind: usize) -> String {
        let default = match self.rng.below(2) {
            0 => String::new(),
            _ => format!(" DEFAULT {}", self.value(kind)),
        };
        let sql = format!("ALTER TABLE t ADD {name} {}{default}", TYPES[kind].0);
        self.columns.push((name, kind));
        sql
    }

    fn alter(&mut self) -> String {
        let any = self.columns.len() as u64;
        match self.rng.below(6) {
            0 | 1 => {
                let kind = self.rng.below(TYPES.len() as u64) as usize;
                let name = self.name(kind);
                self.add(name, kind)
            }
            2 if any > 1 => {
                let gone = self.columns.remove(self.rng.below(any) as usize);
                self.free.push(gone.clone());
                format!("ALTER TABLE t DROP {}", gone.0)
            }
            3 if any > 0 => {
                let at = self.rng.below(any) as usize;
                let kind = self.columns[at].1;
                let to = self.name(kind);
                let from = std::mem::replace(&mut self.columns[at].0, to.clone());
                self.free.push((from.clone(), kind));
                format!("ALTER TABLE t RENAME {from} TO {to}")
            }
            4 if any > 1 => {
                let (name, kind) = self.columns.remove(self.rng.below(any) as usize);
                format!("ALTER TABLE t DROP {name}; {}", self.add(name.clone(), kind))
            }
            _ if any > 1 => {
                let (a, b) = (self.rng.below(any) as usize, self.rng.below(any) as usize);
                if a == b || self.columns[a].1 != self.columns[b].1 {
                    return self.change();
                }
                let (of_a, of_b) = (self.columns[a].0.clone(), self.columns[b].0.clone());
                (self.columns[a].0, self.columns[b].0) = (of_b.clone(), of_a.clone());
                format!(
                    "ALTER TABLE t RENAME {of_a} TO held; ALTER TABLE t RENAME {of_b} TO {of_a}; ALTER TABLE t RENAME held TO {of_b}"
                )
            }
            _ => self.change(),
        }
    }

    fn change(&mut self) -> String {
        let id = self.rng.below(30);
        let columns = self.columns.clone();
        let few: Vec<&(String, usize)> = columns.iter().filter(|_| self.rng.below(2) == 0).collect();
        let sets: Vec<String> = few.iter().map(|(name, kind)| format!("{name} = {}", self.value(*kind))).collect();
        match self.rng.below(5) {
            0 => format!("DELETE FROM t WHERE id = {id}"),
            1 => format!(
                "UPDATE t SET id = id + 100 WHERE id = {id} AND NOT EXISTS (SELECT 1 FROM t o WHERE o.id = {id} + 100)"
            ),
            2 if !sets.is_empty() => format!("UPDATE t SET {} WHERE id % 7 = {}", sets.join(", "), id % 7),
            _ => {
                let names: String = few.iter().map(|(name, _)| format!(", {name}")).collect();
                let values: String = few.iter().map(|(_, kind)| format!(", {}", self.value(*kind))).collect();
                let then =
                    if sets.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {}", sets.join(", ")) };
                format!("INSERT INTO t(id{names}) VALUES ({id}{values}) ON CONFLICT (id) DO {then}")
            }
        }
    }

    /// A transaction's statements.
    fn transaction(&mut self) -> String {
        let many = 1 + self.rng.below(3);
        let parts: Vec<String> =
            (0..many).map(|_| if self.rng.below(3) == 0 { self.alter() } else { self.change() }).collect();
        format!("BEGIN; {}; COMMIT", parts.join("; "))
    }

    fn names(&self) -> String {
        self.columns.iter().map(|(name, _)| format!(", {name}")).collect()
    }
}

async fn same(source: &Db, target: &Db, table: &Table, when: &str, (capture, deliver): (&mut Running, &mut Running)) {
    let sql =
        format!("SELECT coalesce(string_agg(x::text, ' ' ORDER BY id), '') FROM (SELECT id{} FROM t) x", table.names());
    // What no row follows, the stream does not tell.
    source.exec("INSERT INTO t(id) SELECT max(id) + 1000 FROM t").await;
    let (start, want) = (Instant::now(), source.one(&sql).await);
    loop {
        let got = target.client.query_one(&sql, &[]).await.map_or_else(|e| format!("{e:?}"), |r| r.get(0));
        if got == want {
            return;
        }
        alive(when, capture, deliver).await;
        let status = capture.status.clone().unwrap().get();
        assert!(start.elapsed() < Duration::from_secs(20), "{when}: id{}\n{got}\n{want}\n{status:?}", table.names());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn run(seed: u64) {
    let Some(source) = database(&format!("from_altered_{seed}")).await else { return };
    let target = database(&format!("to_altered_{seed}")).await.unwrap();
    source
        .exec("CREATE TABLE t(id int PRIMARY KEY, c0 text); INSERT INTO t SELECT g, 'c' FROM generate_series(0, 9) g")
        .await;
    let mut rig = Rig::new(&source, &target).await;
    rig.source = source.config(&["t"]);
    let mut table = Table { columns: vec![("c0".into(), 0)], free: Vec::new(), made: 0, rng: Rng::new(seed) };
    let (mut capture, mut deliver) = (Some(rig.capture()), Some(rig.deliver()));
    let mut said = Vec::new();
    for step in 0..24 {
        // Killed, and begun again behind the changes, one of them or both.
        let how = table.rng.below(6);
        let (is_source, is_sink) = (matches!(how, 0 | 1), matches!(how, 1 | 2));
        if is_source {
            capture = None;
        }
        if is_sink {
            deliver = None;
        }
        for _ in 0..1 + table.rng.below(5) {
            let sql = table.transaction();
            said.push(sql.clone());
            source.exec(&sql).await;
        }
        let capture = capture.get_or_insert_with(|| rig.capture());
        let deliver = deliver.get_or_insert_with(|| rig.deliver());
        if how == 3 {
            let asked = signal::parse("execute-snapshot", r#"{"data-collections":["public.t"]}"#).unwrap();
            let status = capture.status.clone().unwrap();
            // One that does not stream yet gives no answer.
            let _ = tokio::time::timeout(Duration::from_millis(500), status.signal(asked)).await;
        }
        if table.rng.below(3) == 0 {
            let when = format!("seed {seed}, step {step}, {how}, behind:\n{}", said.join("\n"));
            same(&source, &target, &table, &when, (capture, deliver)).await;
        }
    }
    let when = format!("seed {seed}, at the end, behind:\n{}", said.join("\n"));
    let mut capture = capture.unwrap_or_else(|| rig.capture());
    let mut last = deliver.take().unwrap_or_else(|| rig.deliver());
    same(&source, &target, &table, &when, (&mut capture, &mut last)).await;
    drop(last);
    let fresh = database(&format!("later_altered_{seed}")).await.unwrap();
    rig.target = ConnectConfig::parse(&fresh.url).unwrap();
    let mut last = rig.deliver();
    same(&source, &fresh, &table, &format!("from the beginning, {when}"), (&mut capture, &mut last)).await;
    drop((capture, last));
    for db in [fresh, target, source] {
        db.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_altered_at_random_is_alike_at_the_target() {
    let seeds = std::env::var("CW_SEEDS").unwrap_or_else(|_| "1..4".into());
    let (from, to) = seeds.split_once("..").unwrap_or((&seeds, ""));
    let from: u64 = from.parse().unwrap();
    for seed in from..to.parse().unwrap_or(from + 1) {
        run(seed).await;
    }
}
