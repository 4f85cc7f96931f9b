//! The receiving end of a topic: bounded, and honest about what it lost.

use super::Message;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::mpsc::{self, error::TrySendError};

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
    cut_off: Arc<AtomicBool>,
    /// Last, so that the receiver is gone before the broker hears of it.
    leaving: Option<Leaving>,
}

/// Does something when it is dropped.
struct Leaving(Option<Box<dyn FnOnce() + Send + Sync>>);

/// The broker's end.
#[derive(Debug)]
pub struct Delivery {
    messages: mpsc::Sender<Message>,
    cut_off: Arc<AtomicBool>,
}

impl Subscription {
    /// Both ends; up to `backlog` messages wait between them.
    pub fn new(backlog: usize) -> (Delivery, Self) {
        let (sender, receiver) = mpsc::channel(backlog);
        let cut_off = Arc::new(AtomicBool::new(false));
        let delivery = Delivery {
            messages: sender,
            cut_off: cut_off.clone(),
        };
        let subscription = Self {
            messages: receiver,
            cut_off,
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
            Some(message) => Some(Received::Message(message)),
            None if self.cut_off.swap(false, Ordering::AcqRel) => Some(Received::CutOff),
            None => None,
        }
    }

    /// A message that has been delivered already, if there is one.
    pub fn try_next(&mut self) -> Option<Message> {
        self.messages.try_recv().ok()
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
        match self.messages.try_send(message) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.cut_off.store(true, Ordering::Release);
                false
            }
            Err(TrySendError::Closed(_)) => false,
        }
    }

    /// Whether anyone is still there.
    pub fn is_open(&self) -> bool {
        !self.messages.is_closed()
    }
}
