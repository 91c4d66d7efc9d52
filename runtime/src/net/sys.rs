//! A socket option that `rustix` has no call for.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

pub(super) fn set_receive_low_water(socket: BorrowedFd<'_>, bytes: i32) -> bool {
    let len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the descriptor is open as long as `socket`; `bytes` lives through the call, which reads those four bytes alone.
    let done = unsafe {
        let value = std::ptr::from_ref(&bytes).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVLOWAT, value, len)
    };
    done == 0
}
