//! Debezium's channel `file`: a file that people append signals to, one JSON object a line, and that is emptied when they
//! have been followed.
//!
//! A line is in the log before it leaves the file: [`StatusHandle::signal`] answers once what it asks for is committed, and
//! only when every line has its answer the file is emptied. So a crash loses none; one at that place finds lines again
//! that were followed, and follows them again (as with the signal topic). Debezium empties first. The file is emptied only
//! as long as it is what was read; what is appended meanwhile is followed before.
//!
//! A last line without its end is taken once it is a whole JSON object, or has stayed as it is from one look to the next.
//! The file is not the connection's: this needs nothing of PostgreSQL and serves any source.

use catchwater_base::log;
use catchwater_capture::signal::{self, Signal};
use catchwater_capture::{StatusHandle, TOO_MANY};
use catchwater_change::json;
use catchwater_record::SourceName;
use catchwater_runtime::spawn::blocking;
use catchwater_runtime::time;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes of one read, and of the longest line; a longer one is refused in parts.
const READ_BYTES: u64 = 1024 * 1024;

/// Looks into the file at `path` now and `every` so often, for as long as it is polled. Ends with the worker of `status`:
/// drop it then.
pub async fn follow(path: PathBuf, every: Duration, source: SourceName, status: StatusHandle) {
    let mut followed = Followed { path, source, status, done: 0, lines: 0, open_end: None, trouble: String::new() };
    loop {
        followed.look().await;
        time::sleep(every).await;
    }
}

struct Followed {
    path: PathBuf,
    source: SourceName,
    status: StatusHandle,
    /// Bytes and lines of the file that need nothing any more.
    done: u64,
    lines: u64,
    /// Where a last line without its end stopped when it was seen.
    open_end: Option<u64>,
    /// The newest error of the file, which is said once.
    trouble: String,
}

/// What stands behind `from`, and how long the file is.
struct Part {
    bytes: Vec<u8>,
    len: u64,
}

impl Followed {
    async fn look(&mut self) {
        loop {
            let (path, from) = (self.path.clone(), self.done);
            let part = match blocking(move || read(&path, from)).await.unwrap_or_else(|why| Err(io::Error::other(why)))
            {
                Ok(Some(part)) => part,
                Ok(None) => return self.begin_again(),
                Err(e) => return self.say(&e),
            };
            self.trouble.clear();
            if part.len < self.done {
                // Another one was put there, or somebody emptied it.
                self.begin_again();
                continue;
            }
            if part.bytes.is_empty() {
                if self.done == 0 {
                    return;
                }
                catchwater_base::crash_point!("capture.before_signals_emptied");
                let (path, len) = (self.path.clone(), self.done);
                match blocking(move || empty(&path, len)).await.unwrap_or_else(|why| Err(io::Error::other(why))) {
                    Ok(true) => return self.begin_again(),
                    Ok(false) => continue,
                    Err(e) => return self.say(&e),
                }
            }
            let is_last = self.done + part.bytes.len() as u64 >= part.len;
            let Some(upto) = self.whole(&part.bytes, part.len, is_last) else { return };
            for line in part.bytes[..upto].split_inclusive(|b| *b == b'\n') {
                if !self.line(line).await {
                    return; // the same line at the next look
                }
                self.done += line.len() as u64;
                self.lines += 1;
            }
            if self.open_end.is_some() {
                return; // the next look tells whether it stays so
            }
        }
    }

    /// How many bytes are whole lines; `None` = the end of the first has to come yet.
    fn whole(&mut self, bytes: &[u8], len: u64, is_last: bool) -> Option<usize> {
        let upto = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let tail = &bytes[upto..];
        if tail.is_empty() || (!is_last && upto > 0) {
            self.open_end = None;
            return Some(upto);
        }
        let is_object = tail.trim_ascii().starts_with(b"{") && json::parse(tail).is_ok();
        // Of a line longer than a read, or one that nobody writes on.
        if is_object || !is_last || self.open_end.replace(len) == Some(len) {
            self.open_end = None;
            return Some(bytes.len());
        }
        (upto > 0).then_some(upto)
    }

    /// False if it was not followed now and is to be tried again.
    async fn line(&mut self, line: &[u8]) -> bool {
        let line = line.trim_ascii();
        if line.is_empty() {
            return true;
        }
        let why = match signal::parse_record(line) {
            Ok(asked) => match self.ask(asked).await {
                Some(Ok(said)) => {
                    log!(Info, "source.signal", "source {}: signal file, line {}: {said}", self.source, self.lines + 1);
                    return true;
                }
                Some(Err(why)) if why == TOO_MANY => return false,
                Some(Err(why)) => why,
                None => return false,
            },
            Err(why) => why.to_string(),
        };
        let what = format!("signal file {}, line {}: {why}", self.path.display(), self.lines + 1);
        log!(Warn, "source.signal", "source {}: CW0591 {what}; it is skipped", self.source);
        self.status.refused(&what);
        true
    }

    /// `None` = the worker let it go: its connection broke, and its next attempt takes it.
    async fn ask(&self, asked: Signal) -> Option<Result<String, String>> {
        self.status.signal(asked).await.ok().map(|told| told.map_err(|e| e.to_string()))
    }

    fn begin_again(&mut self) {
        (self.done, self.lines, self.open_end) = (0, 0, None);
    }

    fn say(&mut self, e: &io::Error) {
        let what = format!("signal file {}: {e}", self.path.display());
        if what != self.trouble {
            log!(
                Warn,
                "source.signal",
                "source {}: CW0591 {what}; nothing of it is followed until that is cured",
                self.source
            );
            self.status.refused(&what);
            self.trouble = what;
        }
    }
}

/// With the right to empty it, or what is followed would be followed again and again. `None` = there is no such file.
fn open(path: &Path) -> io::Result<Option<(File, u64)>> {
    match std::fs::metadata(path) {
        Ok(m) if m.is_file() => {}
        Ok(m) if m.is_dir() => return Ok(None),
        Ok(_) => return Err(io::Error::other("it is no regular file")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    }
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let len = file.metadata()?.len();
    Ok(Some((file, len)))
}

fn read(path: &Path, from: u64) -> io::Result<Option<Part>> {
    let Some((mut file, len)) = open(path)? else { return Ok(None) };
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(READ_BYTES).read_to_end(&mut bytes)?;
    // It may have grown since.
    Ok(Some(Part { len: len.max(if bytes.is_empty() { 0 } else { from + bytes.len() as u64 }), bytes }))
}

/// False if it is not `len` bytes long any more.
fn empty(path: &Path, len: u64) -> io::Result<bool> {
    let Some((file, now)) = open(path)? else { return Ok(true) };
    if now == len {
        file.set_len(0)?;
    }
    Ok(now == len)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn followed(path: PathBuf) -> Followed {
        let (source, status) = (SourceName::from("shop"), StatusHandle::default());
        Followed { path, source, status, done: 0, lines: 0, open_end: None, trouble: String::new() }
    }

    #[test]
    fn a_line_is_whole_at_its_end_as_an_object_or_when_nobody_writes_on() {
        let mut f = followed(PathBuf::new());
        assert_eq!(f.whole(b"a\nb\n", 4, true), Some(4));
        assert_eq!(f.whole(b"a\n{\"b\":", 7, true), Some(2), "what is whole does not wait");
        assert_eq!(f.whole(b"{\"b\":", 7, true), Some(5), "as it was");
        assert_eq!(f.whole(b"{\"b\":", 7, true), None);
        assert_eq!(f.whole(b"{\"b\":1", 9, true), None, "it grew");
        assert_eq!(f.whole(b"{\"b\":1}", 10, true), Some(7));
        assert_eq!(f.whole(b"12", 2, true), None, "a number may get more digits");
        assert_eq!(f.whole(b"aaaa", 9, false), Some(4), "longer than a read");
    }

    /// Bad lines need no worker; nothing but a whole look empties the file, and an append in between is seen.
    #[tokio::test]
    async fn a_file_is_emptied_when_all_its_lines_are_done_and_never_with_lines_behind() {
        let dir = std::env::temp_dir().join(format!("cw-signal-file-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("signals.txt");
        let mut f = followed(path.clone());
        f.look().await; // there is none
        std::fs::write(&path, "no json\n\n  \n{\"type\":\"nonsense\"}\r\n[1]").unwrap();
        f.look().await;
        assert_eq!(f.status.get().signals_refused, 2);
        assert!(f.status.get().last_refusal.unwrap().contains("line 4: type `nonsense` is none of"));
        assert!(std::fs::metadata(&path).unwrap().len() > 0, "its last line may go on");
        f.look().await;
        assert_eq!(f.status.get().signals_refused, 3);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        assert!(!empty(&path, 7).unwrap(), "another length than what was read");
        std::fs::remove_file(&path).unwrap();
        // No file at all is nothing to say; a place that cannot be read is said once.
        let mut f = followed(PathBuf::from("/dev/null"));
        f.look().await;
        f.look().await;
        assert_eq!(f.status.get().signals_refused, 1);
        std::fs::remove_dir(&dir).unwrap();
    }
}
