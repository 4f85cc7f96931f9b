//! When a call is retried, and after which delay.

use std::time::Duration;
use tonic::{Code, Status};

/// The delay before a retry: the first one, and the longest.
pub(super) const BACKOFF: (Duration, Duration) =
    (Duration::from_millis(50), Duration::from_secs(2));

/// Whether the status is not the node's answer but the loss of the connection. During a call that has any
/// code, mostly Unknown, and a transport error as its source.
pub fn is_connection_lost(status: &Status) -> bool {
    let source = std::error::Error::source(status);
    source.is_some_and(|source| source.is::<tonic::transport::Error>())
}

/// Whether the call reached the node: there was a connection, and it had not timed out.
pub(super) fn was_reached(status: &Status) -> bool {
    let mut next = std::error::Error::source(status);
    while let Some(error) = next {
        let timed_out = error
            .downcast_ref()
            .is_some_and(|error: &hyper::Error| error.is_timeout());
        if error.is::<tonic::ConnectError>() || timed_out {
            return false;
        }
        next = error.source();
    }
    true
}

/// Whether the same call may succeed soon.
pub(super) fn is_transient(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable => true,
        Code::Unknown | Code::Cancelled | Code::Internal => is_connection_lost(status),
        _ => false,
    }
}

/// Whether a new stream may go on where this one ended: the node has ended it for now, or the connection is
/// lost. What ends a stream within the client has a source; the node's own answer has none.
pub(super) fn may_reopen(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable => true,
        Code::Unknown | Code::Cancelled | Code::Internal => {
            std::error::Error::source(status).is_some()
        }
        _ => false,
    }
}
