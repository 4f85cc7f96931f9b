//! `hostel schedules`.

use crate::support::{backend::Backend, node::Node, plugins::showcase};
use serde_json::Value;

/// Runs a command that has to end with `code`, and returns what it printed.
fn run(node: &Node, code: i32, arguments: &[&str]) -> String {
    let arguments: Vec<_> = ["schedules"].iter().chain(arguments).copied().collect();
    let ran = node.cli(&arguments);
    let [out, err] = [&ran.stdout, &ran.stderr].map(|text| String::from_utf8_lossy(text));
    assert_eq!(ran.status.code(), Some(code), "{arguments:?}: {out}{err}");
    format!("{out}{err}")
}

fn json(node: &Node, arguments: &[&str]) -> Value {
    let arguments: Vec<_> = arguments.iter().chain(&["--json"]).copied().collect();
    serde_json::from_str(&run(node, 0, &arguments)).expect("JSON")
}

pub async fn command_line(on: Backend) {
    let node = on.start(&[&showcase("echo")], "").await;
    let create = [
        "create",
        "report",
        "echo",
        "--payload",
        "hello",
        "--cron",
        "30 8 1 1 *",
        "--time-zone",
        "Europe/Berlin",
        "--meta",
        "department=finance",
        "--group",
        "tenant-1",
        "--priority",
        "low",
        "--overlap",
        "queue",
        "--missed",
        "all",
        "--jitter",
        "90s",
    ];
    let text = run(&node, 0, &create);
    for line in [
        "outcome          created",
        "name             report",
        "when             30 8 1 1 * (Europe/Berlin)",
        "task_type        echo",
        "payload          5 bytes",
        "metadata         department=finance",
        "group            tenant-1",
        "priority         low",
        "overlap          queue",
        "missed           all",
        "jitter           90s",
        "origin           api",
        "fired            0",
        "skipped          0",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line:?} is not in:\n{text}"
        );
    }
    // 08:30 in Berlin in winter.
    assert_eq!(text.matches("-01-01T07:30:00Z").count(), 5, "{text}");
    assert!(run(&node, 0, &create).starts_with("outcome          existing"));

    let found = json(&node, &["get", "report"]);
    assert_eq!(found["payload"], "hello");
    assert_eq!(found["metadata"]["department"], "finance");
    assert_eq!(found["jitter_ms"], 90_000);
    assert_eq!(found["next"].as_array().expect("times").len(), 5);
    let shown = run(&node, 0, &["get", "report"]);
    assert!(
        shown.contains("when             30 8 1 1 * (Europe/Berlin)"),
        "{shown}"
    );

    let other = ["create", "poll", "echo", "--every", "15m", "--paused"];
    assert!(run(&node, 0, &other).contains("when             every 900s"));
    let table = run(&node, 0, &["list"]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("NAME "), "{table}");
    assert!(
        lines[1].starts_with("poll ") && lines[1].ends_with(" paused"),
        "{table}"
    );
    assert!(lines[2].starts_with("report "), "{table}");
    assert_eq!(lines[2].matches("-01-01T07:30:00Z").count(), 5, "{table}");
    let listed = json(&node, &["list"]);
    assert_eq!(listed.as_array().expect("schedules").len(), 2);

    let resumed = run(&node, 0, &["resume", "poll"]);
    assert!(resumed.starts_with("poll fires next at 20"), "{resumed}");
    assert_eq!(run(&node, 0, &["pause", "poll"]), "poll is paused\n");
    let id = run(&node, 0, &["run", "report"]);
    assert!(id.starts_with("schedule:report:run:"), "{id}");
    let ended = node
        .client()
        .wait_for_task(id.trim())
        .await
        .expect("a task");
    assert_eq!(&ended.result[..], b"hello");

    let refused = run(&node, 4, &["create", "report", "echo", "--every", "1h"]);
    assert!(
        refused.contains("there is another schedule report"),
        "{refused}"
    );
    let replaced = run(
        &node,
        0,
        &["create", "report", "echo", "--every", "1h", "--replace"],
    );
    assert!(
        replaced.starts_with("outcome          replaced"),
        "{replaced}"
    );
    let refused = run(&node, 4, &["create", "x", "echo", "--cron", "0 0 30 2 *"]);
    assert!(refused.contains("never fires"), "{refused}");
    for usage in [
        &["create", "x", "echo"][..],
        &["create", "x", "echo", "--every", "soon"],
        &["create", "x", "echo", "--every", "1h", "--cron", "@daily"],
        &[
            "create",
            "x",
            "echo",
            "--cron",
            "@daily",
            "--overlap",
            "perhaps",
        ],
        &[
            "create", "x", "echo", "--cron", "@daily", "--meta", "a=b", "--meta", "a=c",
        ],
    ] {
        run(&node, 2, usage);
    }
    assert_eq!(run(&node, 0, &["delete", "report"]), "deleted\n");
    assert!(run(&node, 4, &["delete", "report"]).contains("no schedule report"));
}
