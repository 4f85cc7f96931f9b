//! `EndTracker`: follows the ends of many tasks at the cost of a signal for each. It names the tasks that
//! may have ended, and its user reads them. When signals were missed it goes through all of its tasks in
//! bounded steps, and a few of them it names from time to time in any case.

use super::waiters::Following;
use crate::task::TaskId;
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};
use tokio::time::{Instant, sleep_until};

/// How often some tasks are named without a signal, and how many.
const RECHECK_INTERVAL: Duration = Duration::from_secs(5);
const RECHECK_STEP: usize = 256;

/// How many tasks are named at once after signals were missed.
const SWEEP_STEP: usize = 64;

/// The tasks that one stream follows, each under a position of its own. The default hears of no end, and
/// only names tasks from time to time.
pub struct EndTracker {
    following: Following,
    tasks: BTreeMap<u64, Tracked>,
    /// The positions of tasks that may have ended, in the order of their signals.
    due: VecDeque<u64>,
    /// Where to go on after signals were missed, and whether more were missed since.
    sweep: Option<u64>,
    sweep_again: bool,
    recheck_at: Option<Instant>,
    recheck_from: u64,
}

struct Tracked {
    id: TaskId,
    phase: Phase,
}

/// How far the submission of a task is.
enum Phase {
    /// It is being stored.
    Submitting,
    /// It has ended before its submission was answered.
    EndedEarly,
    /// It is stored.
    Stored,
}

impl EndTracker {
    pub(super) fn new(following: Following) -> Self {
        Self {
            following,
            tasks: BTreeMap::new(),
            due: VecDeque::new(),
            sweep: None,
            sweep_again: false,
            recheck_at: None,
            recheck_from: 0,
        }
    }

    /// The number of tasks that are followed.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether no task is followed.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Follows tasks, each under a position that is not in use. To miss no end, this comes before their
    /// submission. They are not named until `stored` or `check`.
    pub fn follow(&mut self, tasks: impl IntoIterator<Item = (u64, TaskId)>) {
        let tasks: Vec<_> = tasks.into_iter().collect();
        self.following.add(tasks.iter().map(|(at, id)| (*at, id)));
        let tracked = tasks.into_iter().map(|(at, id)| {
            let phase = Phase::Submitting;
            (at, Tracked { id, phase })
        });
        self.tasks.extend(tracked);
    }

    /// Records that a task is stored now.
    pub fn stored(&mut self, position: u64) {
        if let Some(task) = self.tasks.get_mut(&position) {
            if matches!(task.phase, Phase::EndedEarly) {
                self.due.push_back(position);
            }
            task.phase = Phase::Stored;
        }
    }

    /// Records that a task was stored before, so that it may have ended long ago.
    pub fn check(&mut self, position: u64) {
        if let Some(task) = self.tasks.get_mut(&position) {
            task.phase = Phase::Stored;
            self.due.push_back(position);
        }
    }

    /// Follows these tasks no more.
    pub fn forget(&mut self, positions: impl IntoIterator<Item = u64>) {
        let tasks = &mut self.tasks;
        let remove = |at| Some((at, tasks.remove(&at)?.id));
        let gone: Vec<_> = positions.into_iter().filter_map(remove).collect();
        self.following.remove(gone.iter().map(|(at, id)| (*at, id)));
    }

    /// Waits for tasks that may have ended, and returns up to `max` of them. Each stays followed until it
    /// is forgotten: one that turns out to be open is named again. Cancel-safe.
    pub async fn next(&mut self, max: usize) -> Vec<(u64, TaskId)> {
        loop {
            let found = self.take_due(max);
            if !found.is_empty() {
                return found;
            }
            let at = *self
                .recheck_at
                .get_or_insert_with(|| Instant::now() + RECHECK_INTERVAL);
            tokio::select! {
                () = self.following.signals().signalled() => {}
                () = sleep_until(at) => self.recheck(),
            }
        }
    }

    fn take_due(&mut self, max: usize) -> Vec<(u64, TaskId)> {
        let mut found = Vec::new();
        while found.len() < max && (!self.due.is_empty() || self.refill()) {
            let Some(position) = self.due.pop_front() else {
                break;
            };
            // A task may be signalled again after its end was read.
            let Some(task) = self.tasks.get_mut(&position) else {
                continue;
            };
            match task.phase {
                Phase::Stored => found.push((position, task.id.clone())),
                Phase::Submitting | Phase::EndedEarly => task.phase = Phase::EndedEarly,
            }
        }
        found
    }

    /// Takes the signals, or else the next step of a sweep. Returns whether any task is due.
    fn refill(&mut self) -> bool {
        let signals = self.following.signals().take();
        if signals.missed {
            match self.sweep {
                None => self.sweep = Some(0),
                Some(_) => self.sweep_again = true,
            }
        }
        self.due.extend(signals.ended);
        while self.due.is_empty()
            && let Some(from) = self.sweep
        {
            let step = self.tasks.range(from..).take(SWEEP_STEP);
            self.due.extend(step.map(|(&position, _)| position));
            self.sweep = match self.due.back() {
                Some(last) => Some(last + 1),
                None => std::mem::take(&mut self.sweep_again).then_some(0),
            };
        }
        !self.due.is_empty()
    }

    /// Makes the next few tasks due.
    fn recheck(&mut self) {
        self.recheck_at = None;
        let step = self.tasks.range(self.recheck_from..).take(RECHECK_STEP);
        let before = self.due.len();
        self.due.extend(step.map(|(&position, _)| position));
        let is_last = self.due.len() < before + RECHECK_STEP;
        self.recheck_from = match self.due.back() {
            Some(last) if !is_last => last + 1,
            _ => 0,
        };
    }
}

impl Default for EndTracker {
    fn default() -> Self {
        Self::new(Following::default())
    }
}

impl Drop for EndTracker {
    fn drop(&mut self) {
        let tasks = self.tasks.iter();
        self.following
            .remove(tasks.map(|(&at, task)| (at, &task.id)));
    }
}

#[cfg(test)]
mod tests {
    use super::{super::waiters::Waiters, *};
    use crate::{
        health::Health,
        queue::{Change, Publisher},
        task::{Name, StateKind},
    };
    use futures_util::FutureExt;

    fn id(number: u64) -> TaskId {
        TaskId::parse("id", &format!("task-{number}")).unwrap()
    }

    fn ended(number: u64) -> Change {
        let task_type = Name::parse("type", "echo").unwrap();
        Change::new(id(number), task_type, StateKind::Completed)
    }

    fn tracker() -> (Publisher, Waiters, EndTracker) {
        let publisher = Publisher::new();
        let watched = publisher.clone();
        let waiters = Waiters::new(move || watched.watch(), &Health::default());
        let tracker = EndTracker::new(waiters.follow());
        (publisher, waiters, tracker)
    }

    fn positions(found: Vec<(u64, TaskId)>) -> Vec<u64> {
        found.into_iter().map(|(position, _)| position).collect()
    }

    #[tokio::test]
    async fn an_end_is_named_after_the_answer_however_early_it_came() {
        let (publisher, _waiters, mut tracker) = tracker();
        tracker.follow((0..4).map(|number| (number, id(number))));
        publisher.publish(vec![ended(0), ended(2)]);
        // No task is answered yet.
        while !matches!(tracker.tasks[&2].phase, Phase::EndedEarly) {
            assert!(tracker.take_due(9).is_empty());
            tokio::task::yield_now().await;
        }
        tracker.stored(0);
        tracker.stored(1);
        tracker.check(3);
        assert_eq!(positions(tracker.next(9).await), [0, 3]);
        tracker.stored(2);
        assert_eq!(positions(tracker.next(9).await), [2]);
        // One that was read as open is named again at its next end.
        publisher.publish(vec![ended(2), ended(1)]);
        assert_eq!(positions(tracker.next(1).await), [2]);
        assert_eq!(positions(tracker.next(9).await), [1]);
        tracker.forget([0, 1, 2, 3]);
        publisher.publish(vec![ended(2), ended(1)]);
        assert!(tracker.is_empty());
        assert!(tracker.next(9).now_or_never().is_none());
    }

    #[tokio::test]
    async fn missed_ends_are_looked_for_in_steps() {
        const TASKS: u64 = 3 * SWEEP_STEP as u64 + 1;
        let (publisher, _waiters, mut tracker) = tracker();
        tracker.follow((0..TASKS).map(|number| (number, id(number))));
        (0..TASKS).for_each(|number| tracker.stored(number));
        publisher.publish_missed();
        let mut all = Vec::new();
        while all.len() < TASKS as usize {
            let found = positions(tracker.next(SWEEP_STEP).await);
            assert!(found.len() <= SWEEP_STEP);
            if all.is_empty() {
                // What is missed meanwhile leads to another round, and the first one goes on.
                publisher.publish_missed();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            all.extend(found);
        }
        let mut again = all.split_off(TASKS as usize);
        assert_eq!(all, Vec::from_iter(0..TASKS));
        again.extend(positions(tracker.next(1).await));
        assert_eq!(again, Vec::from_iter(0..again.len() as u64));
    }

    #[tokio::test]
    async fn some_tasks_are_named_without_a_signal() {
        let mut tracker = EndTracker::default();
        let tasks = RECHECK_STEP as u64 + 10;
        tracker.follow((0..tasks).map(|number| (number, id(number))));
        (0..tasks).for_each(|number| tracker.stored(number));
        assert!(tracker.take_due(usize::MAX).is_empty());
        let mut round = || {
            tracker.recheck();
            positions(tracker.take_due(usize::MAX))
        };
        assert_eq!(round(), Vec::from_iter(0..RECHECK_STEP as u64));
        assert_eq!(round(), Vec::from_iter(RECHECK_STEP as u64..tasks));
        assert_eq!(round(), Vec::from_iter(0..RECHECK_STEP as u64));
    }
}
