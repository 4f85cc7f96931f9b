//! The tasks of one route: the pending ones by priority, and the number in each state.

use super::backlog::{Backlog, QueuePosition, Turn};
use hostel_task::{Name, Priority, Route, is_suspect};
use std::collections::BTreeSet;

pub(super) struct RouteIndex {
    pub route: Route,
    /// By priority, in the order of `Priority::ALL`.
    pending: [ByPriority; 3],
    pub counts: [u64; 5],
}

#[derive(Default)]
struct ByPriority {
    tasks: Backlog,
    /// Ordered by due time, then by submission.
    suspects: BTreeSet<QueuePosition>,
    /// What `Heads` has of this route: the first task and the first suspect.
    heads: [Option<QueuePosition>; 2],
}

impl RouteIndex {
    pub fn new(route: Route) -> Self {
        Self {
            route,
            pending: Default::default(),
            counts: [0; 5],
        }
    }

    /// Adds a pending task that was lost `losses` times.
    pub fn insert(
        &mut self,
        position: QueuePosition,
        losses: u32,
        priority: Priority,
        group: Option<&Name>,
    ) {
        let pending = &mut self.pending[priority as usize];
        if is_suspect(losses) {
            pending.suspects.insert(position);
        } else {
            pending.tasks.insert(position, group);
        }
    }

    pub fn remove(
        &mut self,
        position: QueuePosition,
        losses: u32,
        priority: Priority,
        group: Option<&Name>,
    ) {
        let pending = &mut self.pending[priority as usize];
        if is_suspect(losses) {
            pending.suspects.remove(&position);
        } else {
            pending.tasks.remove(position, group);
        }
    }

    /// Returns the first pending task, of the suspects or of the others.
    pub fn first(&self, suspect: bool) -> Option<QueuePosition> {
        let firsts = Priority::ALL.map(|priority| self.first_of(priority, suspect));
        firsts.into_iter().flatten().min()
    }

    /// Returns the first pending task of a priority.
    pub fn first_of(&self, priority: Priority, suspect: bool) -> Option<QueuePosition> {
        let pending = &self.pending[priority as usize];
        if suspect {
            pending.suspects.first().copied()
        } else {
            pending.tasks.first()
        }
    }

    /// Removes the next task of a priority that is due by `now`. Tasks that are `late` are removed and
    /// passed over, and so are groups whose limits allow no task, which `turn` says.
    pub fn take(
        &mut self,
        priority: Priority,
        now: i64,
        late: impl Fn(QueuePosition) -> bool,
        turn: impl FnMut(&Name, usize) -> Turn,
    ) -> Option<QueuePosition> {
        self.pending[priority as usize].tasks.take(now, late, turn)
    }

    /// Removes the first suspect of a priority that is due by `now` and that `may_run`. It has begun before, so
    /// it is never late.
    pub fn take_suspect(
        &mut self,
        priority: Priority,
        now: i64,
        mut may_run: impl FnMut(QueuePosition) -> bool,
    ) -> Option<QueuePosition> {
        let suspects = &mut self.pending[priority as usize].suspects;
        let mut due = suspects.iter().copied().take_while(|first| first.0 <= now);
        let first = due.find(|&first| may_run(first))?;
        suspects.remove(&first);
        Some(first)
    }

    /// Gives a group its turns again if it was at its concurrency limit.
    pub fn unblock(&mut self, group: &Name) {
        for pending in &mut self.pending {
            pending.tasks.unblock(group);
        }
    }

    /// Forgets which groups were at their limits, and until when others wait for their rates.
    pub fn forget_limits(&mut self) {
        for pending in &mut self.pending {
            pending.tasks.forget_limits();
        }
    }

    /// Returns how many tasks of a group are pending, without suspects.
    pub fn pending_in_group(&self, group: &Name) -> usize {
        let pending = self.pending.iter();
        pending.map(|pending| pending.tasks.count_of(group)).sum()
    }

    /// Counts, up to `max`, the tasks that come before a pending one within its priority and its group.
    pub fn ahead_of(
        &self,
        position: QueuePosition,
        losses: u32,
        priority: Priority,
        group: Option<&Name>,
        max: usize,
    ) -> usize {
        let pending = &self.pending[priority as usize];
        if is_suspect(losses) {
            pending.suspects.range(..position).take(max).count()
        } else {
            pending.tasks.ahead_of(position, group, max)
        }
    }

    /// Replaces what `Heads` has of this route, and returns what it had.
    pub fn set_head(
        &mut self,
        priority: Priority,
        suspect: bool,
        head: Option<QueuePosition>,
    ) -> Option<QueuePosition> {
        let heads = &mut self.pending[priority as usize].heads;
        std::mem::replace(&mut heads[usize::from(suspect)], head)
    }
}
