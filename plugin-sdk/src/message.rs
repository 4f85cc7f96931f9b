//! What a component may know about a message besides its payload.

/// One message, without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub(crate) id: String,
    pub(crate) sender: String,
    pub(crate) to: String,
    pub(crate) message_type: String,
    pub(crate) in_reply_to: String,
}

impl Message {
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Who sent it, and hears the answer; empty when nobody does.
    pub fn sender(&self) -> &str {
        &self.sender
    }

    /// What it was sent to: the component's own name, or one of its topics.
    pub fn to(&self) -> &str {
        &self.to
    }

    /// What kind of message its sender calls it; may be empty.
    pub fn message_type(&self) -> &str {
        &self.message_type
    }

    /// The id of the message that this one answers.
    pub fn in_reply_to(&self) -> Option<&str> {
        Some(self.in_reply_to.as_str()).filter(|id| !id.is_empty())
    }
}
