//! The one system call of a disk that `rustix` has not. The only `unsafe` of this crate.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd};

/// Asks for write-back of the file's dirty pages in the range, without waiting. Whatever it answers is ignored.
pub(super) fn start_writeback(fd: &OwnedFd, at: u64, len: u64) {
    let (Ok(at), Ok(len)) = (i64::try_from(at), i64::try_from(len)) else { return };
    // SAFETY: takes three integers and an open descriptor, which `fd` keeps open for the time of the call; no memory of
    // ours is read or written.
    let _ = unsafe { libc::sync_file_range(fd.as_raw_fd(), at, len, libc::SYNC_FILE_RANGE_WRITE) };
}
