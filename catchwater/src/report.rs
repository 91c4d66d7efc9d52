//! What the program says to people and to scripts: one error shape, one JSON envelope, the exit codes.
//!
//! Exit 0 ok, 1 runtime, 2 validation or refused, 3 environment, 130/143 signals. Every failure has a code with a page
//! (`catchwater explain CODE`), a cause and a next step. No stack trace, no secret.

use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr;

/// How standard output is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum, Default)]
pub enum Output {
    #[default]
    Table,
    Json,
}

/// Which exit code a failure has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    Runtime = 1,
    Refused = 2,
    Environment = 3,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    pub exit: Exit,
    /// `CW0311`
    pub code: String,
    /// What failed, one line.
    pub message: String,
    /// Why, as far as known; may be empty.
    pub cause: String,
    /// What to do next; may be empty.
    pub next: String,
    /// Already shown in full (the validator's rendering): print nothing more in table form.
    pub shown: bool,
    /// Machine-readable details for the JSON envelope.
    pub details: Option<Box<Value>>,
}

impl Failure {
    pub fn new(exit: Exit, code: &str, message: impl Into<String>) -> Self {
        Failure {
            exit,
            code: code.to_owned(),
            message: message.into(),
            cause: String::new(),
            next: String::new(),
            shown: false,
            details: None,
        }
    }
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.cause = cause.into();
        self
    }
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = next.into();
        self
    }
    /// For people.
    fn text(&self) -> String {
        let mut text = format!("error[{}]: {}\n", self.code, self.message);
        if !self.cause.is_empty() {
            text.push_str(&format!("  cause: {}\n", self.cause));
        }
        if !self.next.is_empty() {
            text.push_str(&format!("  next:  {}\n", self.next));
        }
        text.push_str(&format!("  more:  catchwater explain {}\n", self.code));
        text
    }
}

/// What a command gives back: a line for people, a value for scripts.
pub struct Done {
    pub summary: String,
    pub result: Value,
    /// The table form, printed as it is; empty = print the summary.
    pub text: String,
}

impl Done {
    pub fn new(summary: impl Into<String>, result: Value, text: impl Into<String>) -> Self {
        Done { summary: summary.into(), result, text: text.into() }
    }
    /// Everything was printed while the command ran.
    pub fn silent() -> Self {
        Done { summary: String::new(), result: Value::Null, text: String::new() }
    }
}

/// Prints the outcome and gives the exit code.
pub fn finish(command: &str, output: Output, outcome: Result<Done, Failure>) -> u8 {
    match outcome {
        Ok(done) => {
            let text = if done.text.is_empty() { &done.summary } else { &done.text };
            match output {
                Output::Json if !(done.summary.is_empty() && done.result.is_null()) => {
                    let envelope = json!({"command": command, "ok": true, "summary": done.summary, "result": done.result, "error": null});
                    print(&format!("{envelope}\n"));
                }
                Output::Json => {}
                Output::Table if !text.is_empty() => {
                    print(&ensure_newline(text));
                }
                Output::Table => {}
            }
            0
        }
        Err(f) => {
            if output == Output::Json {
                let mut error = json!({"code": f.code, "message": f.message, "cause": f.cause, "next": f.next});
                if let (Some(details), Some(map)) = (f.details, error.as_object_mut()) {
                    map.insert("details".into(), *details);
                }
                let envelope =
                    json!({"command": command, "ok": false, "summary": f.message, "result": null, "error": error});
                print(&format!("{envelope}\n"));
            } else if !f.shown {
                eprint!("{}", f.text());
            }
            f.exit as u8
        }
    }
}

/// Standard output of a command; a reader that went away (`| head`) is no error. What cannot be written for another reason (a full
/// disk) ends the command: whoever reads the file later must not take what is there for all of it.
///
/// False = the reader went away: who prints without end must end.
pub fn print(text: &str) -> bool {
    write(text).unwrap_or_else(|e| {
        let failure = Failure::new(Exit::Environment, "CW0014", "standard output cannot be written")
            .cause(e.to_string())
            .next("make room, or write elsewhere; what the command changed, it has changed");
        eprint!("{}", failure.text());
        std::process::exit(i32::from(failure.exit as u8));
    })
}

/// As [`print`], by a node: it goes on.
pub fn show(text: &str) {
    let _ = write(text);
}

fn write(text: &str) -> std::io::Result<bool> {
    use std::io::{ErrorKind, Write};
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(false),
        done => done.map(|()| true),
    }
}

fn ensure_newline(text: &str) -> String {
    if text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}

/// Columns aligned, header first. What a database said may have line ends and control characters in it, which a terminal would
/// obey: a blank stands for each.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let plain = |cell: &String| cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(plain).collect()).collect();
    let mut widths: Vec<usize> = header.iter().map(|h| h.width()).collect();
    for row in &rows {
        for (w, cell) in widths.iter_mut().zip(row) {
            *w = (*w).max(cell.width());
        }
    }
    let mut out = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (w, cell) in widths.iter().zip(cells) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', w.saturating_sub(cell.width()) + 2));
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(&mut header.iter().copied());
    for row in &rows {
        line(&mut row.iter().map(String::as_str));
    }
    out
}
