//! A data directory that is not opened: one code each, for `start`, `dev` and `storage`.

use crate::report::{Exit, Failure};
use catchwater_storage::disk::DiskFault;
use catchwater_storage::recover::RecoverError;

pub fn in_use(path: &str) -> Failure {
    Failure::new(Exit::Environment, "CW0201", format!("the data directory {path} is in use"))
        .cause("another process holds its lock")
        .next("stop that process, or use another --data-dir")
}

pub fn format(path: &str, why: &str) -> Failure {
    Failure::new(Exit::Environment, "CW0202", format!("{path} is not a log directory of this version"))
        .cause(why)
        .next("use the version that wrote it, or an empty directory")
}

pub fn newer(path: &str, found: u32, known: u32) -> Failure {
    Failure::new(Exit::Environment, "CW0220", format!("{path} was written by a later version"))
        .cause(format!("its format is {found}, this version reads up to {known}"))
        .next("start the version that wrote it; a directory is never converted back")
}

pub fn foreign(path: &str, found: &str, wanted: &str) -> Failure {
    Failure::new(Exit::Refused, "CW0221", format!("{path} belongs to {found}, not to {wanted}"))
        .cause("`cluster.id` or `node.id` of the configuration names another")
        .next("give the directory of that cluster and node, or correct the configuration")
}

pub fn filesystem(path: &str, kind: &str) -> Failure {
    Failure::new(Exit::Environment, "CW0222", format!("{path} lies on {kind}"))
        .cause("a sync may promise more there than it keeps, and a lock may not hold against another machine")
        .next("use a local disk (ext4, XFS); at your own risk: storage.allow.unsafe.filesystem: true")
}

pub fn unreadable(path: &str, why: impl Into<String>) -> Failure {
    let next = match std::fs::metadata(path).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
        true => "check the path",
        false => {
            "look at the rights and at the kernel's log for input/output errors; copy a failing disk before anything else"
        }
    };
    Failure::new(Exit::Environment, "CW0223", format!("{path} cannot be read")).cause(why).next(next)
}

/// What recovery says of a directory, for the commands that work on one.
pub fn recover_failure(path: &str, error: &RecoverError) -> Failure {
    match error {
        RecoverError::Locked(_) => in_use(path),
        RecoverError::Format { path, why } => format(path, why),
        RecoverError::Newer { path, found, known } => newer(path, *found, *known),
        RecoverError::Filesystem { path, kind } => filesystem(path, kind),
        RecoverError::Missing(path) => unreadable(path, "there is no such directory"),
        RecoverError::Disk(e) if e.kind == DiskFault::Denied => unreadable(&e.path, "permission denied"),
        RecoverError::Disk(e) => unreadable(&e.path, e.to_string()),
    }
}
