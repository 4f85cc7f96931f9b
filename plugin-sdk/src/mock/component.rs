//! The mock host's side for components: starts, sends, stops, and shows what came of it.

use super::{MockHost, Published};
use crate::{Message, Result, TaskError, messaging};
use std::collections::BTreeMap;
use std::rc::Rc;

impl MockHost {
    /// Starts the component unless it runs. [`send`](Self::send) does so by itself, as the node
    /// would.
    pub fn start(&self) -> Result<()> {
        self.node.start()
    }

    /// Sends a message to the component, and returns what it answers. Its state is kept from one
    /// message to the next, until it panics.
    pub fn send(&self, message_type: &str, payload: impl Into<Vec<u8>>) -> Result<Option<Vec<u8>>> {
        self.deliver(self.node.plugin.name(), message_type, payload.into(), "")
    }

    /// Sends a message to one of the component's topics. Panics if it does not listen there.
    pub fn send_to(
        &self,
        topic: &str,
        message_type: &str,
        payload: impl Into<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>> {
        let listens = self.node.plugin.topics().contains(&topic);
        assert!(listens, "the component does not listen on {topic:?}");
        self.deliver(topic, message_type, payload.into(), "")
    }

    /// Sends an answer to a message that the plugin published.
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
            .unwrap_or_else(|| Err(TaskError::retryable("the component is at work")))
    }

    /// Stops the component, if it runs.
    pub fn stop(&self) -> Result<()> {
        self.node.stop()
    }

    /// Ends the component without `stop`, as a panic or a crash of the node would, and starts it
    /// anew: its memory is gone, its stores are there.
    pub fn restart(&self) -> Result<()> {
        self.node.forget();
        self.node.start()
    }

    /// Sets who sends the messages; it is `mock-sender` otherwise.
    pub fn sender(mut self, sender: impl Into<String>) -> Self {
        self.sender = sender.into();
        self
    }

    /// Has somebody listen on `to`, who answers requests. What is published there is heard as well,
    /// and fails where the answer is undeliverable or refused. Without this, publishing succeeds,
    /// and a request reaches nobody but the plugin's own component.
    pub fn answers(
        self,
        to: impl Into<String>,
        answer: impl Fn(&Published) -> Result<Vec<u8>, messaging::Error> + 'static,
    ) -> Self {
        let answer = Rc::new(answer);
        self.node.listeners.borrow_mut().insert(to.into(), answer);
        self
    }

    /// What has been published so far, in order; requests are not among it.
    pub fn published(&self) -> Vec<Published> {
        self.node.published.borrow().clone()
    }

    /// Puts a value into a store.
    pub fn stored(self, store: &str, key: &str, value: impl Into<Vec<u8>>) -> Self {
        // Memory refuses nothing.
        let _ = self.node.stores.open(store).set(key, &value.into());
        self
    }

    /// All that is in a store.
    pub fn store(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        self.node.stores.entries(name)
    }
}
