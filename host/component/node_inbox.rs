//! The inbox of this node: answers to its requests, messages to its components that other nodes pass
//! on, and requests to the node itself.

use super::router::{OwnedId, Router};
use crate::{
    broker::{Message, Overflow, Received, Subscription, Topic},
    discovery::ServiceDiscovery,
    health::{Background, Health, Part},
    lifecycle::Component,
};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::task::JoinSet;

/// How many messages may wait in the inbox. They are only passed on, so hardly any ever do.
const BACKLOG: usize = 4096;

/// How many answers of the node itself may be under way; further ones are dropped.
const MAX_ANSWERS: usize = 256;

type Answer = Result<Option<Bytes>, String>;

/// Receives what is sent to the node, while it is started.
pub struct NodeInbox {
    shared: Arc<Shared>,
    health: Health,
    receiving: Mutex<Option<Background>>,
}

struct Shared {
    router: Arc<Router>,
    discovery: Arc<dyn ServiceDiscovery>,
}

impl NodeInbox {
    /// Makes the inbox of the router's node.
    pub fn new(router: Arc<Router>, discovery: Arc<dyn ServiceDiscovery>, health: Health) -> Self {
        Self {
            shared: Arc::new(Shared { router, discovery }),
            health,
            receiving: Mutex::default(),
        }
    }
}

impl Shared {
    /// Registers the node's id and subscribes to its topic.
    async fn open(&self) -> anyhow::Result<(OwnedId, Subscription)> {
        let node = self.router.node();
        let (inbox, mut messages) = Subscription::new(BACKLOG, Overflow::Refuse);
        let topic = Topic::Node(node.clone());
        messages.keep(self.router.broker().attach(&topic, inbox.clone()).await?);
        Ok((self.router.register(node, inbox)?, messages))
    }

    /// Passes messages on, and answers those to the node itself.
    async fn receive(self: Arc<Self>, mut messages: Subscription) {
        let mut answering = JoinSet::new();
        while let Some(Received::Message(message)) = messages.next().await {
            while answering.try_join_next().is_some() {}
            let Some((request, answer)) = self.pass_on(message) else {
                continue;
            };
            // In a task of its own, so that a slow broker does not hold up messages to others.
            if answering.len() < MAX_ANSWERS {
                let router = self.router.clone();
                answering.spawn(async move {
                    router.answer(router.node(), &request, answer).await;
                });
            }
        }
    }

    /// Delivers the message without waiting. Returns its addresses and the node's own answer, if it
    /// needs one.
    fn pass_on(&self, message: Message) -> Option<(Message, Answer)> {
        let router = &self.router;
        if message.reply_to.is_some() && !message.in_reply_to.is_empty() {
            router.take_answer(message);
            return None;
        }
        if message.to == *router.node() {
            return Some((addresses(&message), self.describe()));
        }
        let request = addresses(&message);
        let refused = match router.deliver_here(message) {
            Ok(None) => return None,
            Ok(Some(_)) => format!("{} is no longer on {}", request.to, router.node()),
            Err(error) => error.to_string(),
        };
        Some((request, Err(refused)))
    }

    /// The node's record in discovery, as JSON.
    fn describe(&self) -> Answer {
        let nodes = self.discovery.nodes();
        let own = nodes.iter().find(|node| node.id == *self.router.node());
        let own = own.ok_or("this node is not registered yet")?;
        let text = serde_json::to_vec(own).map_err(|error| error.to_string())?;
        Ok(Some(text.into()))
    }
}

/// Returns the message without its payload, which nothing counts any more while an answer is sent.
fn addresses(message: &Message) -> Message {
    Message {
        payload: Bytes::new(),
        ..message.clone()
    }
}

#[async_trait]
impl Component for NodeInbox {
    async fn start(&self) -> anyhow::Result<()> {
        let mut first = Some(self.shared.open().await?);
        let shared = self.shared.clone();
        let receive = move || {
            let (shared, first) = (shared.clone(), first.take());
            async move {
                let opened = match first {
                    Some(opened) => Ok(opened),
                    None => shared.open().await,
                };
                match opened {
                    Ok((_owned_id, messages)) => shared.receive(messages).await,
                    Err(error) => tracing::warn!("the node's inbox cannot be opened: {error:#}"),
                }
            }
        };
        let receiving = self.health.restarting(Part::Broker, "node-inbox", receive);
        *self.receiving.lock() = Some(receiving);
        Ok(())
    }

    async fn stop(&self) -> anyhow::Result<()> {
        let receiving = self.receiving.lock().take();
        if let Some(receiving) = receiving {
            receiving.stop().await;
        }
        Ok(())
    }

    fn get_id(&self) -> &str {
        "node-inbox"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{broker::LocalBroker, config, discovery::LocalDiscovery, task::Name};

    #[tokio::test]
    async fn a_refusal_keeps_no_payload() {
        let name = |name| Name::parse("name", name).unwrap();
        let discovery = Arc::new(LocalDiscovery::new(&config::Config::default().limits));
        let broker = Arc::new(LocalBroker::default());
        let router = Router::new(name("a"), broker, discovery.clone(), 1 << 20);
        let router = Arc::new(router);
        let shared = Shared { router, discovery };
        for to in ["a", "gone"] {
            let payload = Bytes::from(vec![0; 1 << 20]);
            let message = Message {
                id: "1".into(),
                from: "ann".into(),
                to: name(to),
                message_type: String::new(),
                payload: payload.clone(),
                in_reply_to: String::new(),
                error: String::new(),
                reply_to: None,
            };
            let (request, _) = shared.pass_on(message).unwrap();
            assert_eq!((request.id.as_str(), request.from.as_str()), ("1", "ann"));
            assert!(payload.is_unique(), "{to}: the payload is still held");
        }
    }
}
