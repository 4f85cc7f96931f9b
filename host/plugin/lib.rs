//! Guests: compiling, checking, keeping and running WebAssembly plugins. The only module that names
//! wasmtime. Knows nothing of queues, nodes or gRPC; what a guest may reach beyond its sandbox is a
//! trait of a lower layer or of this one, whose implementation `node.rs` passes in.
//!
//! | folder | what lives there |
//! |---|---|
//! | `compile` | from a file to machine code, in a process of its own |
//! | `sandbox` | the engine, the limits and capabilities of a guest, and its calls |
//! | `load` | from files to generations: scan, build, registry, loader |
//!
//! The public interface is what this file re-exports:
//! - [`PluginHost`] owns all of it: its [`Catalog`] names the [`Generation`]s that serve, and a
//!   [`Handler`] of one runs a [`Call`], in a [`Permit`] that was reserved for it or in one of its own.
//! - [`Instance`] is the long-lived instance of a plugin's component.
//! - [`Capabilities`] and [`Messenger`] are what the node lends to guests, and an [`AttemptObserver`] hears
//!   of the progress of one attempt.
//! - [`inspect()`] and [`verify_self`] need no node.
//! - [`TestGuest`] and [`hostile`] make plugins for tests and for `verify_self`.

mod catalog;
mod compile;
mod diagnostic;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod generation;
mod host;
pub mod hostile;
mod inspect;
mod instance;
mod load;
mod sandbox;
mod self_check;
pub mod test_guest;

pub use catalog::{Catalog, Loading, Rejection, View};
pub use compile::{command::run as compile, protocol::COMMAND as COMPILE_COMMAND};
pub use diagnostic::Diagnostic;
pub use error::Error;
pub use generation::{Generation, Handler};
pub use host::PluginHost;
pub use inspect::{Inspection, inspect};
pub use instance::{Delivery, FailedStart, Instance};
pub use load::manifest::TaskType;
pub use sandbox::{
    admission::Permit,
    call::{Call, CallOutcome, Usage},
    call_error::{CallError, FailureClass},
    capabilities::{Capabilities, Messenger, OutgoingMessage, SendError},
    engine_config::engine_settings,
    imports::Import,
    observer::AttemptObserver,
};
pub use self_check::{SelfCheck, verify_self};
pub use test_guest::TestGuest;

#[cfg(any(test, fuzzing))]
mod testing;
#[cfg(test)]
mod tests;
