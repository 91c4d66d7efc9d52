//! PostgreSQL → PostgreSQL from a log that is full already: how fast a sink applies inserts and updates to two tables with
//! a foreign key and second unique keys. Each round fills a log once and drains it by each number of lanes in turn.

use crate::{drained, median, setting, task_rows};
use anyhow::{Result, bail};
use catchwater_tests::dev::Dev;
use catchwater_tests::pg::{Database, Pg, difference};
use serde_json::{Value, json};
use std::time::Duration;

fn tables(pg: &Pg, keys: &str) -> Result<()> {
    pg.run(&format!(
        "CREATE TABLE customers (id int PRIMARY KEY, code text NOT NULL UNIQUE, name text, city text, since timestamptz);
         CREATE TABLE orders (id int PRIMARY KEY, customer int NOT NULL {keys}, ref text NOT NULL UNIQUE, amount numeric(12,2),
           state text, note text, at timestamptz, n bigint)"
    ))
}

/// Twenty rows a transaction: one customer, nine orders, ten updates of orders anywhere in the table.
fn fill(pg: &Pg, transactions: u64) -> Result<()> {
    // Plans made while the tables were empty would read all of them for each update.
    pg.run("SET enable_seqscan = off")?;
    pg.run(&format!(
        "DO $$ BEGIN FOR t IN 1..{transactions} LOOP
           INSERT INTO customers VALUES (t, 'c' || t, 'customer number ' || t, 'city ' || t % 100, now());
           INSERT INTO orders SELECT t * 9 + i, 1 + (t * 7 + i) % t, 'r' || t * 9 + i, i * 1.25, 'new', 'a note of some length', now(), i
             FROM generate_series(0, 8) i;
           UPDATE orders SET amount = amount + 1, state = 'paid', n = t
             WHERE id IN (SELECT 9 + (random() * (t * 9 - 1))::int FROM generate_series(1, 10));
           COMMIT;
         END LOOP; END $$"
    ))
}

pub fn upserts() -> Result<Value> {
    let transactions = setting("CW_TXNS", 20_000);
    let lanes: Vec<u64> =
        std::env::var("CW_LANES").unwrap_or_else(|_| "1,4".into()).split(',').filter_map(|l| l.parse().ok()).collect();
    let batch = setting("CW_BATCH", 10_000);
    let mut of: Vec<(Vec<f64>, Vec<f64>)> = lanes.iter().map(|_| Default::default()).collect();
    let mut rows = 0;
    for _ in 0..setting("CW_ROUNDS", 3) {
        let Some(a) = Database::create("pg15", "upserts") else { bail!("no server") };
        tables(&a.pg, "")?;
        let source = format!(
            "version: 1\npipeline: b\nsources:\n  s:\n    postgres: {{ url: \"{}\", tables: [customers, orders] }}\n",
            a.url()
        );
        let mut dev = Dev::new(&source);
        dev.start()?;
        fill(&a.pg, transactions)?;
        // One row says that all before it is there.
        a.pg.run("INSERT INTO customers VALUES (0, 'last', '', '', now())")?;
        let mut before = 0;
        loop {
            let n = task_rows(&dev, "source");
            if n > 10 * transactions && n == before {
                break;
            }
            before = n;
            std::thread::sleep(Duration::from_millis(500));
        }
        rows = before;
        dev.stop()?;
        for (n, (speed, cpu)) in lanes.iter().zip(&mut of) {
            let Some(b) = Database::create("pg15", "upserts_to") else { bail!("no server") };
            tables(&b.pg, "REFERENCES customers DEFERRABLE")?;
            let sink = format!(
                "{source}sinks:\n  k{n}:\n    from: s\n    postgres: {{ url: \"{}\" }}\n    apply: {{ lanes: {n} }}\n    batch: {{ rows: {batch} }}\n",
                b.url()
            );
            std::fs::write(dev.folder().join("pipeline.yaml"), sink)?;
            dev.start()?;
            let (fast, used) = drained(&dev, "sink", rows)?;
            speed.push(fast);
            cpu.push(used);
            for table in ["customers", "orders"] {
                let d = difference(&a.pg, table, &b.pg, table);
                anyhow::ensure!(d.is_empty(), "{d}");
            }
            dev.stop()?;
        }
    }
    let each: Vec<Value> = lanes
        .iter()
        .zip(of)
        .map(|(n, (speed, cpu))| json!({"lanes": n, "rows_per_s": median(speed), "cpu_us_per_row": median(cpu)}))
        .collect();
    Ok(json!({ "bench": "upserts", "rows": rows, "batch": batch, "each": each }))
}
