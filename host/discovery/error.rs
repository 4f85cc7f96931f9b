//! Why discovery refuses or fails.

use hostel_task::Name;

/// The service name under which the nodes are found. It is reserved for them.
pub const NODE_SERVICE: &str = "distributed_node";

/// An error of discovery, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The backend cannot be reached.
    #[error("discovery is unavailable: {0}")]
    Unavailable(String),
    /// The configuration cannot be used.
    #[error("{0}")]
    Misconfigured(String),
    /// As many services are registered as are allowed.
    #[error("{limit} services are registered, and no more are allowed (limits.max_services)")]
    Full {
        /// How many services are allowed.
        limit: usize,
    },
    /// Nodes register themselves; clients may not do it for them.
    #[error("{NODE_SERVICE:?} names the nodes themselves; register under another name")]
    Reserved,
    /// No node has this id.
    #[error("{}", unknown_node(.node, .known))]
    UnknownNode {
        /// The unknown id.
        node: Name,
        /// The ids of the known nodes.
        known: Vec<Name>,
    },
    /// A service is larger than the limit.
    #[error("address and metadata of a service may have {limit} bytes; these have {given}")]
    TooLarge {
        /// The size of the service in bytes.
        given: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The services of a name are larger together than the caller accepts.
    #[error("the services of this name have more than {limit} bytes together")]
    ResponseTooLarge {
        /// How many bytes the caller accepts.
        limit: usize,
    },
}

impl Error {
    /// The text without "discovery is unavailable", for a message that already states it.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Unavailable(why) => why.clone(),
            other => other.to_string(),
        }
    }
}

fn unknown_node(node: &Name, known: &[Name]) -> String {
    if known.is_empty() {
        return format!("no node is called {node}; none is known yet");
    }
    let known = Name::list(known);
    format!("no node is called {node}; known nodes: {known}")
}
