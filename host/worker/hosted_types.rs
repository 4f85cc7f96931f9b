//! The task types that this node runs and their limits, in the form that lease requests need. Rebuilt only
//! when the catalog or the limits change, so that the cost of a lease does not grow with the number of
//! plugins.

use crate::{
    plugin::{Catalog, View},
    queue::{LimitTable, RequestedType, RequestedTypes, StoredLimits},
    task::Resources,
};
use std::sync::Arc;

/// The task types of one view of the catalog.
pub struct HostedTypes {
    view: Arc<View>,
    runtime_limits: Arc<StoredLimits>,
    pub types: Arc<RequestedTypes>,
    /// Whether a due task may wait until another one of its group ends.
    pub has_group_limits: bool,
    /// The most of each resource that a task of any type needs, and the least.
    pub largest: Resources,
    pub smallest: Resources,
}

impl HostedTypes {
    /// Reads the types that the catalog has now, with the limits in force now.
    pub fn of(catalog: &Catalog, limits: &LimitTable) -> Self {
        let view = catalog.view();
        // Before they are used: a later change is noticed by the next update.
        let runtime_limits = limits.runtime();
        let (mut largest, mut smallest) = (Resources::default(), Resources::UNLIMITED);
        let types = view.task_types.iter().map(|(name, handler)| {
            let needs = handler.needs();
            (largest, smallest) = (largest.max(needs), smallest.min(needs));
            let in_force = limits.of(name, Some(&handler.task_type.limits));
            let of_type = in_force.of_type.limits();
            let requested = RequestedType {
                max: of_type.max_concurrency.unwrap_or(usize::MAX),
                max_cluster_concurrency: of_type.max_cluster_concurrency,
                max_rate: of_type.max_rate,
                groups: in_force.group_limits().map(Arc::new),
                needs,
            };
            (name.clone(), requested)
        });
        let types: RequestedTypes = types.collect();
        Self {
            view,
            runtime_limits,
            has_group_limits: types.values().any(|requested| requested.groups.is_some()),
            types: Arc::new(types),
            largest,
            smallest,
        }
    }

    /// Follows changes of the catalog and of the limits.
    pub fn update(&mut self, catalog: &Catalog, limits: &LimitTable) {
        if !Arc::ptr_eq(&self.view, &catalog.view())
            || !Arc::ptr_eq(&self.runtime_limits, &limits.runtime())
        {
            *self = Self::of(catalog, limits);
        }
    }
}
