//! DescribeCluster (KIP-700): who is here. This is a broker's endpoint; controllers have none of their own.

use super::{Refuse, RequestContext, Response, decode, respond};
use crate::error_code::{self, EndpointError};
use crate::metadata::{CLUSTER_OPERATIONS, cluster_id};
use crate::node::wire_id;
use bytes::Bytes;
use catchwater_protocol::api::describe_cluster::DescribeClusterBroker;
use catchwater_protocol::api::{DescribeClusterRequest, DescribeClusterResponse};

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub async fn handle(ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse> {
    let request: DescribeClusterRequest = decode(body, version)?;
    let refused = match request.endpoint_type {
        BROKERS => None,
        CONTROLLERS => Some(EndpointError::Controller),
        other => Some(EndpointError::Unknown(other)),
    };
    let mut response = DescribeClusterResponse::default();
    if let Some(error) = refused {
        response.error_code = error_code::endpoint(error);
        response.error_message = Some(error.to_string().into());
        return respond(&response, version);
    }
    response.cluster_id = ctx.node.controller.image().cluster_id.map(|id| cluster_id(id).into()).unwrap_or_default();
    response.controller_id = wire_id(ctx.node.config.id);
    // A node that is down is not in the image as fenced: with or without fenced brokers the list is the same.
    let broker = |e: crate::node::Endpoint| DescribeClusterBroker {
        broker_id: e.id,
        host: e.host.into(),
        port: e.port,
        rack: e.rack.map(Into::into),
        is_fenced: false,
    };
    response.brokers = ctx.node.endpoints(&ctx.advertised).into_iter().map(broker).collect();
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    respond(&response, version)
}
