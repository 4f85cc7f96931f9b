//! What reaches this node as a whole: answers to its requests and messages to its components,
//! passed on by other nodes, and questions to the node itself.

use super::router::Router;
use crate::{
    broker::{Message, Overflow, Received, Subscription, Topic},
    discovery::ServiceDiscovery,
    lifecycle::Component,
};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// How many messages may wait here. They are only passed on, so hardly any ever do.
const BACKLOG: usize = 4096;

/// How many answers of the node's own may be on their way; further ones are not given.
const MAX_ANSWERING: usize = 256;

type Said = Result<Option<Bytes>, String>;

/// Takes in what is sent to the node, while it is started.
pub struct Reception {
    shared: Arc<Shared>,
    open: Mutex<Option<AbortOnDropHandle<()>>>,
}

struct Shared {
    router: Arc<Router>,
    discovery: Arc<dyn ServiceDiscovery>,
}

impl Reception {
    pub fn new(router: Arc<Router>, discovery: Arc<dyn ServiceDiscovery>) -> Self {
        Self {
            shared: Arc::new(Shared { router, discovery }),
            open: Mutex::default(),
        }
    }
}

impl Shared {
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
        let shared = self.shared.clone();
        let node = shared.router.node().clone();
        let (inbox, mut messages) = Subscription::new(BACKLOG, Overflow::Refuse);
        let topic = Topic::Node(node.clone());
        messages.keep(shared.router.broker().attach(&topic, inbox.clone()).await?);
        let residence = shared.router.settle(&node, inbox)?;
        let open = tokio::spawn(async move {
            let _residence = residence;
            let mut answering = JoinSet::new();
            while let Some(Received::Message(message)) = messages.next().await {
                while answering.try_join_next().is_some() {}
                let Some((question, said)) = shared.pass_on(message) else {
                    continue;
                };
                // A broker that is slow must not keep what is for others waiting.
                if answering.len() < MAX_ANSWERING {
                    let router = shared.router.clone();
                    answering.spawn(async move {
                        router.answer(router.node(), &question, said).await;
                    });
                }
            }
        });
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(AbortOnDropHandle::new(open));
        Ok(())
    }

    async fn stop(&self) -> anyhow::Result<()> {
        let open = self
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(open) = open {
            open.abort();
            let _ = open.await;
        }
        Ok(())
    }

    fn get_id(&self) -> &str {
        "reception"
    }
}
