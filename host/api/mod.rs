//! The gRPC API of a node: `transport` carries calls, `security` admits them, `services` answer them,
//! and `server` puts these together. `convert`, `read_convert` and `schedule_convert` translate between wire and
//! domain types, and every status comes from `status`. Decides nothing about tasks and knows no worker.

mod convert;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod read_convert;
mod readiness;
mod schedule_convert;
mod security;
mod server;
mod services;
mod status;
mod transport;

pub use readiness::Readiness;
pub use security::{Reloaded, Security};
pub use server::{Server, Services};
