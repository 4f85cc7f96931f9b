//! Options of a submission: when a task starts, how often and how long it is tried, in which order tasks run,
//! which of them are one, and how they are found.

mod finding;
mod order;
mod refusals;
mod starting;

use crate::support::{
    backend::{Backend, on_both_needing},
    eventually,
    node::Node,
    plugins::{BUSY, TRAP, guest},
    task,
};
use hostel::{
    DistributedClient,
    plugin::TestGuest,
    proto::distributed::{Task, TaskStatus},
};
use libtest_mimic::Trial;

pub(super) const HOUR_MS: u64 = 3_600_000;

/// Settings of a node that runs one task at a time.
const ONE_SLOT: &str = "[plugins]\nmax_tasks = 1\n";

pub fn trials() -> Vec<Trial> {
    [
        on_both_needing(
            "options::a_task_starts_when_it_is_due",
            true,
            starting::a_task_starts_when_it_is_due,
        ),
        on_both_needing(
            "options::a_task_that_did_not_begin_in_time_fails",
            true,
            starting::a_task_that_did_not_begin_in_time_fails,
        ),
        on_both_needing(
            "options::a_task_has_its_own_attempts_and_timeout",
            true,
            starting::a_task_has_its_own_attempts_and_timeout,
        ),
        on_both_needing(
            "options::high_priority_comes_first_and_low_is_not_starved",
            true,
            order::high_priority_comes_first_and_low_is_not_starved,
        ),
        on_both_needing("options::groups_take_turns", true, order::groups_take_turns),
        on_both_needing(
            "options::a_unique_key_makes_one_task",
            true,
            finding::a_unique_key_makes_one_task,
        ),
        on_both_needing(
            "options::tasks_are_found_by_group_and_tag",
            true,
            finding::tasks_are_found_by_group_and_tag,
        ),
        on_both_needing(
            "options::a_task_is_kept_for_its_own_time",
            true,
            finding::a_task_is_kept_for_its_own_time,
        ),
        on_both_needing(
            "options::options_survive_a_kill",
            true,
            starting::options_survive_a_kill,
        ),
        on_both_needing(
            "options::all_faults_are_reported_at_once",
            true,
            refusals::all_faults_are_reported_at_once,
        ),
        on_both_needing(
            "options::a_full_queue_says_when_to_try_again",
            true,
            refusals::a_full_queue_says_when_to_try_again,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Starts a node with three plugins whose task types have their names: `sample` returns its payload, `busy`
/// works for as many milliseconds as its payload says, and `trap` fails.
pub(super) async fn start(on: Backend, settings: &str) -> Node {
    let node = on.prepare(&[], settings).await;
    for (name, handle) in [("busy", BUSY), ("trap", TRAP)] {
        let sample = TestGuest {
            name,
            task_types: &[name],
            handle,
            ..TestGuest::default()
        };
        node.add_wasm(&format!("{name}.wasm"), &guest(&sample));
    }
    node.add_wasm("sample.wasm", &guest(&TestGuest::default()));
    node.started().await
}

pub(super) fn named(id: &str, task: Task) -> Task {
    Task {
        task_id: id.into(),
        ..task
    }
}

pub(super) fn busy(id: &str, ms: u32) -> Task {
    named(id, task("busy", ms.to_le_bytes()))
}

pub(super) async fn status(client: &mut DistributedClient, id: &str) -> TaskStatus {
    client.get_task_status(id).await.expect("a known task")
}

pub(super) async fn has_status(client: &DistributedClient, id: &str, state: &str) -> TaskStatus {
    eventually(&format!("{id} is {state}"), async || {
        let status = status(&mut client.clone(), id).await;
        (status.status == state).then_some(status)
    })
    .await
}
