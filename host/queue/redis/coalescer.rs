//! Spaces calls of one kind while many tasks come, so that each carries several. A call costs Redis and
//! the socket as much as several tasks do; without spacing each call would carry only what came during the
//! one before it.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// After a call with fewer tasks the next one does not wait.
const MANY: usize = 4;

/// The time from the beginning of a call to the beginning of the next; the resolution of the timer makes
/// it up to twice as long.
const SPACING: Duration = Duration::from_millis(1);

/// When the next call of a kind is due.
#[derive(Default)]
pub(super) struct Coalescer(Mutex<Option<Instant>>);

impl Coalescer {
    /// Records a call that began at `begun` with so many tasks.
    pub fn record(&self, begun: Instant, tasks: usize) {
        *self.0.lock() = (tasks >= MANY).then(|| begun + SPACING);
    }

    /// Waits until the next call is due.
    pub async fn wait(&self) {
        let until = *self.0.lock();
        if let Some(until) = until.filter(|&until| until > Instant::now()) {
            sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn only_calls_with_many_tasks_are_spaced() {
        let coalescer = Coalescer::default();
        assert!(coalescer.wait().now_or_never().is_some());
        let begun = Instant::now();
        coalescer.record(begun + SPACING, MANY - 1);
        assert!(coalescer.wait().now_or_never().is_some());
        coalescer.record(begun + SPACING, MANY);
        assert!(coalescer.wait().now_or_never().is_none());
        coalescer.wait().await;
        assert!(begun.elapsed() >= 2 * SPACING);
    }
}
