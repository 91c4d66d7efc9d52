//! Passwords of connectors, apart from the log: `DATA/secrets/connect/NAME/PROPERTY`, readable for the node's user alone,
//! one value a file, as it was given. In the properties stands `${secret:connect/NAME/PROPERTY}`.

use super::show::is_secret;
use crate::report::{Exit, Failure};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub struct Secrets {
    root: PathBuf,
}

/// What was written for properties that may yet be refused.
pub struct Kept {
    /// File, and what it held before.
    files: Vec<(PathBuf, Option<Vec<u8>>)>,
}

impl Kept {
    /// As if nothing had been written.
    pub fn undo(self) {
        for (path, before) in self.files {
            let _ = match before {
                Some(text) => write(&path, &text),
                None => fs::remove_file(&path),
            };
        }
    }
}

impl Secrets {
    /// `data_dir`: of the node.
    pub fn new(data_dir: &Path) -> Secrets {
        Secrets { root: data_dir.join("secrets") }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Puts references in the place of passwords. A reference stays what it is.
    pub fn take(&self, name: &str, config: &mut BTreeMap<String, String>) -> Result<Kept, Failure> {
        let mut kept = Kept { files: Vec::new() };
        for (key, value) in config.iter_mut().filter(|(k, v)| is_secret(k) && !v.is_empty() && !v.contains("${")) {
            let path = self.root.join("connect").join(name).join(key);
            let before = fs::read(&path).ok();
            let written = path.parent().map_or(Ok(()), make_folder).and_then(|()| write(&path, value.as_bytes()));
            if let Err(e) = written {
                kept.undo();
                return Err(Failure::new(Exit::Runtime, "CW0349", format!("cannot keep {key} of connector {name}"))
                    .cause(e.to_string())
                    .next("make room in the data directory, or give a reference: ${env:NAME}"));
            }
            kept.files.push((path, before));
            *value = format!("${{secret:connect/{name}/{key}}}");
        }
        Ok(kept)
    }

    /// The connector is gone.
    pub fn forget(&self, name: &str) {
        let _ = fs::remove_dir_all(self.root.join("connect").join(name));
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Beside, then renamed: a reader sees the old value or the new.
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("part");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
