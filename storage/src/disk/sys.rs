//! The two system calls of a disk that `rustix` has not, or has as `unsafe` alone. The only `unsafe` of this crate.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd};

/// Asks for write-back of the file's dirty pages in the range, without waiting. Whatever it answers is ignored.
pub(super) fn start_writeback(fd: &OwnedFd, at: u64, len: u64) {
    let (Ok(at), Ok(len)) = (i64::try_from(at), i64::try_from(len)) else { return };
    // SAFETY: takes three integers and an open descriptor, which `fd` keeps open for the time of the call; no memory of
    // ours is read or written.
    let _ = unsafe { libc::sync_file_range(fd.as_raw_fd(), at, len, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Asks for large pages behind a buffer that is about to be filled for the first time: a read into fresh memory costs more
/// for its page faults than for the copy. A hint; what does not fill a page of its own is left alone.
pub(super) fn want_large_pages(buf: &mut [u8]) {
    const PAGE: usize = 4096;
    let skip = buf.as_ptr().align_offset(PAGE);
    let len = buf.len().saturating_sub(skip) / PAGE * PAGE;
    if len > 0 {
        // SAFETY: the range lies inside `buf`, which is borrowed mutably; MADV_HUGEPAGE changes no byte of it.
        unsafe { libc::madvise(buf.as_mut_ptr().add(skip).cast(), len, libc::MADV_HUGEPAGE) };
    }
}
