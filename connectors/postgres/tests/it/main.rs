//! The connector against real PostgreSQL servers. Servers come from `CW_PG15_URL` … `CW_PG18_URL` (`cargo xtask db env`);
//! without `CW_PG15_URL` each test says SKIP and returns. One database per test.
#![allow(clippy::unwrap_used)]

mod adhoc;
mod altered;
mod binary;
mod blocking;
mod columns;
mod conformance;
mod differential;
mod golden;
mod history;
mod large;
mod late;
mod login;
mod messages;
mod modes;
mod notifications;
mod outbox;
mod pipeline;
mod prepared;
mod quiet;
mod reading;
mod rig;
mod sink;
mod source;
mod support;
mod taken;
mod tls;
mod transforms;
mod views;
