//! A pipeline whose references are resolved: makes its connectors, asks its databases. Holds secrets, is never printed.

use super::given_file;
use crate::pipeline::model::{Component, Pipeline, Source};
use crate::pipeline::secret::{self, Reference};
use crate::report::{Exit, Failure};
use catchwater_capture::source::{Finding, Severity};
use catchwater_capture::{self as capture, SnapshotMode};
use catchwater_change::Native;
use catchwater_change::encode::debezium_json::Xmin;
use catchwater_connector_postgres as postgres;
use catchwater_connector_sqlite as sqlite;
use catchwater_deliver as deliver;
use catchwater_deliver::sink::SinkError;
use catchwater_record::{CaptureEpoch, CaptureId, Incarnation, SourceName};
use catchwater_runtime::time::timeout;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a database's preflight may take.
const PREFLIGHT_LIMIT: Duration = Duration::from_secs(20);

/// The tables of a source in its older texts.
#[derive(Default)]
pub(super) struct Former {
    pub texts: Vec<Vec<String>>,
    /// All of them are kept.
    pub whole: bool,
}

pub(super) struct Resolved {
    pub pipeline: Pipeline,
    sources: BTreeMap<String, Component>,
    sinks: BTreeMap<String, Component>,
    /// Files that references name and that other users of the machine can read.
    exposed: BTreeSet<PathBuf>,
    /// By the source's name; empty until the node has asked for them.
    pub captures: BTreeMap<String, (CaptureId, Incarnation)>,
    /// The folder of the pipeline file.
    base: PathBuf,
    /// What older texts meant, by the source's name; empty for a source that only asks.
    pub former: BTreeMap<String, Former>,
    /// Where sources hold what does not fit into memory; a source that only asks needs none.
    pub spill: Option<PathBuf>,
}

impl Resolved {
    /// `secrets`: the node's store of what the Connect face keeps apart.
    pub fn resolve(pipeline: Pipeline, base: &Path, secrets: &Path) -> Result<Resolved, Failure> {
        let mut exposed = BTreeSet::new();
        let mut one = |c: &Component| resolve_component(c, base, secrets, &mut exposed);
        let sources = pipeline
            .sources
            .iter()
            .map(|(n, s)| Ok((n.clone(), one(&s.component)?)))
            .collect::<Result<_, Failure>>()?;
        let sinks =
            pipeline.sinks.iter().map(|(n, s)| Ok((n.clone(), one(&s.component)?))).collect::<Result<_, Failure>>()?;
        Ok(Resolved {
            pipeline,
            sources,
            sinks,
            exposed,
            captures: BTreeMap::new(),
            former: BTreeMap::new(),
            base: base.to_owned(),
            spill: None,
        })
    }

    /// Would the node do the same in both? Its block, its references' values, and what a sink takes from its source.
    pub fn same_node(&self, other: &Resolved, node: &str) -> bool {
        let reads = |r: &Resolved| {
            let sink = r.pipeline.sinks.get(node)?;
            r.pipeline.sources.get(sink.source()).map(|s| (s.tables.clone(), std::mem::discriminant(&s.component)))
        };
        self.pipeline.sources.get(node) == other.pipeline.sources.get(node)
            && self.sources.get(node) == other.sources.get(node)
            && self.pipeline.sinks.get(node) == other.pipeline.sinks.get(node)
            && self.sinks.get(node) == other.sinks.get(node)
            && reads(self) == reads(other)
    }

    /// Asks sources and targets what would stop them; not those whose names are among `known`, which run already.
    pub async fn preflight(&self, known: &BTreeSet<String>) -> Result<Vec<(String, Finding)>, Failure> {
        let mut findings: Vec<(String, Finding)> =
            self.exposed.iter().map(|f| ("references".to_owned(), given_file::finding(f))).collect();
        for (name, source) in self.pipeline.sources.iter().filter(|(n, _)| !known.contains(*n)) {
            let mut make = self.source_maker(name, source, CaptureEpoch(0), Xmin::default())?;
            let mut connector = make();
            let found =
                timeout(PREFLIGHT_LIMIT, connector.preflight()).await.unwrap_or_else(|_| vec![late("the source")]);
            findings.extend(found.into_iter().map(|f| (format!("source {name}"), f)));
            connector.close().await;
        }
        for name in self.pipeline.sinks.keys().filter(|n| !known.contains(*n)) {
            let mut sink = self.sink(name)?;
            let found = match timeout(PREFLIGHT_LIMIT, sink.preflight()).await {
                Ok(Ok(())) => Vec::new(),
                Ok(Err(e)) => vec![as_finding(&e)],
                Err(_) => vec![late("the target")],
            };
            findings.extend(found.into_iter().map(|f| (format!("sink {name}"), f)));
            sink.shutdown().await;
        }
        Ok(findings)
    }

    /// Asks a source that runs and gets another URL what can be asked beside it: whether that answers, and whether its slot is
    /// there, for it goes on at its position.
    pub async fn ask_moved(&self, name: &str) -> Vec<(String, Finding)> {
        let Some(Component::Postgres { url, slot, .. }) = self.sources.get(name) else { return Vec::new() };
        let config = postgres::ConnectConfig::parse(url).map(|c| c.relative_to(&self.base)).map(|connect| {
            let mut c = postgres::SourceConfig::new(SourceName::from(name), CaptureEpoch(0), connect, Vec::new());
            c.slot.clone_from(slot);
            c
        });
        let config = match config.map_err(|e| postgres::source::url_error(&e)) {
            Ok(config) => config,
            Err(e) => return vec![(format!("source {name}"), of_source(&e))],
        };
        let found = match timeout(PREFLIGHT_LIMIT, postgres::source::is_slot_held(&config)).await {
            Ok(Ok(Some(_))) => return Vec::new(),
            Ok(Ok(None)) => Finding {
                code: catchwater_record::ErrorCode(514),
                severity: Severity::Warning,
                fault: format!("its slot {} is not on the server of the new url", config.slot()),
                evidence: "it goes on at its position there, and stops where it cannot".into(),
                cure: format!(
                    "catchwater explain CW0514; or read it again: catchwater pipeline reset {}",
                    self.pipeline.name
                ),
                sql: Vec::new(),
                retry: false,
            },
            Ok(Err(e)) => of_source(&e),
            Err(_) => late("the source"),
        };
        vec![(format!("source {name}"), found)]
    }

    /// A path of the pipeline's file, which is relative to it.
    pub fn path(&self, given: &str) -> PathBuf {
        self.base.join(given)
    }

    /// `xmin` = what the source tells those who write its records.
    pub fn source_maker(
        &self,
        name: &str,
        source: &Source,
        epoch: CaptureEpoch,
        xmin: Xmin,
    ) -> Result<capture::worker::MakeSource, Failure> {
        let properties = properties(source, name)?;
        let rules = properties.rules.clone();
        match &self.sources[name] {
            Component::Postgres { .. }
                if source.snapshot == SnapshotMode::Always && !properties.reading.snapshot_selects.is_empty() =>
            {
                let what =
                    "`snapshot.select.statement.overrides` is of the first snapshot, and mode `always` reads others";
                Err(Failure::new(Exit::Refused, "CW0303", format!("source {name}: {what}")))
            }
            Component::Postgres { url, slot, publication, streaming, failover, binary, taken, .. } => {
                let mut config = self.postgres_tables(name, source, epoch, url, &properties)?;
                config.slot.clone_from(slot);
                config.publication.clone_from(publication);
                (config.streaming, config.failover, config.binary) = (*streaming, *failover, *binary);
                if let Some(former) = self.former.get(name) {
                    config.former.whole = former.whole;
                    for tables in &former.texts {
                        let Ok((names, lists)) = capture::TableLists::parse(tables) else { continue };
                        let tables = names.into_iter().map(postgres::TableRef::parse).collect();
                        config.former.texts.push(postgres::source::former::Meant { tables, lists });
                    }
                }
                config.taken = taken.as_deref().map(|text| taken_over(name, text)).transpose()?;
                config.without_identity = properties.options.defects;
                (config.xmin_every_ms, config.xmin) = (properties.xmin_every_ms, xmin);
                config.heartbeat = properties.heartbeat.map(|h| h.every_ms).zip(properties.heartbeat_query);
                if let Some(dir) = &self.spill {
                    config.large.dir.clone_from(dir);
                }
                Ok(Box::new(move || capture::shape::shaped(Box::new(postgres::PgSource::new(config.clone())), &rules)))
            }
            Component::Sqlite { .. } if !properties.reading.is_plain() => {
                let what = "partitions, `lsn.flush.mode`, `database.initial.statements`, `guardrail.collections.max` and \
                            properties of the first snapshot are of PostgreSQL";
                Err(Failure::new(Exit::Refused, "CW0303", format!("source {name}: {what}")))
            }
            Component::Sqlite { .. } if matches!(source.snapshot, SnapshotMode::Always | SnapshotMode::InitialOnly) => {
                let what = format!("snapshot mode `{}` is of PostgreSQL", source.snapshot.word());
                Err(Failure::new(Exit::Refused, "CW0303", format!("source {name}: {what}")))
            }
            Component::Sqlite { file } => {
                let mut config = sqlite::SourceConfig::new(file);
                config.tables.clone_from(&source.tables);
                Ok(Box::new(move || {
                    capture::shape::shaped(Box::new(sqlite::SqliteSource::new(config.clone())), &rules)
                }))
            }
        }
    }

    /// What a PostgreSQL source is asked for: its server, and which tables of it.
    fn postgres_tables(
        &self,
        name: &str,
        source: &Source,
        epoch: CaptureEpoch,
        url: &str,
        properties: &capture::Properties,
    ) -> Result<postgres::SourceConfig, Failure> {
        let connect = postgres::ConnectConfig::parse(url)
            .map(|c| c.relative_to(&self.base))
            .map_err(|e| source_failure(name, &postgres::source::url_error(&e)))?;
        let (names, lists) = capture::TableLists::parse(&source.tables)
            .map_err(|why| Failure::new(Exit::Refused, "CW0303", format!("source {name}: {why}")))?;
        let tables = names.into_iter().map(postgres::TableRef::parse).collect();
        let mut config = postgres::SourceConfig::new(SourceName::from(name), epoch, connect, tables);
        config.lists = lists;
        // For a sink it would be a table of its own that nobody changes any more.
        config.leaves = properties.options.defects && self.sinks.is_empty();
        config.reading = properties.reading.clone();
        Ok(config)
    }

    /// The tables that a source would capture now, qualified, as its database shows them. `None` = it is another pipeline's.
    pub async fn captured(&self, name: &str) -> Result<Option<Vec<String>>, Finding> {
        let Some((source, component)) = self.pipeline.sources.get(name).zip(self.sources.get(name)) else {
            return Ok(None);
        };
        let of_failure = |f: Failure| Finding {
            code: catchwater_record::ErrorCode(303),
            severity: Severity::Error,
            fault: f.message,
            evidence: f.cause,
            cure: f.next,
            sql: Vec::new(),
            retry: false,
        };
        let asked = async {
            match component {
                Component::Postgres { url, .. } => {
                    let properties = properties(source, name).map_err(of_failure)?;
                    let config = self.postgres_tables(name, source, CaptureEpoch(0), url, &properties);
                    postgres::source::captured(&config.map_err(of_failure)?).await.map_err(|e| of_source(&e))
                }
                Component::Sqlite { file } => {
                    let mut config = sqlite::SourceConfig::new(file);
                    config.tables.clone_from(&source.tables);
                    sqlite::source::captured(&config).await.map_err(|e| of_source(&e))
                }
            }
        };
        timeout(PREFLIGHT_LIMIT, asked).await.unwrap_or_else(|_| Err(late("the source"))).map(Some)
    }

    /// Where a source of this pipeline stands now, asked of its database. `None` = it is another pipeline's.
    pub async fn head(&self, name: &str) -> Result<Option<Native>, Failure> {
        let Some(component) = self.sources.get(name) else { return Ok(None) };
        let failed = |e: capture::source::SourceError| source_failure(name, &e);
        let asked = async {
            match component {
                Component::Postgres { url, .. } => {
                    let connect = postgres::ConnectConfig::parse(url)
                        .map(|c| c.relative_to(&self.base))
                        .map_err(|e| failed(postgres::source::url_error(&e)))?;
                    let config =
                        postgres::SourceConfig::new(SourceName::from(name), CaptureEpoch(0), connect, Vec::new());
                    postgres::source::head(&config).await.map_err(failed)
                }
                Component::Sqlite { file } => {
                    sqlite::source::head(&sqlite::SourceConfig::new(file)).await.map_err(failed)
                }
            }
        };
        match timeout(PREFLIGHT_LIMIT, asked).await {
            Ok(native) => native.map(Some),
            Err(_) => Err(as_failure(&format!("source {name}"), &late("the source"))),
        }
    }

    pub fn sink(&self, name: &str) -> Result<Box<dyn deliver::sink::Sink>, Failure> {
        Ok(match &self.sinks[name] {
            Component::Postgres { url, .. } => {
                let connect = postgres::ConnectConfig::parse(url)
                    .map(|c| c.relative_to(&self.base))
                    .map_err(|e| sink_failure(name, &postgres::sink::url_error(&e)))?;
                Box::new(postgres::PgSink::new(postgres::SinkConfig::new(connect)))
            }
            Component::Sqlite { file } => Box::new(sqlite::SqliteSink::new(sqlite::SinkConfig::new(file))),
        })
    }
}

/// What the file's Debezium properties mean; the validator has seen them.
pub(super) fn properties(source: &Source, node: &str) -> Result<capture::Properties, Failure> {
    let given = source.debezium.iter().map(|(k, v)| (k.as_str(), v.as_str()));
    let mut properties = capture::Properties::parse(given).map_err(|errors| {
        let why = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        Failure::new(Exit::Refused, "CW0303", format!("source {node}: {why}"))
    })?;
    properties.options.fill_unchanged &= source.fill_unchanged;
    properties.rules.tell(&mut properties.options);
    Ok(properties)
}

/// Percent-encoded: every secret of the store stands in a URL.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// `exposed`: files with secrets that others can read are added.
fn resolve_component(
    c: &Component,
    base: &Path,
    secrets: &Path,
    exposed: &mut BTreeSet<PathBuf>,
) -> Result<Component, Failure> {
    let mut read = |r: Reference<'_>| match r {
        Reference::Env(name) => std::env::var(name).map_err(|_| format!("environment variable {name} is not set")),
        Reference::File(path) => given_file::read(base, path, exposed),
        Reference::Secret(path) => std::fs::read_to_string(secrets.join(path))
            .map(|t| escaped(&t))
            .map_err(|e| format!("secret {path}: {e}; put the connector's configuration again, with it")),
    };
    let mut one = |text: &str| {
        secret::resolve_url(text, &mut read).map_err(|why| {
            Failure::new(Exit::Refused, "CW0332", "a reference cannot be read")
                .cause(why)
                .next("set the variable, or write the file, so that the node's user can read it")
        })
    };
    Ok(match c {
        Component::Postgres { url, schema, slot, publication, streaming, failover, binary, taken } => {
            Component::Postgres {
                url: one(url)?,
                schema: schema.clone(),
                slot: slot.clone(),
                publication: publication.clone(),
                streaming: *streaming,
                failover: *failover,
                binary: *binary,
                taken: taken.clone(),
            }
        }
        Component::Sqlite { file } => {
            let file = one(file)?;
            // Relative to the pipeline file, as everything in it.
            Component::Sqlite { file: base.join(file).display().to_string() }
        }
    })
}

fn source_failure(name: &str, e: &capture::source::SourceError) -> Failure {
    Failure::new(Exit::Environment, &e.code.to_string(), format!("source {name}: {}", e.what)).next(e.next.clone())
}

fn sink_failure(name: &str, e: &SinkError) -> Failure {
    Failure::new(Exit::Environment, &e.code.to_string(), format!("sink {name}: {}", e.what)).next(e.next.clone())
}

fn late(what: &str) -> Finding {
    Finding {
        code: catchwater_record::ErrorCode(13),
        severity: Severity::Error,
        fault: format!("{what} gave no answer within {} s", PREFLIGHT_LIMIT.as_secs()),
        evidence: String::new(),
        cure: "check that it is reachable and not overloaded".into(),
        sql: Vec::new(),
        retry: true,
    }
}

/// A database that gives no answer has said so before.
pub(super) fn add_new(findings: &mut Vec<(String, Finding)>, more: Vec<(String, Finding)>) {
    let said: BTreeSet<(String, u16)> = findings.iter().map(|(n, f)| (n.clone(), f.code.0)).collect();
    findings.extend(more.into_iter().filter(|(n, f)| !said.contains(&(n.clone(), f.code.0))));
}

/// What `doctor FILE` shows.
pub async fn preflight(pipeline: Pipeline, base: &Path) -> Result<Vec<(String, Finding)>, Failure> {
    let resolved = Resolved::resolve(pipeline, base, Path::new(""))?;
    let mut findings = resolved.preflight(&BTreeSet::new()).await?;
    let stopped = super::rowless::alone(&resolved).await;
    add_new(&mut findings, stopped);
    Ok(findings)
}

fn as_finding(e: &SinkError) -> Finding {
    Finding {
        code: e.code,
        severity: Severity::Error,
        fault: e.what.clone(),
        evidence: String::new(),
        cure: e.next.clone(),
        sql: Vec::new(),
        retry: false,
    }
}

fn of_source(e: &capture::source::SourceError) -> Finding {
    Finding {
        code: e.code,
        severity: Severity::Error,
        fault: e.what.clone(),
        evidence: String::new(),
        cure: e.next.clone(),
        sql: Vec::new(),
        retry: false,
    }
}

fn as_failure(node: &str, f: &Finding) -> Failure {
    let mut cure = f.cure.clone();
    if !f.sql.is_empty() {
        cure.push_str(&format!("\n         {}", f.sql.join("\n         ")));
    }
    Failure::new(Exit::Environment, &f.code.to_string(), format!("{node}: {}", f.fault))
        .cause(f.evidence.clone())
        .next(cure)
}

/// The first error becomes the failure.
pub(super) fn first_error(findings: Vec<(String, Finding)>) -> Result<(), Failure> {
    let first = findings.iter().find(|(_, f)| f.severity == Severity::Error);
    first.map_or(Ok(()), |(node, f)| Err(as_failure(node, f)))
}

/// Prints every finding but the first error, which becomes the failure.
pub(super) fn show_findings(findings: Vec<(String, Finding)>) -> Result<(), Failure> {
    let mut first: Option<Failure> = None;
    for (node, f) in findings {
        let failure = as_failure(&node, &f);
        let word = match f.severity {
            Severity::Error if first.is_none() => {
                first = Some(failure);
                continue;
            }
            Severity::Error => "error",
            _ => "warning",
        };
        eprintln!(
            "{word}[{}]: {}\n  cause: {}\n  next:  {}",
            failure.code, failure.message, failure.cause, failure.next
        );
    }
    first.map_or(Ok(()), Err)
}

/// Whether somebody streams from the slot of a PostgreSQL source; `None` = it does not exist. References are read as the node reads
/// those of a connector, but for what it keeps itself.
pub async fn is_slot_held(name: &str, source: &Source) -> Result<Option<bool>, Failure> {
    let resolved = resolve_component(&source.component, Path::new("/"), Path::new(""), &mut BTreeSet::new())?;
    let Component::Postgres { url, slot, .. } = &resolved else { return Ok(None) };
    let connect =
        postgres::ConnectConfig::parse(url).map_err(|e| source_failure(name, &postgres::source::url_error(&e)))?;
    let mut config = postgres::SourceConfig::new(SourceName::from(name), CaptureEpoch(0), connect, Vec::new());
    config.slot.clone_from(slot);
    postgres::source::is_slot_held(&config).await.map_err(|e| source_failure(name, &e))
}

/// Whether a source can go on behind an offset of Kafka Connect.
pub fn check_offset(name: &str, text: &str) -> Result<(), Failure> {
    taken_over(name, text).map(|_| ())
}

/// What an offset of Kafka Connect says of a source that is taken over.
fn taken_over(name: &str, text: &str) -> Result<postgres::source::taken::Taken, Failure> {
    let value: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let number = |key: &str| value[key].as_u64();
    let offset = postgres::source::taken::ConnectOffset {
        lsn: number("lsn"),
        lsn_proc: number("lsn_proc"),
        lsn_commit: number("lsn_commit"),
        lsn_events_processed: number("lsn_events_processed"),
        tx_id: number("txId"),
        message_type: value["messageType"].as_str().unwrap_or_default().to_owned(),
        snapshot: !value["snapshot"].is_null(),
        snapshot_completed: value["snapshot_completed"] == true,
    };
    postgres::source::taken::Taken::from_connect(&offset).map_err(|why| {
        Failure::new(Exit::Refused, "CW0359", format!("source {name}: its offset cannot be taken over"))
            .cause(why)
            .next("start the connector there once more, then import it again")
    })
}
