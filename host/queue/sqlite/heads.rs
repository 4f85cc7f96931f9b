//! The first pending tasks of all routes, by priority.

use super::{backlog::QueuePosition, encoding::SymbolId, route_index::RouteIndex};
use hostel_task::Priority;
use std::collections::{BTreeSet, HashMap, HashSet};

/// The first task of a route, or its first suspect.
pub(super) type Head = (QueuePosition, SymbolId, bool);

#[derive(Default)]
pub(super) struct Heads {
    /// In the order of `Priority::ALL`.
    pub by_priority: [BTreeSet<Head>; 3],
    /// The routes for which it is out of date.
    pub stale: HashSet<SymbolId>,
}

impl Heads {
    /// Brings itself up to date for the routes that changed.
    pub fn update(&mut self, routes: &mut HashMap<SymbolId, RouteIndex>) {
        for symbol in self.stale.drain() {
            let Some(entry) = routes.get_mut(&symbol) else {
                continue;
            };
            for priority in Priority::ALL {
                let heads = &mut self.by_priority[priority as usize];
                for suspect in [false, true] {
                    let head = entry.first_of(priority, suspect);
                    let before = entry.set_head(priority, suspect, head);
                    if before == head {
                        continue;
                    }
                    if let Some(before) = before {
                        heads.remove(&(before, symbol, suspect));
                    }
                    heads.extend(head.map(|head| (head, symbol, suspect)));
                }
            }
        }
    }
}
