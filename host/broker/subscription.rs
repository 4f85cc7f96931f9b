//! The receiving end of topics. It is bounded in messages and bytes, and reports a loss.

use super::message::Message;
use hostel_runtime::budget::{Budget, Reservation};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio_util::sync::CancellationToken;

/// How many bytes of payloads may wait for one receiver.
const MAX_WAITING_BYTES: usize = 16 << 20;

/// The next item of a subscription.
#[derive(Debug)]
pub enum Received {
    /// A message of one of the topics.
    Message(Message),
    /// The receiver fell behind and was cut off. No item follows.
    CutOff,
}

/// The policy for a message that finds no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// The receiver is cut off, since it could not tell what it missed.
    CutOff,
    /// The message is refused, which the sender learns, and the receiver continues.
    Refuse,
}

/// Why an inbox did not take a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no room at present.
    Full,
    /// The inbox is closed for good and can be removed.
    Closed,
}

/// The receiving end of an inbox. Dropping it drops its attachments.
#[derive(Debug)]
pub struct Subscription {
    messages: mpsc::Receiver<Waiting>,
    shared: Arc<Shared>,
    /// The last item was returned.
    ended: bool,
    /// Dropped last, so that the receiver is closed before the broker detaches it.
    attachments: Vec<Attachment>,
}

/// Keeps an inbox attached to a topic until it is dropped.
#[must_use]
pub struct Attachment(Option<Box<dyn FnOnce() + Send + Sync>>);

/// The sending end of a subscription. Clones share its room.
#[derive(Debug, Clone)]
pub struct Inbox {
    messages: mpsc::Sender<Waiting>,
    shared: Arc<Shared>,
}

/// A message that was delivered and not yet received.
type Waiting = (Message, Reservation);

/// The state that both ends share.
#[derive(Debug)]
struct Shared {
    overflow: Overflow,
    /// Cancelled when the receiver falls behind.
    cut_off: CancellationToken,
    /// Counts payloads that were delivered and not yet received.
    budget: Budget,
    /// How many messages were refused.
    refused: AtomicU64,
}

impl Subscription {
    /// Returns both ends of an inbox in which up to `backlog` messages wait.
    pub fn new(backlog: usize, overflow: Overflow) -> (Inbox, Self) {
        Self::with_budget(backlog, overflow, Budget::new(MAX_WAITING_BYTES))
    }

    /// Returns both ends of an inbox that shares `room` with other receivers.
    pub fn sharing(backlog: usize, overflow: Overflow, budget: &Budget) -> (Inbox, Self) {
        Self::with_budget(backlog, overflow, budget.share(MAX_WAITING_BYTES))
    }

    fn with_budget(backlog: usize, overflow: Overflow, budget: Budget) -> (Inbox, Self) {
        let (sender, messages) = mpsc::channel(backlog);
        let shared = Arc::new(Shared {
            overflow,
            cut_off: CancellationToken::new(),
            budget,
            refused: AtomicU64::new(0),
        });
        let inbox = Inbox {
            messages: sender,
            shared: shared.clone(),
        };
        let subscription = Self {
            messages,
            shared,
            ended: false,
            attachments: Vec::new(),
        };
        (inbox, subscription)
    }

    /// Keeps `attachment` until the subscription is dropped.
    pub fn keep(&mut self, attachment: Attachment) {
        self.attachments.push(attachment);
    }

    /// Returns the next item, or `None` once every sending end is gone. Messages delivered before a
    /// cut-off are returned first. Cancel safe.
    pub async fn next(&mut self) -> Option<Received> {
        if self.ended {
            return None;
        }
        let next = tokio::select! {
            biased;
            message = self.messages.recv() => message,
            () = self.shared.cut_off.cancelled() => self.messages.try_recv().ok(),
        };
        let Some((message, _room)) = next else {
            self.ended = true;
            return self
                .shared
                .cut_off
                .is_cancelled()
                .then_some(Received::CutOff);
        };
        Some(Received::Message(message))
    }

    /// Refuses further messages. `next` returns those delivered before, and then `None`.
    pub fn close(&mut self) {
        self.messages.close();
    }
}

impl Attachment {
    /// Creates an attachment that calls `detach` when it is dropped. `detach` must not block, and a
    /// broker must not drop attachments under a lock that `detach` takes.
    pub fn new(detach: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(detach)))
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if let Some(detach) = self.0.take() {
            detach();
        }
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Attachment")
    }
}

impl Inbox {
    /// Delivers the message if there is room for it.
    pub fn deliver(&self, message: Message) -> Result<(), Refusal> {
        if self.shared.cut_off.is_cancelled() {
            return Err(Refusal::Closed);
        }
        // A message larger than the room takes all of it, so a single message always fits.
        if let Some(budget) = self.shared.budget.try_reserve(message.payload.len()) {
            match self.messages.try_send((message, budget)) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Closed(_)) => return Err(Refusal::Closed),
                Err(TrySendError::Full(_)) => {}
            }
        }
        match self.shared.overflow {
            Overflow::Refuse => {
                self.shared.refused.fetch_add(1, Ordering::Relaxed);
                Err(Refusal::Full)
            }
            Overflow::CutOff => {
                self.shared.cut_off.cancel();
                Err(Refusal::Closed)
            }
        }
    }

    /// The number of messages that wait.
    pub fn waiting(&self) -> usize {
        self.messages.max_capacity() - self.messages.capacity()
    }

    /// The number of messages that were refused so far.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }
}
