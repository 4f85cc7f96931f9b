//! What a running attempt and the node tell each other, as a trait that the holder of the task's lease
//! implements.

use std::{fmt, time::Duration};

/// The node's side of one attempt. A guest may call it as often as its processor time allows, so no call may
/// block, wait or keep more than the latest value.
pub trait AttemptObserver: fmt::Debug + Send + Sync {
    /// Takes note of how far the attempt has come. Nothing in it has been checked.
    fn progress(&self, done: u64, total: u64, note: &str);

    /// Answers the guest whether it is to stop.
    fn is_cancelled(&self) -> bool;

    /// Returns how long the guest may go on once its call was cancelled.
    fn cancel_grace(&self) -> Duration;
}
