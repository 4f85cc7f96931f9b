//! Why a call to a queue backend failed.

/// Why a backend did not do its work, by what the caller can do about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The same call may succeed later. If `outcome_unknown`, the change may have been made.
    #[error("the task queue is unavailable: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
        /// Whether the change may have been stored.
        outcome_unknown: bool,
    },
    /// The store has no room for new tasks; nothing was stored. Only submissions fail with this.
    #[error("the task queue takes no new tasks: {reason}")]
    Full {
        /// What is full, and what to do.
        reason: String,
    },
    /// What is stored does not make sense; an operator has to look.
    #[error("the task queue is corrupt: {0}")]
    Corrupt(String),
    /// A setting has to change.
    #[error("the task queue cannot be opened: {0}")]
    Misconfigured(String),
    /// The page token was not returned by this queue.
    #[error("the page token is not valid; begin with the first page")]
    BadPage,
    /// The cursor was not returned by a queue.
    #[error("the cursor is not valid; watch without one, and read the tasks that you follow")]
    BadCursor,
}

impl Error {
    /// Converts the error of a step after a change: the change is made, and it is not known whether it lasts.
    pub fn after_change(self) -> Self {
        self.with_outcome_unknown(true)
    }

    /// Converts the error of a call that changes nothing: its outcome is never unknown.
    pub fn as_read_error(self) -> Self {
        self.with_outcome_unknown(false)
    }

    fn with_outcome_unknown(self, outcome_unknown: bool) -> Self {
        match self {
            Self::Unavailable { reason, .. } => Self::Unavailable {
                reason,
                outcome_unknown,
            },
            other => other,
        }
    }
}
