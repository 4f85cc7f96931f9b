//! What one tracker of ends has been told: which of its tasks may have ended, by their positions, and
//! whether it has to look for itself. Bounded, however often a task ends.

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The most signals that wait for a tracker. It looks for itself when there are more.
const MAX_SIGNALS: usize = 1 << 17;

/// The signals of one tracker.
#[derive(Debug, Default)]
pub(super) struct EndSignals {
    signals: Mutex<Signals>,
    woken: Notify,
}

/// What has been signalled since it was last taken.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// The positions of tasks that have ended.
    pub ended: Vec<u64>,
    /// Whether ends may have been missed, of any task.
    pub missed: bool,
}

impl EndSignals {
    /// Signals the end of a task.
    pub fn end(&self, position: u64) {
        let mut signals = self.signals.lock();
        if signals.ended.len() < MAX_SIGNALS {
            signals.ended.push(position);
        } else {
            signals.missed = true;
        }
        drop(signals);
        self.woken.notify_one();
    }

    /// Signals that ends may have been missed.
    pub fn miss(&self) {
        self.signals.lock().missed = true;
        self.woken.notify_one();
    }

    /// Takes what has been signalled.
    pub fn take(&self) -> Signals {
        std::mem::take(&mut *self.signals.lock())
    }

    /// Waits for a signal, or returns at once if there was one since the last wait. Cancel-safe.
    pub async fn signalled(&self) {
        self.woken.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn too_many_signals_become_a_miss() {
        let signals = EndSignals::default();
        for position in 0..=MAX_SIGNALS as u64 {
            signals.end(position);
        }
        signals.signalled().await;
        let taken = signals.take();
        assert_eq!(taken.ended.len(), MAX_SIGNALS);
        assert!(taken.missed);
        assert!(!signals.take().missed);
    }
}
