//! What is wrong with a node, by part: each part reports its faults here and takes them back, and
//! gRPC health, the log and the list of nodes read them. Decides nothing.

use std::{collections::BTreeMap, fmt, sync::Arc};
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

/// Something that is wrong with a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub severity: Severity,
    /// What happened and what to do.
    pub reason: String,
}

/// The faults of each part, by a short name of their kind.
pub type Faults = BTreeMap<(Part, &'static str), Fault>;

/// The faults of one node. Clones share them.
#[derive(Debug, Clone)]
pub struct Health(Arc<watch::Sender<Faults>>);

impl Default for Health {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Faults::new())))
    }
}

impl Health {
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
        let fault = Fault { severity, reason };
        let news = self.0.send_if_modified(|faults| {
            let same = faults.get(&(part, kind)) == Some(&fault);
            if !same {
                faults.insert((part, kind), fault.clone());
            }
            !same
        });
        let (part, reason) = (part.as_str(), &fault.reason);
        match severity {
            _ if !news => {}
            Severity::Degraded => tracing::warn!(part, kind, "{reason}"),
            Severity::Down => tracing::error!(part, kind, "{reason}"),
        }
    }

    /// Takes a fault back; does nothing where there is none.
    pub fn clear(&self, part: Part, kind: &'static str) {
        let news = self
            .0
            .send_if_modified(|faults| faults.remove(&(part, kind)).is_some());
        if news {
            tracing::info!(part = part.as_str(), kind, "the fault is over");
        }
    }

    /// The faults that stand now.
    pub fn faults(&self) -> Faults {
        self.0.borrow().clone()
    }

    /// Changes with every fault that is reported or taken back.
    pub fn changed(&self) -> watch::Receiver<Faults> {
        self.0.subscribe()
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
        health.clear(Part::Queue, "full");
        health.clear(Part::Queue, "full");
        let left: Vec<_> = health.faults().into_keys().collect();
        assert_eq!(left, [(Part::Broker, "away")]);
    }
}
