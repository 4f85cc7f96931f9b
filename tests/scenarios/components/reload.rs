//! A component that is replaced a hundred times while a thousand messages a second arrive: each is
//! handled once, by one version, in order, and what it keeps in its store is whole.

use super::{answer, becomes, listed, question, text};
use crate::support::{
    PATIENCE,
    backend::{Backend, on_both},
    eventually,
    node::Node,
    plugins::probe,
};
use hostel::{
    DistributedClient,
    proto::{distributed::Message, hostel::v1::Node as ListedNode},
};
use libtest_mimic::Trial;
use std::{
    collections::BTreeSet,
    fs,
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
/// The rate is 1,000 a second where the machine keeps up; what holds does not depend on it.
const UNDER_WAY: usize = 100;
const PAUSE: Duration = Duration::from_millis(4);

pub fn trials() -> Vec<Trial> {
    [
        on_both("components::reloaded_under_load", under_load),
        on_both("components::new_code_that_will_not_start", will_not_start),
        on_both("components::removed_and_put_back", removed_and_put_back),
    ]
    .into_iter()
    .flatten()
    .collect()
}

async fn under_load(on: Backend) {
    let versions = ["1.0.0", "2.0.0"].map(|version| {
        let wasm = fs::read(probe(version)).expect("a plugin");
        (version, wasm)
    });
    let node = on.prepare(&[], "[plugins]\nrescan_ms = 3600000\n").await;
    node.add_wasm("probe.wasm", &versions[0].1);
    let node = node.started().await;
    // Where there is a Redis, everything passes through it: senders are at another node.
    let elsewhere = elsewhere(&node).await;
    let address = elsewhere.as_ref().unwrap_or(&node).address();
    let reloads = on.times(100, 50);
    let stop = Arc::new(AtomicBool::new(false));
    let handled = Arc::new(AtomicU64::new(0));
    let mut senders = JoinSet::new();
    for number in 0..SENDERS {
        let client = DistributedClient::connect(address).await.unwrap();
        senders.spawn(count_on(client, number, stop.clone(), handled.clone()));
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
    // Each message was counted once: the counts are all the numbers from 1 on.
    assert_eq!(counts.len() as u64, sent);
    assert_eq!(
        counts.last().copied(),
        Some(sent),
        "the store has counted something else"
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

/// A second node on the same servers, once it knows of the component.
async fn elsewhere(node: &Node) -> Option<Node> {
    let settings = node.shared.as_ref()?.settings();
    let other = Node::prepare(&[], &settings).named("elsewhere");
    let other = other.started().await;
    eventually("the component is known elsewhere", async || {
        let nodes = other.client().list_nodes().await.expect("a list").nodes;
        let has = |node: &ListedNode| node.components.iter().any(|id| id == "probe");
        nodes.iter().any(has).then_some(())
    })
    .await;
    Some(other)
}

/// Streams `count` messages until `stop`, and gives the answers in the order of the questions.
async fn count_on(
    mut client: DistributedClient,
    number: usize,
    stop: Arc<AtomicBool>,
    handled: Arc<AtomicU64>,
) -> Vec<String> {
    let own = format!("sender-{number}");
    let (say, said) = mpsc::channel(16);
    let mut hear = client
        .stream_messages(ReceiverStream::new(said))
        .await
        .unwrap();
    // A machine that does not keep up gets fewer, so that the mailbox has room for all of them.
    let room = Arc::new(Semaphore::new(UNDER_WAY));
    let answered = room.clone();
    let speaking = tokio::spawn(async move {
        let mut sent = 0;
        while !stop.load(Relaxed) {
            room.acquire().await.unwrap().forget();
            let message = Message {
                from_node: own.clone(),
                message_id: sent.to_string(),
                reply_timeout_ms: 0,
                ..question("count", "")
            };
            say.send(message).await.unwrap();
            sent += 1;
            tokio::time::sleep(PAUSE).await;
        }
        (say, sent)
    });
    let mut answers = Vec::new();
    let mut speaking = Some(speaking);
    let mut total = None;
    let mut open = None;
    while total.is_none_or(|total| answers.len() < total) {
        let heard = tokio::select! {
            heard = tokio::time::timeout(PATIENCE, hear.next()) => heard,
            ended = async { speaking.as_mut().expect("it speaks").await }, if speaking.is_some() => {
                let (say, sent) = ended.unwrap();
                (speaking, total, open) = (None, Some(sent), Some(say));
                continue;
            }
        };
        let heard = heard
            .expect("an answer in time")
            .expect("an open stream")
            .expect("no status");
        assert_eq!(heard.error, "", "message {}", heard.in_reply_to);
        if heard.message_type == "response" {
            continue;
        }
        assert_eq!(
            (&*heard.from_node, &*heard.message_type),
            ("probe", "answer")
        );
        assert_eq!(heard.in_reply_to, answers.len().to_string(), "in order");
        handled.fetch_add(1, Relaxed);
        answered.add_permits(1);
        answers.push(String::from_utf8(heard.payload.to_vec()).unwrap());
    }
    drop(open);
    answers
}

async fn will_not_start(on: Backend) {
    let good = fs::read(probe("2.0.0")).unwrap();
    let settings = "[plugin.probe.config]\n\"start-6.6.6\" = \"panic\"\n";
    let node = on.prepare(&[], settings).await;
    node.add_wasm("probe.wasm", &fs::read(probe("1.0.0")).unwrap());
    let node = node.started().await;
    assert_eq!(answer(&node, "memory", "").await, "1");
    node.add_wasm("probe.wasm", &fs::read(probe("6.6.6")).unwrap());
    let probe = eventually("the refusal is listed", async || {
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
        "the old instance goes on"
    );
    let crash = super::refusal(&node, "panic", "").await;
    assert!(crash.contains("panic's own words"), "{crash}");
    assert_eq!(
        answer(&node, "version", "").await,
        "1.0.0",
        "what ran well runs again"
    );
    // Good code takes over from both.
    node.add_wasm("probe.wasm", &good);
    eventually("the good one runs", async || {
        (listed(&node).await.version == "2.0.0").then_some(())
    })
    .await;
    assert_eq!(answer(&node, "memory", "").await, "1");
    assert_eq!(listed(&node).await.error, "");
}

async fn removed_and_put_back(on: Backend) {
    let node = on.prepare(&[], "").await;
    let wasm = fs::read(probe("1.0.0")).unwrap();
    node.add_wasm("probe.wasm", &wasm);
    let node = node.started().await;
    assert_eq!(answer(&node, "count", "").await, "1.0.0:1");
    fs::remove_file(node.plugins_dir().join("probe.wasm")).unwrap();
    eventually("nobody is there", async || {
        let mut client = node.client();
        let response = super::ask(&mut client, question("echo", "")).await;
        (response.message == "nobody listens on probe").then_some(())
    })
    .await;
    assert!(node.client().list_components().await.unwrap().is_empty());
    assert!(node.log().contains("stops 1.0.0"), "its stop was called");
    node.add_wasm("probe.wasm", &wasm);
    let back = eventually("it is back", async || {
        let mut client = node.client();
        let response = super::ask(&mut client, question("count", "")).await;
        response.success.then(|| text(response))
    })
    .await;
    assert_eq!(back, "1.0.0:2", "what was stored is still there");
    becomes(&node, "running").await;
}
