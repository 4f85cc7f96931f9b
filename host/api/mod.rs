//! gRPC in: a service a file, `convert` between wire and house, `status` for every refusal. Decides
//! nothing about tasks; never sees the worker.

mod components;
mod convert;
mod distributed;
mod health;
mod incoming;
mod nodes;
mod plugins;
mod server;
mod status;
mod stream;
mod tasks;

pub use health::Readiness;
pub use server::{Server, Services, server};
