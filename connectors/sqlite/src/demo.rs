//! The demo shop of `catchwater dev`: a SQLite database with customers, orders and items, and a writer that goes on
//! changing it at a bounded rate, several rows per transaction.
//!
//! Invariant, in every committed state: the total of an order is the sum of its items (`check`). A copy in which it does
//! not hold was shown half a transaction.

use catchwater_base::Rng;
use catchwater_runtime::thread;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const SCHEMA: &str = "
CREATE TABLE customers(
  id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL UNIQUE, city TEXT, created_at TEXT NOT NULL);
CREATE TABLE orders(
  id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customers(id), status TEXT NOT NULL,
  total_cents INTEGER NOT NULL, placed_at TEXT NOT NULL);
CREATE TABLE items(
  id INTEGER PRIMARY KEY, order_id INTEGER NOT NULL REFERENCES orders(id) ON DELETE CASCADE,
  product TEXT NOT NULL, quantity INTEGER NOT NULL, price_cents INTEGER NOT NULL);
CREATE INDEX orders_customer ON orders(customer_id);
CREATE INDEX items_order ON items(order_id);
";

/// The demo's tables, parents first.
pub const TABLES: [&str; 3] = ["customers", "orders", "items"];

const CUSTOMERS: u64 = 40;
const ORDERS: u64 = 120;
/// Above this the oldest order goes when a new one comes, so the demo can run for days.
const ORDERS_MAX: i64 = 1_000;
const CUSTOMERS_MAX: i64 = 500;

const FIRST: [&str; 20] = [
    "Ada", "Ben", "Chloé", "Dmitri", "Elif", "Fatima", "Goran", "Hana", "Ingrid", "João", "Kenji", "Leila", "Marta",
    "Nils", "Olga", "Paul", "Quynh", "Rosa", "Søren", "Zoë",
];
const LAST: [&str; 16] = [
    "Abebe",
    "Bauer",
    "Costa",
    "Dubois",
    "Eriksen",
    "Fischer",
    "García",
    "Haddad",
    "Ivanova",
    "Jansen",
    "Kowalski",
    "Lindqvist",
    "Müller",
    "Novák",
    "O'Brien",
    "Yılmaz",
];
const CITIES: [&str; 10] =
    ["Lisboa", "Zürich", "Wien", "København", "Göteborg", "Łódź", "Ankara", "Lyon", "Porto", "Hamburg"];
const PRODUCTS: [(&str, i64); 12] = [
    ("espresso beans 1 kg", 1890),
    ("filter papers", 450),
    ("moka pot", 3290),
    ("hand grinder", 5900),
    ("kettle 0.8 l", 4490),
    ("green tea 250 g", 1290),
    ("cup, blue", 990),
    ("cup, white", 990),
    ("scale 0.1 g", 2490),
    ("milk jug", 1690),
    ("cleaning brush", 590),
    ("gift box", 790),
];
const STATUS: [&str; 4] = ["placed", "paid", "shipped", "delivered"];

#[derive(Debug, thiserror::Error)]
#[error("demo shop: {0}")]
pub struct DemoError(String);

impl From<rusqlite::Error> for DemoError {
    fn from(e: rusqlite::Error) -> Self {
        DemoError(crate::fault::text(&e))
    }
}

/// What a shop holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Totals {
    pub customers: i64,
    pub orders: i64,
    pub items: i64,
    /// Orders whose total is not the sum of their items, and items without an order.
    pub broken: i64,
}

fn connect(file: &Path) -> Result<Connection, DemoError> {
    let db = Connection::open(file)?;
    db.busy_timeout(Duration::from_secs(5))?;
    db.pragma_update(None, "synchronous", "NORMAL")?;
    db.set_prepared_statement_cache_capacity(32);
    Ok(db)
}

/// Makes the shop with its first customers and orders. The file must not exist.
pub fn make_shop(file: &Path, seed: u64) -> Result<(), DemoError> {
    if file.exists() {
        return Err(DemoError(format!("{} exists", file.display())));
    }
    let mut db = connect(file)?;
    db.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    let mut rng = Rng::new(seed);
    let tx = db.transaction()?;
    tx.execute_batch(SCHEMA)?;
    for _ in 0..CUSTOMERS {
        new_customer(&tx, &mut rng)?;
    }
    for _ in 0..ORDERS {
        place_order(&tx, &mut rng)?;
    }
    tx.commit()?;
    Ok(())
}

/// Counts the rows and checks the invariant, in one view. Works on the shop and on any copy of it.
pub fn check(file: &Path) -> Result<Totals, DemoError> {
    let db = connect(file)?;
    Ok(db.query_row(
        "SELECT (SELECT count(*) FROM customers), (SELECT count(*) FROM orders), (SELECT count(*) FROM items),
           (SELECT count(*) FROM orders o WHERE total_cents <>
             (SELECT coalesce(sum(quantity * price_cents), 0) FROM items i WHERE i.order_id = o.id))
         + (SELECT count(*) FROM items i WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.id = i.order_id))",
        [],
        |r| Ok(Totals { customers: r.get(0)?, orders: r.get(1)?, items: r.get(2)?, broken: r.get(3)? }),
    )?)
}

/// Goes on changing a shop until it is stopped or dropped.
pub struct ShopWriter {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl ShopWriter {
    /// At most `per_second` transactions a second; when the database is held by others it waits and goes on.
    pub fn start(file: &Path, per_second: u32, seed: u64) -> Result<ShopWriter, DemoError> {
        let mut db = connect(file)?;
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let pause = Duration::from_micros(1_000_000 / u64::from(per_second.clamp(1, 10_000)));
        let (stopped, count) = (stop.clone(), done.clone());
        let thread = thread::spawn("demo-writer", move || {
            let mut rng = Rng::new(seed);
            while !stopped.load(Ordering::Relaxed) {
                if change(&mut db, &mut rng).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                // Woken early by `stop`.
                std::thread::park_timeout(pause);
            }
        })
        .map_err(|e| DemoError(format!("start a thread: {e}")))?;
        Ok(ShopWriter { stop, done, thread: Some(thread) })
    }

    /// Transactions committed so far.
    pub fn transactions(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Ends the writer; its last transaction is whole. Blocks for at most one transaction.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Drop for ShopWriter {
    fn drop(&mut self) {
        self.end();
    }
}

/// One transaction of the shop's life.
fn change(db: &mut Connection, rng: &mut Rng) -> Result<(), DemoError> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    match rng.below(20) {
        0..=6 => place_order(&tx, rng)?,
        7..=13 => move_order(&tx, rng)?,
        14..=16 => change_quantity(&tx, rng)?,
        17 => cancel_order(&tx, rng)?,
        18 => new_customer(&tx, rng)?,
        _ => move_customer(&tx, rng)?,
    }
    tx.commit()?;
    Ok(())
}

fn pick<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from.get(rng.below(from.len() as u64) as usize).copied().unwrap_or_default()
}

/// A random row's id.
fn any(tx: &Transaction<'_>, table: &str, rng: &mut Rng) -> Result<Option<i64>, DemoError> {
    let max: Option<i64> = tx.query_row(&format!("SELECT max(id) FROM {table}"), [], |r| r.get(0))?;
    let from = rng.below(max.unwrap_or(0) as u64 + 1) as i64;
    let sql = format!("SELECT id FROM {table} WHERE id >= ?1 ORDER BY id LIMIT 1");
    Ok(tx.prepare_cached(&sql)?.query_row([from], |r| r.get(0)).optional()?)
}

fn new_customer(tx: &Transaction<'_>, rng: &mut Rng) -> Result<(), DemoError> {
    let count: i64 = tx.query_row("SELECT count(*) FROM customers", [], |r| r.get(0))?;
    if count >= CUSTOMERS_MAX {
        return move_customer(tx, rng);
    }
    let (first, last, city) = (pick(rng, &FIRST), pick(rng, &LAST), pick(rng, &CITIES));
    let number: i64 = tx.query_row("SELECT coalesce(max(id), 0) + 1 FROM customers", [], |r| r.get(0))?;
    let mail: String = format!("{first}.{last}").chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.').collect();
    tx.prepare_cached("INSERT INTO customers VALUES (?1, ?2, ?3, ?4, strftime('%Y-%m-%d %H:%M:%f', 'now'))")?.execute(
        params![
            number,
            format!("{first} {last}"),
            format!("{}{number}@example.com", mail.to_lowercase()),
            rng.chance(900_000).then_some(city)
        ],
    )?;
    Ok(())
}

fn move_customer(tx: &Transaction<'_>, rng: &mut Rng) -> Result<(), DemoError> {
    if let Some(id) = any(tx, "customers", rng)? {
        tx.prepare_cached("UPDATE customers SET city = ?2 WHERE id = ?1")?.execute(params![id, pick(rng, &CITIES)])?;
    }
    Ok(())
}

fn place_order(tx: &Transaction<'_>, rng: &mut Rng) -> Result<(), DemoError> {
    let count: i64 = tx.query_row("SELECT count(*) FROM orders", [], |r| r.get(0))?;
    if count >= ORDERS_MAX {
        tx.execute("DELETE FROM orders WHERE id = (SELECT min(id) FROM orders)", [])?;
    }
    let Some(customer) = any(tx, "customers", rng)? else { return Ok(()) };
    tx.prepare_cached("INSERT INTO orders(customer_id, status, total_cents, placed_at) VALUES (?1, ?2, 0, strftime('%Y-%m-%d %H:%M:%f', 'now'))")?
        .execute(params![customer, STATUS[0]])?;
    let order = tx.last_insert_rowid();
    for _ in 0..rng.between(1, 4) {
        let (product, price) = PRODUCTS[rng.below(PRODUCTS.len() as u64) as usize];
        tx.prepare_cached("INSERT INTO items(order_id, product, quantity, price_cents) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![order, product, rng.between(1, 5) as i64, price])?;
    }
    total(tx, order)
}

/// Sets an order's total to the sum of its items.
fn total(tx: &Transaction<'_>, order: i64) -> Result<(), DemoError> {
    tx.prepare_cached(
        "UPDATE orders SET total_cents = (SELECT coalesce(sum(quantity * price_cents), 0) FROM items WHERE order_id = ?1) WHERE id = ?1",
    )?
    .execute([order])?;
    Ok(())
}

fn move_order(tx: &Transaction<'_>, rng: &mut Rng) -> Result<(), DemoError> {
    let Some(order) = any(tx, "orders", rng)? else { return Ok(()) };
    tx.prepare_cached(
        "UPDATE orders SET status = CASE status WHEN 'placed' THEN 'paid' WHEN 'paid' THEN 'shipped' ELSE 'delivered' END WHERE id = ?1",
    )?
    .execute([order])?;
    Ok(())
}

fn change_quantity(tx: &Transaction<'_>, rng: &mut Rng) -> Result<(), DemoError> {
    let Some(item) = any(tx, "items", rng)? else { return Ok(()) };
    tx.prepare_cached("UPDATE items SET quantity = ?2 WHERE id = ?1")?
        .execute(params![item, rng.between(1, 9) as i64])?;
    let order: i64 = tx.query_row("SELECT order_id FROM items WHERE id = ?1", [item], |r| r.get(0))?;
    total(tx, order)
}

fn cancel_order(tx: &Transaction<'_>, rng: &mut Rng) -> Result<(), DemoError> {
    if let Some(order) = any(tx, "orders", rng)? {
        // Its items go by the foreign key.
        tx.prepare_cached("DELETE FROM orders WHERE id = ?1")?.execute([order])?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::sink::tests::Dir;

    #[test]
    fn the_shop_stays_whole_and_bounded() {
        let dir = Dir::new("demo");
        let file = dir.0.join("shop.db");
        make_shop(&file, 1).unwrap();
        assert!(make_shop(&file, 1).is_err(), "an existing file is never overwritten");
        let before = check(&file).unwrap();
        assert_eq!((before.customers, before.orders, before.broken), (40, 120, 0));
        let mut db = connect(&file).unwrap();
        let mut rng = Rng::new(2);
        for _ in 0..500 {
            change(&mut db, &mut rng).unwrap();
        }
        let after = check(&file).unwrap();
        assert_eq!(after.broken, 0);
        assert!(after.orders > 120 && after.orders <= ORDERS_MAX && after.customers > 40);
        let writer = ShopWriter::start(&file, 1000, 3).unwrap();
        while writer.transactions() < 5 {
            std::thread::yield_now();
        }
        writer.stop();
        assert_eq!(check(&file).unwrap().broken, 0);
        db.execute("UPDATE items SET quantity = quantity + 1 WHERE id = (SELECT min(id) FROM items)", []).unwrap();
        assert_eq!(check(&file).unwrap().broken, 1, "the check sees a torn transaction");
    }
}
