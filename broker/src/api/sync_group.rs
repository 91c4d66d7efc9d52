//! SyncGroup: the leader brings the assignment, everybody takes their part of it home.

use super::{Refuse, RequestContext, Response, decode, respond};
use crate::error_code;
use bytes::Bytes;
use catchwater_coordinator::group::{GroupError, Reply, Request, Sync};
use catchwater_protocol::api::{SyncGroupRequest, SyncGroupResponse};
use catchwater_record::GroupName;

pub async fn handle(ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse> {
    let request: SyncGroupRequest = decode(body, version)?;
    let group = GroupName::from(&*request.group_id);
    let mut response = SyncGroupResponse::default();
    if version >= 5 && (request.protocol_type.is_none() || request.protocol_name.is_none()) {
        response.error_code = error_code::group(&GroupError::InconsistentProtocol);
        return respond(&response, version);
    }
    let sync = Sync {
        group: group.clone(),
        generation: request.generation_id,
        member: request.member_id.to_string(),
        instance: request.group_instance_id.as_ref().map(|i| i.to_string()),
        protocol_type: request.protocol_type.as_ref().map(|t| t.to_string()),
        protocol: request.protocol_name.as_ref().map(|n| n.to_string()),
        assignments: request
            .assignments
            .iter()
            .map(|a| (a.member_id.to_string(), Bytes::copy_from_slice(&a.assignment)))
            .collect(),
    };
    drop(request);
    match ctx.node.groups.ask(&group, Request::Sync(sync)).await {
        Ok(Reply::Sync(Ok(synced))) => {
            response.protocol_type = synced.protocol_type.map(Into::into);
            response.protocol_name = synced.protocol.map(Into::into);
            response.assignment = synced.assignment;
        }
        Ok(Reply::Sync(Err(error))) => response.error_code = error_code::group(&error),
        Ok(other) => return Err(Refuse::Bug(format!("{other:?} to a sync"))),
        Err(error) => response.error_code = error_code::groups(error),
    }
    respond(&response, version)
}
