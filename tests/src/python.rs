//! The Python clients: an interpreter with confluent-kafka, kafka-python and aiokafka, from `CW_TEST_PYTHON` (the check makes
//! it) or a virtual environment made once outside the clone.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

/// As `requirements` of pip: the clients and the codecs they load.
const PACKAGES: [&str; 7] =
    ["confluent-kafka", "kafka-python", "aiokafka", "python-snappy", "lz4", "zstandard", "cramjam"];
const IMPORTS: &str = "import confluent_kafka, kafka, aiokafka, snappy, lz4, zstandard, cramjam";

/// The interpreter, or why there is none.
pub fn interpreter() -> Result<PathBuf, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND.get_or_init(|| find().map_err(|e| format!("{e:#}"))).clone()
}

fn find() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("CW_TEST_PYTHON") {
        let path = PathBuf::from(path);
        run(Command::new(&path).args(["-c", IMPORTS])).context("CW_TEST_PYTHON lacks the clients")?;
        return Ok(path);
    }
    let cache = std::env::var_os("CW_CHECK_CACHE")
        .map_or_else(|| std::env::temp_dir().join("catchwater-check-cache"), PathBuf::from);
    let python = cache.join("venv/bin/python");
    if run(Command::new(&python).args(["-c", IMPORTS])).is_err() {
        run(Command::new("python3").args(["-m", "venv"]).arg(cache.join("venv")))?;
        run(Command::new(&python).args(["-m", "pip", "install", "-q", "--disable-pip-version-check"]).args(PACKAGES))?;
        run(Command::new(&python).args(["-c", IMPORTS]))?;
    }
    Ok(python)
}

fn run(command: &mut Command) -> Result<()> {
    let out = command.output().with_context(|| format!("{command:?}"))?;
    if !out.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}
