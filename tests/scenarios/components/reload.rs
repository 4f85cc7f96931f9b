//! A component that is replaced a hundred times at a thousand messages a second: each message is handled
//! once, by one version and in order, and the store is consistent.

use super::{answer, becomes, listed, request, text};
use crate::support::{
    DEADLINE,
    backend::{Backend, on_both},
    eventually,
    node::Node,
    plugins::{probe, showcase},
};
use hostel::{
    DistributedClient,
    proto::{
        distributed::Message,
        hostel::v1::{Component, Node as ListedNode},
    },
};
use libtest_mimic::Trial;
use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

const SENDERS: usize = 4;
/// With this pause, the rate is 1,000 a second on a fast machine. The checks do not depend on it.
const IN_FLIGHT: usize = 100;
const PAUSE: Duration = Duration::from_millis(4);

pub fn trials() -> Vec<Trial> {
    [
        on_both(
            "components::reloads_under_load_lose_no_message",
            reloads_under_load_lose_no_message,
        ),
        on_both(
            "components::a_version_that_cannot_start_replaces_nothing",
            a_version_that_cannot_start_replaces_nothing,
        ),
        on_both(
            "components::a_removed_component_keeps_its_store",
            a_removed_component_keeps_its_store,
        ),
        on_both(
            "components::new_code_waits_for_memory_that_others_hold",
            new_code_waits_for_memory_that_others_hold,
        ),
        on_both(
            "components::new_code_takes_the_memory_of_the_old_if_both_never_fit",
            new_code_takes_the_memory_of_the_old_if_both_never_fit,
        ),
        on_both(
            "components::memory_of_a_component_is_kept_for_it_when_a_start_or_a_message_fails",
            memory_of_a_component_is_kept_for_it_when_a_start_or_a_message_fails,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

async fn reloads_under_load_lose_no_message(on: Backend) {
    let versions = ["1.0.0", "2.0.0"].map(|version| {
        let wasm = fs::read(probe(version)).expect("a plugin");
        (version, wasm)
    });
    let node = on.prepare(&[], "[plugins]\nrescan_ms = 3600000\n").await;
    node.add_wasm("probe.wasm", &versions[0].1);
    let node = node.started().await;
    // With shared backends, the senders use another node, so that messages go through Redis.
    let other = other_node(&node).await;
    let address = other.as_ref().unwrap_or(&node).address();
    let reloads = on.times(100, 50);
    let stop = Arc::new(AtomicBool::new(false));
    let handled = Arc::new(AtomicU64::new(0));
    let mut senders = JoinSet::new();
    for number in 0..SENDERS {
        let client = DistributedClient::connect(address).await.unwrap();
        senders.spawn(send_counts(client, number, stop.clone(), handled.clone()));
    }
    for reload in 1..=reloads {
        let (version, wasm) = &versions[reload % 2];
        node.add_wasm("probe.wasm", wasm);
        let before = handled.load(Relaxed);
        eventually("the new version runs and is used", async || {
            let probe = listed(&node).await;
            let used = handled.load(Relaxed) > before + 5;
            (probe.version == *version && probe.state == "running" && used).then_some(())
        })
        .await;
    }
    stop.store(true, Relaxed);
    let (mut counts, mut by_version) = (BTreeSet::new(), [0_u64; 2]);
    let mut sent = 0;
    while let Some(answers) = senders.join_next().await {
        let answers = answers.expect("no sender fails");
        let mut last = 0;
        for answer in answers {
            sent += 1;
            let (version, count) = answer.split_once(':').expect("version:count");
            let count: u64 = count.parse().expect("a number");
            assert!(count > last, "{count} after {last}: out of order");
            last = count;
            assert!(counts.insert(count), "{count} was counted twice");
            by_version[usize::from(version == "2.0.0")] += 1;
        }
    }
    // Each message was counted once, so the counts are the numbers from 1.
    assert_eq!(counts.len() as u64, sent);
    assert_eq!(
        counts.last().copied(),
        Some(sent),
        "the store has another count"
    );
    assert!(by_version.iter().all(|&some| some > 0), "{by_version:?}");
    let probe = listed(&node).await;
    println!(
        "components: {sent} messages over {reloads} reloads, {by_version:?} by version; {} starts",
        probe.starts
    );
    assert_eq!((probe.handled, probe.failed, probe.refused), (sent, 0, 0));
    assert_eq!(probe.starts, reloads as u64 + 1);
}

/// Starts a second node on the same servers and waits until it knows the component.
async fn other_node(node: &Node) -> Option<Node> {
    let settings = node.shared.as_ref()?.settings();
    let other = Node::prepare(&[], &settings).named("elsewhere");
    let other = other.started().await;
    eventually("the other node knows the component", async || {
        let nodes = other.client().list_nodes().await.expect("a list").nodes;
        let has = |node: &ListedNode| node.components.iter().any(|id| id == "probe");
        nodes.iter().any(has).then_some(())
    })
    .await;
    Some(other)
}

/// Streams `count` messages until `stop` and returns the answers in the order of the requests.
async fn send_counts(
    mut client: DistributedClient,
    number: usize,
    stop: Arc<AtomicBool>,
    handled: Arc<AtomicU64>,
) -> Vec<String> {
    let own = format!("sender-{number}");
    let (outgoing, receiver) = mpsc::channel(16);
    let mut incoming = client
        .stream_messages(ReceiverStream::new(receiver))
        .await
        .unwrap();
    // A slow machine gets fewer messages, so that the mailbox never fills up.
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    let answered = room.clone();
    let sending = tokio::spawn(async move {
        let mut sent = 0;
        while !stop.load(Relaxed) {
            room.acquire().await.unwrap().forget();
            let message = Message {
                from_node: own.clone(),
                message_id: sent.to_string(),
                reply_timeout_ms: 0,
                ..request("count", "")
            };
            outgoing.send(message).await.unwrap();
            sent += 1;
            tokio::time::sleep(PAUSE).await;
        }
        (outgoing, sent)
    });
    let mut answers = Vec::new();
    let mut sending = Some(sending);
    let mut total = None;
    let mut open = None;
    while total.is_none_or(|total| answers.len() < total) {
        let received = tokio::select! {
            received = tokio::time::timeout(DEADLINE, incoming.next()) => received,
            ended = async { sending.as_mut().expect("a sender").await }, if sending.is_some() => {
                let (outgoing, sent) = ended.unwrap();
                (sending, total, open) = (None, Some(sent), Some(outgoing));
                continue;
            }
        };
        let received = received
            .expect("an answer in time")
            .expect("an open stream")
            .expect("no status");
        assert_eq!(received.error, "", "message {}", received.in_reply_to);
        if received.message_type == "response" {
            continue;
        }
        assert_eq!(
            (&*received.from_node, &*received.message_type),
            ("probe", "answer")
        );
        assert_eq!(received.in_reply_to, answers.len().to_string(), "in order");
        handled.fetch_add(1, Relaxed);
        answered.add_permits(1);
        answers.push(String::from_utf8(received.payload.to_vec()).unwrap());
    }
    drop(open);
    answers
}

async fn a_version_that_cannot_start_replaces_nothing(on: Backend) {
    let good = fs::read(probe("2.0.0")).unwrap();
    let settings = "[plugin.probe.config]\n\"start-6.6.6\" = \"panic\"\n";
    let node = on.prepare(&[], settings).await;
    node.add_wasm("probe.wasm", &fs::read(probe("1.0.0")).unwrap());
    let node = node.started().await;
    assert_eq!(answer(&node, "memory", "").await, "1");
    node.add_wasm("probe.wasm", &fs::read(probe("6.6.6")).unwrap());
    let probe = eventually("the failed start is listed", async || {
        let probe = listed(&node).await;
        (!probe.error.is_empty()).then_some(probe)
    })
    .await;
    assert!(
        probe.error.contains("version 6.6.6 cannot start"),
        "{}",
        probe.error
    );
    assert_eq!(
        (probe.version.as_str(), probe.state.as_str()),
        ("1.0.0", "running")
    );
    assert_eq!(
        answer(&node, "memory", "").await,
        "2",
        "the old instance continues"
    );
    let crash = super::refusal(&node, "panic", "").await;
    assert!(crash.contains("panic's own words"), "{crash}");
    assert_eq!(
        answer(&node, "version", "").await,
        "1.0.0",
        "the last good version restarts"
    );
    // A valid version replaces both.
    node.add_wasm("probe.wasm", &good);
    eventually("the valid version runs", async || {
        (listed(&node).await.version == "2.0.0").then_some(())
    })
    .await;
    assert_eq!(answer(&node, "memory", "").await, "1");
    assert_eq!(listed(&node).await.error, "");
}

async fn a_removed_component_keeps_its_store(on: Backend) {
    let node = on.prepare(&[], "").await;
    let wasm = fs::read(probe("1.0.0")).unwrap();
    node.add_wasm("probe.wasm", &wasm);
    let node = node.started().await;
    assert_eq!(answer(&node, "count", "").await, "1.0.0:1");
    fs::remove_file(node.plugins_dir().join("probe.wasm")).unwrap();
    eventually("the component is gone", async || {
        let mut client = node.client();
        let response = super::ask(&mut client, request("echo", "")).await;
        response
            .message
            .contains("receives messages for probe")
            .then_some(())
    })
    .await;
    assert!(node.client().list_components().await.unwrap().is_empty());
    assert!(node.log().contains("stops 1.0.0"), "its stop was called");
    node.add_wasm("probe.wasm", &wasm);
    let back = eventually("the component is back", async || {
        let mut client = node.client();
        let response = super::ask(&mut client, request("count", "")).await;
        response.success.then(|| text(response))
    })
    .await;
    assert_eq!(back, "1.0.0:2", "the store is kept");
    becomes(&node, "running").await;
}

/// A node whose components share so many MiB, of which each takes 64.
async fn with_component_memory(on: Backend, mib: usize, files: &[&Path]) -> Node {
    let bytes = mib << 20;
    let settings = format!(
        "[plugins]\nmax_total_memory_bytes = 1073741824\nmax_component_memory_bytes = {bytes}\n\
         [plugin.probe.config]\n\"start-6.6.6\" = \"panic\"\n"
    );
    let node = on.prepare(files, &settings).await;
    node.add_wasm("probe.wasm", &fs::read(probe("1.0.0")).unwrap());
    node.started().await
}

/// Old and new fit into the components' memory together, but not beside another component. The old
/// one serves until that is gone.
async fn new_code_waits_for_memory_that_others_hold(on: Backend) {
    let rates = showcase("rates");
    let node = with_component_memory(on, 160, &[&rates]).await;
    assert_eq!(answer(&node, "memory", "").await, "1");
    node.add_wasm("probe.wasm", &fs::read(probe("2.0.0")).unwrap());
    let waiting = eventually("the reason is listed", async || {
        let probe = listed(&node).await;
        (!probe.error.is_empty()).then_some(probe)
    })
    .await;
    for part in [
        "version 2.0.0 cannot start",
        "plugins.max_component_memory_bytes",
    ] {
        assert!(waiting.error.contains(part), "{}", waiting.error);
    }
    // It is tried several times, and the old instance handles messages all the while.
    for count in 2..=30 {
        assert_eq!(answer(&node, "memory", "").await, count.to_string());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let old = listed(&node).await;
    assert_eq!(
        (old.version.as_str(), old.state.as_str(), old.starts),
        ("1.0.0", "running", 1)
    );
    let log = node.log();
    assert_eq!(
        log.matches("version 2.0.0 cannot start").count(),
        1,
        "{log}"
    );
    let other = node.plugins_dir().join(rates.file_name().unwrap());
    fs::remove_file(other).unwrap();
    eventually("the new version runs", async || {
        (listed(&node).await.version == "2.0.0").then_some(())
    })
    .await;
    assert_eq!(answer(&node, "memory", "").await, "1");
    assert_eq!(listed(&node).await.error, "");
}

/// Only one instance fits at all: the old one is stopped first, and its memory is the new one's, even
/// if another component has waited for it longer.
async fn new_code_takes_the_memory_of_the_old_if_both_never_fit(on: Backend) {
    let node = with_component_memory(on, 100, &[]).await;
    assert_eq!(answer(&node, "version", "").await, "1.0.0");
    let_rates_wait(&node).await;
    node.add_wasm("probe.wasm", &fs::read(probe("2.0.0")).unwrap());
    runs(&node, "2.0.0").await;
    assert_eq!(answer(&node, "version", "").await, "2.0.0");
    let log = node.log();
    assert!(log.contains("there is no memory for both"), "{log}");
    assert!(log.contains("stops 1.0.0"), "{log}");
}

/// Installs a component for which the first has left no memory, and waits until it is listed.
async fn let_rates_wait(node: &Node) {
    node.add_plugin(&showcase("rates"));
    eventually("the other component waits", async || {
        let components = node.client().list_components().await.expect("a list");
        components.iter().any(|one| one.id == "rates").then_some(())
    })
    .await;
}

/// Waits until `probe` runs in this version.
async fn runs(node: &Node, version: &str) -> Component {
    eventually("the version runs", async || {
        let probe = listed(node).await;
        (probe.version == version && probe.state == "running").then_some(probe)
    })
    .await
}

/// Only one instance fits at all, and another component waits for its memory all the time. A new version
/// that cannot start leaves the memory to the old one, and a crash leaves it to the next instance.
async fn memory_of_a_component_is_kept_for_it_when_a_start_or_a_message_fails(on: Backend) {
    // Built before the other component begins to wait, which it does for ten seconds at a time.
    let [bad, good] = ["6.6.6", "2.0.0"].map(|version| fs::read(probe(version)).unwrap());
    showcase("rates");
    let node = with_component_memory(on, 100, &[]).await;
    assert_eq!(answer(&node, "version", "").await, "1.0.0");
    let_rates_wait(&node).await;
    node.add_wasm("probe.wasm", &bad);
    let failed = eventually("the old version is back", async || {
        let probe = listed(&node).await;
        let back = probe.starts == 2 && probe.state == "running";
        back.then_some(probe)
    })
    .await;
    assert_eq!(failed.version, "1.0.0");
    for part in ["version 6.6.6 cannot start", "start panics as configured"] {
        assert!(failed.error.contains(part), "{}", failed.error);
    }
    let crash = super::refusal(&node, "panic", "").await;
    assert!(crash.contains("panic's own words"), "{crash}");
    assert_eq!(answer(&node, "version", "").await, "1.0.0");
    eventually("the version has failed twice", async || {
        node.log().contains("retrying in 20s").then_some(())
    })
    .await;
    let crash = super::refusal(&node, "panic", "").await;
    assert!(crash.contains("panic's own words"), "{crash}");
    assert_eq!(answer(&node, "version", "").await, "1.0.0");
    // Each crash was the first failure of the old code, which the failures of the new one are not.
    let of_probe = |words: &str| {
        let is_of_probe = |line: &&str| line.contains("component=probe") && line.contains(words);
        node.log().lines().find(is_of_probe).map(str::to_owned)
    };
    assert!(of_probe("retrying in 10s").is_some());
    assert_eq!(of_probe("restarting in"), None);
    // The second of two is followed by a pause.
    for _ in 0..2 {
        super::refusal(&node, "panic", "").await;
    }
    assert_eq!(answer(&node, "version", "").await, "1.0.0");
    assert!(of_probe("restarting in").is_some());
    node.add_wasm("probe.wasm", &good);
    let upgraded = runs(&node, "2.0.0").await;
    assert_eq!(upgraded.error, "", "earlier failures are not reported");
    assert_eq!(answer(&node, "version", "").await, "2.0.0");
    assert_eq!(of_probe("no room"), None);
}
