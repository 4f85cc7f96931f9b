//! Waits for the changes after a cursor. What the queue publishes only wakes the wait; the queue's own record of
//! the changes is what is read, so a reader that falls behind holds nothing up.

use crate::queue::{ChangesRead, Error, TaskQueue};
use std::time::Duration;

/// The most changes of one read.
pub const MAX_CHANGES_READ: usize = 128;

/// How long a wait relies on the wake-up, and how long it takes at most.
const RECHECK_INTERVAL: Duration = Duration::from_secs(5);

/// How long after a wake-up the changes are read, so that those that follow at once need no read of their own.
const COALESCE: Duration = Duration::from_millis(20);

/// Returns the changes after a cursor, or none after some seconds without any. Without a cursor it returns the
/// one that later changes follow.
pub(super) async fn next(queue: &dyn TaskQueue, after: Option<&str>) -> Result<ChangesRead, Error> {
    // Begun before the read, so that no change between the two is missed.
    let mut watch = queue.watch();
    let read = queue.read_changes(after, MAX_CHANGES_READ).await?;
    if after.is_none() || read.resync || !read.changes.is_empty() {
        return Ok(read);
    }
    let _ = tokio::time::timeout(RECHECK_INTERVAL, watch.next()).await;
    drop(watch);
    tokio::time::sleep(COALESCE).await;
    queue.read_changes(after, MAX_CHANGES_READ).await
}
