//! Untrusted text from guests, clients and files: the command line and the log escape it, and JSON
//! contains it unchanged. Failures are reported with their reason, in the log at a bounded rate.

use crate::support::{eventually, node::Node, plugins::build_source, task, trial, trial_needing};
use hostel::proto::distributed::Message;
use libtest_mimic::Trial;
use std::path::PathBuf;

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "untrusted::control_characters_are_escaped_in_output_and_log",
            control_characters_are_escaped_in_output_and_log,
        ),
        trial(
            "untrusted::a_failed_attempt_keeps_its_whole_message",
            a_failed_attempt_keeps_its_whole_message,
        ),
        trial(
            "untrusted::failures_are_logged_with_their_class_at_a_bounded_rate",
            failures_are_logged_with_their_class_at_a_bounded_rate,
        ),
        trial(
            "untrusted::rejected_messages_are_logged_at_a_bounded_rate",
            rejected_messages_are_logged_at_a_bounded_rate,
        ),
        trial(
            "untrusted::a_permanent_component_error_fails_the_task_permanently",
            a_permanent_component_error_fails_the_task_permanently,
        ),
        trial_needing(
            "untrusted::a_rejection_is_short_whatever_the_file_holds",
            true,
            a_rejection_is_short_whatever_the_file_holds,
        ),
    ]
}

const SOURCE: &str = r#"use hostel_sdk::prelude::*;

struct Loud;

impl Component for Loud {
    type In = String;
    type Out = String;

    fn start() -> Result<Self> {
        Ok(Self)
    }

    fn on_message(&mut self, text: String, message: &Message) -> Result<String> {
        match message.message_type() {
            "permanent" => Err(TaskError::permanent(text)),
            _ => Err(TaskError::retryable(text)),
        }
    }
}

fn fail(text: String) -> Result<()> {
    Err(TaskError::permanent(text))
}

fn again(text: String) -> Result<()> {
    Err(TaskError::retryable(text))
}

fn equal(_: ()) {
    let text = "the sum\nof it";
    assert_eq!(1 + 1, 3, "{text}");
}

fn trace(_: ()) {
    eprintln!("Traceback (most recent call last):");
    (0..1000).for_each(|n| eprintln!("  File \"app.py\", line {n}, in handle"));
    eprintln!("ValueError: no such currency");
    std::process::exit(1);
}

fn spin(_: ()) {
    loop {
        std::hint::black_box(());
    }
}

fn ask(kind: String) -> Result<String> {
    let text = "too old";
    Ok(messaging::request("loud", &kind, text, Duration::from_secs(20))?)
}

hostel_sdk::plugin! {
    component = Loud,
    task("fail", fail),
    task("again", again).attempts(1),
    task("equal", equal).attempts(1),
    task("trace", trace).attempts(1),
    task("spin", spin).attempts(1).timeout(Duration::from_millis(50)),
    task("ask", ask).attempts(2).backoff(Duration::from_millis(1), Duration::from_millis(1)),
}
"#;

fn loud() -> PathBuf {
    build_source("loud", "1.0.0", SOURCE)
}

const EVIL: &str = "\u{1b}[2J\u{9b}2J\u{202e}\u{7f}\u{200b}\u{2028}\rforged\nforged line";

/// Checks that `text` contains no control characters and no forged line.
fn assert_escaped(text: &str, of: &str) {
    let moves = |c: char| {
        c != '\n'
            && (c.is_control()
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'))
    };
    assert!(!text.contains(moves), "{of}: {text:?}");
    let forged = text.lines().find(|line| line.starts_with("forged"));
    assert_eq!(forged, None, "{of}: {text:?}");
}

async fn control_characters_are_escaped_in_output_and_log() {
    let node = Node::prepare(&[&loud()], "");
    node.add_wasm(&format!("{EVIL}.wasm"), b"rubbish");
    let node = node.started().await;
    let mut client = node.client();
    let failed = task("fail", EVIL);
    let failed = client.submit_and_wait(failed).await.expect("an answer");
    // The record has the unchanged text of the guest.
    assert_eq!((&*failed.status, &*failed.error), ("failed", EVIL));
    let id = failed.task_id.as_str();
    eventually("the component runs", || async {
        let listed = node.cli(&["components", "list"]);
        String::from_utf8_lossy(&listed.stdout)
            .contains("running")
            .then_some(())
    })
    .await;
    for arguments in [
        &["submit", "fail", "--payload", EVIL, "--wait"][..],
        &["send", "loud", "--payload", EVIL, "--wait"],
        &["tasks", "list"],
        &["tasks", "list", "--json"],
        &["tasks", "get", id],
        &["tasks", "get", id, "--json"],
        &["plugins", "list"],
        &["plugins", "list", "--json"],
        &["components", "list"],
        &["plugins", "verify", &format!("plugins/{EVIL}.wasm")],
        &["plugins", "inspect", &format!("plugins/{EVIL}.wasm")],
        &["submit", EVIL],
    ] {
        let output = node.cli(arguments);
        for bytes in [output.stdout, output.stderr] {
            let text = String::from_utf8(bytes).expect("text");
            assert_escaped(&text, &arguments.join(" "));
        }
    }
    let json = node.cli(&["tasks", "get", id, "--json"]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(json["error"], EVIL);
    let listed = node.cli(&["plugins", "list", "--json"]).stdout;
    let listed: serde_json::Value = serde_json::from_slice(&listed).expect("JSON");
    assert_eq!(listed["rejected"][0]["file"], format!("{EVIL}.wasm"));
    assert_escaped(&node.log(), "the log");
    assert!(node.log().contains("forged line"), "{}", node.log());
}

async fn a_failed_attempt_keeps_its_whole_message() {
    let node = Node::start(&[&loud()], "").await;
    let mut client = node.client();
    let equal = client.submit_and_wait(task("equal", "")).await.unwrap();
    for part in [
        "panicked at src/lib.rs:",
        "assertion `left == right` failed: the sum\nof it\n",
        "  left: 2\n right: 3",
    ] {
        assert!(equal.error.contains(part), "{part:?}: {}", equal.error);
    }
    let shown = node.cli(&["tasks", "get", &equal.task_id]).stdout;
    let shown = String::from_utf8(shown).unwrap();
    let indented = format!("\n{:17}  left: 2\n{:17} right: 3\n", "", "");
    assert!(shown.contains(&indented), "{shown}");
    let trace = client.submit_and_wait(task("trace", "")).await.unwrap();
    for part in [
        "Traceback (most recent call last):\n",
        "\n…\n",
        "line 999, in handle\nValueError: no such currency",
    ] {
        assert!(trace.error.contains(part), "{part:?}: {}", trace.error);
    }
    assert!(trace.error.len() <= 4 << 10, "{}", trace.error.len());
}

async fn failures_are_logged_with_their_class_at_a_bounded_rate() {
    let node = Node::start(&[&loud()], "").await;
    let mut client = node.client();
    for (task_type, class) in [
        ("fail", "permanent"),
        ("again", "retryable"),
        ("equal", "trap"),
        ("spin", "timeout"),
    ] {
        let payload = if class == "trap" || class == "timeout" {
            ""
        } else {
            "why"
        };
        let ended = client
            .submit_and_wait(task(task_type, payload))
            .await
            .unwrap();
        let log = node.log();
        let line = log
            .lines()
            .find(|line| line.contains(&ended.task_id) && line.contains("class="));
        let line = line.unwrap_or_else(|| panic!("{task_type}: {log}"));
        for field in [
            format!("task_type={task_type}"),
            format!("class=\"{class}\""),
            "plugin=loud".into(),
            "attempt=1".into(),
        ] {
            assert!(line.contains(&field), "{field}: {line}");
        }
    }
    for _ in 0..50 {
        client.submit_and_wait(task("fail", "again")).await.unwrap();
    }
    let log = node.log();
    let lines = log.lines().filter(|line| line.contains("task_type=fail"));
    assert_eq!(lines.count(), 10, "{log}");
}

async fn rejected_messages_are_logged_at_a_bounded_rate() {
    let node = Node::start(&[&loud()], "").await;
    let mut client = node.client();
    for _ in 0..50 {
        let message = Message {
            to_node: "nowhere".into(),
            ..Message::default()
        };
        assert!(!client.send_message(message).await.unwrap().success);
    }
    let message = Message {
        to_node: "loud".into(),
        payload: "the component's own words".into(),
        reply_timeout_ms: 20_000,
        ..Message::default()
    };
    assert!(!client.send_message(message).await.unwrap().success);
    let log = node.log();
    let lines = log
        .lines()
        .filter(|line| line.contains("a message is refused"));
    let lines: Vec<_> = lines.collect();
    assert_eq!(lines.len(), 10, "{log}");
    assert!(
        lines[0].contains("to=nowhere") && lines[0].contains("class=\"no-receiver\""),
        "{log}"
    );
    let answered = "answered a message with an error: the component's own words";
    assert!(log.contains(answered), "{log}");
}

async fn a_permanent_component_error_fails_the_task_permanently() {
    let node = Node::start(&[&loud()], "").await;
    let mut client = node.client();
    let ended = client
        .submit_and_wait(task("ask", "permanent"))
        .await
        .unwrap();
    assert_eq!((&*ended.status, ended.attempts), ("failed", 1), "{ended:?}");
    assert_eq!(ended.error, "too old");
    let ended = client.submit_and_wait(task("ask", "other")).await.unwrap();
    assert_eq!((&*ended.status, ended.attempts), ("failed", 2), "{ended:?}");
}

async fn a_rejection_is_short_whatever_the_file_holds() {
    let imports: String = (0..10_000)
        .map(|n| format!("(import \"missing-{n}\" (func))"))
        .collect();
    let wasm = wat::parse_str(format!("(component {imports})")).unwrap();
    let node = Node::prepare(&[], "");
    node.add_wasm("greedy.wasm", &wasm);
    let node = node.started().await;
    let output = node.cli(&["plugins", "verify", "plugins/greedy.wasm"]);
    let output = String::from_utf8(output.stdout).unwrap();
    assert!(output.contains("imports missing-0"), "{output}");
    assert!(output.contains("and 9991 more errors"), "{output}");
    let listed = node.cli(&["plugins", "list"]).stdout;
    for (of, bytes) in [
        ("verify", output.len()),
        ("list", listed.len()),
        ("log", node.log().len()),
    ] {
        assert!(bytes < 8 << 10, "{of}: {bytes} bytes");
    }
}
