//! What guests may reach beyond their sandbox, as traits that `node.rs` implements and passes in.

use async_trait::async_trait;
use bytes::Bytes;
use hostel_keyvalue::KeyValue;
use hostel_task::Name;
use std::{sync::Arc, time::Duration};

/// What a node lends to its guests. What is absent is denied to them, as when a file is only
/// inspected.
#[derive(Clone, Default)]
pub struct Capabilities {
    /// Serves `wasi:keyvalue`.
    pub keyvalue: Option<Arc<dyn KeyValue>>,
    /// Serves `hostel:plugin/messaging`.
    pub messenger: Option<Arc<dyn Messenger>>,
}

/// The capabilities of one plugin, and the name under which it uses them.
pub struct Granted {
    pub plugin: Name,
    pub capabilities: Capabilities,
}

/// Sends the messages of guests.
#[async_trait]
pub trait Messenger: Send + Sync {
    /// Returns the number of receivers.
    async fn publish(&self, outgoing: OutgoingMessage) -> Result<usize, SendError>;

    /// Waits for the first answer.
    async fn request(
        &self,
        outgoing: OutgoingMessage,
        timeout: Duration,
    ) -> Result<Bytes, SendError>;
}

/// A message from a guest. Nothing in it has been checked.
#[derive(Debug, Clone)]
pub struct OutgoingMessage {
    /// The plugin that sends it.
    pub from: Name,
    /// Whether the plugin's component sends it, and not one of its tasks.
    pub by_component: bool,
    /// The id or topic to send to.
    pub to: String,
    /// The type of the message.
    pub message_type: String,
    /// The payload.
    pub payload: Bytes,
}

/// Why a message was not sent or not answered, in words for the author of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendError {
    /// It was not delivered, for this reason.
    Undeliverable(String),
    /// The receiver answered with this error.
    Failed(String),
    /// No answer arrived in time.
    Timeout(String),
    /// The message is not allowed, for this reason.
    Refused(String),
}
