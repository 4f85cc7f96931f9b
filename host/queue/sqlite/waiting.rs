//! Where a pending task waits, and how much of their limits types and groups use, by the index. Changes nothing.

use super::{encoding::SymbolId, index::Index, transaction::Transaction};
use crate::{
    details::Place,
    usage::{Usage, UsageScope},
};
use hostel_sqlite::StatementError;
use hostel_task::{StateKind, TaskId};
use rusqlite::OptionalExtension;

/// How many tasks are counted, so that this delays no other operation.
const MAX_COUNTED: usize = 10_000;

/// A task as far as its row can be read.
struct Found {
    seq: i64,
    route: Option<SymbolId>,
    state: Option<i64>,
    at: Option<i64>,
    losses: Option<u32>,
}

impl Transaction<'_> {
    /// Returns where a task waits; `None` unless it is pending.
    pub fn place(&mut self, id: &TaskId) -> Result<Option<Place>, StatementError> {
        let found = self.statements.find.query_one([id.as_str()], |row| {
            Ok(Found {
                seq: row.get(0)?,
                route: row.get(1).ok(),
                state: row.get(2).ok(),
                at: row.get(3).ok(),
                losses: row.get(4).ok(),
            })
        });
        let found = found.optional()?;
        let now = self.clock.now();
        Ok(found.and_then(|found| self.index.place(&found, now)))
    }

    /// Returns how much of its limits a type or a group uses.
    pub fn usage(&self, scope: &UsageScope) -> Usage {
        self.index.usage(scope, self.clock.now())
    }
}

impl Index {
    fn usage(&self, scope: &UsageScope, now: i64) -> Usage {
        let UsageScope {
            task_type, group, ..
        } = scope;
        let running = match group {
            None => self.tasks_of(task_type, StateKind::Running),
            Some(group) => {
                let routes: Vec<SymbolId> =
                    self.routes_of(task_type).map(|(route, _)| route).collect();
                self.running.count_of(&routes, group, None)
            }
        };
        let wait = scope.rate.map(|rate| {
            let spent = self.rates.spent(task_type, group.as_ref());
            rate.wait(spent, u64::try_from(now).unwrap_or_default())
        });
        Usage {
            running,
            // No other node has this queue.
            on_node: Some(running),
            wait: wait.unwrap_or_default(),
        }
    }

    fn place(&self, task: &Found, now: i64) -> Option<Place> {
        task.state
            .filter(|&state| state == StateKind::Pending as i64)?;
        let position = (task.at?, task.seq);
        let entry = self.routes.get(&task.route?)?;
        let placement = self.placements.get(task.seq);
        let (priority, group) =
            placement.map_or_else(Default::default, |it| (it.priority, it.group.as_ref()));
        let max = MAX_COUNTED + 1;
        let count = entry.ahead_of(position, task.losses?, priority, group, max);
        Some(Place {
            ahead: count.min(MAX_COUNTED),
            is_more: count > MAX_COUNTED,
            is_expired: self.placements.is_late(task.seq, now),
        })
    }
}
