//! Pure. Nodes: registration, liveness for placement, blocks of producer ids.

use super::image::Listener;
use catchwater_record::NodeId;

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
