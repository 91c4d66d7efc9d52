//! Pure. The only place that names Kafka's error codes: typed failures in, numbers out, by exhaustive matches.
//! Walk: produce-fetch 9/14, commit-offset 7/8.
//!
//! A code that is newer than the version of the answer is replaced by its older sibling here too. Coordinator failures
//! are mapped in the second half. Source: `org.apache.kafka.common.protocol.Errors` of Kafka 4.3.

use crate::api::describe_configs::DescribeError;
use crate::node::{ControllerError, GroupsError};
use crate::partition::{AckError, FetchError, ProduceError};
use catchwater_coordinator::cluster::configs::ConfigError;
use catchwater_coordinator::cluster::topics::TopicError;
use catchwater_coordinator::group::GroupError;
use catchwater_record::batch::validate::{RecordFault, Refusal};

/// Kafka's numbers.
pub mod code {
    pub const UNKNOWN_SERVER_ERROR: i16 = -1;
    pub const NONE: i16 = 0;
    pub const OFFSET_OUT_OF_RANGE: i16 = 1;
    pub const CORRUPT_MESSAGE: i16 = 2;
    pub const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
    pub const LEADER_NOT_AVAILABLE: i16 = 5;
    pub const NOT_LEADER_OR_FOLLOWER: i16 = 6;
    pub const REQUEST_TIMED_OUT: i16 = 7;
    pub const MESSAGE_TOO_LARGE: i16 = 10;
    pub const OFFSET_METADATA_TOO_LARGE: i16 = 12;
    pub const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
    pub const COORDINATOR_NOT_AVAILABLE: i16 = 15;
    pub const NOT_COORDINATOR: i16 = 16;
    pub const INVALID_TOPIC_EXCEPTION: i16 = 17;
    pub const NOT_ENOUGH_REPLICAS: i16 = 19;
    pub const NOT_ENOUGH_REPLICAS_AFTER_APPEND: i16 = 20;
    pub const INVALID_REQUIRED_ACKS: i16 = 21;
    pub const ILLEGAL_GENERATION: i16 = 22;
    pub const INCONSISTENT_GROUP_PROTOCOL: i16 = 23;
    pub const INVALID_GROUP_ID: i16 = 24;
    pub const UNKNOWN_MEMBER_ID: i16 = 25;
    pub const INVALID_SESSION_TIMEOUT: i16 = 26;
    pub const REBALANCE_IN_PROGRESS: i16 = 27;
    pub const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
    pub const CLUSTER_AUTHORIZATION_FAILED: i16 = 31;
    pub const INVALID_TIMESTAMP: i16 = 32;
    pub const UNSUPPORTED_VERSION: i16 = 35;
    pub const TOPIC_ALREADY_EXISTS: i16 = 36;
    pub const INVALID_PARTITIONS: i16 = 37;
    pub const INVALID_REPLICATION_FACTOR: i16 = 38;
    pub const INVALID_REPLICA_ASSIGNMENT: i16 = 39;
    pub const INVALID_CONFIG: i16 = 40;
    pub const NOT_CONTROLLER: i16 = 41;
    pub const INVALID_REQUEST: i16 = 42;
    pub const POLICY_VIOLATION: i16 = 44;
    pub const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
    pub const DUPLICATE_SEQUENCE_NUMBER: i16 = 46;
    pub const INVALID_PRODUCER_EPOCH: i16 = 47;
    pub const INVALID_TXN_STATE: i16 = 48;
    pub const INVALID_PRODUCER_ID_MAPPING: i16 = 49;
    pub const INVALID_TRANSACTION_TIMEOUT: i16 = 50;
    pub const CONCURRENT_TRANSACTIONS: i16 = 51;
    pub const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: i16 = 53;
    pub const KAFKA_STORAGE_ERROR: i16 = 56;
    pub const NON_EMPTY_GROUP: i16 = 68;
    pub const GROUP_ID_NOT_FOUND: i16 = 69;
    pub const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;
    pub const INVALID_FETCH_SESSION_EPOCH: i16 = 71;
    pub const FENCED_LEADER_EPOCH: i16 = 74;
    pub const UNKNOWN_LEADER_EPOCH: i16 = 75;
    pub const UNSUPPORTED_COMPRESSION_TYPE: i16 = 76;
    pub const OFFSET_NOT_AVAILABLE: i16 = 78;
    pub const MEMBER_ID_REQUIRED: i16 = 79;
    pub const GROUP_MAX_SIZE_REACHED: i16 = 81;
    pub const FENCED_INSTANCE_ID: i16 = 82;
    pub const GROUP_SUBSCRIBED_TO_TOPIC: i16 = 86;
    pub const INVALID_RECORD: i16 = 87;
    pub const UNSTABLE_OFFSET_COMMIT: i16 = 88;
    pub const PRODUCER_FENCED: i16 = 90;
    pub const UNKNOWN_TOPIC_ID: i16 = 100;
    pub const INCONSISTENT_TOPIC_ID: i16 = 103;
}
use code::*;

/// A failed produce. `INVALID_RECORD` is newer than version 8 (KIP-467): before that it is CORRUPT_MESSAGE's sibling
/// INVALID_REQUEST for clients that know no better. Kafka sends 87 at every version; so do we.
pub fn produce(error: &ProduceError) -> i16 {
    match error {
        ProduceError::UnknownTopic => UNKNOWN_TOPIC_OR_PARTITION,
        ProduceError::UnknownTopicId => UNKNOWN_TOPIC_ID,
        ProduceError::Internal => INVALID_TOPIC_EXCEPTION,
        ProduceError::Acks(_) => INVALID_REQUIRED_ACKS,
        ProduceError::Transactional => TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        ProduceError::Refused(refusal) => refused(refusal),
        ProduceError::NotLeader => NOT_LEADER_OR_FOLLOWER,
        ProduceError::NotEnoughInSync => NOT_ENOUGH_REPLICAS,
        ProduceError::OutOfOrderSequence => OUT_OF_ORDER_SEQUENCE_NUMBER,
        ProduceError::ProducerFenced => INVALID_PRODUCER_EPOCH,
        ProduceError::TooLarge => MESSAGE_TOO_LARGE,
        ProduceError::NoRoom | ProduceError::DiskFull | ProduceError::Storage => KAFKA_STORAGE_ERROR,
        ProduceError::Ack(AckError::LeadershipLost) => NOT_LEADER_OR_FOLLOWER,
        ProduceError::Ack(AckError::Storage) => KAFKA_STORAGE_ERROR,
        ProduceError::Ack(AckError::TimedOut) => REQUEST_TIMED_OUT,
        ProduceError::Bug(_) => UNKNOWN_SERVER_ERROR,
    }
}

fn refused(refusal: &Refusal) -> i16 {
    match refusal {
        Refusal::Null
        | Refusal::Shape(_)
        | Refusal::Count { .. }
        | Refusal::Control
        | Refusal::Sequence { .. }
        | Refusal::Compressed(_) => INVALID_RECORD,
        Refusal::Record { why: RecordFault::NoKey | RecordFault::Structure(_), .. } => INVALID_RECORD,
        Refusal::UnknownCodec(_) | Refusal::ZstdTooEarly => UNSUPPORTED_COMPRESSION_TYPE,
        Refusal::TooLarge { .. } => MESSAGE_TOO_LARGE,
        Refusal::Crc(_) => CORRUPT_MESSAGE,
        Refusal::AppendTime | Refusal::Timestamp { .. } => INVALID_TIMESTAMP,
    }
}

/// A partition of Fetch, ListOffsets or OffsetForLeaderEpoch.
pub fn fetch(error: &FetchError) -> i16 {
    match error {
        FetchError::UnknownTopic => UNKNOWN_TOPIC_OR_PARTITION,
        FetchError::UnknownTopicId => UNKNOWN_TOPIC_ID,
        FetchError::NotLeader => NOT_LEADER_OR_FOLLOWER,
        FetchError::OutOfRange => OFFSET_OUT_OF_RANGE,
        FetchError::FencedEpoch => FENCED_LEADER_EPOCH,
        FetchError::UnknownEpoch => UNKNOWN_LEADER_EPOCH,
        FetchError::NotReady => OFFSET_NOT_AVAILABLE,
        FetchError::Storage => KAFKA_STORAGE_ERROR,
        FetchError::Compression => UNSUPPORTED_COMPRESSION_TYPE,
        FetchError::Follower => CLUSTER_AUTHORIZATION_FAILED,
        FetchError::Version => UNSUPPORTED_VERSION,
        FetchError::Session => FETCH_SESSION_ID_NOT_FOUND,
        FetchError::Request => INVALID_REQUEST,
        FetchError::Bug(_) => UNKNOWN_SERVER_ERROR,
    }
}

/// ListOffsets below version 5 has no OFFSET_NOT_AVAILABLE (KIP-207).
pub fn list_offsets(error: &FetchError, version: i16) -> i16 {
    match fetch(error) {
        OFFSET_NOT_AVAILABLE if version < 5 => LEADER_NOT_AVAILABLE,
        other => other,
    }
}

/// A topic or partition of Metadata.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetadataError {
    UnknownTopic,
    UnknownTopicId,
    IllegalName,
    NoLeader,
    /// A topic could not be created for a reason of its own.
    NotCreated,
}

pub fn metadata(error: MetadataError) -> i16 {
    match error {
        MetadataError::UnknownTopic => UNKNOWN_TOPIC_OR_PARTITION,
        MetadataError::UnknownTopicId => UNKNOWN_TOPIC_ID,
        MetadataError::IllegalName => INVALID_TOPIC_EXCEPTION,
        MetadataError::NoLeader => LEADER_NOT_AVAILABLE,
        MetadataError::NotCreated => INVALID_REPLICATION_FACTOR,
    }
}

/// ApiVersions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApiVersionsError {
    /// The version is not ours: the list of ours follows in a version 0 body (KIP-511).
    Version,
    /// Client name or version are not what KIP-511 allows.
    Software,
}

pub fn api_versions(error: Option<ApiVersionsError>) -> i16 {
    match error {
        None => NONE,
        Some(ApiVersionsError::Version) => UNSUPPORTED_VERSION,
        Some(ApiVersionsError::Software) => INVALID_REQUEST,
    }
}

/// A request that a group coordinator's machine refused.
pub fn group(error: &GroupError) -> i16 {
    match error {
        GroupError::IllegalGroup => INVALID_GROUP_ID,
        GroupError::UnknownMember => UNKNOWN_MEMBER_ID,
        GroupError::MemberIdRequired(_) => MEMBER_ID_REQUIRED,
        GroupError::IllegalGeneration { .. } => ILLEGAL_GENERATION,
        GroupError::Rebalancing => REBALANCE_IN_PROGRESS,
        GroupError::FencedInstance(_) => FENCED_INSTANCE_ID,
        GroupError::InconsistentProtocol => INCONSISTENT_GROUP_PROTOCOL,
        GroupError::SessionTimeout(_) => INVALID_SESSION_TIMEOUT,
        GroupError::Full => GROUP_MAX_SIZE_REACHED,
        GroupError::MetadataTooLong(_) => OFFSET_METADATA_TOO_LARGE,
        // Kafka's own answer when the group's record is larger than a message of its offsets topic may be.
        GroupError::TooLarge { .. } => UNKNOWN_SERVER_ERROR,
        GroupError::NotEmpty => NON_EMPTY_GROUP,
        GroupError::NotFound => GROUP_ID_NOT_FOUND,
        GroupError::Subscribed(_) => GROUP_SUBSCRIBED_TO_TOPIC,
    }
}

/// No answer of a group coordinator. An unknown outcome sends the client to look for the coordinator and ask again,
/// which is safe: joins and commits may be repeated.
pub fn groups(error: GroupsError) -> i16 {
    match error {
        GroupsError::NotAvailable => COORDINATOR_NOT_AVAILABLE,
        GroupsError::Loading => COORDINATOR_LOAD_IN_PROGRESS,
        GroupsError::NotCoordinator | GroupsError::Unknown => NOT_COORDINATOR,
    }
}

/// A key of FindCoordinator that has none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CoordinatorKey {
    #[error("{0}")]
    Groups(GroupsError),
    #[error("transactions are not served by this broker")]
    Transaction,
    #[error("coordinators of this type are not served by this broker")]
    Type,
}

/// Of a missing group coordinator Kafka's clients know 15 and wait; for the others a fatal code shows its text.
pub fn coordinator_key(error: CoordinatorKey) -> i16 {
    match error {
        CoordinatorKey::Groups(_) => COORDINATOR_NOT_AVAILABLE,
        CoordinatorKey::Transaction | CoordinatorKey::Type => INVALID_REQUEST,
    }
}

/// A partition of OffsetCommit, OffsetFetch or OffsetDelete that is not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OffsetsError {
    UnknownTopic,
    UnknownTopicId,
}

pub fn offsets(error: OffsetsError) -> i16 {
    match error {
        OffsetsError::UnknownTopic => UNKNOWN_TOPIC_OR_PARTITION,
        OffsetsError::UnknownTopicId => UNKNOWN_TOPIC_ID,
    }
}

/// InitProducerId.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProducerIdError {
    Malformed,
    Transactional,
    Controller(ControllerError),
}

pub fn producer_id(error: ProducerIdError) -> i16 {
    match error {
        ProducerIdError::Malformed => INVALID_REQUEST,
        ProducerIdError::Transactional => TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        // An id that was given out and got lost costs nothing: ask again.
        ProducerIdError::Controller(_) => COORDINATOR_NOT_AVAILABLE,
    }
}

/// No answer of group 0.
pub fn controller(error: ControllerError) -> i16 {
    match error {
        ControllerError::NotReady => NOT_CONTROLLER,
        ControllerError::Unknown => REQUEST_TIMED_OUT,
    }
}

/// A topic that was not created or deleted.
pub fn topic(error: &TopicError) -> i16 {
    match error {
        TopicError::IllegalName { .. } | TopicError::Collides { .. } | TopicError::Internal(_) => {
            INVALID_TOPIC_EXCEPTION
        }
        TopicError::Exists(_) | TopicError::Owned(_) | TopicError::OfNobody { .. } => TOPIC_ALREADY_EXISTS,
        TopicError::Duplicate(_) | TopicError::Invalid(_) | TopicError::Fenced { .. } => INVALID_REQUEST,
        TopicError::Partitions { .. } => INVALID_PARTITIONS,
        TopicError::ReplicationBelowOne(_) | TopicError::Replication { .. } => INVALID_REPLICATION_FACTOR,
        TopicError::Assignment(_) => INVALID_REPLICA_ASSIGNMENT,
        TopicError::Config(error) => config(error),
        TopicError::UnknownName(_) => UNKNOWN_TOPIC_OR_PARTITION,
        TopicError::UnknownId(_) => UNKNOWN_TOPIC_ID,
    }
}

/// Settings that were refused.
pub fn config(error: &ConfigError) -> i16 {
    match error {
        ConfigError::UnknownKey { .. }
        | ConfigError::Value { .. }
        | ConfigError::Set(_)
        | ConfigError::Null(_)
        | ConfigError::NotAList { .. } => INVALID_CONFIG,
        ConfigError::NullStep(_)
        | ConfigError::Twice
        | ConfigError::ResourceTwice
        | ConfigError::Operation(_)
        | ConfigError::ReadOnly(_)
        | ConfigError::NoName
        | ConfigError::UnknownBroker { .. }
        | ConfigError::Type(_) => INVALID_REQUEST,
        ConfigError::IllegalName(_) => INVALID_TOPIC_EXCEPTION,
        ConfigError::UnknownTopic(_) => UNKNOWN_TOPIC_OR_PARTITION,
    }
}

/// Settings that were refused, or no answer of group 0.
pub fn alter(error: &Result<ConfigError, ControllerError>) -> i16 {
    match error {
        Ok(error) => config(error),
        Err(error) => controller(*error),
    }
}

/// Why the records of a partition were not deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeleteRecordsError {
    UnknownTopic,
    /// Internal topics keep what their machines wrote.
    Internal,
    /// The topic's policy is compaction without deletion (KIP-107).
    Policy,
    NotLeader,
    /// Above the high watermark, or negative and not -1.
    OutOfRange,
    Storage,
    TimedOut,
}

pub fn delete_records(error: DeleteRecordsError) -> i16 {
    match error {
        DeleteRecordsError::UnknownTopic => UNKNOWN_TOPIC_OR_PARTITION,
        DeleteRecordsError::Internal => INVALID_TOPIC_EXCEPTION,
        DeleteRecordsError::Policy => POLICY_VIOLATION,
        DeleteRecordsError::NotLeader => NOT_LEADER_OR_FOLLOWER,
        DeleteRecordsError::OutOfRange => OFFSET_OUT_OF_RANGE,
        DeleteRecordsError::Storage => KAFKA_STORAGE_ERROR,
        DeleteRecordsError::TimedOut => REQUEST_TIMED_OUT,
    }
}

/// A resource of DescribeConfigs.
pub fn describe(error: &DescribeError) -> i16 {
    match error {
        DescribeError::IllegalName(_) => INVALID_TOPIC_EXCEPTION,
        DescribeError::UnknownTopic(_) => UNKNOWN_TOPIC_OR_PARTITION,
        DescribeError::UnknownBroker { .. } | DescribeError::Type(_) => INVALID_REQUEST,
    }
}
