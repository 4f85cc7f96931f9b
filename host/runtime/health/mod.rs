//! What is wrong with a node, by part: each part reports its faults here and takes them back, and
//! gRPC health, the log and `hostel nodes health` read them. `background` supervises what runs behind
//! the calls, whose end is a fault as well.

mod background;

pub use background::{Background, BackgroundThread};

use background::Registry;
use std::{collections::BTreeMap, fmt, sync::Arc, time::SystemTime};
use tokio::sync::watch;

/// A part of a node that can be unwell by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Queue,
    Worker,
    Plugins,
    Discovery,
    Broker,
    KeyValue,
    Api,
}

impl Part {
    pub const ALL: [Self; 7] = [
        Self::Queue,
        Self::Worker,
        Self::Plugins,
        Self::Discovery,
        Self::Broker,
        Self::KeyValue,
        Self::Api,
    ];

    /// Its name as a service of gRPC health and in lists.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Worker => "worker",
            Self::Plugins => "plugins",
            Self::Discovery => "discovery",
            Self::Broker => "broker",
            Self::KeyValue => "keyvalue",
            Self::Api => "api",
        }
    }

    /// Whether a node can do no work while this part has a fault.
    pub fn is_vital(self) -> bool {
        matches!(self, Self::Queue | Self::Worker)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How much of its work a part still does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Its work goes on, and something needs attention: a full store that refuses submissions only,
    /// or a damaged record.
    Degraded,
    /// It does not do its work.
    Down,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }
}

/// Something that is wrong with a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub severity: Severity,
    /// What happened and what to do.
    pub reason: String,
    /// When the first report of it came.
    pub since: SystemTime,
}

/// The faults of each part, by a short name of their kind.
pub type Faults = BTreeMap<(Part, &'static str), Fault>;

/// The faults of one node. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    faults: watch::Sender<Faults>,
    background: Registry,
}

impl Health {
    fn registry(&self) -> &Registry {
        &self.0.background
    }

    /// Reports a fault that keeps `part` from its work; `kind` names it among the part's own,
    /// `reason` says what happened and what to do. Logs it unless it stands with the same reason.
    pub fn report(&self, part: Part, kind: &'static str, reason: impl Into<String>) {
        self.set(part, kind, Severity::Down, reason.into());
    }

    /// The same for a fault beside which the work of `part` goes on.
    pub fn warn(&self, part: Part, kind: &'static str, reason: impl Into<String>) {
        self.set(part, kind, Severity::Degraded, reason.into());
    }

    fn set(&self, part: Part, kind: &'static str, severity: Severity, reason: String) {
        let text = reason.clone();
        let news = self.0.faults.send_if_modified(|faults| {
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
            _ if !news => {}
            Severity::Degraded => tracing::warn!(part, kind, "{text}"),
            Severity::Down => tracing::error!(part, kind, "{text}"),
        }
    }

    /// Takes a fault back; does nothing where there is none.
    pub fn clear(&self, part: Part, kind: &'static str) {
        let news = self
            .0
            .faults
            .send_if_modified(|faults| faults.remove(&(part, kind)).is_some());
        if news {
            tracing::info!(part = part.as_str(), kind, "the fault is over");
        }
    }

    /// The faults that stand now.
    pub fn faults(&self) -> Faults {
        self.0.faults.borrow().clone()
    }

    /// How much of its work a part does: `None` when all of it.
    pub fn worst_of(&self, part: Part) -> Option<Severity> {
        let faults = self.0.faults.borrow();
        let own = faults.iter().filter(|((of, _), _)| *of == part);
        own.map(|(_, fault)| fault.severity).max()
    }

    /// Whether the node does its work: no vital part is down.
    pub fn is_serving(&self) -> bool {
        let mut vital = Part::ALL.into_iter().filter(|part| part.is_vital());
        !vital.any(|part| self.worst_of(part) == Some(Severity::Down))
    }

    /// Changes with every fault that is reported or taken back.
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
