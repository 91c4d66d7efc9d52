//! Pure. Who is at the other end of a connection. Walk: produce-fetch 4/14.
//!
//! Listeners without authentication exist on loopback only (`Broker::start` refuses others); everyone there is
//! `User:ANONYMOUS` with all rights. The caller still travels with every request, so that what asks for rights does
//! not change when authentication comes.

use catchwater_record::Caller;
use core::net::SocketAddr;

#[derive(Clone, Debug)]
pub struct Session {
    pub caller: Caller,
    pub peer: SocketAddr,
}

impl Session {
    /// On a listener that asks nobody for a name.
    pub fn unauthenticated(peer: SocketAddr) -> Self {
        // As Kafka prints hosts.
        Session { caller: Caller::anonymous(format!("/{}", peer.ip())), peer }
    }
}
