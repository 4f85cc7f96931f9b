//! The order of leases: which pending tasks a request is given. Priorities share the leases by
//! `Priority::of_turn`; within a priority the oldest task of all routes comes first, and within a route the
//! groups take turns (`backlog`). Types and groups at their limits are passed over (`room`).

use super::{
    backlog::{QueuePosition, Turn},
    encoding::SymbolId,
    heads::Head,
    index::Index,
    room::{Room, Taking},
};
use crate::lease_request::LeaseRequest;
use hostel_task::{Priority, Resources};
use std::{cmp::Reverse, collections::BinaryHeap};

/// A task that is to be leased.
pub(super) struct Taken {
    pub route: SymbolId,
    pub seq: i64,
    pub has_options: bool,
}

/// What a request may still be given.
struct Due {
    heads: [BinaryHeap<Reverse<Head>>; 3],
    room: Room,
    available: Resources,
    has_suspect: bool,
}

impl Index {
    /// Removes the tasks that are to be leased from what is pending: those due by `now`, within the limits
    /// of the request and the concurrency limits of their types, and at most one suspect. Tasks of paused
    /// types stay.
    pub fn take_due(&mut self, request: &LeaseRequest, node: SymbolId, now: i64) -> Vec<Taken> {
        self.follow_limits(request, node);
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
                // The route is as old as the oldest of its other tasks. The head may be later than the task.
                let group = self.placements.group(first.1);
                let position = self.placements.get(first.1).map_or(first, |it| it.position);
                entry.remove(position, 0, priority, group);
                let next = entry.first_of(priority, suspect);
                let next = next.filter(|next| next.0 <= now);
                heads.extend(next.map(|next| Reverse((next, symbol, suspect))));
                self.changed_routes.insert(symbol);
                self.heads.stale.insert(symbol);
                continue;
            }
            let task_type = entry.route.task_type.clone();
            let Some(limits) = request.types.get(&task_type) else {
                continue;
            };
            let rest = due.available.checked_sub(limits.needs);
            // Otherwise tasks of other types may still fit.
            let (true, Some(rest), false) = (
                due.room.has_type(&task_type),
                rest,
                suspect && due.has_suspect,
            ) else {
                continue;
            };
            let taking = Taking {
                node: self.latest_node,
                now,
                task_type: &task_type,
                limits,
                running: &self.running,
                rates: &self.rates,
            };
            let placements = &self.placements;
            let room = &mut due.room;
            let first = if suspect {
                entry.take_suspect(priority, now, |(_, seq)| {
                    let group = placements.group(seq);
                    group.is_none_or(|group| room.turn(&taking, group, 0) == Turn::Now)
                })
            } else {
                let late = |(_, seq): QueuePosition| placements.is_late(seq, now);
                entry.take(priority, now, late, |group, taken| {
                    room.turn(&taking, group, taken)
                })
            };
            self.changed_routes.insert(symbol);
            self.heads.stale.insert(symbol);
            // If nothing is taken, nothing that is due can be given to this request.
            let Some((_, seq)) = first else {
                continue;
            };
            let next = entry.first_of(priority, suspect);
            let next = next.filter(|next| next.0 <= now);
            heads.extend(next.map(|next| Reverse((next, symbol, suspect))));
            let placement = self.placements.remove(seq);
            let group = placement.as_ref().and_then(|it| it.group.as_ref());
            due.room
                .take(&task_type, limits, group, &mut self.rates, now);
            due.available = rest;
            due.has_suspect |= suspect;
            return Some(Taken {
                route: symbol,
                seq,
                has_options: placement.is_some(),
            });
        }
        None
    }

    /// Returns the heads that are due and requested, and the room for each type.
    fn due(&self, request: &LeaseRequest, now: i64) -> Due {
        let mut room = Room::default();
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
                if self.paused.contains_key(&route.task_type) {
                    continue;
                }
                room.add_type(self, request, &route.task_type, limits, now);
                due.push(Reverse(head));
            }
            due
        });
        Due {
            heads,
            room,
            available: request.available,
            has_suspect: false,
        }
    }
}
