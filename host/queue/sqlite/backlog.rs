//! The pending tasks of one route and priority in the order of their leases: by their age, and from group to
//! group in turns as soon as one of them has a group.

use hostel_task::Name;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// When a task is due, and its sequence number.
pub(super) type QueuePosition = (i64, i64);

/// Tasks without a group are one group.
type Group = Option<Name>;

/// What the limits of a group say when its turn comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// One of its tasks may be leased.
    Now,
    /// None before this time, which is later than now.
    At(i64),
    /// None until a task of the group ends.
    Blocked,
}

pub(super) enum Backlog {
    /// No task has a group.
    Plain(BTreeSet<QueuePosition>),
    Grouped(Box<Groups>),
}

/// Tasks by their groups.
#[derive(Default)]
pub(super) struct Groups {
    tasks: HashMap<Group, GroupTasks>,
    /// The groups that take turns, the next one first.
    round: VecDeque<Group>,
    /// The first task of each group in the round that has tasks.
    firsts: BTreeMap<QueuePosition, Group>,
    /// The first task of each group that waits, or when its rate allows the next one if that is later. It
    /// joins the round once that is due.
    waiting: BTreeMap<QueuePosition, Group>,
    /// The groups that are at their concurrency limit.
    blocked: BTreeSet<Group>,
    /// The number of tasks that have a group.
    with_group: usize,
}

struct GroupTasks {
    tasks: BTreeSet<QueuePosition>,
    place: Place,
}

/// Where a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It waits until its first task is due, and until this time.
    Waits(i64),
    Round,
    Blocked,
}

impl Default for GroupTasks {
    fn default() -> Self {
        Self {
            tasks: BTreeSet::new(),
            place: Place::Waits(i64::MIN),
        }
    }
}

impl Default for Backlog {
    fn default() -> Self {
        Self::Plain(BTreeSet::new())
    }
}

impl Backlog {
    /// Returns the first task by age.
    pub fn first(&self) -> Option<QueuePosition> {
        match self {
            Self::Plain(tasks) => tasks.first().copied(),
            Self::Grouped(groups) => groups.first(),
        }
    }

    /// Counts, up to `max`, the tasks of a group that are before a position.
    pub fn ahead_of(&self, position: QueuePosition, group: Option<&Name>, max: usize) -> usize {
        let tasks = match self {
            Self::Plain(tasks) => Some(tasks),
            Self::Grouped(groups) => groups.tasks.get(&group.cloned()).map(|its| &its.tasks),
        };
        tasks.map_or(0, |tasks| tasks.range(..position).take(max).count())
    }

    pub fn insert(&mut self, position: QueuePosition, group: Option<&Name>) {
        if group.is_some()
            && let Self::Plain(tasks) = self
        {
            let groups = Groups::of(std::mem::take(tasks));
            *self = Self::Grouped(Box::new(groups));
        }
        match self {
            Self::Plain(tasks) => {
                tasks.insert(position);
            }
            Self::Grouped(groups) => groups.insert(position, group),
        }
    }

    pub fn remove(&mut self, position: QueuePosition, group: Option<&Name>) {
        match self {
            Self::Plain(tasks) => {
                tasks.remove(&position);
            }
            Self::Grouped(groups) => groups.remove(position, group),
        }
        self.simplify();
    }

    /// Removes the task whose turn it is, of those that are due by `now`. Tasks that are `late` are removed
    /// and passed over, and so are groups whose limits allow no task: `turn` says so of a group of which so many
    /// tasks were just taken.
    pub fn take(
        &mut self,
        now: i64,
        late: impl Fn(QueuePosition) -> bool,
        turn: impl FnMut(&Name, usize) -> Turn,
    ) -> Option<QueuePosition> {
        let taken = match self {
            Self::Plain(tasks) => take_first(tasks, now, late, &mut 0),
            Self::Grouped(groups) => groups.take(now, late, turn),
        };
        self.simplify();
        taken
    }

    /// Gives a group its turn again if it was at its concurrency limit.
    pub fn unblock(&mut self, group: &Name) {
        if let Self::Grouped(groups) = self {
            groups.unblock(&Some(group.clone()));
        }
    }

    /// Forgets which groups were at their limits, and until when others wait for their rates.
    pub fn forget_limits(&mut self) {
        if let Self::Grouped(groups) = self {
            groups.forget_limits();
        }
    }

    /// Returns how many tasks of a group there are.
    pub fn count_of(&self, group: &Name) -> usize {
        match self {
            Self::Plain(_) => 0,
            Self::Grouped(groups) => groups.count_of(group),
        }
    }

    /// Forgets the groups once no task has one.
    fn simplify(&mut self) {
        if let Self::Grouped(groups) = self
            && groups.with_group == 0
        {
            let plain = groups.tasks.remove(&None).unwrap_or_default();
            *self = Self::Plain(plain.tasks);
        }
    }
}

/// Removes the first task that is due and not `late`, and counts what is removed.
fn take_first(
    tasks: &mut BTreeSet<QueuePosition>,
    now: i64,
    late: impl Fn(QueuePosition) -> bool,
    removed: &mut usize,
) -> Option<QueuePosition> {
    loop {
        let first = *tasks.first().filter(|first| first.0 <= now)?;
        tasks.pop_first();
        *removed += 1;
        if !late(first) {
            return Some(first);
        }
    }
}

/// When a group that waits joins the round.
fn joins_at(first: QueuePosition, until: i64) -> QueuePosition {
    (first.0.max(until), first.1)
}

impl Groups {
    /// Groups that begin with these tasks, which have none.
    fn of(tasks: BTreeSet<QueuePosition>) -> Self {
        let mut groups = Self::default();
        if let Some(&first) = tasks.first() {
            groups.waiting.insert(first, None);
            let place = Place::Waits(i64::MIN);
            groups.tasks.insert(None, GroupTasks { tasks, place });
        }
        groups
    }

    fn first(&self) -> Option<QueuePosition> {
        let firsts = [&self.firsts, &self.waiting];
        let firsts = firsts.map(|first| first.first_key_value().map(|(first, _)| *first));
        firsts.into_iter().flatten().min()
    }

    fn count_of(&self, group: &Name) -> usize {
        let its = self.tasks.get(&Some(group.clone()));
        its.map_or(0, |its| its.tasks.len())
    }

    fn insert(&mut self, position: QueuePosition, group: Option<&Name>) {
        let group = group.cloned();
        self.with_group += usize::from(group.is_some());
        let its = self.tasks.entry(group.clone()).or_default();
        let before = its.tasks.first().copied();
        its.tasks.insert(position);
        let (after, place) = (its.tasks.first().copied(), its.place);
        self.set_first(&group, place, before, after);
    }

    fn remove(&mut self, position: QueuePosition, group: Option<&Name>) {
        let group = group.cloned();
        let Some(its) = self.tasks.get_mut(&group) else {
            return;
        };
        let before = its.tasks.first().copied();
        if !its.tasks.remove(&position) {
            return;
        }
        let (after, place) = (its.tasks.first().copied(), its.place);
        self.with_group -= usize::from(group.is_some());
        self.set_first(&group, place, before, after);
        // Within the round it keeps its place, where it is removed when its turn comes.
        if after.is_none() && place != Place::Round {
            self.tasks.remove(&group);
            self.blocked.remove(&group);
        }
    }

    /// Notes a change of the first task of a group.
    fn set_first(
        &mut self,
        group: &Group,
        place: Place,
        before: Option<QueuePosition>,
        after: Option<QueuePosition>,
    ) {
        if before == after {
            return;
        }
        let (list, until) = match place {
            Place::Waits(until) => (&mut self.waiting, until),
            Place::Round => (&mut self.firsts, i64::MIN),
            Place::Blocked => return,
        };
        if let Some(before) = before {
            list.remove(&joins_at(before, until));
        }
        if let Some(after) = after {
            list.insert(joins_at(after, until), group.clone());
        }
    }

    fn take(
        &mut self,
        now: i64,
        late: impl Fn(QueuePosition) -> bool,
        mut turn: impl FnMut(&Name, usize) -> Turn,
    ) -> Option<QueuePosition> {
        self.admit(now);
        loop {
            let group = self.round.pop_front()?;
            let Some(its) = self.tasks.get_mut(&group) else {
                continue;
            };
            let mut turn = |taken| group.as_ref().map_or(Turn::Now, |name| turn(name, taken));
            let (mut taken, mut next) = (None, Turn::Now);
            if let Some(first) = its.tasks.first() {
                self.firsts.remove(first);
                next = turn(0);
            }
            if next == Turn::Now {
                let mut removed = 0;
                taken = take_first(&mut its.tasks, now, &late, &mut removed);
                if taken.is_some() && !its.tasks.is_empty() {
                    next = turn(1);
                }
                if group.is_some() {
                    self.with_group -= removed;
                }
            }
            self.put_back(group, next, now);
            if taken.is_some() {
                return taken;
            }
        }
    }

    /// Puts a group that has had its turn where it belongs.
    fn put_back(&mut self, group: Group, next: Turn, now: i64) {
        let Some(its) = self.tasks.get_mut(&group) else {
            return;
        };
        let Some(&first) = its.tasks.first() else {
            self.tasks.remove(&group);
            return;
        };
        its.place = match next {
            Turn::Blocked => Place::Blocked,
            Turn::At(time) => Place::Waits(time),
            Turn::Now if first.0 > now => Place::Waits(i64::MIN),
            Turn::Now => Place::Round,
        };
        match its.place {
            Place::Blocked => {
                self.blocked.insert(group);
            }
            Place::Waits(until) => {
                self.waiting.insert(joins_at(first, until), group);
            }
            Place::Round => {
                self.firsts.insert(first, group.clone());
                self.round.push_back(group);
            }
        }
    }

    /// Lets the groups whose first task is due take part in the round, after those that do already.
    fn admit(&mut self, now: i64) {
        while let Some(waiting) = self.waiting.first_entry()
            && waiting.key().0 <= now
        {
            let group = waiting.remove();
            let Some(its) = self.tasks.get_mut(&group) else {
                continue;
            };
            its.place = Place::Round;
            self.firsts
                .extend(its.tasks.first().map(|&first| (first, group.clone())));
            self.round.push_back(group);
        }
    }

    fn unblock(&mut self, group: &Group) {
        let Some(group) = self.blocked.take(group) else {
            return;
        };
        if let Some(its) = self.tasks.get_mut(&group) {
            its.place = Place::Round;
            self.firsts
                .extend(its.tasks.first().map(|&first| (first, group.clone())));
            // It has waited for this turn.
            self.round.push_front(group);
        }
    }

    fn forget_limits(&mut self) {
        for group in self.blocked.clone() {
            self.unblock(&group);
        }
        self.waiting.clear();
        for (group, its) in &mut self.tasks {
            if let Place::Waits(until) = &mut its.place {
                *until = i64::MIN;
                self.waiting
                    .extend(its.tasks.first().map(|&first| (first, group.clone())));
            }
        }
    }
}

#[cfg(test)]
mod tests;
