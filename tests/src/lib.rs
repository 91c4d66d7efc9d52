//! Rank 9. What the tests of the built binary share: starting it, and saying loudly what was skipped.

pub mod bank;
pub mod broker;
pub mod decode;
pub mod dev;
pub mod kafka;
pub mod pg;
pub mod proxy;
pub mod python;
pub mod rig;

/// A missing tool: printed, and counted by the check.
pub fn skip(test: &str, why: &str) {
    println!("SKIP {test}: {why}");
    if let Some(path) = std::env::var_os("CW_SKIP_FILE") {
        use std::io::Write;
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        if let Ok(mut file) = file {
            let _ = writeln!(file, "{test}: {why}");
        }
    }
}
