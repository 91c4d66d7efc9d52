//! The wire as clients meet it: raw frames against the built broker, made by kafka-protocol. The numbers are those of the list
//! of behaviours in docs/architecture (protocol, section 7); they stay when lines are dropped.
#![allow(clippy::unwrap_used)]

mod admin;
mod audit;
mod cold;
mod compaction;
mod configs;
mod fetch;
mod group_admin;
mod groups;
mod handshake;
mod hostile;
#[allow(dead_code)]
#[path = "../../../protocol/tests/codec/layout.rs"]
mod layout;
mod produce;
mod remote;
mod storm;
mod tools;
mod topics;
mod wire;
