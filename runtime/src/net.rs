//! Sockets. The names are ours so that a simulated network can stand in.

mod sys;

#[cfg(sim)]
pub use crate::sim::net::{TcpListener, TcpStream};
use std::os::fd::BorrowedFd;
pub use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
#[cfg(not(sim))]
pub use tokio::net::{TcpListener, TcpStream};

/// Nobody is told that a socket can be read before so many bytes wait, or its end; 1 = as soon as anything does, and with
/// that call at once. What is there can be read at any time. Linux bounds it by half of the largest receive buffer, and
/// tells anyway when the sender has no more room. False = the socket does not know it, and tells as before.
/// Source: Linux, `net/ipv4/tcp.c`, `tcp_set_rcvlowat` and `tcp_epollin_ready`.
pub fn set_receive_low_water(socket: BorrowedFd<'_>, bytes: u32) -> bool {
    sys::set_receive_low_water(socket, i32::try_from(bytes).unwrap_or(i32::MAX))
}
