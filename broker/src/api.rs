//! Requests: what a handler gets, what it gives back, and the one table that finds it. One file per request.
//!
//! A handler is `pub async fn handle(ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse>`.
//! It is polled by its connection's task, first at once and in the order of the requests. What must happen in request
//! order (a propose, a machine's decision) happens in that first poll, before its first `.await`; a handler that has
//! to wait *before* its ordering point calls [`Order::hold`] and later [`Order::release`]: until then nothing behind
//! it on the same connection starts. Everything else may wait as long as it likes; replies leave in request order.

pub mod alter_configs;
pub mod api_versions;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_groups;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_groups;
pub mod describe_log_dirs;
pub mod describe_producers;
pub mod fetch;
pub mod find_coordinator;
pub mod heartbeat;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_config_resources;
pub mod list_groups;
pub mod list_offsets;
pub mod metadata;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod sync_group;

use crate::connection::{Requests, Started};
use crate::node::{Node, wire_id};
use crate::partition::shell::Partition;
use crate::session::Session;
use bytes::{Bytes, BytesMut};
use catchwater_base::{Mono, Now};
use catchwater_protocol::header::{self, RequestHeader};
use catchwater_protocol::{Message, Reader, Writer, versions};
use catchwater_record::Caller;
use catchwater_runtime::sync::{Notify, OwnedSemaphorePermit};
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
    pub fn mono(&self) -> Mono {
        self.node.clock.mono()
    }
}

/// Host and port as told to clients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    pub host: Arc<str>,
    pub port: u16,
}

/// The ordering point of one request and its turn to answer, shared between its handler and its connection.
#[derive(Clone, Default)]
pub struct Order(Arc<Place>);

#[derive(Default)]
struct Place {
    held: AtomicBool,
    turn: AtomicBool,
    turned: Notify,
}

impl Order {
    /// Nothing behind this request starts until [`Order::release`] (or until the handler is done).
    pub fn hold(&self) {
        self.0.held.store(true, Ordering::Release);
    }
    pub fn release(&self) {
        self.0.held.store(false, Ordering::Release);
    }
    pub(crate) fn is_held(&self) -> bool {
        self.0.held.load(Ordering::Acquire)
    }

    /// Whether this request is the connection's oldest and the replies before it were taken: what it reserves now leaves
    /// at once. A large answer is made only then, so that a client that sends and never reads holds the room of one
    /// answer, and no answer holds room that an older one of its connection waits for.
    pub fn is_next(&self) -> bool {
        self.0.turn.load(Ordering::Acquire)
    }
    /// Waits until [`Order::is_next`]. Cancel-safe.
    pub async fn next(&self) {
        while !self.is_next() {
            self.0.turned.notified().await;
        }
    }
    pub(crate) fn give_turn(&self) {
        if !self.0.turn.swap(true, Ordering::AcqRel) {
            self.0.turned.notify_one();
        }
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

/// One connection as its requests see it: finds the handler of each frame. Walk: produce-fetch 3/14.
pub struct Peer {
    pub node: Arc<Node>,
    pub session: Session,
    pub advertised: Address,
}

impl Requests for Peer {
    fn start(&self, frame: Bytes) -> Result<Started, Refuse> {
        let (key, version) = header::peek(&frame).ok_or_else(|| Refuse::Malformed("no header".into()))?;
        let api = versions::find(key).ok_or(Refuse::UnknownApi(key))?;
        if api.state != versions::State::Served {
            return Err(Refuse::UnknownApi(key));
        }
        // An unknown version of ApiVersions is answered all the same (KIP-511).
        if !api.serves(version) && key != versions::API_VERSIONS {
            return Err(Refuse::Unsupported { api: api.name, version });
        }
        let total = frame.len();
        let mut reader = Reader::new(frame.clone());
        let flexible = header::request_is_flexible(key, version);
        let head = if api.serves(version) {
            RequestHeader::decode(&mut reader, flexible).map_err(|e| Refuse::Malformed(e.to_string()))?
        } else {
            // Nobody knows the header of a version to come but for its first 8 bytes.
            let correlation = frame.get(4..8).and_then(|b| b.try_into().ok()).map_or(0, i32::from_be_bytes);
            RequestHeader { key, version, correlation, client_id: None }
        };
        let body = frame.slice(total - reader.remaining()..);
        let order = Order::default();
        let ctx = RequestContext {
            node: self.node.clone(),
            correlation_id: head.correlation,
            client_id: head.client_id.as_ref().map(|id| id.to_string()),
            caller: self.session.caller.clone(),
            peer: self.session.peer,
            advertised: self.advertised.clone(),
            order: order.clone(),
        };
        let mut writer = Writer::with_capacity(5);
        header::encode_response(&mut writer, head.correlation, header::response_is_flexible(key, version));
        let header = writer.finish().map_err(|e| Refuse::Bug(e.to_string()))?.to_bytes();
        // From here on the handler alone holds the frame's memory: Produce patches batches in place.
        drop((reader, frame, head));
        // A parked fetch, a join or a sync that was decided waits for the client's sake alone.
        let only_answers = matches!(key, versions::FETCH | versions::JOIN_GROUP | versions::SYNC_GROUP);
        let work = Box::pin(async move { dispatch(&ctx, key, version, body).await });
        Ok(Started { header, order, only_answers, work })
    }
}

async fn dispatch(ctx: &RequestContext, key: i16, version: i16, body: Bytes) -> Result<Response, Refuse> {
    match key {
        versions::PRODUCE => produce::handle(ctx, version, body).await,
        versions::FETCH => fetch::handle(ctx, version, body).await,
        versions::LIST_OFFSETS => list_offsets::handle(ctx, version, body).await,
        versions::METADATA => metadata::handle(ctx, version, body).await,
        versions::API_VERSIONS => api_versions::handle(ctx, version, body).await,
        versions::OFFSET_COMMIT => offset_commit::handle(ctx, version, body).await,
        versions::OFFSET_FETCH => offset_fetch::handle(ctx, version, body).await,
        versions::FIND_COORDINATOR => find_coordinator::handle(ctx, version, body).await,
        versions::JOIN_GROUP => join_group::handle(ctx, version, body).await,
        versions::HEARTBEAT => heartbeat::handle(ctx, version, body).await,
        versions::LEAVE_GROUP => leave_group::handle(ctx, version, body).await,
        versions::SYNC_GROUP => sync_group::handle(ctx, version, body).await,
        versions::DESCRIBE_GROUPS => describe_groups::handle(ctx, version, body).await,
        versions::LIST_GROUPS => list_groups::handle(ctx, version, body).await,
        versions::DELETE_GROUPS => delete_groups::handle(ctx, version, body).await,
        versions::OFFSET_DELETE => offset_delete::handle(ctx, version, body).await,
        versions::CREATE_TOPICS => create_topics::handle(ctx, version, body).await,
        versions::DELETE_TOPICS => delete_topics::handle(ctx, version, body).await,
        versions::DELETE_RECORDS => delete_records::handle(ctx, version, body).await,
        versions::INIT_PRODUCER_ID => init_producer_id::handle(ctx, version, body).await,
        versions::DESCRIBE_CONFIGS => describe_configs::handle(ctx, version, body).await,
        versions::ALTER_CONFIGS => alter_configs::handle(ctx, version, body).await,
        versions::INCREMENTAL_ALTER_CONFIGS => incremental_alter_configs::handle(ctx, version, body).await,
        versions::OFFSET_FOR_LEADER_EPOCH => offset_for_leader_epoch::handle(ctx, version, body).await,
        versions::DESCRIBE_CLUSTER => describe_cluster::handle(ctx, version, body).await,
        versions::CREATE_PARTITIONS => create_partitions::handle(ctx, version, body).await,
        versions::DESCRIBE_LOG_DIRS => describe_log_dirs::handle(ctx, version, body).await,
        versions::DESCRIBE_PRODUCERS => describe_producers::handle(ctx, version, body).await,
        versions::LIST_CONFIG_RESOURCES => list_config_resources::handle(ctx, version, body).await,
        other => Err(Refuse::UnknownApi(other)),
    }
}

/// Decodes a body; what is left behind its last field is ignored, as Kafka does.
pub fn decode<M: Message>(body: Bytes, version: i16) -> Result<M, Refuse> {
    match catchwater_protocol::decode(body, version) {
        Ok((message, _left)) => Ok(message),
        Err(e) => Err(Refuse::Malformed(e.to_string())),
    }
}

pub fn encode<M: Message>(message: &M, version: i16) -> Result<Vec<Bytes>, Refuse> {
    let segments = catchwater_protocol::encode(message, version).map_err(|e| Refuse::Bug(e.to_string()))?;
    Ok(segments.into_pieces())
}

/// A reply with that body.
pub fn respond<M: Message>(message: &M, version: i16) -> Result<Response, Refuse> {
    encode(message, version).map(Response::parts)
}

/// Node and epoch of a partition's leader, as KIP-951 wants them.
pub(crate) fn leader_of(partition: &Partition) -> Option<(i32, i32)> {
    let leader = partition.leader()?;
    let epoch = i32::try_from(partition.ends().epoch.0).ok()?;
    Some((wire_id(leader), epoch))
}
