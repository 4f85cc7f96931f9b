//! The contract of a store of the limits that are set at run time, which every queue backend keeps, and the
//! values of its calls. What is in force is decided by `hostel_task`.

use super::error::Error;
use async_trait::async_trait;
use hostel_task::{GivenLimits, LimitScope, RuntimeLimits};

/// The most types and groups of a queue that have limits of their own.
pub const MAX_LIMITS: usize = 1000;

/// Stores limits of task types and of their groups, beside the tasks of a queue.
#[async_trait]
pub trait LimitStore: Send + Sync {
    /// Returns all limits that were set, or `None` if their version is `known`: 0 before any was set.
    async fn limits(&self, known: u64) -> Result<Option<StoredLimits>, Error>;

    /// Stores the limits of a scope in the place of those that it has, or none if they are empty, if the
    /// version of all limits is `expected`. `Full` if the scope has none yet and `MAX_LIMITS` others have.
    async fn put_limits(
        &self,
        scope: &LimitScope,
        limits: &GivenLimits,
        expected: u64,
    ) -> Result<PutLimits, Error>;
}

/// The limits that were set at run time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredLimits {
    /// 0 if none was ever set, and another number after each change.
    pub version: u64,
    /// The limits.
    pub limits: RuntimeLimits,
    /// The scopes whose limits cannot be read. They count as none.
    pub damaged: Vec<String>,
}

/// The result of storing limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutLimits {
    /// They are stored, and this is the version of all limits.
    Stored(u64),
    /// The version is another one; nothing changed.
    Changed,
    /// There are `MAX_LIMITS`.
    Full,
}

/// Returns what is stored of the limits of a scope.
pub(crate) fn encode(limits: &GivenLimits) -> Result<String, Error> {
    serde_json::to_string(limits).map_err(|error| Error::Corrupt(error.to_string()))
}

/// Reads scopes and what `encode` has made of their limits.
pub(crate) fn decode(version: u64, stored: impl Iterator<Item = (String, String)>) -> StoredLimits {
    let mut all = StoredLimits {
        version,
        ..StoredLimits::default()
    };
    for (scope, limits) in stored {
        match (LimitScope::parse(&scope), serde_json::from_str(&limits)) {
            (Some(scope), Ok(limits)) => all.limits.set(&scope, limits),
            _ => all.damaged.push(scope),
        }
    }
    all
}
