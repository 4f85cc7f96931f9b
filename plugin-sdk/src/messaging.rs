//! Sends messages from handlers and components. The node routes them and enforces the limits.

use crate::{Input, Output, TaskError};
use std::fmt;
use std::time::Duration;

#[cfg(target_family = "wasm")]
use crate::guest::messaging as host;
#[cfg(not(target_family = "wasm"))]
use crate::mock::messaging as host;

/// The reason why a message failed, with the node's description.
///
/// `?` converts [`Permanent`](Self::Permanent) and [`Refused`](Self::Refused) into a permanent
/// [`TaskError`] and the others into a retryable one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// No receiver took the message: there is no subscriber, a mailbox is full, or a component is
    /// down.
    Undeliverable(String),
    /// The receiver answered with an error or with a payload that is not of the requested type, or
    /// handled the message and gave no answer.
    Failed(String),
    /// The receiver answered with a permanent error: the same message will fail again.
    Permanent(String),
    /// No answer arrived in time. The message may have been handled.
    Timeout(String),
    /// A name, a size or a number is not allowed, or a component sent a request to itself. The same
    /// message will be refused again.
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

/// The prefix of the text of a permanent error, as `hostel.wit` defines it.
const PERMANENT: &str = "permanent: ";

impl Error {
    /// Converts the text of an error that was sent as an answer.
    pub(crate) fn from_answer(why: String) -> Self {
        match why.strip_prefix(PERMANENT) {
            Some(why) => Self::Permanent(why.to_owned()),
            None => Self::Failed(why),
        }
    }
}

/// Converts a component's error into the text of an answer.
pub(crate) fn as_answer(error: &TaskError) -> String {
    match error {
        TaskError::Permanent { message } => format!("{PERMANENT}{message}"),
        TaskError::Retryable { message, .. } => message.clone(),
    }
}

/// Sends a message to a component, a node or a topic and returns the number of receivers. Their
/// answers arrive at [`on_answer`](crate::Component::on_answer) of this plugin's component on the same
/// node, if it has one.
///
/// # Errors
///
/// Returns an [`Error`] if no receiver took the message or the node refused it.
pub fn publish(to: &str, message_type: &str, payload: impl Output) -> Result<u32, Error> {
    host::publish(to, message_type, encoded(payload)?)
}

/// Sends a message to a component, a node or a topic and returns the first answer. A component cannot
/// send a request to itself, since it handles one message at a time: it is refused at once.
///
/// # Errors
///
/// Returns an [`Error`] if the message cannot be delivered, the answer is an error or cannot be
/// decoded, or no answer arrives within `timeout`.
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
