//! Real clients against the built broker: the scenarios of `tests/clients/scenarios.py` through three Python libraries, and
//! kcat (the oldest librdkafka in daily use).
#![allow(clippy::unwrap_used)]

mod kcat;
mod mixed;
mod pythons;
