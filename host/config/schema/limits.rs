//! `[limits]`

use super::super::{
    group::{self, settings},
    setting::{DAY, GIB, HOUR, KIB, MIB, SECOND, TIB, bytes, millis, number},
};
use hostel_task::{OptionLimits, SubmissionLimits};
use std::time::Duration;

/// Bytes of a gRPC message besides the payload or result that it carries: ids, metadata, framing.
pub const MESSAGE_OVERHEAD: usize = 64 * KIB;

/// Less than `MESSAGE_OVERHEAD`, so that the largest metadata fits beside the largest payload.
const METADATA_BYTES: usize = 48 * KIB;

settings! {
    /// Limits on what clients may use.
    struct Limits {
        /// Size of the payload of a task or a message. The default is 4 MiB less 64 KiB: gRPC clients
        /// refuse messages of more than 4 MiB by default, and the other fields need room as well.
        max_payload_bytes: usize = bytes(0..=GIB).default(4 * MIB - 64 * KIB);

        /// Number of metadata entries of a task.
        max_metadata_entries: usize = number(0..=1024).default(64);

        /// Size of all metadata keys and values of a task together.
        max_metadata_bytes: usize = bytes(0..=METADATA_BYTES).default(16 * KIB);

        /// How long a task may ask to be delayed (delay_ms), and how far ahead it may ask to start
        /// (run_at_ms, start_by_ms).
        max_delay: Duration = millis(0..=3660 * DAY).default(Duration::from_secs(366 * 24 * 3600));

        /// Number of attempts that a task may ask for (max_attempts), the first included.
        max_attempts: u32 = number(1..=1_000_000).default(100);

        /// How long a task may ask to be kept after its end (result_ttl_ms), and to keep its unique key
        /// (unique_for_ms).
        max_keep: Duration = millis(SECOND..=3660 * DAY).default(Duration::from_secs(30 * 24 * 3600));

        /// Size of a gRPC message in either direction. At least 64 KiB more than payloads and results.
        max_message_bytes: usize = bytes(MESSAGE_OVERHEAD..=GIB + MIB).default(4 * MIB);

        /// Payloads of requests that the node is receiving or has not stored yet, over all
        /// connections. When it is used up, no further message is read, and clients wait.
        max_received_bytes: usize = bytes(MIB..=TIB).default(128 * MIB);

        /// The same for each connection, so that one client leaves room for others.
        max_received_bytes_per_connection: usize = bytes(MIB..=TIB).default(32 * MIB);

        /// Responses that clients have requested and not read, over all connections. When it is used
        /// up, no further response is built. Messages that wait for streams may take the same amount
        /// again; beyond that, streams are closed.
        max_unsent_bytes: usize = bytes(MIB..=TIB).default(256 * MIB);

        /// The same for each connection.
        max_unsent_bytes_per_connection: usize = bytes(MIB..=TIB).default(32 * MIB);

        /// How long a client may read less than 64 KiB of the responses that wait for it; while others
        /// wait for that memory, less than an eighth of them. After that the connection is closed. A
        /// message may take as long to arrive, and a second more for each 256 KiB; while others wait for
        /// memory, it has to make progress all the time. After that the call fails.
        stall_timeout: Duration = millis(100..=HOUR).default(Duration::from_secs(30));

        /// Number of connections. When all are in use, a new one takes the place of the connection that
        /// has been idle longest; one whose only open calls need no token counts as idle. If none is
        /// idle, the new one is refused with UNAVAILABLE.
        max_connections: usize = number(1..=1_000_000).default(1024);

        /// Number of open calls and streams per connection.
        max_streams_per_connection: u32 = number(1..=100_000).default(256);

        /// Number of calls per connection that the node works on at the same time.
        max_requests_per_connection: usize = number(1..=100_000).default(256);

        /// How long a call may take, in addition to max_wait_ms. Streams are exempt.
        request_timeout: Duration = millis(100..=HOUR).default(Duration::from_secs(60));

        /// The longest time that a submission or a status call may wait for the end of a task (wait_ms
        /// in the request).
        max_wait: Duration = millis(0..=HOUR).default(Duration::from_secs(60));

        /// Age at which the node asks a client to open a new connection.
        max_connection_age: Duration = millis(SECOND..=30 * DAY).default(Duration::from_secs(1800));

        /// How long a connection may have no open call or stream before the node closes it. HTTP/2
        /// PINGs are no calls.
        idle_timeout: Duration = millis(SECOND..=30 * DAY).default(Duration::from_secs(300));

        /// Number of services that clients may register.
        max_services: usize = number(0..=1_000_000).default(10_000);

        /// How long the registration of a service lasts unless it is renewed.
        service_ttl: Duration = millis(SECOND..=DAY).default(Duration::from_secs(60));

        /// Number of messages that may wait for a stream before it is closed. It is also closed when
        /// 16 MiB of messages wait.
        subscriber_backlog: usize = number(1..=1_000_000).default(1024);
    }
}

impl Limits {
    /// Returns the limits for the submission of a task.
    pub fn submission(&self) -> SubmissionLimits {
        SubmissionLimits {
            payload_bytes: self.max_payload_bytes,
            metadata_entries: self.max_metadata_entries,
            metadata_bytes: self.max_metadata_bytes,
        }
    }

    /// Returns the limits for the options of a task, whose attempts may take `timeout`
    /// (`plugins.max_timeout`).
    pub fn options(&self, timeout: Duration) -> OptionLimits {
        OptionLimits {
            delay: self.max_delay,
            timeout,
            attempts: self.max_attempts,
            keep: self.max_keep,
        }
    }
}
