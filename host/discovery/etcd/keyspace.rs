//! The keys in etcd and their values: `PREFIX/nodes/ID`, `PREFIX/drained/ID` and
//! `PREFIX/services/NAME/ID`, as JSON. Fields that a later version adds are ignored. `PREFIX/store` is in
//! `store_identity.rs`.

use crate::record::{NodeRecord, ServiceInfo};
use hostel_task::Name;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// A key below the prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Node(Name),
    /// The drain request of a node. It has no lease, so it outlives the node.
    Drained(Name),
    /// A service by name and id.
    Service(Name, Name),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    Node(RegisteredNode),
    Drained(Name),
    Service(ServiceInfo),
}

/// A node's record, and the instance that wrote it: two nodes may be given the same id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RegisteredNode {
    #[serde(flatten)]
    pub record: NodeRecord,
    pub instance: String,
}

/// A service without its name and id, which are in its key.
#[derive(Serialize, Deserialize)]
struct ServiceValue {
    address: String,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    ttl_ms: Option<u64>,
}

impl Key {
    /// Returns the key as etcd has it. No name contains a `/`, so no key is a prefix of another.
    pub fn path(&self, prefix: &str) -> String {
        match self {
            Self::Node(id) => format!("{prefix}/nodes/{id}"),
            Self::Drained(id) => format!("{prefix}/drained/{id}"),
            Self::Service(name, id) => format!("{prefix}/services/{name}/{id}"),
        }
    }

    /// Parses a key; `None` if it is none of these.
    pub fn parse(prefix: &str, key: &[u8]) -> Option<Self> {
        let key = std::str::from_utf8(key).ok()?;
        let mut parts = key.strip_prefix(prefix)?.strip_prefix('/')?.split('/');
        let kind = parts.next()?;
        let mut name = || Name::parse("name", parts.next()?).ok();
        let key = match kind {
            "nodes" => Self::Node(name()?),
            "drained" => Self::Drained(name()?),
            "services" => Self::Service(name()?, name()?),
            _ => return None,
        };
        parts.next().is_none().then_some(key)
    }

    /// Whether the entry is one of those that `View::nodes` and `View::drained` return. Services, which
    /// are renewed all the time, are not.
    pub fn is_shown(&self) -> bool {
        match self {
            Self::Node(_) | Self::Drained(_) => true,
            Self::Service(..) => false,
        }
    }
}

impl Entry {
    /// The key of the entry.
    pub fn key(&self) -> Key {
        match self {
            Self::Node(node) => Key::Node(node.record.id.clone()),
            Self::Drained(id) => Key::Drained(id.clone()),
            Self::Service(info) => Key::Service(info.name.clone(), info.id.clone()),
        }
    }

    /// The value of the entry as etcd has it.
    pub fn value(&self) -> Result<Vec<u8>, serde_json::Error> {
        match self {
            Self::Node(node) => serde_json::to_vec(node),
            // The key alone is the request.
            Self::Drained(_) => Ok(b"{}".into()),
            Self::Service(info) => serde_json::to_vec(&ServiceValue {
                address: info.address.clone(),
                metadata: info.metadata.clone(),
                ttl_ms: info
                    .ttl
                    .map(|ttl| ttl.as_millis().try_into().unwrap_or(u64::MAX)),
            }),
        }
    }

    /// Parses the value of `key`.
    pub fn parse(key: &Key, value: &[u8]) -> Result<Self, String> {
        let entry = match key {
            Key::Node(_) => serde_json::from_slice(value).map(Self::Node),
            Key::Drained(id) => Ok(Self::Drained(id.clone())),
            Key::Service(name, id) => serde_json::from_slice(value).map(|value: ServiceValue| {
                Self::Service(ServiceInfo {
                    id: id.clone(),
                    name: name.clone(),
                    address: value.address,
                    metadata: value.metadata,
                    ttl: value.ttl_ms.map(Duration::from_millis),
                })
            }),
        };
        let entry = entry.map_err(|error| error.to_string())?;
        if entry.key() != *key {
            return Err("its id is not the one of its key".into());
        }
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse("name", text).unwrap()
    }

    #[test]
    fn parsing_a_key_reverses_its_path() {
        for key in [
            Key::Node(name("node-1")),
            Key::Drained(name("node-1")),
            Key::Service(name("web"), name("nodes")),
        ] {
            let path = key.path("/a/b");
            assert_eq!(Key::parse("/a/b", path.as_bytes()), Some(key));
            assert_eq!(Key::parse("/a", path.as_bytes()), None);
            assert_eq!(Key::parse("/a/b", format!("{path}/x").as_bytes()), None);
        }
        for other in [
            "/a/bnodes/x",
            "/a/b/nodes/",
            "/a/b/nodes",
            "/a/b/other/x",
            "/a/b/services/x",
        ] {
            assert_eq!(Key::parse("/a/b", other.as_bytes()), None, "{other}");
        }
        assert_eq!(Key::parse("/a/b", b"/a/b/nodes/\xff"), None);
    }

    #[test]
    fn records_of_later_and_earlier_versions_are_read() {
        let key = Key::Node(name("n"));
        let value = br#"{"id":"n","address":"a","version":"9","task_types":["t"],
            "plugins":[{"name":"p","version":"1","sha256":"0","size":3}],
            "instance":"i","colour":{"tasks":7}}"#;
        let Entry::Node(read) = Entry::parse(&key, value).unwrap() else {
            panic!("a node");
        };
        assert_eq!(read.record.task_types, [name("t")].into());
        assert!(read.record.components.is_empty() && read.record.labels.is_empty());
        assert_eq!(read.record.capacity, 0);
        let again = Entry::Node(read);
        assert_eq!(Entry::parse(&key, &again.value().unwrap()).unwrap(), again);
        assert!(Entry::parse(&Key::Node(name("m")), value).is_err());
        assert!(Entry::parse(&key, b"{").is_err());
    }
}
