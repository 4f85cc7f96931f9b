//! The hand-off of the Redis queue: the script that stores tasks leases them to the request that waits, unless
//! a lease would take another task first.

use super::{
    queue::{finish_one, limited, name, request, task, with_options},
    queue_redis::{HOUR, open, settings, trial, until},
};
use crate::support::servers::{Kind, Server};
use hostel::{
    config,
    queue::{Changes, Finished, LeaseRequest, Leased, RedisQueue, Submitted, TaskQueue},
    task::{Outcome, Priority, StateKind, Submission, Target, TaskOptions},
};
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "new_tasks_are_handed_off_once",
            new_tasks_are_handed_off_once,
        ),
        trial(
            "a_hand_off_passes_no_waiting_task",
            a_hand_off_passes_no_waiting_task,
        ),
        trial(
            "a_hand_off_takes_simple_tasks_that_fit",
            a_hand_off_takes_simple_tasks_that_fit,
        ),
        trial(
            "a_dropped_hand_off_leaves_no_lease",
            a_dropped_hand_off_leaves_no_lease,
        ),
        trial(
            "one_request_waits_for_all_shards",
            one_request_waits_for_all_shards,
        ),
    ]
}

fn echo(max: usize) -> LeaseRequest {
    request(&[("echo", max)], max, HOUR)
}

/// Submits new tasks while a request waits, and returns those that are handed off; `None` if it still waits.
async fn submit_to(
    queue: &RedisQueue,
    request: &LeaseRequest,
    tasks: Vec<Submission>,
) -> Option<Vec<Leased>> {
    // Polled once, so that the offer is left.
    let mut waits = Box::pin(queue.hand_off(request));
    assert!(futures_util::poll!(&mut waits).is_pending());
    let count = tasks.len();
    let submitted = queue.submit(tasks).await.unwrap();
    assert_eq!(submitted, vec![Submitted::Created; count]);
    match futures_util::poll!(&mut waits) {
        std::task::Poll::Ready(leased) => Some(leased.unwrap()),
        std::task::Poll::Pending => None,
    }
}

fn ids(leased: &[Leased]) -> Vec<&str> {
    leased.iter().map(|task| task.token.id.as_str()).collect()
}

async fn new_tasks_are_handed_off_once() {
    let server = Server::start(Kind::Redis).await;
    let queue = open(&server).await;
    let mut watch = queue.watch();
    let tasks = ["a", "b", "c"].map(|id| task(id, "echo", id.as_bytes()));
    let leased = submit_to(&queue, &echo(2), tasks.into()).await.unwrap();
    assert_eq!(ids(&leased), ["a", "b"]);
    assert_eq!((leased[1].attempt, &leased[1].payload[..]), (1, &b"b"[..]));
    // They were never pending.
    match watch.next().await {
        Some(Changes::Batch(changes)) => {
            let seen: Vec<_> = changes
                .iter()
                .map(|it| (it.id.as_str(), it.state))
                .collect();
            let expected = [
                ("a", StateKind::Running),
                ("b", StateKind::Running),
                ("c", StateKind::Pending),
            ];
            assert_eq!(seen, expected);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(ids(&queue.lease(&echo(9)).await.unwrap()), ["c"]);
    let running = queue.get(&name("a")).await.unwrap().unwrap();
    assert_eq!(
        (running.state.kind(), running.attempt),
        (StateKind::Running, 1)
    );
    let again = queue.submit(vec![task("a", "echo", b"a")]).await.unwrap();
    assert_eq!(again, [Submitted::Existing]);
    for leased in &leased {
        let result = leased.payload.clone();
        let finished = finish_one(&queue, &leased.token, Outcome::Completed { result }).await;
        assert_eq!(finished, Finished::Applied);
    }
    let other = open(&server).await;
    let ended = other.get(&name("b")).await.unwrap().unwrap();
    assert_eq!(
        (ended.state.kind(), ended.attempt),
        (StateKind::Completed, 1)
    );
    other.close().await;
    queue.close().await;
}

async fn a_hand_off_passes_no_waiting_task() {
    let server = Server::start(Kind::Redis).await;
    let queue = open(&server).await;
    queue
        .submit(vec![task("first", "echo", b"x")])
        .await
        .unwrap();
    let second = vec![task("second", "echo", b"x")];
    assert!(submit_to(&queue, &echo(9), second).await.is_none());
    // A task of another type does not wait for these.
    let both = request(&[("echo", 9), ("other", 9)], 9, HOUR);
    let leased = submit_to(&queue, &both, vec![task("other", "other", b"x")]).await;
    assert_eq!(ids(&leased.unwrap()), ["other"]);
    assert_eq!(
        ids(&queue.lease(&echo(9)).await.unwrap()),
        ["first", "second"]
    );
    // A priority has its share of the leases.
    let high = TaskOptions {
        priority: Priority::High,
        ..TaskOptions::default()
    };
    let high = with_options("high", "other", high);
    assert!(submit_to(&queue, &echo(9), vec![high]).await.is_none());
    let third = vec![task("third", "echo", b"x")];
    assert!(submit_to(&queue, &echo(9), third).await.is_none());
    assert_eq!(queue.lease(&both).await.unwrap().len(), 2);
    let leased = submit_to(&queue, &echo(9), vec![task("fourth", "echo", b"x")]).await;
    assert_eq!(ids(&leased.unwrap()), ["fourth"]);
    queue.close().await;
}

async fn a_hand_off_takes_simple_tasks_that_fit() {
    let server = Server::start(Kind::Redis).await;
    let queue = open(&server).await;
    let tagged = TaskOptions {
        tags: [name("red")].into(),
        ..TaskOptions::default()
    };
    let elsewhere = Target::Node(name("node-2"));
    let tasks = vec![
        task("other", "other", b"x"),
        with_options("tagged", "tags", tagged),
        task("elsewhere", "echo", b"x").to(elsewhere),
        task("limited", "limited", b"x"),
        task("here", "echo", b"x").to(Target::Label(name("gpu"))),
    ];
    let types = request(&[("echo", 9), ("limited", 9), ("tags", 9)], 9, HOUR);
    let leased = submit_to(&queue, &limited(types, "limited", 1), tasks).await;
    assert_eq!(ids(&leased.unwrap()), ["here"]);
    let counts = queue.counts().await.unwrap();
    assert_eq!(counts[&(name("echo"), StateKind::Running)], 1);
    assert_eq!(counts[&(name("echo"), StateKind::Pending)], 1);
    queue.close().await;
}

async fn a_dropped_hand_off_leaves_no_lease() {
    let server = Server::start(Kind::Redis).await;
    let queue = open(&server).await;
    let request = echo(9);
    // It goes away before a task comes.
    let mut waits = Box::pin(queue.hand_off(&request));
    assert!(futures_util::poll!(&mut waits).is_pending());
    drop(waits);
    queue.submit(vec![task("a", "echo", b"x")]).await.unwrap();
    assert_eq!(ids(&queue.lease(&request).await.unwrap()), ["a"]);
    // It goes away before it takes its task.
    let mut waits = Box::pin(queue.hand_off(&request));
    assert!(futures_util::poll!(&mut waits).is_pending());
    queue.submit(vec![task("b", "echo", b"x")]).await.unwrap();
    drop(waits);
    let mut leased = Vec::new();
    until("the task is released", async || {
        leased = queue.lease(&request).await.unwrap();
        !leased.is_empty()
    })
    .await;
    assert_eq!((ids(&leased), leased[0].attempt), (vec!["b"], 1));
    queue.close().await;
}

async fn one_request_waits_for_all_shards() {
    let server = Server::start(Kind::Redis).await;
    let settings = config::RedisQueue {
        shards: 3,
        ..settings(&server)
    };
    let queue = RedisQueue::open(&settings).await.unwrap();
    for number in 0..20 {
        let id = format!("t{number}");
        let leased = submit_to(&queue, &echo(9), vec![task(&id, "echo", b"x")]).await;
        assert_eq!(ids(&leased.unwrap()), [id]);
    }
    queue.close().await;
}
