//! A cache of tasks as they were last written: those that were submitted, leased or ended recently.
//! `get` reads it first, so that a client that waits for its result causes no read of the store.
//! Holds only what is written. Bounded; a task that is not in it is read from the store.

use super::task_queue::{Finish, Leased};
use hostel_task::{Name, Outcome, State, Submission, Target, Task, TaskId, UnixMs};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

/// Few, since a short payload may keep the whole buffer alive that it arrived in.
const MAX_TASKS: usize = 1024;
const MAX_BYTES: usize = 8 << 20;

/// A task after a transaction; `None` if the transaction changed it in a way that is not known.
pub(super) type Snapshot = (TaskId, Option<Arc<Task>>);

#[derive(Default)]
pub(super) struct TaskCache(Mutex<Tasks>);

#[derive(Default)]
struct Tasks {
    by_id: HashMap<TaskId, Arc<Task>>,
    /// Ids, oldest first. An id may be listed twice, or without a task.
    order: VecDeque<TaskId>,
    bytes: usize,
}

impl TaskCache {
    pub fn get(&self, id: &TaskId) -> Option<Arc<Task>> {
        self.0.lock().by_id.get(id).cloned()
    }

    /// Replaces the tasks that a committed transaction changed.
    pub fn update(&self, snapshots: &mut Vec<Snapshot>) {
        if snapshots.is_empty() {
            return;
        }
        let mut tasks = self.0.lock();
        for (id, task) in snapshots.drain(..) {
            match task {
                Some(task) => tasks.insert(id, task),
                None => tasks.remove(&id),
            }
        }
    }

    /// Removes tasks that changed in a way that is not known.
    pub fn remove<'i>(&self, ids: impl Iterator<Item = &'i TaskId>) {
        let mut tasks = self.0.lock();
        ids.for_each(|id| tasks.remove(id));
    }

    /// Removes all tasks, because it is not known what the store holds.
    pub fn clear(&self) {
        *self.0.lock() = Tasks::default();
    }
}

impl Tasks {
    fn insert(&mut self, id: TaskId, task: Arc<Task>) {
        self.bytes += task.bytes();
        match self.by_id.insert(id.clone(), task) {
            Some(old) => self.bytes -= old.bytes(),
            None => self.order.push_back(id),
        }
        while self.by_id.len() > MAX_TASKS
            || self.bytes > MAX_BYTES
            || self.order.len() > 2 * MAX_TASKS
        {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, id: &TaskId) {
        if let Some(old) = self.by_id.remove(id) {
            self.bytes -= old.bytes();
        }
    }
}

/// Returns a task as it is after its submission.
pub(super) fn submitted(task: &Submission, at: UnixMs, due_at: UnixMs) -> Task {
    Task {
        id: task.id().clone(),
        task_type: task.task_type().clone(),
        target: task.target().clone(),
        payload: task.payload().clone(),
        metadata: task.metadata().clone(),
        options: task.options().cloned(),
        submitted_at: at,
        state: State::Pending { due_at },
        attempt: 0,
        error: None,
        error_class: None,
        executed_by: None,
        progress: None,
        losses: 0,
        finishes: 0,
    }
}

/// Returns a task as it is after its first lease. The times are those of its submission, of its lease
/// and of the end of the lease.
pub(super) fn first_leased(
    leased: &Leased,
    target: Target,
    node: Name,
    times: [UnixMs; 3],
) -> Task {
    let [submitted_at, started_at, lease_until] = times;
    Task {
        id: leased.token.id.clone(),
        task_type: leased.task_type.clone(),
        target,
        payload: leased.payload.clone(),
        metadata: leased.metadata.clone(),
        options: leased.options.clone(),
        submitted_at,
        state: State::Running {
            node,
            started_at,
            lease_until,
            cancel_requested: false,
        },
        attempt: leased.attempt,
        error: None,
        error_class: None,
        executed_by: None,
        progress: None,
        losses: 0,
        finishes: 0,
    }
}

/// Returns the running task `before` as it is after `finish`; `None` unless that ends it.
pub(super) fn ended(before: &Task, finish: &Finish, finished_at: UnixMs) -> Option<Task> {
    let State::Running { started_at, .. } = before.state else {
        return None;
    };
    let state = match &finish.outcome {
        Outcome::Completed { result } => State::Completed {
            result: result.clone(),
            started_at,
            finished_at,
        },
        Outcome::Failed { .. } => State::Failed {
            started_at: Some(started_at),
            finished_at,
        },
        Outcome::Cancelled => State::Cancelled {
            started_at: Some(started_at),
            finished_at,
        },
        Outcome::Retry { .. } | Outcome::Released | Outcome::Lost { .. } => return None,
    };
    let error = match &finish.outcome {
        Outcome::Failed { error } => Some(error.clone()),
        _ => before.error.clone(),
    };
    Some(Task {
        state,
        error,
        executed_by: finish.executed_by.clone(),
        finishes: before.finishes + 1,
        ..before.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(number: usize, bytes: usize) -> Snapshot {
        let id = Name::parse("id", &format!("t{number}")).unwrap();
        let task = Task {
            id: id.clone(),
            task_type: id.clone(),
            target: Target::Any,
            payload: vec![0; bytes].into(),
            metadata: Arc::default(),
            options: None,
            submitted_at: UnixMs(0),
            state: State::Pending { due_at: UnixMs(0) },
            attempt: 0,
            error: None,
            error_class: None,
            executed_by: None,
            progress: None,
            losses: 0,
            finishes: 0,
        };
        (id, Some(Arc::new(task)))
    }

    #[test]
    fn the_oldest_tasks_are_evicted() {
        let cache = TaskCache::default();
        for number in 0..3 * MAX_TASKS {
            cache.update(&mut vec![task(number, 1)]);
        }
        assert_eq!(cache.0.lock().bytes, MAX_TASKS);
        assert!(cache.get(&task(0, 0).0).is_none());
        assert!(cache.get(&task(3 * MAX_TASKS - 1, 0).0).is_some());
        cache.update(&mut vec![task(0, MAX_BYTES)]);
        assert_eq!(cache.0.lock().by_id.len(), 1);
    }

    #[test]
    fn metadata_counts_in_the_size_of_the_cache() {
        let cache = TaskCache::default();
        for number in 0..3 {
            let (id, task) = task(number, 0);
            let mut task = Arc::unwrap_or_clone(task.unwrap());
            let metadata = [("k".to_owned(), "v".repeat(MAX_BYTES / 2))];
            task.metadata = Arc::new(metadata.into());
            cache.update(&mut vec![(id, Some(Arc::new(task)))]);
        }
        assert_eq!(cache.0.lock().by_id.len(), 1);
    }

    #[test]
    fn tasks_that_are_removed_leave_nothing_behind() {
        let cache = TaskCache::default();
        for number in 0..5 * MAX_TASKS {
            let (id, kept) = task(number % 7, number % 5);
            cache.update(&mut vec![(id.clone(), kept), (id, None)]);
        }
        let tasks = cache.0.lock();
        assert_eq!((tasks.by_id.len(), tasks.bytes), (0, 0));
        assert!(tasks.order.len() <= 2 * MAX_TASKS);
    }
}
