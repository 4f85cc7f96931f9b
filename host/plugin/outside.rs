//! What guests may reach outside of their sandbox, as traits that `node.rs` wires. Nothing here is
//! implemented.

use async_trait::async_trait;
use bytes::Bytes;
use hostel_keyvalue::KeyValue;
use hostel_task::Name;
use std::{sync::Arc, time::Duration};

/// What a node has to offer to its guests. What is absent is denied to them, as when a file is only
/// inspected.
#[derive(Clone, Default)]
pub struct Outside {
    pub keyvalue: Option<Arc<dyn KeyValue>>,
    pub messenger: Option<Arc<dyn Messenger>>,
}

/// What one plugin is given, and in whose name it acts.
pub struct Granted {
    pub plugin: Name,
    pub outside: Outside,
}

/// Sends what guests say.
#[async_trait]
pub trait Messenger: Send + Sync {
    /// Says how many it was handed to.
    async fn publish(&self, outgoing: Outgoing) -> Result<usize, NotSent>;

    /// Waits for the first answer.
    async fn request(&self, outgoing: Outgoing, timeout: Duration) -> Result<Bytes, NotSent>;
}

/// A message of a guest's. Nothing in it has been checked.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The plugin that says it.
    pub from: Name,
    /// Whether its component says it, and not one of its tasks.
    pub by_component: bool,
    pub to: String,
    pub message_type: String,
    pub payload: Bytes,
}

/// Why a guest has no answer, in words for its author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotSent {
    Undeliverable(String),
    Failed(String),
    Timeout(String),
    Refused(String),
}
