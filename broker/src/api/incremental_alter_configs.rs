//! IncrementalAlterConfigs (KIP-339): single settings of a resource set, taken back, added to, taken from.

use super::alter_configs::{Wanted, alter, told};
use super::{Refuse, RequestContext, Response, decode, respond};
use bytes::Bytes;
use catchwater_coordinator::cluster::configs::{ConfigHow, ConfigStep};
use catchwater_protocol::api::incremental_alter_configs::{AlterConfigsResourceResponse, AlterableConfig};
use catchwater_protocol::api::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

pub async fn handle(ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse> {
    let request: IncrementalAlterConfigsRequest = decode(body, version)?;
    let wanted = request
        .resources
        .iter()
        .map(|resource| Wanted {
            kind: resource.resource_type,
            name: resource.resource_name.to_string(),
            how: ConfigHow::Steps(resource.configs.iter().map(|c| (c.name.to_string(), step(c))).collect()),
        })
        .collect();
    let outcomes = alter(ctx, wanted, request.validate_only).await?;
    let responses = request
        .resources
        .iter()
        .zip(outcomes)
        .map(|(resource, outcome)| {
            let (error_code, error_message) = told(outcome);
            AlterConfigsResourceResponse {
                error_code,
                error_message: error_message.map(Into::into),
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.clone(),
            }
        })
        .collect();
    respond(&IncrementalAlterConfigsResponse { responses, ..Default::default() }, version)
}

fn step(config: &AlterableConfig) -> ConfigStep {
    let value = config.value.as_ref().map(|v| v.to_string());
    match (config.config_operation, value) {
        (DELETE, _) => ConfigStep::Delete,
        (_, None) => ConfigStep::Null,
        (SET, Some(value)) => ConfigStep::Set(value),
        (APPEND, Some(value)) => ConfigStep::Append(value),
        (SUBTRACT, Some(value)) => ConfigStep::Subtract(value),
        (other, Some(_)) => ConfigStep::Unknown(other),
    }
}
