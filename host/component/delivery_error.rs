//! Why a message was not delivered, a request not answered, or an id not given.

use crate::{broker, task::Name};
use std::time::Duration;

/// Why a message reached no receiver.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    #[error(
        "no component, node or subscriber receives messages for {0}; `hostel components list` shows the \
         ids"
    )]
    NoReceiver(Name),
    #[error("the mailbox of {to} is full: {waiting} messages wait in it; try again later")]
    Full { to: Name, waiting: usize },
    #[error("no listener on {to} has room: {full} mailboxes are full; try again later")]
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
pub enum RequestError {
    #[error(transparent)]
    Undelivered(#[from] DeliveryError),
    #[error("{to} has not answered within {} ms; it may have handled the message", timeout.as_millis())]
    Timeout { to: Name, timeout: Duration },
}

/// The id belongs to a component or a node already.
#[derive(Debug, thiserror::Error)]
#[error("{0} is the id of a component or of a node, which alone sends and listens under it")]
pub struct IdTaken(pub Name);
