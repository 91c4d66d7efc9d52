//! Directory entries as the standard promises them, not as ext4 is kind enough to keep them.
//!
//! POSIX lets every new, renamed or removed name vanish until its directory was synced. ext4 commits the names together with
//! the next `fsync` of any file, so a forgotten directory sync shows nothing after a cut of its power. This tracker reads the
//! broker's own system calls from a trace, knows which names no completed `fsync` of their directory covers, and takes them
//! away from the disk after the cut: what any filesystem that is less kind would have done.
//!
//! Not modelled: a removed name coming back, for its content is gone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Clone, PartialEq, Eq, Debug)]
enum Change {
    Made(PathBuf),
    Renamed { from: PathBuf, to: PathBuf },
}

/// Names of one life that no directory sync covers, oldest first.
#[derive(Debug, Default)]
pub struct Names {
    pending: Vec<Change>,
    /// Directory syncs that were seen, and that were lied about.
    pub synced: u64,
    pub lied: u64,
}

impl Names {
    /// Reads a trace of `open,openat,mkdir,mkdirat,rename,renameat,renameat2,fsync` with decoded descriptors (`-y`).
    /// Paths below `root` count.
    pub fn of(trace: &str, root: &Path) -> Names {
        let mut names = Names::default();
        // A call that another thread's line interrupts comes in two pieces; its first has the arguments, and the number of
        // changes that were done before it began.
        let mut begun: BTreeMap<&str, (String, usize)> = BTreeMap::new();
        for line in trace.lines() {
            let Some((tid, rest)) = line.trim_start().split_once(char::is_whitespace) else { continue };
            let Some((_, rest)) = rest.trim_start().split_once(' ') else { continue };
            if let Some(head) = rest.strip_suffix("<unfinished ...>") {
                begun.insert(tid, (head.to_owned(), names.pending.len()));
            } else if rest.starts_with("<... ") {
                let Some((head, before)) = begun.remove(tid) else { continue };
                let Some((_, tail)) = rest.split_once("resumed>") else { continue };
                names.call(&format!("{head}{tail}"), before, root);
            } else {
                let before = names.pending.len();
                names.call(rest, before, root);
            }
        }
        names
    }

    fn call(&mut self, text: &str, before: usize, root: &Path) {
        let Some((name, rest)) = text.split_once('(') else { return };
        let Some((arguments, result)) = rest.rsplit_once(") = ") else { return };
        if result.starts_with('-') || result.starts_with('?') {
            return;
        }
        let paths: Vec<PathBuf> = quoted(arguments).into_iter().map(PathBuf::from).collect();
        match name {
            // Without O_EXCL the file may have been there; the broker makes files with it only.
            "open" | "openat" if arguments.contains("O_CREAT|O_EXCL") => self.made(&paths, root),
            "mkdir" | "mkdirat" => self.made(&paths, root),
            "rename" | "renameat" | "renameat2" => {
                if let [from, to] = &paths[..]
                    && from.starts_with(root)
                {
                    self.pending.push(Change::Renamed { from: from.clone(), to: to.clone() });
                }
            }
            "fsync" => {
                let Some(dir) = descriptor(arguments).filter(|d| d.starts_with(root) || root.starts_with(d)) else {
                    return;
                };
                if result.contains("(INJECTED)") {
                    self.lied += 1;
                    return;
                }
                self.synced += 1;
                // Only what was done when the sync began.
                let mut at = 0;
                self.pending.retain(|change| {
                    at += 1;
                    let (Change::Made(path) | Change::Renamed { to: path, .. }) = change;
                    at > before || path.parent() != Some(dir.as_path())
                });
            }
            _ => {}
        }
    }

    fn made(&mut self, paths: &[PathBuf], root: &Path) {
        if let Some(path) = paths.first().filter(|p| p.starts_with(root)) {
            self.pending.push(Change::Made(path.clone()));
        }
    }

    /// Names that are not sure.
    pub fn unsure(&self) -> usize {
        self.pending.len()
    }

    /// Takes them from the disk, newest first; how many were there to take.
    pub fn take_away(&self) -> std::io::Result<usize> {
        let mut taken = 0;
        for change in self.pending.iter().rev() {
            match change {
                Change::Made(path) if path.is_dir() => {
                    std::fs::remove_dir_all(path)?;
                    taken += 1;
                }
                Change::Made(path) if path.exists() => {
                    std::fs::remove_file(path)?;
                    taken += 1;
                }
                Change::Renamed { from, to } if to.exists() && !from.exists() => {
                    std::fs::rename(to, from)?;
                    taken += 1;
                }
                Change::Made(_) | Change::Renamed { .. } => {}
            }
        }
        Ok(taken)
    }
}

/// Texts in double quotes.
fn quoted(arguments: &str) -> Vec<&str> {
    arguments.split('"').skip(1).step_by(2).collect()
}

/// `17</path>` → the path.
fn descriptor(arguments: &str) -> Option<PathBuf> {
    let (_, rest) = arguments.split_once('<')?;
    Some(PathBuf::from(rest.split_once('>')?.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(trace: &str) -> Vec<String> {
        let names = Names::of(trace, Path::new("/d"));
        let word = |c: &Change| match c {
            Change::Made(p) => p.display().to_string(),
            Change::Renamed { from, to } => format!("{}>{}", from.display(), to.display()),
        };
        names.pending.iter().map(word).collect()
    }

    #[test]
    fn a_name_is_sure_once_its_directory_was_synced() {
        let trace = "\
1 1.0 mkdirat(AT_FDCWD</w>, \"/d/p\", 0755) = 0
1 1.1 open(\"/d/p/a\", O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC, 0644) = 5</d/p/a>
1 1.2 open(\"/d/p/b\", O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC, 0644) = -1 EEXIST (File exists)
1 1.3 open(\"/elsewhere/b\", O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC, 0644) = 6</elsewhere/b>
1 1.4 fsync(5</d/p/a>) = 0
";
        assert_eq!(names(trace), ["/d/p", "/d/p/a"]);
        assert_eq!(names(&format!("{trace}1 1.5 fsync(7</d/p>) = 0\n")), ["/d/p"]);
        assert_eq!(names(&format!("{trace}1 1.5 fsync(7</d/p>) = 0\n1 1.6 fsync(7</d>) = 0\n")), [""; 0]);
        assert_eq!(names(&format!("{trace}1 1.5 fsync(7</d/p>) = 0 (INJECTED)\n")), ["/d/p", "/d/p/a"]);
        assert_eq!(names(&format!("{trace}1 1.5 fsync(7</d/p>) = -1 EIO (Input/output error)\n")), ["/d/p", "/d/p/a"]);
        assert_eq!(names(&format!("{trace}1 1.5 fsync(7</d/p> <unfinished ...>\n")), ["/d/p", "/d/p/a"]);
    }

    #[test]
    fn a_sync_covers_what_was_done_when_it_began() {
        let trace = "\
1 1.0 open(\"/d/a\", O_RDWR|O_CREAT|O_EXCL, 0644) = 5</d/a>
2 1.1 fsync(7</d> <unfinished ...>
1 1.2 open(\"/d/b\", O_RDWR|O_CREAT|O_EXCL, 0644) = 6</d/b>
2 1.3 <... fsync resumed>) = 0
1 1.4 rename(\"/d/b\", \"/d/c\") = 0
";
        assert_eq!(names(trace), ["/d/b", "/d/b>/d/c"]);
    }

    #[test]
    fn what_is_not_sure_is_taken_away() {
        let work = super::super::Work::new("names");
        let root = work.path();
        std::fs::create_dir(root.join("p")).expect("a folder");
        std::fs::write(root.join("p/a"), b"x").expect("a file");
        std::fs::write(root.join("c"), b"x").expect("a file");
        let made = |p: &str| Change::Made(root.join(p));
        let renamed = Change::Renamed { from: root.join("b"), to: root.join("c") };
        let names = Names { pending: vec![made("p"), made("p/a"), renamed], ..Names::default() };
        assert_eq!(names.take_away().expect("it can be taken"), 3);
        assert!(!root.join("p").exists() && root.join("b").exists() && !root.join("c").exists());
    }
}
