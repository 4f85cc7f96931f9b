//! The order of leases: which pending tasks a request is given. Priorities share the leases by
//! `Priority::of_turn`; within a priority the oldest task of all routes comes first, and within a route the
//! groups take turns (`backlog`).

use super::{backlog::QueuePosition, encoding::SymbolId, heads::Head, index::Index};
use crate::lease_request::LeaseRequest;
use hostel_task::{Name, Priority, Resources, StateKind};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

/// A task that is to be leased.
pub(super) struct Taken {
    pub route: SymbolId,
    pub seq: i64,
    pub has_options: bool,
}

/// What a request may still be given.
struct Due {
    heads: [BinaryHeap<Reverse<Head>>; 3],
    /// How many more tasks of each type may run.
    remaining: HashMap<Name, usize>,
    available: Resources,
    has_suspect: bool,
}

impl Index {
    /// Removes the tasks that are to be leased from what is pending: those due by `now`, within the limits
    /// of the request and the concurrency limits of their types, and at most one suspect. Tasks of paused
    /// types stay.
    pub fn take_due(&mut self, request: &LeaseRequest, now: i64) -> Vec<Taken> {
        self.heads.update(&mut self.routes);
        let mut due = self.due(request, now);
        let mut taken = Vec::new();
        while taken.len() < request.max {
            let turn = Priority::of_turn(self.leases);
            let mut order = [turn].into_iter().chain(Priority::ALL);
            let next = order.find_map(|priority| self.take_next(priority, &mut due, request, now));
            let Some(next) = next else {
                break;
            };
            self.leases += 1;
            taken.push(next);
        }
        taken
    }

    /// Takes the next task of a priority that the request may be given.
    fn take_next(
        &mut self,
        priority: Priority,
        due: &mut Due,
        request: &LeaseRequest,
        now: i64,
    ) -> Option<Taken> {
        let heads = &mut due.heads[priority as usize];
        while let Some(Reverse((first, symbol, suspect))) = heads.pop() {
            let Some(entry) = self.routes.get_mut(&symbol) else {
                continue;
            };
            if self.placements.is_late(first.1, now) {
                // The route is as old as the oldest of its other tasks.
                let group = self.placements.group(first.1);
                entry.remove(first, 0, priority, group);
                let next = entry.first_of(priority, suspect);
                let next = next.filter(|next| next.0 <= now);
                heads.extend(next.map(|next| Reverse((next, symbol, suspect))));
                self.changed_routes.insert(symbol);
                self.heads.stale.insert(symbol);
                continue;
            }
            let task_type = &entry.route.task_type;
            let of_type = due.remaining.get_mut(task_type).filter(|count| **count > 0);
            let needs = request.types.get(task_type).map(|limits| limits.needs);
            let rest = needs.and_then(|needs| due.available.checked_sub(needs));
            // Otherwise tasks of other types may still fit.
            let (Some(count), Some(rest), false) = (of_type, rest, suspect && due.has_suspect)
            else {
                continue;
            };
            let placements = &self.placements;
            let late = |(_, seq): QueuePosition| placements.is_late(seq, now);
            let first = entry.take(priority, suspect, now, late);
            let next = entry.first_of(priority, suspect);
            let next = next.filter(|next| next.0 <= now);
            heads.extend(next.map(|next| Reverse((next, symbol, suspect))));
            self.changed_routes.insert(symbol);
            self.heads.stale.insert(symbol);
            if let Some((_, seq)) = first {
                *count -= 1;
                due.available = rest;
                due.has_suspect |= suspect;
                return Some(Taken {
                    route: symbol,
                    seq,
                    has_options: self.placements.remove(seq).is_some(),
                });
            }
        }
        None
    }

    /// Returns the heads that are due and requested, and how many more tasks of each type may run.
    fn due(&self, request: &LeaseRequest, now: i64) -> Due {
        let mut remaining = HashMap::new();
        let heads = self.heads.by_priority.each_ref().map(|heads| {
            let mut due = BinaryHeap::new();
            for &head in heads.iter().take_while(|(first, ..)| first.0 <= now) {
                let (_, symbol, suspect) = head;
                if suspect && !request.allow_suspect {
                    continue;
                }
                let Some(route) = self.routes.get(&symbol).map(|entry| &entry.route) else {
                    continue;
                };
                let Some(limits) = request.for_route(route) else {
                    continue;
                };
                let task_type = &route.task_type;
                if self.paused.contains_key(task_type) {
                    continue;
                }
                if !remaining.contains_key(task_type) {
                    let in_cluster = limits.max_cluster_concurrency.map_or(usize::MAX, |max| {
                        max.saturating_sub(self.running_of(task_type))
                    });
                    let count = request.remaining_of(task_type, limits).min(in_cluster);
                    remaining.insert(task_type.clone(), count);
                }
                due.push(Reverse(head));
            }
            due
        });
        Due {
            heads,
            remaining,
            available: request.available,
            has_suspect: false,
        }
    }

    fn running_of(&self, task_type: &Name) -> usize {
        let routes = self.routes.values();
        let of_type = routes.filter(|entry| entry.route.task_type == *task_type);
        let running = of_type.map(|entry| entry.counts[StateKind::Running as usize]);
        usize::try_from(running.sum::<u64>()).unwrap_or(usize::MAX)
    }
}
