//! Why a message was not delivered, a request not answered, or an id not given.

use crate::{broker, task::Name};
use std::time::Duration;

/// Why a message reached no receiver.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// No component, node or subscriber has this id or listens on this topic.
    #[error(
        "no component, node or subscriber receives messages for {0}; `hostel components list` shows the \
         ids"
    )]
    NoReceiver(Name),
    /// The receiver's mailbox is full.
    #[error("the mailbox of {to} is full: {waiting} messages wait in it; try again later")]
    Full {
        /// The receiver.
        to: Name,
        /// The number of messages that wait for it.
        waiting: usize,
    },
    /// The mailboxes of all subscribers of a topic are full.
    #[error("no listener on {to} has room: {full} mailboxes are full; try again later")]
    AllFull {
        /// The topic.
        to: Name,
        /// The number of its subscribers.
        full: usize,
    },
    /// The receiver cannot take messages now.
    #[error("{to} is down: {why}")]
    Down {
        /// The receiver.
        to: Name,
        /// The reason.
        why: String,
    },
    /// The node stops; it no longer delivers to this receiver.
    #[error("{0} is stopping")]
    Stopping(Name),
    /// The broker failed.
    #[error(transparent)]
    Broker(#[from] broker::Error),
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The request was not delivered.
    #[error(transparent)]
    Undelivered(#[from] DeliveryError),
    /// No answer arrived in time.
    #[error("{to} has not answered within {} ms; it may have handled the message", timeout.as_millis())]
    Timeout {
        /// The receiver.
        to: Name,
        /// How long the request waited.
        timeout: Duration,
    },
}

/// The id belongs to a component or a node already.
#[derive(Debug, thiserror::Error)]
#[error("{0} is the id of a component or of a node, which alone sends and listens under it")]
pub struct IdTaken(pub Name);
