//! `tests/formats/decode.py`: a data directory read with nothing but `docs/formats/*.md`.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A script of `tests/formats`.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("formats").join(name)
}

/// What the decoder says of a directory that no node holds, which must be without a problem: the report, and every record of
/// topics that are not internal. `None` = there is no Python (a SKIP).
#[track_caller]
pub fn decode(test: &str, dir: &Path) -> Option<(Value, Vec<Value>)> {
    let found = report(test, dir)?;
    assert_eq!(found.0["problems"], serde_json::json!([]), "the pages do not say what is in {}", dir.display());
    Some(found)
}

/// The same with its problems.
pub fn report(test: &str, dir: &Path) -> Option<(Value, Vec<Value>)> {
    let python = match crate::python::interpreter() {
        Ok(python) => python,
        Err(why) => {
            crate::skip(test, &format!("Python: {why}"));
            return None;
        }
    };
    let out = Command::new(python).arg(script("decode.py")).arg("--records").arg(dir).output().expect("Python runs");
    let text = String::from_utf8(out.stdout).expect("UTF-8");
    let mut lines = text.lines().map(|line| serde_json::from_str(line).expect("JSON lines"));
    let report: Value = lines.next().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&out.stderr)));
    let sound = report["problems"] == serde_json::json!([]);
    assert_eq!(out.status.code(), Some(i32::from(!sound)), "{}", String::from_utf8_lossy(&out.stderr));
    Some((report, lines.collect()))
}

/// How many of each thing the decoder must have seen, by its own names: a decoder that looks at nothing finds no problems.
#[track_caller]
pub fn seen(report: &Value, names: &[&str]) {
    for name in names {
        assert!(report["counts"][name].as_u64() > Some(0), "no {name} was decoded: {}", report["counts"]);
    }
}
