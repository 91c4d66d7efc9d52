//! Pure. Whose partitions are, as the log of group 0 says it: for a directory whose own record of that is lost. Offline
//! (`catchwater storage repair`); a running node asks its image.

use crate::host::core::decode;
use crate::topics::new_spec;
use bytes::Bytes;
use catchwater_base::Replicated;
use catchwater_coordinator::controller::{Controller, Record, Settings};
use catchwater_record::{Gid, NodeId, Offset, PartitionId, TopicPartition};
use catchwater_storage::GroupSpec;
use std::collections::BTreeMap;

/// The partitions that live on `node`, from the batches of group 0 in their order. `Err` = they cannot be understood: then
/// nothing is known, for a topic may have been deleted further on.
pub fn owners(batches: &[Bytes], node: NodeId) -> Result<BTreeMap<Gid, GroupSpec>, String> {
    let mut controller = Controller::new(Settings::default());
    let mut next = Offset::ZERO;
    for batch in batches {
        if let Some((records, end)) = decode::<Record>(batch, next)? {
            records.iter().for_each(|record| controller.replay(record));
            next = end;
        }
    }
    let mut out = BTreeMap::new();
    for topic in controller.image().topics() {
        for (number, place) in topic.partitions.iter().enumerate().filter(|(_, p)| p.replicas.contains(&node)) {
            let at = TopicPartition { topic: topic.id, partition: PartitionId(number as u32) };
            out.insert(place.gid, new_spec(at, node));
        }
    }
    Ok(out)
}
