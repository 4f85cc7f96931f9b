//! The methods of the mock host for components: start, send, stop, and inspection of the effects.

use super::{MockHost, Published};
use crate::{Message, Result, TaskError, messaging};
use std::collections::BTreeMap;
use std::rc::Rc;

impl MockHost {
    /// Starts the component if it is not running. [`send`](Self::send) starts it as well.
    ///
    /// # Errors
    ///
    /// Returns the error of `start`.
    pub fn start(&self) -> Result<()> {
        self.node.start()
    }

    /// Sends a message to the component and returns its answer. The component keeps its state between
    /// messages until it panics.
    ///
    /// # Errors
    ///
    /// Returns the error of `start`, of decoding or of `on_message`.
    pub fn send(&self, message_type: &str, payload: impl Into<Vec<u8>>) -> Result<Option<Vec<u8>>> {
        self.deliver(self.node.plugin.name(), message_type, payload.into(), "")
    }

    /// Sends a message to one of the component's topics and returns its answer.
    ///
    /// # Errors
    ///
    /// Returns the error of `start`, of decoding or of `on_message`.
    ///
    /// # Panics
    ///
    /// Panics if the component does not subscribe to `topic`.
    pub fn send_to(
        &self,
        topic: &str,
        message_type: &str,
        payload: impl Into<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>> {
        let subscribes = self.node.plugin.topics().contains(&topic);
        assert!(subscribes, "the component does not subscribe to {topic:?}");
        self.deliver(topic, message_type, payload.into(), "")
    }

    /// Sends an answer to a message that the plugin published.
    ///
    /// # Errors
    ///
    /// Returns the error of `start` or of `on_answer`.
    pub fn send_answer(&self, payload: impl Into<Vec<u8>>) -> Result<()> {
        let to = self.node.plugin.name();
        self.deliver(to, "answer", payload.into(), "mock-published")?;
        Ok(())
    }

    fn deliver(
        &self,
        to: &str,
        message_type: &str,
        payload: Vec<u8>,
        in_reply_to: &str,
    ) -> Result<Option<Vec<u8>>> {
        let message = Message {
            id: self.node.next_message_id(),
            sender: self.sender.clone(),
            to: to.to_owned(),
            message_type: message_type.to_owned(),
            in_reply_to: in_reply_to.to_owned(),
        };
        self.node
            .receive(payload, &message)
            .unwrap_or_else(|| Err(TaskError::retryable("the component is handling a message")))
    }

    /// Stops the component if it is running.
    ///
    /// # Errors
    ///
    /// Returns the error of `stop`.
    pub fn stop(&self) -> Result<()> {
        self.node.stop()
    }

    /// Drops the component without a call of `stop`, as a panic or a crash of the node does, and
    /// starts it again. It loses its memory and keeps its stores.
    ///
    /// # Errors
    ///
    /// Returns the error of `start`.
    pub fn restart(&self) -> Result<()> {
        self.node.drop_component();
        self.node.start()
    }

    /// Sets the sender of the messages. The default is `mock-sender`.
    pub fn sender(mut self, sender: impl Into<String>) -> Self {
        self.sender = sender.into();
        self
    }

    /// Adds a listener at `to` that answers requests. It also receives published messages; publishing
    /// fails if the answer is `Undeliverable` or `Refused`. Without a listener, publishing succeeds,
    /// and only requests to the plugin's own component are answered.
    pub fn answers(
        self,
        to: impl Into<String>,
        answer: impl Fn(&Published) -> Result<Vec<u8>, messaging::Error> + 'static,
    ) -> Self {
        let answer = Rc::new(answer);
        self.node.listeners.borrow_mut().insert(to.into(), answer);
        self
    }

    /// Returns the published messages in order, without requests.
    pub fn published(&self) -> Vec<Published> {
        self.node.published.borrow().clone()
    }

    /// Adds an entry to a store.
    pub fn stored(self, store: &str, key: &str, value: impl Into<Vec<u8>>) -> Self {
        // A store in memory never fails.
        let _ = self.node.stores.open(store).set(key, &value.into());
        self
    }

    /// Returns all entries of a store.
    pub fn store(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        self.node.stores.entries(name)
    }
}
