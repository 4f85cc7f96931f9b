//! The budgets of bytes that clients may have in flight: requests that the node has not stored yet, and
//! responses that clients have not read. Each connection has a share of the node's budgets, so that it
//! cannot use up what others need. A connection that leaves its responses unread is closed. `in_flight`
//! does the counting.
//!
//! Beside each budget there is room for one more message. It is for what waits while the budget is used up:
//! a request of which a part has arrived, so that one at least can arrive whole; and a response that is
//! small, or whose size is not known yet.

use crate::{
    budget::{Budget, Reservation},
    config,
    log_limit::LogLimit,
};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// How often to check for stalled connections, at least.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A client that reads fewer bytes than this within the stall timeout makes no progress.
const PROGRESS_BYTES: usize = 64 << 10;

/// While others wait for the budget, a client makes progress only if it reads this part of what it has left
/// unread within the stall timeout.
const PROGRESS_PART: usize = 8;

/// How many bytes of small messages a connection may leave unread before they count as well.
const MAX_SMALL_BYTES: usize = 256 << 10;

/// The lowest rate at which a message has to arrive, in bytes a second.
const MIN_RATE: usize = 256 << 10;

static CLOSED: LogLimit = LogLimit::new(10, Duration::from_secs(60));

/// The node's budgets, and the connections that share them.
pub struct Shares {
    received: Budget,
    unsent: Budget,
    waiting: Budget,
    /// Room for one more message beside each budget.
    spare_received: Budget,
    spare_unsent: Budget,
    limits: config::Limits,
    connections: Mutex<Vec<(Weak<Share>, Progress)>>,
}

/// The budgets of one connection.
#[derive(Debug)]
pub struct Share {
    /// The budget for requests.
    pub received: Budget,
    /// The budget for responses.
    pub unsent: Budget,
    /// The budget for messages that wait for the connection's streams. Separate from responses, since
    /// each message needs room there as well before it can be sent.
    pub waiting: Budget,
    pub max_message_bytes: usize,
    spare_received: Budget,
    spare_unsent: Budget,
    stall_timeout: Duration,
    /// The bytes of small messages that the client has not read, and that count in no budget.
    small: AtomicUsize,
    /// The bytes of responses that the client has not read, and all bytes that it has read.
    unread: AtomicUsize,
    read: AtomicU64,
    closed: CancellationToken,
}

/// How much a connection had read when it last made progress.
struct Progress {
    read: u64,
    at: Instant,
}

impl Shares {
    pub fn new(limits: &config::Limits) -> Self {
        Self {
            received: Budget::new(limits.max_received_bytes),
            unsent: Budget::new(limits.max_unsent_bytes),
            waiting: Budget::new(limits.max_unsent_bytes),
            spare_received: Budget::new(limits.max_message_bytes),
            spare_unsent: Budget::new(limits.max_message_bytes),
            limits: limits.clone(),
            connections: Mutex::default(),
        }
    }

    /// Creates the share of a new connection.
    pub fn share(&self) -> Arc<Share> {
        let received = self.limits.max_received_bytes_per_connection;
        let unsent = self.limits.max_unsent_bytes_per_connection;
        let share = Arc::new(Share {
            received: self.received.share(received),
            unsent: self.unsent.share(unsent),
            waiting: self.waiting.share(unsent),
            max_message_bytes: self.limits.max_message_bytes,
            spare_received: self.spare_received.clone(),
            spare_unsent: self.spare_unsent.clone(),
            small: AtomicUsize::new(0),
            stall_timeout: self.limits.stall_timeout,
            unread: AtomicUsize::new(0),
            read: AtomicU64::new(0),
            closed: CancellationToken::new(),
        });
        let progress = Progress {
            read: 0,
            at: Instant::now(),
        };
        let entry = (Arc::downgrade(&share), progress);
        self.connections.lock().push(entry);
        share
    }

    /// Closes stalled connections, for ever.
    pub async fn watch(self: Arc<Self>) {
        let interval = CHECK_INTERVAL.min(self.limits.stall_timeout / 4);
        loop {
            tokio::time::sleep(interval).await;
            let others_wait = self.unsent.has_waiting() || self.spare_unsent.has_waiting();
            let mut connections = self.connections.lock();
            connections.retain_mut(|(share, progress)| {
                let share = share.upgrade();
                share.is_some_and(|share| {
                    share.close_if_stalled(progress, others_wait);
                    true
                })
            });
        }
    }
}

impl Share {
    /// How long a message of this size may take to arrive.
    pub fn message_timeout(&self, bytes: usize) -> Duration {
        self.stall_timeout + Duration::from_secs((bytes / MIN_RATE) as u64)
    }

    /// Reserves `bytes` for what has arrived of a message, or all of the `rest` that it is short of. Returns
    /// how much it was. May be called with a part reserved: of all that wait, one at least gets its rest.
    pub async fn reserve_received(&self, bytes: usize, rest: usize) -> (Reservation, usize) {
        tokio::select! {
            biased;
            reservation = self.received.reserve(bytes) => (reservation, bytes),
            reservation = self.spare_received.reserve(rest) => (reservation, rest),
        }
    }

    /// Whether messages wait for memory that others have, so that these have to arrive at their pace.
    pub fn others_wait_to_send(&self) -> bool {
        self.spare_received.has_waiting()
    }

    /// Reserves `bytes` for a response that is small, or whose size is not known yet.
    pub async fn reserve_unsent(&self, bytes: usize) -> Reservation {
        tokio::select! {
            biased;
            reservation = self.unsent.reserve(bytes) => reservation,
            reservation = self.spare_unsent.reserve(bytes) => reservation,
        }
    }

    /// Counts a small message as unread until the returned value is dropped; `None` if too many are.
    pub fn small(self: &Arc<Self>, bytes: usize) -> Option<Small> {
        let before = self.small.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > MAX_SMALL_BYTES {
            self.small.fetch_sub(bytes, Ordering::Relaxed);
            return None;
        }
        Some(Small {
            share: self.clone(),
            bytes,
        })
    }

    /// Counts a response as unread until the returned value is dropped.
    pub fn unread(self: &Arc<Self>, bytes: usize, reservation: Arc<Reservation>) -> Arc<Unread> {
        self.unread.fetch_add(bytes, Ordering::Relaxed);
        Arc::new(Unread {
            share: self.clone(),
            bytes,
            _reservation: reservation,
        })
    }

    /// Whether the client has unread responses.
    pub fn has_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed) > 0
    }

    /// Waits until the client has left responses unread for too long.
    pub async fn stalled(&self) {
        self.closed.cancelled().await;
    }

    fn close_if_stalled(&self, progress: &mut Progress, others_wait: bool) {
        let (unread, read) = (
            self.unread.load(Ordering::Relaxed),
            self.read.load(Ordering::Relaxed),
        );
        let part = if others_wait {
            unread / PROGRESS_PART
        } else {
            0
        };
        let needed = part.max(PROGRESS_BYTES) as u64;
        if unread == 0 || read >= progress.read + needed {
            *progress = Progress {
                read,
                at: Instant::now(),
            };
        } else if progress.at.elapsed() > self.stall_timeout && !self.closed.is_cancelled() {
            self.closed.cancel();
            if let Some(left_out) = CLOSED.permit() {
                tracing::warn!(
                    left_out,
                    "closed a connection: its client left {unread} bytes of responses unread, and read \
                     fewer than {needed} within {:?} (limits.stall_timeout_ms)",
                    self.stall_timeout
                );
            }
        }
    }
}

/// A response that is ready to be read. Its parts keep it until the last one is sent.
pub struct Unread {
    share: Arc<Share>,
    bytes: usize,
    _reservation: Arc<Reservation>,
}

impl Unread {
    /// Records that the client has read this many bytes.
    pub fn sent(&self, bytes: usize) {
        self.share.read.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.share.unread.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A small message that is ready to be read.
pub struct Small {
    share: Arc<Share>,
    bytes: usize,
}

impl Drop for Small {
    fn drop(&mut self) {
        self.share.small.fetch_sub(self.bytes, Ordering::Relaxed);
        let read = self.bytes as u64;
        self.share.read.fetch_add(read, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    const MIB: usize = 1 << 20;

    #[tokio::test]
    async fn a_client_reads_a_part_of_what_it_holds_while_others_wait() {
        let shares = Shares::new(&Config::default().limits);
        for (others_wait, read, closed) in [
            (false, 0, true),
            (false, PROGRESS_BYTES, false),
            (true, PROGRESS_BYTES, true),
            (true, 2 * MIB, false),
        ] {
            let share = shares.share();
            let memory = Arc::new(share.unsent.reserve(16 * MIB).await);
            let response = share.unread(16 * MIB, memory);
            response.sent(read);
            let at = Instant::now().checked_sub(2 * share.stall_timeout);
            let at = at.expect("a machine that runs for longer");
            share.close_if_stalled(&mut Progress { read: 0, at }, others_wait);
            assert_eq!(share.closed.is_cancelled(), closed, "{others_wait} {read}");
        }
    }

    #[tokio::test]
    async fn small_messages_are_free_until_there_are_many() {
        let share = Shares::new(&Config::default().limits).share();
        let most = MAX_SMALL_BYTES / 4096;
        let unread: Vec<_> = (0..most).map(|_| share.small(4096).unwrap()).collect();
        assert!(share.small(1).is_none());
        // What was refused is not counted as read, which would hide a client that reads nothing.
        assert_eq!(share.read.load(Ordering::Relaxed), 0);
        drop(unread);
        assert!(share.small(1).is_some());
    }
}
