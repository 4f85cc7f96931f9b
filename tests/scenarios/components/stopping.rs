//! Nodes whose components hang in `start` or `stop`, or are busy: started and stopped within their
//! deadlines, every time.

use super::{answer, becomes, question};
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

/// What a component may take for its start, for its last messages, and for its stop.
const TIMEOUT: Duration = Duration::from_millis(200);

/// Far beyond all deadlines together, so that a slow machine fails nothing, and far below what a
/// component that hangs would take.
const BOUND: Duration = Duration::from_secs(60);

/// So many nodes at a time.
const BESIDE: usize = 4;

pub fn trials() -> Vec<Trial> {
    [
        on_both("components::a_stop_within_its_deadline", each_time),
        on_both("components::the_last_messages_are_answered", last_messages),
        on_both(
            "components::one_that_hangs_holds_up_nobody",
            holds_up_nobody,
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

async fn each_time(on: Backend) {
    let plugin = probe("1.0.0");
    let mut rng = random("stopping");
    let count = on.times(100, 30);
    let mut longest = Duration::ZERO;
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..count {
        if tries.len() == BESIDE {
            longest = longest.max(tries.join_next().await.expect("a try").expect("it ends"));
        }
        let start = ["ok", "slow", "hang", "spin", "panic", "error"][rng.usize(..6)];
        let stop = ["ok", "slow", "hang", "spin", "panic", "error"][rng.usize(..6)];
        let busy = ["", "echo", "spin", "sleep"][rng.usize(..4)];
        let after = Duration::from_millis(rng.u64(..300));
        tries.spawn(one(on, plugin.clone(), start, stop, busy, after));
    }
    while let Some(ended) = tries.join_next().await {
        longest = longest.max(ended.expect("it ends"));
    }
    println!("components: {count} stops, the longest in {longest:?}");
}

/// Starts a node, stops it `after` a while, and says how long that took.
async fn one(
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
        ..question(busy, "x")
    };
    let _ = node.client().send_message(message).await;
    tokio::time::sleep(after).await;
    let asked = Instant::now();
    let status = node.terminate().await;
    let took = asked.elapsed();
    let log = node.log();
    assert!(
        took < BOUND,
        "start {start}, stop {stop}, {busy}: {took:?}\n{log}"
    );
    assert!(
        status.success(),
        "start {start}, stop {stop}, {busy}: {status}\n{log}"
    );
    // Whose `stop` was called, and went wrong, is named.
    let called = log.contains(": runs component=") && !["spin", "sleep"].contains(&busy);
    if called && ["hang", "spin", "panic", "error"].contains(&stop) {
        assert!(
            log.contains("did not stop well"),
            "stop {stop} is not reported:\n{log}"
        );
    }
    took
}

async fn last_messages(on: Backend) {
    let mut node = on.start(&[&probe("1.0.0")], "").await;
    answer(&node, "echo", "x").await;
    // Thirty in a row for one that takes a while, and the node is told to stop meanwhile.
    let waiting: Vec<_> = (0..30)
        .map(|number| {
            let mut client = node.client();
            tokio::spawn(async move {
                client
                    .send_message(question("echo", number.to_string()))
                    .await
            })
        })
        .collect();
    node.ask_to_stop();
    let mut answered = 0;
    for answer in waiting {
        // Who came after the stop is refused or finds nobody; nobody is left without a word.
        if let Ok(response) = answer.await.expect("a call") {
            answered += usize::from(response.success);
        }
    }
    println!("components: {answered} of 30 messages were answered while the node stopped");
    assert!(node.ended().await.success());
    assert!(node.log().contains("stops "), "its stop was called");
}

async fn holds_up_nobody(on: Backend) {
    let hang = settings("hang", "hang");
    let node = on
        .start(&[&probe("1.0.0"), &showcase("rates")], &hang)
        .await;
    // The node serves, and so does the other component.
    let done = node
        .client()
        .submit_and_wait(task("record-event", r#"{"name":"a"}"#))
        .await;
    let done = done.unwrap();
    assert_eq!(done.status, "completed", "{}", done.error);
    let probe = becomes(&node, "down").await;
    assert!(probe.error.contains("timeout of "), "{}", probe.error);
}
