//! Progress that handlers report, and handlers that ask whether their task is cancelled.

use crate::support::{
    DEADLINE,
    backend::{Backend, on_both},
    eventually,
    node::Node,
    plugins::{build_source, showcase},
    task,
};
use hostel::{
    DistributedClient,
    proto::{
        distributed::{Task, TaskProgress, TaskStatus},
        hostel::v1::ListTasksRequest,
    },
};
use libtest_mimic::Trial;
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

pub fn trials() -> Vec<Trial> {
    [
        on_both(
            "progress::clients_see_how_far_an_attempt_has_come",
            clients_see_how_far_an_attempt_has_come,
        ),
        on_both(
            "progress::a_flood_of_reports_is_stored_once_a_second",
            a_flood_of_reports_is_stored_once_a_second,
        ),
        on_both(
            "progress::a_handler_that_asks_may_stop_by_itself",
            a_handler_that_asks_may_stop_by_itself,
        ),
        on_both(
            "progress::a_handler_that_does_not_stop_is_interrupted",
            a_handler_that_does_not_stop_is_interrupted,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Its task types go on until they are cancelled, and differ in what they do then. Who sees their progress knows
/// that those have asked before that ask at all.
const REPORTER: &str = r#"use hostel_sdk::prelude::*;

fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

fn until_cancelled(note: &str, task: &Task) {
    task.is_cancelled();
    task.progress(3, 10, note);
    while !task.is_cancelled() {
        pause();
    }
}

fn hold(note: String, task: &Task) -> String {
    until_cancelled(&note, task);
    "stopped".to_owned()
}

fn give_up(note: String, task: &Task) -> Result<()> {
    until_cancelled(&note, task);
    Err(TaskError::permanent("gave up"))
}

fn try_again(note: String, task: &Task) -> Result<()> {
    until_cancelled(&note, task);
    Err(TaskError::retryable("gave up for now"))
}

/// Asks, and never stops.
fn deaf(note: String, task: &Task) {
    task.is_cancelled();
    task.progress(3, 10, note);
    loop {
        task.is_cancelled();
        pause();
    }
}

/// Never asks.
fn quiet(note: String, task: &Task) {
    task.progress(3, 10, note);
    loop {
        pause();
    }
}

/// Reports as fast as it can.
fn flood(_: String, task: &Task) -> String {
    for done in 1.. {
        task.progress(done, 0, "x".repeat(1000));
        if done % 1000 == 0 && task.is_cancelled() {
            break;
        }
    }
    "stopped".to_owned()
}

hostel_sdk::plugin! {
    task("hold", hold),
    task("give-up", give_up),
    task("try-again", try_again),
    task("deaf", deaf),
    task("quiet", quiet),
    task("flood", flood),
}
"#;

/// A grace that no handler of these tests uses up, and one that is over soon.
pub const LONG_GRACE: &str = "[plugins]\ncancel_grace_ms = 60000\n";
const SHORT_GRACE: &str = "[plugins]\ncancel_grace_ms = 200\n";

/// Returns the file of the plugin `reporter`.
pub fn reporter() -> PathBuf {
    build_source("reporter", "1.0.0", REPORTER)
}

async fn start(on: Backend, settings: &str) -> Node {
    on.start(&[&reporter(), &showcase("echo")], settings).await
}

fn named(id: &str, task_type: &str, payload: &str) -> Task {
    Task {
        task_id: id.into(),
        ..task(task_type, payload)
    }
}

/// Waits until the progress of a task is stored.
pub async fn has_reported(client: &DistributedClient, id: &str) -> TaskStatus {
    eventually("progress is stored", async || {
        let status = client.clone().get_task_status(id).await.expect("known");
        status.progress.is_some().then_some(status)
    })
    .await
}

async fn clients_see_how_far_an_attempt_has_come(on: Backend) {
    let node = start(on, LONG_GRACE).await;
    let mut client = node.client();
    let note = "rows \u{1b}[31m日本";
    client.submit_task(named("a", "hold", note)).await.unwrap();
    let expected = Some(TaskProgress {
        done: 3,
        total: 10,
        note: note.to_owned(),
    });
    let running = has_reported(&client, "a").await;
    assert_eq!(running.status, "running");
    assert_eq!(running.progress, expected);
    let listed = client.list_tasks(ListTasksRequest::default()).await;
    assert_eq!(listed.unwrap().tasks[0].progress, expected);
    // Others have none, and a long note is cut between two characters.
    let echo = client.submit_and_wait(named("b", "echo", "")).await;
    assert_eq!(echo.unwrap().progress, None);
    let long = named("c", "hold", &"é".repeat(1000));
    client.submit_task(long).await.unwrap();
    let long = has_reported(&client, "c").await;
    assert_eq!(long.progress.unwrap().note, "é".repeat(128));
    // It is kept after the end.
    assert_eq!(client.cancel_task("a").await.unwrap(), "asked");
    let ended = client.wait_for_task("a").await.unwrap();
    assert_eq!(
        (&*ended.status, &ended.result[..]),
        ("completed", &b"stopped"[..])
    );
    assert_eq!(ended.progress, expected);
    // Following a task shows its progress before its end.
    client.submit_task(named("d", "hold", note)).await.unwrap();
    let (mut seen, canceller) = (Vec::new(), client.clone());
    let interval = Duration::from_millis(200);
    let ended = client.follow_task("d", interval, |status| {
        if status.progress.is_some() && seen.is_empty() {
            let mut canceller = canceller.clone();
            tokio::spawn(async move { canceller.cancel_task("d").await });
        }
        seen.extend(status.progress.clone());
    });
    assert_eq!(ended.await.unwrap().status, "completed");
    assert_eq!(seen.first(), expected.as_ref());
    client.cancel_task("c").await.unwrap();
}

async fn a_flood_of_reports_is_stored_once_a_second(on: Backend) {
    let node = start(on, LONG_GRACE).await;
    let mut client = node.client();
    client.submit_task(named("f", "flood", "")).await.unwrap();
    let mut seen: Vec<u64> = Vec::new();
    let begun = Instant::now();
    while seen.len() < 6 {
        assert!(begun.elapsed() < DEADLINE, "{seen:?}");
        let status = client.get_task_status("f").await.unwrap();
        seen.extend(status.progress.map(|progress| progress.done));
        seen.dedup();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // One may have been there before, and neither end of a second is exact.
    let (stored, elapsed) = (seen.len() as u64, begun.elapsed().as_secs());
    assert!(stored <= elapsed + 3, "{stored} reports in {elapsed} s");
    assert!(seen.is_sorted(), "{seen:?}");
    client.cancel_task("f").await.unwrap();
    let ended = client.wait_for_task("f").await.unwrap();
    assert_eq!(ended.status, "completed");
}

async fn a_handler_that_asks_may_stop_by_itself(on: Backend) {
    let node = start(on, LONG_GRACE).await;
    let mut client = node.client();
    for (task_type, state) in [
        ("hold", "completed"),
        // An error of any kind is how a handler stops that was told to.
        ("give-up", "cancelled"),
        ("try-again", "cancelled"),
    ] {
        let id = task_type;
        client.submit_task(named(id, task_type, "")).await.unwrap();
        has_reported(&client, id).await;
        assert_eq!(client.cancel_task(id).await.unwrap(), "asked");
        let ended = client.wait_for_task(id).await.unwrap();
        assert_eq!((&*ended.status, ended.attempts), (state, 1), "{ended:?}");
        assert_eq!(ended.error, "", "{ended:?}");
    }
    assert!(!node.log().contains("gave up"), "{}", node.log());
}

async fn a_handler_that_does_not_stop_is_interrupted(on: Backend) {
    for (settings, task_type) in [
        // It has not asked, so it gets no grace.
        (LONG_GRACE, "quiet"),
        (SHORT_GRACE, "deaf"),
        ("[plugins]\ncancel_grace_ms = 0\n", "deaf"),
    ] {
        let node = start(on, settings).await;
        let mut client = node.client();
        client.submit_task(named("t", task_type, "")).await.unwrap();
        has_reported(&client, "t").await;
        let begun = Instant::now();
        assert_eq!(client.cancel_task("t").await.unwrap(), "asked");
        let ended = client.wait_for_task("t").await.unwrap();
        assert_eq!(ended.status, "cancelled", "{task_type}");
        assert!(begun.elapsed() < Duration::from_secs(60), "{task_type}");
    }
}
