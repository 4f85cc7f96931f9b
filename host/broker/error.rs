//! Why a broker fails.

/// Why a broker cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The broker cannot be reached.
    #[error("the message broker is unavailable: {0}")]
    Unavailable(String),
    /// The configuration cannot be used.
    #[error("{0}")]
    Misconfigured(String),
}
