//! The attributes of a message.

/// A message to a component, without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub(crate) id: String,
    pub(crate) sender: String,
    pub(crate) to: String,
    pub(crate) message_type: String,
    pub(crate) in_reply_to: String,
}

impl Message {
    /// Returns the id of the message.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the id that the sender gave itself; may be empty. A request that waits gets its answer in
    /// any case.
    pub fn sender(&self) -> &str {
        &self.sender
    }

    /// Returns the destination: the component's name or one of its topics.
    pub fn to(&self) -> &str {
        &self.to
    }

    /// Returns the type that the sender gave the message; may be empty.
    pub fn message_type(&self) -> &str {
        &self.message_type
    }

    /// Returns the id of the message that this one answers.
    pub fn in_reply_to(&self) -> Option<&str> {
        Some(self.in_reply_to.as_str()).filter(|id| !id.is_empty())
    }
}
