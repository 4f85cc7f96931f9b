//! `ActOnTasks`: does the same to many tasks, step by step, while the client takes the messages that say how far
//! it has come. The steps themselves are in `scheduler::BulkAction`.

use super::stream::revoked;
use crate::{
    api::{
        convert,
        security::auth::AuthContext,
        status::{self, IntoStatus},
    },
    budget::SharedReservation,
    proto::hostel::v1::{
        ActOnTasksProgress, ActOnTasksRequest, TaskFilter, TaskLeftAlone,
        act_on_tasks_request::Action as WireAction,
    },
    queue::Filter,
    scheduler::{ActedOn, BulkAction, Progress, TaskScheduler},
    task::{Action, StateKind, Violations, parse_reason},
};
use std::{pin::Pin, sync::Arc};
use tokio::sync::Semaphore;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// The most ids of a request.
const MAX_IDS: usize = 10_000;

/// How many steps the streams of a node do at the same time. Each holds a page of tasks.
pub const STEPS: usize = 4;

pub type Responses = Pin<Box<dyn Stream<Item = Result<ActOnTasksProgress, Status>> + Send>>;

/// What a stream needs of its node and its call.
pub struct Setup {
    pub scheduler: Arc<dyn TaskScheduler>,
    /// Ends with the server.
    pub end: CancellationToken,
    /// The token that admitted the stream, if tokens are required.
    pub auth: Option<AuthContext>,
    /// The memory of the request, which has the ids.
    pub memory: SharedReservation,
    /// One permit for each step.
    pub steps: Arc<Semaphore>,
}

/// The responses to a request: a step is done when its response is asked for.
pub fn responses(request: ActOnTasksRequest, setup: Setup) -> Result<Responses, Status> {
    let limit = match request.limit {
        0 => u64::MAX,
        limit => limit,
    };
    let dry_run = request.dry_run;
    let (action, acted_on) = parse(request).map_err(IntoStatus::into_status)?;
    let Setup {
        scheduler,
        end,
        auth,
        memory,
        steps,
    } = setup;
    let mut auth = auth.map(AuthContext::watch);
    let mut action = BulkAction::new(scheduler, action, acted_on, limit, dry_run);
    Ok(Box::pin(async_stream::stream! {
        let _memory = memory;
        loop {
            let before = action.progress().matched;
            let stepped = tokio::select! {
                biased;
                () = end.cancelled() => Err(status::stopping()),
                () = revoked(&mut auth) => Err(status::revoked()),
                stepped = step(&mut action, &steps) => stepped,
            };
            let has_more = match stepped {
                Ok(has_more) => has_more,
                Err(status) => {
                    yield Err(status);
                    break;
                }
            };
            if action.progress().matched > before {
                yield Ok(progress(action.progress()));
            }
            if !has_more {
                break;
            }
        }
    }))
}

async fn step(action: &mut BulkAction, steps: &Semaphore) -> Result<bool, Status> {
    // The semaphore is never closed.
    let _permit = steps.acquire().await;
    let stepped = action.step().await;
    stepped.map_err(|error| status::failed_step(&error.into_status(), action.progress().matched))
}

fn progress(progress: &Progress) -> ActOnTasksProgress {
    let left_alone = progress.left_alone.iter();
    ActOnTasksProgress {
        matched: progress.matched,
        done: progress.done,
        requested: progress.requested,
        left_alone: left_alone
            .map(|(id, state)| TaskLeftAlone {
                task_id: id.to_string(),
                status: state.map_or("", StateKind::as_str).into(),
            })
            .collect(),
    }
}

/// Returns what is to be done, and to which tasks; or all faults of the request.
fn parse(request: ActOnTasksRequest) -> Result<(Action, ActedOn), Violations> {
    let mut violations = Violations::default();
    let action = request
        .action
        .and_then(|action| parse_action(action, &mut violations));
    if action.is_none() && violations.is_empty() {
        violations.refuse("action", "say what is to be done to the tasks");
    }
    let count = request.task_ids.len();
    if count > MAX_IDS {
        let reason = format!("{count} ids; a request has at most {MAX_IDS}");
        violations.refuse("task_ids", reason);
        return Err(violations);
    }
    let given = request.task_ids.iter();
    let ids = given.filter_map(|id| violations.name("task_ids", "task id", id));
    let ids: Vec<_> = ids.collect();
    let acted_on = match (request.filter, count) {
        (None, 0) => {
            violations.refuse("filter", "give the ids of tasks, or a filter");
            None
        }
        (None, _) => Some(ActedOn::Ids(ids)),
        (Some(_), 1..) => {
            violations.refuse("filter", "a request has ids or a filter, not both");
            None
        }
        (Some(filter), 0) => {
            let filter = parse_filter(&filter, action.as_ref(), &mut violations);
            Some(ActedOn::Matching(filter))
        }
    };
    match (action, acted_on) {
        (Some(action), Some(acted_on)) if violations.is_empty() => Ok((action, acted_on)),
        _ => Err(violations),
    }
}

fn parse_action(action: WireAction, violations: &mut Violations) -> Option<Action> {
    Some(match action {
        WireAction::Cancel(cancel) => match parse_reason(&cancel.reason) {
            Ok(reason) => Action::Cancel(reason),
            Err(fault) => {
                violations.refuse("reason", fault);
                return None;
            }
        },
        WireAction::Requeue(_) => Action::Requeue,
        WireAction::Purge(_) => Action::Purge,
        WireAction::SetPriority(set) => {
            Action::SetPriority(convert::priority(set.priority, violations))
        }
        WireAction::RunNow(_) => Action::RunNow,
    })
}

fn parse_filter(
    given: &TaskFilter,
    action: Option<&Action>,
    violations: &mut Violations,
) -> Filter {
    let state = (!given.status.is_empty()).then(|| given.status.parse::<StateKind>());
    let state = state.and_then(|parsed| {
        parsed
            .map_err(|fault| violations.refuse("status", fault))
            .ok()
    });
    if let (Some(state), Some(action)) = (state, action)
        && !action.is_for(state)
    {
        let states = action.states().iter().map(|state| state.as_str());
        let states = states.collect::<Vec<_>>().join(", ");
        let reason = format!("{action} is not for {state} tasks, but for those that are {states}");
        violations.refuse("status", reason);
    }
    Filter {
        state,
        task_type: violations.optional_name("task_type", "task type", &given.task_type),
        group: violations.optional_name("group", "group", &given.group),
        tag: violations.optional_name("tag", "tag", &given.tag),
        ..Filter::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        proto::hostel::v1::{CancelTasks, PurgeTasks, SetTaskPriority},
        task::Priority,
    };

    fn faults(request: ActOnTasksRequest) -> Vec<&'static str> {
        let Violations(violations) = parse(request).expect_err("a refusal");
        violations.iter().map(|violation| violation.field).collect()
    }

    #[test]
    fn all_faults_of_a_request_are_reported_at_once() {
        assert_eq!(faults(ActOnTasksRequest::default()), ["action", "filter"]);
        let filter = TaskFilter {
            status: "done".into(),
            task_type: "a b".into(),
            group: "/".into(),
            tag: "ok".into(),
        };
        let reason = "x".repeat(1025);
        let request = ActOnTasksRequest {
            filter: Some(filter),
            action: Some(WireAction::Cancel(CancelTasks { reason })),
            ..ActOnTasksRequest::default()
        };
        assert_eq!(faults(request), ["reason", "status", "task_type", "group"]);
        let request = ActOnTasksRequest {
            task_ids: vec!["a".into(), String::new(), "b c".into()],
            filter: Some(TaskFilter::default()),
            action: Some(WireAction::SetPriority(SetTaskPriority { priority: 9 })),
            ..ActOnTasksRequest::default()
        };
        let expected = ["priority", "task_ids", "task_ids", "filter"];
        assert_eq!(faults(request), expected);
        let request = ActOnTasksRequest {
            task_ids: vec!["a".into(); MAX_IDS + 1],
            action: Some(WireAction::Purge(PurgeTasks {})),
            ..ActOnTasksRequest::default()
        };
        assert_eq!(faults(request), ["task_ids"]);
    }

    #[test]
    fn a_filter_names_a_state_that_the_action_is_for() {
        let purge = |status: &str| ActOnTasksRequest {
            filter: Some(TaskFilter {
                status: status.into(),
                ..TaskFilter::default()
            }),
            action: Some(WireAction::Purge(PurgeTasks {})),
            ..ActOnTasksRequest::default()
        };
        assert_eq!(faults(purge("running")), ["status"]);
        let (action, acted_on) = parse(purge("failed")).expect("a valid request");
        assert_eq!(action, Action::Purge);
        let ActedOn::Matching(filter) = acted_on else {
            panic!("{acted_on:?}");
        };
        assert_eq!(filter.state, Some(StateKind::Failed));
        let request = ActOnTasksRequest {
            task_ids: vec!["a".into()],
            action: Some(WireAction::SetPriority(SetTaskPriority { priority: 0 })),
            ..ActOnTasksRequest::default()
        };
        let (action, acted_on) = parse(request).expect("a valid request");
        assert_eq!(action, Action::SetPriority(Priority::Normal));
        assert!(matches!(acted_on, ActedOn::Ids(ids) if ids.len() == 1));
    }
}
