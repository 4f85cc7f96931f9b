//! The only place that makes a gRPC status. Clients learn what they can do about a refusal; what
//! went wrong inside goes to the log.

use crate::{broker, component, discovery, log_limit::LogLimit, queue, scheduler, task};
use std::time::Duration;
use tonic::{Status, metadata::MetadataValue};

/// When to try again what a starting node cannot do yet.
const RETRY: Duration = Duration::from_secs(1);

/// What is logged of refusals that a backend is the reason of: clients repeat their calls as they like.
static QUEUE: LogLimit = limit();
static DISCOVERY: LogLimit = limit();
static BROKER: LogLimit = limit();

const fn limit() -> LogLimit {
    LogLimit::new(3, Duration::from_secs(10))
}

/// How an error of the house looks from outside.
pub trait IntoStatus {
    fn into_status(self) -> Status;
}

impl IntoStatus for task::InvalidName {
    fn into_status(self) -> Status {
        Status::invalid_argument(self.to_string())
    }
}

impl IntoStatus for task::InvalidSubmission {
    fn into_status(self) -> Status {
        Status::invalid_argument(self.to_string())
    }
}

impl IntoStatus for broker::InvalidMessage {
    fn into_status(self) -> Status {
        Status::invalid_argument(self.to_string())
    }
}

impl IntoStatus for component::Taken {
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
            Error::Starting { .. } => again_in(RETRY, Status::unavailable(text)),
            Error::UnknownTask(_) => Status::not_found(text),
            Error::Conflict(_) => Status::already_exists(text),
            Error::Full => Status::resource_exhausted(text),
            Error::Unsure(ref id, _) => logged(
                &QUEUE,
                &self,
                Status::unavailable(format!(
                    "the task queue failed, and whether it has the task is not known: ask for \
                     {id}, or submit the task again under this id"
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
            Error::Full { .. } => Status::resource_exhausted(self.to_string()),
            Error::BadPage => Status::invalid_argument(self.to_string()),
            Error::Unavailable {
                outcome_unknown: true,
                ..
            } => logged(
                &QUEUE,
                &self,
                Status::unavailable(
                    "the task queue failed, and whether anything has changed is not known: look at \
                     the task, and ask again if it is as before",
                ),
            ),
            Error::Unavailable { .. } => logged(
                &QUEUE,
                &self,
                Status::unavailable(
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
            Error::Full { .. } => Status::resource_exhausted(self.to_string()),
            Error::Reserved | Error::TooLarge { .. } => Status::invalid_argument(self.to_string()),
            Error::UnknownNode { .. } => Status::not_found(self.to_string()),
            Error::Unavailable(_) | Error::Misconfigured(_) => logged(
                &DISCOVERY,
                &self,
                Status::unavailable("discovery is unavailable; try again later"),
            ),
        }
    }
}

impl IntoStatus for broker::Error {
    fn into_status(self) -> Status {
        logged(
            &BROKER,
            &self,
            Status::unavailable("the message broker is unavailable; try again later"),
        )
    }
}

/// A wish for a node that discovery may have heard, and may not.
pub fn unheard_wish(node: &task::Name, error: discovery::Error) -> Status {
    match error {
        discovery::Error::Unavailable(_) => logged(
            &DISCOVERY,
            &error,
            Status::unavailable(format!(
                "discovery does not answer, and whether it knows of this is not known: look at {node} \
                 in the list of nodes once it does"
            )),
        ),
        other => other.into_status(),
    }
}

/// An answer that does not fit into a message.
pub fn too_large(max_bytes: usize) -> Status {
    Status::resource_exhausted(format!(
        "the answer is larger than the {max_bytes} bytes that a message may have \
         (limits.max_message_bytes): fewer services of one name, or shorter metadata, would fit"
    ))
}

/// A message that is not read for its length.
pub fn message_too_large(bytes: usize, max_bytes: usize) -> Status {
    Status::resource_exhausted(format!(
        "the message has {bytes} bytes; this node accepts {max_bytes} (limits.max_message_bytes)"
    ))
}

/// A request that ends in the middle of a message.
pub fn cut_short() -> Status {
    Status::invalid_argument("the request ends in the middle of a message")
}

/// A call whose client waits no longer.
pub fn deadline_exceeded() -> Status {
    Status::deadline_exceeded(
        "the deadline of the call (grpc-timeout) has passed; whether the call has changed anything is \
         not known",
    )
}

/// A call that takes longer than any may.
pub fn took_too_long(longest: Duration) -> Status {
    Status::deadline_exceeded(format!(
        "the call took longer than {longest:?} (limits.request_timeout_ms and limits.max_wait_ms \
         together); whether it has changed anything is not known"
    ))
}

/// A connection beyond those that there may be.
pub fn no_place(max_connections: usize) -> Status {
    Status::unavailable(format!(
        "all {max_connections} connections that this node accepts are in use \
         (limits.max_connections); try again later, or another node"
    ))
}

/// A receiver that was too slow.
pub fn cut_off(backlog: usize) -> Status {
    Status::resource_exhausted(format!(
        "cut off: more than {backlog} messages (limits.subscriber_backlog), or more bytes than may \
         wait, waited for this stream; read faster, then subscribe again"
    ))
}

/// A service that health has not heard of.
pub fn unknown_service() -> Status {
    Status::not_found("this node has no service of this name")
}

/// What ends a stream together with its node.
pub fn stopping() -> Status {
    Status::unavailable("the node is stopping; connect again, or to another node")
}

/// A call without a token that is known. Which of the two it was is not said.
pub fn unauthenticated() -> Status {
    Status::unauthenticated(
        "this node lets in only those who show a token: send it as the metadata \
         `authorization: Bearer TOKEN`",
    )
}

/// A stream that was let in by a token which is known no more.
pub fn revoked() -> Status {
    Status::unauthenticated("the token that this stream was let in by has been taken out")
}

/// A message whose sender stopped in the middle of it.
pub fn stalled() -> Status {
    Status::deadline_exceeded(
        "the rest of a message did not arrive in time (limits.stall_timeout_ms)",
    )
}

/// An answer that came for a client that has not read its others.
pub fn unread() -> Status {
    Status::resource_exhausted(
        "there is no room for the answer: too many bytes of earlier answers are unread \
         (limits.max_unsent_bytes_per_connection, limits.max_unsent_bytes); the message was \
         delivered",
    )
}

/// Bad input that only a service sees.
pub fn invalid(what: impl Into<String>) -> Status {
    Status::invalid_argument(what)
}

/// Tells when to try again, in the field that gRPC has for that (its proposal A6).
fn again_in(time: Duration, mut status: Status) -> Status {
    let ms = MetadataValue::from(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    status.metadata_mut().insert("grpc-retry-pushback-ms", ms);
    status
}

fn internal(limit: &LogLimit, error: &dyn std::error::Error) -> Status {
    logged(
        limit,
        error,
        Status::internal("this node failed; its log says why"),
    )
}

fn logged(limit: &LogLimit, error: &dyn std::error::Error, status: Status) -> Status {
    if let Some(left_out) = limit.permit() {
        tracing::error!(code = ?status.code(), left_out, "{error}");
    }
    status
}
