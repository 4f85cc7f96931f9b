//! The conformance suite of the queue over Redis, and cases of a shared server.

use super::queue::{self, Case, MAX_OPEN_TASKS, finish_one, name, request, task};
use crate::support::{
    self, DEADLINE,
    servers::{Kind, Server},
};
use hostel::{
    config,
    queue::{
        Changes, Durability, Error, Finished, Leased, RedisQueue, Renewal, Submitted, TaskQueue,
    },
    task::{Outcome, StateKind},
};
use libtest_mimic::Trial;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub(super) const HOUR: Duration = Duration::from_secs(3600);

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for case in queue::cases().chain(queue::ordered_cases()) {
        trials.push(trial(case.name(), move || on_redis(case, 1)));
    }
    for case in queue::cases() {
        let name = format!("{}_in_three_shards", case.name());
        trials.push(trial(&name, move || on_redis(case, 3)));
    }
    trials.extend([
        trial("queues_share_their_tasks", queues_share_their_tasks),
        trial(
            "a_pause_holds_at_the_other_queues",
            a_pause_holds_at_the_other_queues,
        ),
        trial("the_durability_is_detected", the_durability_is_detected),
        trial(
            "a_server_that_may_evict_tasks_is_refused",
            a_server_that_may_evict_tasks_is_refused,
        ),
        trial(
            "another_number_of_shards_is_refused",
            another_number_of_shards_is_refused,
        ),
        trial(
            "tasks_missing_from_a_set_are_restored",
            tasks_missing_from_a_set_are_restored,
        ),
        trial("prefixes_separate_queues", prefixes_separate_queues),
        trial(
            "holders_get_time_to_renew_after_a_gap",
            holders_get_time_to_renew_after_a_gap,
        ),
        trial(
            "a_dropped_lease_call_releases_its_tasks",
            a_dropped_lease_call_releases_its_tasks,
        ),
        trial("a_lost_answer_is_repeated", a_lost_answer_is_repeated),
    ]);
    trials
}

pub(super) fn trial<F>(name: &str, case: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = ()>,
{
    let name = format!("queue::redis::{name}");
    support::trial_needing(&name, Kind::Redis.is_installed(), case)
}

async fn on_redis(case: Case, shards: u32) {
    let server = Server::start(Kind::Redis).await;
    let settings = config::RedisQueue {
        shards,
        max_open_tasks: MAX_OPEN_TASKS,
        ..settings(&server)
    };
    let open = || async {
        let queue = RedisQueue::open(&settings).await.unwrap();
        Arc::new(queue) as Arc<dyn TaskQueue>
    };
    case.run(open).await;
}

pub(super) fn settings(server: &Server) -> config::RedisQueue {
    config::RedisQueue {
        server: config::Redis::at(&server.url(), "test").unwrap(),
        shards: 1,
        max_open_tasks: MAX_OPEN_TASKS,
        replicas: 0,
        reserve_percent: config::RedisQueue::RESERVE_PERCENT,
    }
}

pub(super) async fn open(server: &Server) -> RedisQueue {
    RedisQueue::open(&settings(server)).await.unwrap()
}

pub(super) async fn refusal(settings: &config::RedisQueue) -> String {
    match RedisQueue::open(settings).await {
        Err(Error::Misconfigured(why)) => why,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it opened"),
    }
}

/// Sends a command to the server.
pub(super) async fn say(server: &Server, words: &[&str]) -> redis::Value {
    server.command(words).await.unwrap()
}

pub(super) async fn until(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !ask().await {
        assert!(since.elapsed() < DEADLINE, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn queues_share_their_tasks() {
    let server = Server::start(Kind::Redis).await;
    share_their_tasks(&settings(&server)).await;
}

async fn a_pause_holds_at_the_other_queues() {
    let server = Server::start(Kind::Redis).await;
    let (here, there) = (open(&server).await, open(&server).await);
    let paused = here.pause_type(&name("echo"), Some("why".into())).await;
    let pause = paused.unwrap().expect("a pause");
    until("the other queue knows it", async || {
        there.paused_types().get("echo") == Some(&pause)
    })
    .await;
    here.submit(vec![task("t", "echo", b"x")]).await.unwrap();
    let echo = request(&[("echo", 1)], 1, HOUR);
    for queue in [&here, &there] {
        assert!(queue.lease(&echo).await.unwrap().is_empty());
        assert_eq!(queue.next_due(&echo).await.unwrap(), None);
    }
    // A queue that is opened later knows it from the beginning.
    let later = open(&server).await;
    assert!(later.lease(&echo).await.unwrap().is_empty());
    // A hand-off that waits takes no task of a type that is paused meanwhile.
    let other = request(&[("other", 1)], 1, HOUR);
    let (handed_off, ()) = tokio::join!(here.hand_off(&other), async {
        here.pause_type(&name("other"), None).await.unwrap();
        here.submit(vec![task("u", "other", b"x")]).await.unwrap();
    });
    assert!(handed_off.unwrap().is_empty());
    assert!(there.resume_type(&name("echo")).await.unwrap());
    until("the type is resumed", async || {
        !here.lease(&echo).await.unwrap().is_empty()
    })
    .await;
}

/// Two queues with the same settings share their tasks.
pub(super) async fn share_their_tasks(settings: &config::RedisQueue) {
    let open = || RedisQueue::open(settings);
    let (here, there) = (open().await.unwrap(), open().await.unwrap());
    let mut watch = there.watch();
    // The event readers need a moment to start.
    until("the other queue sees the task", async || {
        let id = format!("t{}", fastrand::u64(..));
        here.submit(vec![task(&id, "echo", b"x")]).await.unwrap();
        let change = async {
            loop {
                match watch.next().await {
                    Some(Changes::Batch(changes)) if changes.iter().any(|c| c.id == name(&id)) => {
                        return changes;
                    }
                    _ => {}
                }
            }
        };
        let change = tokio::time::timeout(Duration::from_millis(500), change).await;
        change.is_ok_and(|changes| changes[0].state == StateKind::Pending)
    })
    .await;
    let leased = there
        .lease(&request(&[("echo", 1)], 1, HOUR))
        .await
        .unwrap();
    let token = leased[0].token.clone();
    // The token is valid at every queue.
    let renewed = here.renew(&[token.clone().into()], HOUR).await;
    assert_eq!(renewed.unwrap(), [Renewal::Held]);
    let result = "done".into();
    let finished = finish_one(&here, &token, Outcome::Completed { result }).await;
    assert_eq!(finished, Finished::Applied);
    let again = finish_one(&there, &token, Outcome::Cancelled).await;
    assert_eq!(again, Finished::Stale);
    let ended = there.get(&token.id).await.unwrap().unwrap();
    assert_eq!(ended.state.kind(), StateKind::Completed);
    // Closing one queue does not affect the other.
    here.close().await;
    assert!(there.get(&token.id).await.is_ok());
    there.close().await;
}

async fn the_durability_is_detected() {
    let server = Server::start(Kind::Redis).await;
    for (setting, expected) in [
        (["appendfsync", "everysec"], Durability::Periodic),
        (["appendfsync", "always"], Durability::Synced),
        (["appendonly", "no"], Durability::Memory),
    ] {
        say(&server, &["CONFIG", "SET", setting[0], setting[1]]).await;
        let queue = open(&server).await;
        assert_eq!(queue.durability(), expected);
        queue.close().await;
    }
    // It may change while a node runs.
    let queue = open(&server).await;
    assert_eq!(queue.durability(), Durability::Memory);
    say(&server, &["CONFIG", "SET", "appendonly", "yes"]).await;
    until("the queue detects the change", async || {
        queue.durability() == Durability::Synced
    })
    .await;
    queue.close().await;
    let user = [
        "ACL", "SETUSER", "app", "on", ">pass", "~*", "+@all", "-config",
    ];
    say(&server, &user).await;
    let mut limited = settings(&server);
    let url = server.url().replace("redis://", "redis://app:pass@");
    limited.server = config::Redis::at(&url, "test").unwrap();
    let queue = RedisQueue::open(&limited).await.unwrap();
    assert_eq!(queue.durability(), Durability::Unknown);
    assert_eq!(
        queue.submit(vec![task("t", "echo", b"x")]).await.unwrap(),
        [Submitted::Created]
    );
    queue.close().await;
    // There is no replica, so no submission is confirmed.
    let replicated = config::RedisQueue {
        replicas: 1,
        ..settings(&server)
    };
    let queue = RedisQueue::open(&replicated).await.unwrap();
    assert_eq!(queue.durability(), Durability::Replicated);
    let refused = queue.submit(vec![task("u", "echo", b"x")]).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("0 of 1 replicas"), "{refused}");
    queue.close().await;
}

async fn a_server_that_may_evict_tasks_is_refused() {
    let server = Server::start(Kind::Redis).await;
    say(
        &server,
        &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"],
    )
    .await;
    let why = refusal(&settings(&server)).await;
    assert!(
        why.contains("allkeys-lru") && why.contains("noeviction"),
        "{why}"
    );
    // A server that begins to evict later reduces the durability.
    let policy = async |policy: &str| {
        say(&server, &["CONFIG", "SET", "maxmemory-policy", policy]).await;
    };
    policy("noeviction").await;
    say(&server, &["CONFIG", "SET", "appendonly", "yes"]).await;
    let queue = open(&server).await;
    assert_eq!(queue.durability(), Durability::Periodic);
    policy("allkeys-lru").await;
    until("the queue detects the policy", async || {
        queue.durability() == Durability::Memory
    })
    .await;
    queue.close().await;
    let mut wrong = settings(&server);
    wrong.server = config::Redis::at("redis://127.0.0.1:port", "test").unwrap();
    let why = refusal(&wrong).await;
    assert!(why.contains("queue.url"), "{why}");
}

async fn holders_get_time_to_renew_after_a_gap() {
    const TTL: Duration = Duration::from_secs(3);
    let server = Server::start(Kind::Redis).await;
    let queue = open(&server).await;
    let tasks = ["a", "b"].map(|id| task(id, "echo", b"x"));
    queue.submit(tasks.into()).await.unwrap();
    let expired = async || queue.expired(TTL, &[], 9).await.unwrap().len();
    let short = request(&[("echo", 1)], 1, Duration::from_millis(1));
    queue.lease(&short).await.unwrap();
    // No query was made before, and then none for longer than a second and a third of a lease.
    assert_eq!(expired().await, 0);
    until("the lease counts as expired", async || expired().await == 1).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(expired().await, 0);
    until("the lease counts as expired again", async || {
        expired().await == 1
    })
    .await;
    // Between frequent queries a lease expires at once.
    queue.lease(&short).await.unwrap();
    let since = Instant::now();
    until("both leases are expired", async || expired().await == 2).await;
    println!("expired after {:?}", since.elapsed());
    queue.close().await;
}

async fn another_number_of_shards_is_refused() {
    let server = Server::start(Kind::Redis).await;
    let queue = open(&server).await;
    queue.submit(vec![task("t", "echo", b"x")]).await.unwrap();
    queue.close().await;
    let other = config::RedisQueue {
        shards: 2,
        ..settings(&server)
    };
    let why = refusal(&other).await;
    assert!(why.contains("1 shards") && why.contains("is 2"), "{why}");
}

async fn tasks_missing_from_a_set_are_restored() {
    let server = Server::start(Kind::Redis).await;
    let queue = open(&server).await;
    let batch = (0..4).map(|n| task(&format!("t{n}"), "echo", b"x"));
    queue.submit(batch.collect()).await.unwrap();
    let short = request(&[("echo", 2)], 2, Duration::ZERO);
    assert_eq!(queue.lease(&short).await.unwrap().len(), 2);
    say(
        &server,
        &["DEL", "{test:0}:ready:echo", "{test:0}:leases:echo"],
    )
    .await;
    let all = request(&[("echo", 9)], 9, HOUR);
    assert!(queue.lease(&all).await.unwrap().is_empty());
    until("the sets are restored", async || {
        queue.expired(Duration::ZERO, &[], 9).await.unwrap().len() == 2
    })
    .await;
    assert_eq!(queue.lease(&all).await.unwrap().len(), 2);
    queue.close().await;
}

async fn prefixes_separate_queues() {
    let server = Server::start(Kind::Redis).await;
    let here = open(&server).await;
    let other = config::RedisQueue {
        server: config::Redis::at(&server.url(), "other").unwrap(),
        ..settings(&server)
    };
    let there = RedisQueue::open(&other).await.unwrap();
    here.submit(vec![task("t", "echo", b"x")]).await.unwrap();
    assert!(there.get(&name("t")).await.unwrap().is_none());
    let all = request(&[("echo", 9)], 9, HOUR);
    assert!(there.lease(&all).await.unwrap().is_empty());
    here.close().await;
    there.close().await;
}

async fn a_dropped_lease_call_releases_its_tasks() {
    let server = Server::start(Kind::Redis).await;
    let queue = open(&server).await;
    queue.submit(vec![task("t", "echo", b"x")]).await.unwrap();
    let all = request(&[("echo", 9)], 9, HOUR);
    // Polled once, so that the call is sent, and dropped.
    let mut leasing = Box::pin(queue.lease(&all));
    let _ = futures_util::poll!(&mut leasing);
    drop(leasing);
    let mut leased = Vec::new();
    until("the task is released", async || {
        leased = queue.lease(&all).await.unwrap();
        !leased.is_empty()
    })
    .await;
    assert_eq!(leased[0].attempt, 1);
    queue.close().await;
}

async fn a_lost_answer_is_repeated() {
    let server = Server::start(Kind::Redis).await;
    let queue = open(&server).await;
    let batch = (0..4).map(|n| task(&format!("t{n}"), "echo", b"x"));
    queue.submit(batch.collect()).await.unwrap();
    let two = request(&[("echo", 2)], 2, HOUR);
    let ids = |leased: &[Leased]| {
        let ids = leased.iter().map(|leased| leased.token.id.to_string());
        ids.collect::<Vec<_>>().join(" ")
    };
    // The call reaches Redis, which executes it long after the caller has given up.
    server.pause();
    let timed_out = queue.lease(&two).await;
    assert!(matches!(timed_out, Err(Error::Unavailable { .. })));
    server.resume();
    let mut leased = Vec::new();
    until("Redis is back", async || match queue.lease(&two).await {
        Ok(answer) => {
            leased = answer;
            true
        }
        Err(_) => false,
    })
    .await;
    assert_eq!(ids(&leased), "t0 t1");
    assert!(leased.iter().all(|leased| leased.attempt == 1));
    let counts = queue.counts().await.unwrap();
    assert_eq!(counts[&(name("echo"), StateKind::Running)], 2);
    // The tokens are valid, and the next call leases other tasks.
    for leased in &leased {
        let result = "x".into();
        let finished = finish_one(&queue, &leased.token, Outcome::Completed { result }).await;
        assert_eq!(finished, Finished::Applied);
    }
    // A task that does not fit the next request is released.
    server.pause();
    assert!(queue.lease(&two).await.is_err());
    server.resume();
    let mut leased = Vec::new();
    let one = request(&[("echo", 1)], 1, HOUR);
    until("Redis is back again", async || {
        leased = queue.lease(&one).await.unwrap_or_default();
        !leased.is_empty()
    })
    .await;
    assert_eq!(ids(&leased), "t2");
    until("the other task is released", async || {
        leased = queue.lease(&two).await.unwrap();
        !leased.is_empty()
    })
    .await;
    assert_eq!((ids(&leased), leased[0].attempt), ("t3".into(), 1));
    queue.close().await;
}
