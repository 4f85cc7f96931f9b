//! What is wrong with the queue in Redis, as the node's health is told. What has happened, and cannot be
//! mended, is shown for a while.

use hostel_runtime::health::{Health, Part};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Redis does not answer, or does nothing of what it is asked.
pub(super) const AWAY: &str = "away";
/// Some of the shards do not work.
pub(super) const SHARD: &str = "shard";
/// The server may throw tasks away.
pub(super) const EVICTION: &str = "eviction";
/// The server has no memory for new tasks.
pub(super) const FULL: &str = "full";
/// The server has lost its data.
pub(super) const LOST: &str = "lost-data";
/// Records of tasks were damaged.
pub(super) const CORRUPT: &str = "corrupt";

/// For how long it is shown that something has happened.
const SHOWN: Duration = Duration::from_secs(600);

pub(super) struct Faults {
    health: Health,
    happened: Mutex<BTreeMap<&'static str, Instant>>,
}

impl Faults {
    pub fn new(health: Health) -> Self {
        Self {
            health,
            happened: Mutex::default(),
        }
    }

    /// The queue does not do its work.
    pub fn down(&self, kind: &'static str, reason: String) {
        self.health.report(Part::Queue, kind, reason);
    }

    /// It does, though not all of it, or not as it should.
    pub fn degraded(&self, kind: &'static str, reason: String) {
        self.health.warn(Part::Queue, kind, reason);
    }

    /// The same of something that has passed.
    pub fn happened(&self, kind: &'static str, reason: String) {
        self.lock().insert(kind, Instant::now());
        self.degraded(kind, reason);
    }

    pub fn over(&self, kind: &'static str) {
        self.health.clear(Part::Queue, kind);
    }

    /// Takes back what happened long ago.
    pub fn forget_old(&self) {
        self.lock().retain(|kind, since| {
            let is_old = since.elapsed() > SHOWN;
            if is_old {
                self.over(kind);
            }
            !is_old
        });
    }

    /// Every change under this lock is whole, so a panic elsewhere does not spoil it.
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, Instant>> {
        self.happened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
