//! Pure. The statements that write rows. All values are text arrays with a cast per column (one plan for any number of
//! rows, no second road for arrays, composites, enums); names come in quoted, casts come from the target's own catalogue.

use crate::config::quote_ident;
use catchwater_deliver::sink::TargetName;

/// A column of a target: its name and the type a text is cast to, as the target prints it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    pub name: String,
    pub cast: String,
    /// GENERATED ALWAYS AS IDENTITY: an insert may set it, an update never.
    pub fixed: bool,
    /// Its type's oid.
    pub native: u32,
}

/// How COPY's rows look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CopyForm {
    Text,
    Binary,
}

/// Schema of a target; without one it is `public`.
pub fn schema_of(name: &TargetName) -> &str {
    if name.schema.is_empty() { "public" } else { &name.schema }
}

pub fn quoted(name: &TargetName) -> String {
    format!("{}.{}", quote_ident(schema_of(name)), quote_ident(&name.name))
}

/// `schema.name`, for messages.
pub fn shown(name: &TargetName) -> String {
    format!("{}.{}", schema_of(name), name.name)
}

fn list(of: impl Iterator<Item = String>) -> String {
    of.collect::<Vec<_>>().join(", ")
}

/// `unnest($1::text[], $2::text[]) AS u(c0, c1)`.
fn unnest(count: usize, first: usize) -> String {
    let arrays = list((0..count).map(|i| format!("${}::text[]", i + first)));
    let names = list((0..count).map(|i| format!("c{i}")));
    format!("unnest({arrays}) AS u({names})")
}

/// The text of column `i` as the target's type. `regclass` alone has a cast from text that is not its input function: it
/// does not know `-`, the printed form of 0.
fn cast(i: usize, column: &Target) -> String {
    if column.cast == "regclass" {
        return format!("(CASE u.c{i} WHEN '-' THEN 0::oid::regclass ELSE nullif(u.c{i}, '-')::regclass END)");
    }
    format!("u.c{i}::{}", column.cast)
}

/// What an insert does with a key that is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meets {
    Replace,
    Keep,
}

/// Rows in the order of `columns`; without a key a plain insert.
pub fn insert(table: &TargetName, columns: &[Target], key: &[u16]) -> String {
    insert_or(table, columns, key, Meets::Replace)
}

pub fn insert_or(table: &TargetName, columns: &[Target], key: &[u16], meets: Meets) -> String {
    let names = list(columns.iter().map(|c| quote_ident(&c.name)));
    let values = list(columns.iter().enumerate().map(|(i, c)| cast(i, c)));
    let mut sql = format!(
        "INSERT INTO {} ({names}) OVERRIDING SYSTEM VALUE SELECT {values} FROM {}",
        quoted(table),
        unnest(columns.len(), 1)
    );
    if !key.is_empty() {
        let keys = list(key.iter().map(|k| quote_ident(&columns[usize::from(*k)].name)));
        let others: Vec<&Target> = columns
            .iter()
            .enumerate()
            .filter(|(i, c)| !c.fixed && !key.contains(&(*i as u16)))
            .map(|(_, c)| c)
            .collect();
        if others.is_empty() || meets == Meets::Keep {
            sql.push_str(&format!(" ON CONFLICT ({keys}) DO NOTHING"));
        } else {
            let sets = list(others.iter().map(|c| format!("{0} = excluded.{0}", quote_ident(&c.name))));
            sql.push_str(&format!(" ON CONFLICT ({keys}) DO UPDATE SET {sets}"));
        }
    }
    sql
}

/// Arrays: the key's columns, then the set ones.
pub fn update(table: &TargetName, key: &[&Target], set: &[&Target]) -> String {
    let changed = set.iter().enumerate().filter(|(_, c)| !c.fixed);
    let mut sets = list(changed.map(|(i, c)| format!("{} = {}", quote_ident(&c.name), cast(i + key.len(), c))));
    if sets.is_empty() {
        // Nothing to set: the row still has to be there.
        sets = list(key.iter().map(|c| format!("{0} = t.{0}", quote_ident(&c.name))));
    }
    format!("UPDATE {} AS t SET {sets} FROM {} WHERE {}", quoted(table), unnest(key.len() + set.len(), 1), by_key(key))
}

/// Parameters: one array per set column, of one element. Every row that has NULL in all of them gets the values.
pub fn retire_all(table: &TargetName, set: &[&Target]) -> String {
    let sets = list(set.iter().enumerate().map(|(i, c)| format!("{} = {}", quote_ident(&c.name), cast(i, c))));
    let lives: Vec<String> = set.iter().map(|c| format!("t.{} IS NULL", quote_ident(&c.name))).collect();
    format!("UPDATE {} AS t SET {sets} FROM {} WHERE {}", quoted(table), unnest(set.len(), 1), lives.join(" AND "))
}

/// The rows follow, columns in this order.
pub fn copy(table: &TargetName, columns: &[Target], form: CopyForm) -> String {
    let with = match form {
        CopyForm::Text => "",
        CopyForm::Binary => " (FORMAT binary)",
    };
    format!("COPY {} ({}) FROM STDIN{with}", quoted(table), list(columns.iter().map(|c| quote_ident(&c.name))))
}

/// Arrays: the key's columns.
pub fn delete(table: &TargetName, key: &[&Target]) -> String {
    format!("DELETE FROM {} AS t USING {} WHERE {}", quoted(table), unnest(key.len(), 1), by_key(key))
}

fn by_key(key: &[&Target]) -> String {
    let terms: Vec<String> =
        key.iter().enumerate().map(|(i, c)| format!("t.{} = {}", quote_ident(&c.name), cast(i, c))).collect();
    terms.join(" AND ")
}

/// What is done (`UPDATE … AS t SET …`, `DELETE FROM … AS t`) to the row that holds this unique value, if its key is one of
/// these. Arrays: the value's columns, of one element each, then the key's.
pub fn holder(what: &str, value: &[&Target], key: &[&Target]) -> String {
    let arrays = |count: usize, first: usize| list((0..count).map(|i| format!("${}::text[]", i + first)));
    let names = |count: usize| list((0..count).map(|i| format!("c{i}")));
    let using = if what.starts_with("DELETE") { "USING" } else { "FROM" };
    format!(
        "{what} {using} unnest({}) AS u({}) WHERE {} AND EXISTS (SELECT 1 FROM unnest({}) AS u({}) WHERE {})",
        arrays(value.len(), 1),
        names(value.len()),
        by_key(value),
        arrays(key.len(), value.len() + 1),
        names(key.len()),
        by_key(key),
    )
}

/// Parameters (single texts): the key. Answers whether the row is there.
pub fn exists(table: &TargetName, key: &[&Target]) -> String {
    format!("SELECT EXISTS (SELECT 1 FROM {} AS t, {} WHERE {})", quoted(table), unnest(key.len(), 1), by_key(key))
}

/// A key change whose new row is not complete: arrays of the old key, then of the set columns.
pub fn rekey(table: &TargetName, key: &[&Target], set: &[&Target]) -> String {
    update(table, key, set)
}

/// One row equal to the given one, of a table without a key: arrays of one element each, in the order of `columns`.
/// Compared by text, because not every type has an equality (json, point), and text is exact.
pub fn delete_one(table: &TargetName, columns: &[Target]) -> String {
    let terms: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(i, c)| format!("r.{}::text IS NOT DISTINCT FROM {}::text", quote_ident(&c.name), cast(i, c)))
        .collect();
    let condition = if terms.is_empty() { "true".to_owned() } else { terms.join(" AND ") };
    let from = if columns.is_empty() { String::new() } else { format!(", {}", unnest(columns.len(), 1)) };
    // tableoid: a ctid alone names one row of each partition.
    format!(
        "DELETE FROM {0} AS t WHERE (t.tableoid, t.ctid) = (SELECT r.tableoid, r.ctid FROM {0} AS r{from} WHERE {condition} LIMIT 1)",
        quoted(table)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(name: &str, cast: &str) -> Target {
        Target { name: name.into(), cast: cast.into(), fixed: false, native: 0 }
    }

    #[test]
    fn statements() {
        let table = TargetName { schema: "s".into(), name: "T\"x".into() };
        let columns = [t("id", "bigint"), t("a", "text"), t("m", "s.mood")];
        let (id, a, m) = (&columns[0], &columns[1], &columns[2]);
        assert_eq!(
            insert(&table, &columns, &[0]),
            "INSERT INTO \"s\".\"T\"\"x\" (\"id\", \"a\", \"m\") OVERRIDING SYSTEM VALUE SELECT u.c0::bigint, u.c1::text, u.c2::s.mood \
             FROM unnest($1::text[], $2::text[], $3::text[]) AS u(c0, c1, c2) ON CONFLICT (\"id\") DO UPDATE SET \"a\" = excluded.\"a\", \"m\" = excluded.\"m\""
        );
        assert!(insert(&table, &columns[..1], &[0]).ends_with("ON CONFLICT (\"id\") DO NOTHING"));
        assert!(insert(&table, &columns, &[]).ends_with("AS u(c0, c1, c2)"));
        assert_eq!(
            update(&table, &[id], &[a, m]),
            "UPDATE \"s\".\"T\"\"x\" AS t SET \"a\" = u.c1::text, \"m\" = u.c2::s.mood \
             FROM unnest($1::text[], $2::text[], $3::text[]) AS u(c0, c1, c2) WHERE t.\"id\" = u.c0::bigint"
        );
        assert_eq!(
            delete(&table, &[id, a]),
            "DELETE FROM \"s\".\"T\"\"x\" AS t USING unnest($1::text[], $2::text[]) AS u(c0, c1) \
             WHERE t.\"id\" = u.c0::bigint AND t.\"a\" = u.c1::text"
        );
    }
}
