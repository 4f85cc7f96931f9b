//! Who is there: nodes with what they can run, and services that clients register. The contract
//! and the one place that chooses an implementation. Knows nothing of tasks or messages.

mod address;
mod etcd;
mod local;
mod record;

pub use address::announced;
pub use etcd::EtcdServiceDiscovery;
pub use local::LocalDiscovery;
pub use record::{MAX_SERVICE_BYTES, MAX_TTL, MIN_TTL, NodeRecord, PluginRecord, ServiceInfo};

use async_trait::async_trait;
use hostel_runtime::health::Health;
use hostel_task::Name;
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

#[async_trait]
pub trait ServiceDiscovery: Send + Sync {
    /// Keeps `service` for its time to live; registering the same name and id again renews it and
    /// replaces what it says. Returns the time to live granted.
    async fn register_service(&self, service: ServiceInfo) -> Result<Duration, Error>;

    /// The services of that name which are alive, by id.
    async fn discover_service(&self, name: &Name) -> Result<Vec<ServiceInfo>, Error>;

    /// Tells the cluster about this node, again whenever something about it has changed. The
    /// record is kept alive until `withdraw`.
    async fn announce(&self, node: NodeRecord) -> Result<(), Error>;

    /// Takes this node's record back.
    async fn withdraw(&self) -> Result<(), Error>;

    /// The live nodes as last seen, this one included. Never waits.
    fn nodes(&self) -> Arc<[NodeRecord]>;

    /// Asks that a node take no new task, or that it take them again. What is asked stands until it
    /// is taken back, through restarts of the node if it is kept outside of it. Taking back what
    /// nobody has asked for changes nothing.
    async fn drain(&self, node: &Name, drained: bool) -> Result<(), Error>;

    /// The nodes that shall take no new task, those that are away included, as last seen. Never
    /// waits.
    fn drained(&self) -> Arc<BTreeSet<Name>>;

    fn is_drained(&self, node: &Name) -> bool {
        self.drained().contains(node)
    }

    /// Whether another node has this node's id, or may have by now: this node's record has ended, and it
    /// has yet to hear whose the id is. It takes no task under an id that is not its own. `false` while the
    /// engine is away.
    fn is_id_in_doubt(&self) -> bool {
        false
    }

    /// Changes after each change of what `nodes` and `drained` say.
    fn changed(&self) -> watch::Receiver<u64>;

    /// Since when `nodes` and `discover_service` answer from a view that is no longer kept up to
    /// date, because the engine is away; `None` while they are.
    fn stale_since(&self) -> Option<Instant> {
        None
    }

    /// Which cluster this is, for `RegisterResponse.cluster_id`.
    fn cluster_id(&self) -> &str;
}

/// Makes the discovery that the configuration names. Nothing is connected before the first use; the
/// data directory has to be there. It reports its faults to `health`.
pub fn open(
    config: &hostel_config::Config,
    health: &Health,
) -> Result<Arc<dyn ServiceDiscovery>, Error> {
    Ok(match &config.discovery {
        hostel_config::Discovery::Local => Arc::new(LocalDiscovery::new(&config.limits)),
        hostel_config::Discovery::Etcd(etcd) => {
            let discovery =
                EtcdServiceDiscovery::open_reporting(etcd, &config.limits, health.clone())?;
            Arc::new(discovery.kept_in(&config.node.data_dir)?)
        }
    })
}

/// How many nodes a refusal lists: it travels in a header, and clients limit those.
const LISTED: usize = 30;

/// The service name under which nodes are found, as the seed has it.
pub const NODE_SERVICE: &str = "distributed_node";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("discovery is unavailable: {0}")]
    Unavailable(String),
    /// What the operator said cannot be used.
    #[error("{0}")]
    Misconfigured(String),
    /// As many services are registered as may be.
    #[error("{limit} services are registered, and no more are allowed (limits.max_services)")]
    Full { limit: usize },
    /// Nodes announce themselves; clients may not speak for them.
    #[error("{NODE_SERVICE:?} names the nodes themselves; register under another name")]
    Reserved,
    #[error("{}", unknown_node(.node, .known))]
    UnknownNode { node: Name, known: Vec<Name> },
    #[error("a service may say {limit} bytes about itself; this one says {given}")]
    TooLarge { given: usize, limit: usize },
}

impl Error {
    /// What to say where it is said already that discovery is unavailable.
    fn reason(&self) -> String {
        match self {
            Self::Unavailable(why) => why.clone(),
            other => other.to_string(),
        }
    }

    /// Whether anybody is called `node`, be it that only a wish is left of it.
    fn unless_known(
        node: &Name,
        nodes: &[NodeRecord],
        drained: &BTreeSet<Name>,
    ) -> Result<(), Self> {
        let ids = nodes.iter().map(|node| &node.id);
        let known: BTreeSet<&Name> = ids.chain(drained).collect();
        match known.contains(node) {
            true => Ok(()),
            false => Err(Self::UnknownNode {
                node: node.clone(),
                known: known.into_iter().cloned().collect(),
            }),
        }
    }
}

fn unknown_node(node: &Name, known: &[Name]) -> String {
    if known.is_empty() {
        return format!("no node is called {node}; none is known yet");
    }
    let listed: Vec<_> = known.iter().take(LISTED).map(Name::as_str).collect();
    let more = match known.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let listed = listed.join(", ");
    format!("no node is called {node}; known nodes: {listed}{more}")
}
