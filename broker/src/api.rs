//! Requests: what a handler gets, what it gives back, and the one table that finds it. One file per request.
//!
//! A handler is `pub async fn handle(ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse>`.
//! It is polled by its connection's task, first at once and in the order of the requests. What must happen in request
//! order (a propose, a machine's decision) happens in that first poll, before its first `.await`; a handler that has
//! to wait *before* its ordering point calls [`Order::hold`] and later [`Order::release`]: until then nothing behind
//! it on the same connection starts. Everything else may wait as long as it likes; replies leave in request order.

use crate::node::Node;
use bytes::{Bytes, BytesMut};
use catchwater_base::Now;
use catchwater_record::Caller;
use catchwater_runtime::sync::OwnedSemaphorePermit;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// One request on its way through a handler.
pub struct RequestContext {
    pub node: Arc<Node>,
    pub correlation_id: i32,
    /// Untrusted text: escape before logging, never a metric name or a path.
    pub client_id: Option<String>,
    pub caller: Caller,
    pub peer: SocketAddr,
    /// Address of the listener the request came in on, as clients know it: what brokers and coordinators are named by.
    pub advertised: Address,
    pub order: Order,
}

impl RequestContext {
    pub fn now(&self) -> Now {
        self.node.clock.now()
    }
}

/// Host and port as told to clients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    pub host: Arc<str>,
    pub port: u16,
}

/// The ordering point of one request, shared between its handler and its connection.
#[derive(Clone, Default)]
pub struct Order(Arc<AtomicBool>);

impl Order {
    /// Nothing behind this request starts until [`Order::release`] (or until the handler is done).
    pub fn hold(&self) {
        self.0.store(true, Ordering::Release);
    }
    pub fn release(&self) {
        self.0.store(false, Ordering::Release);
    }
    pub(crate) fn is_held(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What leaves on the connection: the body behind the response header, in pieces that are never copied together.
#[derive(Default)]
pub struct Response {
    pub(crate) kind: Kind,
    pub(crate) parts: Vec<Bytes>,
    /// Room in the response budget, given back when the last byte has left.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Kind {
    #[default]
    Reply,
    /// acks=0: no reply, no slot.
    Nothing,
    /// acks=0 that failed: closing is the only signal such a client can get.
    Close,
}

impl Response {
    /// One contiguous body.
    pub fn body(body: impl Into<Bytes>) -> Self {
        Response { parts: vec![body.into()], ..Self::default() }
    }
    /// A body in pieces.
    pub fn parts(parts: Vec<Bytes>) -> Self {
        Response { parts, ..Self::default() }
    }
    pub fn nothing() -> Self {
        Response { kind: Kind::Nothing, ..Self::default() }
    }
    pub fn close() -> Self {
        Response { kind: Kind::Close, ..Self::default() }
    }
    pub(crate) fn holding(mut self, permit: OwnedSemaphorePermit) -> Self {
        self.permit = Some(permit);
        self
    }
    pub fn bytes_len(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }
}

impl From<BytesMut> for Response {
    fn from(body: BytesMut) -> Self {
        Response::body(body.freeze())
    }
}

/// Why the connection closes without a reply, as Kafka does for what it cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum Refuse {
    #[error("body cannot be read: {0}")]
    Malformed(String),
    #[error("version {version} of {api} is not served")]
    Unsupported { api: &'static str, version: i16 },
    #[error("api key {0} is not served")]
    UnknownApi(i16),
    #[error("a bug of ours: {0}")]
    Bug(String),
}
