//! Tasks as an engine last wrote them, as far as memory has them: what was submitted, leased or
//! ended a moment ago. `get` looks here first, so that a client that waits for its result costs no
//! read. Holds nothing that is not written; bounded, and no loss when it is empty.

use super::{Finish, Leased};
use hostel_task::{Name, Outcome, State, Submission, Target, Task, TaskId, UnixMs};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Few, since a short payload may hold on to the whole buffer that it arrived in.
const MAX_TASKS: usize = 1024;
const MAX_BYTES: usize = 8 << 20;

/// What a transaction makes of a task: its new self, or `None` where that was not worked out.
pub(super) type Snapshot = (TaskId, Option<Arc<Task>>);

#[derive(Default)]
pub(super) struct Recent(Mutex<Tasks>);

#[derive(Default)]
struct Tasks {
    by_id: HashMap<TaskId, Arc<Task>>,
    /// The oldest first. May name some that are gone, or twice.
    order: VecDeque<TaskId>,
    bytes: usize,
}

impl Recent {
    pub fn get(&self, id: &TaskId) -> Option<Arc<Task>> {
        self.lock().by_id.get(id).cloned()
    }

    /// Takes over what was committed, and leaves nothing older of any task that is named.
    pub fn update(&self, snapshots: &mut Vec<Snapshot>) {
        if snapshots.is_empty() {
            return;
        }
        let mut tasks = self.lock();
        for (id, task) in snapshots.drain(..) {
            match task {
                Some(task) => tasks.put(id, task),
                None => tasks.remove(&id),
            }
        }
    }

    /// For tasks of which nothing known before holds any more.
    pub fn forget<'i>(&self, ids: impl Iterator<Item = &'i TaskId>) {
        let mut tasks = self.lock();
        ids.for_each(|id| tasks.remove(id));
    }

    /// For when it is not known what the database holds.
    pub fn clear(&self) {
        *self.lock() = Tasks::default();
    }

    fn lock(&self) -> MutexGuard<'_, Tasks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tasks {
    fn put(&mut self, id: TaskId, task: Arc<Task>) {
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

/// A task that has just come in.
pub(super) fn submitted(task: &Submission, at: UnixMs) -> Task {
    Task {
        id: task.id().clone(),
        task_type: task.task_type().clone(),
        target: task.target().clone(),
        payload: task.payload().clone(),
        metadata: task.metadata().clone(),
        submitted_at: at,
        state: State::Pending { due_at: at },
        attempt: 0,
        error: None,
        error_class: None,
        ran: None,
        losses: 0,
        finishes: 0,
    }
}

/// A task that was never leased before. The times are those of its submission, its lease and the
/// end of that.
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
        submitted_at,
        state: State::Running {
            node,
            started_at,
            lease_until,
            cancel_asked: false,
        },
        attempt: leased.attempt,
        error: None,
        error_class: None,
        ran: None,
        losses: 0,
        finishes: 0,
    }
}

/// What `finish` makes of the running task `before`; `None` unless that is its end.
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
        ran: finish.ran.clone(),
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
            submitted_at: UnixMs(0),
            state: State::Pending { due_at: UnixMs(0) },
            attempt: 0,
            error: None,
            error_class: None,
            ran: None,
            losses: 0,
            finishes: 0,
        };
        (id, Some(Arc::new(task)))
    }

    #[test]
    fn the_oldest_make_room() {
        let recent = Recent::default();
        for number in 0..3 * MAX_TASKS {
            recent.update(&mut vec![task(number, 1)]);
        }
        assert_eq!(recent.lock().bytes, MAX_TASKS);
        assert!(recent.get(&task(0, 0).0).is_none());
        assert!(recent.get(&task(3 * MAX_TASKS - 1, 0).0).is_some());
        recent.update(&mut vec![task(0, MAX_BYTES)]);
        assert_eq!(recent.lock().by_id.len(), 1);
    }

    #[test]
    fn what_comes_and_goes_leaves_no_trace() {
        let recent = Recent::default();
        for number in 0..5 * MAX_TASKS {
            let (id, kept) = task(number % 7, number % 5);
            recent.update(&mut vec![(id.clone(), kept), (id, None)]);
        }
        let tasks = recent.lock();
        assert_eq!((tasks.by_id.len(), tasks.bytes), (0, 0));
        assert!(tasks.order.len() <= 2 * MAX_TASKS);
    }
}
