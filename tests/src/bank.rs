//! The load that shows a torn, lost or doubled transaction: transfers between accounts (the sum is constant), a version
//! per row, and one `txlog` row per transaction, some transactions rolled back, some with a rolled-back savepoint.

use crate::pg::{Pg, difference};
use anyhow::{Context, Result, ensure};
use catchwater_base::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

pub const START_BALANCE: i64 = 1000;
/// One in so many transactions touches every account, of banks up to this size.
const WIDE_PPM: u32 = 1000;
const WIDE_ACCOUNTS_MAX: u32 = 1000;

/// Tables and the first rows.
pub fn create(pg: &Pg, accounts: u32) -> Result<()> {
    pg.run(&format!(
        "CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL, version bigint NOT NULL, note text);
         CREATE TABLE txlog (txid bigint PRIMARY KEY, writer int NOT NULL, n_rows int NOT NULL);
         INSERT INTO txlog VALUES (0, 0, 1);
         INSERT INTO accounts SELECT i, {START_BALANCE}, 0, 'account ' || i FROM generate_series(1, {accounts}) i;"
    ))
}

/// Options of the source's block by seed: `streaming`, `binary`, both or none. With the first, a transaction above 64 kB is
/// streamed ([`small_memory`]).
pub fn options(seed: u64) -> String {
    let set = |bit: u64, text: &str| if seed >> bit & 1 == 1 { text.to_owned() } else { String::new() };
    set(0, ", streaming: on") + &set(1, ", binary: true")
}

/// The server holds 64 kB of a transaction, its least, before it streams or spills it.
pub fn small_memory(at: &crate::pg::Database) -> Result<()> {
    at.pg.run(&format!("ALTER DATABASE {} SET logical_decoding_work_mem = '64kB'", at.name()))
}

/// A transaction that touches every account and changes no balance.
pub fn wide(pg: &Pg, accounts: u32, writer: u32, txid: u64) -> Result<()> {
    let rows = accounts + 1;
    // In the order of the keys, so that it seldom meets another in a deadlock, which would only be a rollback.
    pg.run(&format!(
        "BEGIN; SELECT 1 FROM accounts ORDER BY id FOR UPDATE; UPDATE accounts SET version = version + 1;
         INSERT INTO txlog VALUES ({txid}, {writer}, {rows}); COMMIT"
    ))
}

/// One transfer in one transaction. Rolled back ones leave nothing.
pub fn transfer(pg: &Pg, rng: &mut Rng, accounts: u32, writer: u32, txid: u64) -> Result<()> {
    let from = rng.between(1, u64::from(accounts));
    let to = rng.between(1, u64::from(accounts));
    let amount = rng.below(100);
    // Locks in one order, so that writers do not deadlock; a deadlock would only be a rollback.
    let (first, second) = (from.min(to), from.max(to));
    let change = |id: u64| if id == from { -(amount as i64) } else { amount as i64 };
    let mut sql = String::from("BEGIN;");
    let mut rows = 1;
    for id in if first == second { vec![] } else { vec![first, second] } {
        sql.push_str(&format!(
            "UPDATE accounts SET balance = balance + ({}), version = version + 1 WHERE id = {id};",
            change(id)
        ));
        rows += 1;
    }
    if rng.chance(100_000) {
        sql.push_str(&format!("SAVEPOINT s; UPDATE accounts SET balance = 0 WHERE id = {first}; ROLLBACK TO s;"));
    }
    sql.push_str(&format!("INSERT INTO txlog VALUES ({txid}, {writer}, {rows});"));
    sql.push_str(if rng.chance(100_000) { "ROLLBACK" } else { "COMMIT" });
    pg.run(&sql)
}

/// Writers that run until they are stopped.
pub struct Writers {
    stop: Arc<AtomicBool>,
    next: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    pub fn start(url: &str, accounts: u32, count: u32, seed: u64) -> Writers {
        let (stop, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(1)));
        let threads = (0..count)
            .map(|writer| {
                let (stop, next, url) = (Arc::clone(&stop), Arc::clone(&next), url.to_owned());
                std::thread::spawn(move || {
                    let mut rng = Rng::new(seed ^ (u64::from(writer) << 40));
                    let Ok(mut pg) = Pg::connect(&url) else { return };
                    while !stop.load(Ordering::Relaxed) {
                        let txid = next.fetch_add(1, Ordering::Relaxed);
                        let done = match accounts <= WIDE_ACCOUNTS_MAX && rng.chance(WIDE_PPM) {
                            true => wide(&pg, accounts, writer, txid),
                            false => transfer(&pg, &mut rng, accounts, writer, txid),
                        };
                        if done.is_err() {
                            // Without an answer the connection is gone, with a server that crashed perhaps.
                            while pg.run("ROLLBACK").is_err() && !stop.load(Ordering::Relaxed) {
                                std::thread::sleep(std::time::Duration::from_millis(20));
                                if let Ok(again) = Pg::connect(&url) {
                                    pg = again;
                                }
                            }
                        }
                        // About a thousand transactions a second and writer at most: the machine is shared.
                        std::thread::sleep(std::time::Duration::from_millis(1));
                    }
                })
            })
            .collect();
        Writers { stop, next, threads }
    }

    /// Transactions begun so far.
    pub fn begun(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    pub fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for t in self.threads {
            let _ = t.join();
        }
        self.next.load(Ordering::Relaxed)
    }
}

/// Looks at the target. Before the first row there is no table, or an empty one; from then on each look must show all
/// accounts with the right sum: anything else never existed. That holds inside the first snapshot, too.
#[derive(Debug, Default)]
pub struct Watch {
    complete: bool,
}

impl Watch {
    pub fn look(&mut self, target: &Pg, accounts: u32) -> Result<()> {
        let exists = target.one("SELECT to_regclass('public.accounts')")?;
        if exists.is_empty() {
            ensure!(!self.complete, "the table is gone");
            return Ok(());
        }
        let row = target.rows("SELECT count(*), coalesce(sum(balance), 0) FROM accounts")?;
        let cell = |i: usize| row.first().and_then(|r| r.get(i).cloned().flatten()).unwrap_or_default();
        let (count, sum) = (cell(0), cell(1));
        if count == "0" && !self.complete {
            return Ok(());
        }
        let want = i64::from(accounts) * START_BALANCE;
        ensure!(
            count == accounts.to_string() && sum == want.to_string(),
            "target shows {count} accounts with sum {sum}, never {accounts} with {want}"
        );
        self.complete = true;
        Ok(())
    }

    /// Was the whole snapshot ever seen?
    pub fn complete(&self) -> bool {
        self.complete
    }
}

/// Empty when the target equals the source, both tables, both ways.
pub fn missing(source: &Pg, target: &Pg) -> String {
    for table in ["accounts", "txlog"] {
        let d = difference(source, table, target, table);
        if !d.is_empty() {
            return format!("{table}: {d}");
        }
    }
    String::new()
}

/// Reads `txlog`'s topic with kcat: each committed transaction is in it exactly once.
pub fn check_transactions(kafka: &str, source: &Pg, prefix: &str) -> Result<()> {
    let committed: BTreeSet<String> =
        source.rows("SELECT txid FROM txlog")?.into_iter().filter_map(|r| r.into_iter().next().flatten()).collect();
    let mut seen = BTreeSet::new();
    for record in read_topic(kafka, &format!("{prefix}.public.txlog"))? {
        if record.is_null() {
            continue;
        }
        let txid = record["after"]["txid"].to_string();
        ensure!(committed.contains(&txid), "transaction {txid} was never committed and is in the topic");
        ensure!(seen.insert(txid.clone()), "transaction {txid} is in the topic twice");
    }
    let lost: Vec<&String> = committed.difference(&seen).take(5).collect();
    ensure!(lost.is_empty(), "{} committed transactions are not in the topic: {lost:?}", committed.len() - seen.len());
    Ok(())
}

/// Reads both topics with kcat and checks: each committed transaction exactly once, versions of each account without hole
/// or repeat and in order.
pub fn check_topics(kafka: &str, source: &Pg, prefix: &str) -> Result<()> {
    check_transactions(kafka, source, prefix)?;
    let mut versions: BTreeMap<String, i64> = BTreeMap::new();
    for record in read_topic(kafka, &format!("{prefix}.public.accounts"))? {
        let (id, version) =
            (record["after"]["id"].to_string(), record["after"]["version"].as_i64().context("version")?);
        let before = versions.insert(id.clone(), version);
        match (record["op"].as_str(), before) {
            (Some("r"), None) => {}
            (Some("u"), Some(b)) => ensure!(version == b + 1, "account {id}: version {version} follows {b}"),
            // A snapshot row that the stream overtook, or the reverse, is one of ours only if it moves forward.
            (Some("u"), None) => {}
            (op, b) => anyhow::bail!("account {id}: op {op:?} version {version} follows {b:?}"),
        }
    }
    for row in source.rows("SELECT id, version FROM accounts")? {
        let (Some(id), Some(version)) = (row[0].clone(), row[1].clone()) else { continue };
        ensure!(
            versions.get(&id).map(i64::to_string) == Some(version.clone()),
            "account {id}: the topic ends at {:?}, the table at {version}",
            versions.get(&id)
        );
    }
    Ok(())
}

/// Values of a topic as JSON, read by kcat; a tombstone is null.
pub fn read_topic(kafka: &str, topic: &str) -> Result<Vec<serde_json::Value>> {
    let out = Command::new("timeout")
        .args(["60", "kcat", "-b", kafka, "-C", "-t", topic, "-o", "beginning", "-e", "-q", "-J"])
        .output()
        .context("kcat")?;
    ensure!(out.status.success(), "kcat: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout)
        .lines()
        .map(|line| {
            let record: serde_json::Value = serde_json::from_str(line).context("kcat's line")?;
            match record["payload"].as_str() {
                None => Ok(serde_json::Value::Null),
                Some(payload) => serde_json::from_str(payload).context("the value"),
            }
        })
        .collect()
}

/// A pipeline of the bank's two tables between two databases. The source's name is part of the slot's, and slots are
/// one name space per server: so it is the database's.
pub fn pipeline(source: &crate::pg::Database, target: &crate::pg::Database) -> String {
    pipeline_with(source, target, "")
}

/// With more options in the source's block.
pub fn pipeline_with(source: &crate::pg::Database, target: &crate::pg::Database, options: &str) -> String {
    let (name, source, target) = (source.name(), source.url(), target.url());
    format!(
        "version: 1\npipeline: bank\nsources:\n  {name}:\n    postgres: {{ url: \"{source}\", tables: [accounts, txlog]{options} }}\nsinks:\n  copy:\n    from: {name}\n    postgres: {{ url: \"{target}\" }}\n"
    )
}
