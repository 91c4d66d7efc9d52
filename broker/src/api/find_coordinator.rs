//! FindCoordinator: who speaks for a group. `__consumer_offsets` is made here at its first use.
//!
//! Transactional ids are refused with a text that a client shows: transactions are not served.

use super::{Refuse, RequestContext, Response, decode, respond};
use crate::error_code::{self, CoordinatorKey};
use crate::node::wire_id;
use bytes::Bytes;
use catchwater_coordinator::group;
use catchwater_protocol::api::find_coordinator::Coordinator;
use catchwater_protocol::api::{FindCoordinatorRequest, FindCoordinatorResponse};
use catchwater_record::GroupName;

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

pub async fn handle(ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse> {
    let request: FindCoordinatorRequest = decode(body, version)?;
    let mut response = FindCoordinatorResponse::default();
    if version >= 4 {
        for key in &request.coordinator_keys {
            response.coordinators.push(find(ctx, request.key_type, key).await);
        }
    } else {
        let found = find(ctx, request.key_type, &request.key).await;
        response.error_code = found.error_code;
        response.error_message = found.error_message;
        response.node_id = found.node_id;
        response.host = found.host;
        response.port = found.port;
    }
    respond(&response, version)
}

async fn find(ctx: &RequestContext, key_type: i8, key: &str) -> Coordinator {
    let error = match key_type {
        GROUP => {
            let group = GroupName::from(key);
            // Any question will do: it is answered once the group's machine is led here and loaded.
            let question = group::Request::Describe { group: group.clone() };
            ctx.node.groups.ask(&group, question).await.err().map(CoordinatorKey::Groups)
        }
        TRANSACTION => Some(CoordinatorKey::Transaction),
        _ => Some(CoordinatorKey::Type),
    };
    let mut found = Coordinator { key: key.into(), ..Default::default() };
    match error {
        None => {
            found.node_id = wire_id(ctx.node.config.id);
            found.host = (&*ctx.advertised.host).into();
            found.port = i32::from(ctx.advertised.port);
        }
        Some(error) => {
            found.error_code = error_code::coordinator_key(error);
            found.error_message = Some(error.to_string().into());
            found.node_id = -1;
            found.port = -1;
        }
    }
    found
}
