//! One client connection: frames in, replies out in request order. Walk: produce-fetch 2/14.
//!
//! One task owns the socket and polls the handlers of up to [`Limits::requests_max`] requests itself, so a request
//! costs no hop between tasks. A frame's length is checked and charged to the node's budget *before* its body gets
//! memory; bodies grow by what arrives. Requests start in their order (`api::Order`); replies leave in their order;
//! what waits in between (a parked Fetch, a join) holds up replies behind it, never their execution.
//!
//! Per request: 1 read for most frames (the first 8 KiB come through a buffer of the connection and are copied once,
//! the rest is read in place), 1 vectored write for all replies that are ready. Record bytes are not touched here.
//!
//! What closes a connection: a length below 8 or above the cap, a header or body that does not come forward in time,
//! an unknown key or version, a body that cannot be read, acks=0 that failed, a reply nobody takes for
//! [`Limits::write_ms`], the idle limit, the node's end.
//!
//! A client that goes away takes no request back: what it sent before is read to the end of the stream, even when a
//! reply can no longer be written, and executed ([`finish`]). A client with acks=0 sends and is gone.

use crate::api::{Kind, Order, Refuse, Response};
use crate::budget::{Budget, REQUEST_BYTES, Waiting};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use catchwater_base::metric::Counter;
use catchwater_base::{Clock, Mono};
use catchwater_runtime::net::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use catchwater_runtime::shutdown::Stopped;
use catchwater_runtime::sync::OwnedSemaphorePermit;
use catchwater_runtime::time;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Smallest frame: key, version, correlation id.
pub const FRAME_BYTES_MIN: usize = 8;
/// Buffer of a connection for lengths, headers and small bodies.
const SCRATCH_BYTES: usize = 8 * 1024;
/// A body's buffer grows by at least this much at a time, bytes.
const GROW_BYTES: usize = 64 * 1024;
/// Pieces of one vectored write.
const PIECES_MAX: usize = 64;
/// A first piece up to this size is copied behind the reply's header, which saves a piece of the vectored write.
const INLINE_BYTES: usize = 1024;
/// How often a connection looks at its time limits at most.
const CHECK_MS: u64 = 5_000;

pub static CONNECTIONS_CLOSED: Counter = Counter::new();
pub static REQUESTS: Counter = Counter::new();
pub static BYTES_IN: Counter = Counter::new();
pub static BYTES_OUT: Counter = Counter::new();

/// Bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `socket.request.max.bytes`.
    pub frame_bytes_max: usize,
    /// Requests begun and not answered.
    pub requests_max: usize,
    /// Replies not taken by the client, bytes; above it nothing more is read.
    pub unsent_bytes_max: usize,
    /// From a frame's first byte to its length; and the grace of a body on top of 1 KiB/s.
    pub header_ms: u64,
    /// `connections.max.idle.ms`.
    pub idle_ms: u64,
    /// A client that takes no byte of its replies for so long.
    pub write_ms: u64,
    /// How long the requests of a client that went away may take to come to their end.
    pub finish_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            frame_bytes_max: 100 << 20,
            requests_max: 32,
            unsent_bytes_max: 1 << 20,
            header_ms: 10_000,
            idle_ms: 600_000,
            write_ms: 60_000,
            finish_ms: 30_000,
        }
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Closed {
    #[error("closed by the client")]
    ByClient,
    #[error("frame length {0} is not between {FRAME_BYTES_MIN} and the limit")]
    FrameLength(i32),
    #[error("nothing came forward in time")]
    Slow,
    #[error("idle")]
    Idle,
    #[error("socket: {0}")]
    Socket(io::Error),
    #[error("refused: {0}")]
    Refused(#[from] Refuse),
    #[error("acks=0 that failed")]
    AcksZero,
    #[error("the node stops")]
    NodeStops,
}

/// A handler at work.
pub type Work = Pin<Box<dyn Future<Output = Result<Response, Refuse>> + Send>>;

/// One request whose header was understood.
pub struct Started {
    /// Response header: correlation id, for flexible versions an empty tag list.
    pub header: Bytes,
    pub order: Order,
    /// It is begun, and not ended, for a client that is gone: it does nothing but wait for the client's sake.
    pub only_answers: bool,
    pub work: Work,
}

/// What a connection does with a frame (without its length). Implemented by `api::Peer`.
pub trait Requests: Send + Sync {
    fn start(&self, frame: Bytes) -> Result<Started, Refuse>;
}

/// What a connection shares with the others of its node.
pub struct Shared {
    pub clock: Arc<dyn Clock>,
    pub budget: Budget,
    pub limits: Limits,
}

/// Runs one connection to its end.
pub async fn run<R, W>(
    reader: R,
    writer: W,
    requests: Arc<dyn Requests>,
    shared: Arc<Shared>,
    mut stopped: Stopped,
) -> Closed
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let (clock, limits) = (shared.clock.clone(), shared.limits);
    let now = clock.mono();
    let mut frames = Frames { reader, scratch: BytesMut::new(), state: Reading::Length, began: now, paused: None };
    let mut flight = Flight::default();
    let mut out = Out { writer, pieces: VecDeque::new(), bytes: 0, progressed: now, broken: None };
    let mut alarm = Alarm::at(&limits, now, true);
    loop {
        let now = clock.mono();
        if let Err(closed) = flight.settle(&mut out, now) {
            // What was answered before the end still leaves, if the client takes it at once.
            let _ = time::timeout(Duration::from_millis(limits.write_ms.min(1_000)), out.write_all()).await;
            return closed;
        }
        if out.bytes <= limits.unsent_bytes_max {
            flight.give_turn();
        }
        let may_read = flight.slots.len() < limits.requests_max
            && !flight.is_held()
            && !flight.closing
            && out.bytes <= limits.unsent_bytes_max;
        frames.pause(!may_read, now);
        if frames.is_partial() || out.bytes > 0 {
            alarm.sooner(&limits, now);
        }
        // Cancel-safe: each arm keeps what it has in the struct it borrows.
        tokio::select! {
            () = stopped.wait() => return Closed::NodeStops,
            () = flight.progress(), if !flight.is_settled() => {}
            written = out.write_some(), if out.bytes > 0 => match written {
                Ok(()) => out.progressed = clock.mono(),
                // Nobody hears us any more; what was sent before may still be in the socket.
                Err(e) => out.give_up(e),
            },
            frame = frames.next(&*clock, &shared), if may_read => match frame {
                Ok(frame) => flight.start(frame, &*requests),
                Err(closed @ (Closed::ByClient | Closed::Socket(_))) => {
                    // Cancel-safe: both arms are the end.
                    tokio::select! {
                        () = stopped.wait() => return Closed::NodeStops,
                        () = finish(&mut flight, &mut out, &shared) => {}
                    }
                    return out.broken.map_or(closed, Closed::Socket);
                }
                Err(closed) => return closed,
            },
            () = &mut alarm.sleep => {
                let now = clock.mono();
                if out.bytes > 0 && now.since(out.progressed).as_millis() > u128::from(limits.write_ms) {
                    return Closed::Slow;
                }
                if let Some(closed) = frames.judge(&limits, now, flight.slots.is_empty() && out.bytes == 0) {
                    return closed;
                }
                alarm = Alarm::at(&limits, now, frames.is_partial() || !flight.slots.is_empty() || out.bytes > 0);
            }
        }
    }
}

/// The client has closed its side: what it asked for is done, and told as long as it listens.
async fn finish<W: AsyncWrite + Unpin>(flight: &mut Flight, out: &mut Out<W>, shared: &Shared) {
    flight.finishing = true;
    let work = async {
        loop {
            if flight.settle(out, shared.clock.mono()).is_err() {
                flight.slots.clear();
            }
            flight.give_turn();
            if !flight.owes() && out.bytes == 0 {
                return;
            }
            // Cancel-safe: each arm keeps what it has in the struct it borrows.
            tokio::select! {
                () = flight.progress(), if !flight.is_settled() => {}
                written = out.write_some(), if out.bytes > 0 => {
                    if let Err(e) = written {
                        out.give_up(e);
                    }
                }
            }
        }
    };
    // What takes longer (a full disk) is given up, as if the client had sent it a moment later.
    let _ = time::timeout(Duration::from_millis(shared.limits.finish_ms), work).await;
}

/// Frames as they come in. `next` may be dropped at any await: what was read stays here.
struct Frames<R> {
    reader: R,
    scratch: BytesMut,
    state: Reading,
    /// When the present frame (or the silence before it) began; moved forward by pauses of our own making.
    began: Mono,
    paused: Option<Mono>,
}

enum Reading {
    Length,
    Charge { length: usize, room: Waiting },
    Body { frame: BytesMut, length: usize, permit: Option<OwnedSemaphorePermit> },
}

struct Frame {
    bytes: Bytes,
    permit: Charged,
}

/// Room in the request budget, held while the request is at work.
struct Charged(Option<OwnedSemaphorePermit>);

impl Drop for Charged {
    fn drop(&mut self) {
        if let Some(permit) = &self.0 {
            REQUEST_BYTES.add(-(permit.num_permits() as i64));
        }
    }
}

impl<R: AsyncRead + Unpin> Frames<R> {
    async fn next(&mut self, clock: &dyn Clock, shared: &Shared) -> Result<Frame, Closed> {
        loop {
            match &mut self.state {
                Reading::Length => {
                    let Some(said) = self.scratch.first_chunk::<4>().map(|b| i32::from_be_bytes(*b)) else {
                        if self.scratch.is_empty() {
                            // Nobody else holds it, so this goes back to its beginning and allocates nothing.
                            self.scratch.clear();
                            self.scratch.reserve(SCRATCH_BYTES);
                        }
                        let had = self.scratch.len();
                        match self.reader.read_buf(&mut self.scratch).await.map_err(Closed::Socket)? {
                            0 => return Err(Closed::ByClient),
                            n => BYTES_IN.add(n as u64),
                        }
                        if had == 0 {
                            self.began = clock.mono();
                        }
                        continue;
                    };
                    let length = usize::try_from(said).map_err(|_| Closed::FrameLength(said))?;
                    if !(FRAME_BYTES_MIN..=shared.limits.frame_bytes_max).contains(&length) {
                        return Err(Closed::FrameLength(said));
                    }
                    self.scratch.advance(4);
                    self.state = match shared.budget.try_charge(length) {
                        Ok(permit) => Reading::body(length, permit),
                        Err(room) => Reading::Charge { length, room },
                    };
                }
                Reading::Charge { length, room } => {
                    let permit = room.await;
                    self.began = clock.mono();
                    self.state = Reading::body(*length, permit);
                }
                Reading::Body { frame, length, permit } => {
                    let here = self.scratch.len().min(*length - frame.len());
                    if here > 0 {
                        frame.extend_from_slice(&self.scratch[..here]);
                        self.scratch.advance(here);
                    }
                    let missing = *length - frame.len();
                    if missing == 0 {
                        let bytes = std::mem::take(frame).freeze();
                        let permit = Charged(permit.take());
                        self.state = Reading::Length;
                        self.began = clock.mono();
                        return Ok(Frame { bytes, permit });
                    }
                    frame.reserve(missing.min(GROW_BYTES));
                    match self.reader.read_buf(&mut frame.limit(missing)).await.map_err(Closed::Socket)? {
                        0 => return Err(Closed::ByClient),
                        n => BYTES_IN.add(n as u64),
                    }
                }
            }
        }
    }

    /// Time in which we do not read is not the client's.
    fn pause(&mut self, pause: bool, now: Mono) {
        match (self.paused, pause) {
            (None, true) => self.paused = Some(now),
            (Some(since), false) => {
                self.began = self.began.plus(now.since(since));
                self.paused = None;
            }
            _ => {}
        }
    }

    fn is_partial(&self) -> bool {
        !self.scratch.is_empty() || matches!(self.state, Reading::Body { .. })
    }

    /// Has the client run out of time? `quiet` = nothing is at work or unsent.
    fn judge(&self, limits: &Limits, now: Mono, quiet: bool) -> Option<Closed> {
        if self.paused.is_some() {
            return None;
        }
        let (allowed_ms, why) = match &self.state {
            Reading::Charge { .. } => return None,
            // 1 KiB/s is a byte each millisecond.
            Reading::Body { frame, .. } => (limits.header_ms + frame.len() as u64, Closed::Slow),
            Reading::Length if !self.scratch.is_empty() => (limits.header_ms, Closed::Slow),
            Reading::Length if quiet => (limits.idle_ms, Closed::Idle),
            Reading::Length => return None,
        };
        (now.since(self.began) > Duration::from_millis(allowed_ms)).then_some(why)
    }
}

impl Reading {
    fn body(length: usize, permit: Option<OwnedSemaphorePermit>) -> Self {
        if let Some(permit) = &permit {
            REQUEST_BYTES.add(permit.num_permits() as i64);
        }
        Reading::Body { frame: BytesMut::with_capacity(length.min(GROW_BYTES)), length, permit }
    }
}

/// Requests begun and not answered, oldest first.
#[derive(Default)]
struct Flight {
    slots: VecDeque<Slot>,
    /// Nothing more is read; the connection ends when the slot that says so is the oldest.
    closing: bool,
    /// The client is gone.
    finishing: bool,
}

struct Slot {
    header: Bytes,
    order: Order,
    only_answers: bool,
    /// It was polled: what must happen in request order has happened, unless it holds the order.
    begun: bool,
    state: State,
    _permit: Charged,
}

enum State {
    Working(Work),
    Done(Result<Response, Refuse>),
}

impl Flight {
    fn start(&mut self, frame: Frame, requests: &dyn Requests) {
        REQUESTS.inc();
        let slot = match requests.start(frame.bytes) {
            Ok(Started { header, order, only_answers, work }) => {
                Slot { header, order, only_answers, begun: false, state: State::Working(work), _permit: frame.permit }
            }
            Err(refuse) => {
                self.closing = true;
                Slot {
                    header: Bytes::new(),
                    order: Order::default(),
                    only_answers: true,
                    begun: true,
                    state: State::Done(Err(refuse)),
                    _permit: frame.permit,
                }
            }
        };
        self.slots.push_back(slot);
    }

    fn is_held(&self) -> bool {
        self.slots.iter().any(|s| matches!(s.state, State::Working(_)) && s.order.is_held())
    }

    /// The oldest request may make its answer, however large.
    fn give_turn(&self) {
        if let Some(slot) = self.slots.front() {
            slot.order.give_turn();
        }
    }

    fn is_settled(&self) -> bool {
        self.slots.iter().all(|s| matches!(s.state, State::Done(_)))
    }

    /// Is there something that is done for a client that is gone, too?
    fn owes(&self) -> bool {
        self.slots.iter().any(|s| matches!(s.state, State::Working(_)) && !(s.only_answers && s.begun))
    }

    /// Resolves when at least one request is done, or when a client that is gone is owed none. Polls all in order, and nothing behind one that holds the order.
    fn progress(&mut self) -> impl Future<Output = ()> + '_ {
        poll_fn(|cx: &mut Context<'_>| {
            let mut changed = false;
            for slot in &mut self.slots {
                if let State::Working(work) = &mut slot.state {
                    slot.begun = true;
                    match work.as_mut().poll(cx) {
                        Poll::Ready(answer) => {
                            slot.state = State::Done(answer);
                            changed = true;
                        }
                        Poll::Pending if slot.order.is_held() => break,
                        Poll::Pending => {}
                    }
                }
            }
            if changed || (self.finishing && !self.owes()) { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    /// Moves the answers at the front to the way out.
    fn settle<W>(&mut self, out: &mut Out<W>, now: Mono) -> Result<(), Closed> {
        while matches!(self.slots.front(), Some(Slot { state: State::Done(_), .. })) {
            let Some(Slot { header, state: State::Done(answer), .. }) = self.slots.pop_front() else { break };
            let response = answer?;
            match response.kind {
                Kind::Nothing => {}
                Kind::Close => return Err(Closed::AcksZero),
                Kind::Reply => out.push(header, response, now),
            }
        }
        Ok(())
    }
}

/// Replies on their way out.
struct Out<W> {
    writer: W,
    pieces: VecDeque<(Bytes, Option<OwnedSemaphorePermit>)>,
    bytes: usize,
    progressed: Mono,
    /// Why the client can be told nothing more.
    broken: Option<io::Error>,
}

impl<W> Out<W> {
    fn give_up(&mut self, why: io::Error) {
        self.pieces.clear();
        self.bytes = 0;
        self.broken = Some(why);
    }

    fn push(&mut self, header: Bytes, response: Response, now: Mono) {
        if self.broken.is_some() {
            return;
        }
        if self.bytes == 0 {
            self.progressed = now;
        }
        let length = header.len() + response.bytes_len();
        let mut parts = response.parts.into_iter().filter(|p| !p.is_empty()).peekable();
        let inline = parts.next_if(|p| p.len() <= INLINE_BYTES);
        let mut head = BytesMut::with_capacity(4 + header.len() + inline.as_ref().map_or(0, Bytes::len));
        head.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        head.put_slice(&header);
        if let Some(inline) = inline {
            head.put_slice(&inline);
        }
        self.bytes += 4 + length;
        self.pieces.push_back((head.freeze(), None));
        self.pieces.extend(parts.map(|p| (p, None)));
        if let Some(last) = self.pieces.back_mut() {
            last.1 = response.permit;
        }
    }

    fn advance(&mut self, mut n: usize) {
        self.bytes -= n;
        BYTES_OUT.add(n as u64);
        while let Some((piece, _)) = self.pieces.front_mut() {
            if n < piece.len() {
                piece.advance(n);
                return;
            }
            n -= piece.len();
            self.pieces.pop_front();
        }
    }
}

impl<W: AsyncWrite + Unpin> Out<W> {
    /// One vectored write. Dropped before its end nothing was written.
    async fn write_some(&mut self) -> io::Result<()> {
        let mut slices = [IoSlice::new(&[]); PIECES_MAX];
        let mut count = 0;
        for (slot, (piece, _)) in slices.iter_mut().zip(&self.pieces) {
            *slot = IoSlice::new(piece);
            count += 1;
        }
        match self.writer.write_vectored(&slices[..count]).await? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            n => {
                self.advance(n);
                Ok(())
            }
        }
    }

    async fn write_all(&mut self) -> io::Result<()> {
        while self.bytes > 0 {
            self.write_some().await?;
        }
        Ok(())
    }
}

/// One timer per connection, set anew only when it fires or when something begins that has a short limit.
struct Alarm {
    sleep: Pin<Box<dyn Future<Output = ()> + Send>>,
    at: Mono,
}

impl Alarm {
    fn at(limits: &Limits, now: Mono, busy: bool) -> Self {
        let short = CHECK_MS.min(limits.header_ms / 2 + 1).min(limits.write_ms / 2 + 1);
        let ms = if busy { short } else { short.max(limits.idle_ms / 10 + 1) };
        Alarm { sleep: Box::pin(time::sleep(Duration::from_millis(ms))), at: now.plus_millis(ms) }
    }

    fn sooner(&mut self, limits: &Limits, now: Mono) {
        if self.at > now.plus_millis(CHECK_MS) {
            *self = Alarm::at(limits, now, true);
        }
    }
}

#[cfg(test)]
mod tests;
