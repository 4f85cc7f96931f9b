//! Creates every gRPC status. A status tells the client what to do about a refusal; the internal cause of a
//! failure goes to the log.

use crate::{
    broker, component, discovery,
    log_limit::LogLimit,
    proto::millis,
    queue,
    scheduler::{self, schedules, types},
    task,
};
use bytes::Bytes;
use std::time::Duration;
use tonic::{Code, Status, metadata::MetadataValue};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

/// When to retry what a starting node cannot do yet.
const STARTING_RETRY: Duration = Duration::from_secs(1);

/// When to retry what failed because something is full or does not answer.
const RETRY: Duration = Duration::from_secs(1);

/// The faults of a submission that its refusal names, in bytes of a header. They travel three times: as text, of
/// which a byte may take three, and in the details in base64, as text and one by one. Clients accept headers of
/// 8 KiB.
const MAX_VIOLATION_BYTES: usize = 2 << 10;

/// The limits of log lines about failures of each backend: clients may repeat their calls at will.
static QUEUE: LogLimit = limit();
static DISCOVERY: LogLimit = limit();
static BROKER: LogLimit = limit();

const fn limit() -> LogLimit {
    LogLimit::new(3, Duration::from_secs(10))
}

/// Converts an error of an engine to the status that clients get.
pub trait IntoStatus {
    fn into_status(self) -> Status;
}

impl IntoStatus for task::InvalidName {
    fn into_status(self) -> Status {
        Status::invalid_argument(self.to_string())
    }
}

impl IntoStatus for task::Violations {
    fn into_status(self) -> Status {
        let mut bytes = 0;
        let is_named = |violation: &task::Violation| {
            let escaped = violation.reason.bytes().filter(|byte| !byte.is_ascii());
            bytes += violation.field.len() + violation.reason.len() + 2 * escaped.count();
            bytes <= MAX_VIOLATION_BYTES
        };
        let all = self.0.len();
        let named: Vec<_> = self.0.into_iter().take_while(is_named).collect();
        let left_out = all - named.len();
        let details = named
            .iter()
            .map(|violation| FieldViolation::new(violation.field, &violation.reason));
        let details = ErrorDetails::with_bad_request(details.collect::<Vec<_>>());
        let mut text = Self(named).to_string();
        if left_out > 0 {
            text.push_str(&format!("; and {left_out} more"));
        }
        Status::with_error_details(Code::InvalidArgument, text, details)
    }
}

impl IntoStatus for schedules::Error {
    fn into_status(self) -> Status {
        use schedules::Error;
        let text = self.to_string();
        match self {
            Error::Invalid(invalid) => invalid.into_status(),
            Error::InvalidRun(invalid) => invalid.into_status(),
            Error::Unknown(_) => Status::not_found(text),
            Error::Exists(_) => Status::already_exists(text),
            Error::Declared(..) => Status::failed_precondition(text),
            Error::Full => Status::resource_exhausted(text),
            Error::Contended => unavailable(text),
            Error::Run(error) => error.into_status(),
            Error::Queue(error) => error.into_status(),
        }
    }
}

impl IntoStatus for types::Error {
    fn into_status(self) -> Status {
        use types::Error;
        let text = self.to_string();
        match self {
            Error::Full => Status::resource_exhausted(text),
            Error::Contended => unavailable(text),
            Error::NoStore => Status::failed_precondition(text),
            Error::Queue(error) => error.into_status(),
        }
    }
}

impl IntoStatus for broker::InvalidMessage {
    fn into_status(self) -> Status {
        Status::invalid_argument(self.to_string())
    }
}

impl IntoStatus for component::IdTaken {
    fn into_status(self) -> Status {
        Status::invalid_argument(format!("{self}: take another name"))
    }
}

impl IntoStatus for scheduler::Error {
    fn into_status(self) -> Status {
        use scheduler::Error;
        let text = self.to_string();
        match self {
            Error::UnknownType { .. } | Error::NoSuchTarget { .. } | Error::NotRequeued { .. } => {
                Status::failed_precondition(text)
            }
            Error::Starting { .. } => with_retry_after(STARTING_RETRY, Status::unavailable(text)),
            Error::UnknownTask(_) => Status::not_found(text),
            Error::TooLarge { .. } => Status::resource_exhausted(text),
            Error::Conflict(_) => Status::already_exists(text),
            Error::Full | Error::TypeFull(_) | Error::GroupFull(_) => {
                with_retry_info(RETRY, Status::resource_exhausted(text))
            }
            Error::TooManyPaused => Status::resource_exhausted(text),
            Error::OutcomeUnknown(ref id, _) => logged(
                &QUEUE,
                &self,
                unavailable(format!(
                    "the task queue failed, and it is not known whether the task is stored: read {id}, or \
                     submit the task again with this id"
                )),
            ),
            Error::Queue(error) => error.into_status(),
        }
    }
}

impl IntoStatus for queue::Error {
    fn into_status(self) -> Status {
        use queue::Error;
        match self {
            Error::Full { .. } => {
                with_retry_info(RETRY, Status::resource_exhausted(self.to_string()))
            }
            Error::BadPage | Error::BadCursor => Status::invalid_argument(self.to_string()),
            Error::Unavailable {
                outcome_unknown: true,
                ..
            } => logged(
                &QUEUE,
                &self,
                unavailable(
                    "the task queue failed, and it is not known whether anything has changed: read the task, \
                     and retry if it has not",
                ),
            ),
            Error::Unavailable { .. } => logged(
                &QUEUE,
                &self,
                unavailable(
                    "the task queue is unavailable, and nothing has changed; try again later",
                ),
            ),
            Error::Corrupt(_) | Error::Misconfigured(_) => internal(&QUEUE, &self),
        }
    }
}

impl IntoStatus for discovery::Error {
    fn into_status(self) -> Status {
        use discovery::Error;
        match self {
            Error::Full { .. } => {
                with_retry_info(RETRY, Status::resource_exhausted(self.to_string()))
            }
            Error::ResponseTooLarge { limit } => response_too_large(limit),
            Error::Reserved | Error::TooLarge { .. } => Status::invalid_argument(self.to_string()),
            Error::UnknownNode { .. } => Status::not_found(self.to_string()),
            Error::Unavailable(_) | Error::Misconfigured(_) => logged(
                &DISCOVERY,
                &self,
                unavailable("discovery is unavailable; try again later"),
            ),
        }
    }
}

impl IntoStatus for broker::Error {
    fn into_status(self) -> Status {
        logged(
            &BROKER,
            &self,
            unavailable("the message broker is unavailable; try again later"),
        )
    }
}

/// Limits that were changed and cannot be read now.
pub fn limits_unread(error: types::Error) -> Status {
    tracing::debug!("cannot read a task type whose limits were changed: {error}");
    unavailable(
        "the limits are changed, but the task type cannot be read now; list the types later",
    )
}

/// A drain or undrain request that failed.
pub fn drain_failed(node: &task::Name, error: discovery::Error) -> Status {
    match error {
        discovery::Error::Unavailable(_) => logged(
            &DISCOVERY,
            &error,
            unavailable(format!(
                "discovery does not answer, and it is not known whether it has the request: look for {node} \
                 in the list of nodes once it answers"
            )),
        ),
        other => other.into_status(),
    }
}

/// The failure of a step of an action on many tasks, after so many of them.
pub fn failed_step(status: &Status, tasks: u64) -> Status {
    let text = format!(
        "{}; {tasks} tasks were dealt with before that, and the next step may have changed some more",
        status.message()
    );
    let details = Bytes::copy_from_slice(status.details());
    let metadata = status.metadata().clone();
    Status::with_details_and_metadata(status.code(), text, details, metadata)
}

/// A response that does not fit into a message.
pub fn response_too_large(max_bytes: usize) -> Status {
    Status::resource_exhausted(format!(
        "the response is larger than the {max_bytes} bytes that a message may have \
         (limits.max_message_bytes); register fewer services of one name, or shorter metadata"
    ))
}

/// The end of a task that does not fit into a message.
pub fn end_too_large(max_bytes: usize) -> Status {
    Status::resource_exhausted(format!(
        "the result is larger than the {max_bytes} bytes that a message may have \
         (limits.max_message_bytes); read it at a node that sends larger ones"
    ))
}

/// A message that is too large to be read.
pub fn message_too_large(bytes: usize, max_bytes: usize) -> Status {
    Status::resource_exhausted(format!(
        "the message has {bytes} bytes; this node accepts {max_bytes} (limits.max_message_bytes)"
    ))
}

/// A request that ends in the middle of a message.
pub fn truncated() -> Status {
    Status::invalid_argument("the request ends in the middle of a message")
}

/// A call whose deadline has passed.
pub fn deadline_exceeded() -> Status {
    Status::deadline_exceeded(
        "the deadline of the call (grpc-timeout) has passed; it is not known whether the call has changed \
         anything",
    )
}

/// A call that takes longer than the node allows.
pub fn took_too_long(max: Duration) -> Status {
    Status::deadline_exceeded(format!(
        "the call took longer than {max:?} (limits.request_timeout_ms plus limits.max_wait_ms); it is not \
         known whether it has changed anything"
    ))
}

/// A connection beyond the limit.
pub fn too_many_connections(max_connections: usize) -> Status {
    unavailable(format!(
        "all {max_connections} connections that this node accepts are in use \
         (limits.max_connections); try again later, or another node"
    ))
}

/// A stream whose client reads too slowly.
pub fn cut_off(backlog: usize) -> Status {
    Status::resource_exhausted(format!(
        "the stream was cut off: more than {backlog} messages (limits.subscriber_backlog) or too many bytes \
         waited for it; subscribe again, and read faster"
    ))
}

/// A health check of an unknown service.
pub fn unknown_service() -> Status {
    Status::not_found("this node has no service of this name")
}

/// A stream that ends because its node stops.
pub fn stopping() -> Status {
    unavailable("the node is stopping; connect again, or to another node")
}

/// A call without a known token. Does not reveal whether it had a token.
pub fn unauthenticated() -> Status {
    Status::unauthenticated(
        "this node requires a token: send one that it knows as the metadata \
         `authorization: Bearer TOKEN`",
    )
}

/// A stream whose token was removed.
pub fn revoked() -> Status {
    Status::unauthenticated("the token of this stream was removed")
}

/// A message that did not arrive as a whole in time.
pub fn stalled() -> Status {
    Status::deadline_exceeded(
        "the rest of a message did not arrive in time (limits.stall_timeout_ms)",
    )
}

/// A reply for which the client has left no room.
pub fn unread_responses() -> Status {
    Status::resource_exhausted(
        "there is no room for the reply: too many bytes of earlier responses are unread \
         (limits.max_unsent_bytes_per_connection, limits.max_unsent_bytes); the message was \
         delivered",
    )
}

/// A stream for whose messages the client has left no room.
pub fn no_room_for_stream() -> Status {
    let text = "there is no room for another stream: too many bytes wait to be read by this client \
                (limits.max_unsent_bytes_per_connection) or by all (limits.max_unsent_bytes); try again later";
    with_retry_info(RETRY, Status::resource_exhausted(text))
}

/// Invalid input that no other error covers.
pub fn invalid(what: impl Into<String>) -> Status {
    Status::invalid_argument(what)
}

/// A call that may succeed later.
fn unavailable(text: impl Into<String>) -> Status {
    with_retry_info(RETRY, Status::unavailable(text))
}

/// Adds when to retry, in the details and in the metadata of gRPC proposal A6.
fn with_retry_after(time: Duration, status: Status) -> Status {
    let mut status = with_retry_info(time, status);
    let ms = MetadataValue::from(millis(time));
    status.metadata_mut().insert("grpc-retry-pushback-ms", ms);
    status
}

/// Adds when to retry, as a google.rpc.RetryInfo in the details.
fn with_retry_info(time: Duration, status: Status) -> Status {
    let details = ErrorDetails::with_retry_info(Some(time));
    Status::with_error_details(status.code(), status.message(), details)
}

fn internal(limit: &LogLimit, error: &dyn std::error::Error) -> Status {
    logged(
        limit,
        error,
        Status::internal("this node failed; its log has the reason"),
    )
}

fn logged(limit: &LogLimit, error: &dyn std::error::Error, status: Status) -> Status {
    if let Some(left_out) = limit.permit() {
        tracing::error!(code = ?status.code(), left_out, "{error}");
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use task::{Violation, Violations};

    fn status_of(violations: usize, reason: &str) -> Status {
        let violation = Violation {
            field: "tags",
            reason: reason.into(),
        };
        Violations(vec![violation; violations]).into_status()
    }

    #[test]
    fn each_fault_of_a_submission_is_a_violation_in_the_details() {
        let status = status_of(3, "it is wrong");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message().matches("tags: it is wrong").count(), 3);
        let details = status.get_details_bad_request();
        let violations = details.expect("a bad request").field_violations;
        assert_eq!(violations.len(), 3);
        assert_eq!(violations[0].field, "tags");
        assert_eq!(violations[0].description, "it is wrong");
    }

    #[test]
    fn a_refusal_fits_into_the_headers_that_clients_accept() {
        for (reason, named) in [("x".repeat(600), 3), ("ä".repeat(300), 1)] {
            let status = status_of(30, &reason);
            let more = format!("; and {} more", 30 - named);
            assert!(status.message().ends_with(&more), "{status}");
            let escaped = status.message().bytes().filter(|byte| !byte.is_ascii());
            let text = status.message().len() + 2 * escaped.count();
            assert!(text + status.details().len() * 4 / 3 < 8 << 10);
        }
    }

    #[test]
    fn what_may_succeed_later_says_when() {
        for status in [
            scheduler::Error::Full.into_status(),
            scheduler::Error::TypeFull(task::Name::parse("id", "a").unwrap()).into_status(),
            stopping(),
            with_retry_after(RETRY, Status::unavailable("later")),
        ] {
            let info = status.get_details_retry_info().expect("a retry info");
            assert_eq!(info.retry_delay, Some(RETRY), "{status}");
        }
        let refused = unknown_service();
        assert!(refused.get_details_retry_info().is_none());
    }
}
