//! InitProducerId: an id for an idempotent producer, never given twice. Transactional ids are refused: transactions are
//! not served, and a producer that believes in them would lose its guarantee in silence.

use super::{Refuse, RequestContext, Response, decode, respond};
use crate::error_code::{self, ProducerIdError};
use bytes::Bytes;
use catchwater_protocol::api::{InitProducerIdRequest, InitProducerIdResponse};

pub async fn handle(ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse> {
    let request: InitProducerIdRequest = decode(body, version)?;
    let mut response = InitProducerIdResponse { producer_id: -1, producer_epoch: -1, ..Default::default() };
    let refused = match &request.transactional_id {
        Some(id) if id.is_empty() => Some(ProducerIdError::Malformed),
        // An id and its epoch come together or not at all.
        _ if (request.producer_id < 0) != (request.producer_epoch < 0) => Some(ProducerIdError::Malformed),
        Some(_) => Some(ProducerIdError::Transactional),
        None => None,
    };
    match refused {
        Some(error) => response.error_code = error_code::producer_id(error),
        None => match ctx.node.controller.producer_id().await {
            Ok(id) => {
                response.producer_id = id.0;
                response.producer_epoch = 0;
            }
            Err(error) => response.error_code = error_code::producer_id(ProducerIdError::Controller(error)),
        },
    }
    respond(&response, version)
}
