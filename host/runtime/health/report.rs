//! `Health`: the faults of a node, reported and cleared by its parts.

use super::{
    part::{Fault, Faults, Part, Severity},
    registry::Registry,
};
use std::{sync::Arc, time::SystemTime};
use tokio::sync::watch;

/// The faults of one node. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    faults: watch::Sender<Faults>,
    background: Registry,
}

impl Health {
    pub(super) fn registry(&self) -> &Registry {
        &self.0.background
    }

    /// Reports a fault that keeps `part` from working. `kind` identifies it within the part, and `reason` says
    /// what happened and what to do. It is logged unless it was reported with the same reason before.
    pub fn report(&self, part: Part, kind: &'static str, reason: impl Into<String>) {
        self.set(part, kind, Severity::Down, reason.into());
    }

    /// Reports a fault despite which `part` works.
    pub fn warn(&self, part: Part, kind: &'static str, reason: impl Into<String>) {
        self.set(part, kind, Severity::Degraded, reason.into());
    }

    fn set(&self, part: Part, kind: &'static str, severity: Severity, reason: String) {
        let text = reason.clone();
        let changed = self.0.faults.send_if_modified(|faults| {
            let old = faults.get(&(part, kind));
            let same = old.is_some_and(|old| old.severity == severity && old.reason == reason);
            if !same {
                let since = old.map_or_else(SystemTime::now, |old| old.since);
                let fault = Fault {
                    severity,
                    reason,
                    since,
                };
                faults.insert((part, kind), fault);
            }
            !same
        });
        let part = part.as_str();
        match severity {
            _ if !changed => {}
            Severity::Degraded => tracing::warn!(part, kind, "{text}"),
            Severity::Down => tracing::error!(part, kind, "{text}"),
        }
    }

    /// Clears a fault, if there is one.
    pub fn clear(&self, part: Part, kind: &'static str) {
        let changed = self
            .0
            .faults
            .send_if_modified(|faults| faults.remove(&(part, kind)).is_some());
        if changed {
            tracing::info!(part = part.as_str(), kind, "the fault is over");
        }
    }

    /// The current faults.
    pub fn faults(&self) -> Faults {
        self.0.faults.borrow().clone()
    }

    /// The most severe fault of a part; `None` if it has none.
    pub fn worst_of(&self, part: Part) -> Option<Severity> {
        let faults = self.0.faults.borrow();
        let own = faults.iter().filter(|((of, _), _)| *of == part);
        own.map(|(_, fault)| fault.severity).max()
    }

    /// Whether the node works: no vital part is down.
    pub fn is_serving(&self) -> bool {
        let mut vital = Part::ALL.into_iter().filter(|part| part.is_vital());
        !vital.any(|part| self.worst_of(part) == Some(Severity::Down))
    }

    /// Changes with every fault that is reported or cleared.
    pub fn changed(&self) -> watch::Receiver<Faults> {
        self.0.faults.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_stands_until_it_is_cleared() {
        let health = Health::default();
        let mut changed = health.changed();
        health
            .clone()
            .report(Part::Queue, "full", "the disk is full");
        assert!(changed.has_changed().unwrap());
        changed.mark_unchanged();
        health.report(Part::Queue, "full", "the disk is full");
        assert!(!changed.has_changed().unwrap());
        health.report(Part::Queue, "full", "still full");
        health.warn(Part::Broker, "away", "refused");
        let severities: Vec<_> = health
            .faults()
            .into_values()
            .map(|it| it.severity)
            .collect();
        assert_eq!(severities, [Severity::Down, Severity::Degraded]);
        assert!(!health.is_serving());
        assert_eq!(health.worst_of(Part::Broker), Some(Severity::Degraded));
        health.clear(Part::Queue, "full");
        health.clear(Part::Queue, "full");
        assert!(health.is_serving());
        let left: Vec<_> = health.faults().into_keys().collect();
        assert_eq!(left, [(Part::Broker, "away")]);
    }
}
