//! The progress of a task in `hostel submit --wait` and `hostel tasks get`.

use super::*;
use crate::scenarios::progress::{LONG_GRACE, has_reported, reporter};
use std::{path::PathBuf, process::Child};

/// A command whose output goes to files.
struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    fn start(node: &Node, mut command: Command, name: &str) -> Self {
        let [out, err] = ["out", "err"].map(|end| node.path(&format!("{name}.{end}")));
        let child = command
            .current_dir(node.path(""))
            .env("HOSTEL_SERVER", node.address())
            .stdin(Stdio::null())
            .stdout(fs::File::create(&out).unwrap())
            .stderr(fs::File::create(&err).unwrap())
            .spawn()
            .unwrap();
        Self { child, out, err }
    }

    /// Waits until this text is in the output.
    async fn shows(&self, file: &Path, text: &str) {
        eventually(text, async || {
            let shown = fs::read(file).unwrap();
            String::from_utf8_lossy(&shown).contains(text).then_some(())
        })
        .await;
    }

    /// Waits for the end of the command, and returns what it printed.
    async fn end(mut self) -> Ran {
        let code = eventually("the command ends", || {
            let status = self.child.try_wait().unwrap();
            std::future::ready(status)
        });
        let code = code.await.code();
        Ran {
            code,
            out: fs::read(&self.out).unwrap(),
            err: fs::read_to_string(&self.err).unwrap(),
        }
    }
}

/// A note that would change the colours of a terminal, and how it is printed.
const NOTE: &str = "rows \u{1b}[31m";
const SHOWN: &str = "3 of 10: rows \\u{1b}[31m";

pub async fn progress(on: Backend) {
    let node = on
        .start(&[&reporter(), &showcase("echo")], LONG_GRACE)
        .await;
    let mut client = node.client();
    let submit = ["submit", "hold", "--payload", NOTE, "--id"];
    node.hostel(&[&submit[..], &["a"]].concat()).text();
    has_reported(&client, "a").await;

    let shown = node.hostel(&["tasks", "get", "a"]).text();
    let line = format!("progress         {SHOWN}\n");
    assert!(shown.contains(&line), "{shown}");
    let json = node.hostel(&["tasks", "get", "a", "--json"]).json();
    let progress = serde_json::json!({"done": 3, "total": 10, "note": NOTE});
    assert_eq!(json["progress"], progress);
    let listed = node.hostel(&["tasks", "list", "--json"]).json();
    assert_eq!(listed[0]["progress"], progress);
    // A task without progress has none.
    let echo = ["submit", "echo", "--payload", "x", "--id", "e", "--wait"];
    assert_eq!(node.hostel(&echo).bytes(), b"x");
    let json = node.hostel(&["tasks", "get", "e", "--json"]).json();
    assert_eq!(json["progress"], Value::Null);
    let shown = node.hostel(&["tasks", "get", "e", "--wait"]).text();
    assert!(!shown.contains("progress"), "{shown}");

    // Without a terminal, it is a line on stderr.
    let mut command = hostel();
    command.args(["tasks", "get", "a", "--wait"]);
    let waiting = Running::start(&node, command, "get");
    let line = format!("hostel: task a: {SHOWN}\n");
    waiting.shows(&waiting.err, &line).await;
    client.cancel_task("a").await.unwrap();
    let ended = waiting.end().await;
    assert_eq!((ended.code, &*ended.err), (Some(0), &*line));
    let shown = String::from_utf8(ended.out).unwrap();
    assert!(shown.contains("status           completed\n"), "{shown}");

    // On a terminal, it is a bar.
    if has_script() {
        let hostel = node::binary().display();
        let command = format!("{hostel} submit hold --payload '{NOTE}' --id b --wait");
        let mut script = Command::new("script");
        script
            .args(["-qefc", &command, "/dev/null"])
            .env("TERM", "xterm")
            .env("NO_COLOR", "1");
        let waiting = Running::start(&node, script, "bar");
        waiting.shows(&waiting.out, "30% ").await;
        waiting.shows(&waiting.out, SHOWN).await;
        client.cancel_task("b").await.unwrap();
        let ended = waiting.end().await;
        let shown = String::from_utf8(ended.out).unwrap();
        assert_eq!(ended.code, Some(0), "{shown:?}");
        assert!(shown.ends_with("stopped\r\n"), "{shown:?}");
        assert!(!shown.contains("\u{1b}[31m"), "{shown:?}");
    }
}
