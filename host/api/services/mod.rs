//! The gRPC services, one a file. Each turns a request into a call of an engine and its result into a
//! response.

pub mod components;
pub mod distributed;
pub mod health;
pub mod nodes;
pub mod plugins;
pub mod reflection;
mod stream;
pub mod tasks;
