//! Signals have the same effect at any time in the life of a node.

use crate::support::{
    DEADLINE,
    certificates::Authority,
    eventually,
    node::{Node, hostel},
    plugins::guest,
    task, trial_needing,
};
use hostel::{
    ClientOptions, DistributedClient,
    config::TokenHash,
    plugin::{TestGuest, test_guest},
};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
    time::Duration,
};
use tokio::{net::TcpListener, time::timeout};

pub fn trials() -> Vec<Trial> {
    vec![
        trial_needing(
            "signals::sighup_reloads_tokens_and_reports_the_rest",
            true,
            sighup_reloads_tokens_and_reports_the_rest,
        ),
        trial_needing(
            "signals::sigterm_sigint_and_sigquit_drain",
            true,
            sigterm_sigint_and_sigquit_drain,
        ),
        trial_needing(
            "signals::a_second_signal_ends_the_node_at_once",
            true,
            a_second_signal_ends_the_node_at_once,
        ),
        trial_needing(
            "signals::sighup_says_when_files_cannot_be_read",
            true,
            sighup_says_when_files_cannot_be_read,
        ),
        trial_needing(
            "signals::a_node_outlives_the_reader_of_its_log",
            true,
            a_node_outlives_the_reader_of_its_log,
        ),
        trial_needing(
            "signals::a_waiting_start_can_be_ended",
            true,
            a_waiting_start_can_be_ended,
        ),
    ]
}

fn token(name: &str, token: &str) -> String {
    let hash = TokenHash::of(token.as_bytes());
    format!("[auth.token.{name}]\nsha256 = \"{hash}\"\n")
}

async fn sighup_reloads_tokens_and_reports_the_rest() {
    let settings = format!("[limits]\nmax_services = 5\n{}", token("ann", "first"));
    let mut node = Node::start(&[], &settings).await;
    let lets_in = async |node: &Node, token: &str| {
        let options = ClientOptions::new().token(token);
        let client = DistributedClient::connect_with(node.address(), options).await;
        let client = client.unwrap().with_retry_timeout(Duration::ZERO);
        client.clone().list_plugins().await.is_ok()
    };
    assert!(lets_in(&node, "first").await);

    // A token in the configuration, and a setting that cannot change in a running node.
    node.edit_config(|config| {
        *config = config.replace(&token("ann", "first"), &token("bob", "second"));
        *config = config.replace("max_services = 5", "max_services = 6");
    });
    node.signal(Signal::HUP);
    eventually("the new token is accepted", async || {
        lets_in(&node, "second").await.then_some(())
    })
    .await;
    assert!(!lets_in(&node, "first").await);
    let waits = "need a restart: limits.max_services\n";
    eventually("the log names the unchanged setting", async || {
        node.log().contains(waits).then_some(())
    })
    .await;

    // An invalid configuration changes nothing.
    fs::write(node.path("hostel.toml"), "[limits]\nmax_services = \"x\"").unwrap();
    node.signal(Signal::HUP);
    eventually("the log reports it", async || {
        node.log()
            .contains("SIGHUP: the configuration is not reloaded")
            .then_some(())
    })
    .await;
    assert!(lets_in(&node, "second").await);
    assert!(node.terminate().await.success());
}

async fn sigterm_sigint_and_sigquit_drain() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let mut node = Node::start(&[], "").await;
        node.signal(signal);
        let status = node.wait_for_exit().await;
        assert_eq!(status.code(), Some(0), "{signal:?}: {}", node.log());
        assert!(
            node.log().contains("stopping; a second signal"),
            "{signal:?}"
        );
    }
}

async fn a_second_signal_ends_the_node_at_once() {
    let mut node = Node::prepare(&[], "");
    node.set_in("plugin.spins.limits", "max_cpu_ms = 600000");
    node.set_in("plugin.spins.task.spins", "timeout_ms = 600000");
    let spins = guest(&TestGuest {
        name: "spins",
        task_types: &["spins"],
        handle: test_guest::SPIN,
        ..TestGuest::default()
    });
    node.add_wasm("spins.wasm", &spins);
    let mut node = node.started().await;
    let mut client = node.client();
    let id = client.submit_task(task("spins", "")).await.unwrap();
    eventually("the task runs", async || {
        let status = client.clone().get_task_status(&id).await.unwrap();
        (status.status == "running").then_some(())
    })
    .await;
    node.signal(Signal::TERM);
    eventually("the node stops", async || {
        node.log()
            .contains("stopping; a second signal")
            .then_some(())
    })
    .await;
    node.signal(Signal::INT);
    let status = node.wait_for_exit().await;
    assert_eq!(status.code(), Some(130), "{}", node.log());
}

async fn sighup_says_when_files_cannot_be_read() {
    let authority = Authority::new("ca");
    let settings = "[tls]\ncert_file = \"node.pem\"\nkey_file = \"node.key\"\n";
    let node = Node::prepare(&[], settings);
    authority.node(&["127.0.0.1"]).write(&node.path(""), "node");
    let mut node = node.started().await;
    node.edit_config(|config| *config = config.replace("node.pem", "gone.pem"));
    node.signal(Signal::HUP);
    eventually("the log says what to do", async || {
        let words = "files of [tls] cannot be read, and what was read before stays in force";
        node.log().contains(words).then_some(())
    })
    .await;
    let log = node.log();
    assert!(!log.contains("need a restart"), "{log}");
    assert!(!log.contains("the configuration is reloaded"), "{log}");
    assert!(node.terminate().await.success());
}

/// Lines that cannot be written are dropped.
async fn a_node_outlives_the_reader_of_its_log() {
    let node = Node::prepare(&[], "");
    node.write_config();
    let mut process = hostel()
        .current_dir(node.path(""))
        .args(["serve", "--config", "hostel.toml"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(process.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("serving on") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "the node has ended");
    }
    drop(log);
    let pid = Pid::from_child(&process);
    // Each is answered with a line.
    kill_process(pid, Signal::HUP).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let status = tokio::task::spawn_blocking(move || process.wait()).await;
    assert_eq!(status.unwrap().unwrap().code(), Some(0));
}

/// The start waits for a Redis that accepts connections without an answer.
async fn a_waiting_start_can_be_ended() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let settings = format!("[queue]\nkind = \"redis\"\nurl = \"redis://{address}\"\n");
    let mut node = Node::prepare(&[], &settings);
    node.spawn();
    let _silent = timeout(DEADLINE, listener.accept()).await.unwrap().unwrap();
    // The default action of these signals would end the process at once.
    node.signal(Signal::HUP);
    node.signal(Signal::TERM);
    let status = node.wait_for_exit().await;
    assert_eq!(status.code(), Some(0), "{}", node.log());
    let log = node.log();
    assert!(
        log.contains("stopped before the start was complete"),
        "{log}"
    );
}
