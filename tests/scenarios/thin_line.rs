//! Results that are large beside the line to Redis: they are written piece by piece, in about the time
//! that the line needs, with memory that stays bounded; and a stop loses none of them.

use crate::support::{
    eventually,
    node::Node,
    plugins::guest,
    proxy::Proxy,
    servers::{Kind, Server},
    task, trial_needing,
};
use hostel::{
    plugin::{Sample, sample::result_of},
    proto::hostel::v1::ListTasksRequest,
};
use libtest_mimic::Trial;
use std::time::{Duration, Instant};

/// A result, and how many the line carries in a second.
const BYTES: usize = 1_000_000;
const A_SECOND: usize = 4;

pub fn trials() -> Vec<Trial> {
    let is_here = Kind::Redis.is_here();
    vec![
        trial_needing(
            "thin_line::results_are_written_and_bounded",
            is_here,
            results_are_written,
        ),
        trial_needing(
            "thin_line::a_stop_writes_what_it_can_and_gives_back_the_rest",
            is_here,
            a_stop_loses_nothing,
        ),
    ]
}

/// The settings of a node with this Redis.
fn on(redis: &str, settings: &str) -> String {
    format!("[queue]\nkind = \"redis\"\nurl = \"{redis}\"\n{settings}")
}

/// A node with tasks that have large results.
fn prepared(redis: &str, settings: &str) -> Node {
    let node = Node::prepare(&[], &on(redis, settings));
    let big = Sample {
        name: "big",
        task_types: &["big"],
        handle: &result_of(BYTES),
        ..Sample::default()
    };
    node.add_wasm("big.wasm", &guest(&big));
    node
}

/// A node whose line to Redis carries `A_SECOND` results.
async fn behind_a_thin_line(redis: &Server, settings: &str) -> (Node, Proxy) {
    let line = Proxy::thin(redis.url().trim_start_matches("redis://"), A_SECOND * BYTES).await;
    let url = format!("redis://{}", line.address());
    (prepared(&url, settings).started().await, line)
}

async fn submit(node: &Node, count: usize) -> Vec<String> {
    let mut client = node.client();
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(client.submit_task(task("big", "")).await.unwrap());
    }
    ids
}

/// Waits until all have their result, and shows that each took one attempt.
async fn all_completed(node: &Node, ids: &[String]) {
    for id in ids {
        let status = node.client().wait_for_task(id).await.unwrap();
        assert_eq!(status.status, "completed", "{}", status.error);
        assert_eq!((status.result.len(), status.attempts), (BYTES, 1));
    }
}

async fn results_are_written() {
    const COUNT: usize = 40;
    let redis = Server::start(Kind::Redis).await;
    let settings = "max_unwritten_bytes = 4194304\n";
    let (node, _line) = behind_a_thin_line(&redis, settings).await;
    let before = node.resident_kib();
    let since = Instant::now();
    let ids = submit(&node, COUNT).await;
    // Looks do not go over the line that the results need.
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
    assert!(
        took < 4 * least,
        "{took:?} for what the line carries in {least:?}"
    );
    all_completed(&other, &ids).await;
    let grown = node.peak_resident_kib().saturating_sub(before);
    assert!(grown < 96 << 10, "{grown} KiB for {COUNT} results of 1 MB");
    assert!(!node.log().contains("cannot record"), "{}", node.log());
}

async fn a_stop_loses_nothing() {
    const COUNT: usize = 30;
    let redis = Server::start(Kind::Redis).await;
    let mut node = {
        let (node, line) = behind_a_thin_line(&redis, "").await;
        let ids = submit(&node, COUNT).await;
        (node, line, ids)
    };
    // Some are written, most are not, and the time for the drain is less than they need.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let since = Instant::now();
    assert!(node.0.terminate().await.success(), "{}", node.0.log());
    let took = since.elapsed();
    assert!(took < Duration::from_secs(25), "{took:?}");
    let other = prepared(&redis.url(), "").started().await;
    all_completed(&other, &node.2).await;
}
