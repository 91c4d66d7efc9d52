//! `catchwater version`.

use crate::report::Done;
use serde_json::json;

pub fn run() -> Done {
    let version = env!("CARGO_PKG_VERSION");
    let build = if cfg!(debug_assertions) { "debug assertions" } else { "release" };
    let result = json!({"version": version, "build": build, "kafka_protocol": "4.3", "pipeline_version": 1, "os": std::env::consts::OS, "arch": std::env::consts::ARCH});
    Done::new(
        format!("catchwater {version}"),
        result,
        format!("catchwater {version} ({build}; speaks Kafka 4.3; pipeline version 1)"),
    )
}
