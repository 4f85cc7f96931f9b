//! Nodes that left a moment ago. Most come back at once, with another version or after a crash, and
//! what they run is not refused meanwhile: it waits for them.

use crate::{
    discovery::{NodeRecord, ServiceDiscovery},
    health::{Background, Health, Part},
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How long a node that left is expected back: a drain, a start and some time for who restarts it.
const EXPECTED_BACK: Duration = Duration::from_secs(60);

/// Dropping it ends the watch.
pub(super) struct Departed {
    left: Left,
    _watching: Background,
}

type Left = Arc<Mutex<Vec<(Instant, NodeRecord)>>>;

impl Departed {
    /// Watches from here on; must be called within a tokio runtime.
    pub fn new(discovery: Arc<dyn ServiceDiscovery>, health: &Health) -> Self {
        let left = Left::default();
        let leaving = left.clone();
        let watch = move || watch(discovery.clone(), leaving.clone());
        Self {
            left,
            _watching: health.restarting(Part::Discovery, "departed-nodes", watch),
        }
    }

    /// Whether a node that is expected back is such a one.
    pub fn any(&self, is_such: impl Fn(&NodeRecord) -> bool) -> bool {
        lock(&self.left)
            .iter()
            .any(|(at, node)| at.elapsed() < EXPECTED_BACK && is_such(node))
    }
}

async fn watch(discovery: Arc<dyn ServiceDiscovery>, left: Left) {
    let mut changed = discovery.changed();
    let mut before = discovery.nodes();
    while changed.changed().await.is_ok() {
        let now = discovery.nodes();
        let is_there = |known: &NodeRecord| now.iter().any(|node| node.id == known.id);
        let mut left = lock(&left);
        left.retain(|(at, node)| at.elapsed() < EXPECTED_BACK && !is_there(node));
        let gone = before.iter().filter(|node| !is_there(node));
        left.extend(gone.map(|node| (Instant::now(), node.clone())));
        before = now;
    }
}

/// Every change under this lock is whole, so a panic elsewhere does not spoil it.
fn lock(left: &Left) -> MutexGuard<'_, Vec<(Instant, NodeRecord)>> {
    left.lock().unwrap_or_else(PoisonError::into_inner)
}
