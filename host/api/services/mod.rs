//! The gRPC services, one a file, the message stream of the first (`stream.rs`), and the streams of
//! `TaskService` (`submit_many`, `act_on_tasks`, `watch_tasks`). Each turns a request into a call of an engine and
//! its result into a response. `types_pause.rs` has calls of `types.rs`; `health.rs` is the standard health
//! service; the faults of a node are in `nodes.rs`.

mod act_on_tasks;
pub mod components;
pub mod distributed;
pub mod health;
pub mod nodes;
pub mod plugins;
pub mod reflection;
pub mod schedules;
mod stream;
mod submit_many;
pub mod tasks;
#[cfg(test)]
mod tests;
mod type_limits;
pub mod types;
mod types_pause;
mod watch_tasks;
