//! Errors of handlers: retryable or permanent. The node decides how often and when it retries.

use crate::messaging;
use std::error::Error;
use std::fmt;
use std::time::Duration;

/// The result of a handler. Every result whose error converts into a [`TaskError`] works as well, for
/// example `anyhow::Result` or `std::io::Result`.
pub type Result<T, E = TaskError> = std::result::Result<T, E>;

/// The reason why an attempt failed.
///
/// `?` converts any error, `anyhow::Error` and plain text into a retryable error whose message is the
/// error and each of its sources, joined by `: `. The errors
/// [`Refused`](messaging::Error::Refused) and [`Permanent`](messaging::Error::Permanent) of a message
/// become permanent errors, because the same message would fail again. This type does not implement
/// [`std::error::Error`], which would conflict with that conversion.
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
    /// The attempt failed; another one may succeed.
    Retryable {
        /// A description of the failure.
        message: String,
        /// The delay before the next attempt. `None` uses the backoff of the task type. The node cuts a
        /// longer delay to 7 days.
        retry_after: Option<Duration>,
    },
    /// The task fails without further attempts.
    Permanent {
        /// A description of the failure.
        message: String,
    },
}

impl TaskError {
    /// Creates an error after which the node retries the task.
    pub fn retryable(message: impl Into<String>) -> Self {
        Self::Retryable {
            message: message.into(),
            retry_after: None,
        }
    }

    /// Creates an error that fails the task without further attempts.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self::Permanent {
            message: message.into(),
        }
    }

    /// Requests the next attempt after `delay`, in place of the backoff of the task type. A permanent
    /// error becomes retryable. The node cuts a longer delay to 7 days.
    pub fn retry_after(self, delay: Duration) -> Self {
        Self::Retryable {
            message: self.into_message(),
            retry_after: Some(delay),
        }
    }

    /// Returns `true` if the task fails without further attempts.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Permanent { .. })
    }

    /// Returns the description of the failure.
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

// The bound is a boxed error because `anyhow::Error` and strings convert into one without
// implementing `Error`.
impl<E: Into<Box<dyn Error>>> From<E> for TaskError {
    fn from(error: E) -> Self {
        let error = error.into();
        let message = chain(&*error);
        if is_lasting(&*error) {
            Self::permanent(message)
        } else {
            Self::retryable(message)
        }
    }
}

/// Returns `true` if the error or one of its sources is the error of a message that would always fail.
fn is_lasting(error: &(dyn Error + 'static)) -> bool {
    use messaging::Error::{Permanent, Refused};
    let lasting = |error: &messaging::Error| matches!(error, Permanent(_) | Refused(_));
    let mut errors = std::iter::successors(Some(error), |&error| error.source());
    errors.any(|error| error.downcast_ref().is_some_and(lasting))
}

/// Formats the error and its sources. A source that an error repeats in its own text appears once.
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

/// Converts the error of a result into a [`TaskError`] of one kind: `parse(text).permanent()?`.
pub trait ResultExt<T> {
    /// Makes the error permanent.
    fn permanent(self) -> Result<T>;

    /// Makes the error retryable after `delay`. The node cuts a longer delay to 7 days.
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
    fn question_mark_makes_a_retryable_error() {
        assert_eq!(
            number("x"),
            Err(TaskError::retryable("invalid digit found in string"))
        );
    }

    #[test]
    fn the_message_includes_all_sources() {
        fn fails() -> Result<u8> {
            let parsed = "x".parse::<u8>().context("the width").context("bad input");
            Ok(parsed?)
        }
        let message = "bad input: the width: invalid digit found in string";
        assert_eq!(fails(), Err(TaskError::retryable(message)));
    }

    #[test]
    fn a_repeated_source_appears_once() {
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
    fn strings_boxes_and_task_errors_convert() {
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
    fn a_refused_message_is_a_permanent_error() {
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
    fn result_ext_sets_the_kind_of_error() {
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
