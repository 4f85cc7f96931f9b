//! gRPC in: a service a file, `convert` between wire and house, `status` for every refusal. Decides
//! nothing about tasks; never sees the worker.

mod convert;
mod distributed;
mod incoming;
mod plugins;
mod server;
mod status;
mod stream;
mod tasks;

pub use server::{Server, Services, server};
