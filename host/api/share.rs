//! The bytes that clients may have in flight: what they have sent and the node has not taken in, and
//! answers that they have not read. Each connection has a share of the node's two budgets, so that
//! one connection cannot use up what others need, and a connection that leaves its answers unread is
//! closed. What is counted, and when, is in `in_flight`.

use crate::{
    budget::{Budget, Reservation},
    config,
    log_limit::LogLimit,
};
use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// How often connections are looked at, at most.
const LOOK: Duration = Duration::from_secs(1);

/// Reading fewer bytes than this within the stall timeout is not progress.
const PROGRESS_BYTES: u64 = 64 << 10;

/// The least rate at which a message has to arrive, in bytes a second.
const LEAST_RATE: usize = 256 << 10;

static CLOSED: LogLimit = LogLimit::new(10, Duration::from_secs(60));

/// The node's budgets, and the connections that share them.
pub struct Shares {
    received: Budget,
    unsent: Budget,
    waiting: Budget,
    limits: config::Limits,
    connections: Mutex<Vec<(Weak<Share>, Progress)>>,
}

/// What one connection may have in flight.
#[derive(Debug)]
pub struct Share {
    /// For what it has sent.
    pub received: Budget,
    /// For answers on their way to it.
    pub unsent: Budget,
    /// For messages that wait for its streams: apart, since to be sent they need room for answers.
    pub waiting: Budget,
    pub max_message_bytes: usize,
    stall: Duration,
    /// Bytes of answers that are ready and that it has not read, and all that it ever read.
    unread: AtomicUsize,
    read: AtomicU64,
    closed: CancellationToken,
}

/// How much a connection had read, and when that was last enough to count.
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

    /// The share of a new connection.
    pub fn share(&self) -> Arc<Share> {
        let received = self.limits.max_received_bytes_per_connection;
        let unsent = self.limits.max_unsent_bytes_per_connection;
        let share = Arc::new(Share {
            received: self.received.share(received),
            unsent: self.unsent.share(unsent),
            waiting: self.waiting.share(unsent),
            max_message_bytes: self.limits.max_message_bytes,
            stall: self.limits.stall_timeout,
            unread: AtomicUsize::new(0),
            read: AtomicU64::new(0),
            closed: CancellationToken::new(),
        });
        let progress = Progress {
            read: 0,
            at: Instant::now(),
        };
        let entry = (Arc::downgrade(&share), progress);
        let mut connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        connections.push(entry);
        share
    }

    /// Closes connections that leave their answers unread, for ever.
    pub async fn watch(self: Arc<Self>) {
        let stall = self.limits.stall_timeout;
        loop {
            tokio::time::sleep(LOOK.min(stall / 4)).await;
            let mut connections = self
                .connections
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            connections.retain_mut(|(share, progress)| match share.upgrade() {
                Some(share) => {
                    share.close_if_stalled(progress);
                    true
                }
                None => false,
            });
        }
    }
}

impl Share {
    /// Until when a message of this size has to be here as a whole.
    pub fn message_timeout(&self, bytes: usize) -> Duration {
        self.stall + Duration::from_secs((bytes / LEAST_RATE) as u64)
    }

    /// Counts an answer, from now until `Unread` is dropped, as waiting for the client to read it.
    pub fn unread(self: &Arc<Self>, bytes: usize, reservation: Arc<Reservation>) -> Arc<Unread> {
        self.unread.fetch_add(bytes, Ordering::Relaxed);
        Arc::new(Unread {
            share: self.clone(),
            bytes,
            _reservation: reservation,
        })
    }

    /// Whether answers are ready that the client has not read.
    pub fn has_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed) > 0
    }

    /// Returns when the connection has left its answers unread for too long.
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
        } else if progress.at.elapsed() > self.stall && !self.closed.is_cancelled() {
            self.closed.cancel();
            if let Some(left_out) = CLOSED.permit() {
                tracing::warn!(
                    left_out,
                    "closed a connection whose client left {unread} bytes of answers unread for \
                     {:?} (limits.stall_timeout_ms)",
                    self.stall
                );
            }
        }
    }
}

/// An answer that is ready; parts of it keep it until the last one is sent.
pub struct Unread {
    share: Arc<Share>,
    bytes: usize,
    _reservation: Arc<Reservation>,
}

impl Unread {
    pub fn sent(&self, bytes: usize) {
        self.share.read.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.share.unread.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What a call knows of the connection that it came over.
#[derive(Clone)]
pub struct Peer<I> {
    pub info: I,
    pub share: Arc<Share>,
}
