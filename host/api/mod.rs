//! gRPC in: a service a file, `convert` between wire and house, `status` for every refusal, `access`
//! at the door. Decides
//! nothing about tasks; never sees the worker.

mod access;
mod auth;
mod calls;
mod components;
mod connections;
mod convert;
mod deadline;
mod distributed;
mod expiry;
mod health;
mod health_service;
mod in_flight;
mod incoming;
mod nodes;
mod plugins;
mod reflection;
mod serve;
mod server;
mod share;
mod status;
mod stream;
mod tasks;
mod tls;
mod watched;

pub use access::Access;
pub use health::Readiness;
pub use server::{Server, Services};
