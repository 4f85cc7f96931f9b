//! The budgets of bytes that clients may have in flight: requests that the node has not stored yet, and
//! responses that clients have not read. Each connection has a share of the node's budgets, so that it
//! cannot use up what others need. A connection that leaves its responses unread is closed. `in_flight`
//! does the counting.

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
const PROGRESS_BYTES: u64 = 64 << 10;

/// The lowest rate at which a message has to arrive, in bytes a second.
const MIN_RATE: usize = 256 << 10;

static CLOSED: LogLimit = LogLimit::new(10, Duration::from_secs(60));

/// The node's budgets, and the connections that share them.
pub struct Shares {
    received: Budget,
    unsent: Budget,
    waiting: Budget,
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
    stall_timeout: Duration,
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
            let mut connections = self.connections.lock();
            connections.retain_mut(|(share, progress)| {
                let share = share.upgrade();
                share.is_some_and(|share| {
                    share.close_if_stalled(progress);
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

    fn close_if_stalled(&self, progress: &mut Progress) {
        let (unread, read) = (
            self.unread.load(Ordering::Relaxed),
            self.read.load(Ordering::Relaxed),
        );
        if unread == 0 || read >= progress.read + PROGRESS_BYTES {
            *progress = Progress {
                read,
                at: Instant::now(),
            };
        } else if progress.at.elapsed() > self.stall_timeout && !self.closed.is_cancelled() {
            self.closed.cancel();
            if let Some(left_out) = CLOSED.permit() {
                tracing::warn!(
                    left_out,
                    "closed a connection: its client left {unread} bytes of responses unread for {:?} \
                     (limits.stall_timeout_ms)",
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
