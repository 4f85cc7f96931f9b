//! What a caller learns of a failed operation, by what can be done about it.

/// Why the database did not do what was requested. Nothing was changed, unless the outcome is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The same call may succeed later.
    #[error("{reason}")]
    Unavailable {
        /// What happened.
        reason: String,
        /// The change may have been made.
        outcome_unknown: bool,
    },
    /// The disk has no room for operations that add data.
    #[error("{0}")]
    Full(String),
    /// What is stored does not make sense; an operator has to look.
    #[error("{0}")]
    Corrupt(String),
    /// A setting has to change.
    #[error("{0}")]
    Misconfigured(String),
}

impl Error {
    /// Nothing was changed.
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable {
            reason: reason.into(),
            outcome_unknown: false,
        }
    }

    /// Makes the error of a database that is closed.
    pub fn closed() -> Self {
        Self::unavailable("it has been closed")
    }
}
