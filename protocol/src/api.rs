//! Pure. One module per API, request and response.
// Written by `cargo xtask codegen` from protocol/messages; do not edit.
pub mod api_versions;
pub mod create_topics;
pub mod delete_topics;
pub mod describe_configs;
pub mod fetch;
pub mod find_coordinator;
pub mod heartbeat;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_offsets;
pub mod metadata;
pub mod offset_commit;
pub mod offset_fetch;
pub mod produce;
pub mod sync_group;

pub use api_versions::{ApiVersionsRequest, ApiVersionsResponse};
pub use create_topics::{CreateTopicsRequest, CreateTopicsResponse};
pub use delete_topics::{DeleteTopicsRequest, DeleteTopicsResponse};
pub use describe_configs::{DescribeConfigsRequest, DescribeConfigsResponse};
pub use fetch::{FetchRequest, FetchResponse};
pub use find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};
pub use heartbeat::{HeartbeatRequest, HeartbeatResponse};
pub use init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
pub use join_group::{JoinGroupRequest, JoinGroupResponse};
pub use leave_group::{LeaveGroupRequest, LeaveGroupResponse};
pub use list_offsets::{ListOffsetsRequest, ListOffsetsResponse};
pub use metadata::{MetadataRequest, MetadataResponse};
pub use offset_commit::{OffsetCommitRequest, OffsetCommitResponse};
pub use offset_fetch::{OffsetFetchRequest, OffsetFetchResponse};
pub use produce::{ProduceRequest, ProduceResponse};
pub use sync_group::{SyncGroupRequest, SyncGroupResponse};

/// Calls `$go! { Name Request Response; … }` with every described API: tests and dispatch tables are made from it.
#[macro_export]
macro_rules! each_api {
    ($go:ident) => {
        $go! {
            Produce ProduceRequest ProduceResponse;
            Fetch FetchRequest FetchResponse;
            ListOffsets ListOffsetsRequest ListOffsetsResponse;
            Metadata MetadataRequest MetadataResponse;
            OffsetCommit OffsetCommitRequest OffsetCommitResponse;
            OffsetFetch OffsetFetchRequest OffsetFetchResponse;
            FindCoordinator FindCoordinatorRequest FindCoordinatorResponse;
            JoinGroup JoinGroupRequest JoinGroupResponse;
            Heartbeat HeartbeatRequest HeartbeatResponse;
            LeaveGroup LeaveGroupRequest LeaveGroupResponse;
            SyncGroup SyncGroupRequest SyncGroupResponse;
            ApiVersions ApiVersionsRequest ApiVersionsResponse;
            CreateTopics CreateTopicsRequest CreateTopicsResponse;
            DeleteTopics DeleteTopicsRequest DeleteTopicsResponse;
            InitProducerId InitProducerIdRequest InitProducerIdResponse;
            DescribeConfigs DescribeConfigsRequest DescribeConfigsResponse;
        }
    };
}
