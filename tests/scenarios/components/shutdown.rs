//! Nodes whose components hang in `start` or `stop`, or handle a message: they always start and stop
//! within their deadlines.

use super::{answer, becomes, request};
use crate::support::{
    backend::{Backend, on_both},
    plugins::{probe, showcase},
    random, task,
};
use hostel::proto::distributed::Message;
use libtest_mimic::Trial;
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

/// The timeout of a component for its start, its last messages and its stop.
const TIMEOUT: Duration = Duration::from_millis(200);

/// A bound far above all timeouts together, for slow machines, and far below the time of a component
/// that hangs.
const BOUND: Duration = Duration::from_secs(60);

/// The number of nodes at the same time.
const PARALLEL: usize = 4;

pub fn trials() -> Vec<Trial> {
    [
        on_both(
            "components::a_stop_keeps_its_deadline",
            a_stop_keeps_its_deadline,
        ),
        on_both(
            "components::a_stop_answers_the_last_messages",
            a_stop_answers_the_last_messages,
        ),
        on_both(
            "components::a_hanging_component_delays_no_other",
            a_hanging_component_delays_no_other,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn settings(start: &str, stop: &str) -> String {
    let ms = TIMEOUT.as_millis();
    format!(
        "[plugin.probe.config]\nstart = \"{start}\"\nstop = \"{stop}\"\n\
         [plugin.probe.component]\nstart_timeout_ms = {ms}\nstop_timeout_ms = {ms}\n"
    )
}

async fn a_stop_keeps_its_deadline(on: Backend) {
    let plugin = probe("1.0.0");
    let mut rng = random("stopping");
    let count = on.times(100, 30);
    let mut longest = Duration::ZERO;
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..count {
        if tries.len() == PARALLEL {
            longest = longest.max(tries.join_next().await.expect("a task").expect("no panic"));
        }
        let start = ["ok", "slow", "hang", "spin", "panic", "error"][rng.usize(..6)];
        let stop = ["ok", "slow", "hang", "spin", "panic", "error"][rng.usize(..6)];
        let busy = ["", "echo", "spin", "sleep"][rng.usize(..4)];
        let after = Duration::from_millis(rng.u64(..300));
        tries.spawn(stop_time(on, plugin.clone(), start, stop, busy, after));
    }
    while let Some(ended) = tries.join_next().await {
        longest = longest.max(ended.expect("no panic"));
    }
    println!("components: {count} stops, the longest in {longest:?}");
}

/// Starts a node, stops it `after` a while, and returns how long the stop took.
async fn stop_time(
    on: Backend,
    plugin: PathBuf,
    start: &'static str,
    stop: &'static str,
    busy: &'static str,
    after: Duration,
) -> Duration {
    let mut node = on.start(&[&plugin], &settings(start, stop)).await;
    let message = Message {
        reply_timeout_ms: 0,
        ..request(busy, "x")
    };
    let _ = node.client().send_message(message).await;
    tokio::time::sleep(after).await;
    let since = Instant::now();
    let status = node.terminate().await;
    let took = since.elapsed();
    let log = node.log();
    assert!(
        took < BOUND,
        "start {start}, stop {stop}, {busy}: {took:?}\n{log}"
    );
    assert!(
        status.success(),
        "start {start}, stop {stop}, {busy}: {status}\n{log}"
    );
    // A failed call of `stop` is logged.
    let called = log.contains(": runs component=") && !["spin", "sleep"].contains(&busy);
    if called && ["hang", "spin", "panic", "error"].contains(&stop) {
        assert!(
            log.contains("did not stop well"),
            "stop {stop} is not reported:\n{log}"
        );
    }
    took
}

async fn a_stop_answers_the_last_messages(on: Backend) {
    let mut node = on.start(&[&probe("1.0.0")], "").await;
    answer(&node, "echo", "x").await;
    // The node stops while thirty messages are waiting or handled.
    let waiting: Vec<_> = (0..30)
        .map(|number| {
            let mut client = node.client();
            tokio::spawn(async move {
                client
                    .send_message(request("echo", number.to_string()))
                    .await
            })
        })
        .collect();
    node.request_stop();
    let mut answered = 0;
    for answer in waiting {
        // Messages after the stop are rejected; every call gets a reply or a status.
        if let Ok(response) = answer.await.expect("a call") {
            answered += usize::from(response.success);
        }
    }
    println!("components: {answered} of 30 messages were answered while the node stopped");
    assert!(node.wait_for_exit().await.success());
    assert!(node.log().contains("stops "), "its stop was called");
}

async fn a_hanging_component_delays_no_other(on: Backend) {
    let hang = settings("hang", "hang");
    let node = on
        .start(&[&probe("1.0.0"), &showcase("rates")], &hang)
        .await;
    // The node and the other component serve.
    let done = node
        .client()
        .submit_and_wait(task("record-event", r#"{"name":"a"}"#))
        .await;
    let done = done.unwrap();
    assert_eq!(done.status, "completed", "{}", done.error);
    let probe = becomes(&node, "down").await;
    assert!(probe.error.contains("timeout of "), "{}", probe.error);
}
