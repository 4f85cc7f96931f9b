//! What the limits of task types and of their groups leave of a lease request. What runs and what was begun is
//! counted in the index, so that a place belongs to a lease and comes back with its end.

use super::{
    backlog::Turn,
    encoding::SymbolId,
    index::Index,
    rates::Rates,
    route_index::RouteIndex,
    running::{ActiveLease, Running},
};
use crate::lease_request::{LeaseRequest, RequestedType};
use hostel_task::{GroupLimits, Name, Rate, StateKind, Submission, TaskId};
use std::collections::HashMap;

/// How many more tasks one request may be given.
#[derive(Default)]
pub(super) struct Room {
    types: HashMap<Name, TypeRoom>,
    /// Of the groups whose turn has come.
    groups: HashMap<(Name, Name), usize>,
}

struct TypeRoom {
    left: usize,
    /// The routes of the type; empty unless its groups have limits.
    routes: Vec<SymbolId>,
}

/// What a turn is decided by.
pub(super) struct Taking<'i> {
    /// The node that asks.
    pub node: SymbolId,
    pub now: i64,
    pub task_type: &'i Name,
    pub limits: &'i RequestedType,
    pub running: &'i Running,
    pub rates: &'i Rates,
}

/// A time of the queue, for a rate. It is never negative.
fn at(now: i64) -> u64 {
    u64::try_from(now).unwrap_or_default()
}

impl Room {
    /// Adds a type, unless it is there.
    pub fn add_type(
        &mut self,
        index: &Index,
        request: &LeaseRequest,
        task_type: &Name,
        limits: &RequestedType,
        now: i64,
    ) {
        if self.types.contains_key(task_type) {
            return;
        }
        let in_cluster = limits.max_cluster_concurrency.map_or(usize::MAX, |max| {
            max.saturating_sub(index.tasks_of(task_type, StateKind::Running))
        });
        let permits = limits.max_rate.map_or(usize::MAX, |rate| {
            permits(rate, &index.rates, task_type, None, now)
        });
        let left = request.remaining_of(task_type, limits);
        let routes = match &limits.groups {
            Some(_) => index.routes_of(task_type).map(|(route, _)| route).collect(),
            None => Vec::new(),
        };
        let left = left.min(in_cluster).min(permits);
        self.types
            .insert(task_type.clone(), TypeRoom { left, routes });
    }

    /// Whether a task of the type may be leased.
    pub fn has_type(&self, task_type: &Name) -> bool {
        self.types.get(task_type).is_some_and(|room| room.left > 0)
    }

    /// Returns whether a task of a group may be leased after the `taken` tasks that are not subtracted yet, as
    /// far as the limits of groups are concerned.
    pub fn turn(&mut self, taking: &Taking<'_>, group: &Name, taken: usize) -> Turn {
        let Some(limits) = &taking.limits.groups else {
            return Turn::Now;
        };
        if self.left_in_group(taking, limits, group) <= taken {
            return Turn::Blocked;
        }
        let Some(rate) = limits.of(group).max_rate else {
            return Turn::Now;
        };
        let mut spent = taking.rates.spent(taking.task_type, Some(group));
        if taken > 0 {
            let taken = u32::try_from(taken).unwrap_or(u32::MAX);
            spent = rate.take(spent, at(taking.now), taken);
        }
        if rate.permits(spent, at(taking.now)) > 0 {
            return Turn::Now;
        }
        Turn::At(i64::try_from(rate.next_at(spent)).unwrap_or(i64::MAX))
    }

    fn left_in_group(&mut self, taking: &Taking<'_>, limits: &GroupLimits, group: &Name) -> usize {
        let key = (taking.task_type.clone(), group.clone());
        if let Some(&left) = self.groups.get(&key) {
            return left;
        }
        let routes: &[SymbolId] = match self.types.get(taking.task_type) {
            Some(room) => &room.routes,
            None => &[],
        };
        let running = |node| taking.running.count_of(routes, group, node);
        let left = |max: Option<usize>, node| {
            max.map_or(usize::MAX, |max| max.saturating_sub(running(node)))
        };
        let limits = limits.of(group);
        let on_node = left(limits.max_concurrency, Some(taking.node));
        let left = on_node.min(left(limits.max_cluster_concurrency, None));
        self.groups.insert(key, left);
        left
    }

    /// Subtracts a task that is leased, and takes its permits.
    pub fn take(
        &mut self,
        task_type: &Name,
        limits: &RequestedType,
        group: Option<&Name>,
        rates: &mut Rates,
        now: i64,
    ) {
        if let Some(room) = self.types.get_mut(task_type) {
            room.left = room.left.saturating_sub(1);
        }
        if let Some(rate) = limits.max_rate {
            rates.take(task_type, None, rate, at(now));
        }
        let (Some(group), Some(groups)) = (group, &limits.groups) else {
            return;
        };
        let key = (task_type.clone(), group.clone());
        if let Some(left) = self.groups.get_mut(&key) {
            *left = left.saturating_sub(1);
        }
        if let Some(rate) = groups.of(group).max_rate {
            rates.take(task_type, Some(group), rate, at(now));
        }
    }
}

/// Returns how many tasks a rate allows now.
fn permits(rate: Rate, rates: &Rates, task_type: &Name, group: Option<&Name>, now: i64) -> usize {
    let permits = rate.permits(rates.spent(task_type, group), at(now));
    usize::try_from(permits).unwrap_or(usize::MAX)
}

/// Which limit of pending tasks refuses a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TooManyPending {
    OfType,
    OfGroup,
}

impl Index {
    /// Returns the routes of a type, with the number of their tasks in each state.
    pub fn routes_of(&self, task_type: &Name) -> impl Iterator<Item = (SymbolId, &[u64; 5])> {
        let routes = self.routes.iter();
        let of_type = routes.filter(move |(_, entry)| entry.route.task_type == *task_type);
        of_type.map(|(&route, entry)| (route, &entry.counts))
    }

    /// Returns how many tasks of a type are in a state.
    pub fn tasks_of(&self, task_type: &Name, state: StateKind) -> usize {
        let routes = self.routes_of(task_type);
        let count: u64 = routes.map(|(_, counts)| counts[state as usize]).sum();
        usize::try_from(count).unwrap_or(usize::MAX)
    }

    /// Returns the limit of pending tasks that a new task exceeds, if it does.
    pub fn too_many_pending(&self, task: &Submission) -> Option<TooManyPending> {
        let limits = task.pending_limits();
        let task_type = task.task_type();
        let is_over = |limit: Option<usize>, count: &dyn Fn() -> usize| {
            limit.is_some_and(|limit| count() >= limit)
        };
        if is_over(limits.of_type, &|| {
            self.tasks_of(task_type, StateKind::Pending)
        }) {
            return Some(TooManyPending::OfType);
        }
        let group = task.group()?;
        let in_group = || {
            let routes = self.routes.values();
            let of_type = routes.filter(|entry| entry.route.task_type == *task_type);
            of_type
                .map(|entry| entry.pending_in_group(group))
                .sum::<usize>()
        };
        is_over(limits.of_group, &in_group).then_some(TooManyPending::OfGroup)
    }

    /// Removes the lease of a running task. Its place is free, so its group may have its turn again.
    pub fn end_lease(&mut self, id: &TaskId) -> Option<ActiveLease> {
        let lease = self.running.remove(id)?;
        let options = lease.options.as_deref();
        if let Some(group) = options.and_then(|options| options.group.as_ref()) {
            self.unblock_group(lease.route, group);
        }
        Some(lease)
    }

    fn unblock_group(&mut self, route: SymbolId, group: &Name) {
        let Some(task_type) = self.routes.get(&route).map(|entry| &entry.route.task_type) else {
            return;
        };
        if !self.group_limits.contains_key(task_type) {
            return;
        }
        let task_type = task_type.clone();
        self.change_routes_of(&task_type, |entry| entry.unblock(group));
    }

    /// Follows a change of the limits of groups, and of the node that asks.
    pub fn follow_limits(&mut self, request: &LeaseRequest, node: SymbolId) {
        let is_same_node = std::mem::replace(&mut self.latest_node, node) == node;
        for (task_type, requested) in &*request.types {
            let before = self.group_limits.get(task_type);
            if before == requested.groups.as_ref() && (is_same_node || before.is_none()) {
                continue;
            }
            match &requested.groups {
                Some(groups) => self.group_limits.insert(task_type.clone(), groups.clone()),
                None => self.group_limits.remove(task_type),
            };
            self.change_routes_of(task_type, RouteIndex::forget_limits);
        }
    }

    fn change_routes_of(&mut self, task_type: &Name, change: impl Fn(&mut RouteIndex)) {
        for (&symbol, entry) in &mut self.routes {
            if entry.route.task_type == *task_type {
                change(entry);
                self.changed_routes.insert(symbol);
                self.heads.stale.insert(symbol);
            }
        }
    }
}
