//! Passwords of connectors, apart from the log: `DATA/secrets/connect/NAME/PROPERTY`, readable for the node's user alone,
//! one value a file, as it was given. In the properties stands `${secret:connect/NAME/PROPERTY}`.

use super::show::is_secret;
use crate::http::unescape;
use crate::report::{Exit, Failure};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A JDBC URL may carry a password among its parameters.
const URL: &str = "connection.url";
/// Where that is kept.
const URL_PASSWORD: &str = "connection.url.password";

/// Place and value, decoded, of the password in a JDBC URL; `None` = there is none, or it is a reference.
pub fn password_of(url: &str) -> Option<(Range<usize>, String)> {
    let mut at = url.find('?')? + 1;
    for pair in url[at..].split('&') {
        if let Some(value) = pair.strip_prefix("password=").filter(|v| !v.is_empty() && !v.contains("${")) {
            let begin = at + "password=".len();
            return Some((begin..begin + value.len(), unescape(value, true)));
        }
        at += pair.len() + 1;
    }
    None
}

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
        let of_url = config.get_mut(URL).and_then(|url| {
            let (at, password) = password_of(url)?;
            url.replace_range(at, &format!("${{secret:connect/{name}/{URL_PASSWORD}}}"));
            Some((URL_PASSWORD.to_owned(), password))
        });
        let mut of_url = of_url.into_iter().collect::<BTreeMap<_, _>>();
        let secret = |(k, v): &(&String, &mut String)| is_secret(k) && !v.is_empty() && !v.contains("${");
        for (key, value) in config.iter_mut().filter(secret).chain(&mut of_url) {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_password_in_a_url_is_kept_apart() {
        let dir = std::env::temp_dir().join(format!("catchwater-secrets.{}", std::process::id()));
        let url = "jdbc:postgresql://db:5432/copy?user=bob&password=p%2Fw&ssl=false";
        let mut config = BTreeMap::from([(URL.to_owned(), url.to_owned())]);
        Secrets::new(&dir).take("copy", &mut config).unwrap();
        let kept =
            "jdbc:postgresql://db:5432/copy?user=bob&password=${secret:connect/copy/connection.url.password}&ssl=false";
        assert_eq!(config[URL], kept);
        let file = dir.join("secrets/connect/copy/connection.url.password");
        assert_eq!(fs::read_to_string(file).unwrap(), "p/w");
        // Given back, it stays what it is.
        Secrets::new(&dir).take("copy", &mut config).unwrap();
        assert_eq!(config[URL], kept);
        assert_eq!(password_of("jdbc:postgresql://db/copy?user=x"), None);
        let _ = fs::remove_dir_all(dir);
    }
}
