//! Pure. Record schemas `group`.
// Written by `cargo xtask codegen` from protocol/messages; do not edit.
#![allow(unused_variables, unused_mut, clippy::all)]

#[allow(unused_imports)]
use bytes::Bytes;
#[allow(unused_imports)]
use catchwater_record::TopicId;

#[allow(unused_imports)]
use crate::reader::{DecodeError, Named, Reader};
#[allow(unused_imports)]
use crate::text::Str;
#[allow(unused_imports)]
use crate::writer::{Records, Writer, size};
#[allow(unused_imports)]
use crate::{Message, Uuid};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommitKey {
    pub group: Str,
    pub topic: Str,
    pub partition: i32,
}

impl Default for OffsetCommitKey {
    fn default() -> Self {
        OffsetCommitKey { group: Str::default(), topic: Str::default(), partition: 0 }
    }
}

impl Message for OffsetCommitKey {
    fn min_size(v: i16) -> usize {
        let flex = false;
        let mut n = 0;
        n += size::min_string(flex);
        n += size::min_string(flex);
        n += 4;
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = false;
        let mut m = Self::default();
        m.group = r.string(flex).named("OffsetCommitKey.group")?;
        m.topic = r.string(flex).named("OffsetCommitKey.topic")?;
        m.partition = r.i32().named("OffsetCommitKey.partition")?;
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = false;
        let mut n = 0;
        n += size::string(&self.group, flex);
        n += size::string(&self.topic, flex);
        n += 4;
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = false;
        w.string(&self.group, flex, "OffsetCommitKey.group");
        w.string(&self.topic, flex, "OffsetCommitKey.topic");
        w.i32(self.partition);
    }
}

impl crate::schema::Schema for OffsetCommitKey {
    const NAME: &'static str = "OffsetCommitKey";
    const MIN: i16 = 0;
    const MAX: i16 = 0;
    const FLEX: Option<i16> = None;
    const ID: Option<i16> = Some(1);
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommitValue {
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: Str,
    pub commit_timestamp: i64,
    pub expire_timestamp: i64,
    pub topic_id: TopicId,
}

impl Default for OffsetCommitValue {
    fn default() -> Self {
        OffsetCommitValue {
            offset: 0,
            leader_epoch: -1,
            metadata: Str::default(),
            commit_timestamp: 0,
            expire_timestamp: -1,
            topic_id: Default::default(),
        }
    }
}

impl Message for OffsetCommitValue {
    fn min_size(v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        n += 8;
        if v >= 3 {
            n += 4;
        }
        n += size::min_string(flex);
        n += 8;
        if v == 1 {
            n += 8;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 4;
        let mut m = Self::default();
        m.offset = r.i64().named("OffsetCommitValue.offset")?;
        if v >= 3 {
            m.leader_epoch = r.i32().named("OffsetCommitValue.leader_epoch")?;
        }
        m.metadata = r.string(flex).named("OffsetCommitValue.metadata")?;
        m.commit_timestamp = r.i64().named("OffsetCommitValue.commit_timestamp")?;
        if v == 1 {
            m.expire_timestamp = r.i64().named("OffsetCommitValue.expire_timestamp")?;
        }
        if flex {
            r.tags(|r, tag| match tag {
                0 if v >= 4 => {
                    m.topic_id = r.topic_id().named("OffsetCommitValue.topic_id")?;
                    Ok(true)
                }
                _ => Ok(false),
            })?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        n += 8;
        if v >= 3 {
            n += 4;
        }
        n += size::string(&self.metadata, flex);
        n += 8;
        if v == 1 {
            n += 8;
        }
        if flex {
            let mut tags = 0;
            if v >= 4 && self.topic_id != TopicId::default() {
                tags += 1;
                n += size::tag(0, 16);
            }
            n += size::uvarint(tags);
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 4;
        w.i64(self.offset);
        if v >= 3 {
            w.i32(self.leader_epoch);
        }
        w.string(&self.metadata, flex, "OffsetCommitValue.metadata");
        w.i64(self.commit_timestamp);
        if v == 1 {
            w.i64(self.expire_timestamp);
        }
        if flex {
            let mut tags = 0;
            if v >= 4 && self.topic_id != TopicId::default() {
                tags += 1;
            }
            w.uvarint(tags);
            if v >= 4 && self.topic_id != TopicId::default() {
                w.tag(0, 16);
                w.uuid(&self.topic_id.0);
            }
        }
    }
}

impl crate::schema::Schema for OffsetCommitValue {
    const NAME: &'static str = "OffsetCommitValue";
    const MIN: i16 = 0;
    const MAX: i16 = 4;
    const FLEX: Option<i16> = Some(4);
    const ID: Option<i16> = None;
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadataKey {
    pub group: Str,
}

impl Default for GroupMetadataKey {
    fn default() -> Self {
        GroupMetadataKey { group: Str::default() }
    }
}

impl Message for GroupMetadataKey {
    fn min_size(v: i16) -> usize {
        let flex = false;
        let mut n = 0;
        n += size::min_string(flex);
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = false;
        let mut m = Self::default();
        m.group = r.string(flex).named("GroupMetadataKey.group")?;
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = false;
        let mut n = 0;
        n += size::string(&self.group, flex);
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = false;
        w.string(&self.group, flex, "GroupMetadataKey.group");
    }
}

impl crate::schema::Schema for GroupMetadataKey {
    const NAME: &'static str = "GroupMetadataKey";
    const MIN: i16 = 0;
    const MAX: i16 = 0;
    const FLEX: Option<i16> = None;
    const ID: Option<i16> = Some(2);
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadataValue {
    pub protocol_type: Str,
    pub generation: i32,
    pub protocol: Option<Str>,
    pub leader: Option<Str>,
    pub current_state_timestamp: i64,
    pub members: Vec<MemberMetadata>,
}

impl Default for GroupMetadataValue {
    fn default() -> Self {
        GroupMetadataValue {
            protocol_type: Str::default(),
            generation: 0,
            protocol: Some(Str::default()),
            leader: Some(Str::default()),
            current_state_timestamp: -1,
            members: Vec::new(),
        }
    }
}

impl Message for GroupMetadataValue {
    fn min_size(v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        n += size::min_string(flex);
        n += 4;
        n += size::min_string(flex);
        n += size::min_string(flex);
        if v >= 2 {
            n += 8;
        }
        n += size::min_bytes(flex);
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 4;
        let mut m = Self::default();
        m.protocol_type = r.string(flex).named("GroupMetadataValue.protocol_type")?;
        m.generation = r.i32().named("GroupMetadataValue.generation")?;
        m.protocol = r.string_opt(flex, true).named("GroupMetadataValue.protocol")?;
        m.leader = r.string_opt(flex, true).named("GroupMetadataValue.leader")?;
        if v >= 2 {
            m.current_state_timestamp = r.i64().named("GroupMetadataValue.current_state_timestamp")?;
        }
        m.members = r
            .array(flex, MemberMetadata::min_size(v), |r| MemberMetadata::decode(r, v))
            .named("GroupMetadataValue.members")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        n += size::string(&self.protocol_type, flex);
        n += 4;
        n += size::string_opt(&self.protocol, flex);
        n += size::string_opt(&self.leader, flex);
        if v >= 2 {
            n += 8;
        }
        n += size::array(&self.members, flex, |x| x.size(v));
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 4;
        w.string(&self.protocol_type, flex, "GroupMetadataValue.protocol_type");
        w.i32(self.generation);
        w.string_opt(&self.protocol, flex, true, "GroupMetadataValue.protocol");
        w.string_opt(&self.leader, flex, true, "GroupMetadataValue.leader");
        if v >= 2 {
            w.i64(self.current_state_timestamp);
        }
        w.array(&self.members, flex, "GroupMetadataValue.members", |w, x| x.encode(w, v));
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberMetadata {
    pub member_id: Str,
    pub group_instance_id: Option<Str>,
    pub client_id: Str,
    pub client_host: Str,
    pub rebalance_timeout: i32,
    pub session_timeout: i32,
    pub subscription: Bytes,
    pub assignment: Bytes,
}

impl Default for MemberMetadata {
    fn default() -> Self {
        MemberMetadata {
            member_id: Str::default(),
            group_instance_id: None,
            client_id: Str::default(),
            client_host: Str::default(),
            rebalance_timeout: 0,
            session_timeout: 0,
            subscription: Bytes::new(),
            assignment: Bytes::new(),
        }
    }
}

impl Message for MemberMetadata {
    fn min_size(v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        n += size::min_string(flex);
        if v >= 3 {
            n += size::min_string(flex);
        }
        n += size::min_string(flex);
        n += size::min_string(flex);
        if v >= 1 {
            n += 4;
        }
        n += 4;
        n += size::min_bytes(flex);
        n += size::min_bytes(flex);
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 4;
        let mut m = Self::default();
        m.member_id = r.string(flex).named("MemberMetadata.member_id")?;
        if v >= 3 {
            m.group_instance_id = r.string_opt(flex, v >= 3).named("MemberMetadata.group_instance_id")?;
        }
        m.client_id = r.string(flex).named("MemberMetadata.client_id")?;
        m.client_host = r.string(flex).named("MemberMetadata.client_host")?;
        if v >= 1 {
            m.rebalance_timeout = r.i32().named("MemberMetadata.rebalance_timeout")?;
        }
        m.session_timeout = r.i32().named("MemberMetadata.session_timeout")?;
        m.subscription = r.bytes(flex).named("MemberMetadata.subscription")?;
        m.assignment = r.bytes(flex).named("MemberMetadata.assignment")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        n += size::string(&self.member_id, flex);
        if v >= 3 {
            n += size::string_opt(&self.group_instance_id, flex);
        }
        n += size::string(&self.client_id, flex);
        n += size::string(&self.client_host, flex);
        if v >= 1 {
            n += 4;
        }
        n += 4;
        n += size::bytes(&self.subscription, flex);
        n += size::bytes(&self.assignment, flex);
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 4;
        w.string(&self.member_id, flex, "MemberMetadata.member_id");
        if v >= 3 {
            w.string_opt(&self.group_instance_id, flex, v >= 3, "MemberMetadata.group_instance_id");
        }
        w.string(&self.client_id, flex, "MemberMetadata.client_id");
        w.string(&self.client_host, flex, "MemberMetadata.client_host");
        if v >= 1 {
            w.i32(self.rebalance_timeout);
        }
        w.i32(self.session_timeout);
        w.bytes(&self.subscription, flex, "MemberMetadata.subscription");
        w.bytes(&self.assignment, flex, "MemberMetadata.assignment");
        if flex {
            w.uvarint(0);
        }
    }
}

impl crate::schema::Schema for GroupMetadataValue {
    const NAME: &'static str = "GroupMetadataValue";
    const MIN: i16 = 0;
    const MAX: i16 = 4;
    const FLEX: Option<i16> = Some(4);
    const ID: Option<i16> = None;
}
