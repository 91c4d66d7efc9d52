//! The demo shop of `catchwater dev`.
