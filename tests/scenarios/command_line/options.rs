//! The options of a task in `hostel submit`, `hostel tasks get` and `hostel tasks list`.

use super::*;
use crate::support::now_ms;

pub async fn submit_with_options(on: Backend) {
    let node = on.prepare(&[], "").await;
    node.add_wasm("sample.wasm", &TestGuest::default().wasm().unwrap());
    let node = node.started().await;
    let hostel = |arguments: &[&str]| node.hostel(arguments);
    let submit = |arguments: &[&str]| hostel(&[&["submit", "sample"], arguments].concat());

    let start_by = now_ms() + 3_600_000;
    let id = submit(&[
        "--id",
        "later",
        "--delay",
        "30m",
        "--start-by",
        &start_by.to_string(),
        "--timeout",
        "1500ms",
        "--max-attempts",
        "7",
        "--backoff-initial",
        "100ms",
        "--backoff-max",
        "2s",
        "--keep",
        "7d",
        "--priority",
        "high",
        "--group",
        "customer-17",
        "--tag",
        "red",
        "--tag",
        "green",
        "--unique-key",
        "nightly",
        "--unique-for",
        "1h 30m",
    ]);
    assert_eq!(id.text(), "later\n");
    let shown = hostel(&["tasks", "get", "later"]).text();
    for line in [
        "status           pending",
        "priority         high",
        "group            customer-17",
        "tags             green, red",
        "unique_key       nightly",
        &format!("start_by_ms      {start_by}"),
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
    }
    assert!(shown.contains("its first attempt, due in "), "{shown}");
    let json = hostel(&["tasks", "get", "later", "--json"]).json();
    assert_eq!(json["tags"], serde_json::json!(["green", "red"]));
    let due = json["due_at_ms"].as_u64().unwrap();
    assert_eq!(due - json["submitted_at_ms"].as_u64().unwrap(), 1_800_000);

    // The answer with another task's id is told, and the id is on stdout as always.
    let other = submit(&["--id", "other", "--unique-key", "nightly"]);
    assert_eq!((other.code, &*other.out), (Some(0), &b"later\n"[..]));
    let words = "hostel: no task was made: the task later has the unique key\n";
    assert_eq!(other.err, words);
    hostel(&["tasks", "get", "other"]).fails(4, "no task has the id other");

    // A moment may have an offset, and a task without options shows none.
    let past = submit(&[
        "--id",
        "past",
        "--run-at",
        "2026-01-31T08:00:00+01:00",
        "--wait",
    ]);
    assert_eq!(past.text(), "");
    let shown = hostel(&["tasks", "get", "past"]).text();
    assert!(shown.contains("priority         normal\n"), "{shown}");
    for absent in ["group", "tags", "unique_key", "start_by_ms"] {
        assert!(!shown.contains(absent), "{shown}");
    }

    let list = |arguments: &[&str]| {
        let all = [&["tasks", "list", "--json"], arguments].concat();
        let listed = node.hostel(&all).json();
        let ids = listed.as_array().unwrap().iter();
        let ids: Vec<_> = ids
            .map(|task| task["task_id"].as_str().unwrap().to_owned())
            .collect();
        ids.join(" ")
    };
    assert_eq!(list(&["--group", "customer-17"]), "later");
    assert_eq!(list(&["--tag", "red", "--state", "pending"]), "later");
    assert_eq!(list(&["--tag", "blue"]), "");
    hostel(&["tasks", "list", "--tag", "a b"]).fails(4, "only letters");

    // What the command cannot read is a usage error; what the node refuses names each field.
    for (arguments, words) in [
        (
            &["--delay", "10"][..],
            "\"10\" is not a length of time such as 10s",
        ),
        (&["--delay", "0s"], "less than a millisecond"),
        (&["--run-at", "tomorrow"], "neither a time such as"),
        (&["--delay", "1s", "--run-at", "1"], "cannot be used with"),
        (&["--max-attempts", "0"], "0 is not in 1.."),
        (&["--priority", "urgent"], "high, normal and low"),
        (&["--unique-for", "1h"], "--unique-key"),
    ] {
        submit(arguments).fails(2, words);
    }
    let refused = submit(&[
        "--delay",
        "9999d",
        "--max-attempts",
        "101",
        "--group",
        "a b",
    ]);
    for field in ["delay_ms: ", "max_attempts: 101 attempts", "group: "] {
        assert!(refused.err.contains(field), "{field}: {}", refused.err);
    }
    refused.fails(4, "limits.max_delay_ms");
}
