//! Pure. Nodes: registration, liveness for placement, blocks of producer ids.

use super::image::{Broker, Image, Listener};
use super::records::ClusterRecord;
use catchwater_record::{NodeId, ProducerId};

/// Producer ids of one block. A node that restarts asks for a new block; what was left of the old one is never used.
pub const PRODUCER_ID_BLOCK: u32 = 1_000;

/// A node says that it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub id: NodeId,
    /// Drawn at process start.
    pub process: [u8; 16],
    pub listeners: Vec<Listener>,
    pub rack: Option<String>,
    pub roles: u32,
    pub dirs: Vec<[u8; 16]>,
}

/// The same process again, unchanged, writes nothing; anything else is a registration with the next epoch.
pub fn register(image: &Image, registration: &Registration, records: &mut Vec<ClusterRecord>) -> u64 {
    let Registration { id, process, listeners, rack, roles, dirs } = registration.clone();
    let there = image.broker(id);
    let epoch = there.map_or(1, |b| b.epoch + 1);
    let broker = Broker { id, process, epoch, listeners, rack, roles, dirs };
    if let Some(there) = there
        && **there == (Broker { epoch: there.epoch, ..broker.clone() })
    {
        return there.epoch;
    }
    records.push(ClusterRecord::Broker { id, broker: Some(broker) });
    epoch
}

/// The next block of producer ids. Kafka's ids are i64 and never reused; 2⁶³ of them are not run out of.
pub fn producer_ids(image: &Image, node: NodeId, records: &mut Vec<ClusterRecord>) -> ProducerId {
    let first = image.next_producer;
    records.push(ClusterRecord::ProducerIds { next: ProducerId(first.0 + i64::from(PRODUCER_ID_BLOCK)), node });
    first
}
