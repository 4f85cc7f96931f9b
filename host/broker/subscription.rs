//! The receiving end of a topic: bounded, and honest about what it lost.

use super::Message;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use tokio::sync::mpsc::{self, error::TrySendError};

/// The most payload bytes that wait for one subscriber, however few messages that is.
const MAX_WAITING_BYTES: usize = 16 << 20;

/// What a subscriber gets next.
#[derive(Debug)]
pub enum Received {
    Message(Message),
    /// The subscriber fell behind and was cut off; nothing follows.
    CutOff,
}

/// A subscriber's end. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription {
    messages: mpsc::Receiver<Message>,
    shared: Arc<Shared>,
    /// Last, so that the receiver is gone before the broker hears of it.
    leaving: Option<Leaving>,
}

/// Does something when it is dropped.
struct Leaving(Option<Box<dyn FnOnce() + Send + Sync>>);

/// The broker's end.
#[derive(Debug)]
pub struct Delivery {
    messages: mpsc::Sender<Message>,
    shared: Arc<Shared>,
}

/// What both ends know.
#[derive(Debug, Default)]
struct Shared {
    /// The subscriber fell behind.
    cut_off: AtomicBool,
    /// Payload bytes delivered and not yet received.
    waiting: AtomicUsize,
}

impl Subscription {
    /// Both ends; up to `backlog` messages wait between them.
    pub fn new(backlog: usize) -> (Delivery, Self) {
        let (sender, receiver) = mpsc::channel(backlog);
        let shared = Arc::<Shared>::default();
        let delivery = Delivery {
            messages: sender,
            shared: shared.clone(),
        };
        let subscription = Self {
            messages: receiver,
            shared,
            leaving: None,
        };
        (delivery, subscription)
    }

    /// Calls `leave` once the subscription has been dropped, so that the broker can forget it. It
    /// may not block, and the broker may not drop subscriptions under a lock that it takes.
    pub fn on_drop(mut self, leave: impl FnOnce() + Send + Sync + 'static) -> Self {
        self.leaving = Some(Leaving(Some(Box::new(leave))));
        self
    }

    /// The next message; `None` once the broker is gone. What was delivered before a cut-off is
    /// still received. Cancel safe.
    pub async fn next(&mut self) -> Option<Received> {
        match self.messages.recv().await {
            Some(message) => {
                let bytes = message.payload.len();
                self.shared.waiting.fetch_sub(bytes, Ordering::AcqRel);
                Some(Received::Message(message))
            }
            None if self.shared.cut_off.swap(false, Ordering::AcqRel) => Some(Received::CutOff),
            None => None,
        }
    }

    /// Takes nothing more in; `next` gives what was delivered before, and then `None`.
    pub fn close(&mut self) {
        self.messages.close();
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(leave) = self.0.take() {
            leave();
        }
    }
}

impl fmt::Debug for Leaving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Leaving")
    }
}

impl Delivery {
    /// Whether the subscriber took the message. After `false` the delivery is of no more use.
    pub fn deliver(&self, message: Message) -> bool {
        let bytes = message.payload.len();
        let waiting = self.shared.waiting.fetch_add(bytes, Ordering::AcqRel);
        // A single message fits always: its size has a limit of its own.
        let sent = match waiting == 0 || waiting + bytes <= MAX_WAITING_BYTES {
            true => self.messages.try_send(message),
            false => Err(TrySendError::Full(message)),
        };
        if let Err(TrySendError::Full(_)) = sent {
            self.shared.cut_off.store(true, Ordering::Release);
        }
        sent.is_ok()
    }
}
