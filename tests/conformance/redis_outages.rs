//! A Redis that restarts, pauses or closes its connections. Faults of the data are in `redis_faults` and
//! `redis_reconcile`.

use super::{
    queue::{finish_one, name, request, task},
    queue_redis::{HOUR, open, say, trial, until},
};
use crate::support::servers::{Kind, Server};
use hostel::{
    queue::{Durability, Error, Finished, Submitted, TaskQueue},
    task::{Outcome, StateKind},
};
use libtest_mimic::Trial;
use std::time::Duration;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("a_restart_loses_nothing", a_restart_loses_nothing),
        trial(
            "a_pause_is_reported_and_passes",
            a_pause_is_reported_and_passes,
        ),
        trial(
            "the_first_call_after_an_idle_time_is_served",
            the_first_call_after_an_idle_time_is_served,
        ),
    ]
}

async fn a_restart_loses_nothing() {
    let mut server = Server::start(Kind::Redis).await;
    say(&server, &["CONFIG", "SET", "appendfsync", "always"]).await;
    let queue = open(&server).await;
    assert_eq!(queue.durability(), Durability::Synced);
    let batch = (0..100).map(|n| task(&format!("t{n}"), "echo", b"x"));
    queue.submit(batch.collect()).await.unwrap();
    let leased = queue
        .lease(&request(&[("echo", 9)], 9, HOUR))
        .await
        .unwrap();
    server.restart().await;
    until("the queue is back", async || queue.counts().await.is_ok()).await;
    let counts = queue.counts().await.unwrap();
    assert_eq!(counts[&(name("echo"), StateKind::Pending)], 91);
    assert_eq!(counts[&(name("echo"), StateKind::Running)], 9);
    // A connection that was idle for a second is checked before it is used; each kind of call has its own.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    // The scripts are loaded again.
    for leased in leased {
        let result = "x".into();
        let finished = finish_one(&queue, &leased.token, Outcome::Completed { result }).await;
        assert_eq!(finished, Finished::Applied);
    }
    let rest = queue
        .lease(&request(&[("echo", 99)], 99, HOUR))
        .await
        .unwrap();
    assert_eq!(rest.len(), 91);
    queue.close().await;
}

async fn a_pause_is_reported_and_passes() {
    let server = Server::start(Kind::Redis).await;
    let queue = open(&server).await;
    server.pause();
    let submitted = queue.submit(vec![task("t", "echo", b"x")]).await;
    match submitted {
        Err(Error::Unavailable {
            outcome_unknown, ..
        }) => assert!(outcome_unknown),
        other => panic!("{other:?}"),
    }
    server.resume();
    // Submitting again shows whether the task was created.
    until("the queue is back", async || {
        let again = queue.submit(vec![task("t", "echo", b"x")]).await;
        matches!(
            again.as_deref(),
            Ok([Submitted::Created | Submitted::Existing])
        )
    })
    .await;
    assert_eq!(
        queue.counts().await.unwrap()[&(name("echo"), StateKind::Pending)],
        1
    );
    queue.close().await;
}

async fn the_first_call_after_an_idle_time_is_served() {
    let mut server = Server::start(Kind::Redis).await;
    let queue = open(&server).await;
    let submit = async |id| queue.submit(vec![task(id, "echo", b"x")]).await.unwrap();
    submit("a").await;
    server.restart().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    submit("b").await;
    queue.close().await;
}
