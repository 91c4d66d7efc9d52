//! Pure. Records of group 0 that make the [`Image`](super::image::Image). Page: `docs/formats/cluster-records.md`.

use super::image::{Broker, ConfigKey, Counters, Pipeline, Source, Topic};
use catchwater_record::{NodeId, PipelineName, ProducerId, SourceName, TopicId};
use std::collections::BTreeMap;

/// One fact. A variant with an `Option` is removed by `None` (a tombstone).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterRecord {
    /// First record of a new cluster.
    Cluster {
        id: [u8; 16],
        founded_ms: i64,
    },
    Feature {
        name: String,
        level: Option<i16>,
    },
    Broker {
        id: NodeId,
        broker: Option<Broker>,
    },
    Topic {
        id: TopicId,
        topic: Option<Topic>,
    },
    /// The whole set of settings of one resource.
    Config {
        of: ConfigKey,
        entries: Option<BTreeMap<String, String>>,
    },
    /// Ids below `next` are given out; `node` got the newest block.
    ProducerIds {
        next: ProducerId,
        node: NodeId,
    },
    Source {
        name: SourceName,
        source: Source,
    },
    Pipeline {
        name: PipelineName,
        pipeline: Option<Pipeline>,
    },
    Counters(Counters),
}
