//! The receiving end of topics: bounded in messages and bytes, and honest about what it lost.

use super::Message;
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

/// The most payload bytes that wait for one receiver, however few messages that is.
const MAX_WAITING_BYTES: usize = 16 << 20;

/// What a receiver gets next.
#[derive(Debug)]
pub enum Received {
    Message(Message),
    /// The receiver fell behind and was cut off; nothing follows.
    CutOff,
}

/// What happens when there is no room for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// The receiver gets nothing more: it would not know what it missed.
    CutOff,
    /// The sender hears of it, and the receiver goes on with what it has.
    Refuse,
}

/// Why an inbox did not take a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no room now.
    Full,
    /// It takes nothing any more, and can be forgotten.
    Closed,
}

/// A receiver's end. Dropping it ends all of its attachments.
#[derive(Debug)]
pub struct Subscription {
    messages: mpsc::Receiver<Waiting>,
    shared: Arc<Shared>,
    /// Nothing follows.
    ended: bool,
    /// Last, so that the receiver is gone before the broker hears of it.
    attachments: Vec<Attachment>,
}

/// Keeps an inbox on a topic until it is dropped.
#[must_use]
pub struct Attachment(Option<Box<dyn FnOnce() + Send + Sync>>);

/// A sender's end. Cheap to clone; clones share the room.
#[derive(Debug, Clone)]
pub struct Inbox {
    messages: mpsc::Sender<Waiting>,
    shared: Arc<Shared>,
}

/// A message delivered and not yet received.
type Waiting = (Message, Reservation);

/// What both ends know.
#[derive(Debug)]
struct Shared {
    overflow: Overflow,
    /// The receiver fell behind.
    cut_off: CancellationToken,
    /// For payloads delivered and not yet received.
    room: Budget,
    /// How many messages found no room.
    refused: AtomicU64,
}

impl Subscription {
    /// Both ends; up to `backlog` messages wait between them.
    pub fn new(backlog: usize, overflow: Overflow) -> (Inbox, Self) {
        Self::with_room(backlog, overflow, Budget::new(MAX_WAITING_BYTES))
    }

    /// The same for one of several receivers that share `room`.
    pub fn sharing(backlog: usize, overflow: Overflow, room: &Budget) -> (Inbox, Self) {
        Self::with_room(backlog, overflow, room.share(MAX_WAITING_BYTES))
    }

    fn with_room(backlog: usize, overflow: Overflow, room: Budget) -> (Inbox, Self) {
        let (sender, messages) = mpsc::channel(backlog);
        let shared = Arc::new(Shared {
            overflow,
            cut_off: CancellationToken::new(),
            room,
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

    /// Drops `attachment` together with this.
    pub fn keep(&mut self, attachment: Attachment) {
        self.attachments.push(attachment);
    }

    /// The next message; `None` once nobody can send any more. What was delivered before a cut-off
    /// is still received. Cancel safe.
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

    /// Takes nothing more in; `next` gives what was delivered before, and then `None`.
    pub fn close(&mut self) {
        self.messages.close();
    }
}

impl Attachment {
    /// Calls `leave` when it is dropped. That may not block, and a broker may not drop attachments
    /// under a lock that `leave` takes.
    pub fn new(leave: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(leave)))
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if let Some(leave) = self.0.take() {
            leave();
        }
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Attachment")
    }
}

impl Inbox {
    /// Puts the message in, if there is room.
    pub fn deliver(&self, message: Message) -> Result<(), Refusal> {
        if self.shared.cut_off.is_cancelled() {
            return Err(Refusal::Closed);
        }
        // One that is larger than the room takes all of it, so that a single message always fits.
        if let Some(room) = self.shared.room.try_reserve(message.payload.len()) {
            match self.messages.try_send((message, room)) {
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

    /// How many messages wait.
    pub fn waiting(&self) -> usize {
        self.messages.max_capacity() - self.messages.capacity()
    }

    /// How many messages found no room so far.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// How many messages may wait.
    pub fn capacity(&self) -> usize {
        self.messages.max_capacity()
    }
}
