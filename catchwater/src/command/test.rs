//! `catchwater test FILE`: the tests that a pipeline file holds, by the code of its sinks, into a target in memory. Contacts
//! nothing.

use super::validate::load;
use crate::assemble::sink_config;
use crate::pipeline::offline::{self, Change, Expect, ExpectedRow, Given, Test, Wanted};
use crate::pipeline::{Options, Pipeline, tree};
use crate::report::{self, Done, Exit, Failure, Output};
use crate::rows::filter::{Literal, compare};
use crate::rows::{self, cell_line};
use catchwater_change::{Cell, Decimal, Op, Row, RowChange, SnapshotMark, SourceInfo, TableSchema, Type, Value};
use catchwater_deliver as deliver;
use catchwater_deliver::sink::TargetName;
use catchwater_deliver::testing::table;
use catchwater_deliver::trial::Trial;
use catchwater_record::{CaptureId, PipelineName, SinkName, SourceName};
use serde_json::{Value as Json, json};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// Characters of one value of a row that is shown.
const VALUE_CHARS_MAX: usize = 80;

type Shown = BTreeMap<String, Cell>;

/// One thing that is not as expected.
struct Wrong {
    line: usize,
    what: String,
}

pub async fn run(file: &Path, only: Option<&str>, output: Output) -> Result<Done, Failure> {
    let (pipeline, text, _) = load(file, Options { plain_secrets: true }, Output::Json).or_else(|mut f| {
        // Shown once, as `validate` shows it.
        if output == Output::Table {
            return load(file, Options { plain_secrets: true }, output);
        }
        f.shown = false;
        Err(f)
    })?;
    let name = file.display().to_string();
    let mut findings = Vec::new();
    let tests = match tree::parse(text.as_bytes()) {
        Ok((root, _)) => offline::read(&root, &pipeline, &mut findings),
        Err(_) => Vec::new(),
    };
    let (mut ran, mut failed, mut out, mut results) = (0, 0, String::new(), Vec::new());
    for test in tests.iter().filter(|t| only.is_none_or(|o| t.name.contains(o))) {
        ran += 1;
        let wrong = one(&pipeline, test).await;
        let ok = wrong.is_empty();
        failed += usize::from(!ok);
        out.push_str(&format!("{} {}\n", if ok { "ok    " } else { "FAILED" }, test.name));
        for w in &wrong {
            out.push_str(&format!("       {name}:{}: {}\n", w.line, w.what));
        }
        let wrong: Vec<Json> = wrong.iter().map(|w| json!({"line": w.line, "what": w.what})).collect();
        results.push(json!({"name": test.name, "line": test.line, "ok": ok, "wrong": wrong}));
    }
    let summary = format!("{ran} test(s), {} passed, {failed} failed", ran - failed);
    out.push_str(&format!("{summary}\n"));
    let result = json!({"file": name, "tests": results});
    if failed == 0 {
        return Ok(Done::new(summary, result, out));
    }
    if output == Output::Table {
        report::print(&out);
    }
    let mut failure = Failure::new(Exit::Runtime, "CW0352", format!("{name}: {failed} of {ran} tests failed"))
        .cause("see the lines below each of them")
        .next("correct the pipeline, or what the test expects");
    failure.details = Some(Box::new(result));
    Err(failure)
}

async fn one(pipeline: &Pipeline, test: &Test) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    let sinks: BTreeSet<&str> = test.expect.iter().map(|e| e.sink.as_str()).collect();
    for name in sinks {
        if let Err(w) = of_sink(pipeline, test, name, &mut wrong).await {
            wrong.push(w);
        }
    }
    wrong.sort_by_key(|w| w.line);
    wrong
}

/// What a failure of the sink says, at the line that led to it.
fn at(line: usize, f: deliver::Failure) -> Wrong {
    Wrong { line, what: format!("{}: {}; next: {}", f.code, f.what, f.next) }
}

async fn of_sink(pipeline: &Pipeline, test: &Test, name: &str, wrong: &mut Vec<Wrong>) -> Result<(), Wrong> {
    let Some(sink) = pipeline.sinks.get(name) else { return Ok(()) };
    let source = sink.source();
    let mut config = deliver::Config::new(
        PipelineName::from(pipeline.name.as_str()),
        SinkName::from(name),
        SourceName::from(source),
        CaptureId(1),
    );
    sink_config::fill(&mut config, sink, name, pipeline.sources.get(source))
        .map_err(|f| Wrong { line: test.line, what: format!("{}: {}", f.code, f.message) })?;
    let mut trial = Trial::new(config).await.map_err(|f| at(test.line, f))?;
    let mut tables: Vec<(TargetName, Arc<TableSchema>)> = Vec::new();
    let mut last = test.line;
    for (i, given) in test.given.iter().enumerate().filter(|(_, g)| g.source == source) {
        let schema = schema_of(given, u32::try_from(i).unwrap_or(0) + 1)?;
        let first = given.changes.first().map_or(test.line, |c| c.line);
        if let Some(target) = trial.table(&schema).await.map_err(|f| at(first, f))? {
            tables.push((target, schema.clone()));
        }
        for change in &given.changes {
            last = change.line;
            let row = row_change(change, &schema)?;
            trial.change(row).await.map_err(|f| at(change.line, f))?;
        }
    }
    trial.finish().await.map_err(|f| at(last, f))?;
    for expect in test.expect.iter().filter(|e| e.sink == name) {
        let names: Vec<&str> = tables.iter().map(|(t, _)| t.name.as_str()).collect();
        let found = match &expect.table {
            Some(table) => tables.iter().find(|(t, _)| t.name == *table),
            None if tables.len() == 1 => tables.first(),
            None => None,
        };
        let Some((target, _)) = found else {
            let what = match &expect.table {
                Some(t) => format!("sink {name} has no table {t} of what is given; it has: {}", names.join(", ")),
                None => format!("sink {name} has several tables, write {name}.TABLE: {}", names.join(", ")),
            };
            wrong.push(Wrong { line: expect.line, what });
            continue;
        };
        let table = trial.rows(target);
        let there: Vec<Shown> = table.rows.into_values().chain(table.bag).collect();
        judge(expect, &target.name, &there, wrong);
    }
    Ok(())
}

/// The table as what is given shows it: a column's type is the one that all of its values have.
fn schema_of(given: &Given, no: u32) -> Result<Arc<TableSchema>, Wrong> {
    let mut columns: Vec<(&str, Option<Type>)> = Vec::new();
    let rows = given.changes.iter().flat_map(|c| c.before.iter().chain(&c.after));
    for (name, cell) in rows.flatten() {
        let place = columns.iter().position(|(n, _)| n == name).unwrap_or_else(|| {
            columns.push((name, None));
            columns.len() - 1
        });
        let offline::Cell::Scalar { text, plain } = cell else { continue };
        let kind = kind_of(text, *plain);
        let known = &mut columns[place].1;
        *known = Some(match (known.take(), kind) {
            (None, kind) => kind,
            (Some(a), b) if a == b => a,
            (Some(a @ (Type::Int { .. } | Type::Decimal { .. })), Type::Int { .. } | Type::Decimal { .. }) => {
                if matches!(a, Type::Decimal { .. }) { a } else { DECIMAL }
            }
            _ => Type::Text { length: 0 },
        });
    }
    let key: Vec<&str> = match &given.key {
        Some(key) => key.iter().map(String::as_str).collect(),
        None => columns.iter().filter(|(n, _)| *n == "id").map(|(n, _)| *n).collect(),
    };
    if let Some(missing) = key.iter().find(|k| !columns.iter().any(|(n, _)| n == *k)) {
        let line = given.changes.first().map_or(1, |c| c.line);
        return Err(Wrong {
            line,
            what: format!("no change of {}.{} has the key column {missing}", given.schema, given.table),
        });
    }
    let columns: Vec<(&str, Type)> =
        columns.into_iter().map(|(n, kind)| (n, kind.unwrap_or(Type::Text { length: 0 }))).collect();
    let mut schema = table(&given.schema, &given.table, &columns, &key);
    let of = Arc::make_mut(&mut schema);
    (of.schema_no, of.table_no) = (no, no);
    Ok(schema)
}

const DECIMAL: Type = Type::Decimal { precision: 0, scale: 0 };

fn kind_of(text: &str, plain: bool) -> Type {
    match text {
        _ if !plain => Type::Text { length: 0 },
        "true" | "false" => Type::Bool,
        t if t.parse::<i64>().is_ok() => Type::Int { bits: 64, unsigned: false },
        t if Decimal::parse(t).is_ok_and(|d| matches!(d, Decimal::Finite { .. })) => DECIMAL,
        _ => Type::Text { length: 0 },
    }
}

fn row_change(change: &Change, schema: &Arc<TableSchema>) -> Result<RowChange, Wrong> {
    let row = |of: &Option<Vec<(String, offline::Cell)>>, other: Cell| -> Result<Option<Row>, Wrong> {
        let Some(given) = of else { return Ok(None) };
        let mut cells = vec![other; schema.columns.len()];
        for (name, cell) in given {
            let Some((at, column)) = schema.column(name) else { continue };
            cells[at] = match cell {
                offline::Cell::Null => Cell::Null,
                offline::Cell::Unsent => Cell::Unavailable,
                offline::Cell::Scalar { text, .. } => Cell::Value(value_of(text, &column.kind)),
            };
        }
        if let Some(missing) = schema.key.iter().find(|k| !matches!(cells[usize::from(**k)], Cell::Value(_))) {
            let name = &schema.columns[usize::from(*missing)].name;
            return Err(Wrong {
                line: change.line,
                what: format!("a row of {} without its key {name}", schema.qualified()),
            });
        }
        Ok(Some(Row::new(cells)))
    };
    Ok(RowChange {
        table: schema.clone(),
        op: Op::from_letter(change.op).unwrap_or(Op::Create),
        before: row(&change.before, Cell::Absent)?,
        after: row(&change.after, Cell::Null)?,
        snapshot: SnapshotMark::No,
        info: SourceInfo::None,
    })
}

fn value_of(text: &str, kind: &Type) -> Value {
    let plain = || Value::Text(text.into());
    match kind {
        Type::Bool => Value::Bool(text == "true"),
        Type::Int { .. } => text.parse().map_or_else(|_| plain(), Value::Int),
        Type::Decimal { .. } => Decimal::parse(text).map_or_else(|_| plain(), Value::Decimal),
        _ => plain(),
    }
}

fn fits(wanted: &Wanted, cell: Option<&Cell>) -> bool {
    match (wanted, cell) {
        (Wanted::Absent, cell) => cell.is_none(),
        (Wanted::Any, cell) => cell.is_some(),
        (Wanted::Null, cell) => cell.is_some_and(Cell::is_null),
        (Wanted::Approx(near), Some(Cell::Value(v))) => {
            rows::text(v).parse::<f64>().is_ok_and(|n| (n - near).abs() <= 1e-6 * near.abs().max(1.0))
        }
        (Wanted::Value { text, plain }, Some(Cell::Value(v))) => {
            let number = *plain && !matches!(v, Value::Text(_)) && Decimal::parse(text).is_ok();
            match number {
                true => compare(v, &Literal::Number(text.clone())) == Some(Ordering::Equal),
                false => rows::text(v) == *text,
            }
        }
        _ => false,
    }
}

/// Each expected row needs a row of its own; what is left on either side is wrong.
fn judge(expect: &Expect, table: &str, there: &[Shown], wrong: &mut Vec<Wrong>) {
    let is = |row: &ExpectedRow, shown: &Shown| row.fields.iter().all(|(c, w)| fits(w, shown.get(c)));
    let edges: Vec<Vec<usize>> =
        expect.rows.iter().map(|row| (0..there.len()).filter(|i| is(row, &there[*i])).collect()).collect();
    // Whose row each one is; an earlier owner moves on if it can.
    let mut owner: Vec<Option<usize>> = vec![None; there.len()];
    let alone: Vec<usize> =
        (0..edges.len()).filter(|row| !assign(*row, &edges, &mut owner, &mut vec![false; there.len()])).collect();
    let free: Vec<usize> = (0..there.len()).filter(|i| owner[*i].is_none()).collect();
    let place = format!("{}.{table}", expect.sink);
    for row in alone {
        let row = &expect.rows[row];
        let distance = |i: &&usize| row.fields.iter().filter(|(c, w)| !fits(w, there[**i].get(c))).count();
        let what = match free.iter().min_by_key(distance) {
            None => format!("{place}: no such row; there are {}", there.len()),
            Some(nearest) => {
                let differs = row.fields.iter().filter(|(c, w)| !fits(w, there[*nearest].get(c)));
                let shown = |(c, w): &(String, Wanted)| {
                    let is = there[*nearest].get(c).map_or("not there".to_owned(), |c| cell_line(c, VALUE_CHARS_MAX));
                    format!("{c} is {is}, expected {}", wanted_line(w))
                };
                let differs: Vec<String> = differs.map(shown).collect();
                format!("{place}: {}; nearest row: {}", differs.join(", "), row_line(&there[*nearest]))
            }
        };
        wrong.push(Wrong { line: row.line, what });
    }
    if there.len() != expect.rows.len() {
        let shown: Vec<String> = free.iter().take(5).map(|i| row_line(&there[*i])).collect();
        let what = format!("{place}: {} rows expected, {} there", expect.rows.len(), there.len());
        let more = if there.len() > expect.rows.len() {
            format!("; not expected: {}", shown.join(" "))
        } else {
            String::new()
        };
        wrong.push(Wrong { line: expect.line, what: what + &more });
    }
}

/// Kuhn's way to give each row its own partner.
fn assign(row: usize, edges: &[Vec<usize>], owner: &mut [Option<usize>], seen: &mut Vec<bool>) -> bool {
    for &i in &edges[row] {
        if std::mem::replace(&mut seen[i], true) {
            continue;
        }
        if owner[i].is_none_or(|other| assign(other, edges, owner, seen)) {
            owner[i] = Some(row);
            return true;
        }
    }
    false
}

fn row_line(row: &Shown) -> String {
    let cells: Vec<String> = row.iter().map(|(c, cell)| format!("{c}: {}", cell_line(cell, VALUE_CHARS_MAX))).collect();
    format!("{{ {} }}", cells.join(", "))
}

fn wanted_line(wanted: &Wanted) -> String {
    match wanted {
        Wanted::Null => "NULL".into(),
        Wanted::Any => "anything".into(),
        Wanted::Absent => "no such column".into(),
        Wanted::Approx(n) => format!("about {n}"),
        Wanted::Value { text, plain: true } => text.clone(),
        Wanted::Value { text, plain: false } => format!("'{text}'"),
    }
}

#[cfg(test)]
mod tests;
