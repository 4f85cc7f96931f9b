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
use tokio_util::task::AbortOnDropHandle;

/// How many messages may wait here. They are only passed on, so hardly any ever do.
const BACKLOG: usize = 4096;

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
    async fn pass_on(&self, message: Message) {
        let router = &self.router;
        if message.reply_to.is_some() && !message.in_reply_to.is_empty() {
            return router.take_answer(message);
        }
        if message.to == *router.node() {
            return router
                .answer(router.node(), &message, self.describe())
                .await;
        }
        let question = message.clone();
        let refused = match router.deliver_here(message) {
            Ok(None) => return,
            Ok(Some(_)) => format!("{} is not on {} any more", question.to, router.node()),
            Err(error) => error.to_string(),
        };
        router.answer(router.node(), &question, Err(refused)).await;
    }

    /// The node's record, as JSON: what it is and what it has.
    fn describe(&self) -> Result<Option<Bytes>, String> {
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
            while let Some(Received::Message(message)) = messages.next().await {
                shared.pass_on(message).await;
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
