//! The binary below `strace`: faults at exact system calls, and the names it made, from the shipped binary itself.
//!
//! `strace -D` makes the tracer a grandchild, so that the process we hold, wait for and kill is the broker. A signal is only
//! injected without `--seccomp-bpf` (strace 6.1 on Linux 6.18 passes such a call by, measured); errors and return values work
//! with it, and cost nothing for the calls that are not named.

use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// One tracer's command line.
#[derive(Clone, Debug)]
pub struct Strace {
    /// `-e` and its value, again and again.
    expressions: Vec<String>,
    out: PathBuf,
    /// Only the named calls stop the process.
    seccomp: bool,
}

impl Strace {
    /// Follows `calls` (strace's words, separated by commas), written to `out`.
    pub fn new(out: &Path, calls: &str) -> Strace {
        Strace { expressions: vec![format!("trace={calls}")], out: out.to_owned(), seccomp: true }
    }

    /// SIGKILL at the entry of the `when`-th `call` of any one thread.
    pub fn kill_at(mut self, call: &str, when: u32) -> Strace {
        self.expressions.push(format!("inject={call}:signal=SIGKILL:when={when}"));
        self.seccomp = false;
        self
    }

    /// `error` instead of the `when`-th `call` of any one thread, once. The call itself is not made.
    pub fn fail_at(mut self, call: &str, error: &str, when: u32) -> Strace {
        self.expressions.push(format!("inject={call}:error={error}:when={when}"));
        self
    }

    /// Every seventh `call` of each thread waits so long before it is made.
    pub fn slow(mut self, call: &str, delay: Duration) -> Strace {
        self.expressions.push(format!("inject={call}:delay_enter={}:when=3+7", delay.as_micros()));
        self
    }

    /// Every `call` says it succeeded and does nothing.
    pub fn lie(mut self, call: &str) -> Strace {
        self.expressions.push(format!("inject={call}:retval=0"));
        self
    }

    pub fn out(&self) -> &Path {
        &self.out
    }

    pub fn command(&self, binary: &Path) -> Command {
        let mut command = Command::new("strace");
        command.args(["-D", "-f", "-q", "-y", "-ttt", "-s", "64"]);
        if self.seccomp {
            command.arg("--seccomp-bpf");
        }
        for e in &self.expressions {
            command.args(["-e", e]);
        }
        command.arg("-o").arg(&self.out).arg(binary);
        command
    }

    /// The trace, once the tracer has written it out: its file no longer grows after the process is gone.
    pub fn read(&self) -> String {
        let read = || std::fs::read_to_string(&self.out).unwrap_or_default();
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut text = read();
        // The tracer is not our child, so nobody can wait for it; its last words are about the end of the process.
        while !text.contains("+++ killed by") && !text.contains("+++ exited with") && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
            text = read();
        }
        text
    }
}

/// Whether strace is there and may trace.
pub fn probe() -> Result<()> {
    let out = Command::new("strace").args(["-f", "-o", "/dev/null", "-e", "trace=write", "true"]).output();
    let out = out.map_err(|e| anyhow::anyhow!("strace: {e}"))?;
    ensure!(out.status.success(), "strace cannot trace: {}", String::from_utf8_lossy(&out.stderr).trim());
    Ok(())
}

/// How often the busiest thread of a trace made each call: `when` up to it can be hit.
pub fn calls_per_thread(trace: &str) -> BTreeMap<String, u32> {
    let mut counts: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for line in trace.lines() {
        let Some((tid, call)) = entry_of(line) else { continue };
        *counts.entry((tid, call)).or_default() += 1;
    }
    let mut most = BTreeMap::new();
    for ((_, call), n) in counts {
        let have: &mut u32 = most.entry(call.to_owned()).or_default();
        *have = n.max(*have);
    }
    most
}

/// Thread and name of the call that a line begins; none for resumed calls, signals and ends.
pub fn entry_of(line: &str) -> Option<(&str, &str)> {
    let (tid, rest) = line.trim_start().split_once(char::is_whitespace)?;
    let (_, rest) = rest.trim_start().split_once(' ')?;
    let (call, _) = rest.split_once('(')?;
    let is_name = !call.is_empty() && call.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    is_name.then_some((tid, call))
}

/// Seconds since 1970 at which a line was written.
pub fn time_of(line: &str) -> Option<f64> {
    line.trim_start().split_once(char::is_whitespace)?.1.trim_start().split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "\
17697 1790000000.100000 openat(AT_FDCWD</tmp>, \"/d/x\", O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC, 0644) = 5</d/x>
17698 1790000000.200000 fdatasync(5</d/x>) = 0
17697 1790000000.300000 fdatasync(5</d/x> <unfinished ...>
17698 1790000000.350000 fdatasync(5</d/x>) = -1 EIO (Input/output error) (INJECTED)
17697 1790000000.400000 <... fdatasync resumed>) = 0
17697 1790000000.500000 +++ killed by SIGKILL +++
";

    #[test]
    fn calls_are_counted_once_each_and_per_thread() {
        let calls = calls_per_thread(TRACE);
        assert_eq!(calls.get("fdatasync"), Some(&2));
        assert_eq!(calls.get("openat"), Some(&1));
        assert_eq!(calls.len(), 2);
    }

    #[test]
    fn a_line_has_a_time() {
        assert_eq!(TRACE.lines().nth(3).and_then(time_of), Some(1_790_000_000.35));
    }
}
