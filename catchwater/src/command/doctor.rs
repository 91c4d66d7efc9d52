//! `catchwater doctor [FILE]`: tries what a start would need, and asks the databases of a pipeline file what would stop
//! a capture. Changes nothing.

use crate::cli::Node;
use crate::command::validate;
use crate::config;
use crate::pipeline::Options;
use crate::report::{Done, Exit, Failure, Output};
use serde_json::json;
use std::net::TcpListener;
use std::path::Path;

pub async fn run(file: Option<&Path>, node: &Node) -> Result<Done, Failure> {
    let config = config::load(node, None, None, &[])?;
    let mut lines: Vec<(bool, String)> = Vec::new();
    for (what, address, flag) in [("kafka", config.listen, "--listen"), ("http", config.http, "--http")] {
        match TcpListener::bind(address) {
            Ok(_) => lines.push((true, format!("{what} address {address} is free"))),
            Err(e) => lines.push((false, format!("CW0001 {what} address {address}: {e}; another one: {flag}"))),
        }
    }
    lines.push(directory(&config.data_dir));
    let (soft, _) = descriptors();
    lines.push((soft >= 1024, format!("{soft} file descriptors allowed (1024 or more wanted: ulimit -n)")));
    let mut failed = lines.iter().any(|(ok, _)| !ok);
    let mut text: String =
        lines.iter().map(|(ok, l)| format!("{} {l}\n", if *ok { "ok   " } else { "ERROR" })).collect();
    let mut findings = Vec::new();
    if let Some(file) = file {
        let (pipeline, ..) = validate::load(file, Options { plain_secrets: true }, Output::Table)?;
        let base = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        for (node, f) in crate::assemble::preflight(pipeline, base).await? {
            let error = f.severity == catchwater_capture::source::Severity::Error;
            failed |= error;
            text.push_str(&format!("{} {} {node}: {}\n", if error { "ERROR" } else { "warn " }, f.code, f.fault));
            if !f.evidence.is_empty() {
                text.push_str(&format!("        cause: {}\n", f.evidence));
            }
            text.push_str(&format!("        next:  {}\n", f.cure));
            for sql in &f.sql {
                text.push_str(&format!("               {sql}\n"));
            }
            findings.push(json!({"node": node, "code": f.code.to_string(), "error": error, "fault": f.fault, "evidence": f.evidence, "cure": f.cure, "sql": f.sql}));
        }
        if findings.is_empty() {
            text.push_str("ok    every source and sink of the file can be used\n");
        }
    }
    let result = json!({"checks": lines.iter().map(|(ok, l)| json!({"ok": ok, "text": l})).collect::<Vec<_>>(), "findings": findings});
    if failed {
        print_table(&text);
        let mut f = Failure::new(Exit::Environment, "CW0010", "something would stop Catchwater here")
            .cause("see the lines marked ERROR")
            .next("cure them and run doctor again");
        f.details = Some(Box::new(result));
        return Err(f);
    }
    Ok(Done::new("nothing would stop Catchwater here", result, text))
}

fn print_table(text: &str) {
    eprint!("{text}");
}

/// Is the directory usable, or could it be made?
fn directory(path: &Path) -> (bool, String) {
    let shown = path.display();
    let mut at = path;
    while !at.exists() {
        match at.parent() {
            Some(p) if !p.as_os_str().is_empty() => at = p,
            _ => {
                at = Path::new(".");
                break;
            }
        }
    }
    let probe = at.join(format!(".catchwater-doctor.{}", std::process::id()));
    match std::fs::write(&probe, b"x") {
        Ok(()) => {
            let _ = std::fs::remove_file(&probe);
            (true, format!("data directory {shown} can be written"))
        }
        Err(e) => (false, format!("CW0002 data directory {shown}: {e}; another one: --data-dir")),
    }
}

/// Soft and hard limit of open files, as Linux shows them.
fn descriptors() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let numbers = text.lines().find(|l| l.starts_with("Max open files")).map(|l| {
        let mut n = l.split_whitespace().skip(3).map(|w| w.parse().unwrap_or(u64::MAX));
        (n.next().unwrap_or(0), n.next().unwrap_or(0))
    });
    numbers.unwrap_or((u64::MAX, u64::MAX))
}
