//! Task counts, the next due time of each route and the paused types, as of the latest commit. Read without the writer's
//! thread, which may be waiting for a disk. The lock is held for microseconds.

use super::index::Index;
use crate::{
    lease_request::{LeaseRequest, RequestedType},
    task_queue::Counts,
};
use hostel_task::{Name, PausedTypes, Route, Spent, StateKind};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};

#[derive(Debug, Default)]
pub(super) struct Stats(Mutex<Routes>);

#[derive(Debug, Default)]
struct Routes {
    counts: HashMap<Route, [u64; 5]>,
    /// When the first task and the first suspect are due, of the routes that have pending tasks.
    due: HashMap<Route, [Option<i64>; 2]>,
    paused: Arc<PausedTypes>,
    /// What was spent of the rates of types.
    spent: HashMap<Name, Spent>,
}

impl Stats {
    /// Takes over what changed in the index. Called after a commit.
    pub fn update(&self, index: &mut Index) {
        let mut routes = self.0.lock();
        routes.paused = Arc::clone(&index.paused);
        for symbol in index.changed_routes.drain() {
            let Some(entry) = index.routes.get(&symbol) else {
                continue;
            };
            let due = [false, true].map(|suspect| entry.first(suspect).map(|(due, _)| due));
            if due == [None, None] {
                routes.due.remove(&entry.route);
            } else {
                routes.due.insert(entry.route.clone(), due);
            }
            routes.counts.insert(entry.route.clone(), entry.counts);
        }
        for (task_type, spent) in index.rates.changed_types() {
            if spent == Spent::default() {
                routes.spent.remove(&task_type);
            } else {
                routes.spent.insert(task_type, spent);
            }
        }
    }

    pub fn counts(&self) -> Counts {
        let mut sums = Counts::new();
        for (route, counts) in &self.0.lock().counts {
            for state in StateKind::ALL {
                let count = counts[state as usize];
                if count > 0 {
                    *sums.entry((route.task_type.clone(), state)).or_insert(0) += count;
                }
            }
        }
        sums
    }

    pub fn paused(&self) -> Arc<PausedTypes> {
        Arc::clone(&self.0.lock().paused)
    }

    /// Returns when the first task that the request could lease is due.
    pub fn next_due(&self, request: &LeaseRequest) -> Option<i64> {
        self.0.lock().first(request, true).map(|(due, _)| due)
    }

    /// Returns the type of the oldest task, due by `now`, that does not fit into what the request has
    /// available.
    pub fn oldest_blocked(&self, request: &LeaseRequest, now: i64) -> Option<Name> {
        let routes = self.0.lock();
        let first = routes.first(request, false).filter(|&(due, _)| due <= now);
        first.map(|(_, route)| route.task_type.clone())
    }
}

impl Routes {
    /// Returns the route whose first task is due first, of those that are requested and do, or do not,
    /// fit into what is available. Types that are paused, or run as often as they may, are left out, and tasks are
    /// due when the rate of their type allows the next one.
    fn first(&self, request: &LeaseRequest, fits: bool) -> Option<(i64, &Route)> {
        let due = self.due.iter().filter_map(|(route, &[due, suspect])| {
            let suspect = suspect.filter(|_| request.allow_suspect);
            let due = due.into_iter().chain(suspect).min()?;
            let limits = request.for_route(route)?;
            let may_run = request.remaining_of(&route.task_type, limits) > 0
                && limits.needs.fits_in(request.available) == fits
                && !self.paused.contains_key(&route.task_type)
                && !self.is_full(&route.task_type, limits);
            let due = due.max(self.allowed_at(&route.task_type, limits));
            may_run.then_some((due, route))
        });
        due.min_by_key(|&(due, _)| due)
    }

    /// Returns when the rate of a type allows the next task.
    fn allowed_at(&self, task_type: &Name, limits: &RequestedType) -> i64 {
        let rate = limits.max_rate.zip(self.spent.get(task_type));
        rate.map_or(i64::MIN, |(rate, &spent)| {
            i64::try_from(rate.next_at(spent)).unwrap_or(i64::MAX)
        })
    }

    fn is_full(&self, task_type: &Name, limits: &RequestedType) -> bool {
        limits.max_cluster_concurrency.is_some_and(|max| {
            let counts = self.counts.iter();
            let of_type = counts.filter(|(route, _)| route.task_type == *task_type);
            let running = of_type.map(|(_, counts)| counts[StateKind::Running as usize]);
            running.sum::<u64>() >= max as u64
        })
    }
}
