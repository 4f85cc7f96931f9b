//! Receiving from a channel on a thread, with a timeout. Needs no runtime, which may end before the
//! thread does.

use std::{
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};
use tokio::sync::mpsc::Receiver;

/// How a wait for messages ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    Some,
    /// The timeout has passed.
    Idle,
    /// The channel is closed and empty.
    Closed,
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Adds up to `max` messages to `buffer` as soon as there is one. Blocks for up to `timeout`.
pub fn receive<T>(
    receiver: &mut Receiver<T>,
    buffer: &mut Vec<T>,
    max: usize,
    timeout: Duration,
) -> Received {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let deadline = Instant::now() + timeout;
    loop {
        match receiver.poll_recv_many(&mut context, buffer, max) {
            Poll::Ready(0) => return Received::Closed,
            Poll::Ready(_) => return Received::Some,
            Poll::Pending => {}
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Received::Idle;
        }
        thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    #[test]
    fn a_wait_ends_with_a_message_a_timeout_or_the_last_sender() {
        let (sender, mut receiver) = mpsc::channel(4);
        let mut got = Vec::new();
        let mut wait = |ms| receive(&mut receiver, &mut got, 9, Duration::from_millis(ms));
        assert_eq!(wait(1), Received::Idle);
        let later = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            sender.blocking_send(7).unwrap();
        });
        assert_eq!(wait(60_000), Received::Some);
        later.join().unwrap();
        assert_eq!(wait(60_000), Received::Closed);
        assert_eq!(got, [7]);
    }
}
