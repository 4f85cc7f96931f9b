//! What a node does when it is sent a signal: at any moment of its life the same.

use crate::support::{PATIENCE, eventually, node::Node, trial_needing};
use hostel::{ClientOptions, DistributedClient, config::TokenHash};
use libtest_mimic::Trial;
use rustix::process::Signal;
use std::{fs, time::Duration};
use tokio::{net::TcpListener, time::timeout};

pub fn trials() -> Vec<Trial> {
    vec![
        trial_needing("signals::hangup_reads_again_what_can_be", true, hangup),
        trial_needing("signals::each_of_three_drains", true, drains),
        trial_needing("signals::are_heard_while_a_start_waits", true, early),
    ]
}

fn token(name: &str, token: &str) -> String {
    let hash = TokenHash::of(token.as_bytes());
    format!("[auth.token.{name}]\nsha256 = \"{hash}\"\n")
}

async fn hangup() {
    let settings = format!("[limits]\nmax_services = 5\n{}", token("ann", "first"));
    let mut node = Node::start(&[], &settings).await;
    let lets_in = async |node: &Node, token: &str| {
        let options = ClientOptions::new().token(token);
        let client = DistributedClient::connect_with(node.address(), options).await;
        let client = client.unwrap().with_patience(Duration::ZERO);
        client.clone().list_plugins().await.is_ok()
    };
    assert!(lets_in(&node, "first").await);

    // A token of the configuration itself, and something that cannot change in a node that runs.
    node.rewrite_config(|config| {
        *config = config.replace(&token("ann", "first"), &token("bob", "second"));
        *config = config.replace("max_services = 5", "max_services = 6");
    });
    node.signal(Signal::HUP);
    eventually("the new token is known", async || {
        lets_in(&node, "second").await.then_some(())
    })
    .await;
    assert!(!lets_in(&node, "first").await);
    let waits = "wait for the next start: limits.max_services\n";
    eventually("the log names the other setting", async || {
        node.log().contains(waits).then_some(())
    })
    .await;

    // What cannot be read changes nothing.
    fs::write(node.path("hostel.toml"), "[limits]\nmax_services = \"x\"").unwrap();
    node.signal(Signal::HUP);
    eventually("the log says so", async || {
        node.log()
            .contains("SIGHUP: nothing has changed")
            .then_some(())
    })
    .await;
    assert!(lets_in(&node, "second").await);
    assert!(node.terminate().await.success());
}

async fn drains() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let mut node = Node::start(&[], "").await;
        node.signal(signal);
        let status = node.ended().await;
        assert_eq!(status.code(), Some(0), "{signal:?}: {}", node.log());
        assert!(
            node.log().contains("stopping; a second signal"),
            "{signal:?}"
        );
    }
}

/// A Redis that takes connections and says nothing.
async fn early() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let settings = format!("[queue]\nkind = \"redis\"\nurl = \"redis://{address}\"\n");
    let mut node = Node::prepare(&[], &settings);
    node.spawn();
    let _silent = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    // It waits for an answer; neither signal ends it as the system would.
    node.signal(Signal::HUP);
    node.signal(Signal::TERM);
    let status = node.ended().await;
    assert_eq!(status.code(), Some(0), "{}", node.log());
    let log = node.log();
    assert!(
        log.contains("asked to stop before the start was over"),
        "{log}"
    );
}
