//! `StreamMessages`: publishes what comes in, answers each message with exactly one response, and
//! delivers what others send to the stream's own topic.

use super::{
    auth::{Pass, WatchedPass},
    convert,
    status::{self, IntoStatus},
};
use crate::{
    broker::{Received, Subscription},
    budget::Budget,
    component::{Router, Undelivered},
    proto::distributed::Message,
};
use bytes::Bytes;
use std::{collections::BTreeSet, pin::Pin, sync::Arc};
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

/// What one stream may listen to besides its own name.
const MAX_TOPICS: usize = 256;

pub type Responses = Pin<Box<dyn Stream<Item = Result<Message, Status>> + Send>>;

/// One stream's side of the conversation.
struct Conversation {
    router: Arc<Router>,
    /// Ends with the server.
    end: CancellationToken,
    /// What it was let in with, where that is asked for.
    pass: Option<WatchedPass>,
    max_payload_bytes: usize,
    backlog: usize,
    /// For what waits to be delivered.
    room: Budget,
    /// The topic that the first message fixed; everything the stream says is from there.
    own: Option<String>,
    inbox: Option<Subscription>,
}

/// What to do next.
enum Turn {
    Incoming(Message),
    Delivery(Received),
    End,
}

pub fn responses(
    mut incoming: Streaming<Message>,
    router: Arc<Router>,
    end: CancellationToken,
    pass: Option<Pass>,
    max_payload_bytes: usize,
    backlog: usize,
    room: Budget,
) -> Responses {
    let mut conversation = Conversation {
        router,
        end,
        pass: pass.map(Pass::watch),
        max_payload_bytes,
        backlog,
        room,
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
        // Whoever has nothing more to say still gets what had been sent before.
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
            () = revoked(&mut self.pass) => Err(status::revoked()),
            Some(received) = next(&mut self.inbox) => Ok(Turn::Delivery(received)),
        }
    }

    /// The first message says who speaks and what else to listen to, and subscribes the stream.
    async fn join(&mut self, first: &Message) -> Result<(), Status> {
        if self.own.is_some() {
            return Ok(());
        }
        self.own = Some(first.from_node.clone());
        if first.topics.len() > MAX_TOPICS {
            return Err(status::invalid(format!(
                "{} topics; a stream may listen to at most {MAX_TOPICS}",
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
            let listening = self.router.listen(&topics, self.backlog, &self.room).await;
            let listening = listening.map_err(IntoStatus::into_status)?;
            self.inbox = Some(listening.map_err(IntoStatus::into_status)?);
        }
        Ok(())
    }

    /// Publishes the message and tells its sender how that went.
    async fn answer(&self, mut message: Message) -> Message {
        // Made up here, so that its sender learns what answers will refer to.
        if message.message_id.is_empty() && !message.to_node.is_empty() {
            message.message_id = convert::new_id();
        }
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
                "this stream speaks for {own:?}, as its first message said"
            ));
        }
        if message.to_node.is_empty() {
            return Ok(());
        }
        let message = convert::message(message, self.max_payload_bytes).map_err(text)?;
        match self.router.send(message).await {
            Ok(_) => Ok(()),
            Err(error) => Err(why(error).unwrap_or_else(text)),
        }
    }
}

/// Why a message reached nobody, in words for its sender; a status where the node is to blame.
pub fn why(error: Undelivered) -> Result<String, Status> {
    match error {
        Undelivered::Broker(error) => Err(error.into_status()),
        other => Ok(other.to_string()),
    }
}

fn text(status: Status) -> String {
    status.message().to_owned()
}

/// The next delivery; never resolves without an inbox.
async fn next(inbox: &mut Option<Subscription>) -> Option<Received> {
    match inbox {
        Some(inbox) => inbox.next().await,
        None => std::future::pending().await,
    }
}

/// Comes back when the token is known no more; never without one.
async fn revoked(pass: &mut Option<WatchedPass>) {
    match pass {
        Some(pass) => pass.revoked().await,
        None => std::future::pending().await,
    }
}
