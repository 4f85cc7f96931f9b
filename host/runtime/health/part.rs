//! Parts of a node and their faults, as values.

use std::{collections::BTreeMap, fmt, time::SystemTime};

/// A part of a node with faults of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The task queue.
    Queue,
    /// The worker, which runs tasks.
    Worker,
    /// The plugin host.
    Plugins,
    /// The view of the cluster.
    Discovery,
    /// The message broker.
    Broker,
    /// The key-value store of plugins.
    KeyValue,
    /// The gRPC server.
    Api,
}

impl Part {
    /// All parts, in the order of lists.
    pub const ALL: [Self; 7] = [
        Self::Queue,
        Self::Worker,
        Self::Plugins,
        Self::Discovery,
        Self::Broker,
        Self::KeyValue,
        Self::Api,
    ];

    /// The name of the part in lists and as a service of gRPC health.
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

    /// Whether a node does no work while this part is down.
    pub fn is_vital(self) -> bool {
        matches!(self, Self::Queue | Self::Worker)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How severe a fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The part works, but needs attention, for example because of a damaged record, or because a full store
    /// refuses submissions.
    Degraded,
    /// The part does not work.
    Down,
}

impl Severity {
    /// The name of the severity on the wire and in lists.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }
}

/// A fault of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// How severe it is.
    pub severity: Severity,
    /// What happened and what to do.
    pub reason: String,
    /// When it was first reported.
    pub since: SystemTime,
}

/// The faults by part and by kind.
pub type Faults = BTreeMap<(Part, &'static str), Fault>;
