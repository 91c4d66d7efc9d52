//! One connection of our own to PostgreSQL, for what tokio-postgres cannot do: the replication protocol, and COPY OUT
//! without a copy. Startup with SCRAM-SHA-256, MD5 or clear-text password, simple queries, frames parsed in place from
//! one growing buffer. A frame longer than the bound is an error before it is read.

use crate::config::ConnectConfig;
use crate::dial::{Dialer, Shown, Wire, silent};
use crate::fault::Fault;
use crate::source::pace::BULK_REST_BYTES;
use crate::tls::fault_of;
use crate::types::SESSION;
use bytes::{Buf, Bytes, BytesMut};
use catchwater_runtime::net::{AsyncReadExt, AsyncWriteExt, set_receive_low_water};
use catchwater_runtime::time::timeout;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::frontend;
use std::future::{Future, poll_fn};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{ReadHalf, WriteHalf, split};

/// A buffer that is read into. What is cut off it keeps it alive.
const READ_BYTES: usize = 256 * 1024;
/// With less room than this a new buffer is taken. (TLS gives at most 16 KiB at a time: a buffer for each would be as many
/// allocations as reads, and rows would keep far more memory alive than they have bytes.)
const ROOM_BYTES_MIN: usize = 16 * 1024;
/// What is there already is read together up to here: each block wakes another task, and becomes an append. A stream's pace
/// takes so much for the sign that there is more.
const BLOCK_BYTES: usize = BULK_REST_BYTES;
/// Others have a turn behind so much of a COPY.
const COPY_TURN_BYTES: usize = 64 * 1024;
/// Longest message outside COPY: errors, notices, rows of catalogue queries.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest message before the login is done.
const LOGIN_BYTES_MAX: usize = 64 * 1024;
/// Longest wait for an answer to a simple query.
const QUERY_TIMEOUT: Duration = Duration::from_secs(120);

/// What the session is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Replication,
    Sql,
}

/// One backend message.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    pub tag: u8,
    pub body: Bytes,
}

/// A connection that is logged in and idle.
pub struct Transport {
    stream: Wire,
    buffer: BytesMut,
}

/// Rows of a simple query: text columns, `None` = NULL.
pub type Rows = Vec<Vec<Option<Bytes>>>;

impl Transport {
    pub async fn connect(config: &ConnectConfig, application: &str, mode: Mode) -> Result<Self, Fault> {
        let mut dialer = Dialer::new(config);
        let limit = dialer.limit();
        loop {
            let wire = dialer.next().await?;
            let login = timeout(limit, Self::login(wire, config, application, mode)).await;
            match login.unwrap_or_else(|_| Err(silent(limit))) {
                Ok((this, shown)) => {
                    if dialer.fits(shown)? {
                        return Ok(this);
                    }
                    this.close().await;
                }
                Err(fault) => dialer.failed(fault)?,
            }
        }
    }

    async fn login(
        stream: Wire,
        config: &ConnectConfig,
        application: &str,
        mode: Mode,
    ) -> Result<(Self, Shown), Fault> {
        let mut this = Transport { stream, buffer: BytesMut::new() };
        let mut out = BytesMut::new();
        let mut parameters = vec![
            ("user", config.user.as_str()),
            ("database", config.database.as_str()),
            ("application_name", application),
            // Printed names of tables and types carry their schema then.
            ("search_path", "pg_catalog"),
            // The connection that exports a snapshot sits in a transaction as long as readers need it.
            ("idle_in_transaction_session_timeout", "0"),
            ("statement_timeout", "0"),
            // Rows that a policy hides from a snapshot would be missing without a word: this makes it an error.
            ("row_security", "off"),
        ];
        parameters.extend(SESSION.iter().copied());
        if mode == Mode::Replication {
            parameters.push(("replication", "database"));
        }
        frontend::startup_message(parameters, &mut out).map_err(|e| Fault::Protocol(e.to_string()))?;
        this.send(&out).await?;
        let shown = this.authenticate(config).await?;
        Ok((this, shown))
    }

    async fn authenticate(&mut self, config: &ConnectConfig) -> Result<Shown, Fault> {
        let mut shown = Shown::default();
        let password = || {
            config.password.as_deref().ok_or_else(|| {
                Fault::Auth(format!("the server asks for a password and the URL of user '{}' has none", config.user))
            })
        };
        let mut scram: Option<sasl::ScramSha256> = None;
        loop {
            let mut frame = self.read(LOGIN_BYTES_MAX).await?;
            let mut out = BytesMut::new();
            match frame.tag {
                b'R' => {
                    if frame.body.len() < 4 {
                        return Err(Fault::Protocol("authentication message ends early".into()));
                    }
                    let broken = |e: std::io::Error| Fault::Auth(e.to_string());
                    match frame.body.get_u32() {
                        0 => continue,
                        3 => frontend::password_message(password()?.as_bytes(), &mut out).map_err(broken)?,
                        5 => {
                            let salt = <[u8; 4]>::try_from(&frame.body[..])
                                .map_err(|_| Fault::Protocol("MD5 salt has not 4 bytes".into()))?;
                            let hash = md5_hash(config.user.as_bytes(), password()?.as_bytes(), salt);
                            frontend::password_message(hash.as_bytes(), &mut out).map_err(broken)?;
                        }
                        10 => {
                            if !frame.body.split(|b| *b == 0).any(|m| m == sasl::SCRAM_SHA_256.as_bytes()) {
                                return Err(Fault::Auth("the server offers no SCRAM-SHA-256".into()));
                            }
                            let machine =
                                sasl::ScramSha256::new(password()?.as_bytes(), sasl::ChannelBinding::unsupported());
                            frontend::sasl_initial_response(sasl::SCRAM_SHA_256, machine.message(), &mut out)
                                .map_err(broken)?;
                            scram = Some(machine);
                        }
                        11 => {
                            let machine = scram.as_mut().ok_or_else(|| Fault::Protocol("SASL out of order".into()))?;
                            machine.update(&frame.body).map_err(broken)?;
                            frontend::sasl_response(machine.message(), &mut out).map_err(broken)?;
                        }
                        12 => {
                            let machine = scram.as_mut().ok_or_else(|| Fault::Protocol("SASL out of order".into()))?;
                            machine.finish(&frame.body).map_err(broken)?;
                            continue;
                        }
                        other => return Err(Fault::Auth(format!("authentication method {other} is not supported"))),
                    }
                    self.send(&out).await?;
                }
                b'E' => return Err(error_of(&frame.body)),
                b'Z' => return Ok(shown),
                b'S' => {
                    let on = |name: &[u8]| frame.body.strip_prefix(name) == Some(b"\0on\0");
                    shown.standby |= on(b"in_hot_standby");
                    shown.read_only |= on(b"default_transaction_read_only");
                }
                b'K' | b'N' | b'v' => {}
                tag => return Err(Fault::Protocol(format!("message 0x{tag:02x} during login"))),
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.stream.write_all(bytes).await.map_err(|e| fault_of(&e))?;
        // TLS keeps what the socket did not take at once.
        self.stream.flush().await.map_err(|e| fault_of(&e))
    }

    async fn read(&mut self, bytes_max: usize) -> Result<Frame, Fault> {
        loop {
            if let Some(frame) = next_frame(&mut self.buffer, bytes_max)? {
                return Ok(frame);
            }
            make_room(&mut self.buffer);
            let n = self.stream.read_buf(&mut self.buffer).await.map_err(|e| fault_of(&e))?;
            if n == 0 {
                return Err(Fault::Closed("the server closed the connection".into()));
            }
        }
    }

    /// A simple query with few rows (catalogue, commands). The first error is returned; the connection stays usable.
    pub async fn query(&mut self, sql: &str) -> Result<Rows, Fault> {
        timeout(QUERY_TIMEOUT, self.query_now(sql))
            .await
            .map_err(|_| Fault::Closed(format!("no answer within {} s", QUERY_TIMEOUT.as_secs())))?
    }

    async fn query_now(&mut self, sql: &str) -> Result<Rows, Fault> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out).map_err(|e| Fault::Protocol(e.to_string()))?;
        self.send(&out).await?;
        let mut rows = Vec::new();
        let mut error = None;
        loop {
            let frame = self.read(MESSAGE_BYTES_MAX).await?;
            match frame.tag {
                b'D' => rows.push(data_row(frame.body)?),
                b'E' => error = error.or(Some(error_of(&frame.body))),
                b'Z' => return error.map_or(Ok(rows), Err),
                b'T' | b'C' | b'I' | b'N' | b'S' | b'A' => {}
                tag => return Err(Fault::Protocol(format!("message 0x{tag:02x} answers a query"))),
            }
        }
    }

    /// `COPY … TO STDOUT`: each CopyData to `each`; an error of `each` closes the connection's use.
    pub async fn copy_out(
        &mut self,
        sql: &str,
        bytes_max: usize,
        mut each: impl FnMut(Bytes) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out).map_err(|e| Fault::Protocol(e.to_string()))?;
        self.send(&out).await?;
        let mut error = None;
        let mut taken = 0;
        loop {
            let frame = match next_frame(&mut self.buffer, bytes_max)? {
                Some(frame) => frame,
                // A server that says nothing for so long inside a COPY is gone.
                None => timeout(QUERY_TIMEOUT, self.read(bytes_max))
                    .await
                    .map_err(|_| Fault::Closed(format!("no data within {} s", QUERY_TIMEOUT.as_secs())))??,
            };
            match frame.tag {
                b'd' => {
                    taken += frame.body.len();
                    if error.is_none() {
                        error = each(frame.body).err();
                    }
                    // Rows are worked at here, and others want to run.
                    if taken >= COPY_TURN_BYTES {
                        taken = 0;
                        turn().await;
                    }
                }
                b'E' => error = error.or(Some(error_of(&frame.body))),
                b'Z' => return error.map_or(Ok(()), Err),
                b'H' | b'c' | b'C' | b'N' | b'S' | b'A' => {}
                tag => return Err(Fault::Protocol(format!("message 0x{tag:02x} inside COPY"))),
            }
        }
    }

    /// Starts a replication stream: the connection becomes its two halves and what was read already.
    pub async fn start_replication(mut self, sql: &str) -> Result<(Reader, WriteHalf<Wire>), Fault> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out).map_err(|e| Fault::Protocol(e.to_string()))?;
        self.send(&out).await?;
        loop {
            let frame = timeout(QUERY_TIMEOUT, self.read(MESSAGE_BYTES_MAX))
                .await
                .map_err(|_| Fault::Closed("START_REPLICATION got no answer".into()))??;
            match frame.tag {
                b'W' => break,
                b'E' => return Err(error_of(&frame.body)),
                b'N' | b'S' => {}
                tag => return Err(Fault::Protocol(format!("message 0x{tag:02x} answers START_REPLICATION"))),
            }
        }
        let socket = self.stream.socket();
        let (half, write) = split(self.stream);
        Ok((Reader { half, socket, buffer: self.buffer }, write))
    }

    /// Says good-bye; errors do not matter.
    pub async fn close(mut self) {
        let mut out = BytesMut::new();
        frontend::terminate(&mut out);
        let _ = timeout(Duration::from_secs(1), self.send(&out)).await;
        let _ = timeout(Duration::from_secs(1), self.stream.shutdown()).await;
    }
}

/// The reading half of a replication stream.
pub struct Reader {
    half: ReadHalf<Wire>,
    /// For the option of [`Reader::tell_from`]; `None` = there was no descriptor left, and it does nothing.
    socket: Option<OwnedFd>,
    buffer: BytesMut,
}

impl Reader {
    /// Whole messages that are in the buffer, cut off as one block without a copy; empty = read more.
    pub fn take_block(&mut self, message_bytes_max: usize) -> Result<Bytes, Fault> {
        let mut end = 0;
        while let Some((_, len)) = head(&self.buffer[end..], message_bytes_max)? {
            if self.buffer.len() - end < 1 + len {
                break;
            }
            end += 1 + len;
        }
        Ok(self.buffer.split_to(end).freeze())
    }

    /// From now on [`Reader::fill`] is told of what comes when so many bytes wait; 1 = of anything.
    pub fn tell_from(&self, bytes: usize) {
        if let Some(socket) = &self.socket {
            set_receive_low_water(socket.as_fd(), u32::try_from(bytes).unwrap_or(u32::MAX));
        }
    }

    /// Reads more: waits for something, and takes what else is there already. Returns how much that was. Cancel-safe.
    pub async fn fill(&mut self) -> Result<usize, Fault> {
        make_room(&mut self.buffer);
        let mut taken = match self.half.read_buf(&mut self.buffer).await {
            Ok(0) => return Err(Fault::Closed("the server closed the connection".into())),
            Ok(n) => n,
            Err(e) => return Err(fault_of(&e)),
        };
        while self.buffer.len() < BLOCK_BYTES {
            make_room(&mut self.buffer);
            let more = poll_fn(|cx| Poll::Ready(pin!(self.half.read_buf(&mut self.buffer)).poll(cx))).await;
            match more {
                Poll::Pending => break,
                // What was read is handed on first; the next call meets the end again.
                Poll::Ready(Ok(0)) => break,
                Poll::Ready(Ok(n)) => taken += n,
                Poll::Ready(Err(e)) => return Err(fault_of(&e)),
            }
        }
        Ok(taken)
    }
}

/// Lets other tasks run.
async fn turn() {
    let mut given = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn make_room(buffer: &mut BytesMut) {
    if buffer.capacity() - buffer.len() < ROOM_BYTES_MIN {
        buffer.reserve(READ_BYTES);
    }
}

/// Tag and length (which counts itself) of the message at the front.
fn head(bytes: &[u8], bytes_max: usize) -> Result<Option<(u8, usize)>, Fault> {
    let Some((head, _)) = bytes.split_first_chunk::<5>() else { return Ok(None) };
    let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if len < 4 {
        return Err(Fault::Protocol(format!("message 0x{:02x} of length {len}", head[0])));
    }
    if len > bytes_max {
        return Err(Fault::TooLarge { bytes: len, bytes_max });
    }
    Ok(Some((head[0], len)))
}

/// Cuts the next message off, if it is whole.
pub fn next_frame(buffer: &mut BytesMut, bytes_max: usize) -> Result<Option<Frame>, Fault> {
    let Some((tag, len)) = head(buffer, bytes_max)? else { return Ok(None) };
    if buffer.len() < 1 + len {
        return Ok(None);
    }
    let mut body = buffer.split_to(1 + len).freeze();
    body.advance(5);
    Ok(Some(Frame { tag, body }))
}

/// As [`next_frame`] over a block of whole messages.
pub fn frame_of_block(block: &mut Bytes) -> Result<Option<Frame>, Fault> {
    let Some((tag, len)) = head(block, usize::MAX)? else { return Ok(None) };
    if block.len() < 1 + len {
        return Err(Fault::Protocol("a block ends inside a message".into()));
    }
    let mut body = block.split_to(1 + len);
    body.advance(5);
    Ok(Some(Frame { tag, body }))
}

/// Tag and body of the message at the front, and what is behind it; `None` = there is no whole one.
pub fn peek_of_block(block: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, len) = head(block, usize::MAX).ok()??;
    let (message, behind) = block.split_at_checked(1 + len)?;
    Some((tag, message.get(5..)?, behind))
}

fn data_row(mut body: Bytes) -> Result<Vec<Option<Bytes>>, Fault> {
    let short = || Fault::Protocol("a row ends early".into());
    if body.len() < 2 {
        return Err(short());
    }
    let count = usize::from(body.get_u16());
    if count > body.len() / 4 {
        return Err(short());
    }
    let mut out = Vec::with_capacity(count);
    for _ in 0..count {
        if body.len() < 4 {
            return Err(short());
        }
        let len = body.get_i32();
        out.push(match usize::try_from(len) {
            Err(_) => None,
            Ok(n) if n <= body.len() => Some(body.split_to(n)),
            Ok(_) => return Err(short()),
        });
    }
    Ok(out)
}

/// The fields of an ErrorResponse that we use.
pub fn error_of(body: &[u8]) -> Fault {
    let (mut sqlstate, mut message) = (String::new(), String::new());
    for field in body.split(|b| *b == 0) {
        let Some((tag, text)) = field.split_first() else { continue };
        let text = || String::from_utf8_lossy(&text[..text.len().min(2000)]).into_owned();
        match tag {
            b'C' => sqlstate = text(),
            b'M' => message = text(),
            _ => {}
        }
    }
    Fault::from_server(sqlstate, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn frames_are_cut_at_any_split_and_bounded_before_they_are_read() {
        let mut wire = Vec::new();
        for (tag, body) in [(b'd', &b"abc"[..]), (b'Z', b"I"), (b'd', b"")] {
            wire.push(tag);
            wire.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
            wire.extend_from_slice(body);
        }
        for cut in 0..=wire.len() {
            let mut buffer = BytesMut::from(&wire[..cut]);
            let mut tags = Vec::new();
            while let Some(f) = next_frame(&mut buffer, 100).unwrap() {
                tags.push(f.tag);
            }
            buffer.extend_from_slice(&wire[cut..]);
            while let Some(f) = next_frame(&mut buffer, 100).unwrap() {
                tags.push(f.tag);
            }
            assert_eq!(tags, b"dZd", "cut at {cut}");
        }
        let mut hostile = BytesMut::from(&b"d\xff\xff\xff\xff"[..]);
        assert!(matches!(next_frame(&mut hostile, 100), Err(Fault::TooLarge { .. })));
        let mut hostile = BytesMut::from(&b"d\0\0\0\x03"[..]);
        assert!(matches!(next_frame(&mut hostile, 100), Err(Fault::Protocol(_))));
    }

    #[test]
    fn hostile_rows_allocate_nothing() {
        assert!(data_row(Bytes::from_static(b"\xff\xff")).is_err());
        assert!(data_row(Bytes::from_static(b"\0\x01\x7f\xff\xff\xff")).is_err());
        assert_eq!(
            data_row(Bytes::from_static(b"\0\x02\0\0\0\x01x\xff\xff\xff\xff")).unwrap(),
            vec![Some(Bytes::from_static(b"x")), None]
        );
    }

    #[test]
    fn errors_keep_state_and_text() {
        let fault = error_of(b"SFATAL\0C28P01\0Mpassword authentication failed for user \"x\"\0\0");
        assert!(matches!(fault, Fault::Auth(_)), "{fault:?}");
    }
}
