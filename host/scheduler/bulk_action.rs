//! Does the same to many tasks, in bounded steps: to some by their ids, or to all that a filter matches.

use super::{Error, TaskScheduler};
use crate::{
    queue::{Filter, MAX_ACTED, Page, StatusRead},
    task::{Acted, Action, StateKind, TaskId, UnixMs},
};
use std::{sync::Arc, time::Duration, vec};

/// The clock of a store is known to a part of a second.
const CLOCK_ERROR: Duration = Duration::from_secs(1);

/// An action on many tasks. It goes on as far as it is asked to.
pub struct BulkAction {
    scheduler: Arc<dyn TaskScheduler>,
    action: Action,
    tasks: Tasks,
    /// How many more tasks it may look at.
    left: u64,
    /// Whether it only counts.
    dry_run: bool,
    progress: Progress,
}

/// Which tasks an action is for.
#[derive(Debug, Clone)]
pub enum ActedOn {
    /// The tasks with these ids.
    Ids(Vec<TaskId>),
    /// Those that the filter matches and the action is for.
    Matching(Filter),
}

/// How far an action has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// How many tasks it has looked at.
    pub matched: u64,
    /// How many of them are as the action makes them.
    pub done: u64,
    /// How many of them run, and whose holders learn of the cancellation.
    pub requested: u64,
    /// The tasks of the last step that are as they were, with their states; `None` for an unknown id.
    pub left_alone: Vec<(TaskId, Option<StateKind>)>,
}

/// Where the tasks of the next step come from.
enum Tasks {
    Ids(vec::IntoIter<TaskId>),
    Matching(Matching),
}

/// A walk through the tasks that a filter matches, one state after the other.
struct Matching {
    filter: Filter,
    /// The states that follow that of the filter.
    states: vec::IntoIter<StateKind>,
    /// The page that follows.
    after: Option<String>,
    /// Tasks that are submitted after this are left out.
    begun: UnixMs,
}

impl BulkAction {
    /// Prepares an action on at most `limit` tasks. With `dry_run` it changes none.
    pub fn new(
        scheduler: Arc<dyn TaskScheduler>,
        action: Action,
        acted_on: ActedOn,
        limit: u64,
        dry_run: bool,
    ) -> Self {
        let tasks = match acted_on {
            ActedOn::Ids(ids) => Tasks::Ids(ids.into_iter()),
            ActedOn::Matching(filter) => {
                let now = scheduler.now();
                Tasks::Matching(Matching::new(filter, &action, dry_run, now))
            }
        };
        Self {
            scheduler,
            action,
            tasks,
            left: limit,
            dry_run,
            progress: Progress::default(),
        }
    }

    /// Returns how far it has come.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Does a step of at most `MAX_ACTED` tasks, and returns whether there may be more. After an error the
    /// tasks of the step may have changed, and are not counted.
    pub async fn step(&mut self) -> Result<bool, Error> {
        self.progress.left_alone.clear();
        let max = usize::try_from(self.left).unwrap_or(usize::MAX);
        let max = max.min(MAX_ACTED);
        if max == 0 {
            return Ok(false);
        }
        let ids: Vec<TaskId> = match &mut self.tasks {
            Tasks::Ids(ids) => ids.take(max).collect(),
            Tasks::Matching(matching) => matching.next(&*self.scheduler, max).await?,
        };
        let acted = if self.dry_run {
            self.would_do(&ids).await?
        } else if ids.is_empty() {
            Vec::new()
        } else {
            self.scheduler.act(&self.action, &ids).await?
        };
        let count = ids.len() as u64;
        self.left = self.left.saturating_sub(count);
        self.progress.matched += count;
        for (id, acted) in ids.into_iter().zip(acted) {
            match acted {
                Acted::Done => self.progress.done += 1,
                Acted::Requested => self.progress.requested += 1,
                Acted::Refused(state) => self.progress.left_alone.push((id, Some(state))),
                Acted::Unknown => self.progress.left_alone.push((id, None)),
            }
        }
        Ok(self.left > 0 && self.tasks.may_have_more())
    }

    /// Returns for each task whether the action is for it.
    async fn would_do(&self, ids: &[TaskId]) -> Result<Vec<Acted>, Error> {
        if matches!(self.tasks, Tasks::Matching(_)) {
            return Ok(vec![Acted::Done; ids.len()]);
        }
        let read = self.scheduler.read_many(ids, 0).await;
        read.into_iter()
            .map(|read| {
                let state = match read {
                    Ok(StatusRead::Task(task)) => task.state.kind(),
                    // Only a completed task has a result.
                    Ok(StatusRead::ResultTooLarge { .. }) => StateKind::Completed,
                    Err(Error::UnknownTask(_)) => return Ok(Acted::Unknown),
                    Err(error) => return Err(error),
                };
                Ok(if self.action.is_for(state) {
                    Acted::Done
                } else {
                    Acted::Refused(state)
                })
            })
            .collect()
    }
}

impl Tasks {
    fn may_have_more(&self) -> bool {
        match self {
            Self::Ids(ids) => !ids.as_slice().is_empty(),
            Self::Matching(matching) => matching.filter.state.is_some(),
        }
    }
}

impl Matching {
    fn new(filter: Filter, action: &Action, dry_run: bool, now: UnixMs) -> Self {
        let mut states = match filter.state {
            Some(state) => vec![state],
            None => action.states().to_vec(),
        };
        // A task that ran while pending ones were listed, and is pending when running ones are, is found by
        // another look.
        if states == [StateKind::Pending, StateKind::Running] && !dry_run {
            states.push(StateKind::Pending);
        }
        let mut states = states.into_iter();
        Self {
            filter: Filter {
                state: states.next(),
                ..filter
            },
            states,
            after: None,
            begun: now.after(CLOCK_ERROR),
        }
    }

    /// Returns the tasks of the next page, at most `max`. It may be empty, and others follow.
    async fn next(
        &mut self,
        scheduler: &dyn TaskScheduler,
        max: usize,
    ) -> Result<Vec<TaskId>, Error> {
        let page = Page {
            size: max,
            after: self.after.clone(),
        };
        let listing = scheduler.list_tasks(&self.filter, &page).await?;
        self.after = listing.next;
        if self.after.is_none() {
            self.filter.state = self.states.next();
        }
        let tasks = listing.tasks.into_iter();
        let tasks = tasks.filter(|task| task.submitted_at <= self.begun);
        Ok(tasks.map(|task| task.id).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancellation_looks_at_pending_tasks_once_more() {
        let states = |action: Action, state, dry_run| {
            let filter = Filter {
                state,
                ..Filter::default()
            };
            let matching = Matching::new(filter, &action, dry_run, UnixMs(0));
            let first = matching.filter.state;
            first.into_iter().chain(matching.states).collect::<Vec<_>>()
        };
        use StateKind::{Cancelled, Failed, Pending, Running};
        let cancel = Action::Cancel(None);
        let all = states(cancel.clone(), None, false);
        assert_eq!(all, [Pending, Running, Pending]);
        assert_eq!(states(cancel.clone(), None, true), [Pending, Running]);
        assert_eq!(states(cancel, Some(Running), false), [Running]);
        assert_eq!(states(Action::Requeue, None, false), [Failed, Cancelled]);
        assert_eq!(states(Action::Requeue, Some(Failed), false), [Failed]);
    }
}
