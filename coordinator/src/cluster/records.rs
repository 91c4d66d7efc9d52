//! Pure. Records of group 0 that make the [`Image`](super::image::Image). Page: `docs/formats/cluster-records.md`.
//!
//! Fields are only ever added, at the end or as tagged fields, with a new value version; a reader takes every version
//! up to its own and refuses newer ones, because skipping them would lose state without a word.

use super::image::{Broker, ConfigKey, Counters, Listener, Owner, Pipeline, Place, Revision, Source, Topic};
use crate::stored::{In, KeyValue, Out, Stored, StoredError, known};
use catchwater_record::{
    CaptureEpoch, CaptureId, Gid, Incarnation, NodeId, PipelineName, ProducerId, RevisionNo, SourceName, TopicId,
    TopicName,
};
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
    /// One text that a pipeline had; `None` = too old to be kept.
    Revision {
        name: PipelineName,
        no: RevisionNo,
        revision: Option<Revision>,
    },
}

/// Key versions (= kinds). Tasks have theirs from 64 on (`tasks/records.rs`).
mod kind {
    pub const CLUSTER: i16 = 1;
    pub const FEATURE: i16 = 2;
    pub const BROKER: i16 = 3;
    pub const TOPIC: i16 = 4;
    pub const CONFIG: i16 = 5;
    pub const PRODUCER_IDS: i16 = 6;
    pub const SOURCE: i16 = 7;
    pub const PIPELINE: i16 = 8;
    pub const COUNTERS: i16 = 9;
    pub const REVISION: i16 = 10;
}

const RESOURCE_TOPIC: i8 = 2;
const RESOURCE_BROKER: i8 = 4;

impl Stored for ClusterRecord {
    fn to_stored(&self) -> KeyValue {
        match self {
            ClusterRecord::Cluster { id, founded_ms } => {
                let mut v = Out::version(0);
                v.uuid(id);
                v.i64(*founded_ms);
                pair(Out::version(kind::CLUSTER), Some(v))
            }
            ClusterRecord::Feature { name, level } => {
                let mut k = Out::version(kind::FEATURE);
                k.string(name);
                let value = level.map(|level| {
                    let mut v = Out::version(0);
                    v.i16(level);
                    v
                });
                pair(k, value)
            }
            ClusterRecord::Broker { id, broker } => {
                let mut k = Out::version(kind::BROKER);
                k.i32(id.0 as i32);
                pair(k, broker.as_ref().map(broker_value))
            }
            ClusterRecord::Topic { id, topic } => {
                let mut k = Out::version(kind::TOPIC);
                k.uuid(&id.0);
                pair(k, topic.as_ref().map(topic_value))
            }
            ClusterRecord::Config { of, entries } => {
                let mut k = Out::version(kind::CONFIG);
                match of {
                    ConfigKey::Topic(name) => {
                        k.i8(RESOURCE_TOPIC);
                        k.string(name.as_str());
                    }
                    ConfigKey::Broker(node) => {
                        k.i8(RESOURCE_BROKER);
                        k.string(&node.map(|n| n.to_string()).unwrap_or_default());
                    }
                }
                let value = entries.as_ref().map(|entries| {
                    let mut v = Out::version(0);
                    v.compact_count(entries.len());
                    for (key, value) in entries {
                        v.compact_string(key);
                        v.compact_string(value);
                        v.end();
                    }
                    v
                });
                pair(k, value)
            }
            ClusterRecord::ProducerIds { next, node } => {
                let mut v = Out::version(0);
                v.i64(next.0);
                v.i32(node.0 as i32);
                pair(Out::version(kind::PRODUCER_IDS), Some(v))
            }
            ClusterRecord::Source { name, source } => {
                let mut k = Out::version(kind::SOURCE);
                k.string(name.as_str());
                let mut v = Out::version(0);
                v.i64(source.capture.0 as i64);
                v.i16(source.incarnation.0 as i16);
                pair(k, Some(v))
            }
            ClusterRecord::Pipeline { name, pipeline } => {
                let mut k = Out::version(kind::PIPELINE);
                k.string(name.as_str());
                pair(k, pipeline.as_ref().map(pipeline_value))
            }
            ClusterRecord::Counters(counters) => {
                let mut v = Out::version(0);
                v.i64(counters.gid.0 as i64);
                v.i64(counters.capture.0 as i64);
                v.i64(counters.task as i64);
                pair(Out::version(kind::COUNTERS), Some(v))
            }
            ClusterRecord::Revision { name, no, revision } => {
                let mut k = Out::version(kind::REVISION);
                k.string(name.as_str());
                k.i64(no.0 as i64);
                let value = revision.as_ref().map(|r| {
                    let mut v = Out::version(0);
                    v.i64(r.applied_ms);
                    v.compact_string(&r.text);
                    v.compact_string(&r.base_dir);
                    v.compact_string(&r.author);
                    v.compact_string(&r.message);
                    v
                });
                pair(k, value)
            }
        }
    }

    fn from_stored(key: &[u8], value: Option<&[u8]>) -> Result<Option<Self>, StoredError> {
        let mut k = In::new(key);
        let kind = k.i16()?;
        let mut v = match value {
            None => None,
            Some(value) => {
                let mut v = In::new(value);
                known(kind, v.i16()?, 0)?;
                Some(v)
            }
        };
        Ok(Some(match kind {
            kind::CLUSTER => {
                let v = v.as_mut().ok_or(StoredError::Null)?;
                ClusterRecord::Cluster { id: v.uuid()?, founded_ms: v.i64()? }
            }
            kind::FEATURE => {
                ClusterRecord::Feature { name: k.string()?.to_owned(), level: v.as_mut().map(|v| v.i16()).transpose()? }
            }
            kind::BROKER => {
                let id = NodeId(k.i32()? as u32);
                ClusterRecord::Broker { id, broker: v.as_mut().map(|v| read_broker(id, v)).transpose()? }
            }
            kind::TOPIC => {
                let id = TopicId(k.uuid()?);
                ClusterRecord::Topic { id, topic: v.as_mut().map(|v| read_topic(id, v)).transpose()? }
            }
            kind::CONFIG => {
                let of = match (k.i8()?, k.string()?) {
                    (RESOURCE_TOPIC, name) => ConfigKey::Topic(name.into()),
                    (RESOURCE_BROKER, "") => ConfigKey::Broker(None),
                    (RESOURCE_BROKER, node) => {
                        let node = node.parse().map_err(|_| StoredError::Unknown { what: "node", value: -1 })?;
                        ConfigKey::Broker(Some(NodeId(node)))
                    }
                    (other, _) => return Err(StoredError::Unknown { what: "resource", value: i64::from(other) }),
                };
                ClusterRecord::Config { of, entries: v.as_mut().map(read_entries).transpose()? }
            }
            kind::PRODUCER_IDS => {
                let v = v.as_mut().ok_or(StoredError::Null)?;
                ClusterRecord::ProducerIds { next: ProducerId(v.i64()?), node: NodeId(v.i32()? as u32) }
            }
            kind::SOURCE => {
                let v = v.as_mut().ok_or(StoredError::Null)?;
                ClusterRecord::Source {
                    name: k.string()?.into(),
                    source: Source { capture: CaptureId(v.i64()? as u64), incarnation: Incarnation(v.i16()? as u16) },
                }
            }
            kind::PIPELINE => {
                let name = PipelineName::from(k.string()?);
                let pipeline = v.as_mut().map(|v| read_pipeline(name.clone(), v)).transpose()?;
                ClusterRecord::Pipeline { name, pipeline }
            }
            kind::COUNTERS => {
                let v = v.as_mut().ok_or(StoredError::Null)?;
                ClusterRecord::Counters(Counters {
                    gid: Gid(v.i64()? as u64),
                    capture: CaptureId(v.i64()? as u64),
                    task: v.i64()? as u64,
                })
            }
            kind::REVISION => {
                let (name, no) = (PipelineName::from(k.string()?), RevisionNo(k.i64()? as u64));
                let revision = v.as_mut().map(read_revision).transpose()?;
                ClusterRecord::Revision { name, no, revision }
            }
            _ => return Ok(None),
        }))
    }
}

/// Every value ends with its tagged fields; none is defined yet.
fn pair(key: Out, value: Option<Out>) -> KeyValue {
    let value = value.map(|mut v| {
        v.end();
        v.finish()
    });
    KeyValue { key: key.finish(), value }
}

fn broker_value(b: &Broker) -> Out {
    let mut v = Out::version(0);
    v.uuid(&b.process);
    v.i64(b.epoch as i64);
    v.i32(b.roles as i32);
    v.compact_nullable(b.rack.as_deref());
    v.compact_count(b.listeners.len());
    for l in &b.listeners {
        v.compact_string(&l.name);
        v.compact_string(&l.host);
        v.i16(l.port as i16);
        v.end();
    }
    v.compact_count(b.dirs.len());
    for dir in &b.dirs {
        v.uuid(dir);
    }
    v
}

fn read_broker(id: NodeId, v: &mut In<'_>) -> Result<Broker, StoredError> {
    let (process, epoch, roles) = (v.uuid()?, v.i64()? as u64, v.i32()? as u32);
    let rack = v.compact_nullable()?.map(str::to_owned);
    let mut listeners = Vec::new();
    for _ in 0..v.compact_count(5)? {
        let (name, host, port) = (v.compact_string()?.to_owned(), v.compact_string()?.to_owned(), v.i16()? as u16);
        v.end()?;
        listeners.push(Listener { name, host, port });
    }
    let mut dirs = Vec::new();
    for _ in 0..v.compact_count(16)? {
        dirs.push(v.uuid()?);
    }
    Ok(Broker { id, process, epoch, listeners, rack, roles, dirs })
}

fn topic_value(t: &Topic) -> Out {
    let mut v = Out::version(0);
    v.compact_string(t.name.as_str());
    v.i64(t.created_ms);
    let (owner, capture, epoch) = match t.owner {
        Owner::Nobody => (0, 0, 0),
        Owner::Capture(capture, epoch) => (1, capture.0, epoch.0),
    };
    v.i8(owner);
    v.i64(capture as i64);
    v.i32(epoch as i32);
    v.compact_count(t.partitions.len());
    for place in &t.partitions {
        v.i64(place.gid.0 as i64);
        v.compact_count(place.replicas.len());
        for node in &place.replicas {
            v.i32(node.0 as i32);
        }
        v.end();
    }
    v
}

fn read_topic(id: TopicId, v: &mut In<'_>) -> Result<Topic, StoredError> {
    let name = TopicName::from(v.compact_string()?);
    let created_ms = v.i64()?;
    let (owner, capture, epoch) = (v.i8()?, v.i64()?, v.i32()?);
    let owner = match owner {
        0 => Owner::Nobody,
        1 => Owner::Capture(CaptureId(capture as u64), CaptureEpoch(epoch as u32)),
        other => return Err(StoredError::Unknown { what: "owner", value: i64::from(other) }),
    };
    let mut partitions = Vec::new();
    for _ in 0..v.compact_count(10)? {
        let gid = Gid(v.i64()? as u64);
        let mut replicas = Vec::new();
        for _ in 0..v.compact_count(4)? {
            replicas.push(NodeId(v.i32()? as u32));
        }
        v.end()?;
        partitions.push(Place { gid, replicas });
    }
    Ok(Topic { id, name, partitions, owner, created_ms })
}

fn read_entries(v: &mut In<'_>) -> Result<BTreeMap<String, String>, StoredError> {
    let mut entries = BTreeMap::new();
    for _ in 0..v.compact_count(3)? {
        let (key, value) = (v.compact_string()?.to_owned(), v.compact_string()?.to_owned());
        v.end()?;
        entries.insert(key, value);
    }
    Ok(entries)
}

fn pipeline_value(p: &Pipeline) -> Out {
    let mut v = Out::version(0);
    v.i64(p.revision.0 as i64);
    v.i8(i8::from(p.running));
    v.compact_string(&p.text);
    v.compact_count(p.captures.len());
    for (name, capture) in &p.captures {
        v.compact_string(name);
        v.i64(capture.0 as i64);
        v.end();
    }
    v.compact_count(p.sinks.len());
    for name in &p.sinks {
        v.compact_string(name);
        v.end();
    }
    v
}

fn read_pipeline(name: PipelineName, v: &mut In<'_>) -> Result<Pipeline, StoredError> {
    let (revision, running) = (RevisionNo(v.i64()? as u64), v.i8()? != 0);
    let text = v.compact_string()?.to_owned();
    let mut captures = Vec::new();
    for _ in 0..v.compact_count(10)? {
        let (name, capture) = (v.compact_string()?.to_owned(), CaptureId(v.i64()? as u64));
        v.end()?;
        captures.push((name, capture));
    }
    let mut sinks = Vec::new();
    for _ in 0..v.compact_count(2)? {
        sinks.push(v.compact_string()?.to_owned());
        v.end()?;
    }
    Ok(Pipeline { name, revision, text, running, captures, sinks })
}

fn read_revision(v: &mut In<'_>) -> Result<Revision, StoredError> {
    let applied_ms = v.i64()?;
    let mut text = || v.compact_string().map(str::to_owned);
    Ok(Revision { applied_ms, text: text()?, base_dir: text()?, author: text()?, message: text()? })
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// (record, key, value) as `docs/formats/cluster-records.md` prints them.
    pub(crate) fn golden() -> Vec<(ClusterRecord, &'static str, &'static str)> {
        let uuid = |b: u8| [b; 16];
        let topic = Topic {
            id: TopicId(uuid(0x33)),
            name: "cw.a".into(),
            partitions: vec![
                Place { gid: Gid(1), replicas: vec![NodeId(1)] },
                Place { gid: Gid(2), replicas: vec![NodeId(1)] },
            ],
            owner: Owner::Capture(CaptureId(7), CaptureEpoch(3)),
            created_ms: 1_700_000_000_000,
        };
        let broker = Broker {
            id: NodeId(1),
            process: uuid(0x22),
            epoch: 5,
            listeners: vec![Listener { name: "PLAINTEXT".into(), host: "h".into(), port: 40_000 }],
            rack: None,
            roles: 15,
            dirs: vec![uuid(0x44)],
        };
        let pipeline = Pipeline {
            name: "p".into(),
            revision: RevisionNo(2),
            text: "x: 1".into(),
            running: true,
            captures: vec![("pg".into(), CaptureId(7))],
            sinks: vec!["out".into()],
        };
        vec![
            (
                ClusterRecord::Cluster { id: uuid(0x11), founded_ms: 1_700_000_000_000 },
                "0001",
                "0000 11111111111111111111111111111111 0000018bcfe56800 00",
            ),
            (ClusterRecord::Feature { name: "f".into(), level: Some(2) }, "0002 000166", "0000 0002 00"),
            (
                ClusterRecord::Broker { id: NodeId(1), broker: Some(broker) },
                "0003 00000001",
                "0000 22222222222222222222222222222222 0000000000000005 0000000f 00 02 0a504c41494e54455854 0268 9c40 00 02 44444444444444444444444444444444 00",
            ),
            (
                ClusterRecord::Topic { id: topic.id, topic: Some(topic) },
                "0004 33333333333333333333333333333333",
                "0000 0563772e61 0000018bcfe56800 01 0000000000000007 00000003 03 0000000000000001 02 00000001 00 0000000000000002 02 00000001 00 00",
            ),
            (
                ClusterRecord::Config {
                    of: ConfigKey::Topic("cw.a".into()),
                    entries: Some(BTreeMap::from([("k".into(), "v".into())])),
                },
                "0005 02 000463772e61",
                "0000 02 026b 0276 00 00",
            ),
            (
                ClusterRecord::ProducerIds { next: ProducerId(1000), node: NodeId(1) },
                "0006",
                "0000 00000000000003e8 00000001 00",
            ),
            (
                ClusterRecord::Source {
                    name: "pg".into(),
                    source: Source { capture: CaptureId(7), incarnation: Incarnation(1) },
                },
                "0007 00027067",
                "0000 0000000000000007 0001 00",
            ),
            (
                ClusterRecord::Pipeline { name: "p".into(), pipeline: Some(pipeline) },
                "0008 000170",
                "0000 0000000000000002 01 05783a2031 02 037067 0000000000000007 00 02 046f7574 00 00",
            ),
            (
                ClusterRecord::Counters(Counters { gid: Gid(3), capture: CaptureId(8), task: 2 }),
                "0009",
                "0000 0000000000000003 0000000000000008 0000000000000002 00",
            ),
            (
                ClusterRecord::Revision {
                    name: "p".into(),
                    no: RevisionNo(2),
                    revision: Some(Revision {
                        applied_ms: 1_700_000_000_000,
                        text: "x: 1".into(),
                        base_dir: "/d".into(),
                        author: "ann".into(),
                        message: "m".into(),
                    }),
                },
                "000a 000170 0000000000000002",
                "0000 0000018bcfe56800 05783a2031 032f64 04616e6e 026d 00",
            ),
        ]
    }

    pub(crate) fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        digits.chunks(2).map(|p| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap()).collect()
    }

    /// The page prints exactly these bytes.
    pub(crate) fn in_page(page: &str, hex: &str) -> bool {
        page.contains(&format!("`{hex}`"))
    }

    #[test]
    fn records_are_the_golden_bytes_of_the_page() {
        let page = include_str!("../../../docs/formats/cluster-records.md");
        for (record, key, value) in golden() {
            let stored = record.to_stored();
            assert_eq!(&stored.key[..], &bytes(key)[..], "key of {record:?}");
            assert_eq!(&stored.value.clone().unwrap()[..], &bytes(value)[..], "value of {record:?}");
            assert_eq!(ClusterRecord::from_stored(&stored.key, stored.value.as_deref()), Ok(Some(record.clone())));
            assert!(in_page(page, key) && in_page(page, value), "the page lacks {key} / {value}");
        }
    }

    #[test]
    fn tombstones_come_back_and_unknown_kinds_are_skipped() {
        let gone = [
            ClusterRecord::Feature { name: "f".into(), level: None },
            ClusterRecord::Broker { id: NodeId(9), broker: None },
            ClusterRecord::Topic { id: TopicId([1; 16]), topic: None },
            ClusterRecord::Config { of: ConfigKey::Broker(Some(NodeId(4))), entries: None },
            ClusterRecord::Pipeline { name: "p".into(), pipeline: None },
            ClusterRecord::Revision { name: "p".into(), no: RevisionNo(7), revision: None },
        ];
        for record in gone {
            let stored = record.to_stored();
            assert_eq!(stored.value, None);
            assert_eq!(ClusterRecord::from_stored(&stored.key, None), Ok(Some(record)));
        }
        assert_eq!(ClusterRecord::from_stored(&[0x7f, 0xff], None), Ok(None));
    }

    #[test]
    fn newer_values_and_cut_bytes_are_refused_without_a_panic() {
        for (record, ..) in golden() {
            let stored = record.to_stored();
            let value = stored.value.unwrap();
            for cut in 0..value.len() - 1 {
                assert!(ClusterRecord::from_stored(&stored.key, Some(&value[..cut])).is_err(), "{record:?} at {cut}");
            }
            let mut newer = value.to_vec();
            newer[1] = 1;
            assert!(matches!(
                ClusterRecord::from_stored(&stored.key, Some(&newer)),
                Err(StoredError::Newer { value: 1, .. })
            ));
        }
    }
}
