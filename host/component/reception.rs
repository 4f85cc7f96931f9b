//! What reaches this node as a whole: answers to its requests and messages to its components,
//! passed on by other nodes, and questions to the node itself.

use super::router::{Residence, Router};
use crate::{
    broker::{Message, Overflow, Received, Subscription, Topic},
    discovery::ServiceDiscovery,
    health::{Background, Health, Part},
    lifecycle::Component,
};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinSet;

/// How many messages may wait here. They are only passed on, so hardly any ever do.
const BACKLOG: usize = 4096;

/// How many answers of the node's own may be on their way; further ones are not given.
const MAX_ANSWERING: usize = 256;

type Said = Result<Option<Bytes>, String>;

/// Takes in what is sent to the node, while it is started.
pub struct Reception {
    shared: Arc<Shared>,
    health: Health,
    open: Mutex<Option<Background>>,
}

struct Shared {
    router: Arc<Router>,
    discovery: Arc<dyn ServiceDiscovery>,
}

impl Reception {
    pub fn new(router: Arc<Router>, discovery: Arc<dyn ServiceDiscovery>, health: Health) -> Self {
        Self {
            shared: Arc::new(Shared { router, discovery }),
            health,
            open: Mutex::default(),
        }
    }
}

impl Shared {
    /// Takes the node's own place and topic.
    async fn open(&self) -> anyhow::Result<(Residence, Subscription)> {
        let node = self.router.node();
        let (inbox, mut messages) = Subscription::new(BACKLOG, Overflow::Refuse);
        let topic = Topic::Node(node.clone());
        messages.keep(self.router.broker().attach(&topic, inbox.clone()).await?);
        Ok((self.router.settle(node, inbox)?, messages))
    }

    /// Passes on what comes, and answers what the node itself was asked.
    async fn receive(self: Arc<Self>, mut messages: Subscription) {
        let mut answering = JoinSet::new();
        while let Some(Received::Message(message)) = messages.next().await {
            while answering.try_join_next().is_some() {}
            let Some((question, said)) = self.pass_on(message) else {
                continue;
            };
            // A broker that is slow must not keep what is for others waiting.
            if answering.len() < MAX_ANSWERING {
                let router = self.router.clone();
                answering.spawn(async move {
                    router.answer(router.node(), &question, said).await;
                });
            }
        }
    }

    /// Never waits: what the node itself has to say to it is given back.
    fn pass_on(&self, message: Message) -> Option<(Message, Said)> {
        let router = &self.router;
        if message.reply_to.is_some() && !message.in_reply_to.is_empty() {
            router.take_answer(message);
            return None;
        }
        if message.to == *router.node() {
            return Some((message, self.describe()));
        }
        let question = message.clone();
        let refused = match router.deliver_here(message) {
            Ok(None) => return None,
            Ok(Some(_)) => format!("{} is not on {} any more", question.to, router.node()),
            Err(error) => error.to_string(),
        };
        Some((question, Err(refused)))
    }

    /// The node's record, as JSON: what it is and what it has.
    fn describe(&self) -> Said {
        let nodes = self.discovery.nodes();
        let own = nodes.iter().find(|node| node.id == *self.router.node());
        let own = own.ok_or("this node has not been announced yet")?;
        let text = serde_json::to_vec(own).map_err(|error| error.to_string())?;
        Ok(Some(text.into()))
    }
}

#[async_trait]
impl Component for Reception {
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
                    Ok((_residence, messages)) => shared.receive(messages).await,
                    Err(error) => tracing::warn!("the node's inbox cannot be opened: {error:#}"),
                }
            }
        };
        let open = self.health.restarting(Part::Broker, "node-inbox", receive);
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(open);
        Ok(())
    }

    async fn stop(&self) -> anyhow::Result<()> {
        let open = self
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(open) = open {
            open.stop().await;
        }
        Ok(())
    }

    fn get_id(&self) -> &str {
        "reception"
    }
}
