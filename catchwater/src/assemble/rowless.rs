//! What sinks would stop at because of the transforms of their source, said when a text is planned. Where that depends on the
//! names of tables that a pattern takes, the source's database is asked for them; one that gives no answer makes a warning.

use super::State;
use super::control_failure;
use super::pipelines::others_of;
use super::resolved::Resolved;
use crate::pipeline::model::{Sink, Source};
use crate::pipeline::{Pipeline, rowless};
use crate::report::Failure;
use catchwater_capture::source::{Finding, Severity};
use catchwater_client::ControlClient;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Tables as a source's database shows them, or why it did not, by the source's name.
type Seen = BTreeMap<String, Result<Vec<String>, Finding>>;

/// Of a pipeline whose sources are its own.
pub(super) async fn alone(resolved: &Resolved) -> Vec<(String, Finding)> {
    let mut seen = Seen::new();
    for name in asked(&resolved.pipeline, &[]) {
        seen.extend(resolved.captured(&name).await.transpose().map(|tables| (name, tables)));
    }
    found(&resolved.pipeline, &[], &seen)
}

/// Sources whose tables must be known, for sinks of `new` and those of others that read its sources.
fn asked(new: &Pipeline, others: &[Pipeline]) -> BTreeSet<String> {
    let pairs = own(new, others).chain(theirs(new, others).map(|(_, _, sink, source)| (sink, source)));
    let open = pairs.filter(|(sink, source)| rowless::asks(sink, source));
    open.map(|(sink, _)| sink.source().to_owned()).collect()
}

/// Sinks of `new`, each with its source. Sinks read sources of other pipelines only by Connect's face.
fn own<'a>(new: &'a Pipeline, others: &'a [Pipeline]) -> impl Iterator<Item = (&'a Sink, &'a Source)> {
    new.sinks.values().filter_map(|sink| Some((sink, source_of(sink, new, others)?)))
}

fn source_of<'a>(sink: &Sink, new: &'a Pipeline, others: &'a [Pipeline]) -> Option<&'a Source> {
    let name = sink.source();
    new.sources.get(name).or_else(|| others.iter().find_map(|o| o.sources.get(name)))
}

/// Sinks of others that read a source of `new`: their pipeline, name, and that source.
fn theirs<'a>(
    new: &'a Pipeline,
    others: &'a [Pipeline],
) -> impl Iterator<Item = (&'a Pipeline, &'a String, &'a Sink, &'a Source)> {
    let sinks = others.iter().flat_map(|o| o.sinks.iter().map(move |(n, s)| (o, n, s)));
    sinks.filter(|(o, _, s)| !o.sources.contains_key(s.source())).filter_map(|(o, n, s)| {
        let source = new.sources.get(s.source())?;
        Some((o, n, s, source))
    })
}

/// Errors of its own sinks; of those of others, which run already and whose owner may be about to change them, warnings.
fn found(new: &Pipeline, others: &[Pipeline], seen: &Seen) -> Vec<(String, Finding)> {
    let finding = |severity, r: rowless::Rowless, whose: String| Finding {
        code: catchwater_record::ErrorCode(r.code),
        severity,
        fault: format!("{whose}{}", r.what),
        evidence: String::new(),
        cure: r.next.to_owned(),
        sql: Vec::new(),
        retry: false,
    };
    let problems = |sink: &Sink, source: &Source| {
        let tables = seen.get(sink.source()).and_then(|s| s.as_deref().ok());
        rowless::problems(sink, source, tables)
    };
    let mut out = Vec::new();
    for (name, sink) in &new.sinks {
        let all = source_of(sink, new, others).map(|s| problems(sink, s)).unwrap_or_default();
        out.extend(all.into_iter().map(|r| (format!("sink {name}"), finding(Severity::Error, r, String::new()))));
    }
    for (other, name, sink, source) in theirs(new, others) {
        let whose = format!("sink {name} of pipeline {}: ", other.name);
        let node = format!("source {}", sink.source());
        let all = problems(sink, source).into_iter();
        out.extend(all.map(|r| (node.clone(), finding(Severity::Warning, r, whose.clone()))));
    }
    for (name, why) in seen.iter().filter_map(|(n, s)| Some((n, s.as_ref().err()?))) {
        let fault = format!(
            "source {name} was not asked for its tables ({}): whether its transforms leave rows for the sinks is not known",
            why.fault
        );
        out.push((format!("source {name}"), Finding { severity: Severity::Warning, fault, ..why.clone() }));
    }
    out
}

impl State {
    /// What the sinks of `new` would stop at, and, as warnings, what sinks of others that read its sources would.
    /// `resolved` = `new` with its references read; without it its own sources are not asked.
    pub(super) async fn rowless_of(
        &self,
        new: &Pipeline,
        resolved: Option<&Resolved>,
        others: &[Pipeline],
    ) -> Result<Vec<(String, Finding)>, Failure> {
        let mut seen = Seen::new();
        for name in asked(new, others) {
            let tables = if new.sources.contains_key(&name) {
                match resolved {
                    Some(r) => r.captured(&name).await,
                    None => Ok(None),
                }
            } else if let Some(other) = others.iter().find(|o| o.sources.contains_key(&name)) {
                let base = self.base_dir(&other.name).await?;
                Resolved::resolve(other.clone(), Path::new(&base), self.secrets.root())?.captured(&name).await
            } else {
                Ok(None)
            };
            seen.extend(tables.transpose().map(|tables| (name, tables)));
        }
        Ok(found(new, others, &seen))
    }

    /// What the sinks of a text that is not stored would stop at.
    pub async fn rowless(&self, new: &Pipeline) -> Result<Vec<String>, Failure> {
        let all = self.local.pipelines().await.map_err(control_failure)?;
        let found = self.rowless_of(new, None, &others_of(&all, &new.name)).await?.into_iter();
        let errors = found.filter(|(_, f)| f.severity == Severity::Error);
        Ok(errors.map(|(_, f)| format!("{}: {}", f.code, f.fault)).collect())
    }
}
