//! ListGroups: every group this node coordinates, by state (version 4 on) and type (version 5 on), in any letter case.

use super::{Refuse, RequestContext, Response, decode, respond};
use crate::error_code;
use bytes::Bytes;
use catchwater_protocol::api::list_groups::ListedGroup;
use catchwater_protocol::api::{ListGroupsRequest, ListGroupsResponse};

/// The only type there is; Kafka's others are not served.
const CLASSIC: &str = "classic";

pub async fn handle(ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse> {
    let request: ListGroupsRequest = decode(body, version)?;
    let states: Vec<String> = request.states_filter.iter().map(|s| s.trim().to_lowercase()).collect();
    let types: Vec<String> = request.types_filter.iter().map(|t| t.to_lowercase()).collect();
    let mut response = ListGroupsResponse::default();
    match ctx.node.groups.list().await {
        Ok(_) if !types.is_empty() && !types.iter().any(|t| t == CLASSIC) => {}
        Ok(found) => {
            response.groups = found
                .into_iter()
                .filter(|g| states.is_empty() || states.contains(&g.state.to_lowercase()))
                .map(|g| ListedGroup {
                    group_id: g.group.as_str().into(),
                    protocol_type: g.protocol_type.into(),
                    group_state: g.state.into(),
                    group_type: CLASSIC.into(),
                })
                .collect();
        }
        Err(error) => response.error_code = error_code::groups(error),
    }
    respond(&response, version)
}
