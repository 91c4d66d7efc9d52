//! The one system call of the rig that no library wraps.
#![allow(unsafe_code)]

use std::os::fd::AsFd;

/// `EXT4_IOC_SHUTDOWN`, `_IOR('X', 125, u32)`. Source: fs/ext4/ext4.h of Linux.
const SHUTDOWN: rustix::ioctl::Opcode = 0x8004_587d;
/// Do not flush the journal: what was not committed is gone. Source: the same.
const NO_LOG_FLUSH: u32 = 2;

/// The filesystem of `fd` stops at once, as if the power had gone: nothing more reaches its device.
pub fn power_cut(fd: impl AsFd) -> rustix::io::Result<()> {
    // SAFETY: the request reads one u32 through its pointer, which `Setter` gives it; nothing is written back.
    unsafe { rustix::ioctl::ioctl(fd, rustix::ioctl::Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH)) }
}
