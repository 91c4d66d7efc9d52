//! The parts of one node that its requests share.

use crate::budget::Budget;
use catchwater_base::Clock;
use std::sync::Arc;

/// Built once by `Broker::start`; handlers reach everything through it.
pub struct Node {
    pub clock: Arc<dyn Clock>,
    /// `queued.max.request.bytes`
    pub request_budget: Budget,
    /// Bytes of fetch answers that were read and have not left yet.
    pub response_budget: Budget,
}
