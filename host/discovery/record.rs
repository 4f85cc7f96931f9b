//! The records of services and nodes, and the rules that every implementation applies to them.

use super::error::{Error, NODE_SERVICE};
use hostel_task::Name;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// The shortest time to live that is granted; a shorter one is raised to it.
pub const MIN_TTL: Duration = Duration::from_secs(1);
/// The longest time to live that is granted; a longer one is reduced to it.
pub const MAX_TTL: Duration = Duration::from_secs(24 * 3600);

/// How many bytes address and metadata of a service may have, as `ServiceInfo::size` counts them.
pub const MAX_SERVICE_BYTES: usize = 16 << 10;

/// What a metadata entry counts besides its text, so that many tiny ones are not free.
const ENTRY_BYTES: usize = 32;

/// A service that a client registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceInfo {
    /// Distinguishes instances of the service.
    pub id: Name,
    /// The name under which the service is found.
    pub name: Name,
    /// Where its clients reach it.
    pub address: String,
    /// Further properties of the service.
    pub metadata: BTreeMap<String, String>,
    /// How long it lives without being renewed; `None` requests the default.
    pub ttl: Option<Duration>,
}

impl ServiceInfo {
    /// Checks whether a client may register this service.
    pub fn check(&self) -> Result<(), Error> {
        if self.name.as_str() == NODE_SERVICE {
            return Err(Error::Reserved);
        }
        let (given, limit) = (self.size(), MAX_SERVICE_BYTES);
        if given > limit {
            return Err(Error::TooLarge { given, limit });
        }
        Ok(())
    }

    /// The size in bytes: the address, and each metadata entry with 32 bytes added.
    pub fn size(&self) -> usize {
        let entries = self.metadata.iter();
        let metadata: usize = entries.map(|(k, v)| k.len() + v.len() + ENTRY_BYTES).sum();
        self.address.len() + metadata
    }

    /// The time to live to grant: the requested one or else `default`, clamped to the allowed range.
    pub fn granted_ttl(&self, default: Duration) -> Duration {
        self.ttl.unwrap_or(default).clamp(MIN_TTL, MAX_TTL)
    }
}

/// A node and what it can run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The id of the node, unique in its cluster.
    pub id: Name,
    /// Where other nodes and clients reach it.
    pub address: String,
    /// The version of Hostel.
    pub version: String,
    /// The task types that it runs.
    pub task_types: BTreeSet<Name>,
    /// The plugins that it serves.
    pub plugins: Vec<PluginRecord>,
    /// The ids of its components.
    #[serde(default)]
    pub components: Vec<Name>,
    /// How many tasks it runs at once; 0 if it runs none or is of a version that does not report it.
    #[serde(default)]
    pub capacity: usize,
    /// Labels of the node; a task may require one.
    #[serde(default)]
    pub labels: Vec<Name>,
    /// Whether it is still loading the plugins that it found at its start, and may soon handle more task
    /// types.
    #[serde(default)]
    pub starting: bool,
    /// Task types of plugins that it is loading, which it will handle unless the plugins are refused.
    #[serde(default)]
    pub expected_types: Vec<Name>,
}

impl NodeRecord {
    /// Whether the node runs tasks of this type.
    pub fn handles(&self, task_type: &Name) -> bool {
        self.task_types.contains(task_type)
    }

    /// Whether the node runs tasks of this type, or is loading a plugin that does.
    pub fn expects(&self, task_type: &Name) -> bool {
        self.handles(task_type) || self.expected_types.contains(task_type)
    }

    /// Creates the record of a node of this version that runs nothing yet.
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

    /// Returns the node as a service named `name`, which is `NODE_SERVICE`. Lists in its metadata are
    /// separated by commas, which no name contains.
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

/// Copies the services of a name, unless they have more than `max_bytes` together.
pub(super) fn copy_within<'s>(
    services: impl Iterator<Item = &'s ServiceInfo> + Clone,
    max_bytes: usize,
) -> Result<Vec<ServiceInfo>, Error> {
    check_total(services.clone().map(ServiceInfo::size), max_bytes)?;
    Ok(services.cloned().collect())
}

/// Returns nodes as services named `name`, unless they have more than `max_bytes` together.
pub(super) fn nodes_within(
    nodes: &[NodeRecord],
    name: &Name,
    max_bytes: usize,
) -> Result<Vec<ServiceInfo>, Error> {
    // One at a time, since each has to be made to know its size.
    check_total(nodes.iter().map(|it| it.as_service(name).size()), max_bytes)?;
    Ok(nodes.iter().map(|node| node.as_service(name)).collect())
}

/// Fails once the sizes have added up to more than `limit`.
fn check_total(mut sizes: impl Iterator<Item = usize>, limit: usize) -> Result<(), Error> {
    let left = sizes.try_fold(limit, usize::checked_sub);
    left.map(drop).ok_or(Error::ResponseTooLarge { limit })
}

fn joined<'n>(names: impl Iterator<Item = &'n Name>) -> String {
    names.map(Name::as_str).collect::<Vec<_>>().join(",")
}

/// Fails unless `node` is registered or has a drain request.
pub(super) fn check_known(
    node: &Name,
    nodes: &[NodeRecord],
    drained: &BTreeSet<Name>,
) -> Result<(), Error> {
    let ids = nodes.iter().map(|node| &node.id);
    let known: BTreeSet<&Name> = ids.chain(drained).collect();
    if known.contains(node) {
        return Ok(());
    }
    Err(Error::UnknownNode {
        node: node.clone(),
        known: known.into_iter().cloned().collect(),
    })
}

/// One plugin generation that a node serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginRecord {
    /// The name of the plugin.
    pub name: Name,
    /// Its version, as its author set it.
    pub version: String,
    /// The SHA-256 of its file, in hexadecimal digits.
    pub sha256: String,
}
