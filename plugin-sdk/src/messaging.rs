//! Sends messages, from handlers and components alike. Who gets them, and the limits, are the
//! node's affair.

use crate::{Input, Output, TaskError};
use std::fmt;
use std::time::Duration;

#[cfg(target_family = "wasm")]
use crate::guest::messaging as host;
#[cfg(not(target_family = "wasm"))]
use crate::mock::messaging as host;

/// Why a message had no success. `?` makes a retryable [`TaskError`] of it, but a permanent one of
/// [`Permanent`](Self::Permanent) and [`Refused`](Self::Refused). Each holds the node's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// It reached nobody: nobody listens, a mailbox is full, a component is down.
    Undeliverable(String),
    /// It was handled, and what came back is an error, or cannot be read as what was asked for.
    Failed(String),
    /// It was handled, and what came back is a permanent error: the same message will fail again.
    Permanent(String),
    /// There was no answer in time. It may have been handled.
    Timeout(String),
    /// A name, a size or a number that is not allowed. The same message never is.
    Refused(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undeliverable(why) => write!(f, "undeliverable: {why}"),
            Self::Failed(why) | Self::Permanent(why) => f.write_str(why),
            Self::Timeout(why) => write!(f, "no answer in time: {why}"),
            Self::Refused(why) => write!(f, "refused: {why}"),
        }
    }
}

impl std::error::Error for Error {}

/// What the text of an error begins with that no further try can mend, by the convention of
/// `hostel.wit`.
const PERMANENT: &str = "permanent: ";

impl Error {
    /// The error that came back for an answer.
    pub(crate) fn from_answer(why: String) -> Self {
        match why.strip_prefix(PERMANENT) {
            Some(why) => Self::Permanent(why.to_owned()),
            None => Self::Failed(why),
        }
    }
}

/// A component's error as the text of an answer.
pub(crate) fn as_answer(error: &TaskError) -> String {
    match error {
        TaskError::Permanent { message } => format!("{PERMANENT}{message}"),
        TaskError::Retryable { message, .. } => message.clone(),
    }
}

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
