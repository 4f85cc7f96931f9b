//! The pause of a task type: none of its tasks is leased, in the whole cluster, until it is resumed. Pure.

use super::{name::Name, unix_ms::UnixMs};
use std::{collections::BTreeMap, sync::Arc};

/// The most types that are paused at a time.
pub const MAX_PAUSED_TYPES: usize = 1000;

/// The pause of one task type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypePause {
    /// When it began.
    pub since: UnixMs,
    /// Why, if an operator said so.
    pub reason: Option<Arc<str>>,
}

/// The paused types.
pub type PausedTypes = BTreeMap<Name, TypePause>;
