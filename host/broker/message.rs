//! A message, the topic that it is published to, and the limits of what a message may hold.

use bytes::Bytes;
use hostel_task::{InvalidName, Name};

/// The destination of a published message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Topic {
    /// A topic named by clients and plugins, to which each of them may publish and listen.
    Shared(Name),
    /// The topic of a node, for messages that other nodes forward to it. Clients cannot name it.
    Node(Name),
}

/// A payload with its addresses. Clones share the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The id of the message, chosen by its sender.
    pub id: String,
    /// The component or topic to which an answer goes; empty if no answer is expected.
    pub from: String,
    /// The id of a component or a node, or the name of a shared topic.
    pub to: Name,
    /// The kind of the message, as sender and receiver agree on it.
    pub message_type: String,
    /// The content.
    pub payload: Bytes,
    /// The id of the message that this one answers; empty if it answers none.
    pub in_reply_to: String,
    /// In an answer: the error in place of a payload.
    pub error: String,
    /// Where the answer goes, if not to any receiver that is called `from`.
    pub reply_to: Option<ReplyTo>,
}

/// The one place to which an answer goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyTo {
    /// The node that has sent the message.
    pub node: Name,
    /// The number of the request that waits on that node; `None` if the sender's component there takes
    /// the answer.
    pub request: Option<u64>,
}

/// Why a message is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessage {
    /// The sender's name is invalid.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The payload is larger than the limit.
    #[error("the payload has {given} bytes; this node accepts {limit} (limits.max_payload_bytes)")]
    Payload {
        /// The size of the payload in bytes.
        given: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A text is longer than a name may be.
    #[error("{what} has {given} bytes; at most {} are allowed", Name::MAX_BYTES)]
    TooLong {
        /// The field.
        what: &'static str,
        /// Its length in bytes.
        given: usize,
    },
}

impl Message {
    /// Checks the limits that clients and guests have to respect.
    pub fn check(&self, max_payload_bytes: usize) -> Result<(), InvalidMessage> {
        if !self.from.is_empty() {
            Name::parse("from_node", &self.from)?;
        }
        let texts = [
            ("message_id", &self.id),
            ("message_type", &self.message_type),
            ("in_reply_to", &self.in_reply_to),
        ];
        let too_long = texts
            .into_iter()
            .find(|(_, text)| text.len() > Name::MAX_BYTES);
        if let Some((what, text)) = too_long {
            let given = text.len();
            return Err(InvalidMessage::TooLong { what, given });
        }
        let (given, limit) = (self.payload.len(), max_payload_bytes);
        if given > limit {
            return Err(InvalidMessage::Payload { given, limit });
        }
        Ok(())
    }
}
