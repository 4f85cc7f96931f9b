//! Guests: compiling, checking, keeping and running WebAssembly plugins. The only module that names
//! wasmtime. Knows nothing of queues, nodes or gRPC; what a guest may reach upward is a trait here
//! that `node.rs` wires.

mod advice;
mod bindings;
mod cache;
mod call;
mod catalog;
mod compile;
mod compiler;
mod contract;
mod engine;
mod fault;
mod gate;
mod generation;
mod guest;
mod host;
pub mod hostile;
mod imports;
mod inspect;
mod instance;
mod journal;
mod keyvalue;
mod last_words;
mod limiter;
mod load;
mod loader;
mod machine;
mod manifest;
mod messaging;
mod meter;
mod outside;
mod program;
pub mod sample;
mod scan;
mod selfcheck;
mod shelf;
mod sizing;
mod stop;
mod ticker;
mod watcher;
mod workshop;

pub use call::{Call, Finished, Usage};
pub use catalog::{Catalog, Loading, Rejection, View};
pub use compile::{COMMAND as COMPILE_COMMAND, run as compile};
pub use engine::engine_settings;
pub use fault::Fault;
pub use gate::Room;
pub use generation::{Generation, Handler};
pub use host::PluginHost;
pub use imports::Import;
pub use inspect::{Inspection, inspect};
pub use instance::{Delivery, Instance};
pub use manifest::TaskType;
pub use outside::{Messenger, NotSent, Outgoing, Outside};
pub use sample::Sample;
pub use selfcheck::{SelfCheck, verify_self};
pub use stop::{FailureClass, Stop};

use hostel_runtime::untrusted::Untrusted;
use std::path::PathBuf;

/// Why the plugin host could not do its work, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine or a setting stands in the way; an operator has to look.
    #[error("the plugin host cannot start: {0}")]
    Engine(String),
    #[error("{what}: {source}")]
    Io {
        what: String,
        source: std::io::Error,
    },
    /// One plugin file cannot be had.
    #[error("{} {fault}", Untrusted::path(file))]
    File { file: PathBuf, fault: Fault },
}

impl Error {
    fn engine(error: wasmtime::Error) -> Self {
        Self::Engine(format!("{error:#}"))
    }

    fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io {
            what: what.into(),
            source,
        }
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
