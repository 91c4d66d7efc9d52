//! Sockets. Real ones today; the names are ours so that a simulated network can stand in.

pub use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
pub use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixStream, tcp, unix};
