//! Unique keys in the Redis queue where something fails between the steps of a submission: no key is blocked
//! for ever, and no second task gets a key.

use super::{
    queue::{finish_one, name, request, with_options},
    queue_redis::{HOUR, say, settings, trial, until},
};
use crate::support::servers::{Kind, Server};
use hostel::{
    config,
    queue::{Error, RedisQueue, Submitted, TaskQueue},
    task::{Outcome, Submission, TaskOptions, Unique},
};
use libtest_mimic::Trial;
use std::time::Duration;

/// The script itself, for a submission that arrives late.
const SUBMIT: &str = concat!(
    include_str!("../../host/queue/redis/scripts/shared/base.lua"),
    include_str!("../../host/queue/redis/scripts/shared/library.lua"),
    include_str!("../../host/queue/redis/scripts/shared/memory.lua"),
    include_str!("../../host/queue/redis/scripts/submit.lua"),
);

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "a_reservation_without_a_task_ends",
            a_reservation_without_a_task_ends,
        ),
        trial(
            "a_task_without_a_confirmation_has_its_key",
            a_task_without_a_confirmation_has_its_key,
        ),
        trial(
            "a_late_submission_stores_no_second_task",
            a_late_submission_stores_no_second_task,
        ),
        trial(
            "keys_of_ended_tasks_are_deleted",
            keys_of_ended_tasks_are_deleted,
        ),
        trial(
            "keys_are_spread_over_the_shards",
            keys_are_spread_over_the_shards,
        ),
    ]
}

fn keyed(id: &str, key: &str) -> Submission {
    let unique = Some(Unique {
        key: name(key),
        time: None,
    });
    let options = TaskOptions {
        unique,
        ..TaskOptions::default()
    };
    with_options(id, "echo", options)
}

async fn submit(queue: &RedisQueue, id: &str, key: &str) -> Result<Submitted, Error> {
    let answers = queue.submit(vec![keyed(id, key)]).await;
    answers.map(|mut answers| answers.remove(0))
}

/// Writes a reservation as a node leaves it that dies before it has stored the task.
async fn reserve(server: &Server, queue: &RedisQueue, id: &str, key: &str, age: Duration) {
    let since = queue.now().0 - u64::try_from(age.as_millis()).unwrap();
    let entry = format!("{id} token {since} {since} 0");
    let unique = "{test:0}:unique";
    say(server, &["HSET", unique, &format!("echo {key}"), &entry]).await;
}

async fn a_reservation_without_a_task_ends() {
    let server = Server::start(Kind::Redis).await;
    let queue = RedisQueue::open(&settings(&server)).await.unwrap();
    // The first one makes the queue know the time of Redis.
    submit(&queue, "first", "other").await.unwrap();
    // A task may be on its way at first. Its own submission may be repeated at once.
    reserve(&server, &queue, "ghost", "k1", Duration::ZERO).await;
    match submit(&queue, "a", "k1").await {
        Err(Error::Unavailable {
            reason,
            outcome_unknown: false,
        }) => assert!(reason.contains("unique key"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let created = submit(&queue, "ghost", "k1").await.unwrap();
    assert_eq!(created, Submitted::Created);
    let duplicate = submit(&queue, "a", "k1").await.unwrap();
    assert_eq!(duplicate, Submitted::Duplicate(name("ghost")));
    // Later it has no claim any more.
    let age = Duration::from_secs(10);
    reserve(&server, &queue, "lost", "k2", age).await;
    assert_eq!(submit(&queue, "b", "k2").await.unwrap(), Submitted::Created);
    let answer = submit(&queue, "lost", "k2").await.unwrap();
    assert_eq!(answer, Submitted::Duplicate(name("b")));
    queue.close().await;
}

async fn a_task_without_a_confirmation_has_its_key() {
    let server = Server::start(Kind::Redis).await;
    let queue = RedisQueue::open(&settings(&server)).await.unwrap();
    submit(&queue, "a", "k").await.unwrap();
    for age in [0, 3600] {
        let age = Duration::from_secs(age);
        reserve(&server, &queue, "a", "k", age).await;
        let answer = submit(&queue, "b", "k").await.unwrap();
        assert_eq!(answer, Submitted::Duplicate(name("a")));
    }
    // A task of this id that has another key has no claim.
    let age = Duration::from_secs(3600);
    reserve(&server, &queue, "a", "k2", age).await;
    assert_eq!(submit(&queue, "c", "k2").await.unwrap(), Submitted::Created);
    queue.close().await;
}

/// A submission that was on its way for long is refused by the shard, so that another may have taken the key.
async fn a_late_submission_stores_no_second_task() {
    let server = Server::start(Kind::Redis).await;
    let queue = RedisQueue::open(&settings(&server)).await.unwrap();
    submit(&queue, "first", "other").await.unwrap();
    let till = async |till: u64| {
        let asks = format!("0 0 {till} 0");
        let content = "0 0 - - k\n{\"lane\":\"echo\",\"options\":{}}\nx";
        let limits = ["100", "10", "0", "0", "1000", "", "0"];
        let call = ["EVAL", SUBMIT, "2", "{test:0}", "{test:0}:shard", "queue"];
        let task = ["late", "echo", &asks, content];
        let answer = say(&server, &[&call[..], &limits, &task].concat()).await;
        let answer: (u64, u64, String, Vec<String>) =
            redis::FromRedisValue::from_redis_value(answer).unwrap();
        answer.2
    };
    assert_eq!(till(1).await, "v");
    let soon = queue.now().after(HOUR).0;
    // Another submission finds that the task is missing, and takes its key.
    let age = Duration::from_secs(3600);
    reserve(&server, &queue, "late", "k", age).await;
    let now = queue.now().0;
    assert_eq!(submit(&queue, "a", "k").await.unwrap(), Submitted::Created);
    assert_eq!(till(now + 7000).await, "v");
    assert!(queue.get(&name("late")).await.unwrap().is_none());
    // A reservation that was made later is none of those.
    assert_eq!(till(soon).await, "n");
    queue.close().await;
}

async fn keys_of_ended_tasks_are_deleted() {
    let server = Server::start(Kind::Redis).await;
    let queue = RedisQueue::open(&settings(&server)).await.unwrap();
    for (id, key) in [("ends", "k1"), ("waits", "k2")] {
        submit(&queue, id, key).await.unwrap();
    }
    let leased = queue.lease(&request(&[("echo", 1)], 1, HOUR)).await;
    let token = &leased.unwrap()[0].token;
    assert_eq!(token.id, name("ends"));
    finish_one(&queue, token, Outcome::Cancelled).await;
    reserve(&server, &queue, "never", "k3", HOUR).await;
    // Their turn comes after seconds at the earliest.
    let held = "{test:0}:held";
    for key in ["k1", "k2", "k3", "k4"] {
        say(&server, &["ZADD", held, "1", &format!("echo {key}")]).await;
    }
    let keys = async |command: &str, key: &str| {
        let keys = say(&server, &[command, key]).await;
        let keys: Vec<String> = redis::FromRedisValue::from_redis_value(keys).unwrap();
        keys
    };
    until("unused keys are deleted", async || {
        keys("HKEYS", "{test:0}:unique").await == ["echo k2"]
    })
    .await;
    let held = say(&server, &["ZRANGE", held, "0", "-1"]).await;
    let held: Vec<String> = redis::FromRedisValue::from_redis_value(held).unwrap();
    assert_eq!(held, ["echo k2"]);
    let answer = submit(&queue, "x", "k2").await.unwrap();
    assert_eq!(answer, Submitted::Duplicate(name("waits")));
    queue.close().await;
}

async fn keys_are_spread_over_the_shards() {
    const KEYS: usize = 60;
    let server = Server::start(Kind::Redis).await;
    let settings = config::RedisQueue {
        shards: 3,
        ..settings(&server)
    };
    let (here, there) = (
        RedisQueue::open(&settings).await.unwrap(),
        RedisQueue::open(&settings).await.unwrap(),
    );
    let batch = |what: &str| {
        let tasks = (0..KEYS).map(|n| keyed(&format!("{what}{n}"), &format!("k{n}")));
        tasks.collect::<Vec<_>>()
    };
    // Two nodes submit other tasks with the same keys at the same time.
    let (a, b) = tokio::join!(here.submit(batch("a")), there.submit(batch("b")));
    for (n, (a, b)) in a.unwrap().into_iter().zip(b.unwrap()).enumerate() {
        match (a, b) {
            (Submitted::Created, Submitted::Duplicate(id)) => {
                assert_eq!(id, name(&format!("a{n}")))
            }
            (Submitted::Duplicate(id), Submitted::Created) => {
                assert_eq!(id, name(&format!("b{n}")))
            }
            other => panic!("{n}: {other:?}"),
        }
    }
    let leased = here.lease(&request(&[("echo", 999)], 999, HOUR)).await;
    assert_eq!(leased.unwrap().len(), KEYS);
    for shard in 0..3 {
        let keys = say(&server, &["HLEN", &format!("{{test:{shard}}}:unique")]).await;
        let keys: usize = redis::FromRedisValue::from_redis_value(keys).unwrap();
        assert!(keys > 0 && keys < KEYS, "{keys} in shard {shard}");
    }
    here.close().await;
    there.close().await;
}
