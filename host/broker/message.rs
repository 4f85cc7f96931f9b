//! What travels: a message, the topic that it is published to, and the rule for what a message may
//! hold. No channels, no sockets.

use bytes::Bytes;
use hostel_task::{InvalidName, Name};

/// Where a message is published.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Named by clients and plugins; anyone may publish to it and listen.
    Shared(Name),
    /// A node's own, for what other nodes pass on to it. No client can name it.
    Node(Name),
}

/// A payload on its way. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub id: String,
    /// Whom to answer; empty when nobody hears an answer.
    pub from: String,
    /// A component, a node, or a shared topic.
    pub to: Name,
    pub message_type: String,
    pub payload: Bytes,
    /// The id of the message that this one answers, or empty.
    pub in_reply_to: String,
    /// In an answer: why there is none.
    pub error: String,
    /// Where somebody waits for the answer; it goes there and not to `from`.
    pub reply_to: Option<ReplyTo>,
}

/// Whoever waits for one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyTo {
    pub node: Name,
    /// Which of that node's requests it is.
    pub request: u64,
}

/// Why a message is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessage {
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error("the payload has {given} bytes; this node accepts {limit} (limits.max_payload_bytes)")]
    Payload { given: usize, limit: usize },
    #[error("{what} has {given} bytes; at most {} are allowed", Name::MAX_BYTES)]
    TooLong { what: &'static str, given: usize },
}

impl Message {
    /// What clients and guests have to keep to.
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
        match given > limit {
            true => Err(InvalidMessage::Payload { given, limit }),
            false => Ok(()),
        }
    }
}
