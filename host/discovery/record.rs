//! What is known about a service and about a node, and the rules that every implementation applies
//! to them. No clock, no storage.

use super::{Error, NODE_SERVICE};
use hostel_task::Name;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// The shortest and the longest time to live that is granted; what is asked for beyond is cut.
pub const MIN_TTL: Duration = Duration::from_secs(1);
pub const MAX_TTL: Duration = Duration::from_secs(24 * 3600);

/// What one service may say about itself: its address, and its metadata as `ServiceInfo::size`
/// counts it.
pub const MAX_SERVICE_BYTES: usize = 16 << 10;

/// What a metadata entry costs beside its text, so that many tiny ones are not free.
const ENTRY_BYTES: usize = 32;

/// A service that a client registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceInfo {
    pub id: Name,
    pub name: Name,
    pub address: String,
    pub metadata: BTreeMap<String, String>,
    /// How long it lives without being renewed; `None` asks for the default.
    pub ttl: Option<Duration>,
}

impl ServiceInfo {
    /// Whether a client may register this.
    pub fn check(&self) -> Result<(), Error> {
        if self.name.as_str() == NODE_SERVICE {
            return Err(Error::Reserved);
        }
        let (given, limit) = (self.size(), MAX_SERVICE_BYTES);
        match given > limit {
            true => Err(Error::TooLarge { given, limit }),
            false => Ok(()),
        }
    }

    /// In bytes: the address, and each metadata entry with 32 for itself.
    pub fn size(&self) -> usize {
        let entries = self.metadata.iter();
        let metadata: usize = entries.map(|(k, v)| k.len() + v.len() + ENTRY_BYTES).sum();
        self.address.len() + metadata
    }

    /// How long it may live: what it asks for or else `default`, within the allowed range.
    pub fn granted_ttl(&self, default: Duration) -> Duration {
        self.ttl.unwrap_or(default).clamp(MIN_TTL, MAX_TTL)
    }
}

/// A node and what it can run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    pub id: Name,
    pub address: String,
    pub version: String,
    pub task_types: BTreeSet<Name>,
    pub plugins: Vec<PluginRecord>,
    /// The ids of its components.
    #[serde(default)]
    pub components: Vec<Name>,
    /// How many tasks it runs at once; 0 where it runs none, or is too old to say.
    #[serde(default)]
    pub capacity: usize,
    /// What its operator says of it: where it is, what it has.
    #[serde(default)]
    pub labels: Vec<Name>,
    /// Whether it is still loading the plugins that it found at its start, so that it may handle more
    /// task types soon.
    #[serde(default)]
    pub starting: bool,
    /// Task types of plugins that it is loading, and will handle unless they are refused.
    #[serde(default)]
    pub expected_types: Vec<Name>,
}

impl NodeRecord {
    /// Whether it can run tasks of this type.
    pub fn handles(&self, task_type: &Name) -> bool {
        self.task_types.contains(task_type)
    }

    /// Whether it can, or is loading a plugin that could.
    pub fn expects(&self, task_type: &Name) -> bool {
        self.handles(task_type) || self.expected_types.contains(task_type)
    }

    /// A node of this version that can run nothing yet.
    pub fn new(id: Name, address: impl Into<String>) -> Self {
        Self {
            id,
            address: address.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            task_types: BTreeSet::new(),
            plugins: Vec::new(),
            components: Vec::new(),
            capacity: 0,
            labels: Vec::new(),
            starting: false,
            expected_types: Vec::new(),
        }
    }

    /// The node as a service of the name `name`, which is `NODE_SERVICE`. Lists in its metadata
    /// have commas between their items, which no name contains.
    pub fn as_service(&self, name: &Name) -> ServiceInfo {
        let plugin = |plugin: &PluginRecord| format!("{}@{}", plugin.name, plugin.version);
        let plugins: Vec<String> = self.plugins.iter().map(plugin).collect();
        let metadata = [
            ("version", self.version.clone()),
            ("task_types", joined(self.task_types.iter())),
            ("components", joined(self.components.iter())),
            ("plugins", plugins.join(",")),
            ("capacity", self.capacity.to_string()),
            ("labels", joined(self.labels.iter())),
        ];
        ServiceInfo {
            id: self.id.clone(),
            name: name.clone(),
            address: self.address.clone(),
            metadata: metadata.map(|(key, value)| (key.into(), value)).into(),
            ttl: None,
        }
    }
}

fn joined<'n>(names: impl Iterator<Item = &'n Name>) -> String {
    names.map(Name::as_str).collect::<Vec<_>>().join(",")
}

/// One plugin generation that a node serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginRecord {
    pub name: Name,
    pub version: String,
    pub sha256: String,
}
