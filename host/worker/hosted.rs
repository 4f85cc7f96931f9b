//! The task types that this node runs, as the queue is asked for them. Made anew only when the catalog
//! changes, so that a lease costs the same whatever is installed.

use crate::{
    plugin::{Catalog, View},
    queue::{RequestedType, RequestedTypes},
    task::Resources,
};
use std::sync::Arc;

/// One view of the catalog, and what is wanted because of it.
pub struct Hosted {
    view: Arc<View>,
    pub types: Arc<RequestedTypes>,
    /// What the largest task takes of each resource, and the smallest.
    pub largest: Resources,
    pub smallest: Resources,
}

impl Hosted {
    pub fn of(catalog: &Catalog) -> Self {
        let view = catalog.view();
        let (mut largest, mut smallest) = (Resources::default(), Resources::UNLIMITED);
        let wanted = view.task_types.iter().map(|(name, handler)| {
            let needs = handler.needs();
            (largest, smallest) = (largest.max(needs), smallest.min(needs));
            let task_type = &handler.task_type;
            let wanted = RequestedType {
                max: task_type.max_concurrency.unwrap_or(usize::MAX),
                max_cluster_concurrency: task_type.max_cluster_concurrency,
                needs,
            };
            (name.clone(), wanted)
        });
        let types = Arc::new(wanted.collect());
        Self {
            view,
            types,
            largest,
            smallest,
        }
    }

    /// Catches up with the catalog.
    pub fn follow(&mut self, catalog: &Catalog) {
        if !Arc::ptr_eq(&self.view, &catalog.view()) {
            *self = Self::of(catalog);
        }
    }
}
