//! The pending tasks of one route and priority in the order of their leases: by their age, and from group to
//! group in turns as soon as one of them has a group.

use hostel_task::Name;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// When a task is due, and its sequence number.
pub(super) type QueuePosition = (i64, i64);

/// Tasks without a group are one group.
type Group = Option<Name>;

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
    /// The first task of each other group. It joins the round once that is due.
    waiting: BTreeMap<QueuePosition, Group>,
    /// The number of tasks that have a group.
    with_group: usize,
}

#[derive(Default)]
struct GroupTasks {
    tasks: BTreeSet<QueuePosition>,
    in_round: bool,
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
    /// and passed over.
    pub fn take(
        &mut self,
        now: i64,
        late: impl Fn(QueuePosition) -> bool,
    ) -> Option<QueuePosition> {
        let taken = match self {
            Self::Plain(tasks) => take_first(tasks, now, late, &mut 0),
            Self::Grouped(groups) => groups.take(now, late),
        };
        self.simplify();
        taken
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

impl Groups {
    /// Groups that begin with these tasks, which have none.
    fn of(tasks: BTreeSet<QueuePosition>) -> Self {
        let mut groups = Self::default();
        if let Some(&first) = tasks.first() {
            groups.waiting.insert(first, None);
            let in_round = false;
            groups.tasks.insert(None, GroupTasks { tasks, in_round });
        }
        groups
    }

    fn first(&self) -> Option<QueuePosition> {
        let firsts = [&self.firsts, &self.waiting];
        let firsts = firsts.map(|first| first.first_key_value().map(|(first, _)| *first));
        firsts.into_iter().flatten().min()
    }

    fn insert(&mut self, position: QueuePosition, group: Option<&Name>) {
        let group = group.cloned();
        self.with_group += usize::from(group.is_some());
        let its = self.tasks.entry(group.clone()).or_default();
        let first = its.tasks.first().copied();
        its.tasks.insert(position);
        if first.is_none_or(|first| position < first) {
            let firsts = if its.in_round {
                &mut self.firsts
            } else {
                &mut self.waiting
            };
            if let Some(first) = first {
                firsts.remove(&first);
            }
            firsts.insert(position, group);
        }
    }

    fn remove(&mut self, position: QueuePosition, group: Option<&Name>) {
        let group = group.cloned();
        let Some(its) = self.tasks.get_mut(&group) else {
            return;
        };
        if !its.tasks.remove(&position) {
            return;
        }
        self.with_group -= usize::from(group.is_some());
        let firsts = if its.in_round {
            &mut self.firsts
        } else {
            &mut self.waiting
        };
        let was_first = firsts.remove(&position).is_some();
        match its.tasks.first() {
            Some(&first) if was_first => {
                firsts.insert(first, group);
            }
            Some(_) => {}
            // Within the round it keeps its place, where it is removed when its turn comes.
            None if its.in_round => {}
            None => {
                self.tasks.remove(&group);
            }
        }
    }

    fn take(&mut self, now: i64, late: impl Fn(QueuePosition) -> bool) -> Option<QueuePosition> {
        self.admit(now);
        loop {
            let group = self.round.pop_front()?;
            let Some(its) = self.tasks.get_mut(&group) else {
                continue;
            };
            if let Some(first) = its.tasks.first() {
                self.firsts.remove(first);
            }
            let mut removed = 0;
            let taken = take_first(&mut its.tasks, now, &late, &mut removed);
            if group.is_some() {
                self.with_group -= removed;
            }
            match its.tasks.first() {
                Some(&next) if next.0 <= now => {
                    self.firsts.insert(next, group.clone());
                    self.round.push_back(group);
                }
                Some(&next) => {
                    its.in_round = false;
                    self.waiting.insert(next, group);
                }
                None => {
                    self.tasks.remove(&group);
                }
            }
            if taken.is_some() {
                return taken;
            }
        }
    }

    /// Lets the groups whose first task is due take part in the round, after those that do already.
    fn admit(&mut self, now: i64) {
        while let Some(waiting) = self.waiting.first_entry()
            && waiting.key().0 <= now
        {
            let (first, group) = waiting.remove_entry();
            if let Some(its) = self.tasks.get_mut(&group) {
                its.in_round = true;
            }
            self.firsts.insert(first, group.clone());
            self.round.push_back(group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(given: &str) -> Name {
        Name::parse("group", given).unwrap()
    }

    /// A backlog with tasks that are due at their numbers; a group of "" is none.
    fn backlog(tasks: &[(i64, &str)]) -> Backlog {
        let mut backlog = Backlog::default();
        for &(number, group) in tasks {
            insert(&mut backlog, number, group);
        }
        backlog
    }

    fn insert(backlog: &mut Backlog, number: i64, group: &str) {
        let group = (!group.is_empty()).then(|| name(group));
        backlog.insert((number, number), group.as_ref());
    }

    fn take_all(backlog: &mut Backlog, now: i64) -> Vec<i64> {
        let take = || backlog.take(now, |_| false).map(|(_, number)| number);
        std::iter::from_fn(take).collect()
    }

    #[test]
    fn tasks_without_a_group_come_by_age() {
        let mut backlog = backlog(&[(3, ""), (1, ""), (2, ""), (9, "")]);
        assert_eq!(backlog.first(), Some((1, 1)));
        backlog.remove((2, 2), None);
        assert_eq!(take_all(&mut backlog, 5), [1, 3]);
        assert_eq!(backlog.first(), Some((9, 9)));
    }

    #[test]
    fn groups_take_turns_from_the_oldest_on() {
        let mut backlog = backlog(&[(1, "a"), (2, "a"), (3, "a"), (4, "b"), (5, ""), (6, "")]);
        assert_eq!(take_all(&mut backlog, 9), [1, 4, 5, 2, 6, 3]);
        assert!(matches!(backlog, Backlog::Plain(tasks) if tasks.is_empty()));
    }

    #[test]
    fn a_group_joins_the_round_when_it_is_due() {
        let mut backlog = backlog(&[(1, "a"), (2, "a"), (3, "a"), (20, "b")]);
        assert_eq!(backlog.take(10, |_| false), Some((1, 1)));
        insert(&mut backlog, 4, "c");
        assert_eq!(take_all(&mut backlog, 10), [2, 4, 3]);
        assert_eq!(backlog.first(), Some((20, 20)));
        assert_eq!(take_all(&mut backlog, 20), [20]);
    }

    #[test]
    fn a_group_has_one_place_in_the_round() {
        let mut backlog = backlog(&[(1, "a"), (2, "b"), (3, "b"), (4, "b"), (5, "a")]);
        assert_eq!(backlog.take(9, |_| false), Some((1, 1)));
        // The group leaves the round and comes back before its turn.
        backlog.remove((5, 5), Some(&name("a")));
        insert(&mut backlog, 6, "a");
        insert(&mut backlog, 7, "a");
        assert_eq!(take_all(&mut backlog, 9), [2, 6, 3, 7, 4]);
    }

    #[test]
    fn late_tasks_cost_no_turn() {
        let mut backlog = backlog(&[(1, "a"), (2, "a"), (3, "b"), (4, ""), (5, "c")]);
        let late = |position: QueuePosition| matches!(position.1, 1 | 3 | 5);
        let mut taken = Vec::new();
        while let Some((_, number)) = backlog.take(9, late) {
            taken.push(number);
        }
        assert_eq!(taken, [2, 4]);
        assert_eq!(backlog.first(), None);
    }

    #[test]
    fn a_backlog_without_groups_left_is_plain_again() {
        let mut backlog = backlog(&[(1, ""), (2, "a"), (3, "")]);
        assert!(matches!(backlog, Backlog::Grouped(_)));
        backlog.remove((2, 2), Some(&name("a")));
        assert!(matches!(backlog, Backlog::Plain(_)));
        assert_eq!(take_all(&mut backlog, 9), [1, 3]);
    }

    #[test]
    fn every_task_is_taken_once_whatever_happens_before() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut backlog = Backlog::default();
            let mut pending: BTreeMap<i64, &str> = BTreeMap::new();
            for number in 0..60 {
                let group = ["", "a", "b", "c"][random.usize(..4)];
                let due = random.i64(..10);
                let position = (due, number);
                let of = (!group.is_empty()).then(|| name(group));
                backlog.insert(position, of.as_ref());
                if random.u8(..4) == 0 {
                    backlog.remove(position, of.as_ref());
                } else {
                    pending.insert(number, group);
                }
                if random.bool()
                    && let Some((due, number)) = backlog.take(5, |_| false)
                {
                    assert!(due <= 5);
                    assert!(pending.remove(&number).is_some(), "seed {seed}");
                }
            }
            let mut rest = take_all(&mut backlog, 10);
            rest.sort_unstable();
            assert!(rest.into_iter().eq(pending.into_keys()), "seed {seed}");
            assert!(matches!(backlog, Backlog::Plain(tasks) if tasks.is_empty()));
        }
    }
}
