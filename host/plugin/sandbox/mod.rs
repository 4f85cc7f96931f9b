//! Where guests run: the engine, what a guest is admitted with, limited to and lent, and its calls.
//! Knows nothing of files, names or the catalog.

pub mod admission;
pub mod bindings;
pub mod call;
pub mod call_error;
pub mod capabilities;
mod cpu_budget;
pub mod engine;
pub mod engine_config;
mod failure_reason;
pub mod guest_log;
pub mod host_memory;
pub mod imports;
mod keyvalue;
mod limiter;
pub mod linked_plugin;
mod messaging;
pub mod observer;
pub mod sizing;
pub mod store_state;
mod tasks;
mod ticker;
pub mod transfer;
