//! The order of leases: which tasks a request may be given next. Where the contract leaves a choice,
//! which is the place of a group in its round and the first number of a lease, every choice is accepted.

use super::known::Known;
use crate::conformance::helpers::*;
use hostel_task::{SHARES, is_suspect};
use std::collections::{BTreeMap, BTreeSet};

/// When a task is due, and its number.
type Position = (u64, usize);

/// Tasks without a group are a group of their own.
type Group = Option<Name>;

/// Tasks of one type and priority, which take turns by their groups.
type Lane = (&'static str, Priority);

/// What earlier leases say about the order of the next ones.
pub(super) struct Order {
    /// The numbers that the first lease may have had.
    first_numbers: Vec<u64>,
    leases: u64,
    /// For each group that waits, the groups that had a turn since it waits.
    turns: BTreeMap<Lane, BTreeMap<Group, BTreeSet<Group>>>,
}

/// What one request may still be given.
pub(super) struct Allowance {
    pub remaining: BTreeMap<&'static str, usize>,
    /// Of the groups that have limits.
    pub in_groups: BTreeMap<(&'static str, Name), usize>,
    pub suspect: bool,
    /// Tasks that are due later wait.
    pub due_by: u64,
}

impl Default for Order {
    fn default() -> Self {
        Self {
            first_numbers: (0..SHARES.iter().sum::<u64>()).collect(),
            leases: 0,
            turns: BTreeMap::new(),
        }
    }
}

impl Order {
    /// Notes which groups wait. To be called after every change of a task.
    pub fn update<'k>(&mut self, tasks: impl Iterator<Item = &'k Known>, due_by: u64) {
        let mut waiting: BTreeMap<Lane, BTreeSet<Group>> = BTreeMap::new();
        for known in tasks.filter(|known| is_due(known, due_by) && !is_suspect(known.losses)) {
            let groups = waiting.entry(lane(known)).or_default();
            groups.insert(known.options.group.clone());
        }
        self.turns.retain(|lane, _| waiting.contains_key(lane));
        for (lane, groups) in waiting {
            let turns = self.turns.entry(lane).or_default();
            turns.retain(|group, _| groups.contains(group));
            for group in groups {
                turns.entry(group).or_default();
            }
        }
    }

    /// Asserts that `id` may be the next task that the request is given, and takes it.
    pub fn take(&mut self, tasks: &BTreeMap<Name, Known>, id: &Name, allowance: &mut Allowance) {
        let known = &tasks[id];
        let candidates: Vec<&Known> = allowance.candidates(tasks).collect();
        assert!(
            candidates.iter().any(|other| other.number == known.number),
            "{id} cannot be leased: {known:?}"
        );
        self.check_priority(known.priority, &candidates);
        let due: Vec<&Known> = allowance.due(tasks).collect();
        check_place(known, &candidates, &due);
        self.pass_over(tasks, allowance);
        if is_suspect(known.losses) {
            allowance.suspect = false;
        } else {
            self.take_turn(known);
        }
        *allowance.remaining.entry(known.task_type).or_default() -= 1;
        if let Some(group) = &known.options.group
            && let Some(left) = allowance
                .in_groups
                .get_mut(&(known.task_type, group.clone()))
        {
            *left -= 1;
        }
        self.pass_over(tasks, allowance);
        self.leases += 1;
    }

    /// Groups that are at their limits wait anew.
    pub fn pass_over(&mut self, tasks: &BTreeMap<Name, Known>, allowance: &Allowance) {
        for known in tasks.values().filter(|known| !allowance.has_room(known)) {
            let turns = self.turns.get_mut(&lane(known));
            if let Some(had_turn) = turns.and_then(|it| it.get_mut(&known.options.group)) {
                had_turn.clear();
            }
        }
    }

    fn check_priority(&mut self, given: Priority, candidates: &[&Known]) {
        let waits = |priority| candidates.iter().any(|it| it.priority == priority);
        let leases = self.leases;
        self.first_numbers.retain(|first| {
            let turn = Priority::of_turn(first + leases);
            let highest = || Priority::ALL.into_iter().find(|it| waits(*it));
            let next = Some(turn).filter(|it| waits(*it)).or_else(highest);
            next == Some(given)
        });
        let possible = !self.first_numbers.is_empty();
        assert!(possible, "lease {leases} went to the priority {given}");
    }

    /// No group has two turns while another waits.
    fn take_turn(&mut self, known: &Known) {
        let turns = self.turns.entry(lane(known)).or_default();
        let group = &known.options.group;
        turns.remove(group);
        for (waiting, had_turn) in turns {
            let is_first = had_turn.insert(group.clone());
            assert!(is_first, "{group:?} had two turns while {waiting:?} waited");
        }
    }
}

impl Allowance {
    /// Returns the tasks that the request can still be given.
    pub fn candidates<'t>(
        &'t self,
        tasks: &'t BTreeMap<Name, Known>,
    ) -> impl Iterator<Item = &'t Known> {
        self.due(tasks).filter(move |known| self.has_room(known))
    }

    /// Returns the same with those of groups that are at their limits.
    fn due<'t>(&'t self, tasks: &'t BTreeMap<Name, Known>) -> impl Iterator<Item = &'t Known> {
        tasks.values().filter(move |known| {
            let remaining = self.remaining.get(known.task_type);
            is_due(known, self.due_by)
                && remaining.is_some_and(|&count| count > 0)
                && (self.suspect || !is_suspect(known.losses))
        })
    }

    /// Whether the limits of a task's group allow another one.
    fn has_room(&self, known: &Known) -> bool {
        let group = known.options.group.as_ref();
        let left = group.and_then(|group| self.in_groups.get(&(known.task_type, group.clone())));
        left.is_none_or(|&left| left > 0)
    }
}

/// Whether a pending task can be leased by a request of its type.
fn is_due(known: &Known, due_by: u64) -> bool {
    known.state == StateKind::Pending && known.due <= due_by && !known.overdue
}

fn lane(known: &Known) -> Lane {
    (known.task_type, known.priority)
}

/// Tasks that became due again in the same millisecond have no order among themselves.
fn position(known: &Known) -> Position {
    let is_submitted = known.due == 0;
    (known.due, if is_submitted { known.number } else { 0 })
}

/// Asserts that the task is the oldest of its group, or of the suspects of its type, and that the oldest
/// of other types do not come before it. A type may be as old as a task of a group that is at its limit.
fn check_place(known: &Known, candidates: &[&Known], due: &[&Known]) {
    let suspect = is_suspect(known.losses);
    let mut others: BTreeMap<(&str, bool), BTreeMap<Group, Position>> = BTreeMap::new();
    for other in candidates {
        if other.priority != known.priority {
            continue;
        }
        let other_suspect = is_suspect(other.losses);
        let group = other.options.group.clone().filter(|_| !other_suspect);
        let groups = others.entry((other.task_type, other_suspect)).or_default();
        let first = groups.entry(group).or_insert((u64::MAX, 0));
        *first = position(other).min(*first);
    }
    let group = known.options.group.clone().filter(|_| !suspect);
    let place = (known.task_type, suspect);
    let own = &others[&place];
    assert_eq!(own[&group], position(known), "{known:?}");
    let of_place = due.iter().filter(|other| {
        other.priority == known.priority && (other.task_type, is_suspect(other.losses)) == place
    });
    let oldest = of_place.map(|other| position(other)).min();
    for (other, firsts) in &others {
        // A type is as old as its oldest task, or as the task of the group whose turn it is.
        let is_older = oldest.as_ref() <= firsts.values().min();
        let is_before_any = Some(&position(known)) <= firsts.values().max();
        assert!(is_older || is_before_any, "{known:?} came before {other:?}");
    }
}
