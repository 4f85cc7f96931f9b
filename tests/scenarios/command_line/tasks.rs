//! `hostel submit` and `hostel tasks`.

use super::*;

/// All byte values, not ending in a newline.
fn binary() -> Vec<u8> {
    (0..=255_u8).cycle().take(100_000).collect()
}

pub async fn submit(on: Backend) {
    let node = on
        .start(&[&showcase("echo"), &showcase("thumbnail")], "")
        .await;
    let hostel = |arguments: &[&str]| node.hostel(arguments);

    let id = hostel(&["submit", "echo", "--payload", "over"]).text();
    assert!(id.ends_with('\n') && id.trim().len() == 36, "{id:?}");
    let named = ["submit", "echo", "--payload", "over", "--id", "my:1"];
    assert_eq!(hostel(&named).text(), "my:1\n");
    // The id is the idempotency key.
    assert_eq!(hostel(&named).text(), "my:1\n");
    let waited = hostel(&["submit", "echo", "--payload", "over", "--wait"]);
    assert_eq!(waited.bytes(), b"over");
    assert_eq!(hostel(&["submit", "echo", "--wait"]).bytes(), b"");

    fs::write(node.path("binary"), binary()).unwrap();
    let from_file = hostel(&["submit", "echo", "--file", "binary", "--wait"]);
    assert!(from_file.bytes() == binary(), "the bytes differ");
    let piped = through_stdin(&node, &["submit", "echo", "-", "--wait"], &binary());
    assert!(piped.bytes() == binary(), "the bytes differ");

    let picture = image::RgbImage::from_pixel(64, 32, image::Rgb([9, 9, 9]));
    picture.save(node.path("picture.png")).unwrap();
    let shrunk = hostel(&[
        "submit",
        "thumbnail",
        "--file",
        "picture.png",
        "--meta",
        "width=16",
        "--meta",
        "height=9",
        "--wait",
    ]);
    let shrunk = image::load_from_memory(&shrunk.bytes()).unwrap();
    assert_eq!((shrunk.width(), shrunk.height()), (16, 8));

    // The durability is in the JSON, and on stderr only if that is a terminal.
    let printed = hostel(&["submit", "echo", "--payload", "x", "--json"]).json();
    let (id, durability) = (&printed["task_id"], &printed["durability"]);
    assert_eq!(id.as_str().unwrap().len(), 36, "{printed}");
    assert_eq!(
        (durability, &printed["existing"]),
        (&"synced".into(), &false.into())
    );
    let again = [&named[..], &["--json", "--wait"]].concat();
    let printed = hostel(&again).json();
    for (key, value) in [
        ("task_id", "my:1"),
        ("status", "completed"),
        ("result", "over"),
        ("durability", "synced"),
    ] {
        assert_eq!(printed[key], value, "{printed}");
    }
    assert_eq!(printed["existing"], true, "{printed}");
    if has_script() {
        let command = format!("{} submit echo --payload x", node::binary().display());
        let shown = Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .env("HOSTEL_SERVER", node.address())
            .stdin(Stdio::null())
            .output();
        let shown = String::from_utf8(shown.unwrap().stdout).unwrap();
        assert!(
            shown.contains("accepted (synced): the task is on disk"),
            "{shown}"
        );
    }

    // --server overrides HOSTEL_SERVER, with and without the scheme.
    for server in [node.address(), &format!("http://{}", node.address())] {
        let mut command = self::hostel();
        command.env("HOSTEL_SERVER", "127.0.0.1:1");
        command.args([
            "submit",
            "echo",
            "--payload",
            "x",
            "--wait",
            "--server",
            server,
        ]);
        assert_eq!(run(&mut command).bytes(), b"x");
    }
}

pub fn through_stdin(node: &Node, arguments: &[&str], input: &[u8]) -> Ran {
    let mut child = hostel()
        .env("HOSTEL_SERVER", node.address())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    Ran::from(child.wait_with_output().unwrap())
}

pub async fn submit_that_fails(on: Backend) {
    let settings = "[plugin.hostel-test-guests.task.sleep]\ntimeout_ms = 600000";
    let node = on.start(&[&showcase("text"), &hostile()], settings).await;
    let hostel = |arguments: &[&str]| node.hostel(arguments);
    fs::write(node.path("latin1"), b"na\xefve").unwrap();
    hostel(&[
        "submit",
        "word-count",
        "--file",
        "latin1",
        "--wait",
        "--id",
        "a",
    ])
    .fails(
        1,
        "task a failed: the payload is not UTF-8: byte 0xef at offset 2",
    );
    hostel(&["submit", "panic", "--wait"]).fails(1, "the panic's own words");
    // Without --wait, the submission succeeds although the task fails.
    hostel(&["submit", "panic"]).text();

    hostel(&["submit", "nothing"]).fails(4, "known task types: exit, grow");
    hostel(&["submit", "word-count", "--payload", "other", "--id", "a"]).fails(
        4,
        "another task, with other content, has the id a; submit it under another id",
    );
    hostel(&["submit", "a/b"]).fails(4, "only letters");
    fs::write(node.path("large"), vec![0; 5 << 20]).unwrap();
    hostel(&["submit", "word-count", "--file", "large"]).fails(4, "4194304");
    hostel(&["submit", "word-count", "--file", "none"]).fails(2, "cannot read none");
    hostel(&["submit", "word-count", "--meta", "x"]).fails(2, "\"x\" is not KEY=VALUE");
    hostel(&["submit", "word-count", "--payload", "x", "-"]).fails(2, "cannot be used with");
    hostel(&["submit", "word-count", "--payload", "x", "--file", "large"])
        .fails(2, "cannot be used with");
    hostel(&["submit"]).fails(2, "TASK_TYPE");
    hostel(&["submit", "panic", "--server", "127.0.0.1:1"])
        .fails(3, "no node answers at 127.0.0.1:1");
    hostel(&["submit", "panic", "--server", "not an address"]).fails(3, "not an address");

    // The task is cancelled while a submission waits for it.
    let waiting = self::hostel()
        .env("HOSTEL_SERVER", node.address())
        .args(["submit", "sleep", "--wait", "--id", "slow"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("the task can be cancelled", || async {
        (hostel(&["tasks", "cancel", "slow"]).code == Some(0)).then_some(())
    })
    .await;
    Ran::from(waiting.wait_with_output().unwrap()).fails(1, "task slow cancelled");
}

pub async fn tasks(on: Backend) {
    let settings = "[plugin.hostel-test-guests.task.sleep]\ntimeout_ms = 600000";
    let node = on.start(&[&showcase("echo"), &hostile()], settings).await;
    let hostel = |arguments: &[&str]| node.hostel(arguments);
    let list = |arguments: &[&str]| {
        let all = [&["tasks", "list", "--json"], arguments].concat();
        let listed = node.hostel(&all).json();
        let ids = listed.as_array().unwrap().iter();
        let ids: Vec<_> = ids
            .map(|task| task["task_id"].as_str().unwrap().to_owned())
            .collect();
        ids
    };
    assert_eq!(list(&[]), [""; 0]);
    fs::write(node.path("binary"), binary()).unwrap();
    hostel(&["submit", "echo", "--id", "a", "--payload", "over", "--wait"]).bytes();
    hostel(&["submit", "echo", "--id", "b", "--file", "binary", "--wait"]).bytes();
    hostel(&["submit", "panic", "--id", "c", "--wait"]).fails(1, "task c failed");
    hostel(&["submit", "sleep", "--id", "d"]).text();

    let a = hostel(&["tasks", "get", "a", "--json"]).json();
    for (field, value) in [
        ("task_id", "a"),
        ("task_type", "echo"),
        ("status", "completed"),
        ("plugin", "echo"),
        ("node_id", "test"),
        ("error", ""),
        ("result", "over"),
    ] {
        assert_eq!(a[field], value, "{field}");
    }
    assert_eq!(
        (&a["attempts"], &a["finishes"], &a["result_bytes"]),
        (&1.into(), &1.into(), &4.into())
    );
    assert!(a["finished_at_ms"].as_u64() >= a["started_at_ms"].as_u64());
    let b = hostel(&["tasks", "get", "b", "--json"]).json();
    assert_eq!(
        (&b["result"], &b["result_bytes"]),
        (&Value::Null, &100_000.into())
    );
    let a = hostel(&["tasks", "get", "a"]).text();
    assert!(a.contains("status           completed\n"), "{a}");
    assert!(a.contains("result           4 bytes\n"), "{a}");
    assert!(!a.contains("error"), "{a}");

    assert_eq!(list(&[]), ["d", "c", "b", "a"]);
    assert_eq!(list(&["--limit", "2"]), ["d", "c"]);
    assert_eq!(list(&["--state", "completed"]), ["b", "a"]);
    assert_eq!(list(&["--state", "failed"]), ["c"]);
    assert_eq!(list(&["--type", "echo", "--limit", "1"]), ["b"]);
    assert_eq!(list(&["--type", "echo", "--state", "failed"]), [""; 0]);
    let table = hostel(&["tasks", "list"]).text();
    let rows: Vec<_> = table.lines().collect();
    assert_eq!(rows.len(), 5, "{table}");
    assert!(rows[0].starts_with("ID  TYPE   STATE"), "{table}");
    assert!(
        rows[2].starts_with("c   panic  failed") && rows[2].contains("panic"),
        "{table}"
    );
    hostel(&["tasks", "list", "--state", "done"]).fails(2, "pending, running, completed");
    hostel(&["tasks", "list", "--type", "a b"]).fails(4, "only letters");

    let ended = "task a is completed; only pending and running tasks can be cancelled";
    hostel(&["tasks", "cancel", "a"]).fails(4, ended);
    hostel(&["tasks", "cancel", "nobody"]).fails(4, "no task has the id nobody");
    let output = hostel(&["tasks", "cancel", "d"]).text();
    assert!(
        output == "cancelled\n" || output.starts_with("requested: "),
        "{output}"
    );
    let mut client = node.client();
    assert_eq!(client.wait_for_task("d").await.unwrap().status, "cancelled");

    hostel(&["tasks", "requeue", "a"]).fails(4, "task a is completed; only failed and cancelled");
    hostel(&["tasks", "requeue", "nobody"]).fails(4, "no task has the id nobody");
    assert_eq!(hostel(&["tasks", "requeue", "c"]).text(), "requeued\n");
    let c = client.wait_for_task("c").await.unwrap();
    assert_eq!(
        (c.status.as_str(), c.attempts, c.finishes),
        ("failed", 1, 1)
    );
    hostel(&["tasks", "get", "nobody"]).fails(4, "no task has the id nobody");
    hostel(&["tasks", "get", "a", "--server", "127.0.0.1:1"]).fails(3, "hostel serve");
}
