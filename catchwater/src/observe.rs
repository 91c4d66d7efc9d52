//! Log lines and metrics of this process.
//!
//! Logs: JSON lines on standard error with a stable `event`; `CATCHWATER_LOG=error|warn|info|debug` (default `warn` for
//! `dev`, `info` for `start`). Metrics: OpenMetrics text from the plain atomics that the other crates count with.

use catchwater_base::log::Level;
use serde_json::json;
use std::fmt::Arguments;
use std::io::Write;
use std::sync::atomic::{AtomicU8, Ordering};

static LIMIT: AtomicU8 = AtomicU8::new(2);

fn number(level: Level) -> u8 {
    match level {
        Level::Error => 0,
        Level::Warn => 1,
        Level::Info => 2,
        Level::Debug => 3,
    }
}

/// Sets the process-wide sink of log lines.
pub fn start_logging(default: Level) {
    let level = match std::env::var("CATCHWATER_LOG").as_deref() {
        Ok("error") => Level::Error,
        Ok("warn") => Level::Warn,
        Ok("info") => Level::Info,
        Ok("debug") => Level::Debug,
        _ => default,
    };
    LIMIT.store(number(level), Ordering::Relaxed);
    catchwater_base::log::set_hook(line);
}

/// The least important level that is written, in log4j's words.
pub fn level() -> &'static str {
    match LIMIT.load(Ordering::Relaxed) {
        0 => "ERROR",
        1 => "WARN",
        2 => "INFO",
        _ => "DEBUG",
    }
}

/// From now on; false = there is no such level.
pub fn set_level(word: &str) -> bool {
    let level = match word.to_ascii_uppercase().as_str() {
        "FATAL" | "ERROR" => Level::Error,
        "WARN" => Level::Warn,
        "INFO" => Level::Info,
        "DEBUG" | "TRACE" => Level::Debug,
        _ => return false,
    };
    LIMIT.store(number(level), Ordering::Relaxed);
    true
}

fn line(level: Level, event: &'static str, message: Arguments<'_>) {
    if number(level) > LIMIT.load(Ordering::Relaxed) {
        return;
    }
    let word = match level {
        Level::Error => "ERROR",
        Level::Warn => "WARN",
        Level::Info => "INFO",
        Level::Debug => "DEBUG",
    };
    let ms = catchwater_runtime::time::wall().as_millis();
    let text = json!({"ts_ms": ms, "level": word, "event": event, "message": message.to_string()});
    let mut out = std::io::stderr().lock();
    let _ = writeln!(out, "{text}");
}

/// `CATCHWATER_CRASH_AT=log.after_append:2` kills the process at the second pass of that point; `CATCHWATER_STEPS=FILE`
/// writes the name of each point passed, one a line, in the order of the passes (builds with debug assertions only: in a
/// release the points are nothing).
///
/// `CATCHWATER_MUTANT=no_directory_fsync` plants that bug (builds with `--cfg sim` only: no other holds one).
pub fn start_crash_points() {
    #[cfg(sim)]
    if let Ok(name) = std::env::var("CATCHWATER_MUTANT") {
        catchwater_base::mutant::set_process(name);
    }
    if std::env::var_os("CATCHWATER_CRASH_AT").is_some() || std::env::var_os("CATCHWATER_STEPS").is_some() {
        catchwater_base::crash::set_hook(passed);
    }
    if std::env::var_os("CATCHWATER_PANIC_AT").is_some() {
        catchwater_base::crash::set_panic_hook(panic_here);
    }
}

/// `CATCHWATER_PANIC_AT=group.propose@7:2` panics at the second pass of that point in group 7 (its gid, decimal), and only
/// there; `group.propose@7:2+` at each one from the second on.
fn panic_here(name: &'static str, of: u64) {
    use std::sync::OnceLock;
    use std::sync::atomic::AtomicU64;
    static WANTED: OnceLock<Option<(String, u64, u64, bool)>> = OnceLock::new();
    static PASSES: AtomicU64 = AtomicU64::new(0);
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("CATCHWATER_PANIC_AT").ok()?;
        let (name, rest) = text.split_once('@')?;
        let (of, pass) = rest.split_once(':').unwrap_or((rest, "1"));
        let first = pass.trim_end_matches('+').parse().ok()?;
        Some((name.to_owned(), of.parse().ok()?, first, pass.ends_with('+')))
    });
    let Some((point, group, first, again)) = wanted else { return };
    if name == point && of == *group {
        let pass = PASSES.fetch_add(1, Ordering::SeqCst) + 1;
        assert!(pass < *first || (pass > *first && !again), "asked for by CATCHWATER_PANIC_AT at pass {pass}");
    }
}

fn passed(name: &'static str) {
    record(name);
    crash(name);
}

fn record(name: &'static str) {
    use std::sync::{Mutex, OnceLock};
    static STEPS: OnceLock<Option<Mutex<std::fs::File>>> = OnceLock::new();
    let steps = STEPS.get_or_init(|| {
        let path = std::env::var_os("CATCHWATER_STEPS")?;
        std::fs::OpenOptions::new().append(true).create(true).open(path).ok().map(Mutex::new)
    });
    if let Some(file) = steps
        && let Ok(mut file) = file.lock()
    {
        // One write a line: what was passed is there, whatever comes next.
        let _ = file.write_all(format!("{name}\n").as_bytes());
    }
}

fn crash(name: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::AtomicU64;
    static WANTED: OnceLock<(String, u64)> = OnceLock::new();
    static PASSES: AtomicU64 = AtomicU64::new(0);
    let (wanted, pass) = WANTED.get_or_init(|| {
        let text = std::env::var("CATCHWATER_CRASH_AT").unwrap_or_default();
        match text.rsplit_once(':').and_then(|(n, p)| Some((n.to_owned(), p.parse().ok()?))) {
            Some(found) => found,
            None => (text, 1),
        }
    });
    if name == wanted && PASSES.fetch_add(1, Ordering::SeqCst) + 1 == *pass {
        // SIGKILL: nothing of ours runs after it, as in a power cut that spares the page cache.
        let pid = std::process::id().to_string();
        let _ = std::process::Command::new("kill").args(["-KILL", &pid]).status();
        loop {
            std::thread::park();
        }
    }
}
