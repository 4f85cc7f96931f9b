//! Why a component has no instance.

use crate::plugin::{self, CallError, Permit};

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("this node runs as many components as it may (plugins.max_components)")]
    NoSlot,
    #[error("the node is stopping")]
    Stopping,
    #[error(transparent)]
    Guest(#[from] CallError),
}

/// A start that failed, and the permit that is left of it.
pub struct FailedStart {
    /// Why it failed.
    pub error: StartError,
    /// For the code that is started instead. Given back, it would go to the component that has waited
    /// for memory the longest.
    pub permit: Option<Permit>,
}

impl From<plugin::FailedStart> for FailedStart {
    fn from(failed: plugin::FailedStart) -> Self {
        Self {
            error: failed.error.into(),
            permit: failed.permit,
        }
    }
}
