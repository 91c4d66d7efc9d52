//! Accepts connections and bounds their number. Walk: produce-fetch 1/14.
//!
//! One task per listening socket, one per connection, all owned by the [`Server`]: its end ends them.

use crate::api::{Address, Peer};
use crate::connection::{self, CONNECTIONS_CLOSED, Closed, Limits, Shared};
use crate::node::Node;
use crate::session::Session;
use catchwater_base::metric::{Counter, Gauge};
use catchwater_raft::driver::Cork;
use catchwater_runtime::net::{TcpListener, TcpStream};
use catchwater_runtime::shutdown::{self, Stop, Stopped};
use catchwater_runtime::spawn::Tasks;
use catchwater_runtime::sync::Semaphore;
use catchwater_runtime::time;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// Rest after a failed accept (no descriptor left), ms.
const ACCEPT_PAUSE_MS: u64 = 100;

pub static CONNECTIONS: Gauge = Gauge::new();
pub static CONNECTIONS_REFUSED: Counter = Counter::new();
/// Closed because of what they sent.
pub static REQUESTS_REFUSED: Counter = Counter::new();

/// Where and how clients are served.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    pub listen: SocketAddr,
    /// What clients are told; `None` = the address they came in on.
    pub advertised: Option<Address>,
    pub limits: Limits,
    pub connections_max: usize,
}

/// The Kafka face of a node.
pub struct Server {
    address: SocketAddr,
    stop: Stop,
    tasks: Arc<Tasks>,
}

impl Server {
    /// Binds; serves when [`Server::serve`] is called, so that nobody comes in before the node is ready.
    pub async fn bind(config: &ServerConfig) -> io::Result<Vec<TcpListener>> {
        let first = TcpListener::bind(config.listen).await?;
        let address = first.local_addr()?;
        let mut all = vec![first];
        // Clients that resolve `localhost` may try ::1 first. Where there is no IPv6 they go on to 127.0.0.1.
        if config.listen.ip().is_loopback()
            && config.listen.is_ipv4()
            && let Ok(also) = TcpListener::bind((IpAddr::V6(Ipv6Addr::LOCALHOST), address.port())).await
        {
            all.push(also);
        }
        Ok(all)
    }

    pub fn serve(listeners: Vec<TcpListener>, node: Arc<Node>, config: ServerConfig) -> io::Result<Server> {
        let (stop, stopped) = shutdown::channel();
        let tasks = Arc::new(Tasks::new());
        let mut address = config.listen;
        let shared =
            Arc::new(Shared { clock: node.clock.clone(), budget: node.request_budget.clone(), limits: config.limits });
        let room = Arc::new(Semaphore::new(config.connections_max));
        for (i, listener) in listeners.into_iter().enumerate() {
            if i == 0 {
                address = listener.local_addr()?;
            }
            let accept = Accept {
                node: node.clone(),
                shared: shared.clone(),
                advertised: config.advertised.clone(),
                room: room.clone(),
                tasks: Arc::downgrade(&tasks),
                stopped: stopped.clone(),
            };
            tasks.spawn(format!("accept {address}"), accept.run(listener));
        }
        Ok(Server { address, stop, tasks })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// No new connection, all others end; returns the names of those that had to be aborted.
    pub async fn close(self, limit: Duration) -> Vec<String> {
        self.stop.stop();
        self.tasks.join(limit).await.into_iter().map(|(name, _)| name).collect()
    }
}

struct Accept {
    node: Arc<Node>,
    shared: Arc<Shared>,
    advertised: Option<Address>,
    room: Arc<Semaphore>,
    tasks: std::sync::Weak<Tasks>,
    stopped: Stopped,
}

impl Accept {
    async fn run(mut self, listener: TcpListener) {
        loop {
            // Cancel-safe: an accept that is dropped leaves the connection in the queue.
            let accepted = tokio::select! {
                () = self.stopped.wait() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.take(stream, peer),
                Err(_) => time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await,
            }
        }
    }

    fn take(&self, stream: TcpStream, peer: SocketAddr) {
        let (Ok(permit), Ok(local), Some(tasks)) =
            (self.room.clone().try_acquire_owned(), stream.local_addr(), self.tasks.upgrade())
        else {
            CONNECTIONS_REFUSED.inc();
            return;
        };
        // Small replies must not wait for the acknowledgement of the ones before.
        let _ = stream.set_nodelay(true);
        let advertised = self
            .advertised
            .clone()
            .unwrap_or_else(|| Address { host: local.ip().to_string().into(), port: local.port() });
        let requests = Arc::new(Peer { node: self.node.clone(), session: Session::unauthenticated(peer), advertised });
        let (shared, stopped) = (self.shared.clone(), self.stopped.clone());
        tasks.spawn(format!("connection {peer}"), async move {
            CONNECTIONS.add(1);
            let (reader, writer) = stream.into_split();
            let mut run = pin!(connection::run(reader, writer, requests, shared, stopped));
            // What a client has sent at once goes into one flush.
            let closed = poll_fn(|cx| {
                let _turn = Cork::hold();
                run.as_mut().poll(cx)
            })
            .await;
            CONNECTIONS.add(-1);
            CONNECTIONS_CLOSED.inc();
            if matches!(closed, Closed::Refused(_) | Closed::FrameLength(_)) {
                REQUESTS_REFUSED.inc();
            }
            drop(permit);
        });
    }
}
