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
use catchwater_record::batch::BatchError;
use catchwater_record::batch::validate::{RecordFault, Refusal};

/// One list gives the numbers and their names.
macro_rules! codes {
    ($($name:ident = $number:literal,)*) => {
        /// Kafka's numbers.
        pub mod code {
            $(pub const $name: i16 = $number;)*
        }

        /// Kafka's name of a code that is sent from here.
        pub fn name(code: i16) -> &'static str {
            match code {
                $(code::$name => stringify!($name),)*
                _ => "UNKNOWN",
            }
        }
    };
}
codes! {
    UNKNOWN_SERVER_ERROR = -1,
    NONE = 0,
    OFFSET_OUT_OF_RANGE = 1,
    CORRUPT_MESSAGE = 2,
    UNKNOWN_TOPIC_OR_PARTITION = 3,
    LEADER_NOT_AVAILABLE = 5,
    NOT_LEADER_OR_FOLLOWER = 6,
    REQUEST_TIMED_OUT = 7,
    MESSAGE_TOO_LARGE = 10,
    OFFSET_METADATA_TOO_LARGE = 12,
    COORDINATOR_LOAD_IN_PROGRESS = 14,
    COORDINATOR_NOT_AVAILABLE = 15,
    NOT_COORDINATOR = 16,
    INVALID_TOPIC_EXCEPTION = 17,
    RECORD_LIST_TOO_LARGE = 18,
    NOT_ENOUGH_REPLICAS = 19,
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20,
    INVALID_REQUIRED_ACKS = 21,
    ILLEGAL_GENERATION = 22,
    INCONSISTENT_GROUP_PROTOCOL = 23,
    INVALID_GROUP_ID = 24,
    UNKNOWN_MEMBER_ID = 25,
    INVALID_SESSION_TIMEOUT = 26,
    REBALANCE_IN_PROGRESS = 27,
    TOPIC_AUTHORIZATION_FAILED = 29,
    CLUSTER_AUTHORIZATION_FAILED = 31,
    INVALID_TIMESTAMP = 32,
    UNSUPPORTED_VERSION = 35,
    TOPIC_ALREADY_EXISTS = 36,
    INVALID_PARTITIONS = 37,
    INVALID_REPLICATION_FACTOR = 38,
    INVALID_REPLICA_ASSIGNMENT = 39,
    INVALID_CONFIG = 40,
    NOT_CONTROLLER = 41,
    INVALID_REQUEST = 42,
    POLICY_VIOLATION = 44,
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45,
    DUPLICATE_SEQUENCE_NUMBER = 46,
    INVALID_PRODUCER_EPOCH = 47,
    INVALID_TXN_STATE = 48,
    INVALID_PRODUCER_ID_MAPPING = 49,
    INVALID_TRANSACTION_TIMEOUT = 50,
    CONCURRENT_TRANSACTIONS = 51,
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53,
    KAFKA_STORAGE_ERROR = 56,
    NON_EMPTY_GROUP = 68,
    GROUP_ID_NOT_FOUND = 69,
    FETCH_SESSION_ID_NOT_FOUND = 70,
    INVALID_FETCH_SESSION_EPOCH = 71,
    FENCED_LEADER_EPOCH = 74,
    UNKNOWN_LEADER_EPOCH = 75,
    UNSUPPORTED_COMPRESSION_TYPE = 76,
    OFFSET_NOT_AVAILABLE = 78,
    MEMBER_ID_REQUIRED = 79,
    GROUP_MAX_SIZE_REACHED = 81,
    FENCED_INSTANCE_ID = 82,
    GROUP_SUBSCRIBED_TO_TOPIC = 86,
    INVALID_RECORD = 87,
    UNSTABLE_OFFSET_COMMIT = 88,
    PRODUCER_FENCED = 90,
    UNKNOWN_TOPIC_ID = 100,
    INCONSISTENT_TOPIC_ID = 103,
    MISMATCHED_ENDPOINT_TYPE = 114,
    UNSUPPORTED_ENDPOINT_TYPE = 115,
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

/// The smallest length a v2 batch may name: its header behind base offset and length.
const BATCH_LENGTH_MIN: i32 = 49;

fn refused(refusal: &Refusal) -> i16 {
    match refusal {
        // As Kafka: what cannot be a batch at all is damage, what is not one batch is a wrong request.
        Refusal::Shape(BatchError::Length { length, .. }) if *length < BATCH_LENGTH_MIN => CORRUPT_MESSAGE,
        Refusal::Null
        | Refusal::Shape(_)
        | Refusal::BaseOffset(_)
        | Refusal::Count { .. }
        | Refusal::Control
        | Refusal::Sequence { .. }
        | Refusal::Second
        | Refusal::Compressed(_) => INVALID_RECORD,
        Refusal::Record { why: RecordFault::NoKey | RecordFault::Structure(_), .. } => INVALID_RECORD,
        Refusal::UnknownCodec(_) | Refusal::ZstdTooEarly => UNSUPPORTED_COMPRESSION_TYPE,
        Refusal::TooLarge { .. } => MESSAGE_TOO_LARGE,
        Refusal::AboveSegment { .. } => RECORD_LIST_TOO_LARGE,
        Refusal::Crc(_) | Refusal::NoBatch(_) => CORRUPT_MESSAGE,
        Refusal::AppendTime | Refusal::Timestamp { .. } => INVALID_TIMESTAMP,
        // As Kafka: one wrong time among them gives all its code.
        Refusal::Records(several) if several.iter().any(|r| matches!(r, Refusal::Timestamp { .. })) => {
            INVALID_TIMESTAMP
        }
        Refusal::Records(_) => INVALID_RECORD,
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

/// A topic that was not created, widened or deleted.
pub fn topic(error: &TopicError) -> i16 {
    match error {
        TopicError::IllegalName { .. } | TopicError::Collides { .. } | TopicError::Internal(_) => {
            INVALID_TOPIC_EXCEPTION
        }
        TopicError::Exists(_) | TopicError::Owned(_) | TopicError::OfNobody { .. } => TOPIC_ALREADY_EXISTS,
        TopicError::Duplicate(_) | TopicError::Invalid(_) | TopicError::Fenced { .. } => INVALID_REQUEST,
        TopicError::Partitions { .. } | TopicError::NoIncrease { .. } | TopicError::Captured(_) => INVALID_PARTITIONS,
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

/// A kind of endpoint that DescribeCluster does not describe here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("the request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER")]
    Controller,
    #[error("unsupported endpoint type {0}")]
    Unknown(i8),
}

pub fn endpoint(error: EndpointError) -> i16 {
    match error {
        EndpointError::Controller => MISMATCHED_ENDPOINT_TYPE,
        EndpointError::Unknown(_) => UNSUPPORTED_ENDPOINT_TYPE,
    }
}

/// A log directory that is not described.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogDirError {
    Stopped,
}

pub fn log_dir(error: LogDirError) -> i16 {
    match error {
        LogDirError::Stopped => KAFKA_STORAGE_ERROR,
    }
}

/// A partition whose producers are not told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProducersError {
    IllegalName,
    UnknownTopic,
    UnknownPartition,
    /// Named before in this request.
    Twice,
    NotLeader,
    /// It is there, and could not be opened or fell.
    Storage,
}

pub fn producers(error: ProducersError) -> i16 {
    match error {
        ProducersError::IllegalName => INVALID_TOPIC_EXCEPTION,
        ProducersError::UnknownTopic | ProducersError::UnknownPartition => UNKNOWN_TOPIC_OR_PARTITION,
        ProducersError::Twice => INVALID_REQUEST,
        ProducersError::NotLeader => NOT_LEADER_OR_FOLLOWER,
        ProducersError::Storage => KAFKA_STORAGE_ERROR,
    }
}

/// Kinds of resources that ListConfigResources does not know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownResource(pub i8);

pub fn config_resources(UnknownResource(_): UnknownResource) -> i16 {
    UNSUPPORTED_VERSION
}
