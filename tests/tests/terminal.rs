//! `top` and `lag --watch` on a terminal: one view that is drawn in its place, no wider and no longer than the terminal, what fails
//! readable on a narrow one, over a restart of the node; Ctrl-C gives the terminal back. Without a terminal: frames, and an end
//! when the reader goes away.

use catchwater_tests::broker::{Broker, binary};
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(40);

/// What a terminal shows after such output: enough of one for what these views use. A line that is too long wraps, and one below the
/// last scrolls, as on a real one.
struct Shown {
    cells: Vec<Vec<char>>,
    columns: usize,
    line: usize,
    column: usize,
    alternate: bool,
    cursor: bool,
    scrolled: usize,
}

impl Shown {
    fn new(columns: usize, lines: usize) -> Shown {
        let cells = vec![vec![' '; columns]; lines];
        Shown { cells, columns, line: 0, column: 0, alternate: false, cursor: true, scrolled: 0 }
    }

    fn feed(&mut self, text: &str) {
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            match c {
                '\r' => self.column = 0,
                '\n' => self.down(),
                '\x1b' => {
                    let mut code = String::new();
                    assert_eq!(rest.next(), Some('['));
                    for c in rest.by_ref() {
                        code.push(c);
                        if c.is_ascii_alphabetic() {
                            break;
                        }
                    }
                    self.obey(&code);
                }
                c => {
                    if self.column == self.columns {
                        self.column = 0;
                        self.down();
                    }
                    self.cells[self.line][self.column] = c;
                    self.column += 1;
                }
            }
        }
    }

    fn down(&mut self) {
        if self.line + 1 < self.cells.len() {
            self.line += 1;
        } else {
            self.cells.remove(0);
            self.cells.push(vec![' '; self.columns]);
            self.scrolled += 1;
        }
    }

    fn obey(&mut self, code: &str) {
        match code {
            "H" => (self.line, self.column) = (0, 0),
            "K" => self.cells[self.line][self.column..].fill(' '),
            "J" => {
                self.cells[self.line][self.column..].fill(' ');
                self.cells[self.line + 1..].iter_mut().for_each(|l| l.fill(' '));
            }
            "2J" => self.cells.iter_mut().for_each(|l| l.fill(' ')),
            "?1049h" => self.alternate = true,
            "?1049l" => self.alternate = false,
            "?25l" => self.cursor = false,
            "?25h" => self.cursor = true,
            other => panic!("the terminal is not told {other:?}"),
        }
    }

    fn text(&self) -> String {
        let lines: Vec<String> =
            self.cells.iter().map(|l| l.iter().collect::<String>().trim_end().to_owned()).collect();
        lines.join("\n")
    }
}

/// A command on a terminal of its own.
struct Terminal {
    child: Child,
    master: File,
    out: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn start(args: &[&str], http: &str, columns: u16, lines: u16) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("its other end");
        let name = ptsname(&master, Vec::new()).expect("its name");
        let side = OpenOptions::new().read(true).write(true).open(name.to_str().expect("text")).expect("opens");
        resize(&master, columns, lines);
        let child = Command::new(binary().expect("binary"))
            .args(args)
            .args(["--http", http])
            .stdin(Stdio::null())
            .stdout(side.try_clone().expect("one more"))
            .stderr(side)
            .spawn()
            .expect("runs");
        let (master, out) = (File::from(master), Arc::new(Mutex::new(Vec::new())));
        let (mut from, to) = (master.try_clone().expect("one more"), Arc::clone(&out));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Ends with an error once the command has ended.
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                to.lock().expect("no panic").extend_from_slice(&buffer[..n]);
            }
        });
        Terminal { child, master, out }
    }

    /// What is shown at the end of the newest whole frame, of what came behind `from` bytes.
    fn shown(&self, columns: usize, lines: usize, from: usize) -> Shown {
        let bytes = self.out.lock().expect("no panic").clone();
        let end = bytes.windows(3).rposition(|w| w == b"\x1b[J").map_or(from, |at| at + 3).max(from);
        let mut shown = Shown::new(columns, lines);
        shown.feed(&String::from_utf8_lossy(&bytes[from..end]));
        shown
    }

    fn len(&self) -> usize {
        self.out.lock().expect("no panic").len()
    }

    /// Exit code, and the terminal as it is left.
    fn interrupt(mut self) -> (Option<i32>, Shown) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, Signal::INT).expect("a signal");
        let code = ended(&mut self.child);
        std::thread::sleep(Duration::from_millis(100));
        let mut shown = Shown::new(200, 50);
        shown.feed(&String::from_utf8_lossy(&self.out.lock().expect("no panic")));
        (code, shown)
    }
}

fn resize(master: impl std::os::fd::AsFd, columns: u16, lines: u16) {
    let size = Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size).expect("a size");
}

fn ended(child: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status.code();
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn until(what: &str, mut done: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + LIMIT;
    while let Err(why) = done() {
        assert!(Instant::now() < deadline, "{what}:\n{why}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn run(http: &str, args: &[&str]) -> (bool, String) {
    let out = Command::new(binary().expect("binary")).args(args).args(["--http", http]).output().expect("runs");
    (out.status.success(), [out.stdout, out.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat())
}

/// So many pipelines from SQLite to SQLite; the target of the last one refuses its row.
fn pipelines(folder: &Path, http: &str, count: usize) {
    std::fs::create_dir_all(folder).expect("a folder");
    for n in 0..count {
        let file = |what: &str| folder.join(format!("{what}{n}.db")).display().to_string();
        let source = Connection::open(file("from")).expect("source");
        source.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)").expect("table");
        if n + 1 == count {
            let target = Connection::open(file("to")).expect("target");
            target.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT CHECK (v <> 'no'))").expect("table");
            source.execute_batch("INSERT INTO t VALUES (1, 'no')").expect("row");
        }
        let yaml = format!(
            "version: 1\npipeline: p{n}\nsources:\n  s{n}:\n    sqlite: {{ file: \"{}\", tables: [t] }}\nsinks:\n  k{n}:\n    from: s{n}\n    sqlite: {{ file: \"{}\" }}\n",
            file("from"),
            file("to")
        );
        let path = folder.join(format!("p{n}.yaml"));
        std::fs::write(&path, yaml).expect("file");
        let (ok, text) = run(http, &["apply", &path.display().to_string()]);
        assert!(ok, "{text}");
    }
}

#[test]
fn a_view_is_drawn_in_its_place_on_any_terminal_and_gives_it_back() {
    let mut node = Broker::start();
    let folder = node.data_dir().with_file_name("terminal");
    pipelines(&folder, node.http(), 8);
    let failed = || {
        let text = run(node.http(), &["lag"]).1;
        let is_failed = text.lines().any(|l| l.starts_with("p7 ") && l.contains("CW06"));
        if is_failed { Ok(()) } else { Err(text) }
    };
    until("the last one stops", failed);

    for args in [["top"].as_slice(), &["lag", "--watch"]] {
        let name = args[0];
        let terminal = Terminal::start(args, node.http(), 200, 50);
        let is_whole = |columns: usize, lines: usize, from: usize| {
            let shown = terminal.shown(columns, lines, from);
            let text = shown.text();
            let count = |what: &str| text.lines().filter(|l| l.starts_with(what)).count();
            let right = shown.scrolled == 0
                && count(&format!("catchwater {name}  ")) == 1
                && count("PIPELINE") == 1
                && text.contains("CW06")
                && text.contains("p7 sink k7: ");
            if right { Ok(text) } else { Err(format!("scrolled {}:\n{text}", shown.scrolled)) }
        };
        let wide = |from: usize| {
            is_whole(200, 50, from).and_then(|t| {
                let all = (0..8).all(|n| t.lines().any(|l| l.starts_with(&format!("p{n} "))));
                if all { Ok(()) } else { Err(t) }
            })
        };
        until("a frame", || wide(0));
        // Several frames, all in one place.
        let from = terminal.len();
        until("more frames", || if terminal.len() > from { Ok(()) } else { Err(String::new()) });
        until("a whole one", || wide(0));
        // Narrow and low: cut, and what fails is still told.
        let small = terminal.len();
        resize(&terminal.master, 40, 12);
        until("a small frame", || {
            is_whole(40, 12, small).and_then(|t| {
                let right = t.contains("… ") && t.lines().any(|l| l.starts_with("p7 "));
                if right { Ok(()) } else { Err(t) }
            })
        });
        // The node goes and comes again.
        node.kill();
        let away = || {
            let text = terminal.shown(40, 12, small).text();
            if text.contains("no node answers") { Ok(()) } else { Err(text) }
        };
        until("it is away", away);
        node.restart().expect("start");
        until("it is back", || is_whole(40, 12, small).map(drop));
        let (code, left) = terminal.interrupt();
        assert_eq!((code, left.alternate, left.cursor), (Some(130), false, true), "{}", left.text());
    }

    // Without a terminal: frames, one below the other, without a control character, until nobody reads.
    for args in [["top"].as_slice(), &["lag", "--watch"], &["lag", "--watch", "-o", "json"]] {
        let mut child = Command::new(binary().expect("binary"))
            .args(args)
            .args(["--http", node.http()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("runs");
        let mut reader = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        assert!(!line.is_empty() && !line.contains('\x1b'), "{line:?}");
        drop(reader);
        assert_eq!(ended(&mut child), Some(0), "{args:?}");
    }

    // So do those that follow the log.
    let kafka = node.kafka().to_owned();
    let consume = ["topic", "consume", "s7.main.t", "--follow"];
    for args in [consume.as_slice(), &["tap", "s7", "--from", "earliest"]] {
        let mut child = Command::new(binary().expect("binary"))
            .args(args)
            .env("CATCHWATER_BOOTSTRAP", &kafka)
            .env("CATCHWATER_HTTP", node.http())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("runs");
        let mut reader = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        if line.is_empty() {
            let mut why = String::new();
            let _ = child.stderr.take().expect("piped").read_to_string(&mut why);
            panic!("{args:?}: {why}");
        }
        drop(reader);
        let source = Connection::open(folder.join("from7.db")).expect("source");
        source.execute_batch("INSERT INTO t (v) VALUES ('more'), ('and more')").expect("rows");
        assert_eq!(ended(&mut child), Some(0), "{args:?}");
    }
}
