//! How a handler fails: try again, or never again. Deciding how often and when belongs to the node.

use crate::messaging;
use std::error::Error;
use std::fmt;
use std::time::Duration;

/// What a handler returns. Any result whose error turns into a [`TaskError`] does as well, such as
/// `anyhow::Result` or `std::io::Result`.
pub type Result<T, E = TaskError> = std::result::Result<T, E>;

/// Why an attempt failed.
///
/// `?` makes a retryable one of any error, of `anyhow::Error` and of a plain text; its message is
/// the error and each of its sources, joined by `: `. A message that the node refused to send, or that
/// a component answered with a permanent error, makes a permanent one, as the same message would
/// fail again. This type is no [`std::error::Error`]: the
/// conversion could not exist beside that.
///
/// ```
/// use hostel_sdk::{Result, ResultExt, TaskError};
///
/// fn port(text: &str) -> Result<u16> {
///     if text.is_empty() {
///         return Err(TaskError::permanent("no port given"));
///     }
///     Ok(text.parse::<u16>().permanent()?)
/// }
/// assert!(port("").unwrap_err().is_permanent());
/// assert_eq!(port("x").unwrap_err().message(), "invalid digit found in string");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskError {
    /// Another attempt may succeed.
    Retryable {
        message: String,
        /// When to try again; without it the backoff of the task type decides.
        retry_after: Option<Duration>,
    },
    /// No further attempt can succeed: the task fails now.
    Permanent { message: String },
}

impl TaskError {
    /// Another attempt may succeed.
    pub fn retryable(message: impl Into<String>) -> Self {
        Self::Retryable {
            message: message.into(),
            retry_after: None,
        }
    }

    /// No further attempt can succeed.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self::Permanent {
            message: message.into(),
        }
    }

    /// Asks for the next attempt after `delay`, whatever the backoff says. An error that names a
    /// time for another attempt is a retryable one, so a permanent one becomes retryable.
    pub fn retry_after(self, delay: Duration) -> Self {
        Self::Retryable {
            message: self.into_message(),
            retry_after: Some(delay),
        }
    }

    /// Whether the task fails now.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Permanent { .. })
    }

    /// What went wrong, in words.
    pub fn message(&self) -> &str {
        match self {
            Self::Retryable { message, .. } | Self::Permanent { message } => message,
        }
    }

    fn into_message(self) -> String {
        match self {
            Self::Retryable { message, .. } | Self::Permanent { message } => message,
        }
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

// A box of an error, and not the error itself, is what lets `anyhow::Error` and texts through: they
// are no `Error` themselves.
impl<E: Into<Box<dyn Error>>> From<E> for TaskError {
    fn from(error: E) -> Self {
        let error = error.into();
        let message = chain(&*error);
        match is_lasting(&*error) {
            true => Self::permanent(message),
            false => Self::retryable(message),
        }
    }
}

/// Whether the error or one of its sources is of a message that will never have success.
fn is_lasting(error: &(dyn Error + 'static)) -> bool {
    use messaging::Error::{Permanent, Refused};
    let lasting = |error: &messaging::Error| matches!(error, Permanent(_) | Refused(_));
    let mut errors = std::iter::successors(Some(error), |&error| error.source());
    errors.any(|error| error.downcast_ref().is_some_and(lasting))
}

/// The error and its sources. Some errors repeat their source in their own text; it is said once.
fn chain(error: &dyn Error) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        if !message.ends_with(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        source = error.source();
    }
    message
}

/// Says on the way out what kind of failure an error is: `parse(text).permanent()?`.
pub trait ResultExt<T> {
    /// No further attempt can succeed.
    fn permanent(self) -> Result<T>;

    /// Another attempt may succeed, after `delay`.
    fn retry_after(self, delay: Duration) -> Result<T>;
}

impl<T, E: Into<TaskError>> ResultExt<T> for Result<T, E> {
    fn permanent(self) -> Result<T> {
        self.map_err(|error| TaskError::permanent(error.into().into_message()))
    }

    fn retry_after(self, delay: Duration) -> Result<T> {
        self.map_err(|error| error.into().retry_after(delay))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    fn number(text: &str) -> Result<u8> {
        Ok(text.parse::<u8>()?)
    }

    #[test]
    fn an_ordinary_error_is_retryable() {
        assert_eq!(
            number("x"),
            Err(TaskError::retryable("invalid digit found in string"))
        );
    }

    #[test]
    fn the_message_is_the_whole_chain() {
        fn fails() -> Result<u8> {
            let parsed = "x".parse::<u8>().context("the width").context("bad input");
            Ok(parsed?)
        }
        let message = "bad input: the width: invalid digit found in string";
        assert_eq!(fails(), Err(TaskError::retryable(message)));
    }

    #[test]
    fn a_source_that_is_repeated_is_said_once() {
        #[derive(Debug)]
        struct Repeats(std::num::ParseIntError);
        impl fmt::Display for Repeats {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "the width: {}", self.0)
            }
        }
        impl Error for Repeats {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&self.0)
            }
        }
        let error = Repeats("x".parse::<u8>().unwrap_err());
        assert_eq!(
            TaskError::from(error).message(),
            "the width: invalid digit found in string"
        );
    }

    #[test]
    fn texts_boxes_and_task_errors_convert() {
        fn text() -> Result<()> {
            Err("no")?
        }
        fn boxed() -> Result<()> {
            let error: Box<dyn Error> = "no".into();
            Err(error)?
        }
        fn same() -> Result<()> {
            Err(TaskError::permanent("no"))?
        }
        assert_eq!(text(), Err(TaskError::retryable("no")));
        assert_eq!(boxed(), Err(TaskError::retryable("no")));
        assert_eq!(same(), Err(TaskError::permanent("no")));
    }

    #[test]
    fn what_the_node_refused_to_send_is_permanent() {
        let error = |error: messaging::Error| TaskError::from(error);
        let refused = messaging::Error::Refused("no".into());
        let wrapped = anyhow::Error::new(refused.clone()).context("telling others");
        assert_eq!(error(refused), TaskError::permanent("refused: no"));
        let message = "telling others: refused: no";
        assert_eq!(TaskError::from(wrapped), TaskError::permanent(message));
        let timeout = messaging::Error::Timeout("5 s".into());
        let message = "no answer in time: 5 s";
        assert_eq!(error(timeout), TaskError::retryable(message));
    }

    #[test]
    fn the_kind_can_be_said_on_the_way_out() {
        let second = Duration::from_secs(1);
        let permanent = number("x").permanent();
        assert!(permanent.clone().is_err_and(|error| error.is_permanent()));
        assert_eq!(
            permanent.retry_after(second),
            Err(TaskError::Retryable {
                message: "invalid digit found in string".into(),
                retry_after: Some(second),
            })
        );
    }
}
