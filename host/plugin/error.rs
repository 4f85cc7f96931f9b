//! Why the plugin host could not do its work.

use super::diagnostic::Diagnostic;
use hostel_runtime::untrusted::Untrusted;
use std::path::PathBuf;

/// A failure of the plugin host, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine or a setting rules out an engine; an operator has to look.
    #[error("the plugin host cannot start: {0}")]
    Engine(String),
    /// A file or directory cannot be used.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The error of the system.
        source: std::io::Error,
    },
    /// One plugin file cannot be read.
    #[error("{} {diagnostic}", Untrusted::path(file))]
    File {
        /// The file.
        file: PathBuf,
        /// Why it is refused.
        diagnostic: Diagnostic,
    },
}

impl Error {
    pub(crate) fn engine(error: wasmtime::Error) -> Self {
        Self::Engine(format!("{error:#}"))
    }

    pub(crate) fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io {
            what: what.into(),
            source,
        }
    }
}
