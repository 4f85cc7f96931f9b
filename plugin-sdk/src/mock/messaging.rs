//! Delivers the messages of a running plugin: to the listeners of the test, and requests to the
//! plugin's name to its component.

use super::Published;
use super::node::{NO_HOST, Node, current};
use crate::messaging::{Error, as_answer};
use crate::plugin::name_fault;
use crate::{Message, Result};
use std::rc::Rc;
use std::time::Duration;

pub(crate) fn publish(to: &str, message_type: &str, payload: Vec<u8>) -> Result<u32, Error> {
    let (node, message) = message_to(to, message_type, payload)?;
    let listener = node.listeners.borrow().get(to).cloned();
    let answer = listener.map(|listener| listener(&message));
    if let Some(Err(error @ (Error::Undeliverable(_) | Error::Refused(_)))) = answer {
        return Err(error);
    }
    node.published.borrow_mut().push(message);
    Ok(1)
}

pub(crate) fn request(
    to: &str,
    message_type: &str,
    payload: Vec<u8>,
    _: Duration,
) -> Result<Vec<u8>, Error> {
    let (node, message) = message_to(to, message_type, payload)?;
    let own = to == node.plugin.name() && node.plugin.has_component();
    if own && node.is_in_component() {
        return Err(Error::Refused(format!(
            "{to} cannot wait for its own answer: it handles one message after the other"
        )));
    }
    let listener = node.listeners.borrow().get(to).cloned();
    match listener {
        Some(listener) => listener(&message),
        None if own => request_own_component(&node, message),
        None => Err(Error::Undeliverable(format!(
            "nothing listens on {to}; add a listener with MockHost::answers"
        ))),
    }
}

/// Sends a request of a task to the plugin's own component, with the errors of a node.
fn request_own_component(node: &Rc<Node>, message: Published) -> Result<Vec<u8>, Error> {
    let to = message.to.clone();
    if let Err(error) = node.start() {
        let why = error.message();
        let down = format!("{to} is down: cannot start: {why}");
        return Err(Error::Undeliverable(down));
    }
    let about = Message {
        id: node.next_message_id(),
        sender: message.to.clone(),
        to: message.to,
        message_type: message.message_type,
        in_reply_to: String::new(),
    };
    match node.receive(message.payload, &about) {
        Some(Ok(Some(answer))) => Ok(answer),
        Some(Ok(None)) => Err(Error::Failed(format!("{to} handled it and gave no answer"))),
        Some(Err(error)) => Err(Error::from_answer(as_answer(&error))),
        None => Err(Error::Timeout(format!("{to} is handling a message"))),
    }
}

fn message_to(
    to: &str,
    message_type: &str,
    payload: Vec<u8>,
) -> Result<(Rc<Node>, Published), Error> {
    let Some(node) = current() else {
        return Err(Error::Undeliverable(NO_HOST.into()));
    };
    if let Some(fault) = name_fault(to) {
        return Err(Error::Refused(format!("the name {to:?} {fault}")));
    }
    let message = Published {
        to: to.to_owned(),
        message_type: message_type.to_owned(),
        payload,
    };
    Ok((node, message))
}
