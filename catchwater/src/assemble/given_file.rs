//! Files that `${file:…}` names: their whole text, or one property of a file of properties, as Kafka's `FileConfigProvider` reads it
//! (`${file:/etc/db.properties:password}`). Their text is a secret and in no message.

use catchwater_capture::source::{Finding, Severity};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A secret is shorter, and `/dev/zero` has no end.
const BYTES_MAX: u64 = 64 << 10;
/// `x` and `r` of others.
const OTHERS_PASS: u32 = 0o001;
const OTHERS_READ: u32 = 0o004;

/// Adds the file to `exposed` if others can read it.
pub(super) fn read(base: &Path, given: &str, exposed: &mut BTreeSet<PathBuf>) -> Result<String, String> {
    let path = base.join(given);
    if !path.exists()
        && let Some((file, key)) = given.rsplit_once(':')
        && base.join(file).is_file()
    {
        let path = base.join(file);
        let text = whole(&path, exposed)?;
        return property(&text, key).ok_or_else(|| format!("file {} has no property {key}", path.display()));
    }
    Ok(whole(&path, exposed)?.trim_end_matches(['\n', '\r']).to_owned())
}

fn whole(path: &Path, exposed: &mut BTreeSet<PathBuf>) -> Result<String, String> {
    let shown = path.display();
    let mut text = String::new();
    let read = File::open(path).and_then(|f| f.take(BYTES_MAX + 1).read_to_string(&mut text));
    read.map_err(|e| format!("file {shown}: {e}"))?;
    if text.len() as u64 > BYTES_MAX {
        return Err(format!("file {shown} has more than {BYTES_MAX} bytes: it holds no password"));
    }
    if others_read(path) {
        exposed.insert(path.to_owned());
    }
    Ok(text)
}

/// The file's own right is not enough: each folder on the way must let others pass.
fn others_read(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    let has = |path: &Path, bit: u32| std::fs::metadata(path).is_ok_and(|m| m.permissions().mode() & bit != 0);
    has(&path, OTHERS_READ) && path.ancestors().skip(1).all(|folder| has(folder, OTHERS_PASS))
}

/// Of Java's properties what passwords need: `key=value`, `key: value`, comments; a backslash takes the next character as it is.
fn property(text: &str, key: &str) -> Option<String> {
    let lines = text.lines().map(str::trim_start).filter(|l| !l.starts_with(['#', '!']));
    lines.filter_map(|line| line.strip_prefix(key)).find_map(|rest| {
        let rest = rest.trim_start();
        let value = rest.strip_prefix(['=', ':'])?.trim_start();
        let (mut out, mut escaped) = (String::new(), false);
        for c in value.chars() {
            if c == '\\' && !escaped {
                escaped = true;
                continue;
            }
            out.push(c);
            escaped = false;
        }
        Some(out)
    })
}

pub(super) fn finding(path: &Path) -> Finding {
    Finding {
        code: catchwater_record::ErrorCode(333),
        severity: Severity::Warning,
        fault: format!("other users of this machine can read {}, which holds a secret", path.display()),
        evidence: "its mode, and those of the folders above it, let others read it".into(),
        cure: format!("chmod 600 {}", path.display()),
        sql: Vec::new(),
        retry: false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs::{Permissions, set_permissions};

    #[test]
    fn files_are_read_whole_or_by_property_and_those_that_others_read_are_told_of() {
        let folder = std::env::temp_dir().join(format!("catchwater-given.{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let put = |name: &str, text: &str, mode: u32| {
            std::fs::write(folder.join(name), text).unwrap();
            set_permissions(folder.join(name), Permissions::from_mode(mode)).unwrap();
        };
        put("own", "pa:ss=1\r\n", 0o600);
        put("group", "g\n\n", 0o640);
        put("open", "o", 0o644);
        put("p.properties", "# password=no\npassword.old=no\n  password = a\\\\b\\:c=d\nuser:u\n", 0o600);
        put("with:colon", "c", 0o600);
        put("large", &"x".repeat(70_000), 0o600);
        let mut exposed = BTreeSet::new();
        let mut get = |name: &str| read(&folder, name, &mut exposed);
        for (name, want) in [
            ("own", "pa:ss=1"),
            ("group", "g"),
            ("open", "o"),
            ("p.properties:password", "a\\b:c=d"),
            ("p.properties:user", "u"),
            ("with:colon", "c"),
        ] {
            assert_eq!(get(name).as_deref(), Ok(want), "{name}");
        }
        assert!(get("p.properties:pass").unwrap_err().ends_with("p.properties has no property pass"));
        assert!(get("none:password").unwrap_err().contains("none:password: No such file"));
        assert!(get("large").unwrap_err().contains("more than 65536 bytes"));
        assert!(get("/dev/zero").unwrap_err().contains("/dev/zero"));
        assert_eq!(exposed, BTreeSet::from([folder.join("open")]));
        // A folder that others cannot enter keeps what is in it.
        set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
        exposed.clear();
        assert!(read(&folder, "open", &mut exposed).is_ok() && exposed.is_empty());
        let _ = std::fs::remove_dir_all(folder);
    }
}
