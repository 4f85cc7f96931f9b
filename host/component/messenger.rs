//! What guests say, on its way to the router: checked here as everything from outside is.

use super::router::{Router, Unanswered, Undelivered};
use crate::{
    broker::Message,
    plugin::{Messenger, NotSent, Outgoing},
    task::Name,
};
use async_trait::async_trait;
use bytes::Bytes;
use std::time::Duration;
use uuid::Uuid;

#[async_trait]
impl Messenger for Router {
    async fn publish(&self, outgoing: Outgoing) -> Result<usize, NotSent> {
        let message = self.check(outgoing)?;
        Ok(self.send(message).await?)
    }

    async fn request(&self, outgoing: Outgoing, timeout: Duration) -> Result<Bytes, NotSent> {
        let itself = outgoing.by_component && outgoing.to == outgoing.from.as_str();
        let message = self.check(outgoing)?;
        if itself {
            return Err(NotSent::Refused(format!(
                "{} cannot wait for its own answer: it handles one message after the other",
                message.to
            )));
        }
        let answer = Router::request(self, message, timeout).await?;
        match answer.error.is_empty() {
            true => Ok(answer.payload),
            false => Err(NotSent::Failed(answer.error)),
        }
    }
}

impl Router {
    fn check(&self, outgoing: Outgoing) -> Result<Message, NotSent> {
        let refused = |error: &dyn std::error::Error| NotSent::Refused(error.to_string());
        let to = Name::parse("the receiver", &outgoing.to).map_err(|error| refused(&error))?;
        let message = Message {
            id: Uuid::now_v7().to_string(),
            from: outgoing.from.to_string(),
            to,
            message_type: outgoing.message_type,
            payload: outgoing.payload,
            in_reply_to: String::new(),
            error: String::new(),
            reply_to: None,
        };
        message
            .check(self.max_payload_bytes)
            .map_err(|error| refused(&error))?;
        Ok(message)
    }
}

impl From<Undelivered> for NotSent {
    fn from(error: Undelivered) -> Self {
        Self::Undeliverable(error.to_string())
    }
}

impl From<Unanswered> for NotSent {
    fn from(error: Unanswered) -> Self {
        match error {
            Unanswered::Undelivered(error) => error.into(),
            Unanswered::Timeout { .. } => Self::Timeout(error.to_string()),
        }
    }
}
