//! The faults of the queue in Redis, as the node's health shows them. An event that cannot be undone is
//! shown for a while.

use hostel_runtime::health::{Health, Part};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// No shard answers.
pub(super) const AWAY: &str = "away";
/// Some of the shards do not work.
pub(super) const SHARD: &str = "shard";
/// The server may evict tasks.
pub(super) const EVICTION: &str = "eviction";
/// The server has no memory for new tasks.
pub(super) const FULL: &str = "full";
/// The server has lost its data.
pub(super) const LOST: &str = "lost-data";
/// Records of tasks were damaged.
pub(super) const CORRUPT: &str = "corrupt";

/// How long an event is shown.
const SHOWN: Duration = Duration::from_secs(600);

/// Reports faults to the node's health.
pub(super) struct Faults {
    health: Health,
    /// When each kind of event last happened.
    events: Mutex<BTreeMap<&'static str, Instant>>,
}

impl Faults {
    pub fn new(health: Health) -> Self {
        Self {
            health,
            events: Mutex::default(),
        }
    }

    /// Reports that the queue does not work.
    pub fn down(&self, kind: &'static str, reason: String) {
        self.health.report(Part::Queue, kind, reason);
    }

    /// Reports that the queue works in part, or not as it should.
    pub fn degraded(&self, kind: &'static str, reason: String) {
        self.health.warn(Part::Queue, kind, reason);
    }

    /// Reports an event.
    pub fn event(&self, kind: &'static str, reason: String) {
        self.events.lock().insert(kind, Instant::now());
        self.degraded(kind, reason);
    }

    /// Reports that a fault is over.
    pub fn over(&self, kind: &'static str) {
        self.health.clear(Part::Queue, kind);
    }

    /// Removes events that were shown for long enough.
    pub fn expire_events(&self) {
        self.events.lock().retain(|kind, since| {
            let is_old = since.elapsed() > SHOWN;
            if is_old {
                self.over(kind);
            }
            !is_old
        });
    }
}
