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
/// The changes that other nodes make cannot be read.
pub(super) const EVENTS: &str = "events";

/// How long an event is shown.
const SHOWN: Duration = Duration::from_secs(600);

/// Reports faults to the node's health.
pub(super) struct Faults {
    health: Health,
    /// When each kind of event last happened.
    events: Mutex<BTreeMap<&'static str, Instant>>,
    /// The shards whose stream of events cannot be read, and why.
    unread: Mutex<BTreeMap<usize, String>>,
}

impl Faults {
    pub fn new(health: Health) -> Self {
        Self {
            health,
            events: Mutex::default(),
            unread: Mutex::default(),
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

    /// Reports that the stream of events of a shard cannot be read.
    pub fn events_failed(&self, shard: usize, why: String) {
        let mut unread = self.unread.lock();
        unread.insert(shard, why);
        self.report_unread(&unread);
    }

    /// Reports that the stream of events of a shard can be read.
    pub fn events_read(&self, shard: usize) {
        let mut unread = self.unread.lock();
        if unread.remove(&shard).is_some() {
            self.report_unread(&unread);
        }
    }

    fn report_unread(&self, unread: &BTreeMap<usize, String>) {
        let Some(why) = unread.values().next() else {
            return self.over(EVENTS);
        };
        let shards: Vec<_> = unread.keys().map(usize::to_string).collect();
        let shards = shards.join(", ");
        self.degraded(
            EVENTS,
            format!(
                "this node cannot read the events of the queue's shards {shards}, and notices late what \
                 other nodes do there: {why}"
            ),
        );
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unread_events_are_shown_until_every_shard_is_read() {
        let health = Health::default();
        let faults = Faults::new(health.clone());
        let shown = || {
            let fault = health.faults().remove(&(Part::Queue, EVENTS));
            fault.map(|fault| fault.reason)
        };
        faults.events_failed(2, "no XREAD".into());
        faults.events_failed(0, "no XREAD".into());
        let reason = shown().unwrap();
        assert!(
            reason.contains("shards 0, 2") && reason.ends_with("no XREAD"),
            "{reason}"
        );
        faults.events_read(0);
        faults.events_read(1);
        assert!(shown().unwrap().contains("shards 2,"));
        faults.events_read(2);
        assert_eq!(shown(), None);
    }
}
