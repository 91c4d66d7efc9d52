//! DescribeGroups: state and members of classic groups.
//!
//! An unknown group is `Dead` without an error up to version 5, GROUP_ID_NOT_FOUND from 6 on (KIP-1043). Subscriptions
//! are told of a stable group alone.

use super::{Refuse, RequestContext, Response, decode, respond};
use crate::error_code;
use bytes::Bytes;
use catchwater_coordinator::group::{Described, GroupError, Reply, Request};
use catchwater_protocol::api::describe_groups::{DescribedGroup, DescribedGroupMember};
use catchwater_protocol::api::{DescribeGroupsRequest, DescribeGroupsResponse};
use catchwater_record::GroupName;

/// What anybody may do to a group where nobody asks for rights: read, delete, describe, describe and alter its settings.
const ALL_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

pub async fn handle(ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse> {
    let request: DescribeGroupsRequest = decode(body, version)?;
    let mut response = DescribeGroupsResponse::default();
    for id in &request.groups {
        let group = GroupName::from(&**id);
        let mut out = match ctx.node.groups.ask(&group, Request::Describe { group: group.clone() }).await {
            Ok(Reply::Describe(Ok(found))) => described(found),
            Ok(Reply::Describe(Err(error))) => unknown(&error, &group, version),
            Ok(other) => return Err(Refuse::Bug(format!("{other:?} to a describe"))),
            Err(error) => DescribedGroup { error_code: error_code::groups(error), ..Default::default() },
        };
        out.group_id = id.detach();
        if request.include_authorized_operations && out.error_code == 0 {
            out.authorized_operations = ALL_OPERATIONS;
        }
        response.groups.push(out);
    }
    respond(&response, version)
}

fn unknown(error: &GroupError, group: &GroupName, version: i16) -> DescribedGroup {
    let mut out = DescribedGroup { group_state: "Dead".into(), ..Default::default() };
    if version >= 6 {
        out.error_code = error_code::group(error);
        out.error_message = Some(format!("Group {group} not found.").into());
    }
    out
}

fn described(found: Described) -> DescribedGroup {
    let members = found.members.into_iter().map(|m| DescribedGroupMember {
        member_id: m.member.into(),
        group_instance_id: m.instance.map(Into::into),
        client_id: m.client_id.into(),
        client_host: m.client_host.into(),
        member_metadata: m.metadata,
        member_assignment: m.assignment,
    });
    DescribedGroup {
        group_state: found.state.into(),
        protocol_type: found.protocol_type.into(),
        protocol_data: found.protocol.into(),
        members: members.collect(),
        ..Default::default()
    }
}
