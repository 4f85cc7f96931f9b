//! What a worker can take from the queue, the same for every backend.

use hostel_task::{GroupLimits, Name, Rate, Resources, Route, Target};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

/// A worker's request for tasks.
#[derive(Debug, Clone)]
pub struct LeaseRequest {
    /// The node that asks.
    pub node: Name,
    /// Labels of the node; a task may require one.
    pub labels: Vec<Name>,
    /// The types that the node runs. A worker passes the same `Arc` while they do not change, because
    /// a backend keeps what it derives from them.
    pub types: Arc<RequestedTypes>,
    /// How many more tasks of a type may run, if fewer than its limit.
    pub remaining: BTreeMap<Name, usize>,
    /// Restricts the request to this type.
    pub only: Option<Name>,
    /// The resources that the tasks may take together. Tasks that do not fit are passed over.
    pub available: Resources,
    /// The most tasks to lease.
    pub max: usize,
    /// Whether one of the tasks may be a suspect.
    pub allow_suspect: bool,
    /// How long a lease lasts without being renewed.
    pub ttl: Duration,
}

/// The requested task types.
pub type RequestedTypes = HashMap<Name, RequestedType>;

/// The limits of one task type.
#[derive(Debug, Clone)]
pub struct RequestedType {
    /// How many tasks of the type the node may run.
    pub max: usize,
    /// Cluster-wide concurrency limit of the task type.
    pub max_cluster_concurrency: Option<usize>,
    /// How often tasks of the type may begin on all nodes together.
    pub max_rate: Option<Rate>,
    /// The limits of its groups, if any has one. The backend counts what runs, also of the requesting node.
    pub groups: Option<Arc<GroupLimits>>,
    /// What one task of the type takes.
    pub needs: Resources,
}

impl RequestedType {
    /// Up to `max` tasks of a type without further limits.
    pub fn unlimited(max: usize, needs: Resources) -> Self {
        Self {
            max,
            max_cluster_concurrency: None,
            max_rate: None,
            groups: None,
            needs,
        }
    }

    /// Whether the concurrency of the type, or of a group of it, is limited on all nodes together.
    pub fn is_limited_in_cluster(&self) -> bool {
        let mut groups = self.groups.iter().flat_map(|groups| groups.all());
        self.max_cluster_concurrency.is_some()
            || groups.any(|limits| limits.max_cluster_concurrency.is_some())
    }
}

impl LeaseRequest {
    /// Requests up to `max` tasks of one type, of any size.
    pub fn for_type(node: Name, task_type: Name, max: usize, ttl: Duration) -> Self {
        let limits = RequestedType::unlimited(max, Resources::default());
        Self {
            node,
            labels: Vec::new(),
            types: Arc::new(RequestedTypes::from([(task_type, limits)])),
            remaining: BTreeMap::new(),
            only: None,
            available: Resources::UNLIMITED,
            max,
            allow_suspect: true,
            ttl,
        }
    }

    /// Returns the targets that this node is part of.
    pub fn targets(&self) -> impl Iterator<Item = Target> {
        Target::including(&self.node, &self.labels)
    }

    /// Returns the limits of the tasks on `route`, if the request is for any of them.
    pub fn for_route(&self, route: &Route) -> Option<&RequestedType> {
        let is_target = route.target.includes(&self.node, &self.labels);
        let task_type = &route.task_type;
        let is_requested = is_target && self.only.as_ref().is_none_or(|only| only == task_type);
        self.types.get(task_type).filter(|_| is_requested)
    }

    /// Returns how many more tasks of a type may run.
    pub fn remaining_of(&self, task_type: &Name, limits: &RequestedType) -> usize {
        let remaining = self.remaining.get(task_type);
        remaining.map_or(limits.max, |&count| count.min(limits.max))
    }

    /// Subtracts a task of this type from the request. Returns `false`, and changes nothing, if it
    /// exceeds the request.
    pub fn take(&mut self, task_type: &Name) -> bool {
        let Some(limits) = self.types.get(task_type) else {
            return false;
        };
        let remaining = self.remaining_of(task_type, limits);
        let available = self.available.checked_sub(limits.needs);
        let (1.., 1.., Some(available)) = (remaining, self.max, available) else {
            return false;
        };
        self.available = available;
        self.max -= 1;
        if remaining < usize::MAX {
            self.remaining.insert(task_type.clone(), remaining - 1);
        }
        true
    }
}
