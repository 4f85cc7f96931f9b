//! Large results over a slow connection to Redis: they are written in batches, at about the bandwidth of
//! the connection and with bounded memory, and a stop loses none of them.

use crate::support::{
    eventually,
    node::Node,
    plugins::guest,
    proxy::Proxy,
    servers::{Kind, Server},
    task, trial_needing,
};
use hostel::{
    plugin::{TestGuest, test_guest::result_of},
    proto::hostel::v1::ListTasksRequest,
};
use libtest_mimic::Trial;
use std::time::{Duration, Instant};

/// The size of a result, and the number of results that the connection carries in a second.
const BYTES: usize = 1_000_000;
const A_SECOND: usize = 4;

pub fn trials() -> Vec<Trial> {
    let is_installed = Kind::Redis.is_installed();
    vec![
        trial_needing(
            "slow_connection::large_results_are_written_in_bounded_memory",
            is_installed,
            large_results_are_written_in_bounded_memory,
        ),
        trial_needing(
            "slow_connection::a_stop_writes_or_releases_every_result",
            is_installed,
            a_stop_writes_or_releases_every_result,
        ),
    ]
}

/// Returns the settings of a node with this Redis.
fn on(redis: &str, settings: &str) -> String {
    format!("[queue]\nkind = \"redis\"\nurl = \"{redis}\"\n{settings}")
}

/// Prepares a node whose task type `big` has large results.
fn prepared(redis: &str, settings: &str) -> Node {
    let node = Node::prepare(&[], &on(redis, settings));
    let big = TestGuest {
        name: "big",
        task_types: &["big"],
        handle: &result_of(BYTES),
        ..TestGuest::default()
    };
    node.add_wasm("big.wasm", &guest(&big));
    node
}

/// Starts a node whose connection to Redis carries `A_SECOND` results a second.
async fn with_slow_connection(redis: &Server, settings: &str) -> (Node, Proxy) {
    let proxy =
        Proxy::with_bandwidth(redis.url().trim_start_matches("redis://"), A_SECOND * BYTES).await;
    let url = format!("redis://{}", proxy.address());
    (prepared(&url, settings).started().await, proxy)
}

async fn submit(node: &Node, count: usize) -> Vec<String> {
    let mut client = node.client();
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(client.submit_task(task("big", "")).await.unwrap());
    }
    ids
}

/// Waits until all tasks have their result, and checks that each took one attempt.
async fn assert_completed(node: &Node, ids: &[String]) {
    for id in ids {
        let status = node.client().wait_for_task(id).await.unwrap();
        assert_eq!(status.status, "completed", "{}", status.error);
        assert_eq!((status.result.len(), status.attempts), (BYTES, 1));
    }
}

async fn large_results_are_written_in_bounded_memory() {
    const COUNT: usize = 40;
    let redis = Server::start(Kind::Redis).await;
    let settings = "max_unwritten_bytes = 4194304\n";
    let (node, _proxy) = with_slow_connection(&redis, settings).await;
    let before = node.resident_kib();
    let since = Instant::now();
    let ids = submit(&node, COUNT).await;
    // Reads from another node do not use the slow connection.
    let other = Node::start(&[], &on(&redis.url(), "")).await;
    eventually("all results are written", async || {
        let completed = ListTasksRequest {
            status: "completed".into(),
            ..ListTasksRequest::default()
        };
        let listed = other.client().list_tasks(completed).await.unwrap();
        (listed.tasks.len() == COUNT).then_some(())
    })
    .await;
    let least = Duration::from_secs((COUNT / A_SECOND) as u64);
    let took = since.elapsed();
    assert!(took < 4 * least, "{took:?} for results that need {least:?}");
    assert_completed(&other, &ids).await;
    let grown = node.peak_resident_kib().saturating_sub(before);
    assert!(grown < 96 << 10, "{grown} KiB for {COUNT} results of 1 MB");
    assert!(
        !node.log().contains("cannot write the results"),
        "{}",
        node.log()
    );
}

async fn a_stop_writes_or_releases_every_result() {
    const COUNT: usize = 30;
    let redis = Server::start(Kind::Redis).await;
    let mut node = {
        let (node, proxy) = with_slow_connection(&redis, "").await;
        let ids = submit(&node, COUNT).await;
        (node, proxy, ids)
    };
    // Some results are written, most are not, and the drain time is too short for them.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let since = Instant::now();
    assert!(node.0.terminate().await.success(), "{}", node.0.log());
    let took = since.elapsed();
    assert!(took < Duration::from_secs(25), "{took:?}");
    let other = prepared(&redis.url(), "").started().await;
    assert_completed(&other, &node.2).await;
}
