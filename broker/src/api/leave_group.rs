//! LeaveGroup: one member (up to version 2) or a list of them.

use super::{Refuse, RequestContext, Response, decode, respond};
use crate::error_code;
use bytes::Bytes;
use catchwater_coordinator::group::{Leave, LeaveMember, Reply, Request};
use catchwater_protocol::api::leave_group::MemberResponse;
use catchwater_protocol::api::{LeaveGroupRequest, LeaveGroupResponse};
use catchwater_record::GroupName;

pub async fn handle(ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse> {
    let request: LeaveGroupRequest = decode(body, version)?;
    let group = GroupName::from(&*request.group_id);
    let members = if version < 3 {
        vec![LeaveMember { member: request.member_id.to_string(), instance: None }]
    } else {
        request
            .members
            .iter()
            .map(|m| LeaveMember {
                member: m.member_id.to_string(),
                instance: m.group_instance_id.as_ref().map(|i| i.to_string()),
            })
            .collect()
    };
    let mut response = LeaveGroupResponse::default();
    let leave = Leave { group: group.clone(), members };
    match ctx.node.groups.ask(&group, Request::Leave(leave)).await {
        Ok(Reply::Leave(Ok(results))) => {
            let told = |result: &Result<(), _>| result.as_ref().err().map_or(0, error_code::group);
            if version < 3 {
                response.error_code = results.first().map_or(0, |(_, result)| told(result));
            } else {
                response.members = results
                    .into_iter()
                    .map(|(who, result)| MemberResponse {
                        error_code: told(&result),
                        member_id: who.member.into(),
                        group_instance_id: who.instance.map(Into::into),
                    })
                    .collect();
            }
        }
        Ok(Reply::Leave(Err(error))) => response.error_code = error_code::group(&error),
        Ok(other) => return Err(Refuse::Bug(format!("{other:?} to a leave"))),
        Err(error) => response.error_code = error_code::groups(error),
    }
    respond(&response, version)
}
