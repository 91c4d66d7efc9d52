//! Pure. A pipeline file as typed values, references unresolved. Only the validator makes one.

use super::connect::{Connector, Naming, Target};
use catchwater_capture::{SnapshotMode, TableLists};
use catchwater_deliver::Columns;
use catchwater_deliver::worker::{DeadLetters, letters_topic};
use catchwater_record::{PipelineName, TopicName};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pipeline {
    pub name: String,
    pub sources: BTreeMap<String, Source>,
    pub sinks: BTreeMap<String, Sink>,
    /// The Kafka Connect connector that it was made of; sources and sinks follow from it.
    pub connect: Option<Connector>,
}

impl Pipeline {
    /// Sources that its sinks read and that another pipeline captures.
    pub fn borrowed(&self) -> BTreeSet<&str> {
        self.sinks.values().map(Sink::source).filter(|s| !self.sources.contains_key(*s)).collect()
    }

    /// Where its sinks set refused rows aside: they all name the same topic, if they name one.
    pub fn letters_topic(&self) -> TopicName {
        let given = self.sinks.values().find_map(|s| s.dead_letters.topic.clone());
        given.unwrap_or_else(|| letters_topic(&PipelineName::from(self.name.as_str())))
    }

    /// Its tasks do not run, whatever else is said of it.
    pub fn is_held(&self) -> bool {
        self.connect.as_ref().is_some_and(|c| c.target != Target::Running)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Component {
    Postgres {
        url: String,
        schema: Option<String>,
        slot: Option<String>,
        publication: Option<String>,
        /// Large transactions are sent while they are open.
        streaming: bool,
        /// The slot is copied to standbys.
        failover: bool,
        /// The stream is in the binary format where its types allow it.
        binary: bool,
        /// Of a connector that is taken over from Kafka Connect: its offset there, as JSON.
        taken: Option<String>,
    },
    Sqlite {
        file: String,
    },
}

impl Component {
    /// Equal for two nodes that mean the same system.
    pub fn place(&self) -> String {
        match self {
            Component::Postgres { url, .. } => url.clone(),
            Component::Sqlite { file } => format!("file {file}"),
        }
    }
    fn default_schema(&self) -> &'static str {
        match self {
            Component::Postgres { .. } => "public",
            Component::Sqlite { .. } => "main",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    pub component: Component,
    /// As written: `public.orders`, `orders`, `public.*`; PostgreSQL's also lists of regular expressions.
    pub tables: Vec<String>,
    /// When the existing rows are read, and whether changes follow.
    pub snapshot: SnapshotMode,
    /// Properties of Debezium's connector, by name.
    pub debezium: BTreeMap<String, String>,
    /// Fill columns that the source did not send from the log; else the placeholder stands there.
    pub fill_unchanged: bool,
}

impl Source {
    /// The lists of regular expressions among its tables; the validator has seen them.
    fn lists(&self) -> TableLists {
        match self.component {
            Component::Postgres { .. } => TableLists::parse(&self.tables).map(|(_, lists)| lists).unwrap_or_default(),
            Component::Sqlite { .. } => TableLists::default(),
        }
    }
    /// What a person may have meant: names and schemas, lists left out.
    pub fn named(&self) -> Vec<String> {
        let is_list = |t: &&String| t.trim_start_matches(['&', '-']).starts_with('/');
        self.tables.iter().filter(|t| !is_list(t)).map(|t| self.qualify(t)).collect()
    }
    /// No list of regular expressions is among its tables.
    pub fn lists_nothing(&self) -> bool {
        self.lists().is_empty()
    }
    /// `orders` → `public.orders`.
    pub fn qualify(&self, table: &str) -> String {
        if table.contains('.') { table.to_owned() } else { format!("{}.{table}", self.component.default_schema()) }
    }

    /// The captured tables (qualified, without the source's name) that `from` means; a `*` on either side matches.
    pub fn table_names(&self, from: &str, source: &str) -> Vec<String> {
        let (all, lists) = (self.named(), self.lists());
        let rest = if from == source {
            "*"
        } else {
            from.strip_prefix(source).and_then(|r| r.strip_prefix('.')).unwrap_or("")
        };
        if rest == "*" {
            // What the lists mean is known when the source has looked.
            return if lists.is_empty() { all } else { vec!["*".to_owned()] };
        }
        let wanted = self.qualify(rest);
        if !lists.is_empty() && (wanted.ends_with(".*") || lists.take(&wanted)) {
            return vec![wanted];
        }
        if lists.leaves_out(&wanted) {
            return Vec::new();
        }
        if let Some(prefix) = wanted.strip_suffix(".*") {
            return all.into_iter().filter(|t| t.strip_prefix(prefix).is_some_and(|r| r.starts_with('.'))).collect();
        }
        let captured = all.iter().any(|t| {
            *t == wanted
                || t.strip_suffix('*').is_some_and(|p| p.is_empty() || (p.ends_with('.') && wanted.starts_with(p)))
        });
        if captured { vec![wanted] } else { Vec::new() }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sink {
    pub component: Component,
    /// As written: `shop.public.orders`, `shop.public.*`, `shop`.
    pub from: Vec<String>,
    /// Of a sink of Connect's face: only topics that this whole expression fits.
    pub topics: Option<String>,
    /// How it names tables that `tables` does not.
    pub naming: Option<Naming>,
    /// What it takes of tables that `tables` does not name.
    pub other_columns: Columns,
    /// By the table's full name.
    pub tables: BTreeMap<String, TableOption>,
    pub batch_rows: Option<u64>,
    pub batch_bytes: Option<u64>,
    pub linger_ms: Option<u64>,
    /// Transactions of the target that may be open at the same time.
    pub lanes: Option<u64>,
    /// What a change does: `upsert`, `append`, `insert_once`, `soft_delete`.
    pub mode: String,
    /// Rows the target refuses are set aside with their key, at most so many of the last so many; else the sink stops.
    pub park: Option<(u32, u32)>,
    pub dead_letters: DeadLetters,
    /// Deletes of rows are done; else the rows stay.
    pub deletes: bool,
    /// Truncates are done.
    pub truncates: bool,
    /// Missing tables and columns are made; else they stop the sink.
    pub additive: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TableOption {
    pub name: Option<String>,
    pub columns: Columns,
}

impl Sink {
    /// Name of the target table for `source.schema.table`.
    pub fn target_name(&self, full: &str) -> String {
        let short = full.splitn(3, '.').nth(2).unwrap_or(full);
        let given = self.tables.get(full).and_then(|t| t.name.clone());
        let name = given.or_else(|| self.named(full)).unwrap_or_else(|| short.to_owned());
        if self.columns(full).fold { name.to_ascii_lowercase() } else { name }
    }
    /// Schema and name of the target table for `source.schema.table`; `of` is the source, if it is of this pipeline.
    pub fn target(&self, full: &str, of: Option<&Source>) -> (String, String) {
        let schema = match (&self.component, of.map(|s| &s.component)) {
            (Component::Sqlite { .. }, _) => "",
            (Component::Postgres { schema: Some(one), .. }, _) => one,
            (_, Some(Component::Sqlite { .. })) => "public",
            _ => full.split('.').nth(1).unwrap_or_default(),
        };
        (schema.to_owned(), self.target_name(full))
    }
    /// Which columns of `source.schema.table`.
    pub fn columns(&self, full: &str) -> &Columns {
        self.tables.get(full).map_or(&self.other_columns, |t| &t.columns)
    }
    /// What its rule makes of `source.schema.table`; `None` = it has none, or it makes no name of that.
    pub fn named(&self, full: &str) -> Option<String> {
        Some(self.naming.as_ref()?.table(full).ok()?.1)
    }
    /// The one source it reads.
    pub fn source(&self) -> &str {
        self.from.first().and_then(|f| f.split('.').next()).unwrap_or_default()
    }
}
