//! Messages that guests send, on their way to the router. They are checked like those of any client.

use super::{
    delivery_error::{DeliveryError, RequestError},
    router::Router,
};
use crate::{
    broker::{Message, ReplyTo},
    plugin::{Messenger, OutgoingMessage, SendError},
    task::Name,
};
use async_trait::async_trait;
use bytes::Bytes;
use std::time::Duration;
use uuid::Uuid;

#[async_trait]
impl Messenger for Router {
    async fn publish(&self, outgoing: OutgoingMessage) -> Result<usize, SendError> {
        let mut message = self.check(outgoing)?;
        // Other nodes may have the same component, which has not sent this message.
        message.reply_to = Some(ReplyTo {
            node: self.node().clone(),
            request: None,
        });
        Ok(self.send(message).await?)
    }

    async fn request(
        &self,
        outgoing: OutgoingMessage,
        timeout: Duration,
    ) -> Result<Bytes, SendError> {
        let to_itself = outgoing.by_component && outgoing.to == outgoing.from.as_str();
        let message = self.check(outgoing)?;
        if to_itself {
            return Err(SendError::Refused(format!(
                "{} cannot wait for its own answer: it handles one message after the other",
                message.to
            )));
        }
        let answer = Router::request(self, message).await?;
        let answer = answer.wait(timeout).await?;
        if answer.error.is_empty() {
            Ok(answer.payload)
        } else {
            Err(SendError::Failed(answer.error))
        }
    }
}

impl Router {
    fn check(&self, outgoing: OutgoingMessage) -> Result<Message, SendError> {
        let refused = |error: &dyn std::error::Error| SendError::Refused(error.to_string());
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

impl From<DeliveryError> for SendError {
    fn from(error: DeliveryError) -> Self {
        Self::Undeliverable(error.to_string())
    }
}

impl From<RequestError> for SendError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Undelivered(error) => error.into(),
            RequestError::Timeout { .. } => Self::Timeout(error.to_string()),
        }
    }
}
