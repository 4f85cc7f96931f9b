//! `StreamMessages`: publishes what comes in, answers each message with exactly one response, and
//! delivers what others send to the stream's own topic.

use super::{
    convert,
    status::{self, IntoStatus},
};
use crate::{
    broker::{MessageBroker, Received, Subscription},
    proto::distributed::Message,
    task::Name,
};
use bytes::Bytes;
use std::{collections::BTreeSet, pin::Pin, sync::Arc};
use tokio_stream::{Stream, StreamExt};
use tonic::{Status, Streaming};

/// What one stream may listen to besides its own topic.
const MAX_TOPICS: usize = 256;

pub type Responses = Pin<Box<dyn Stream<Item = Result<Message, Status>> + Send>>;

/// One stream's side of the conversation.
struct Conversation {
    node: Name,
    broker: Arc<dyn MessageBroker>,
    max_payload_bytes: usize,
    /// The topic that the first message fixed; everything the stream says is from there.
    own: Option<String>,
    /// Of that topic and of the others that the first message named.
    inboxes: Vec<Subscription>,
}

/// What to do next.
enum Turn {
    Incoming(Message),
    Delivery(Received),
    End,
}

pub fn responses(
    mut incoming: Streaming<Message>,
    node: Name,
    broker: Arc<dyn MessageBroker>,
    max_payload_bytes: usize,
    backlog: usize,
) -> Responses {
    let mut conversation = Conversation {
        node,
        broker,
        max_payload_bytes,
        own: None,
        inboxes: Vec::new(),
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
        // Whoever has nothing more to say still gets what had been sent before.
        for mut inbox in conversation.inboxes {
            inbox.close();
            while let Some(Received::Message(message)) = inbox.next().await {
                yield convert::delivered(message);
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
            Some(received) = next(&mut self.inboxes) => Ok(Turn::Delivery(received)),
        }
    }

    /// The first message says who speaks, and subscribes the stream to that topic and others.
    async fn join(&mut self, first: &Message) -> Result<(), Status> {
        if self.own.is_some() {
            return Ok(());
        }
        self.own = Some(first.from_node.clone());
        if first.topics.len() > MAX_TOPICS {
            let given = first.topics.len();
            return Err(status::invalid(format!(
                "{given} topics; a stream listens to at most {MAX_TOPICS}"
            )));
        }
        let mut topics = BTreeSet::new();
        if !first.from_node.is_empty() {
            topics.insert(convert::name("from_node", &first.from_node)?);
        }
        for topic in &first.topics {
            topics.insert(convert::name("topics", topic)?);
        }
        for topic in topics {
            let subscribed = self.broker.subscribe(&topic).await;
            let inbox = subscribed.map_err(IntoStatus::into_status)?;
            self.inboxes.push(inbox);
        }
        Ok(())
    }

    /// Publishes the message and tells its sender how that went.
    async fn answer(&self, message: Message) -> Message {
        let in_reply_to = message.message_id.clone();
        let to_node = message.from_node.clone();
        // One that is too large may not fit into an answer.
        let payload = match message.payload.len() <= self.max_payload_bytes {
            true => message.payload.clone(),
            false => Bytes::new(),
        };
        let error = match self.publish(message).await {
            Ok(()) => String::new(),
            Err(error) => error,
        };
        Message {
            from_node: self.node.to_string(),
            to_node,
            payload,
            message_type: "response".into(),
            message_id: convert::new_id(),
            in_reply_to,
            error,
            topics: Vec::new(),
        }
    }

    async fn publish(&self, message: Message) -> Result<(), String> {
        let own = self.own.as_deref().unwrap_or_default();
        if message.from_node != own {
            return Err(format!(
                "this stream speaks for {own:?}, as its first message said"
            ));
        }
        if message.to_node.is_empty() {
            return Ok(());
        }
        let message = convert::message(message, self.max_payload_bytes).map_err(text)?;
        let topic = message.topic.clone();
        let published = self.broker.publish(message).await;
        match published.map_err(|error| text(error.into_status()))? {
            0 => Err(nobody_listens(&topic)),
            _ => Ok(()),
        }
    }
}

pub fn nobody_listens(topic: &Name) -> String {
    format!("nobody listens on {topic}")
}

fn text(status: Status) -> String {
    status.message().to_owned()
}

/// The next delivery; never resolves without an inbox.
async fn next(inboxes: &mut [Subscription]) -> Option<Received> {
    if inboxes.is_empty() {
        return std::future::pending().await;
    }
    let next = inboxes.iter_mut().map(|inbox| Box::pin(inbox.next()));
    futures_util::future::select_all(next).await.0
}
