//! Nodes that lose a right: their id, which another node has taken, or writing to Redis.

use super::{
    Shared,
    faults::{RUNS, prepare, signal},
};
use crate::support::{eventually, node::Node, task};
use libtest_mimic::Trial;
use rustix::process::Signal;
use std::time::{Duration, Instant};

pub fn trials() -> Vec<Trial> {
    vec![
        super::trial(
            "faults::a_node_that_lost_its_id_leases_nothing",
            a_node_that_lost_its_id_leases_nothing,
        ),
        super::trial(
            "faults::rejected_writes_are_logged_at_a_bounded_rate",
            rejected_writes_are_logged_at_a_bounded_rate,
        ),
    ]
}

/// A node that was stopped for longer than its record lasts, so that another node took its id.
async fn a_node_that_lost_its_id_leases_nothing() {
    const TASKS: usize = 30;
    let shared = Shared::start().await;
    let first = prepare(&shared, "a").started().await;
    signal(&first, Signal::STOP);
    let mut second = prepare(&shared, "a").started().await;
    signal(&first, Signal::CONT);
    eventually("the first node knows that its id is taken", async || {
        first.log().contains("may use this node's id").then_some(())
    })
    .await;
    let runs = |node: &Node| node.log().matches(RUNS).count();
    for _ in 0..TASKS {
        let status = second.client().submit_and_wait(task("echo", "x")).await;
        assert_eq!(status.expect("an end").status, "completed");
    }
    assert_eq!((runs(&first), runs(&second)), (0, TASKS));
    second.kill();
    eventually("the first node has its id again", async || {
        first.log().contains("this node owns its id").then_some(())
    })
    .await;
    let status = first.client().submit_and_wait(task("echo", "x")).await;
    assert_eq!(status.expect("an end").status, "completed");
    assert_eq!(runs(&first), 1);
}

/// Redis rejects every write, as a replica does after a failover.
async fn rejected_writes_are_logged_at_a_bounded_rate() {
    let shared = Shared::start().await;
    let node = prepare(&shared, "a").started().await;
    let mut client = node.client();
    client
        .submit_and_wait(task("echo", "x"))
        .await
        .expect("an end");
    let before = node.log().len();
    let command = async |words: &[&str]| shared.redis.command(words).await.expect("an answer");
    command(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let since = Instant::now();
    let mut rejected = 0;
    while rejected < 300 || since.elapsed() < Duration::from_secs(4) {
        rejected += usize::from(client.submit_task(task("echo", "x")).await.is_err());
    }
    let log = node.log().split_off(before);
    let lines = log.lines().filter(|line| line.contains("READONLY")).count();
    assert!(
        (1..=25).contains(&lines),
        "{lines} lines for {rejected} calls:\n{log}"
    );
    command(&["REPLICAOF", "NO", "ONE"]).await;
    eventually("the node serves again", async || {
        let status = client
            .clone()
            .submit_and_wait(task("echo", "x"))
            .await
            .ok()?;
        (status.status == "completed").then_some(())
    })
    .await;
}
