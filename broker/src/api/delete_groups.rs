//! DeleteGroups: groups without members, with all their offsets.

use super::{Refuse, RequestContext, Response, decode, respond};
use crate::audit::{self, Deed};
use crate::error_code;
use crate::node::GroupsError;
use bytes::Bytes;
use catchwater_coordinator::group::{Reply, Request};
use catchwater_protocol::api::delete_groups::DeletableGroupResult;
use catchwater_protocol::api::{DeleteGroupsRequest, DeleteGroupsResponse};
use catchwater_record::GroupName;
use std::collections::BTreeSet;

pub async fn handle(ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse> {
    let request: DeleteGroupsRequest = decode(body, version)?;
    let mut response = DeleteGroupsResponse::default();
    let mut seen = BTreeSet::new();
    for id in &request.groups_names {
        let group = GroupName::from(&**id);
        // Named twice it is one wish with one answer, as in Kafka.
        if !seen.insert(group.clone()) {
            continue;
        }
        let deed = Deed::new("group.delete", "group", id);
        if audit::before(ctx, vec![(deed.clone(), None)]).await.is_err() {
            let error_code = error_code::groups(GroupsError::NotAvailable);
            response.results.push(DeletableGroupResult { group_id: id.detach(), error_code });
            continue;
        }
        let error_code = match ctx.node.groups.ask(&group, Request::Delete { group: group.clone() }).await {
            Ok(Reply::Delete(result)) => result.as_ref().err().map_or(0, error_code::group),
            Ok(other) => return Err(Refuse::Bug(format!("{other:?} to a delete"))),
            Err(error) => error_code::groups(error),
        };
        if error_code != 0 {
            audit::failed(ctx, vec![(deed, error_code)]).await;
        }
        response.results.push(DeletableGroupResult { group_id: id.detach(), error_code });
    }
    respond(&response, version)
}
