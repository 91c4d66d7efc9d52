//! `catchwater validate FILE`: every error of a pipeline file with line, column and suggestion. Contacts nothing.

use crate::pipeline::{self, Finding, Options, Pipeline, finding::codes, render};
use crate::report::{Done, Exit, Failure, Output};
use serde_json::json;
use std::path::Path;

/// Reads and checks a file. Warnings are printed; errors become the failure, fully rendered.
pub fn load(file: &Path, options: Options, output: Output) -> Result<(Pipeline, String, Vec<Finding>), Failure> {
    let bytes = std::fs::read(file).map_err(|e| {
        Failure::new(Exit::Environment, "CW0300", format!("cannot read {}", file.display()))
            .cause(e.to_string())
            .next("check the path; a pipeline file is YAML, see docs/pipeline.md")
    })?;
    let (pipeline, findings) = pipeline::check(&bytes, options);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let name = file.display().to_string();
    if output == Output::Table && !findings.is_empty() {
        eprint!("{}", render::render(&name, &text, &findings));
    }
    match pipeline {
        Some(p) => Ok((p, text, findings)),
        None => {
            let errors: Vec<&Finding> = findings.iter().filter(|f| f.is_error()).collect();
            let first = errors.first().map_or(codes::SHAPE, |f| f.code);
            let mut failure = Failure::new(Exit::Refused, first, format!("{name}: {} error(s)", errors.len()));
            if let Some(f) = errors.first() {
                failure = failure.cause(format!("{}:{}:{}: {}", name, f.span.line, f.span.column, f.message));
                failure = failure.next(f.suggestions.first().cloned().unwrap_or_default());
            }
            failure.shown = true;
            failure.details = Some(Box::new(with_file(&name, &findings)));
            Err(failure)
        }
    }
}

fn with_file(name: &str, findings: &[Finding]) -> serde_json::Value {
    findings
        .iter()
        .map(|f| {
            let mut v = serde_json::to_value(f).unwrap_or_default();
            if let Some(map) = v.as_object_mut() {
                map.insert("file".into(), json!(name));
            }
            v
        })
        .collect()
}

pub fn run(file: &Path, plain_secrets: bool, output: Output) -> Result<Done, Failure> {
    let (pipeline, _, findings) = load(file, Options { plain_secrets }, output)?;
    let name = file.display().to_string();
    let summary = format!(
        "{name}: ok (pipeline {}, {} source(s), {} sink(s))",
        pipeline.name,
        pipeline.sources.len(),
        pipeline.sinks.len()
    );
    Ok(Done::new(
        summary,
        json!({"file": name, "pipeline": pipeline.name, "findings": with_file(&name, &findings)}),
        "",
    ))
}
