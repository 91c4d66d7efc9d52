//! Sockets. The names are ours so that a simulated network can stand in.

#[cfg(sim)]
pub use crate::sim::net::{TcpListener, TcpStream};
pub use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
#[cfg(not(sim))]
pub use tokio::net::{TcpListener, TcpStream};
