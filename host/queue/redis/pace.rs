//! How calls of one kind are kept apart while many tasks come. A call costs Redis, and the socket, as
//! much as several tasks do; without a rest each would carry only what came during the one before it.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep_until};

/// How many tasks in one call are many. Below that nobody waits.
const MANY: usize = 4;

/// How far calls are apart then, from the beginning of one to the beginning of the next; the timer
/// makes up to twice that of it.
const APART: Duration = Duration::from_millis(1);

#[derive(Default)]
pub(super) struct Pace(Mutex<Option<Instant>>);

impl Pace {
    /// A call that began then has carried so many tasks.
    pub fn carried(&self, begun: Instant, tasks: usize) {
        let until = (tasks >= MANY).then(|| begun + APART);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// Waits until the next call is due.
    pub async fn rest(&self) {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
    async fn only_who_carries_much_rests() {
        let pace = Pace::default();
        assert!(pace.rest().now_or_never().is_some());
        let begun = Instant::now();
        pace.carried(begun + APART, MANY - 1);
        assert!(pace.rest().now_or_never().is_some());
        pace.carried(begun + APART, MANY);
        assert!(pace.rest().now_or_never().is_none());
        pace.rest().await;
        assert!(begun.elapsed() >= 2 * APART);
    }
}
