//! Signals have the same effect at any time in the life of a node.

use crate::support::{DEADLINE, eventually, node::Node, trial_needing};
use hostel::{ClientOptions, DistributedClient, config::TokenHash};
use libtest_mimic::Trial;
use rustix::process::Signal;
use std::{fs, time::Duration};
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
