//! The state that the parts of a worker share.

use super::{active_leases::ActiveLeases, failure_log::FailureLog, slots::Slots};
use crate::{
    budget::Budget,
    discovery::ServiceDiscovery,
    plugin::PluginHost,
    queue::{LimitTable, TaskQueue},
    task::{Name, Retention},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::Notify;

/// The state that the worker's background tasks and its attempts share.
pub struct Shared {
    pub node: Name,
    pub labels: Vec<Name>,
    pub queue: Arc<dyn TaskQueue>,
    pub plugins: Arc<PluginHost>,
    /// Knows whether this node is drained.
    pub discovery: Arc<dyn ServiceDiscovery>,
    /// The limits of task types and of their groups.
    pub limits: Arc<LimitTable>,
    pub slots: Slots,
    pub active_leases: ActiveLeases,
    /// The budget for results that the queue has not confirmed.
    pub unwritten: Budget,
    pub failures: FailureLog,
    /// How long a lease lasts without being renewed. After that, another node may run the task.
    pub lease_ttl: Duration,
    /// How long ended tasks are kept.
    pub retention: Retention,
    /// The longest time of an attempt that a task may ask for.
    pub max_timeout: Duration,
    /// Wakes the dispatcher.
    pub wake: Notify,
}

impl Shared {
    /// Whether this node may take tasks: it is not drained, its id is its own, and results are written as
    /// fast as they come. Half of the budget for results is left to tasks that run already.
    pub fn may_lease(&self) -> bool {
        !self.discovery.is_drained(&self.node)
            && !self.discovery.is_id_contested()
            && self.unwritten.free_bytes() >= self.unwritten.total_bytes() / 2
    }
}
