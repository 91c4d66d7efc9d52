//! The network of a simulated world: listeners, connections, and what goes wrong with them. Outside of a world the types
//! are tokio's.
//!
//! A connection is two pipes; a pipe is a queue of pieces that each have their moment of arrival, in order, with a window
//! beyond which the writer waits. A link (from one host to another, one way) may be held: nothing arrives until it is
//! released, and nothing is lost, as with TCP. A connection may be broken: some prefix of what is under way still
//! arrives, then its end or a reset. The address says which listener is meant; hosts are told apart by who calls.

use super::{Here, draw, here, lock, note};
use bytes::{Buf, Bytes};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{ToSocketAddrs, lookup_host};
use tokio::time::{Instant, Sleep, sleep_until};

/// Bytes under way and unread in one direction before a writer waits.
const WINDOW_BYTES: usize = 256 * 1024;

/// What happens to connections of a host that ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Death {
    /// Its kernel resets them.
    Loud,
    /// Its peers hear nothing: what they send vanishes.
    Silent,
}

/// Delays of every link: least, and what may come on top; now and then ten times as much.
#[derive(Clone, Copy, Debug)]
pub struct Delays {
    pub least: Duration,
    pub spread: Duration,
}

/// See the file head.
#[derive(Default)]
pub struct Net {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    listeners: BTreeMap<SocketAddr, Listening>,
    held: BTreeSet<(u64, u64)>,
    pipes: BTreeMap<u64, Weak<Pipe>>,
    delays: Option<Delays>,
    made: u64,
}

struct Listening {
    host: u64,
    queue: Arc<Mutex<Queue>>,
}

#[derive(Default)]
struct Queue {
    streams: VecDeque<(SimStream, SocketAddr)>,
    waker: Option<Waker>,
}

impl Net {
    pub fn set_delays(&self, delays: Delays) {
        lock(&self.state).delays = Some(delays);
    }

    /// Nothing arrives from one host at the other until [`Net::release`].
    pub fn hold(&self, from: u64, to: u64) {
        lock(&self.state).held.insert((from, to));
    }

    pub fn release(&self, from: u64, to: u64) {
        lock(&self.state).held.remove(&(from, to));
        self.pipes(|pipe| (pipe.from, pipe.to) == (from, to)).iter().for_each(|pipe| pipe.wake());
    }

    pub fn release_all(&self) {
        let held: Vec<(u64, u64)> = lock(&self.state).held.iter().copied().collect();
        held.into_iter().for_each(|(from, to)| self.release(from, to));
    }

    /// Breaks every connection of a host, also to those that are dead: of what is under way a prefix arrives.
    pub fn cut(&self, host: u64) {
        self.pipes(|pipe| pipe.from == host || pipe.to == host).iter().for_each(|pipe| pipe.cut());
    }

    pub(super) fn host_died(&self, host: u64, how: Death) {
        lock(&self.state).listeners.retain(|_, listening| listening.host != host);
        for pipe in self.pipes(|pipe| pipe.from == host || pipe.to == host) {
            match how {
                Death::Loud => pipe.reset(),
                Death::Silent => pipe.vanish(),
            }
        }
    }

    fn pipes(&self, which: impl Fn(&Pipe) -> bool) -> Vec<Arc<Pipe>> {
        let mut state = lock(&self.state);
        state.pipes.retain(|_, pipe| pipe.strong_count() > 0);
        state.pipes.values().filter_map(Weak::upgrade).filter(|pipe| which(pipe)).collect()
    }

    fn is_held(&self, from: u64, to: u64) -> bool {
        lock(&self.state).held.contains(&(from, to))
    }

    fn delay(&self) -> Duration {
        let Some(delays) = lock(&self.state).delays else { return Duration::ZERO };
        let on_top = draw(delays.spread.as_micros() as u64 + 1);
        let factor = if draw(200) == 0 { 10 } else { 1 };
        delays.least + Duration::from_micros(on_top * factor)
    }

    fn pipe(&self, from: u64, to: u64) -> Arc<Pipe> {
        let mut state = lock(&self.state);
        state.made += 1;
        let number = state.made;
        let pipe = Arc::new(Pipe { number, from, to, inside: Mutex::default() });
        state.pipes.insert(number, Arc::downgrade(&pipe));
        pipe
    }

    fn port(&self) -> u16 {
        let mut state = lock(&self.state);
        state.made += 1;
        20_000 + (state.made % 40_000) as u16
    }
}

/// One direction of a connection.
struct Pipe {
    number: u64,
    from: u64,
    to: u64,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    pieces: VecDeque<(Instant, Bytes)>,
    queued_bytes: usize,
    newest: Option<Instant>,
    /// Nothing comes behind the pieces.
    ended: bool,
    /// What comes behind the pieces is a reset.
    broken: bool,
    /// Nobody reads any more.
    unread: bool,
    /// Nothing arrives, ever.
    void: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Inside {
    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }
}

impl Pipe {
    fn wake(&self) {
        lock(&self.inside).wake();
    }

    fn reset(&self) {
        let mut inside = lock(&self.inside);
        inside.pieces.clear();
        inside.queued_bytes = 0;
        (inside.broken, inside.ended) = (true, true);
        inside.wake();
    }

    fn vanish(&self) {
        let mut inside = lock(&self.inside);
        inside.pieces.clear();
        inside.queued_bytes = 0;
        inside.void = true;
        inside.wake();
    }

    fn cut(&self) {
        let mut inside = lock(&self.inside);
        let mut keep = draw(inside.queued_bytes as u64 + 1) as usize;
        let pieces = std::mem::take(&mut inside.pieces);
        inside.queued_bytes = keep;
        for (at, mut bytes) in pieces {
            bytes.truncate(keep);
            keep -= bytes.len();
            if !bytes.is_empty() {
                inside.pieces.push_back((at, bytes));
            }
        }
        (inside.ended, inside.void) = (true, false);
        inside.broken = draw(2) == 0;
        inside.wake();
    }

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8], net: &Net) -> Poll<io::Result<usize>> {
        let mut inside = lock(&self.inside);
        if inside.void {
            return Poll::Ready(Ok(bytes.len()));
        }
        if inside.ended || inside.unread {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let room = WINDOW_BYTES.saturating_sub(inside.queued_bytes);
        if room == 0 {
            inside.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        // Now and then the kernel takes only a part.
        let most = if draw(16) == 0 { 1 + draw(bytes.len() as u64) as usize } else { bytes.len() };
        let taken = most.min(room).min(bytes.len());
        let at = (Instant::now() + net.delay()).max(inside.newest.unwrap_or_else(Instant::now));
        inside.newest = Some(at);
        inside.queued_bytes += taken;
        inside.pieces.push_back((at, Bytes::copy_from_slice(&bytes[..taken])));
        if let Some(reader) = inside.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(taken))
    }

    /// `Err(Some)` = arrives then; `Err(None)` = waits for something else.
    fn take(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>, net: &Net) -> Result<io::Result<()>, Option<Instant>> {
        let held = net.is_held(self.from, self.to);
        let mut inside = lock(&self.inside);
        let inside = &mut *inside;
        inside.reader = Some(cx.waker().clone());
        if inside.void || held {
            return Err(None);
        }
        match inside.pieces.front_mut() {
            Some((at, _)) if *at > Instant::now() => Err(Some(*at)),
            Some((_, bytes)) => {
                // A read gets what has arrived, and that may be any part of a frame.
                let most = if draw(8) == 0 { 1 + draw(bytes.len() as u64) as usize } else { bytes.len() };
                let n = most.min(bytes.len()).min(buf.remaining());
                buf.put_slice(&bytes[..n]);
                bytes.advance(n);
                if bytes.is_empty() {
                    inside.pieces.pop_front();
                }
                inside.queued_bytes -= n;
                if let Some(writer) = inside.writer.take() {
                    writer.wake();
                }
                note("read", self.number << 32 | n as u64);
                Ok(Ok(()))
            }
            None if inside.broken => Ok(Err(io::ErrorKind::ConnectionReset.into())),
            None if inside.ended => Ok(Ok(())),
            None => Err(None),
        }
    }
}

fn world() -> io::Result<Here> {
    here().ok_or_else(|| io::Error::other("a socket of a simulated world outside of it"))
}

/// As tokio's.
pub enum TcpListener {
    Real(tokio::net::TcpListener),
    Sim(SimListener),
}

pub struct SimListener {
    address: SocketAddr,
    queue: Arc<Mutex<Queue>>,
}

impl TcpListener {
    pub async fn bind<A: ToSocketAddrs>(address: A) -> io::Result<TcpListener> {
        let Some(here) = here() else {
            return tokio::net::TcpListener::bind(address).await.map(TcpListener::Real);
        };
        let address = lookup_host(address).await?.next().ok_or(io::ErrorKind::InvalidInput)?;
        if address.is_ipv6() {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let mut state = lock(&here.world.net.state);
        if state.listeners.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let queue = Arc::<Mutex<Queue>>::default();
        state.listeners.insert(address, Listening { host: here.host.id, queue: queue.clone() });
        Ok(TcpListener::Sim(SimListener { address, queue }))
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            TcpListener::Real(listener) => listener.local_addr(),
            TcpListener::Sim(listener) => Ok(listener.address),
        }
    }

    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match self {
            TcpListener::Real(listener) => {
                listener.accept().await.map(|(stream, peer)| (TcpStream::Real(stream), peer))
            }
            TcpListener::Sim(listener) => {
                let next = poll_fn(|cx| {
                    let mut queue = lock(&listener.queue);
                    match queue.streams.pop_front() {
                        Some(next) => Poll::Ready(next),
                        None => {
                            queue.waker = Some(cx.waker().clone());
                            Poll::Pending
                        }
                    }
                });
                let (stream, peer) = next.await;
                Ok((TcpStream::Sim(stream), peer))
            }
        }
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        if let Some(here) = here() {
            let mut state = lock(&here.world.net.state);
            if state.listeners.get(&self.address).is_some_and(|l| Arc::ptr_eq(&l.queue, &self.queue)) {
                state.listeners.remove(&self.address);
            }
        }
    }
}

/// As tokio's.
pub enum TcpStream {
    Real(tokio::net::TcpStream),
    Sim(SimStream),
}

pub struct SimStream {
    reader: SimReader,
    writer: SimWriter,
    local: SocketAddr,
}

pub struct SimReader {
    pipe: Arc<Pipe>,
    world: Here,
    timer: Option<Pin<Box<Sleep>>>,
}

pub struct SimWriter {
    pipe: Arc<Pipe>,
    world: Here,
}

impl TcpStream {
    pub async fn connect<A: ToSocketAddrs>(address: A) -> io::Result<TcpStream> {
        if here().is_none() {
            return tokio::net::TcpStream::connect(address).await.map(TcpStream::Real);
        }
        let here = world()?;
        let net = &here.world.net;
        let address = lookup_host(address).await?.next().ok_or(io::ErrorKind::InvalidInput)?;
        tokio::time::sleep(net.delay()).await;
        let (host, queue) = {
            let state = lock(&net.state);
            let Some(listening) = state.listeners.get(&address) else {
                return Err(io::ErrorKind::ConnectionRefused.into());
            };
            (listening.host, listening.queue.clone())
        };
        let (own, to_it, to_us) = (here.host.id, net.pipe(here.host.id, host), net.pipe(host, here.host.id));
        note("connect", own);
        let peer = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), net.port());
        let stream = |read: &Arc<Pipe>, write: &Arc<Pipe>, local| SimStream {
            reader: SimReader { pipe: read.clone(), world: here.clone(), timer: None },
            writer: SimWriter { pipe: write.clone(), world: here.clone() },
            local,
        };
        let theirs = stream(&to_it, &to_us, address);
        let mut queue = lock(&queue);
        queue.streams.push_back((theirs, peer));
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
        Ok(TcpStream::Sim(stream(&to_us, &to_it, peer)))
    }

    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        match self {
            TcpStream::Real(stream) => stream.set_nodelay(nodelay),
            TcpStream::Sim(_) => Ok(()),
        }
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            TcpStream::Real(stream) => stream.local_addr(),
            TcpStream::Sim(stream) => Ok(stream.local),
        }
    }

    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        match self {
            TcpStream::Real(stream) => {
                let (reader, writer) = stream.into_split();
                (OwnedReadHalf::Real(reader), OwnedWriteHalf::Real(writer))
            }
            TcpStream::Sim(stream) => (OwnedReadHalf::Sim(stream.reader), OwnedWriteHalf::Sim(stream.writer)),
        }
    }
}

pub enum OwnedReadHalf {
    Real(tokio::net::tcp::OwnedReadHalf),
    Sim(SimReader),
}

pub enum OwnedWriteHalf {
    Real(tokio::net::tcp::OwnedWriteHalf),
    Sim(SimWriter),
}

impl AsyncRead for SimReader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match this.pipe.take(cx, buf, &this.world.world.net) {
                Ok(done) => {
                    this.timer = None;
                    return Poll::Ready(done);
                }
                Err(None) => return Poll::Pending,
                Err(Some(at)) => {
                    let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
                    if timer.deadline() != at {
                        timer.as_mut().reset(at);
                    }
                    ready!(timer.as_mut().poll(cx));
                    this.timer = None;
                }
            }
        }
    }
}

impl AsyncWrite for SimWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.pipe.poll_write(cx, bytes, &self.world.world.net)
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pipe.end();
        Poll::Ready(Ok(()))
    }
}

impl Pipe {
    fn end(&self) {
        let mut inside = lock(&self.inside);
        inside.ended = true;
        inside.wake();
    }
}

impl Drop for SimWriter {
    fn drop(&mut self) {
        self.pipe.end();
    }
}

impl Drop for SimReader {
    fn drop(&mut self) {
        let mut inside = lock(&self.pipe.inside);
        inside.unread = true;
        inside.wake();
    }
}

macro_rules! either {
    (read $name:ident, $part:ident) => {
        impl AsyncRead for $name {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $name::Real(real) => Pin::new(real).poll_read(cx, buf),
                    $name::Sim(sim) => Pin::new(sim.$part()).poll_read(cx, buf),
                }
            }
        }
    };
    (write $name:ident, $part:ident) => {
        impl AsyncWrite for $name {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $name::Real(real) => Pin::new(real).poll_write(cx, bytes),
                    $name::Sim(sim) => Pin::new(sim.$part()).poll_write(cx, bytes),
                }
            }
            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $name::Real(real) => Pin::new(real).poll_flush(cx),
                    $name::Sim(sim) => Pin::new(sim.$part()).poll_flush(cx),
                }
            }
            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $name::Real(real) => Pin::new(real).poll_shutdown(cx),
                    $name::Sim(sim) => Pin::new(sim.$part()).poll_shutdown(cx),
                }
            }
        }
    };
}

impl SimStream {
    fn reader(&mut self) -> &mut SimReader {
        &mut self.reader
    }
    fn writer(&mut self) -> &mut SimWriter {
        &mut self.writer
    }
}
impl SimReader {
    fn own(&mut self) -> &mut Self {
        self
    }
}
impl SimWriter {
    fn own(&mut self) -> &mut Self {
        self
    }
}

either!(read TcpStream, reader);
either!(write TcpStream, writer);
either!(read OwnedReadHalf, own);
either!(write OwnedWriteHalf, own);
