//! What is read of tasks: their attempts, those that a search finds, their changes, and why they wait.

mod attempts;
mod explaining;
mod finding;
mod watching;

use crate::support::{
    backend::{Backend, Shared, on_both_needing},
    eventually,
    node::Node,
    plugins::{BUSY, TRAP, guest},
    task, trial_needing,
};
use hostel::{plugin::TestGuest, proto::distributed::Task};
use libtest_mimic::Trial;

const HOUR_MS: u64 = 3_600_000;

/// Settings of a node that runs one task at a time.
const ONE_SLOT: &str = "[plugins]\nmax_tasks = 1\n";

pub fn trials() -> Vec<Trial> {
    let on_both = [
        on_both_needing(
            "reading::a_task_is_read_with_its_attempts",
            true,
            attempts::a_task_is_read_with_its_attempts,
        ),
        on_both_needing(
            "reading::payload_and_result_are_read_on_request",
            true,
            attempts::payload_and_result_are_read_on_request,
        ),
        on_both_needing(
            "reading::tasks_are_found_by_what_executed_them",
            true,
            finding::tasks_are_found_by_what_executed_them,
        ),
        on_both_needing(
            "reading::tasks_are_found_by_time",
            true,
            finding::tasks_are_found_by_time,
        ),
        on_both_needing(
            "reading::all_faults_of_a_filter_are_reported_at_once",
            true,
            finding::all_faults_of_a_filter_are_reported_at_once,
        ),
        on_both_needing(
            "reading::changes_survive_a_reconnect",
            true,
            watching::changes_survive_a_reconnect,
        ),
        on_both_needing(
            "reading::changes_pass_a_filter",
            true,
            watching::changes_pass_a_filter,
        ),
        on_both_needing(
            "reading::a_restart_is_followed_or_reported",
            true,
            watching::a_restart_is_followed_or_reported,
        ),
        on_both_needing(
            "reading::changes_on_the_command_line",
            true,
            watching::changes_on_the_command_line,
        ),
        on_both_needing(
            "reading::the_client_goes_on_after_a_lost_connection",
            true,
            watching::the_client_goes_on_after_a_lost_connection,
        ),
        on_both_needing(
            "reading::a_waiting_task_is_explained",
            true,
            explaining::a_waiting_task_is_explained,
        ),
        on_both_needing(
            "reading::a_task_at_its_limits_is_explained",
            true,
            explaining::a_task_at_its_limits_is_explained,
        ),
        on_both_needing(
            "reading::a_task_without_its_plugin_is_explained",
            true,
            explaining::a_task_without_its_plugin_is_explained,
        ),
    ];
    let on_redis = trial_needing(
        "reading::changes_are_followed_on_another_node_on_redis",
        Shared::is_installed(),
        watching::changes_are_followed_on_another_node,
    );
    on_both.into_iter().flatten().chain([on_redis]).collect()
}

/// Adds three plugins whose task types have their names: `sample` returns its payload, `busy` works for as many
/// milliseconds as its payload says, and `trap` fails.
fn add_plugins(node: &Node) {
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
}

async fn start(on: Backend, settings: &str) -> Node {
    let node = on.prepare(&[], settings).await;
    add_plugins(&node);
    node.started().await
}

fn named(id: &str, task: Task) -> Task {
    Task {
        task_id: id.into(),
        ..task
    }
}

/// A task that works longer than any test.
fn endless(id: &str) -> Task {
    named(id, task("busy", 10_000_000_u32.to_le_bytes()))
}

async fn has_status(node: &Node, id: &str, state: &str) {
    eventually(&format!("{id} is {state}"), async || {
        let status = node.client().get_task_status(id).await;
        (status.expect("a known task").status == state).then_some(())
    })
    .await;
}

fn json(output: std::process::Output) -> serde_json::Value {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{error}");
    serde_json::from_slice(&output.stdout).expect("only JSON")
}

fn text(output: std::process::Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout).expect("text")
}
