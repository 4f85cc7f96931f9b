//! The command line against a served node: what each command prints, to whom, and with which exit
//! code, as scripts rely on it.

use crate::support::{
    PATIENCE, eventually,
    node::{Node, hostel},
    plugins::{built, hostile, showcase, source},
    trial, trial_needing,
};
use hostel::plugin::Sample;
use libtest_mimic::Trial;
use serde_json::Value;
use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("command_line::submit", submit),
        trial("command_line::submit_that_fails", submit_that_fails),
        trial("command_line::tasks", tasks),
        trial("command_line::plugins_of_a_node", plugins_of_a_node),
        trial("command_line::plugin_files", plugin_files),
        trial_needing("command_line::verify_self", true, verify_self),
        trial_needing("command_line::config", true, config),
        trial_needing("command_line::usage", true, usage),
        trial_needing("command_line::colours", has_script(), colours),
        trial_needing("command_line::serve", true, serve),
    ]
}

/// What a command did.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    out: Vec<u8>,
    err: String,
}

fn run(command: &mut Command) -> Ran {
    ran(command.output().expect("hostel runs"))
}

fn ran(output: std::process::Output) -> Ran {
    Ran {
        code: output.status.code(),
        out: output.stdout,
        err: String::from_utf8(output.stderr).expect("text"),
    }
}

impl Ran {
    /// Its output, after a success that said nothing else.
    fn bytes(self) -> Vec<u8> {
        assert_eq!(self.code, Some(0), "{}", self.err);
        assert_eq!(self.err, "");
        self.out
    }

    fn text(self) -> String {
        String::from_utf8(self.bytes()).expect("text")
    }

    fn json(self) -> Value {
        serde_json::from_slice(&self.bytes()).expect("JSON and nothing else")
    }

    /// A failure of this kind, with nothing on stdout.
    fn fails(self, code: i32, words: &str) {
        assert_eq!(self.code, Some(code), "{words}: {}", self.err);
        assert!(self.err.contains(words), "{words}: {}", self.err);
        assert!(!self.err.contains("thread 'main'"), "{}", self.err);
        assert!(self.out.is_empty(), "{words}: {:?}", self.out);
    }
}

trait Cli {
    fn hostel(&self, arguments: &[&str]) -> Ran;
}

impl Cli for Node {
    fn hostel(&self, arguments: &[&str]) -> Ran {
        ran(self.cli(arguments))
    }
}

/// Bytes of every kind, with an end that no line has.
fn binary() -> Vec<u8> {
    (0..=255_u8).cycle().take(100_000).collect()
}

async fn submit() {
    let node = Node::start(&[&showcase("echo"), &showcase("thumbnail")], "").await;
    let hostel = |arguments: &[&str]| node.hostel(arguments);

    let id = hostel(&["submit", "echo", "--payload", "over"]).text();
    assert!(id.ends_with('\n') && id.trim().len() == 36, "{id:?}");
    let named = ["submit", "echo", "--payload", "over", "--id", "my:1"];
    assert_eq!(hostel(&named).text(), "my:1\n");
    // The id is the idempotency key, here too.
    assert_eq!(hostel(&named).text(), "my:1\n");
    let waited = hostel(&["submit", "echo", "--payload", "over", "--wait"]);
    assert_eq!(waited.bytes(), b"over");
    assert_eq!(hostel(&["submit", "echo", "--wait"]).bytes(), b"");

    fs::write(node.path("binary"), binary()).unwrap();
    let from_file = hostel(&["submit", "echo", "--file", "binary", "--wait"]);
    assert!(from_file.bytes() == binary(), "not byte for byte");
    let piped = through_stdin(&node, &["submit", "echo", "-", "--wait"], &binary());
    assert!(piped.bytes() == binary(), "not byte for byte");

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

    // --server wins over HOSTEL_SERVER, with and without the scheme.
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

fn through_stdin(node: &Node, arguments: &[&str], input: &[u8]) -> Ran {
    let mut child = hostel()
        .env("HOSTEL_SERVER", node.address())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    ran(child.wait_with_output().unwrap())
}

async fn submit_that_fails() {
    let node = Node::start(&[&showcase("text"), &hostile()], "").await;
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
    // Without --wait its failure is not the submission's.
    hostel(&["submit", "panic"]).text();

    hostel(&["submit", "nothing"]).fails(4, "known task types: exit, grow");
    hostel(&["submit", "word-count", "--payload", "other", "--id", "a"])
        .fails(4, "another task, with other content, has the id a");
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

    // Cancelled from elsewhere while somebody waits.
    let waiting = self::hostel()
        .env("HOSTEL_SERVER", node.address())
        .args(["submit", "sleep", "--wait", "--id", "slow"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("it is there to be cancelled", || async {
        (hostel(&["tasks", "cancel", "slow"]).code == Some(0)).then_some(())
    })
    .await;
    ran(waiting.wait_with_output().unwrap()).fails(1, "task slow cancelled");
}

async fn tasks() {
    let settings = "[plugin.hostel-test-guests.task.sleep]\ntimeout_ms = 600000";
    let node = Node::start(&[&showcase("echo"), &hostile()], settings).await;
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

    let told = hostel(&["tasks", "cancel", "a"]).text();
    assert_eq!(told, "not cancelled: it had ended before (completed)\n");
    hostel(&["tasks", "cancel", "nobody"]).fails(4, "no task has the id nobody");
    let told = hostel(&["tasks", "cancel", "d"]).text();
    assert!(
        told == "cancelled\n" || told.starts_with("asked: "),
        "{told}"
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

async fn plugins_of_a_node() {
    let node = Node::prepare(&[&showcase("echo"), &showcase("text")], "");
    node.add_wasm("rubbish.wasm", b"rubbish");
    let node = node.started().await;
    let listed = node.hostel(&["plugins", "list"]).text();
    assert!(listed.starts_with("PLUGIN  VERSION  TASK TYPE"), "{listed}");
    for row in ["echo    0.1.0    echo", "text    0.1.0    word-count  5"] {
        assert!(listed.contains(row), "{row}: {listed}");
    }
    assert!(
        listed.contains("refused: rubbish.wasm: is not WebAssembly"),
        "{listed}"
    );
    let listed = node.hostel(&["plugins", "list", "--json"]).json();
    assert_eq!(listed["plugins"][1]["task_types"][0]["name"], "word-count");
    assert_eq!(listed["plugins"][1]["task_types"][0]["timeout_ms"], 30_000);
    assert_eq!(listed["plugins"][0]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(listed["rejected"][0]["file"], "rubbish.wasm");
    node.hostel(&["plugins", "list", "--server", "127.0.0.1:1"])
        .fails(3, "no node answers");
}

async fn plugin_files() {
    let dir = tempfile::tempdir().unwrap();
    let hostel = |arguments: &[&str]| run(hostel().current_dir(dir.path()).args(arguments));
    let bad = Sample {
        interface: "0.2.0",
        ..Sample::default()
    };
    fs::write(dir.path().join("bad.wasm"), bad.wasm().unwrap()).unwrap();
    let echo = showcase("echo");
    let echo = echo.to_str().unwrap();

    let told = hostel(&["plugins", "inspect", echo]).text();
    assert!(told.starts_with("echo 0.1.0: "), "{told}");
    assert!(told.contains("handles echo: 5 attempts"), "{told}");
    assert!(
        told.contains("exports hostel:plugin/task-handler@0.1.0\n"),
        "{told}"
    );
    let told = hostel(&["plugins", "inspect", echo, "--json"]).json();
    assert_eq!(told["plugin"]["task_types"][0]["name"], "echo");
    assert_eq!(told["faults"], Value::Array(Vec::new()));
    let words = "exports hostel:plugin/manifest@0.2.0, which this node does not know";
    for arguments in [
        &["inspect", "bad.wasm"][..],
        &["verify", "bad.wasm"],
        &["inspect", "bad.wasm", "--json"],
    ] {
        let told = hostel(&[&["plugins"], arguments].concat());
        assert_eq!(told.code, Some(1), "{told:?}");
        assert!(
            String::from_utf8_lossy(&told.out).contains(words),
            "{told:?}"
        );
        assert!(told.err.contains("a node would refuse"), "{told:?}");
    }
    let told = hostel(&["plugins", "verify", echo]).text();
    assert_eq!(told, format!("{echo}: no faults\n"));
    hostel(&["plugins", "inspect", "none.wasm"]).fails(1, "none.wasm cannot be read");
    hostel(&["plugins", "verify"]).fails(2, "<FILE>");
    hostel(&["plugins", "verify", echo, "--self"]).fails(2, "cannot be used with");

    let out = dir.path().join("out");
    let mut build = self::hostel();
    build
        .args(["plugins", "build"])
        .arg(source().join("plugins/echo"));
    build
        .arg("--out")
        .arg(&out)
        .env("CARGO_TARGET_DIR", source().join("target"));
    let told = run(&mut build);
    assert_eq!(told.code, Some(0), "{}", told.err);
    let file = out.join("echo.wasm");
    assert_eq!(
        String::from_utf8(told.out).unwrap(),
        format!("{}\n", file.display())
    );
    assert!(fs::read(file).unwrap() == fs::read(built().join("echo.wasm")).unwrap());
    hostel(&["plugins", "build", "nowhere"]).fails(1, "nowhere");
    // Nothing of this leaves anything behind.
    let left: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|x| x.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

async fn verify_self() {
    let dir = tempfile::tempdir().unwrap();
    let hostel = |key: &str, value: &str| {
        let mut command = hostel();
        command.current_dir(dir.path()).env(key, value);
        run(command.args(["plugins", "verify", "--self"]))
    };
    let told = hostel("HOSTEL__PLUGINS__SANDBOX__MAX_MEMORY_BYTES", "16777216").text();
    assert!(told.lines().count() > 9, "{told}");
    assert!(!told.contains("FAILS"), "{told}");
    for setting in [
        "timeout_ms",
        "max_cpu_ms",
        "max_memory_bytes",
        "max_table_elements",
        "max_result_bytes",
        "max_log_bytes",
    ] {
        assert!(
            told.contains(&format!("plugins.sandbox.{setting}")),
            "{setting}: {told}"
        );
    }
    // Under the configuration that was given.
    assert!(
        told.contains("more than 16777216 bytes of memory"),
        "{told}"
    );
    hostel("HOSTEL__PLUGINS__SANDBOX__MAX_MEMORY_BYTES", "much").fails(2, "MAX_MEMORY_BYTES");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

async fn config() {
    let dir = tempfile::tempdir().unwrap();
    let hostel = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = hostel();
        command
            .current_dir(dir.path())
            .env("XDG_CONFIG_HOME", dir.path());
        run(command.args(arguments).envs(variables.iter().copied()))
    };
    let write = |text: &str| fs::write(dir.path().join("hostel.toml"), text).unwrap();
    let listen = [("HOSTEL__NODE__LISTEN", "127.0.0.1:7")];
    assert_eq!(hostel(&["config", "check"], &[]).text(), "no faults\n");
    let shown = hostel(&["config", "show"], &listen).text();
    assert!(shown.contains("listen = \"127.0.0.1:7\"\n"), "{shown}");
    assert!(
        shown.contains("# The payload of a task or a message."),
        "{shown}"
    );
    // What is shown loads again, to the same; the variable is part of it now.
    write(&shown);
    assert_eq!(hostel(&["config", "check"], &[]).text(), "no faults\n");
    assert_eq!(hostel(&["config", "show"], &[]).text(), shown);
    assert_eq!(
        hostel(&["config", "show", "--config", "hostel.toml"], &[]).text(),
        shown
    );

    write(
        "[node]\nlsiten = \"x\"\ndrain_ms = \"30s\"\n[limits]\nmax_wait_ms = 99999999\n\
        [queue]\nkind = \"sqlight\"\n[plugin.\"a b\".limits]\nmax_cpu_ms = 10\n",
    );
    let variable = [("HOSTEL__LIMITS__MAX_SERVICES", "many")];
    for arguments in [&["config", "check"][..], &["config", "show"], &["serve"]] {
        let told = hostel(arguments, &variable);
        for words in [
            "6 faults in hostel.toml and the environment:",
            "hostel.toml:2:1: node.lsiten: no such setting; did you mean listen?",
            "hostel.toml:3:12: node.drain_ms:",
            "hostel.toml:5:15: limits.max_wait_ms:",
            "hostel.toml:7:8: queue.kind:",
            "hostel.toml:8:9: plugin.a b:",
            "HOSTEL__LIMITS__MAX_SERVICES: limits.max_services:",
        ] {
            assert!(told.err.contains(words), "{words}: {}", told.err);
        }
        told.fails(2, "6 faults");
    }
    write("[node\n");
    hostel(&["config", "check"], &[]).fails(2, "hostel.toml:1:");
    fs::write(dir.path().join("hostel.toml"), b"[node]\nid = \"\xff\"").unwrap();
    hostel(&["config", "check"], &[]).fails(2, "line 2 is not UTF-8");
    hostel(&["config", "check", "--config", "none.toml"], &[]).fails(2, "none.toml");
}

async fn usage() {
    let hostel = |arguments: &[&str]| run(hostel().args(arguments));
    for command in [
        &[][..],
        &["serve"],
        &["demo"],
        &["submit"],
        &["tasks"],
        &["tasks", "get"],
        &["tasks", "list"],
        &["tasks", "cancel"],
        &["tasks", "requeue"],
        &["plugins"],
        &["plugins", "list"],
        &["plugins", "inspect"],
        &["plugins", "verify"],
        &["plugins", "build"],
        &["config"],
        &["config", "show"],
        &["config", "check"],
    ] {
        let help = hostel(&[command, &["--help"]].concat()).text();
        let usage = format!("Usage: {}", [&["hostel"], command].concat().join(" "));
        assert!(help.contains(&usage), "{usage}: {help}");
    }
    let help = hostel(&["--help"]).text();
    for words in [
        "Exit codes:",
        "HOSTEL_SERVER",
        "HOSTEL__SECTION__KEY",
        "NO_COLOR",
    ] {
        assert!(help.contains(words), "{words}: {help}");
    }
    assert_eq!(
        hostel(&["--version"]).text(),
        format!("hostel {}\n", env!("CARGO_PKG_VERSION"))
    );
    hostel(&[]).fails(2, "Usage: hostel");
    hostel(&["tasks"]).fails(2, "Usage: hostel tasks");
    hostel(&["sumbit"]).fails(2, "'submit'");

    // Whoever reads stops reading: no panic, no noise.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut show = self::hostel();
    let told = show
        .args(["config", "show"])
        .stdout(writer)
        .stderr(Stdio::piped());
    let told = told.spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&told.stderr), "");
}

/// Whether there is a way to give a command a terminal.
fn has_script() -> bool {
    Command::new("script")
        .arg("--version")
        .output()
        .is_ok_and(|out| out.status.success())
}

async fn colours() {
    let on_terminal = |no_color: bool| {
        let mut script = Command::new("script");
        script.args([
            "-qec",
            &format!("{} sumbit", env!("CARGO_BIN_EXE_hostel")),
            "/dev/null",
        ]);
        script
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .stdin(Stdio::null());
        if no_color {
            script.env("NO_COLOR", "1");
        }
        let out = script.output().unwrap();
        assert_eq!(out.status.code(), Some(2));
        String::from_utf8(out.stdout).unwrap()
    };
    assert!(
        on_terminal(false).contains("\u{1b}["),
        "no colours on a terminal"
    );
    assert!(
        !on_terminal(true).contains("\u{1b}["),
        "colours despite NO_COLOR"
    );
}

async fn serve() {
    let mut node = Node::prepare(&[], "");
    node.add_wasm("sample.wasm", &Sample::default().wasm().unwrap());
    node.restart().await;
    let ports = fs::read(node.path("ports.json")).unwrap();
    let ports: Value = serde_json::from_slice(&ports).unwrap();
    assert_eq!(
        (&ports["grpc"], &ports["node_id"]),
        (&node.address().into(), &"test".into())
    );
    assert!(!node.address().ends_with(":0"));
    assert_eq!(
        node.hostel(&["submit", "sample", "--payload", "x", "--wait"])
            .bytes(),
        b"x"
    );
    assert!(!node.log().contains('\u{1b}'));
    assert!(node.terminate().await.success());
    assert!(node.log().contains("stopping"));

    // A place where the ports cannot be written is said, and nothing keeps running.
    let dir = tempfile::tempdir().unwrap();
    let mut command = hostel();
    command
        .current_dir(dir.path())
        .args(["serve", "--ports-file", "no/such/dir/ports"]);
    command
        .env("HOSTEL__NODE__LISTEN", "127.0.0.1:0")
        .env("HOSTEL__NODE__DATA_DIR", "data");
    let told = tokio::task::spawn_blocking(move || run(&mut command));
    let told = tokio::time::timeout(PATIENCE, told)
        .await
        .expect("it ends")
        .unwrap();
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.err.contains("(--ports-file)"), "{told:?}");
    assert!(Path::new(&dir.path().join("data")).is_dir());
}
