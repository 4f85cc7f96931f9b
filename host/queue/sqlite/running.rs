//! The leases of the running tasks, and how many of them each group of a route has.

use super::encoding::SymbolId;
use hostel_task::{Name, TaskId, TaskOptions};
use std::{collections::HashMap, sync::Arc};

/// The lease of a running task.
#[derive(Debug, Clone)]
pub(super) struct ActiveLease {
    pub seq: i64,
    pub fence: i64,
    pub route: SymbolId,
    /// The node that holds it.
    pub node: SymbolId,
    pub attempt: u32,
    pub lease_until: i64,
    pub cancel_requested: bool,
    /// The error of the task if it is cancelled.
    pub cancel_reason: Option<Arc<str>>,
    pub losses: u32,
    pub options: Option<Arc<TaskOptions>>,
    /// Progress was stored, which the cache of tasks may not know yet.
    pub has_progress: bool,
}

#[derive(Default)]
pub(super) struct Running {
    leases: HashMap<TaskId, ActiveLease>,
    /// How many leases each node has of each group of a route.
    in_groups: HashMap<(SymbolId, Name), HashMap<SymbolId, usize>>,
}

/// The group that a lease counts in.
fn group_of(lease: &ActiveLease) -> Option<(SymbolId, Name)> {
    let group = lease.options.as_ref()?.group.clone()?;
    Some((lease.route, group))
}

impl Running {
    pub fn insert(&mut self, id: TaskId, lease: ActiveLease) {
        if let Some(group) = group_of(&lease) {
            let nodes = self.in_groups.entry(group).or_default();
            *nodes.entry(lease.node).or_default() += 1;
        }
        let earlier = self.leases.insert(id, lease);
        self.leave_group(earlier.as_ref());
    }

    pub fn remove(&mut self, id: &TaskId) -> Option<ActiveLease> {
        let lease = self.leases.remove(id);
        self.leave_group(lease.as_ref());
        lease
    }

    /// Returns a lease for a change of anything but its route and its options.
    pub fn get_mut(&mut self, id: &TaskId) -> Option<&mut ActiveLease> {
        self.leases.get_mut(id)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&TaskId, &ActiveLease)> {
        self.leases.iter()
    }

    /// Returns how many tasks of a group run, of these routes: on one node, or on all.
    pub fn count_of(&self, routes: &[SymbolId], group: &Name, node: Option<SymbolId>) -> usize {
        if self.in_groups.is_empty() {
            return 0;
        }
        let of_routes = routes
            .iter()
            .filter_map(|&route| self.in_groups.get(&(route, group.clone())));
        let counts = of_routes.map(|nodes| match node {
            Some(node) => nodes.get(&node).copied().unwrap_or_default(),
            None => nodes.values().sum(),
        });
        counts.sum()
    }

    fn leave_group(&mut self, lease: Option<&ActiveLease>) {
        let Some((lease, group)) = lease.and_then(|lease| Some((lease, group_of(lease)?))) else {
            return;
        };
        let Some(nodes) = self.in_groups.get_mut(&group) else {
            return;
        };
        if let Some(count) = nodes.get_mut(&lease.node) {
            *count -= 1;
            if *count == 0 {
                nodes.remove(&lease.node);
            }
        }
        if nodes.is_empty() {
            self.in_groups.remove(&group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(given: &str) -> Name {
        Name::parse("name", given).unwrap()
    }

    fn lease(route: SymbolId, group: &str) -> ActiveLease {
        let options = TaskOptions {
            group: Some(name(group)),
            ..TaskOptions::default()
        };
        ActiveLease {
            seq: 1,
            fence: 1,
            route,
            node: 7,
            attempt: 1,
            lease_until: 0,
            cancel_requested: false,
            cancel_reason: None,
            losses: 0,
            options: (!group.starts_with("none")).then(|| Arc::new(options)),
            has_progress: false,
        }
    }

    #[test]
    fn groups_count_what_runs_whatever_happens_twice() {
        let mut running = Running::default();
        for (id, route, group) in [
            ("1", 1, "a"),
            ("2", 2, "a"),
            ("3", 3, "a"),
            ("4", 1, "none"),
            ("5", 1, "b"),
            ("5", 1, "b"),
        ] {
            running.insert(name(id), lease(route, group));
        }
        let count = |running: &Running, group| running.count_of(&[1, 2], &name(group), None);
        assert_eq!((count(&running, "a"), count(&running, "b")), (2, 1));
        let on_node = |node| running.count_of(&[1, 2], &name("a"), Some(node));
        assert_eq!((on_node(7), on_node(8)), (2, 0));
        assert!(running.remove(&name("2")).is_some());
        assert!(running.remove(&name("2")).is_none());
        assert_eq!((count(&running, "a"), running.iter().count()), (1, 4));
        for id in ["1", "3", "4", "5"] {
            running.remove(&name(id));
        }
        assert!(running.in_groups.is_empty());
    }
}
