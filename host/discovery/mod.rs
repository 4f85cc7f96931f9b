//! Who is there: nodes with what they can run, and services that clients register. The contract
//! and the one place that chooses an implementation. Knows nothing of tasks or messages.

mod etcd;
mod local;
mod record;

pub use etcd::EtcdServiceDiscovery;
pub use local::LocalDiscovery;
pub use record::{MAX_SERVICE_BYTES, MAX_TTL, MIN_TTL, NodeRecord, PluginRecord, ServiceInfo};

use crate::{config, task::Name};
use async_trait::async_trait;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

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

    /// Since when `nodes` and `discover_service` answer from a view that is no longer kept up to
    /// date, because the engine is away; `None` while they are.
    fn stale_since(&self) -> Option<Instant> {
        None
    }

    /// Which cluster this is, for `RegisterResponse.cluster_id`.
    fn cluster_id(&self) -> &str;
}

/// Makes the discovery that the configuration names. Nothing is connected before the first use.
pub fn open(config: &config::Config) -> Result<Arc<dyn ServiceDiscovery>, Error> {
    Ok(match &config.discovery {
        config::Discovery::Local => Arc::new(LocalDiscovery::new(&config.limits)),
        config::Discovery::Etcd(etcd) => {
            Arc::new(EtcdServiceDiscovery::open(etcd, &config.limits)?)
        }
    })
}

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
    #[error("a service may say {limit} bytes about itself; this one says {given}")]
    TooLarge { given: usize, limit: usize },
}
