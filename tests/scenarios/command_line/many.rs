//! `hostel submit --many`.

use super::*;

/// A good line of each kind, and bad ones among them.
const FILE: &str = r#"{"task_type": "echo", "task_id": "a", "payload": "one"}

{"task_type": "echo", "payload": "two", "metadata": {"k": "v"}}
{"task_type": "echo", "payload": "three"
{"task_type": "echo", "task_id": 4, "payload": "x", "payload_json": 1, "colour": "red"}
  {"task_type": "echo", "task_id": "b", "payload_json": {"six": [6]}}
{"task_type": "echo", "task_id": "c", "payload_base64": "AP8="}
{"task_type": "nothing", "task_id": "d"}
{"task_type": "echo", "task_id": "not an id", "node": "n", "label": "l"}
{"task_type": "echo", "task_id": "a", "payload": "other"}
"#;

const NOTES: &str = "\
line 4 is invalid: not JSON: EOF while parsing an object at line 1 column 40
line 5 is invalid: task_id: a string expected; payload: only one of payload, payload_base64, payload_json is allowed; colour: no such field
";

/// The name of line 3 of `FILE` in a file called `tasks.jsonl`.
const ID_OF_LINE_3: &str = "line-3-";

/// The lines of stderr in the order of the file's lines.
fn sorted(err: &str) -> Vec<&str> {
    let mut lines: Vec<_> = err.lines().collect();
    lines.sort_unstable();
    lines
}

/// The JSON lines of stdout, by event and line.
fn events(out: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(out).unwrap();
    let mut events: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON object a line"))
        .collect();
    events.sort_by_key(|event| {
        let is_end = event["event"] == "ended";
        (is_end, event["line"].as_u64())
    });
    events
}

pub async fn submit_many(on: Backend) {
    let node = on.start(&[&showcase("echo")], "").await;
    let hostel = |arguments: &[&str]| node.hostel(arguments);
    let write = |name: &str, text: &str| fs::write(node.path(name), text).unwrap();
    write("tasks.jsonl", FILE);

    // Bad lines are named, the others submitted, and the exit code says so.
    let ran = hostel(&["submit", "--many", "tasks.jsonl"]);
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    assert_eq!(
        String::from_utf8_lossy(&ran.out),
        "4 accepted, 0 existing, 3 refused, 2 invalid\n"
    );
    let notes = sorted(&ran.err);
    assert_eq!(notes.len(), 6, "{}", ran.err);
    let end = "hostel: invalid lines were left out; correct them and run the same command again";
    assert_eq!(notes[0], end);
    assert!(notes[1].starts_with("line 10 is refused: another task, with other content"));
    assert!(notes[1].ends_with("(AlreadyExists)"), "{}", notes[1]);
    assert_eq!(notes[2..4].join("\n") + "\n", NOTES);
    assert!(
        notes[4].starts_with("line 8 is refused: no live node handles nothing"),
        "{}",
        ran.err
    );
    assert_eq!(
        notes[5],
        "line 9 is refused: task_id: task id \"not an id\" has ' '; only letters, digits and . _ : - \
         are allowed; label: a task names a node or a label, not both (InvalidArgument)"
    );

    // Once more, with JSON and the ends.
    let ran = hostel(&["submit", "--many", "tasks.jsonl", "--wait", "--json"]);
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    assert_eq!(
        ran.err,
        format!(
            "0 accepted, 4 existing, 3 refused, 2 invalid; 4 completed, 0 failed, 0 cancelled\n{end}\n"
        )
    );
    let events = events(&ran.out);
    assert_eq!(events.len(), 13, "{events:#?}");
    let key = |event: &Value| (event["line"].as_u64().unwrap(), event["event"].clone());
    let keys: Vec<_> = events.iter().map(key).collect();
    let expected = [
        (1, "existing"),
        (3, "existing"),
        (4, "invalid"),
        (5, "invalid"),
        (6, "existing"),
        (7, "existing"),
        (8, "refused"),
        (9, "refused"),
        (10, "refused"),
        (1, "ended"),
        (3, "ended"),
        (6, "ended"),
        (7, "ended"),
    ];
    assert_eq!(keys, expected.map(|(line, event)| (line, event.into())));
    assert_eq!(
        events[0],
        serde_json::json!({"event": "existing", "line": 1, "task_id": "a", "durability": "synced"})
    );
    let id = events[1]["task_id"].as_str().unwrap();
    assert!(id.starts_with(ID_OF_LINE_3), "{id}");
    assert_eq!(id.len(), ID_OF_LINE_3.len() + 32);
    assert_eq!(events[3]["faults"].as_array().unwrap().len(), 3);
    let fields: Vec<_> = events[7]["violations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|violation| violation["field"].as_str().unwrap())
        .collect();
    assert_eq!(fields, ["task_id", "label"]);
    assert_eq!(events[7]["code"], "InvalidArgument");
    let results: Vec<_> = events[9..].iter().map(|event| &event["result"]).collect();
    assert_eq!(
        results,
        [
            &Value::from("one"),
            &"two".into(),
            &"{\"six\":[6]}".into(),
            &Value::Null
        ]
    );
    assert_eq!(events[12]["result_base64"], "AP8=");
    assert_eq!(events[10]["task_id"], events[1]["task_id"]);

    // A file of good lines; the same lines in another batch are other tasks.
    let good = "{\"task_type\": \"echo\", \"payload\": \"x\"}\n".repeat(500);
    write("good.jsonl", &good);
    let first = hostel(&["submit", "--many", "good.jsonl"]);
    let summary = "500 accepted, 0 existing, 0 refused, 0 invalid\n";
    assert_eq!(first.text(), summary);
    let batch = ["submit", "--many", "good.jsonl", "--batch", "second"];
    assert_eq!(hostel(&batch).text(), summary);
    let summary = "0 accepted, 500 existing, 0 refused, 0 invalid";
    assert_eq!(hostel(&batch).text().trim(), summary);
    let arguments = ["submit", "--many", "-", "--batch", "good.jsonl", "--wait"];
    let piped = tasks::through_stdin(&node, &arguments, good.as_bytes());
    assert_eq!(piped.code, Some(0), "{}", piped.err);
    let ends = "500 completed, 0 failed, 0 cancelled";
    assert_eq!(piped.err.trim(), format!("{summary}; {ends}"));
    assert_eq!(self::events(&piped.out).len(), 500);

    // The bar is on a terminal only.
    if has_script() {
        let command = format!("{} submit --many good.jsonl", node::binary().display());
        let shown = Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .current_dir(node.path(""))
            .env("HOSTEL_SERVER", node.address())
            .env("TERM", "xterm")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .output();
        let shown = String::from_utf8(shown.unwrap().stdout).unwrap();
        assert!(shown.contains("% read; "), "{shown:?}");
        assert!(shown.contains(summary), "{shown:?}");
        assert!(!shown.contains("\u{1b}[3"), "{shown:?}");
    }
}

pub async fn submit_many_that_fails() {
    let settings = "[plugin.hostel-test-guests.task.panic]\nmax_attempts = 1";
    let node = Node::start(&[&showcase("echo"), &hostile()], settings).await;
    let hostel = |arguments: &[&str]| node.hostel(arguments);
    let write = |name: &str, text: &str| fs::write(node.path(name), text).unwrap();

    write(
        "panic.jsonl",
        "{\"task_type\": \"panic\", \"task_id\": \"p\"}\n",
    );
    // The submission succeeds although the task fails.
    let summary = "1 accepted, 0 existing, 0 refused, 0 invalid\n";
    assert_eq!(hostel(&["submit", "--many", "panic.jsonl"]).text(), summary);
    let waited = hostel(&["submit", "--many", "panic.jsonl", "--wait"]);
    assert_eq!(waited.code, Some(1), "{}", waited.err);
    assert!(
        waited.err.contains("0 completed, 1 failed, 0 cancelled"),
        "{}",
        waited.err
    );
    assert!(
        waited
            .err
            .ends_with("hostel: not every task was completed and read\n")
    );
    let event = &events(&waited.out)[0];
    assert_eq!(
        (&event["event"], &event["status"]),
        (&"ended".into(), &"failed".into())
    );
    assert!(
        event["error"].as_str().unwrap().contains("panic"),
        "{event}"
    );

    write("refused.jsonl", "{\"task_type\": \"nothing\"}\n");
    let refused = hostel(&["submit", "--many", "refused.jsonl"]);
    assert_eq!(refused.code, Some(4), "{}", refused.err);
    assert!(
        refused
            .err
            .ends_with("hostel: the node refused some of the tasks\n")
    );
    let refused = hostel(&["submit", "--many", "refused.jsonl", "--json"]);
    assert_eq!(events(&refused.out)[0]["code"], "FailedPrecondition");

    hostel(&["submit", "--many", "no-such-file"]).fails(2, "cannot read no-such-file");
    hostel(&["submit", "--many", "."]).fails(2, "cannot read");
    hostel(&["submit", "echo", "--many", "panic.jsonl"]).fails(2, "cannot be used with");
    hostel(&["submit", "--many", "panic.jsonl", "--payload", "x"]).fails(2, "cannot be used with");
    hostel(&["submit", "echo", "--batch", "x"]).fails(2, "--many");
    hostel(&["submit", "--many", "panic.jsonl", "--server", "127.0.0.1:1"])
        .fails(3, "no node answers at 127.0.0.1:1");

    // A reader that has gone ends the command with an error, since not everything is submitted.
    let lines = "{\"task_type\": \"echo\"}\n".repeat(1000);
    write("lines.jsonl", &lines);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = self::hostel();
    let output = command
        .current_dir(node.path(""))
        .env("HOSTEL_SERVER", node.address())
        .args(["submit", "--many", "lines.jsonl", "--json"])
        .stdout(writer)
        .stderr(Stdio::piped());
    let output = Ran::from(output.spawn().unwrap().wait_with_output().unwrap());
    output.fails(1, "run the same command again for the rest");
}
