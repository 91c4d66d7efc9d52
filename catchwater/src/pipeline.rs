//! The pipeline file: text → tree with places → checked → typed. Every error at its line and column, with a suggestion.

pub mod check;
pub mod connect;
pub mod finding;
pub mod model;
pub mod offline;
pub mod plan;
pub mod render;
pub mod rowless;
pub mod schema;
pub mod secret;
pub mod tree;

pub use check::{Options, check};
pub use finding::Finding;
pub use model::Pipeline;
