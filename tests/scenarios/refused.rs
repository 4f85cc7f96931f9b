//! Nodes that are refused what they had: an id that another node took meanwhile, writing to a Redis.

use super::{
    cluster::{self, Shared},
    faults::{RUNS, prepare, signal},
};
use crate::support::{eventually, node::Node, task};
use libtest_mimic::Trial;
use rustix::process::Signal;
use std::time::{Duration, Instant};

pub fn trials() -> Vec<Trial> {
    vec![
        cluster::trial(
            "faults::a_node_whose_id_was_taken_takes_no_task",
            a_node_whose_id_was_taken_takes_no_task,
        ),
        cluster::trial(
            "faults::refusals_are_logged_at_a_rate",
            refusals_are_logged_at_a_rate,
        ),
    ]
}

/// A node that stopped for longer than its record lives, so that another could take its id.
async fn a_node_whose_id_was_taken_takes_no_task() {
    const TASKS: usize = 30;
    let shared = Shared::start().await;
    let first = prepare(&shared, "a").started().await;
    signal(&first, Signal::STOP);
    let mut second = prepare(&shared, "a").started().await;
    signal(&first, Signal::CONT);
    eventually("the first one knows", async || {
        first
            .log()
            .contains("may have this node's id")
            .then_some(())
    })
    .await;
    let runs = |node: &Node| node.log().matches(RUNS).count();
    for _ in 0..TASKS {
        let status = second.client().submit_and_wait(task("echo", "x")).await;
        assert_eq!(status.expect("an end").status, "completed");
    }
    assert_eq!((runs(&first), runs(&second)), (0, TASKS));
    second.kill();
    eventually("the first one has its id again", async || {
        first.log().contains("this node has its id").then_some(())
    })
    .await;
    let status = first.client().submit_and_wait(task("echo", "x")).await;
    assert_eq!(status.expect("an end").status, "completed");
    assert_eq!(runs(&first), 1);
}

/// As a replica does after a failover, Redis refuses every write.
async fn refusals_are_logged_at_a_rate() {
    let shared = Shared::start().await;
    let node = prepare(&shared, "a").started().await;
    let mut client = node.client();
    client
        .submit_and_wait(task("echo", "x"))
        .await
        .expect("an end");
    let before = node.log().len();
    let say = async |words: &[&str]| shared.redis.say(words).await.expect("an answer");
    say(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let since = Instant::now();
    let mut refused = 0;
    while refused < 300 || since.elapsed() < Duration::from_secs(4) {
        refused += usize::from(client.submit_task(task("echo", "x")).await.is_err());
    }
    let log = node.log().split_off(before);
    let lines = log.lines().filter(|line| line.contains("READONLY")).count();
    assert!(
        (1..=25).contains(&lines),
        "{lines} lines for {refused} calls:\n{log}"
    );
    say(&["REPLICAOF", "NO", "ONE"]).await;
    eventually("it serves again", async || {
        let status = client
            .clone()
            .submit_and_wait(task("echo", "x"))
            .await
            .ok()?;
        (status.status == "completed").then_some(())
    })
    .await;
}
