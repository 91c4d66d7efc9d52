//! One connection of a client: frames of our codec over a simulated socket. It gives up after a time, closes in the middle
//! of what it asks for, and sends half a frame now and then.

use crate::ledger::Ledger;
use bytes::{Bytes, BytesMut};
use catchwater_protocol::{Request, frame};
use catchwater_runtime::net::{AsyncReadExt, AsyncWriteExt, TcpStream};
use catchwater_runtime::sim::draw;
use catchwater_runtime::time;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Where the node listens, in every life.
pub const ADDRESS: &str = "127.0.0.1:9092";
/// How long an answer may take before a client gives the connection up.
pub const PATIENCE: Duration = Duration::from_secs(8);
/// A client that could not connect tries again after so long, ms.
const RETRY_MS: u64 = 400;
/// One of so many requests is sent in part, and the connection closed.
const HALF_SENT: u64 = 400;
/// One of so many answers is not waited for.
const WALKED_AWAY: u64 = 400;

/// Why a request has no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lost {
    /// Surely not executed: it was not sent whole.
    NotSent,
    /// Nobody knows.
    Unknown,
}

pub struct Connection {
    stream: TcpStream,
    correlation: i32,
    client: String,
}

impl Connection {
    /// Tries until it is connected, or nobody is to begin anything any more.
    pub async fn open(client: &str, ledger: &Ledger) -> Option<Connection> {
        loop {
            if let Ok(Ok(stream)) = time::timeout(PATIENCE, TcpStream::connect(ADDRESS)).await {
                return Some(Connection { stream, correlation: 0, client: client.to_owned() });
            }
            if ledger.is_stopped() {
                return None;
            }
            time::sleep(Duration::from_millis(1 + draw(RETRY_MS))).await;
        }
    }

    /// Sends; the answer is fetched with [`Connection::reply`], in order.
    pub async fn send<R: Request>(&mut self, request: &R, version: i16) -> Result<(), Lost> {
        self.correlation += 1;
        let frame = frame::request(request, version, self.correlation, Some(&self.client))
            .expect("our own requests are well formed")
            .to_bytes();
        if draw(HALF_SENT) == 0 {
            let part = draw(frame.len() as u64) as usize;
            let _ = time::timeout(PATIENCE, self.stream.write_all(&frame[..part])).await;
            return Err(Lost::NotSent);
        }
        match time::timeout(PATIENCE, self.stream.write_all(&frame)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Lost::Unknown),
        }
    }

    pub async fn reply<R: Request>(
        &mut self,
        version: i16,
        patience: Duration,
        ledger: &Ledger,
    ) -> Result<R::Response, Lost> {
        if draw(WALKED_AWAY) == 0 {
            time::sleep(Duration::from_millis(draw(20))).await;
            return Err(Lost::Unknown);
        }
        match time::timeout(patience, self.frame()).await {
            Ok(Some(bytes)) => match frame::decode_response::<R>(bytes, version) {
                Ok((_, response)) => Ok(response),
                Err(error) => {
                    ledger
                        .violation(format!("{}: an answer of version {version} cannot be read: {error}", self.client));
                    Err(Lost::Unknown)
                }
            },
            Ok(None) => Err(Lost::Unknown),
            Err(_) => {
                ledger.timeouts.fetch_add(1, Ordering::Relaxed);
                Err(Lost::Unknown)
            }
        }
    }

    async fn frame(&mut self) -> Option<Bytes> {
        let length = self.stream.read_i32().await.ok()?;
        let mut body = BytesMut::zeroed(usize::try_from(length).ok()?);
        self.stream.read_exact(&mut body).await.ok()?;
        Some(body.freeze())
    }

    pub async fn call<R: Request>(&mut self, request: &R, version: i16, ledger: &Ledger) -> Result<R::Response, Lost> {
        self.send(request, version).await?;
        self.reply::<R>(version, PATIENCE, ledger).await
    }
}

/// As [`Connection::call`], with a connection that is made when there is none and dropped when it failed.
pub async fn call<R: Request>(
    slot: &mut Option<Connection>,
    client: &str,
    request: &R,
    version: i16,
    ledger: &Ledger,
) -> Result<R::Response, Lost> {
    if slot.is_none() {
        *slot = Connection::open(client, ledger).await;
    }
    let Some(connection) = slot else { return Err(Lost::NotSent) };
    let answer = connection.call(request, version, ledger).await;
    if answer.is_err() {
        *slot = None;
    }
    answer
}
