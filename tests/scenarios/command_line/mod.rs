//! The command line against a served node: what each command prints, to whom, and with which exit
//! code, as scripts rely on it.

mod demo;
mod files;
mod tasks;

use crate::support::{
    DEADLINE,
    backend::{Backend, Shared, on_both},
    eventually,
    node::{Node, hostel},
    plugins::{built, can_build, hostile, showcase, source, write_crate},
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
    let about_tasks = [
        on_both("command_line::submit", tasks::submit),
        on_both("command_line::submit_that_fails", tasks::submit_that_fails),
        on_both("command_line::tasks", tasks::tasks),
    ];
    let others = vec![
        trial("command_line::plugins_of_a_node", files::plugins_of_a_node),
        trial("command_line::plugin_files", files::plugin_files),
        trial_needing(
            "command_line::verify_tells_every_fault_of_a_file",
            true,
            files::every_fault_of_a_file,
        ),
        trial_needing(
            "command_line::a_file_in_capitals_is_a_plugin",
            true,
            files::a_file_in_capitals,
        ),
        trial(
            "command_line::build_puts_what_a_node_takes",
            files::build_puts_what_a_node_takes,
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
            "command_line::an_edited_configuration_is_told",
            true,
            edited_configuration,
        ),
    ];
    about_tasks.into_iter().flatten().chain(others).collect()
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
    // And what cannot be written is no success.
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut show = self::hostel();
    let told = show
        .args(["config", "show"])
        .stdout(full)
        .stderr(Stdio::piped());
    let told = ran(told.spawn().unwrap().wait_with_output().unwrap());
    told.fails(1, "cannot write the output");
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
    let told = tokio::time::timeout(DEADLINE, told)
        .await
        .expect("it ends")
        .unwrap();
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.err.contains("(--ports-file)"), "{told:?}");
    assert!(Path::new(&dir.path().join("data")).is_dir());
}

/// What is edited is not in force, and the log says so.
async fn edited_configuration() {
    let node = Node::prepare(&[], "[plugin.sample.config]\nbase = \"EUR\"\n");
    let node = node.started().await;
    assert!(!node.log().contains("has changed"), "{}", node.log());
    let file = node.path("hostel.toml");
    let text = fs::read_to_string(&file).unwrap().replace("EUR", "USD");
    fs::write(&file, text).unwrap();
    eventually("the change is told", || async {
        let told = node
            .log()
            .contains("hostel.toml has changed, and this node goes on");
        told.then_some(())
    })
    .await;
    assert!(!node.log().contains("USD"), "{}", node.log());
}
