//! The routing of messages: to a component or node by its id, of which there is exactly one, or to
//! every listener of a topic; and of answers back to the request. Owns no mailboxes and runs no loops.

use super::{
    delivery_error::{DeliveryError, IdTaken, RequestError},
    refusal_log::RefusalLog,
};
use crate::{
    broker::{
        self, Inbox, Message, MessageBroker, Overflow, Refusal, ReplyTo, Subscription, Topic,
    },
    budget::Budget,
    discovery::{NodeRecord, ServiceDiscovery},
    task::Name,
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};
use tokio::sync::oneshot;
use uuid::Uuid;

/// The `message_type` of an answer.
pub const ANSWER: &str = "answer";

/// Delivers messages to what can be reached from this node.
pub struct Router {
    node: Name,
    broker: Arc<dyn MessageBroker>,
    discovery: Arc<dyn ServiceDiscovery>,
    /// What can be addressed by id on this node.
    registered: Mutex<HashMap<Name, Mailbox>>,
    /// The requests of this node that wait for an answer.
    requests: Mutex<HashMap<u64, oneshot::Sender<Message>>>,
    refusals: RefusalLog,
    /// The largest payload of an answer, in bytes.
    pub max_payload_bytes: usize,
}

struct Mailbox {
    inbox: Inbox,
    /// Why it refuses messages, if it does.
    down: Option<String>,
}

/// Owns an id on this node until it is dropped.
pub struct OwnedId {
    router: Arc<Router>,
    id: Name,
}

impl Router {
    /// Makes the router of `node`.
    pub fn new(
        node: Name,
        broker: Arc<dyn MessageBroker>,
        discovery: Arc<dyn ServiceDiscovery>,
        max_payload_bytes: usize,
    ) -> Self {
        Self {
            node,
            broker,
            discovery,
            registered: Mutex::default(),
            requests: Mutex::default(),
            refusals: RefusalLog::new(),
            max_payload_bytes,
        }
    }

    /// The id of the node.
    pub fn node(&self) -> &Name {
        &self.node
    }

    /// The broker through which messages to other nodes go.
    pub fn broker(&self) -> &dyn MessageBroker {
        &*self.broker
    }

    /// Sends the message and returns the number of receivers. A refused message is logged.
    pub async fn send(&self, message: Message) -> Result<usize, DeliveryError> {
        let (from, to) = (message.from.clone(), message.to.clone());
        let sent = self.forward(message).await;
        sent.inspect_err(|refusal| self.refusals.report(&from, &to, refusal))
    }

    async fn forward(&self, message: Message) -> Result<usize, DeliveryError> {
        let message = match self.deliver_here(message)? {
            None => return Ok(1),
            Some(elsewhere) => elsewhere,
        };
        let to = message.to.clone();
        let topic = match self.node_of(&message) {
            Some(node) => Topic::Node(node),
            None => Topic::Shared(to.clone()),
        };
        let published = self.broker.publish(&topic, message).await?;
        match (published.receivers, published.full) {
            (0, 0) => Err(DeliveryError::NoReceiver(to)),
            (0, full) => Err(DeliveryError::AllFull { to, full }),
            (receivers, _) => Ok(receivers),
        }
    }

    /// Sends the message as a request, whose answer can be waited for without the message.
    pub async fn request(&self, mut message: Message) -> Result<PendingAnswer<'_>, DeliveryError> {
        let pending = PendingAnswer::new(self, message.to.clone());
        // A request is never an answer itself, since answers are not answered.
        message.in_reply_to.clear();
        message.reply_to = Some(ReplyTo {
            node: self.node.clone(),
            request: Some(pending.request),
        });
        self.send(message).await?;
        Ok(pending)
    }

    /// Sends the answer of `from` to a message that it has handled: to the request that waits for it, or
    /// to the component that sent the message, on its own node; else to any receiver with the sender's
    /// name. Answers are not answered; the absence of one is reported only to a request.
    pub async fn answer(
        &self,
        from: &Name,
        request: &Message,
        answer: Result<Option<Bytes>, String>,
    ) {
        if !request.in_reply_to.is_empty() {
            return;
        }
        let back = request.reply_to.as_ref();
        let waiting = back.filter(|back| back.request.is_some());
        let (payload, error) = match answer {
            Ok(Some(payload)) => (payload, String::new()),
            Ok(None) if waiting.is_none() => return,
            Ok(None) => (
                Bytes::new(),
                format!("{from} handled it and gave no answer"),
            ),
            Err(error) => (Bytes::new(), error),
        };
        let to = match waiting {
            Some(waiting) => waiting.node.clone(),
            None => match Name::parse("sender", &request.from) {
                Ok(sender) => sender,
                Err(_) => return,
            },
        };
        let answer = Message {
            id: Uuid::now_v7().to_string(),
            from: from.to_string(),
            to,
            message_type: ANSWER.into(),
            payload,
            in_reply_to: if request.id.is_empty() {
                // Not empty, so that it is recognised as an answer.
                "-".into()
            } else {
                request.id.clone()
            },
            error,
            reply_to: back.cloned(),
        };
        let sent = match back {
            Some(back) if back.node == self.node => return self.take_answer(answer),
            Some(back) => {
                let topic = Topic::Node(back.node.clone());
                self.broker
                    .publish(&topic, answer)
                    .await
                    .map(|_| 1)
                    .map_err(DeliveryError::from)
            }
            None => self.send(answer).await,
        };
        if let Err(error) = sent {
            tracing::debug!(component = %from, "an answer is lost: {error}");
        }
    }

    /// Passes an answer to the request on this node that waits for it, or to the component here that
    /// sent the message. An answer that comes too late is dropped.
    pub fn take_answer(&self, answer: Message) {
        let Some(back) = &answer.reply_to else {
            return;
        };
        if let Some(number) = back.request {
            let waiting = self.requests.lock().remove(&number);
            if let Some(waiting) = waiting {
                // If this fails, the request has just ended.
                let _ = waiting.send(answer);
            }
            return;
        }
        let (from, to) = (answer.from.clone(), answer.to.clone());
        let refusal = match self.deliver_here(answer) {
            Ok(None) => return,
            Ok(Some(_)) => DeliveryError::NoReceiver(to.clone()),
            Err(refusal) => refusal,
        };
        self.refusals.report(&from, &to, &refusal);
    }

    /// Delivers the message to the mailbox with its id, or returns it if there is none on this node.
    pub fn deliver_here(&self, message: Message) -> Result<Option<Message>, DeliveryError> {
        let registered = self.registered.lock();
        let Some(mailbox) = registered.get(&message.to) else {
            return Ok(Some(message));
        };
        let to = message.to.clone();
        if let Some(why) = mailbox.down.clone() {
            return Err(DeliveryError::Down { to, why });
        }
        match mailbox.inbox.deliver(message) {
            Ok(()) => Ok(None),
            Err(Refusal::Full) => {
                let waiting = mailbox.inbox.waiting();
                Err(DeliveryError::Full { to, waiting })
            }
            Err(Refusal::Closed) => Err(DeliveryError::Stopping(to)),
        }
    }

    /// The other node that has the message's receiver, or is the receiver. All messages of one sender go
    /// to the same node while it is there, so that their order is kept.
    fn node_of(&self, message: &Message) -> Option<Name> {
        let weight = |node: &Name| {
            let mut hasher = DefaultHasher::new();
            (&message.from, &message.to, node).hash(&mut hasher);
            hasher.finish()
        };
        let nodes = self.discovery.nodes();
        let others = nodes.iter().filter(|node| node.id != self.node);
        let having =
            others.filter(|node| node.id == message.to || node.components.contains(&message.to));
        let chosen = having.max_by_key(|node| (node.id == message.to, weight(&node.id)));
        chosen.map(|node| node.id.clone())
    }

    /// Whether `name` is the id of a component or a node.
    pub fn is_id(&self, name: &str) -> bool {
        let has = |node: &NodeRecord| {
            let mut components = node.components.iter();
            node.id.as_str() == name || components.any(|id| id.as_str() == name)
        };
        self.registered.lock().contains_key(name) || self.discovery.nodes().iter().any(has)
    }

    /// Subscribes to topics. The ids of components and nodes are no topics: messages to them are for
    /// them alone.
    pub async fn listen(
        &self,
        topics: &[Name],
        backlog: usize,
        budget: &Budget,
    ) -> Result<Result<Subscription, IdTaken>, broker::Error> {
        if let Some(taken) = topics.iter().find(|topic| self.is_id(topic.as_str())) {
            return Ok(Err(IdTaken(taken.clone())));
        }
        let (inbox, mut subscription) = Subscription::sharing(backlog, Overflow::CutOff, budget);
        for topic in topics {
            let topic = Topic::Shared(topic.clone());
            subscription.keep(self.broker.attach(&topic, inbox.clone()).await?);
        }
        Ok(Ok(subscription))
    }

    /// Registers `id`: from now on messages to it go into `inbox`.
    pub fn register(self: &Arc<Self>, id: &Name, inbox: Inbox) -> Result<OwnedId, IdTaken> {
        let mut registered = self.registered.lock();
        if registered.contains_key(id) {
            return Err(IdTaken(id.clone()));
        }
        registered.insert(id.clone(), Mailbox { inbox, down: None });
        Ok(OwnedId {
            router: self.clone(),
            id: id.clone(),
        })
    }
}

impl OwnedId {
    /// Refuses messages to this id for the reason `down`, until it is set to `None`.
    pub fn set_down(&self, down: Option<String>) {
        if let Some(mailbox) = self.router.registered.lock().get_mut(&self.id) {
            mailbox.down = down;
        }
    }
}

impl Drop for OwnedId {
    fn drop(&mut self) {
        self.router.registered.lock().remove(&self.id);
    }
}

/// The answer to a request that was sent. Dropping it gives the request up.
pub struct PendingAnswer<'r> {
    router: &'r Router,
    to: Name,
    request: u64,
    answer: oneshot::Receiver<Message>,
}

impl<'r> PendingAnswer<'r> {
    fn new(router: &'r Router, to: Name) -> Self {
        let (sender, answer) = oneshot::channel();
        // Random, so that an answer to a node that has restarted since is not taken for one to a new
        // request.
        let request = fastrand::u64(1..);
        router.requests.lock().insert(request, sender);
        Self {
            router,
            to,
            request,
            answer,
        }
    }

    /// Waits for the first answer, which may be an error.
    pub async fn wait(mut self, timeout: Duration) -> Result<Message, RequestError> {
        match tokio::time::timeout(timeout, &mut self.answer).await {
            Ok(Ok(answer)) => Ok(answer),
            _ => {
                let to = self.to.clone();
                Err(RequestError::Timeout { to, timeout })
            }
        }
    }
}

impl Drop for PendingAnswer<'_> {
    fn drop(&mut self) {
        self.router.requests.lock().remove(&self.request);
    }
}

#[cfg(test)]
mod tests;
