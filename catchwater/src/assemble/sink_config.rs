//! Pure. What a sink of a pipeline is to the deliver worker: names, columns, mode, limits. Also for `catchwater test`.

use crate::pipeline::connect;
use crate::pipeline::model::{Component, Sink, Source};
use crate::report::{Exit, Failure};
use catchwater_change::TableSchema;
use catchwater_deliver as deliver;
use std::sync::Arc;

/// `of`: the source that it reads, if this pipeline has it.
pub fn fill(config: &mut deliver::Config, sink: &Sink, node: &str, of: Option<&Source>) -> Result<(), Failure> {
    let source = sink.source().to_owned();
    config.tables = match &sink.topics {
        None => deliver::TableFilter::Named(table_filter(sink, &source, of)),
        Some(expression) => {
            let (whole, source) = (connect::whole(expression).map_err(|why| no_regex(node, &why))?, source.clone());
            let fits = move |t: &TableSchema| whole.is_match(&format!("{source}.{}", t.qualified()));
            deliver::TableFilter::Fits(deliver::ByTable(Arc::new(fits)))
        }
    };
    if sink.naming.is_some() {
        let (sink, source) = (sink.clone(), source.clone());
        let name = move |t: &TableSchema| sink.named(&format!("{source}.{}", t.qualified()));
        config.names = Some(deliver::ByTable(Arc::new(name)));
    }
    config.naming = match &sink.component {
        Component::Postgres { schema: Some(s), .. } => deliver::SchemaNaming::Into(s.clone()),
        // A SQLite source has the schema `main`; PostgreSQL's default is `public`.
        Component::Postgres { schema: None, .. } => match of.map(|s| &s.component) {
            Some(Component::Sqlite { .. }) => deliver::SchemaNaming::Into("public".into()),
            Some(Component::Postgres { .. }) | None => deliver::SchemaNaming::Keep,
        },
        Component::Sqlite { .. } => deliver::SchemaNaming::Into(String::new()),
    };
    config.renames = sink
        .tables
        .iter()
        .filter_map(|(full, o)| Some((full.strip_prefix(&source)?.strip_prefix('.')?.to_owned(), o.name.clone()?)))
        .collect();
    config.columns = sink
        .tables
        .iter()
        .filter_map(|(full, o)| Some((full.strip_prefix(&source)?.strip_prefix('.')?.to_owned(), o.columns.clone())))
        .collect();
    config.other_columns = sink.other_columns.clone();
    config.mode = match sink.mode.as_str() {
        "append" => deliver::Mode::Append,
        "insert_once" => deliver::Mode::InsertOnce,
        "soft_delete" => deliver::Mode::SoftDelete,
        _ => deliver::Mode::Upsert,
    };
    (config.deletes, config.truncates) = (sink.deletes, sink.truncates);
    if !sink.additive {
        config.on_schema_change = deliver::evolve::OnSchemaChange::Fail;
    }
    if let Some((most, of)) = sink.park {
        config.on_row_error = deliver::OnRowError::ParkKey { most, of };
    }
    config.dead_letters = sink.dead_letters.clone();
    if let Some(rows) = sink.batch_rows {
        config.batch.rows = usize::try_from(rows).unwrap_or(usize::MAX);
    }
    if let Some(bytes) = sink.batch_bytes {
        config.batch.bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
    if let Some(ms) = sink.linger_ms {
        config.batch.linger_ms = ms;
    }
    if let Some(lanes) = sink.lanes {
        config.lanes = usize::try_from(lanes).unwrap_or(usize::MAX);
    }
    Ok(())
}

fn no_regex(node: &str, why: &str) -> Failure {
    Failure::new(Exit::Refused, "CW0303", format!("sink {node}: {why}"))
}

/// Tables of the source that the sink asked for, as `schema.table` or with `*`.
fn table_filter(sink: &Sink, source: &str, of: Option<&Source>) -> Vec<String> {
    let Some(of) = of else {
        // Of another pipeline: named one by one.
        let table = |f: &String| f.strip_prefix(source).and_then(|r| r.strip_prefix('.')).map(str::to_owned);
        return sink.from.iter().filter_map(table).collect();
    };
    sink.from.iter().flat_map(|f| of.table_names(f, source)).collect()
}
