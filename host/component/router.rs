//! Where messages go: to a component or node by its id, of which there is exactly one, or to
//! everybody on a topic; and the way back of an answer. Holds no mailboxes and runs no loops.

use super::refusal_log::RefusalLog;
use crate::{
    broker::{
        self, Inbox, Message, MessageBroker, Overflow, Refusal, ReplyTo, Subscription, Topic,
    },
    budget::Budget,
    discovery::{NodeRecord, ServiceDiscovery},
    task::Name,
};
use bytes::Bytes;
use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::oneshot;
use uuid::Uuid;

/// The `message_type` of an answer.
pub const ANSWER: &str = "answer";

/// Knows who can be reached from this node.
pub struct Router {
    node: Name,
    broker: Arc<dyn MessageBroker>,
    discovery: Arc<dyn ServiceDiscovery>,
    /// Who on this node can be addressed by id.
    residents: Mutex<HashMap<Name, Resident>>,
    /// The requests made here that wait for their answer.
    requests: Mutex<HashMap<u64, oneshot::Sender<Message>>>,
    refusals: RefusalLog,
    pub max_payload_bytes: usize,
}

struct Resident {
    inbox: Inbox,
    /// Why it takes no messages now.
    down: Option<String>,
}

/// Keeps an id on this node until it is dropped.
pub struct Residence {
    router: Arc<Router>,
    id: Name,
}

/// Why a message reached nobody.
#[derive(Debug, thiserror::Error)]
pub enum Undelivered {
    #[error("nobody listens on {0}")]
    Nobody(Name),
    #[error("{to} has too much to do: {waiting} messages wait for it; try again later")]
    Full { to: Name, waiting: usize },
    #[error("nobody who listens on {to} has room: {full} mailboxes are full; try again later")]
    AllFull { to: Name, full: usize },
    #[error("{to} is down: {why}")]
    Down { to: Name, why: String },
    #[error("{0} is stopping")]
    Stopping(Name),
    #[error(transparent)]
    Broker(#[from] broker::Error),
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    #[error(transparent)]
    Undelivered(#[from] Undelivered),
    #[error("{to} has not answered within {} ms; it may have handled the message", timeout.as_millis())]
    Timeout { to: Name, timeout: Duration },
}

/// Somebody has that id already.
#[derive(Debug, thiserror::Error)]
#[error("{0} is the id of a component or of a node, and only that speaks and listens under it")]
pub struct Taken(pub Name);

impl Router {
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
            residents: Mutex::default(),
            requests: Mutex::default(),
            refusals: RefusalLog::new(),
            max_payload_bytes,
        }
    }

    pub fn node(&self) -> &Name {
        &self.node
    }

    pub fn broker(&self) -> &dyn MessageBroker {
        &*self.broker
    }

    /// Hands the message on, and says to how many. One that reaches nobody is logged.
    pub async fn send(&self, message: Message) -> Result<usize, Undelivered> {
        let (from, to) = (message.from.clone(), message.to.clone());
        let sent = self.hand_on(message).await;
        sent.inspect_err(|refusal| self.refusals.report(&from, &to, refusal))
    }

    async fn hand_on(&self, message: Message) -> Result<usize, Undelivered> {
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
            (0, 0) => Err(Undelivered::Nobody(to)),
            (0, full) => Err(Undelivered::AllFull { to, full }),
            (receivers, _) => Ok(receivers),
        }
    }

    /// Sends the message and waits for the first answer, which may be an error.
    pub async fn request(
        &self,
        mut message: Message,
        timeout: Duration,
    ) -> Result<Message, Unanswered> {
        let to = message.to.clone();
        let (waiting, answer) = Waiting::new(self);
        // Who asks wants an answer, and answers are not answered.
        message.in_reply_to.clear();
        message.reply_to = Some(ReplyTo {
            node: self.node.clone(),
            request: waiting.request,
        });
        self.send(message).await?;
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            _ => Err(Unanswered::Timeout { to, timeout }),
        }
    }

    /// What `from` says to the message that it has handled: to whoever waits for it, else to the
    /// sender. Answers are not answered, and who gave none is heard only by one who waits.
    pub async fn answer(
        &self,
        from: &Name,
        question: &Message,
        said: Result<Option<Bytes>, String>,
    ) {
        if !question.in_reply_to.is_empty() {
            return;
        }
        let (payload, error) = match said {
            Ok(Some(payload)) => (payload, String::new()),
            Ok(None) if question.reply_to.is_none() => return,
            Ok(None) => (
                Bytes::new(),
                format!("{from} handled it and gave no answer"),
            ),
            Err(error) => (Bytes::new(), error),
        };
        let back = question.reply_to.as_ref();
        let to = match back {
            Some(back) => back.node.clone(),
            None => match Name::parse("sender", &question.from) {
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
            in_reply_to: match question.id.is_empty() {
                // What has no id of its own is still an answer.
                true => "-".into(),
                false => question.id.clone(),
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
                    .map_err(Undelivered::from)
            }
            None => self.send(answer).await,
        };
        if let Err(error) = sent {
            tracing::debug!(component = %from, "an answer is lost: {error}");
        }
    }

    /// Hands an answer to whoever waits for it on this node; too late is no error.
    pub fn take_answer(&self, answer: Message) {
        let waiting = answer.reply_to.as_ref();
        let waiting = waiting.and_then(|back| lock(&self.requests).remove(&back.request));
        if let Some(waiting) = waiting {
            let _ = waiting.send(answer);
        }
    }

    /// Gives the message to a resident, or back if none has that id.
    pub fn deliver_here(&self, message: Message) -> Result<Option<Message>, Undelivered> {
        let residents = lock(&self.residents);
        let Some(resident) = residents.get(&message.to) else {
            return Ok(Some(message));
        };
        let to = message.to.clone();
        if let Some(why) = resident.down.clone() {
            return Err(Undelivered::Down { to, why });
        }
        match resident.inbox.deliver(message) {
            Ok(()) => Ok(None),
            Err(Refusal::Full) => {
                let waiting = resident.inbox.waiting();
                Err(Undelivered::Full { to, waiting })
            }
            Err(Refusal::Closed) => Err(Undelivered::Stopping(to)),
        }
    }

    /// The other node that has the message's receiver, or is it. One sender's messages all go to
    /// the same node while it is there, so that their order holds.
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

    /// Whether a component or a node is called so.
    pub fn is_id(&self, name: &str) -> bool {
        let has = |node: &NodeRecord| {
            let mut components = node.components.iter();
            node.id.as_str() == name || components.any(|id| id.as_str() == name)
        };
        lock(&self.residents).contains_key(name) || self.discovery.nodes().iter().any(has)
    }

    /// A subscription to topics. The ids of components and nodes are no topics: what is sent there
    /// is for them alone.
    pub async fn listen(
        &self,
        topics: &[Name],
        backlog: usize,
        room: &Budget,
    ) -> Result<Result<Subscription, Taken>, broker::Error> {
        if let Some(taken) = topics.iter().find(|topic| self.is_id(topic.as_str())) {
            return Ok(Err(Taken(taken.clone())));
        }
        let (inbox, mut subscription) = Subscription::sharing(backlog, Overflow::CutOff, room);
        for topic in topics {
            let topic = Topic::Shared(topic.clone());
            subscription.keep(self.broker.attach(&topic, inbox.clone()).await?);
        }
        Ok(Ok(subscription))
    }

    /// From now on messages to `id` go into `inbox`.
    pub fn settle(self: &Arc<Self>, id: &Name, inbox: Inbox) -> Result<Residence, Taken> {
        let mut residents = lock(&self.residents);
        if residents.contains_key(id) {
            return Err(Taken(id.clone()));
        }
        residents.insert(id.clone(), Resident { inbox, down: None });
        Ok(Residence {
            router: self.clone(),
            id: id.clone(),
        })
    }
}

impl Residence {
    /// Refuses what is sent to this id, because of `down`, until told otherwise.
    pub fn set_down(&self, down: Option<String>) {
        if let Some(resident) = lock(&self.router.residents).get_mut(&self.id) {
            resident.down = down;
        }
    }
}

impl Drop for Residence {
    fn drop(&mut self) {
        lock(&self.router.residents).remove(&self.id);
    }
}

/// A request's place among those that wait; dropping it gives the place up.
struct Waiting<'a> {
    router: &'a Router,
    request: u64,
}

impl<'a> Waiting<'a> {
    fn new(router: &'a Router) -> (Self, oneshot::Receiver<Message>) {
        let (sender, answer) = oneshot::channel();
        // At random, so that an answer to a node that has since started again is not taken for one
        // to a new request.
        let request = fastrand::u64(..);
        lock(&router.requests).insert(request, sender);
        (Self { router, request }, answer)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.router.requests).remove(&self.request);
    }
}

/// Every change under these locks is one insert or remove, so a panic elsewhere spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
