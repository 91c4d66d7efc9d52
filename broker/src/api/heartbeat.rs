//! Heartbeat: a member is alive; it hears here that its group rebalances.

use super::{Refuse, RequestContext, Response, decode, respond};
use crate::error_code;
use bytes::Bytes;
use catchwater_coordinator::group::{Heartbeat, Reply, Request};
use catchwater_protocol::api::{HeartbeatRequest, HeartbeatResponse};
use catchwater_record::GroupName;

pub async fn handle(ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse> {
    let request: HeartbeatRequest = decode(body, version)?;
    let group = GroupName::from(&*request.group_id);
    let beat = Heartbeat {
        group: group.clone(),
        generation: request.generation_id,
        member: request.member_id.to_string(),
        instance: request.group_instance_id.as_ref().map(|i| i.to_string()),
    };
    let error_code = match ctx.node.groups.ask(&group, Request::Heartbeat(beat)).await {
        Ok(Reply::Heartbeat(Ok(()))) => 0,
        Ok(Reply::Heartbeat(Err(error))) => error_code::group(&error),
        Ok(other) => return Err(Refuse::Bug(format!("{other:?} to a heartbeat"))),
        Err(error) => error_code::groups(error),
    };
    respond(&HeartbeatResponse { error_code, ..Default::default() }, version)
}
