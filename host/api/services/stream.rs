//! `StreamMessages`: publishes each incoming message and sends exactly one response to it, and delivers the
//! messages that others send to the stream's topics.

use super::super::{
    convert,
    security::auth::{AuthContext, WatchedContext},
    status::{self, IntoStatus},
};
use crate::{
    broker::{Received, Subscription},
    budget::Budget,
    component::{DeliveryError, Router},
    proto::distributed::Message,
};
use bytes::Bytes;
use std::{collections::BTreeSet, pin::Pin, sync::Arc};
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

/// The most topics of one stream besides its own name.
const MAX_TOPICS: usize = 256;

pub type Responses = Pin<Box<dyn Stream<Item = Result<Message, Status>> + Send>>;

/// One stream's side of the conversation.
struct Conversation {
    router: Arc<Router>,
    /// Ends with the server.
    end: CancellationToken,
    /// The token that admitted the stream, if tokens are required.
    auth: Option<WatchedContext>,
    max_payload_bytes: usize,
    backlog: usize,
    /// The budget for messages that wait to be delivered.
    waiting: Budget,
    /// The sender of the first message, and so of every message of the stream.
    own: Option<String>,
    inbox: Option<Subscription>,
}

/// The next event of a conversation.
enum Turn {
    Incoming(Message),
    Delivery(Received),
    End,
}

/// The responses and deliveries of a new conversation.
pub fn responses(
    mut incoming: Streaming<Message>,
    router: Arc<Router>,
    end: CancellationToken,
    auth: Option<AuthContext>,
    max_payload_bytes: usize,
    backlog: usize,
    waiting: Budget,
) -> Responses {
    let mut conversation = Conversation {
        router,
        end,
        auth: auth.map(AuthContext::watch),
        max_payload_bytes,
        backlog,
        waiting,
        own: None,
        inbox: None,
    };
    Box::pin(async_stream::try_stream! {
        loop {
            match conversation.turn(&mut incoming).await? {
                Turn::Incoming(message) => {
                    conversation.join(&message).await?;
                    yield conversation.answer(message).await;
                }
                Turn::Delivery(Received::Message(message)) => yield convert::delivered(message),
                Turn::Delivery(Received::CutOff) => Err(status::cut_off(backlog))?,
                Turn::End => break,
            }
        }
        // A client that sends nothing more still receives what was sent to it before.
        if let Some(mut inbox) = conversation.inbox.take() {
            inbox.close();
            while let Some(received) = inbox.next().await {
                match received {
                    Received::Message(message) => yield convert::delivered(message),
                    Received::CutOff => Err(status::cut_off(backlog))?,
                }
            }
        }
    })
}

impl Conversation {
    async fn turn(&mut self, incoming: &mut Streaming<Message>) -> Result<Turn, Status> {
        tokio::select! {
            message = incoming.next() => match message {
                Some(message) => Ok(Turn::Incoming(message?)),
                None => Ok(Turn::End),
            },
            () = self.end.cancelled() => Err(status::stopping()),
            () = revoked(&mut self.auth) => Err(status::revoked()),
            Some(received) = next(&mut self.inbox) => Ok(Turn::Delivery(received)),
        }
    }

    /// Subscribes the stream to the sender of its first message and to the topics in it.
    async fn join(&mut self, first: &Message) -> Result<(), Status> {
        if self.own.is_some() {
            return Ok(());
        }
        self.own = Some(first.from_node.clone());
        if first.topics.len() > MAX_TOPICS {
            return Err(status::invalid(format!(
                "the message has {} topics; a stream may have at most {MAX_TOPICS}",
                first.topics.len()
            )));
        }
        let mut topics = BTreeSet::new();
        if !first.from_node.is_empty() {
            topics.insert(convert::name("from_node", &first.from_node)?);
        }
        for topic in &first.topics {
            topics.insert(convert::name("topic", topic)?);
        }
        if !topics.is_empty() {
            let topics = Vec::from_iter(topics);
            let listening = self
                .router
                .listen(&topics, self.backlog, &self.waiting)
                .await;
            let listening = listening.map_err(IntoStatus::into_status)?;
            self.inbox = Some(listening.map_err(IntoStatus::into_status)?);
        }
        Ok(())
    }

    /// Publishes a message and returns the response to its sender.
    async fn answer(&self, mut message: Message) -> Message {
        // Generated here, so that the response tells the sender which id answers refer to.
        if message.message_id.is_empty() && !message.to_node.is_empty() {
            message.message_id = convert::new_id();
        }
        let in_reply_to = message.message_id.clone();
        let to_node = message.from_node.clone();
        // A payload that is too large may not fit into the response.
        let payload = if message.payload.len() <= self.max_payload_bytes {
            message.payload.clone()
        } else {
            Bytes::new()
        };
        let error = self.publish(message).await.err().unwrap_or_default();
        Message {
            from_node: self.router.node().to_string(),
            to_node,
            payload,
            message_type: "response".into(),
            message_id: convert::new_id(),
            in_reply_to,
            error,
            ..Message::default()
        }
    }

    async fn publish(&self, message: Message) -> Result<(), String> {
        let own = self.own.as_deref().unwrap_or_default();
        if message.from_node != own {
            return Err(format!(
                "every message of this stream has to be from {own:?}, as the first one was"
            ));
        }
        if message.to_node.is_empty() {
            return Ok(());
        }
        let message = convert::message(message, self.max_payload_bytes).map_err(text)?;
        match self.router.send(message).await {
            Ok(_) => Ok(()),
            Err(error) => Err(reason(error).unwrap_or_else(text)),
        }
    }
}

/// Why a message was not delivered, for its sender; a status if the broker failed.
pub fn reason(error: DeliveryError) -> Result<String, Status> {
    match error {
        DeliveryError::Broker(error) => Err(error.into_status()),
        other => Ok(other.to_string()),
    }
}

fn text(status: Status) -> String {
    status.message().to_owned()
}

/// Waits for the next delivery, for ever without an inbox.
async fn next(inbox: &mut Option<Subscription>) -> Option<Received> {
    match inbox {
        Some(inbox) => inbox.next().await,
        None => std::future::pending().await,
    }
}

/// Waits until the token is removed, for ever without one.
pub async fn revoked(auth: &mut Option<WatchedContext>) {
    match auth {
        Some(auth) => auth.revoked().await,
        None => std::future::pending().await,
    }
}
