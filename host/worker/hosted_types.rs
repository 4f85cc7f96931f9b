//! The task types that this node runs, in the form that lease requests need. Rebuilt only when the
//! catalog changes, so that the cost of a lease does not grow with the number of plugins.

use crate::{
    plugin::{Catalog, View},
    queue::{RequestedType, RequestedTypes},
    task::Resources,
};
use std::sync::Arc;

/// The task types of one view of the catalog.
pub struct HostedTypes {
    view: Arc<View>,
    pub types: Arc<RequestedTypes>,
    /// The most of each resource that a task of any type needs, and the least.
    pub largest: Resources,
    pub smallest: Resources,
}

impl HostedTypes {
    /// Reads the types that the catalog has now.
    pub fn of(catalog: &Catalog) -> Self {
        let view = catalog.view();
        let (mut largest, mut smallest) = (Resources::default(), Resources::UNLIMITED);
        let types = view.task_types.iter().map(|(name, handler)| {
            let needs = handler.needs();
            (largest, smallest) = (largest.max(needs), smallest.min(needs));
            let task_type = &handler.task_type;
            let requested = RequestedType {
                max: task_type.max_concurrency.unwrap_or(usize::MAX),
                max_cluster_concurrency: task_type.max_cluster_concurrency,
                needs,
            };
            (name.clone(), requested)
        });
        let types = Arc::new(types.collect());
        Self {
            view,
            types,
            largest,
            smallest,
        }
    }

    /// Follows a change of the catalog.
    pub fn update(&mut self, catalog: &Catalog) {
        if !Arc::ptr_eq(&self.view, &catalog.view()) {
            *self = Self::of(catalog);
        }
    }
}
