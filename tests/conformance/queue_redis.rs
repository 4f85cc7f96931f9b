//! The queue's suite over Redis, and what only a server, and several who share it, can show.

use super::queue::{self, Case, MAX_OPEN_TASKS, finish_one, name, task, want};
use crate::support::{
    self, PATIENCE,
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
    for case in queue::cases() {
        trials.push(trial(case.name(), move || on_redis(case, 1)));
        if !case.requires_total_order() {
            let name = format!("{}_in_three_shards", case.name());
            trials.push(trial(&name, move || on_redis(case, 3)));
        }
    }
    trials.extend([
        trial("queues_share_their_tasks", queues_share_their_tasks),
        trial("durability_is_found_out", durability_is_found_out),
        trial(
            "who_may_throw_tasks_away_is_refused",
            who_may_throw_tasks_away_is_refused,
        ),
        trial(
            "another_number_of_shards_is_refused",
            another_number_of_shards_is_refused,
        ),
        trial(
            "what_is_lost_from_its_set_is_put_back",
            what_is_lost_from_its_set_is_put_back,
        ),
        trial("prefixes_are_worlds_apart", prefixes_are_worlds_apart),
        trial(
            "who_may_have_been_kept_from_renewing_is_first",
            who_may_have_been_kept_from_renewing_is_first,
        ),
        trial("a_dropped_lease_goes_back", a_dropped_lease_goes_back),
        trial(
            "an_answer_that_was_lost_comes_again",
            an_answer_that_was_lost_comes_again,
        ),
    ]);
    trials
}

pub(super) fn trial<F>(name: &str, case: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = ()>,
{
    let name = format!("queue::redis::{name}");
    support::trial_needing(&name, Kind::Redis.is_here(), case)
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

/// Says something to the server.
pub(super) async fn say(server: &Server, words: &[&str]) -> redis::Value {
    server.say(words).await.unwrap()
}

pub(super) async fn until(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !ask().await {
        assert!(since.elapsed() < PATIENCE, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn queues_share_their_tasks() {
    let server = Server::start(Kind::Redis).await;
    share_their_tasks(&settings(&server)).await;
}

/// Two queues of one Redis, which is reached as these say.
pub(super) async fn share_their_tasks(settings: &config::RedisQueue) {
    let open = || RedisQueue::open(settings);
    let (here, there) = (open().await.unwrap(), open().await.unwrap());
    let mut watch = there.watch();
    // Readers need a moment to be where the events are.
    until("the other queue hears", async || {
        let id = format!("t{}", fastrand::u64(..));
        here.submit(vec![task(&id, "echo", b"x")]).await.unwrap();
        let heard = async {
            loop {
                match watch.next().await {
                    Some(Changes::Batch(changes)) if changes.iter().any(|c| c.id == name(&id)) => {
                        return changes;
                    }
                    _ => {}
                }
            }
        };
        let heard = tokio::time::timeout(Duration::from_millis(500), heard).await;
        heard.is_ok_and(|changes| changes[0].state == StateKind::Pending)
    })
    .await;
    let leased = there.lease(&want(&[("echo", 1)], 1, HOUR)).await.unwrap();
    let token = leased[0].token.clone();
    // Whoever has the token has the task, at whatever queue.
    let renewed = here.renew(std::slice::from_ref(&token), HOUR).await;
    assert_eq!(renewed.unwrap(), [Renewal::Held]);
    let result = "done".into();
    let finished = finish_one(&here, &token, Outcome::Completed { result }).await;
    assert_eq!(finished, Finished::Applied);
    let again = finish_one(&there, &token, Outcome::Cancelled).await;
    assert_eq!(again, Finished::Stale);
    let ended = there.get(&token.id).await.unwrap().unwrap();
    assert_eq!(ended.state.kind(), StateKind::Completed);
    // One that is closed leaves the other alone.
    here.close().await;
    assert!(there.get(&token.id).await.is_ok());
    there.close().await;
}

async fn durability_is_found_out() {
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
    until("the queue has seen it", async || {
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
    // Nobody replicates here: what cannot be confirmed is not accepted.
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

async fn who_may_throw_tasks_away_is_refused() {
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
    // One that begins to do so later has everybody told that a task survives little.
    let policy = async |policy: &str| {
        say(&server, &["CONFIG", "SET", "maxmemory-policy", policy]).await;
    };
    policy("noeviction").await;
    say(&server, &["CONFIG", "SET", "appendonly", "yes"]).await;
    let queue = open(&server).await;
    assert_eq!(queue.durability(), Durability::Periodic);
    policy("allkeys-lru").await;
    until("it is seen", async || {
        queue.durability() == Durability::Memory
    })
    .await;
    queue.close().await;
    let mut wrong = settings(&server);
    wrong.server = config::Redis::at("redis://127.0.0.1:port", "test").unwrap();
    let why = refusal(&wrong).await;
    assert!(why.contains("queue.url"), "{why}");
}

async fn who_may_have_been_kept_from_renewing_is_first() {
    const TTL: Duration = Duration::from_secs(3);
    let server = Server::start(Kind::Redis).await;
    let queue = open(&server).await;
    let tasks = ["a", "b"].map(|id| task(id, "echo", b"x"));
    queue.submit(tasks.into()).await.unwrap();
    let lost = async || queue.expired(TTL, &[], 9).await.unwrap().len();
    let short = want(&[("echo", 1)], 1, Duration::from_millis(1));
    queue.lease(&short).await.unwrap();
    // Nobody has looked until now, and then nobody does for longer than a second and a third of a lease.
    assert_eq!(lost().await, 0);
    until("it counts as lost", async || lost().await == 1).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(lost().await, 0);
    until("it counts as lost again", async || lost().await == 1).await;
    // While somebody looks, what runs out is lost at once.
    queue.lease(&short).await.unwrap();
    let since = Instant::now();
    until("both are lost", async || lost().await == 2).await;
    println!("lost after {:?}", since.elapsed());
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

async fn what_is_lost_from_its_set_is_put_back() {
    let server = Server::start(Kind::Redis).await;
    let queue = open(&server).await;
    let batch = (0..4).map(|n| task(&format!("t{n}"), "echo", b"x"));
    queue.submit(batch.collect()).await.unwrap();
    let short = want(&[("echo", 2)], 2, Duration::ZERO);
    assert_eq!(queue.lease(&short).await.unwrap().len(), 2);
    say(&server, &["DEL", "{test:0}:r:echo", "{test:0}:leases"]).await;
    let all = want(&[("echo", 9)], 9, HOUR);
    assert!(queue.lease(&all).await.unwrap().is_empty());
    until("the sets are mended", async || {
        queue.expired(Duration::ZERO, &[], 9).await.unwrap().len() == 2
    })
    .await;
    assert_eq!(queue.lease(&all).await.unwrap().len(), 2);
    queue.close().await;
}

async fn prefixes_are_worlds_apart() {
    let server = Server::start(Kind::Redis).await;
    let here = open(&server).await;
    let other = config::RedisQueue {
        server: config::Redis::at(&server.url(), "other").unwrap(),
        ..settings(&server)
    };
    let there = RedisQueue::open(&other).await.unwrap();
    here.submit(vec![task("t", "echo", b"x")]).await.unwrap();
    assert!(there.get(&name("t")).await.unwrap().is_none());
    let all = want(&[("echo", 9)], 9, HOUR);
    assert!(there.lease(&all).await.unwrap().is_empty());
    here.close().await;
    there.close().await;
}

async fn a_dropped_lease_goes_back() {
    let server = Server::start(Kind::Redis).await;
    let queue = open(&server).await;
    queue.submit(vec![task("t", "echo", b"x")]).await.unwrap();
    let all = want(&[("echo", 9)], 9, HOUR);
    // Polled once, so that it is on its way, and dropped.
    let mut leasing = Box::pin(queue.lease(&all));
    let _ = futures_util::poll!(&mut leasing);
    drop(leasing);
    let mut leased = Vec::new();
    until("the task is back", async || {
        leased = queue.lease(&all).await.unwrap();
        !leased.is_empty()
    })
    .await;
    assert_eq!(leased[0].attempt, 1);
    queue.close().await;
}

async fn an_answer_that_was_lost_comes_again() {
    let server = Server::start(Kind::Redis).await;
    let queue = open(&server).await;
    let batch = (0..4).map(|n| task(&format!("t{n}"), "echo", b"x"));
    queue.submit(batch.collect()).await.unwrap();
    let two = want(&[("echo", 2)], 2, HOUR);
    let ids = |leased: &[Leased]| {
        let ids = leased.iter().map(|leased| leased.token.id.to_string());
        ids.collect::<Vec<_>>().join(" ")
    };
    // The call reaches Redis, which handles it long after anybody waits for the answer.
    server.pause();
    let unheard = queue.lease(&two).await;
    assert!(matches!(unheard, Err(Error::Unavailable { .. })));
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
    // They are its own, and what it asks for next is something else.
    for leased in &leased {
        let result = "x".into();
        let finished = finish_one(&queue, &leased.token, Outcome::Completed { result }).await;
        assert_eq!(finished, Finished::Applied);
    }
    // What there is no room for by now goes back, as it was.
    server.pause();
    assert!(queue.lease(&two).await.is_err());
    server.resume();
    let mut leased = Vec::new();
    let one = want(&[("echo", 1)], 1, HOUR);
    until("Redis is back again", async || {
        leased = queue.lease(&one).await.unwrap_or_default();
        !leased.is_empty()
    })
    .await;
    assert_eq!(ids(&leased), "t2");
    until("the other one is back", async || {
        leased = queue.lease(&two).await.unwrap();
        !leased.is_empty()
    })
    .await;
    assert_eq!((ids(&leased), leased[0].attempt), ("t3".into(), 1));
    queue.close().await;
}
