//! Nodes that left a moment ago. Most return at once, upgraded or after a crash, so the task types that
//! only they run are not refused meanwhile: their tasks wait.

use crate::{
    discovery::{NodeRecord, ServiceDiscovery},
    health::{Background, Health, Part},
};
use parking_lot::Mutex;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a node that left is expected to return: time for a drain, for the service manager and for a
/// start.
const GRACE: Duration = Duration::from_secs(60);

/// The nodes that left recently. Dropping it ends the watch.
pub(super) struct RecentlyLeft {
    left: Left,
    _watching: Background,
}

type Left = Arc<Mutex<Vec<(Instant, NodeRecord)>>>;

impl RecentlyLeft {
    /// Watches from here on. Must be called within a tokio runtime.
    pub fn new(discovery: Arc<dyn ServiceDiscovery>, health: &Health) -> Self {
        let left = Left::default();
        let leaving = left.clone();
        let watch = move || watch(discovery.clone(), leaving.clone());
        Self {
            left,
            _watching: health.restarting(Part::Discovery, "recently-left", watch),
        }
    }

    /// Whether `matches` is true for one of the nodes.
    pub fn any(&self, matches: impl Fn(&NodeRecord) -> bool) -> bool {
        self.left
            .lock()
            .iter()
            .any(|(at, node)| at.elapsed() < GRACE && matches(node))
    }
}

async fn watch(discovery: Arc<dyn ServiceDiscovery>, left: Left) {
    let mut changed = discovery.changed();
    let mut before = discovery.nodes();
    while changed.changed().await.is_ok() {
        let now = discovery.nodes();
        let is_live = |known: &NodeRecord| now.iter().any(|node| node.id == known.id);
        let mut left = left.lock();
        left.retain(|(at, node)| at.elapsed() < GRACE && !is_live(node));
        let gone = before.iter().filter(|node| !is_live(node));
        left.extend(gone.map(|node| (Instant::now(), node.clone())));
        before = now;
    }
}
