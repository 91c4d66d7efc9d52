//! Rows that give way: the source checked a unique key at its commit, the target checks it at each row.
//!
//! Two rows that swap a value of a second unique key, or a longer chain, cannot be written one after the other into a key
//! that is not `DEFERRABLE`. Where a group failed by that, it is written once more, and before each row the one that holds its
//! value is looked for: if a later row of the group writes that one's key anew, it gets another value until then, NULL where
//! the column takes it, or one that nobody has. A row that nothing later writes keeps its value, and the row that
//! wants it is refused as ever. Columns are changed, never rows removed, so that foreign keys (cascades, too) that point to
//! the row stay as they are; where no column can be given another value and nothing refers to the table, the row goes
//! until it is written anew.

use super::texts::{cell_text, is_sent, key_targets, key_texts, missing_mask, moves_key};
use super::{Columns, Hits, PgLane, Step, TargetColumn};
use crate::config::quote_ident;
use crate::sink::error::{misuse, row_fault};
use crate::sink::sql::{self, Target, shown};
use catchwater_change::Row;
use catchwater_deliver::sink::{Apply, SinkError, TargetPlan, What};

/// Of a table: unique keys but the primary one, that are checked at each row. Names of their columns.
pub(super) const UNIQUE_KEYS: &str = "SELECT array_agg(a.attname::text ORDER BY a.attname) FROM pg_index i \
     JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1]) \
     WHERE i.indrelid = $1::oid AND i.indisunique AND NOT i.indisprimary AND i.indimmediate AND i.indexprs IS NULL AND i.indislive \
     GROUP BY i.indexrelid ORDER BY 1";

/// A column of a unique key that gets another value, and which.
pub(super) struct Way {
    column: u16,
    value: String,
}

impl PgLane {
    /// One of the tables has a second unique key that is checked at each row.
    pub(super) fn has_unique(&self, applies: &[Apply]) -> bool {
        applies.iter().any(|a| self.targets.get(&a.table.target).is_some_and(|i| !i.unique.is_empty()))
    }

    /// Before the row of this place: whoever holds one of its unique values, and is written anew behind it, gives way.
    pub(super) async fn make_way(&mut self, applies: &[Apply], at: usize) -> Result<(), SinkError> {
        let apply = &applies[at];
        let (What::Upsert(row) | What::Update(row) | What::Insert(row) | What::InsertNew(row)) = &apply.what else {
            return Ok(());
        };
        let plan = &apply.table;
        let info = self.targets.get(&plan.target).cloned().ok_or_else(|| misuse("a target that was not read"))?;
        let targets = self.columns_of(plan)?;
        for names in &info.unique {
            let place = |n: &String| plan.columns.iter().position(|(_, c)| c == n).map(|p| p as u16);
            let Some(key) = names.iter().map(place).collect::<Option<Vec<u16>>>() else { continue };
            let texts: Vec<Option<String>> = key.iter().map(|c| cell_text(plan, row, *c)).collect();
            if texts.iter().any(Option::is_none) || !key.iter().all(|c| is_sent(plan, row, *c)) {
                continue;
            }
            let of: Vec<&Target> = key.iter().filter_map(|c| targets.get(usize::from(*c))).collect();
            let statement = self.prepare(&plan.target, &sql::exists(&plan.target, &of)).await.map_err(|f| f.error)?;
            let held = self.session.client.query_one(&statement, &one(texts.clone()).parameters()).await;
            let held = held.map_err(|e| row_fault(&self.config, &shown(&plan.target), e))?;
            if held.get::<_, bool>(0) {
                self.give_way(applies, at, plan, &targets, (&key, texts), &info.ways(plan, &targets, &key)).await?;
            }
        }
        Ok(())
    }

    async fn give_way(
        &mut self,
        applies: &[Apply],
        at: usize,
        plan: &TargetPlan,
        targets: &[Target],
        (key, texts): (&[u16], Vec<Option<String>>),
        way: &Ways,
    ) -> Result<(), SinkError> {
        let own = match &applies[at].what {
            What::Upsert(row) | What::Update(row) | What::InsertNew(row) => Some(key_texts(plan, row)?),
            _ => None,
        };
        let set = match way {
            Ways::Set(way) => Some(way.column),
            Ways::Remove => None,
            Ways::None => return Ok(()),
        };
        // Keys that are written anew behind this row, with the column that gives way.
        let mut later = Columns::new(plan.key.len());
        for (n, apply) in applies.iter().enumerate().skip(at + 1).filter(|(_, a)| a.table.target == plan.target) {
            let sets = |of: &TargetPlan, row: &Row| match set {
                Some(column) => {
                    let name = plan.columns.get(usize::from(column)).map(|(_, n)| n);
                    let there = of.columns.iter().position(|(_, n)| Some(n) == name);
                    there.is_some_and(|c| is_sent(of, row, c as u16))
                }
                None => missing_mask(of, row).is_none(),
            };
            let row = match &apply.what {
                What::Upsert(row) if sets(&apply.table, row) => row,
                What::Update(row) if set.is_some() && sets(&apply.table, row) => row,
                // A row that moves to another key takes along what was not sent.
                What::Delete(row) => match applies.get(n + 1).filter(|next| moves_key(apply, next)).map(|a| &a.what) {
                    Some(What::Update(new) | What::Upsert(new)) if !sets(&applies[n + 1].table, new) => continue,
                    _ => row,
                },
                _ => continue,
            };
            let texts = key_texts(&apply.table, row)?;
            if Some(&texts) != own.as_ref() {
                later.push(texts);
            }
        }
        if later.rows == 0 {
            return Ok(());
        }
        let table = sql::quoted(&plan.target);
        let do_it = match way {
            Ways::Set(Way { column, value }) => {
                let name = quote_ident(&plan.columns.get(usize::from(*column)).ok_or_else(|| misuse("no column"))?.1);
                format!("UPDATE {table} AS t SET {name} = {}", value.replace("{c}", &name).replace("{t}", &table))
            }
            _ => format!("DELETE FROM {table} AS t"),
        };
        let of: Vec<&Target> = key.iter().filter_map(|c| targets.get(usize::from(*c))).collect();
        let text = sql::holder(&do_it, &of, &key_targets(plan, targets));
        let mut columns = Columns { arrays: texts.into_iter().map(|t| vec![t]).collect(), rows: 1 };
        columns.arrays.append(&mut later.arrays);
        let step = Step { table: plan.target.clone(), sql: text, columns, hits: Hits::Any };
        self.run_window(vec![step]).await.map_err(|(_, e)| e)
    }
}

fn one(texts: Vec<Option<String>>) -> Columns {
    Columns { arrays: texts.into_iter().map(|t| vec![t]).collect(), rows: 1 }
}

/// How a row may give way.
pub(super) enum Ways {
    Set(Way),
    Remove,
    None,
}

impl super::TargetInfo {
    /// `key` = places of the unique key's columns. The key of the row, what is fixed and what foreign keys are made of stays
    /// where another column will do.
    fn ways(&self, plan: &TargetPlan, targets: &[Target], key: &[u16]) -> Ways {
        let usable = |c: &&u16| !plan.key.contains(c) && targets.get(usize::from(**c)).is_some_and(|t| !t.fixed);
        let of = |c: u16| plan.columns.get(usize::from(c)).and_then(|(_, n)| self.columns.get(n));
        let found = key.iter().filter(usable).filter_map(|c| Some((*c, of(*c)?)));
        let mut found: Vec<(u16, &TargetColumn)> = found.collect();
        found.sort_by_key(|(_, column)| column.not_null);
        for (c, column) in found {
            if let Some(value) = column.free_value() {
                return Ways::Set(Way { column: c, value });
            }
        }
        if self.referred { Ways::None } else { Ways::Remove }
    }
}

impl TargetColumn {
    /// An expression for a value that no other row has; `{c}` = the column, `{t}` = the table.
    fn free_value(&self) -> Option<String> {
        if !self.not_null {
            return Some("NULL".into());
        }
        const RANDOM: &str = "md5(random()::text || clock_timestamp()::text)";
        let above = |most: &str, least: &str| {
            format!(
                "(SELECT CASE WHEN max({{c}}) < {most} THEN max({{c}}) + 1 ELSE least(min({{c}}), {least}) - 1 END FROM {{t}})"
            )
        };
        Some(match self.base.as_str() {
            "int2" => above("32767", "0::int2")
                .replace("SELECT CASE", "SELECT (CASE")
                .replace(" END FROM", " END)::int2 FROM"),
            "int4" => above("2147483647", "0"),
            "int8" => above("9223372036854775807", "0"),
            "numeric" => "(SELECT floor(max({c})) + 1 FROM {t})".into(),
            "text" | "varchar" | "bpchar" | "citext" => match self.length {
                Some(n) => format!("left({RANDOM}, {n})"),
                None => RANDOM.into(),
            },
            "uuid" => "gen_random_uuid()".into(),
            "bytea" => format!("decode({RANDOM}, 'hex')"),
            "date" => "(SELECT max({c}) + 1 FROM {t})".into(),
            "timestamp" | "timestamptz" => "(SELECT max({c}) + interval '1 second' FROM {t})".into(),
            "float4" | "float8" => "(-1e6 * (1 + random()))".into(),
            _ => return None,
        })
    }
}

/// A table's unique keys as [`UNIQUE_KEYS`] gives them.
pub(super) fn unique_keys(rows: &[tokio_postgres::Row]) -> Vec<Vec<String>> {
    rows.iter().map(|r| r.get(0)).collect()
}
