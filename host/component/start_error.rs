//! Why a component has no instance.

use crate::plugin::CallError;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("this node runs as many components as it may (plugins.max_components)")]
    NoSlot,
    #[error("the node is stopping")]
    Stopping,
    #[error(transparent)]
    Guest(#[from] CallError),
}
