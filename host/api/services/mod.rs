//! The gRPC services, one a file, and the message stream of the first (`stream.rs`). Each turns a request
//! into a call of an engine and its result into a response. `health.rs` is the standard health service;
//! the faults of a node are in `nodes.rs`.

pub mod components;
pub mod distributed;
pub mod health;
pub mod nodes;
pub mod plugins;
pub mod reflection;
pub mod schedules;
mod stream;
pub mod tasks;
#[cfg(test)]
mod tests;
