//! Sends messages, from handlers and components alike. Who gets them, and the limits, are the
//! node's affair.

use crate::{Input, Output};
use std::fmt;
use std::time::Duration;

#[cfg(target_family = "wasm")]
use crate::guest::messaging as host;
#[cfg(not(target_family = "wasm"))]
use crate::mock::messaging as host;

/// Why a message had no success. `?` makes a retryable [`TaskError`](crate::TaskError) of it, but a
/// permanent one of [`Refused`](Self::Refused). Each holds the node's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// It reached nobody: nobody listens, a mailbox is full, a component is down.
    Undeliverable(String),
    /// It was handled, and what came back is an error, or cannot be read as what was asked for.
    Failed(String),
    /// There was no answer in time. It may have been handled.
    Timeout(String),
    /// A name, a size or a number that is not allowed. The same message never is.
    Refused(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undeliverable(why) => write!(f, "undeliverable: {why}"),
            Self::Failed(why) => f.write_str(why),
            Self::Timeout(why) => write!(f, "no answer in time: {why}"),
            Self::Refused(why) => write!(f, "refused: {why}"),
        }
    }
}

impl std::error::Error for Error {}

/// Sends a message to a component, a node or a topic, and says how many it was handed to. What they
/// answer arrives at [`on_answer`](crate::Component::on_answer) of this plugin's component, if it
/// has one.
pub fn publish(to: &str, message_type: &str, payload: impl Output) -> Result<u32, Error> {
    host::publish(to, message_type, encoded(payload)?)
}

/// The same, and waits for the first answer. A component must not ask itself: it answers one
/// message after the other, so it would wait until the timeout.
pub fn request<A: Input>(
    to: &str,
    message_type: &str,
    payload: impl Output,
    timeout: Duration,
) -> Result<A, Error> {
    let answer = host::request(to, message_type, encoded(payload)?, timeout)?;
    A::decode(answer).map_err(|error| Error::Failed(format!("the answer of {to}: {error}")))
}

fn encoded(payload: impl Output) -> Result<Vec<u8>, Error> {
    payload
        .encode()
        .map_err(|error| Error::Refused(error.message().to_owned()))
}
