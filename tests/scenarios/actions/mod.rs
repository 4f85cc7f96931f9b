//! What operators do to many tasks, and to task types as a whole: in bounded steps that say how far they have
//! come; kept through restarts; over gRPC and by the command line.

mod command_line;
mod many;
mod retention;
mod types;

use crate::support::backend::{Backend, on_both_needing};
use hostel::{
    DistributedClient,
    proto::hostel::v1::{
        ActOnTasksProgress, ActOnTasksRequest, ListTasksRequest, TaskFilter,
        act_on_tasks_request::Action,
    },
};
use libtest_mimic::Trial;
use tonic::Status;

pub fn trials() -> Vec<Trial> {
    [
        on_both_needing(
            "actions::a_filter_selects_tasks_and_the_count_grows",
            true,
            many::a_filter_selects_tasks_and_the_count_grows,
        ),
        on_both_needing(
            "actions::running_tasks_are_cancelled_with_a_reason",
            true,
            many::running_tasks_are_cancelled_with_a_reason,
        ),
        on_both_needing(
            "actions::ended_tasks_are_requeued_and_purged",
            true,
            many::ended_tasks_are_requeued_and_purged,
        ),
        on_both_needing(
            "actions::waiting_tasks_are_hastened",
            true,
            many::waiting_tasks_are_hastened,
        ),
        on_both_needing(
            "actions::bad_requests_are_refused",
            true,
            many::bad_requests_are_refused,
        ),
        on_both_needing("actions::command_line", true, command_line::command_line),
        on_both_needing(
            "actions::ended_tasks_are_kept_by_type_and_state",
            true,
            retention::ended_tasks_are_kept_by_type_and_state,
        ),
        on_both_needing(
            "actions::a_paused_type_waits_until_it_is_resumed",
            true,
            types::a_paused_type_waits_until_it_is_resumed,
        ),
        on_both_needing("actions::types_command_line", true, types::command_line),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Acts on tasks, and returns what each step said and how the stream ended.
async fn act(
    client: &DistributedClient,
    request: ActOnTasksRequest,
) -> (Vec<ActOnTasksProgress>, Result<(), Status>) {
    let mut steps = match client.clone().act_on_tasks(request).await {
        Ok(steps) => steps,
        Err(status) => return (Vec::new(), Err(status)),
    };
    let mut all = Vec::new();
    loop {
        match steps.message().await {
            Ok(Some(step)) => all.push(step),
            Ok(None) => return (all, Ok(())),
            Err(status) => return (all, Err(status)),
        }
    }
}

/// Acts on tasks to the end, and returns what the last step said.
async fn act_on_all(client: &DistributedClient, request: ActOnTasksRequest) -> ActOnTasksProgress {
    let (mut steps, ended) = act(client, request).await;
    ended.expect("the end");
    steps.pop().unwrap_or_default()
}

fn to_ids(ids: &[&str], action: Action) -> ActOnTasksRequest {
    ActOnTasksRequest {
        task_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        action: Some(action),
        ..ActOnTasksRequest::default()
    }
}

fn to_all(filter: TaskFilter, action: Action) -> ActOnTasksRequest {
    ActOnTasksRequest {
        filter: Some(filter),
        action: Some(action),
        ..ActOnTasksRequest::default()
    }
}

/// Counts the tasks that a list has.
async fn count(client: &DistributedClient, mut request: ListTasksRequest) -> usize {
    let mut count = 0;
    loop {
        let page = client.clone().list_tasks(request.clone()).await;
        let page = page.expect("a page");
        count += page.tasks.len();
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return count;
        }
    }
}
