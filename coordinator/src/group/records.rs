//! Pure. Records of `__consumer_offsets`, in Kafka's own schemas. Page: `docs/formats/group-records.md`.
//!
//! Written: OffsetCommit key 1 with value 3 (value 1 if the commit brought its own retention), GroupMetadata key 2 with
//! value 3, as Kafka does, so that lag monitors and dump tools of any age can read them. Read: every version.

use crate::stored::{KeyValue, Stored, StoredError};
use bytes::Bytes;
use catchwater_protocol::records::group as wire;
use catchwater_protocol::schema::{decode_key, decode_value, encode_key, encode_value, key_kind};
use catchwater_protocol::{DecodeError, EncodeError, Str};
use catchwater_record::{GroupName, TopicName};

/// One fact. `None` = removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupRecord {
    Offset { group: GroupName, topic: TopicName, partition: i32, offset: Option<Committed> },
    Group { group: GroupName, meta: Option<Meta> },
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    pub offset: i64,
    /// -1 = none.
    pub leader_epoch: i32,
    pub metadata: String,
    pub commit_ms: i64,
    /// From commits that bring their own retention (OffsetCommit v2-v4); -1 = the broker's applies.
    pub expire_ms: i64,
}

/// The last stable shape of a group: what a new coordinator goes on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Empty of groups that never had a member.
    pub protocol_type: String,
    pub generation: i32,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    /// When the group came into this state, ms; -1 = not known (records of old Kafka releases).
    pub state_ms: i64,
    pub members: Vec<MetaMember>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaMember {
    pub member: String,
    pub instance: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    pub subscription: Bytes,
    pub assignment: Bytes,
}

const OFFSET_COMMIT_V0: i16 = 0;
const OFFSET_COMMIT: i16 = 1;
const GROUP_METADATA: i16 = 2;

/// Lengths were checked at the edge: names fit an i16 on the wire they came from.
const FITS: &str = "fields came over a wire with the same bounds";

fn str(text: &str) -> Str {
    Str::from(text)
}

impl Stored for GroupRecord {
    fn to_stored(&self) -> KeyValue {
        let pair = || -> Result<KeyValue, EncodeError> {
            Ok(match self {
                GroupRecord::Offset { group, topic, partition, offset } => {
                    let key = wire::OffsetCommitKey {
                        group: str(group.as_str()),
                        topic: str(topic.as_str()),
                        partition: *partition,
                    };
                    let value = offset.as_ref().map(|o| {
                        let value = wire::OffsetCommitValue {
                            offset: o.offset,
                            leader_epoch: o.leader_epoch,
                            metadata: str(&o.metadata),
                            commit_timestamp: o.commit_ms,
                            expire_timestamp: o.expire_ms,
                            ..Default::default()
                        };
                        encode_value(&value, if o.expire_ms >= 0 { 1 } else { 3 })
                    });
                    KeyValue { key: encode_key(&key)?, value: value.transpose()? }
                }
                GroupRecord::Group { group, meta } => {
                    let key = wire::GroupMetadataKey { group: str(group.as_str()) };
                    let value = meta.as_ref().map(|m| encode_value(&meta_value(m), 3));
                    KeyValue { key: encode_key(&key)?, value: value.transpose()? }
                }
            })
        };
        pair().expect(FITS)
    }

    fn from_stored(key: &[u8], value: Option<&[u8]>) -> Result<Option<Self>, StoredError> {
        let value = value.map(Bytes::copy_from_slice);
        let whole = Bytes::copy_from_slice(key);
        Ok(Some(match key_kind(key) {
            Some(OFFSET_COMMIT_V0 | OFFSET_COMMIT) => {
                let key: wire::OffsetCommitKey = decode_key(&whole).map_err(bad)?;
                let offset = match value {
                    None => None,
                    Some(value) => {
                        let (_, v): (i16, wire::OffsetCommitValue) = decode_value(&value).map_err(bad)?;
                        Some(Committed {
                            offset: v.offset,
                            leader_epoch: v.leader_epoch,
                            metadata: v.metadata.to_string(),
                            commit_ms: v.commit_timestamp,
                            expire_ms: v.expire_timestamp,
                        })
                    }
                };
                let (group, topic) = (GroupName::from(&*key.group), TopicName::from(&*key.topic));
                GroupRecord::Offset { group, topic, partition: key.partition, offset }
            }
            Some(GROUP_METADATA) => {
                let key: wire::GroupMetadataKey = decode_key(&whole).map_err(bad)?;
                let meta = match value {
                    None => None,
                    Some(value) => {
                        let (_, v): (i16, wire::GroupMetadataValue) = decode_value(&value).map_err(bad)?;
                        Some(read_meta(&v))
                    }
                };
                GroupRecord::Group { group: GroupName::from(&*key.group), meta }
            }
            Some(_) => return Ok(None),
            None => return Err(StoredError::Short(2 - key.len().min(2))),
        }))
    }
}

fn bad(e: DecodeError) -> StoredError {
    StoredError::Field(e.to_string())
}

fn meta_value(m: &Meta) -> wire::GroupMetadataValue {
    let member = |m: &MetaMember| wire::MemberMetadata {
        member_id: str(&m.member),
        group_instance_id: m.instance.as_deref().map(str),
        client_id: str(&m.client_id),
        client_host: str(&m.client_host),
        rebalance_timeout: m.rebalance_timeout_ms,
        session_timeout: m.session_timeout_ms,
        subscription: m.subscription.clone(),
        assignment: m.assignment.clone(),
    };
    wire::GroupMetadataValue {
        protocol_type: str(&m.protocol_type),
        generation: m.generation,
        protocol: m.protocol.as_deref().map(str),
        leader: m.leader.as_deref().map(str),
        current_state_timestamp: m.state_ms,
        members: m.members.iter().map(member).collect(),
    }
}

fn read_meta(v: &wire::GroupMetadataValue) -> Meta {
    let member = |m: &wire::MemberMetadata| MetaMember {
        member: m.member_id.to_string(),
        instance: m.group_instance_id.as_ref().map(|i| i.to_string()),
        client_id: m.client_id.to_string(),
        client_host: m.client_host.to_string(),
        // Version 0 had no rebalance timeout: the session's was used for both.
        rebalance_timeout_ms: if m.rebalance_timeout > 0 { m.rebalance_timeout } else { m.session_timeout },
        session_timeout_ms: m.session_timeout,
        subscription: Bytes::copy_from_slice(&m.subscription),
        assignment: Bytes::copy_from_slice(&m.assignment),
    };
    Meta {
        protocol_type: v.protocol_type.to_string(),
        generation: v.generation,
        protocol: v.protocol.as_ref().map(|p| p.to_string()),
        leader: v.leader.as_ref().map(|l| l.to_string()),
        state_ms: v.current_state_timestamp,
        members: v.members.iter().map(member).collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cluster::records::tests::{bytes, in_page};

    fn offset(expire_ms: i64) -> GroupRecord {
        let leader_epoch = if expire_ms < 0 { 4 } else { -1 };
        let metadata = "m".to_owned();
        let offset = Committed { offset: 5, leader_epoch, metadata, commit_ms: 1_700_000_000_000, expire_ms };
        GroupRecord::Offset { group: "g".into(), topic: "t".into(), partition: 2, offset: Some(offset) }
    }

    fn group() -> GroupRecord {
        let member = MetaMember {
            member: "c-1".into(),
            instance: Some("i".into()),
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            rebalance_timeout_ms: 60_000,
            session_timeout_ms: 10_000,
            subscription: Bytes::from_static(b"\x01"),
            assignment: Bytes::from_static(b"\x02\x03"),
        };
        let meta = Meta {
            protocol_type: "consumer".into(),
            generation: 3,
            protocol: Some("range".into()),
            leader: Some("c-1".into()),
            state_ms: 1_700_000_000_000,
            members: vec![member],
        };
        GroupRecord::Group { group: "g".into(), meta: Some(meta) }
    }

    #[test]
    fn records_are_the_golden_bytes_of_the_page() {
        let page = include_str!("../../../docs/formats/group-records.md");
        let cases = [
            (offset(-1), "0001 000167 000174 00000002", "0003 0000000000000005 00000004 00016d 0000018bcfe56800"),
            (
                offset(1_700_000_000_500),
                "0001 000167 000174 00000002",
                "0001 0000000000000005 00016d 0000018bcfe56800 0000018bcfe569f4",
            ),
            (
                group(),
                "0002 000167",
                "0003 0008636f6e73756d6572 00000003 000572616e6765 0003632d31 0000018bcfe56800 00000001 0003632d31 000169 000163 000a2f3132372e302e302e31 0000ea60 00002710 00000001 01 00000002 0203",
            ),
        ];
        for (record, key, value) in cases {
            let stored = record.to_stored();
            assert_eq!(&stored.key[..], &bytes(key)[..]);
            assert_eq!(&stored.value.clone().unwrap()[..], &bytes(value)[..], "{record:?}");
            assert_eq!(GroupRecord::from_stored(&stored.key, stored.value.as_deref()), Ok(Some(record)));
            assert!(in_page(page, key) && in_page(page, value), "the page lacks {key} / {value}");
        }
    }

    #[test]
    fn tombstones_come_back_old_keys_are_read_foreign_kinds_are_skipped() {
        let gone = GroupRecord::Group { group: "g".into(), meta: None };
        assert_eq!(GroupRecord::from_stored(&gone.to_stored().key, None), Ok(Some(gone)));
        let v0 = bytes("0000 000167 000174 00000002");
        let gone = GroupRecord::Offset { group: "g".into(), topic: "t".into(), partition: 2, offset: None };
        assert_eq!(GroupRecord::from_stored(&v0, None), Ok(Some(gone)));
        assert_eq!(GroupRecord::from_stored(&bytes("0003 000167"), None), Ok(None));
        assert!(GroupRecord::from_stored(&bytes("00"), None).is_err());
        assert!(GroupRecord::from_stored(&bytes("0002 000167"), Some(&bytes("0009 00"))).is_err());
    }
}
