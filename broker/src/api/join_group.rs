//! JoinGroup: a member waits here until its group has a generation.

use super::{Refuse, RequestContext, Response, decode, respond};
use crate::error_code;
use bytes::Bytes;
use catchwater_coordinator::group::{GroupError, Join, Joined, Reply, Request};
use catchwater_protocol::api::join_group::JoinGroupResponseMember;
use catchwater_protocol::api::{JoinGroupRequest, JoinGroupResponse};
use catchwater_record::GroupName;

pub async fn handle(ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse> {
    let request: JoinGroupRequest = decode(body, version)?;
    let group = GroupName::from(&*request.group_id);
    let join = Join {
        group: group.clone(),
        member: request.member_id.to_string(),
        instance: request.group_instance_id.as_ref().map(|i| i.to_string()),
        client_id: ctx.client_id.clone().unwrap_or_default(),
        client_host: format!("/{}", ctx.peer.ip()),
        session_timeout_ms: request.session_timeout_ms,
        // Version 0 knew one timeout only.
        rebalance_timeout_ms: if version == 0 { request.session_timeout_ms } else { request.rebalance_timeout_ms },
        protocol_type: request.protocol_type.to_string(),
        // Copied: the machine keeps them longer than the frame.
        protocols: request
            .protocols
            .iter()
            .map(|p| (p.name.to_string(), Bytes::copy_from_slice(&p.metadata)))
            .collect(),
        require_known_member: version >= 4,
        supports_skip: version >= 9,
        uuid: ctx.node.controller.draw(),
    };
    let asked_as = request.member_id.clone();
    drop(request);
    let mut response = JoinGroupResponse { generation_id: -1, member_id: asked_as.detach(), ..Default::default() };
    match ctx.node.groups.ask(&group, Request::Join(join)).await {
        Ok(Reply::Join(Ok(joined))) => fill(&mut response, joined),
        Ok(Reply::Join(Err(error))) => {
            response.error_code = error_code::group(&error);
            if let GroupError::MemberIdRequired(id) = error {
                response.member_id = id.into();
            }
        }
        Ok(other) => return Err(Refuse::Bug(format!("{other:?} to a join"))),
        Err(error) => response.error_code = error_code::groups(error),
    }
    if version < 7 {
        response.protocol_name.get_or_insert_default();
    }
    respond(&response, version)
}

fn fill(response: &mut JoinGroupResponse, joined: Joined) {
    response.generation_id = joined.generation;
    response.protocol_type = joined.protocol_type.map(Into::into);
    response.protocol_name = joined.protocol.map(Into::into);
    response.leader = joined.leader.into();
    response.skip_assignment = joined.skip_assignment;
    response.member_id = joined.member.into();
    response.members = joined
        .members
        .into_iter()
        .map(|m| JoinGroupResponseMember {
            member_id: m.member.into(),
            group_instance_id: m.instance.map(Into::into),
            metadata: m.metadata,
        })
        .collect();
}
