//! Options of a submission: when a task starts, how often and how long it is tried, in which order tasks run,
//! which of them are one, and how they are found.

use crate::support::{
    backend::{Backend, on_both_needing},
    eventually,
    node::Node,
    now_ms,
    plugins::{BUSY, TRAP, guest},
    task,
};
use hostel::{
    DistributedClient,
    plugin::TestGuest,
    proto::{
        distributed::{Priority, Task, TaskStatus},
        hostel::v1::ListTasksRequest,
    },
};
use libtest_mimic::Trial;
use std::{collections::BTreeSet, time::Duration};
use tonic::{Code, Status};
use tonic_types::StatusExt;

const HOUR_MS: u64 = 3_600_000;

pub fn trials() -> Vec<Trial> {
    [
        on_both_needing(
            "options::a_task_starts_when_it_is_due",
            true,
            a_task_starts_when_it_is_due,
        ),
        on_both_needing(
            "options::a_task_that_did_not_begin_in_time_fails",
            true,
            a_task_that_did_not_begin_in_time_fails,
        ),
        on_both_needing(
            "options::a_task_has_its_own_attempts_and_timeout",
            true,
            a_task_has_its_own_attempts_and_timeout,
        ),
        on_both_needing(
            "options::high_priority_comes_first_and_low_is_not_starved",
            true,
            high_priority_comes_first_and_low_is_not_starved,
        ),
        on_both_needing("options::groups_take_turns", true, groups_take_turns),
        on_both_needing(
            "options::a_unique_key_makes_one_task",
            true,
            a_unique_key_makes_one_task,
        ),
        on_both_needing(
            "options::tasks_are_found_by_group_and_tag",
            true,
            tasks_are_found_by_group_and_tag,
        ),
        on_both_needing(
            "options::a_task_is_kept_for_its_own_time",
            true,
            a_task_is_kept_for_its_own_time,
        ),
        on_both_needing(
            "options::options_survive_a_kill",
            true,
            options_survive_a_kill,
        ),
        on_both_needing(
            "options::all_faults_are_reported_at_once",
            true,
            all_faults_are_reported_at_once,
        ),
        on_both_needing(
            "options::a_full_queue_says_when_to_try_again",
            true,
            a_full_queue_says_when_to_try_again,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Starts a node with three plugins whose task types have their names: `sample` returns its payload, `busy`
/// works for as many milliseconds as its payload says, and `trap` fails.
async fn start(on: Backend, settings: &str) -> Node {
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

/// Settings of a node that runs one task at a time.
const ONE_SLOT: &str = "[plugins]\nmax_tasks = 1\n";

fn named(id: &str, task: Task) -> Task {
    Task {
        task_id: id.into(),
        ..task
    }
}

fn busy(id: &str, ms: u32) -> Task {
    named(id, task("busy", ms.to_le_bytes()))
}

async fn status(client: &mut DistributedClient, id: &str) -> TaskStatus {
    client.get_task_status(id).await.expect("a known task")
}

async fn has_status(client: &DistributedClient, id: &str, state: &str) -> TaskStatus {
    eventually(&format!("{id} is {state}"), async || {
        let status = status(&mut client.clone(), id).await;
        (status.status == state).then_some(status)
    })
    .await
}

/// Occupies the only slot of a node until the tasks of `submit` are stored, and returns their ids in the order
/// in which they began.
async fn order_of(node: &Node, tasks: Vec<Task>) -> Vec<String> {
    let mut client = node.client();
    client
        .submit_task(busy("blocker", 10_000_000))
        .await
        .unwrap();
    has_status(&client, "blocker", "running").await;
    let ids: Vec<_> = tasks.iter().map(|task| task.task_id.clone()).collect();
    for task in tasks {
        client.submit_task(task).await.unwrap();
    }
    client.cancel_task("blocker").await.unwrap();
    let mut began = Vec::new();
    for id in ids {
        let ended = client.wait_for_task(&id).await.unwrap();
        assert_eq!(ended.status, "completed", "{ended:?}");
        began.push((ended.started_at_ms, id));
    }
    began.sort();
    began.into_iter().map(|(_, id)| id).collect()
}

async fn a_task_starts_when_it_is_due(on: Backend) {
    let node = start(on, "").await;
    let mut client = node.client();
    let delayed = Task {
        delay_ms: 800,
        ..named("delayed", task("sample", "a"))
    };
    let at = now_ms() + 800;
    let timed = Task {
        run_at_ms: at,
        ..named("timed", task("sample", "b"))
    };
    let far = Task {
        run_at_ms: now_ms() + HOUR_MS,
        ..named("far", task("sample", "c"))
    };
    for task in [delayed.clone(), timed, far] {
        client.submit_task(task).await.unwrap();
    }
    let waiting = status(&mut client, "far").await;
    assert_eq!((&*waiting.status, waiting.attempts), ("pending", 0));
    let reason = &waiting.waiting_for;
    assert!(reason.starts_with("its first attempt, due in "), "{reason}");
    for id in ["delayed", "timed"] {
        let ended = client.wait_for_task(id).await.unwrap();
        assert_eq!(ended.status, "completed", "{ended:?}");
        let due = if id == "timed" {
            at
        } else {
            ended.submitted_at_ms + 800
        };
        assert!(ended.started_at_ms >= due, "{ended:?}");
    }
    // The delay is compared as it was given.
    assert!(client.submit(delayed.clone()).await.unwrap().existing);
    let other = Task {
        delay_ms: 801,
        ..delayed
    };
    let conflict = client.submit_task(other).await.unwrap_err();
    assert_eq!(conflict.code(), Code::AlreadyExists);
    let past = Task {
        run_at_ms: 1,
        ..named("past", task("sample", "d"))
    };
    let ended = client.submit_and_wait(past).await.unwrap();
    assert_eq!(ended.status, "completed");
}

async fn a_task_that_did_not_begin_in_time_fails(on: Backend) {
    let node = start(on, ONE_SLOT).await;
    let mut client = node.client();
    client
        .submit_task(busy("blocker", 10_000_000))
        .await
        .unwrap();
    has_status(&client, "blocker", "running").await;
    let start_by_ms = now_ms() + 300;
    let late = Task {
        start_by_ms,
        ..named("late", task("sample", "a"))
    };
    client.submit_task(late).await.unwrap();
    let failed = client.wait_for_task("late").await.unwrap();
    assert_eq!(
        (&*failed.status, &*failed.error_class),
        ("failed", "expired")
    );
    assert_eq!(failed.error, "no attempt had begun by start_by_ms");
    assert_eq!((failed.attempts, failed.started_at_ms), (0, 0));
    assert_eq!((&*failed.node_id, failed.start_by_ms), ("", start_by_ms));
    assert!(failed.finished_at_ms >= start_by_ms, "{failed:?}");
    // A requeued task may begin at any time.
    client.requeue_task("late").await.unwrap();
    client.cancel_task("blocker").await.unwrap();
    let ended = client.wait_for_task("late").await.unwrap();
    assert_eq!((&*ended.status, &*ended.error_class), ("completed", ""));
}

async fn a_task_has_its_own_attempts_and_timeout(on: Backend) {
    let settings = "[plugin.trap.task.trap]\nmax_attempts = 1\n\
                    [plugin.busy.task.busy]\nbackoff_initial_ms = 3600000\nbackoff_max_ms = 3600000\n";
    let node = start(on, settings).await;
    let mut client = node.client();
    let tried = Task {
        max_attempts: 3,
        backoff_initial_ms: 1,
        backoff_max_ms: 2,
        ..task("trap", "")
    };
    let failed = client.submit_and_wait(tried).await.unwrap();
    assert_eq!((&*failed.status, failed.attempts), ("failed", 3));
    assert!(
        failed.error.starts_with("attempt 3 of 3: "),
        "{}",
        failed.error
    );
    let failed = client.submit_and_wait(task("trap", "")).await.unwrap();
    assert_eq!(failed.attempts, 1, "{failed:?}");
    let short = Task {
        timeout_ms: 100,
        max_attempts: 2,
        backoff_initial_ms: 1,
        backoff_max_ms: 1,
        ..busy("", 10_000_000)
    };
    let failed = client.submit_and_wait(short).await.unwrap();
    assert_eq!((&*failed.status, failed.attempts), ("failed", 2));
    assert!(
        failed.error.contains("its timeout of 100 ms"),
        "{}",
        failed.error
    );
}

async fn high_priority_comes_first_and_low_is_not_starved(on: Backend) {
    let node = start(on, ONE_SLOT).await;
    let of = |priority: Priority, prefix: &str, count: usize| {
        let task = |n| Task {
            priority: priority.into(),
            ..busy(&format!("{prefix}{n:02}"), 2)
        };
        (0..count).map(task).collect::<Vec<_>>()
    };
    let low = of(Priority::Low, "low", 4);
    let high = of(Priority::High, "high", 40);
    let began = order_of(&node, [low, high].concat()).await;
    let places = |prefix: &str| {
        let of_prefix = |(_, id): &(usize, &String)| id.starts_with(prefix);
        let places = began.iter().enumerate().filter(of_prefix);
        places.map(|(place, _)| place).collect::<Vec<_>>()
    };
    // One of 21 leases is for low priority, until the high ones have ended.
    let low = places("low");
    assert!(low[0] <= 21, "{began:?}");
    let before_last_high = low.iter().filter(|place| **place < 41).count();
    assert!((1..=3).contains(&before_last_high), "{began:?}");
    let shown = status(&mut node.client(), "low00").await;
    assert_eq!(shown.priority(), Priority::Low);
}

async fn groups_take_turns(on: Backend) {
    let node = start(on, ONE_SLOT).await;
    let of = |group: &str, count: usize| {
        let task = |n| Task {
            group: group.into(),
            ..busy(&format!("{group}{n:02}"), 2)
        };
        (0..count).map(task).collect::<Vec<_>>()
    };
    let flood = of("flood", 40);
    let other = of("other", 3);
    let began = order_of(&node, [flood, other].concat()).await;
    for n in 0..3 {
        let id = format!("other{n:02}");
        let place = began.iter().position(|began| *began == id).unwrap();
        // Tasks that began within the same millisecond may have been in either order.
        assert!(place <= 2 * n + 3, "{began:?}");
    }
    let shown = status(&mut node.client(), "other00").await;
    assert_eq!(shown.group, "other");
}

async fn a_unique_key_makes_one_task(on: Backend) {
    let node = start(on, "").await;
    let mut client = node.client();
    let keyed = |id: &str, ms| Task {
        unique_key: "daily".into(),
        ..busy(id, ms)
    };
    client
        .submit_task(keyed("first", 10_000_000))
        .await
        .unwrap();
    let answer = client.submit(keyed("second", 1)).await.unwrap();
    assert_eq!((&*answer.task_id, answer.existing), ("first", true));
    assert!(answer.accepted);
    let unknown = client.get_task_status("second").await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    client.cancel_task("first").await.unwrap();
    let ended = client.wait_for_task("first").await.unwrap();
    assert_eq!((&*ended.status, &*ended.unique_key), ("cancelled", "daily"));
    let ended = client.submit_and_wait(keyed("fourth", 1)).await.unwrap();
    assert_eq!((&*ended.task_id, &*ended.status), ("fourth", "completed"));

    let held = |id: &str| Task {
        unique_key: "held".into(),
        unique_for_ms: HOUR_MS,
        ..named(id, task("sample", "x"))
    };
    let ended = client.submit_and_wait(held("a")).await.unwrap();
    assert_eq!(ended.status, "completed");
    let again = client.submit_to_end(held("b")).await.unwrap();
    assert_eq!((&*again.task_id, again.existing), ("a", true));
    assert_eq!(again.status.unwrap(), ended);

    let arguments = [
        "submit",
        "sample",
        "--unique-key",
        "held",
        "--unique-for",
        "1h",
    ];
    let told = node.cli(&arguments);
    let (out, err) = (text(&told.stdout), text(&told.stderr));
    assert!(told.status.success(), "{err}");
    assert_eq!(out, "a\n");
    assert!(
        err.contains("no task was made: the task a has the unique key"),
        "{err}"
    );
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn tasks_are_found_by_group_and_tag(on: Backend) {
    let node = start(on, "").await;
    let mut client = node.client();
    for n in 0..12 {
        let tags = match n % 3 {
            0 => vec!["red".into(), "blue".into()],
            1 => vec!["red".into()],
            _ => Vec::new(),
        };
        let labelled = Task {
            group: if n < 6 { "a".into() } else { "b".into() },
            tags,
            delay_ms: HOUR_MS,
            ..named(&format!("t{n}"), task("sample", ""))
        };
        client.submit_task(labelled).await.unwrap();
    }
    let plain = named("plain", task("sample", ""));
    client.submit_and_wait(plain).await.unwrap();
    let found = async |group: &str, tag: &str| {
        let mut ids = BTreeSet::new();
        let mut page_token = String::new();
        loop {
            let request = ListTasksRequest {
                group: group.into(),
                tag: tag.into(),
                page_size: 2,
                page_token,
                ..ListTasksRequest::default()
            };
            let page = client.clone().list_tasks(request).await.unwrap();
            for task in page.tasks {
                assert!(group.is_empty() || task.group == group, "{task:?}");
                assert!(
                    tag.is_empty() || task.tags.iter().any(|it| it == tag),
                    "{task:?}"
                );
                assert!(
                    ids.insert(task.task_id.clone()),
                    "{} comes twice",
                    task.task_id
                );
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return ids.into_iter().collect::<Vec<_>>().join(" ");
            }
        }
    };
    assert_eq!(found("a", "").await, "t0 t1 t2 t3 t4 t5");
    assert_eq!(found("", "blue").await, "t0 t3 t6 t9");
    assert_eq!(found("b", "red").await, "t10 t6 t7 t9");
    assert_eq!(found("c", "").await, "");
    let listed = node.cli(&["tasks", "list", "--group", "b", "--tag", "blue", "--json"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let ids: BTreeSet<_> = listed
        .as_array()
        .expect("a list")
        .iter()
        .map(|task| task["task_id"].as_str().expect("an id"))
        .collect();
    assert_eq!(ids, BTreeSet::from(["t6", "t9"]));
    assert_eq!(listed[0]["tags"], serde_json::json!(["blue", "red"]));
    assert_eq!(listed[0]["group"], "b");
}

async fn a_task_is_kept_for_its_own_time(on: Backend) {
    let node = start(on, "").await;
    let mut client = node.client();
    let kept = |id: &str, result_ttl_ms| Task {
        result_ttl_ms,
        ..named(id, task("sample", "x"))
    };
    for (id, time) in [("short", 100), ("default", 0), ("long", HOUR_MS)] {
        let ended = client.submit_and_wait(kept(id, time)).await.unwrap();
        assert_eq!(ended.status, "completed");
    }
    let is_gone = async |id: &str| {
        let read = client.clone().get_task_status(id).await;
        read.is_err_and(|status| status.code() == Code::NotFound)
    };
    eventually("the task is purged", async || {
        is_gone("short").await.then_some(())
    })
    .await;
    assert!(!is_gone("default").await && !is_gone("long").await);
    // The settings of a restarted node count for the task without a time of its own.
    let mut node = node;
    node.terminate().await;
    node.set_in("queue", "keep_ended_ms = 100");
    node.restart().await;
    let mut client = node.client();
    eventually("the other task is purged", async || {
        let read = client.clone().get_task_status("default").await;
        read.is_err().then_some(())
    })
    .await;
    assert_eq!(status(&mut client, "long").await.status, "completed");
}

async fn options_survive_a_kill(on: Backend) {
    let mut node = start(on, ONE_SLOT).await;
    let mut client = node.client();
    let waits = |id: &str| Task {
        delay_ms: 1000,
        start_by_ms: now_ms() + HOUR_MS,
        max_attempts: 2,
        backoff_initial_ms: 1,
        backoff_max_ms: 1,
        priority: Priority::High.into(),
        group: "g".into(),
        tags: vec!["t".into()],
        unique_key: "k".into(),
        ..named(id, task("trap", ""))
    };
    client.submit_task(waits("waits")).await.unwrap();
    client.submit_task(busy("runs", 10_000_000)).await.unwrap();
    let before = status(&mut client, "waits").await;
    node.kill();
    node.restart().await;
    let mut client = node.client();
    let after = status(&mut client, "waits").await;
    let options = |status: TaskStatus| {
        let TaskStatus {
            priority,
            group,
            tags,
            unique_key,
            start_by_ms,
            due_at_ms,
            ..
        } = status;
        (priority, group, tags, unique_key, start_by_ms, due_at_ms)
    };
    if after.status == "pending" {
        assert_eq!(options(after), options(before));
        let answer = client.submit(waits("other")).await.unwrap();
        assert_eq!(answer.task_id, "waits");
    }
    client.cancel_task("runs").await.unwrap();
    let failed = client.wait_for_task("waits").await.unwrap();
    assert_eq!((&*failed.status, failed.attempts), ("failed", 2));
    assert!(failed.error.starts_with("attempt 2 of 2"), "{failed:?}");
}

/// The fields that a refusal names in its details.
fn violations(refused: &Status) -> BTreeSet<String> {
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let details = refused.get_details_bad_request().expect("a bad request");
    let violations = details.field_violations.into_iter();
    violations
        .map(|violation| {
            let text = refused.message();
            assert!(
                text.contains(&violation.description),
                "{text}: {violation:?}"
            );
            violation.field
        })
        .collect()
}

async fn all_faults_are_reported_at_once(on: Backend) {
    let settings = "[limits]\nmax_delay_ms = 1000\nmax_attempts = 3\nmax_keep_ms = 1000\n\
                    [plugins]\nmax_timeout_ms = 1000\n";
    let node = start(on, settings).await;
    let mut client = node.client();
    let wrong = Task {
        task_id: "a b".into(),
        task_type: "-".into(),
        node: "n n".into(),
        delay_ms: 1001,
        start_by_ms: 1,
        timeout_ms: 1001,
        max_attempts: 4,
        backoff_initial_ms: u64::MAX,
        backoff_max_ms: 1,
        result_ttl_ms: 1001,
        priority: 77,
        group: "g g".into(),
        tags: (0..9).map(|n| format!("tag {n}")).collect(),
        unique_key: "k k".into(),
        unique_for_ms: 1001,
        metadata: [(String::new(), "v".into())].into(),
        ..Task::default()
    };
    let refused = client.submit_task(wrong).await.unwrap_err();
    let expected = [
        "task_id",
        "task_type",
        "node",
        "delay_ms",
        "start_by_ms",
        "timeout_ms",
        "max_attempts",
        "backoff_initial_ms",
        "backoff_max_ms",
        "result_ttl_ms",
        "priority",
        "group",
        "tags",
        "unique_key",
        "unique_for_ms",
        "metadata",
    ];
    assert_eq!(violations(&refused), expected.map(String::from).into());
    for (task, field) in [
        (
            Task {
                delay_ms: 1,
                run_at_ms: 1,
                ..task("sample", "")
            },
            "run_at_ms",
        ),
        (
            Task {
                run_at_ms: u64::MAX,
                ..task("sample", "")
            },
            "run_at_ms",
        ),
        (
            Task {
                start_by_ms: u64::MAX,
                ..task("sample", "")
            },
            "start_by_ms",
        ),
        (
            Task {
                unique_for_ms: 1,
                ..task("sample", "")
            },
            "unique_for_ms",
        ),
        (
            Task {
                node: "a".into(),
                label: "b".into(),
                ..task("sample", "")
            },
            "label",
        ),
    ] {
        let refused = client.submit_task(task).await.unwrap_err();
        assert_eq!(violations(&refused), [field.to_owned()].into());
    }
    // What is at its limit is accepted.
    let most = Task {
        delay_ms: 1000,
        timeout_ms: 1000,
        max_attempts: 3,
        result_ttl_ms: 1000,
        tags: (0..8).map(|n| format!("tag{n}")).collect(),
        unique_key: "k".into(),
        unique_for_ms: 1000,
        ..task("sample", "")
    };
    let ended = client.submit_and_wait(most).await.unwrap();
    assert_eq!(ended.status, "completed");
    // A name that cannot be one is refused in filters, too.
    let request = ListTasksRequest {
        tag: "a b".into(),
        ..ListTasksRequest::default()
    };
    let refused = client.list_tasks(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

async fn a_full_queue_says_when_to_try_again(on: Backend) {
    let node = on.prepare(&[], "").await;
    let mut node = node;
    node.add_wasm("sample.wasm", &guest(&TestGuest::default()));
    node.set_in("queue", "max_open_tasks = 1");
    let node = node.started().await;
    let mut client = node.client();
    let delayed = || Task {
        delay_ms: HOUR_MS,
        ..task("sample", "")
    };
    client.submit_task(delayed()).await.unwrap();
    let full = eventually("the queue is full", async || {
        client.clone().submit_task(delayed()).await.err()
    })
    .await;
    assert_eq!(full.code(), Code::ResourceExhausted);
    let info = full.get_details_retry_info().expect("a retry info");
    assert_eq!(info.retry_delay, Some(Duration::from_secs(1)));
}
