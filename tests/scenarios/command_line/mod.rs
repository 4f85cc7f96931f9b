//! The command line against a running node: the output and exit code of each command, on which scripts
//! rely.

mod demo;
mod files;
mod many;
mod options;
mod progress;
mod tasks;

use crate::support::{
    DEADLINE,
    backend::{Backend, Shared, on_both, on_both_needing},
    eventually,
    node::{self, Node, hostel},
    plugins::{built, can_build, hostile, showcase, source, write_crate},
    trial, trial_needing,
};
use hostel::plugin::TestGuest;
use libtest_mimic::Trial;
use serde_json::Value;
use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

pub fn trials() -> Vec<Trial> {
    let about_tasks = [
        on_both("command_line::submit", tasks::submit),
        on_both("command_line::submit_that_fails", tasks::submit_that_fails),
        on_both("command_line::tasks", tasks::tasks),
        on_both("command_line::submit_many", many::submit_many),
        on_both("command_line::progress", progress::progress),
        on_both_needing(
            "command_line::submit_with_options",
            true,
            options::submit_with_options,
        ),
    ];
    let others = vec![
        trial(
            "command_line::submit_many_that_fails",
            many::submit_many_that_fails,
        ),
        trial("command_line::plugins_of_a_node", files::plugins_of_a_node),
        trial("command_line::plugin_files", files::plugin_files),
        trial_needing(
            "command_line::verify_reports_all_errors_of_a_file",
            true,
            files::verify_reports_all_errors,
        ),
        trial_needing(
            "command_line::file_extensions_are_case_insensitive",
            true,
            files::file_extensions_are_case_insensitive,
        ),
        trial(
            "command_line::build_installs_only_acceptable_plugins",
            files::build_installs_only_acceptable_plugins,
        ),
        trial(
            "command_line::build_checks_a_plugin_under_the_limits_of_its_name",
            files::build_checks_a_plugin_under_the_limits_of_its_name,
        ),
        trial_needing("command_line::verify_self", true, files::verify_self),
        trial_needing("command_line::config", true, files::config),
        trial_needing(
            "command_line::demo_cluster",
            can_build() && Shared::is_installed(),
            demo::cluster,
        ),
        trial_needing(
            "command_line::demo_cluster_killed",
            cfg!(target_os = "linux") && can_build() && Shared::is_installed(),
            demo::cluster_killed,
        ),
        trial_needing(
            "command_line::demo_cluster_without_servers",
            true,
            demo::cluster_without_servers,
        ),
        trial_needing("command_line::usage", true, usage),
        trial_needing("command_line::colours", has_script(), colours),
        trial_needing("command_line::serve", true, serve),
        trial_needing(
            "command_line::a_changed_configuration_file_is_logged",
            true,
            changed_configuration_file,
        ),
    ];
    about_tasks.into_iter().flatten().chain(others).collect()
}

/// The exit code and output of a command.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    out: Vec<u8>,
    err: String,
}

fn run(command: &mut Command) -> Ran {
    Ran::from(command.output().expect("hostel runs"))
}

impl From<std::process::Output> for Ran {
    fn from(output: std::process::Output) -> Self {
        Self {
            code: output.status.code(),
            out: output.stdout,
            err: String::from_utf8(output.stderr).expect("text"),
        }
    }
}

impl Ran {
    /// Returns stdout. Panics unless the command succeeded without output on stderr.
    fn bytes(self) -> Vec<u8> {
        assert_eq!(self.code, Some(0), "{}", self.err);
        assert_eq!(self.err, "");
        self.out
    }

    fn text(self) -> String {
        String::from_utf8(self.bytes()).expect("text")
    }

    fn json(self) -> Value {
        serde_json::from_slice(&self.bytes()).expect("only JSON")
    }

    /// Checks that the command failed with `code` and `words` on stderr, and with no stdout.
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
        Ran::from(self.cli(arguments))
    }
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
        &["tasks", "explain"],
        &["tasks", "watch"],
        &["tasks", "cancel"],
        &["tasks", "requeue"],
        &["tasks", "purge"],
        &["tasks", "set-priority"],
        &["tasks", "run-now"],
        &["types"],
        &["types", "pause"],
        &["types", "resume"],
        &["types", "list-paused"],
        &["plugins"],
        &["plugins", "list"],
        &["plugins", "inspect"],
        &["plugins", "verify"],
        &["plugins", "build"],
        &["nodes"],
        &["nodes", "list"],
        &["nodes", "drain"],
        &["nodes", "undrain"],
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

    // A reader that has gone causes neither a panic nor an error.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut show = self::hostel();
    let output = show
        .args(["config", "show"])
        .stdout(writer)
        .stderr(Stdio::piped());
    let output = output.spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    // Any other failed write is an error.
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut show = self::hostel();
    let output = show
        .args(["config", "show"])
        .stdout(full)
        .stderr(Stdio::piped());
    let output = Ran::from(output.spawn().unwrap().wait_with_output().unwrap());
    output.fails(1, "cannot write the output");
}

/// Whether commands can be run on a terminal, with `script`.
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
            &format!("{} sumbit", node::binary().display()),
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
    node.add_wasm("sample.wasm", &TestGuest::default().wasm().unwrap());
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

    // If the ports file cannot be written, the node reports that and ends.
    let dir = tempfile::tempdir().unwrap();
    let mut command = hostel();
    command
        .current_dir(dir.path())
        .args(["serve", "--ports-file", "no/such/dir/ports"]);
    command
        .env("HOSTEL__NODE__LISTEN", "127.0.0.1:0")
        .env("HOSTEL__NODE__DATA_DIR", "data");
    let output = tokio::task::spawn_blocking(move || run(&mut command));
    let output = tokio::time::timeout(DEADLINE, output)
        .await
        .expect("the node ends")
        .unwrap();
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.err.contains("(--ports-file)"), "{output:?}");
    assert!(Path::new(&dir.path().join("data")).is_dir());
}

/// A change of the file is logged and not applied.
async fn changed_configuration_file() {
    let node = Node::prepare(&[], "[plugin.sample.config]\nbase = \"EUR\"\n");
    let node = node.started().await;
    assert!(!node.log().contains("has changed"), "{}", node.log());
    let file = node.path("hostel.toml");
    let text = fs::read_to_string(&file).unwrap().replace("EUR", "USD");
    fs::write(&file, text).unwrap();
    eventually("the change is logged", || async {
        let output = node
            .log()
            .contains("hostel.toml has changed; this node still uses");
        output.then_some(())
    })
    .await;
    assert!(!node.log().contains("USD"), "{}", node.log());
}
