//! Which tasks are one, how they are found, and how long they are kept.

use super::{HOUR_MS, busy, named, start, status};
use crate::support::{backend::Backend, eventually, task};
use hostel::proto::{distributed::Task, hostel::v1::ListTasksRequest};
use std::collections::BTreeSet;
use tonic::Code;

pub async fn a_unique_key_makes_one_task(on: Backend) {
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

pub async fn tasks_are_found_by_group_and_tag(on: Backend) {
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

pub async fn a_task_is_kept_for_its_own_time(on: Backend) {
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
    node.set_in("queue", "keep_completed_ms = 1000");
    node.restart().await;
    let mut client = node.client();
    eventually("the other task is purged", async || {
        let read = client.clone().get_task_status("default").await;
        read.is_err().then_some(())
    })
    .await;
    assert_eq!(status(&mut client, "long").await.status, "completed");
}
