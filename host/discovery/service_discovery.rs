//! The contract that every service discovery fulfils.

use super::{
    error::Error,
    record::{NodeRecord, ServiceInfo},
};
use async_trait::async_trait;
use hostel_task::Name;
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Knows the nodes of a cluster with what they can run, and the services that clients register.
#[async_trait]
pub trait ServiceDiscovery: Send + Sync {
    /// Registers `service` for its time to live, and returns the time to live granted. Registering the
    /// same name and id again renews the service and replaces its data.
    async fn register_service(&self, service: ServiceInfo) -> Result<Duration, Error>;

    /// Returns the live services of that name, by id. Fails with `Error::ResponseTooLarge`, before it
    /// copies any, if they have more than `max_bytes` together: the sum of `ServiceInfo::size`.
    async fn discover_service(
        &self,
        name: &Name,
        max_bytes: usize,
    ) -> Result<Vec<ServiceInfo>, Error>;

    /// Registers this node, and again whenever its record has changed. The registration is kept alive
    /// until `deregister_node`.
    async fn register_node(&self, node: NodeRecord) -> Result<(), Error>;

    /// Removes this node's registration.
    async fn deregister_node(&self) -> Result<(), Error>;

    /// Returns the live nodes as last seen, including this one. Never waits.
    fn nodes(&self) -> Arc<[NodeRecord]>;

    /// Requests that a node take no new tasks, or withdraws that request. A request outlives restarts of
    /// the node if it is stored outside of it. Withdrawing a request that does not exist changes nothing.
    async fn drain(&self, node: &Name, drained: bool) -> Result<(), Error>;

    /// Returns the nodes with a drain request as last seen, live or not. Never waits.
    fn drained(&self) -> Arc<BTreeSet<Name>>;

    /// Whether there is a drain request for the node.
    fn is_drained(&self, node: &Name) -> bool {
        self.drained().contains(node)
    }

    /// Whether another node has, or may have by now, this node's id: the registration has ended, and it
    /// is not yet known which node has the id. Such a node takes no tasks. `false` while the engine
    /// is away and before the first registration.
    fn is_id_contested(&self) -> bool {
        false
    }

    /// Changes after each change of `nodes` and `drained`.
    fn changed(&self) -> watch::Receiver<u64>;

    /// Since when `nodes` and `discover_service` answer from an outdated view because the engine is away;
    /// `None` while the view is kept up to date.
    fn stale_since(&self) -> Option<Instant> {
        None
    }

    /// The id of the cluster, for `RegisterResponse.cluster_id`.
    fn cluster_id(&self) -> &str;
}
