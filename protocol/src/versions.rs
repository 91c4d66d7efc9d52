//! Pure. The one table of what Catchwater speaks: ApiVersions, dispatch and the compatibility page are made from it.
//!
//! Ranges are those of a stock Kafka 4.3.1 broker (its own ApiVersions frame, see the test). A key is `Served` only in its
//! whole range. Two lower bounds lie on purpose: Produce shows 0 but serves from 3, else librdkafka stops compressing in
//! silence (KAFKA-18659); JoinGroup shows and serves 0 (KAFKA-19444).
//!
//! Walk: produce-fetch 3/14

pub const PRODUCE: i16 = 0;
pub const FETCH: i16 = 1;
pub const LIST_OFFSETS: i16 = 2;
pub const METADATA: i16 = 3;
pub const OFFSET_COMMIT: i16 = 8;
pub const OFFSET_FETCH: i16 = 9;
pub const FIND_COORDINATOR: i16 = 10;
pub const JOIN_GROUP: i16 = 11;
pub const HEARTBEAT: i16 = 12;
pub const LEAVE_GROUP: i16 = 13;
pub const SYNC_GROUP: i16 = 14;
pub const DESCRIBE_GROUPS: i16 = 15;
pub const LIST_GROUPS: i16 = 16;
pub const API_VERSIONS: i16 = 18;
pub const CREATE_TOPICS: i16 = 19;
pub const DELETE_TOPICS: i16 = 20;
pub const DELETE_RECORDS: i16 = 21;
pub const INIT_PRODUCER_ID: i16 = 22;
pub const OFFSET_FOR_LEADER_EPOCH: i16 = 23;
pub const DESCRIBE_CONFIGS: i16 = 32;
pub const DESCRIBE_LOG_DIRS: i16 = 35;
pub const CREATE_PARTITIONS: i16 = 37;
pub const DELETE_GROUPS: i16 = 42;
pub const OFFSET_DELETE: i16 = 47;
pub const ALTER_CONFIGS: i16 = 33;
pub const INCREMENTAL_ALTER_CONFIGS: i16 = 44;
pub const DESCRIBE_CLUSTER: i16 = 60;
pub const DESCRIBE_PRODUCERS: i16 = 61;
pub const LIST_CONFIG_RESOURCES: i16 = 74;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Advertised and answered at every version of the row.
    Served,
    /// Known, not advertised; a request closes the connection.
    NotYet,
}
use State::{NotYet, Served};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Api {
    pub key: i16,
    pub name: &'static str,
    /// What ApiVersions shows.
    pub min: i16,
    pub max: i16,
    /// First flexible version.
    pub flex: Option<i16>,
    /// Lowest version that is really served; above `min` only for Produce.
    pub served_min: i16,
    pub state: State,
}

impl Api {
    /// Whether a request at `version` is answered.
    pub fn serves(&self, version: i16) -> bool {
        self.state == Served && version >= self.served_min && version <= self.max
    }
}

const fn row(
    key: i16,
    name: &'static str,
    min: i16,
    max: i16,
    flex: Option<i16>,
    served_min: i16,
    state: State,
) -> Api {
    Api { key, name, min, max, flex, served_min, state }
}

/// Every API of Kafka 4.3.1, by key.
#[rustfmt::skip]
pub const APIS: [Api; 75] = [
    row(0, "Produce", 0, 13, Some(9), 3, Served),
    row(1, "Fetch", 4, 18, Some(12), 4, Served),
    row(2, "ListOffsets", 1, 11, Some(6), 1, Served),
    row(3, "Metadata", 0, 13, Some(9), 0, Served),
    row(8, "OffsetCommit", 2, 10, Some(8), 2, Served),
    row(9, "OffsetFetch", 1, 10, Some(6), 1, Served),
    row(10, "FindCoordinator", 0, 6, Some(3), 0, Served),
    row(11, "JoinGroup", 0, 9, Some(6), 0, Served),
    row(12, "Heartbeat", 0, 4, Some(4), 0, Served),
    row(13, "LeaveGroup", 0, 5, Some(4), 0, Served),
    row(14, "SyncGroup", 0, 5, Some(4), 0, Served),
    row(15, "DescribeGroups", 0, 6, Some(5), 0, Served),
    row(16, "ListGroups", 0, 5, Some(3), 0, Served),
    row(17, "SaslHandshake", 0, 1, None, 0, NotYet),
    row(18, "ApiVersions", 0, 4, Some(3), 0, Served),
    row(19, "CreateTopics", 2, 7, Some(5), 2, Served),
    row(20, "DeleteTopics", 1, 6, Some(4), 1, Served),
    row(21, "DeleteRecords", 0, 2, Some(2), 0, Served),
    row(22, "InitProducerId", 0, 5, Some(2), 0, Served),
    row(23, "OffsetForLeaderEpoch", 2, 4, Some(4), 2, Served),
    row(24, "AddPartitionsToTxn", 0, 5, Some(3), 0, NotYet),
    row(25, "AddOffsetsToTxn", 0, 4, Some(3), 0, NotYet),
    row(26, "EndTxn", 0, 5, Some(3), 0, NotYet),
    row(27, "WriteTxnMarkers", 1, 2, Some(1), 1, NotYet),
    row(28, "TxnOffsetCommit", 0, 5, Some(3), 0, NotYet),
    row(29, "DescribeAcls", 1, 3, Some(2), 1, NotYet),
    row(30, "CreateAcls", 1, 3, Some(2), 1, NotYet),
    row(31, "DeleteAcls", 1, 3, Some(2), 1, NotYet),
    row(32, "DescribeConfigs", 1, 4, Some(4), 1, Served),
    row(33, "AlterConfigs", 0, 2, Some(2), 0, Served),
    row(34, "AlterReplicaLogDirs", 1, 2, Some(2), 1, NotYet),
    row(35, "DescribeLogDirs", 1, 5, Some(2), 1, Served),
    row(36, "SaslAuthenticate", 0, 2, Some(2), 0, NotYet),
    row(37, "CreatePartitions", 0, 3, Some(2), 0, Served),
    row(38, "CreateDelegationToken", 1, 3, Some(2), 1, NotYet),
    row(39, "RenewDelegationToken", 1, 2, Some(2), 1, NotYet),
    row(40, "ExpireDelegationToken", 1, 2, Some(2), 1, NotYet),
    row(41, "DescribeDelegationToken", 1, 3, Some(2), 1, NotYet),
    row(42, "DeleteGroups", 0, 2, Some(2), 0, Served),
    row(43, "ElectLeaders", 0, 2, Some(2), 0, NotYet),
    row(44, "IncrementalAlterConfigs", 0, 1, Some(1), 0, Served),
    row(45, "AlterPartitionReassignments", 0, 1, Some(0), 0, NotYet),
    row(46, "ListPartitionReassignments", 0, 0, Some(0), 0, NotYet),
    row(47, "OffsetDelete", 0, 0, None, 0, Served),
    row(48, "DescribeClientQuotas", 0, 1, Some(1), 0, NotYet),
    row(49, "AlterClientQuotas", 0, 1, Some(1), 0, NotYet),
    row(50, "DescribeUserScramCredentials", 0, 0, Some(0), 0, NotYet),
    row(51, "AlterUserScramCredentials", 0, 0, Some(0), 0, NotYet),
    row(55, "DescribeQuorum", 0, 2, Some(0), 0, NotYet),
    row(57, "UpdateFeatures", 0, 2, Some(0), 0, NotYet),
    row(60, "DescribeCluster", 0, 2, Some(0), 0, Served),
    row(61, "DescribeProducers", 0, 0, Some(0), 0, Served),
    row(64, "UnregisterBroker", 0, 0, Some(0), 0, NotYet),
    row(65, "DescribeTransactions", 0, 0, Some(0), 0, NotYet),
    row(66, "ListTransactions", 0, 2, Some(0), 0, NotYet),
    row(68, "ConsumerGroupHeartbeat", 0, 1, Some(0), 0, NotYet),
    row(69, "ConsumerGroupDescribe", 0, 1, Some(0), 0, NotYet),
    row(74, "ListConfigResources", 0, 1, Some(0), 0, Served),
    row(75, "DescribeTopicPartitions", 0, 0, Some(0), 0, NotYet),
    row(76, "ShareGroupHeartbeat", 1, 1, Some(0), 1, NotYet),
    row(77, "ShareGroupDescribe", 1, 1, Some(0), 1, NotYet),
    row(78, "ShareFetch", 1, 2, Some(0), 1, NotYet),
    row(79, "ShareAcknowledge", 1, 2, Some(0), 1, NotYet),
    row(80, "AddRaftVoter", 0, 1, Some(0), 0, NotYet),
    row(81, "RemoveRaftVoter", 0, 0, Some(0), 0, NotYet),
    row(83, "InitializeShareGroupState", 0, 0, Some(0), 0, NotYet),
    row(84, "ReadShareGroupState", 0, 0, Some(0), 0, NotYet),
    row(85, "WriteShareGroupState", 0, 1, Some(0), 0, NotYet),
    row(86, "DeleteShareGroupState", 0, 0, Some(0), 0, NotYet),
    row(87, "ReadShareGroupStateSummary", 0, 1, Some(0), 0, NotYet),
    row(88, "StreamsGroupHeartbeat", 0, 0, Some(0), 0, NotYet),
    row(89, "StreamsGroupDescribe", 0, 0, Some(0), 0, NotYet),
    row(90, "DescribeShareGroupOffsets", 0, 1, Some(0), 0, NotYet),
    row(91, "AlterShareGroupOffsets", 0, 0, Some(0), 0, NotYet),
    row(92, "DeleteShareGroupOffsets", 0, 0, Some(0), 0, NotYet),
];

/// The row of a key, served or not.
pub fn find(key: i16) -> Option<&'static Api> {
    APIS.binary_search_by_key(&key, |a| a.key).ok().map(|i| &APIS[i])
}

/// The row, if a request at this version is answered; `None` closes the connection (ApiVersions excepted).
pub fn served(key: i16, version: i16) -> Option<&'static Api> {
    find(key).filter(|a| a.serves(version))
}

/// What ApiVersions shows.
pub fn advertised() -> impl Iterator<Item = &'static Api> {
    APIS.iter().filter(|a| a.state == Served)
}
