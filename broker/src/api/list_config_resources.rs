//! ListConfigResources (KIP-1142; version 0 is ListClientMetricsResources, KIP-714): what has settings. Loggers, groups and
//! client metrics have none here: none are listed.

use super::{Refuse, RequestContext, Response, decode, respond};
use crate::error_code::{self, UnknownResource};
use crate::node::wire_id;
use bytes::Bytes;
use catchwater_protocol::api::list_config_resources::ConfigResource;
use catchwater_protocol::api::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use std::collections::BTreeSet;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;
const KNOWN: [i8; 5] = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];

pub async fn handle(ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse> {
    let request: ListConfigResourcesRequest = decode(body, version)?;
    let kinds: BTreeSet<i8> = match &*request.resource_types {
        _ if version == 0 => BTreeSet::from([CLIENT_METRICS]),
        [] => KNOWN.into(),
        asked => asked.iter().copied().collect(),
    };
    let mut response = ListConfigResourcesResponse::default();
    if let Some(unknown) = kinds.iter().find(|kind| !KNOWN.contains(kind)) {
        response.error_code = error_code::config_resources(UnknownResource(*unknown));
        return respond(&response, version);
    }
    let image = ctx.node.controller.image();
    if kinds.contains(&BROKER) {
        response.config_resources.extend(image.brokers().map(|broker| ConfigResource {
            resource_name: wire_id(broker.id).to_string().into(),
            resource_type: BROKER,
        }));
    }
    if kinds.contains(&TOPIC) {
        let topic = |name| ConfigResource { resource_name: name, resource_type: TOPIC };
        response.config_resources.extend(image.topics_by_name().map(|t| topic((&t.name).into())));
    }
    respond(&response, version)
}
