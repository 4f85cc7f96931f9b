//! `hostel tasks` on one task, on some, and on all that a filter matches.

use super::Backend;
use crate::{
    scenarios::options::{HOUR_MS, named, start, status},
    support::task,
};
use hostel::proto::distributed::Task;
use serde_json::Value;

pub async fn command_line(on: Backend) {
    let node = start(on, "").await;
    let mut client = node.client();
    for n in 0..6 {
        let delayed = Task {
            group: if n < 4 { "a".into() } else { "b".into() },
            delay_ms: HOUR_MS,
            ..named(&format!("t{n}"), task("sample", ""))
        };
        client.submit_task(delayed).await.unwrap();
    }
    // The exit code, stdout and stderr.
    let hostel = |arguments: &[&str]| {
        let ran = node.cli(&[&["tasks"], arguments].concat());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (ran.status.code(), text(&ran.stdout), text(&ran.stderr))
    };
    let done = |arguments: &[&str]| {
        let (code, out, err) = hostel(arguments);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{arguments:?}: {out}");
        out
    };
    let fails = |arguments: &[&str], expected: i32, words: &str| {
        let (code, out, err) = hostel(arguments);
        assert_eq!(code, Some(expected), "{arguments:?}: {out}{err}");
        assert!(err.contains(words), "{words} is missing in: {err}");
        out
    };

    assert_eq!(
        done(&["set-priority", "high", "t0", "t1"]),
        "2 given high priority\n"
    );
    let get = done(&["get", "t0"]);
    assert!(get.contains("priority         high\n"), "{get}");
    let counted = done(&["cancel", "--all", "--group", "a", "--dry-run"]);
    assert_eq!(counted, "4 would be cancelled\n");
    assert_eq!(
        done(&["cancel", "t0", "--reason", "by hand"]),
        "cancelled\n"
    );
    assert_eq!(status(&mut client, "t0").await.error, "by hand");
    let all = [
        "cancel", "--all", "--type", "sample", "--group", "a", "--reason", "all",
    ];
    assert_eq!(done(&all), "3 cancelled\n");
    assert_eq!(done(&all), "0 cancelled\n");
    assert_eq!(
        done(&["requeue", "--all", "--status", "cancelled", "--limit", "1"]),
        "1 requeued\n"
    );
    assert_eq!(done(&["run-now", "t4"]), "made due now\n");
    let ended = client.wait_for_task("t4").await.unwrap();
    assert_eq!(ended.status, "completed");

    let out = fails(
        &["purge", "t4", "t5", "absent"],
        4,
        "no task has the id absent",
    );
    assert_eq!(out, "1 purged, 2 left as they were\n");
    fails(
        &["purge", "t5"],
        4,
        "task t5 is pending; only completed, failed and cancelled tasks can be purged",
    );
    let json = done(&["run-now", "--all", "--group", "b", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["matched"], &json["done"]),
        (&1.into(), &1.into()),
        "{json}"
    );

    // What is refused before the node is asked.
    fails(&["purge"], 2, "required");
    fails(&["purge", "--type", "sample"], 2, "--all");
    fails(&["purge", "t5", "--all"], 2, "cannot be used with");
    fails(&["cancel", "t5", "--group", "b"], 2, "cannot be used with");
    fails(&["requeue", "--all", "--limit", "0"], 2, "--limit");
    fails(
        &["set-priority", "highest", "t5"],
        2,
        "high, normal and low",
    );
    fails(
        &["cancel", "t5", "--reason", &"x".repeat(1025)],
        2,
        "at most 1024",
    );
    // And by the node.
    fails(
        &["purge", "--all", "--state", "running"],
        4,
        "purge is not for running tasks",
    );
    fails(&["run-now", "a b"], 4, "only letters");
    fails(
        &["purge", "t5", "--server", "127.0.0.1:1"],
        3,
        "no node answers",
    );
}
