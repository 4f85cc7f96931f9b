//! The sweep over the shared queue: what is spoiled by hand comes right, and what is not is left
//! alone, whatever happens meanwhile.

use super::{
    queue::{finish_one, limited, name, task, want},
    queue_redis::{open, say, until},
};
use crate::support::{
    self,
    servers::{Kind, Server},
};
use hostel::{
    queue::{Counts, RedisQueue, Submitted, TaskQueue},
    task::{Outcome, StateKind},
};
use libtest_mimic::Trial;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinSet;

const HOUR: Duration = Duration::from_secs(3600);

/// How often the sweep goes through all tasks while they change.
const PASSES: u64 = 200;

/// The script itself, for a test that cannot wait for the sweep's turn.
const MEND: &str = concat!(
    include_str!("../../host/queue/redis/script/common.lua"),
    include_str!("../../host/queue/redis/script/mend.lua"),
);

pub fn trials() -> Vec<Trial> {
    vec![
        trial("counters_come_right", counters_come_right),
        trial("strays_are_dropped", strays_are_dropped),
        trial(
            "the_sweep_changes_nothing_sound",
            the_sweep_changes_nothing_sound,
        ),
    ]
}

fn trial<F>(name: &str, case: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = ()>,
{
    let name = format!("queue::redis::{name}");
    support::trial_needing(&name, Kind::Redis.is_here(), case)
}

/// Two wait, two run, one failed.
async fn some_tasks(queue: &RedisQueue) -> Counts {
    let batch = (0..5).map(|n| task(&format!("t{n}"), "echo", b"x"));
    queue.submit(batch.collect()).await.unwrap();
    let leased = queue.lease(&want(&[("echo", 3)], 3, HOUR)).await.unwrap();
    let error = "no".into();
    finish_one(queue, &leased[0].token, Outcome::Failed { error }).await;
    let counts = queue.counts().await.unwrap();
    let echo = |state| (name("echo"), state);
    let expected = [
        (echo(StateKind::Pending), 2),
        (echo(StateKind::Running), 2),
        (echo(StateKind::Failed), 1),
    ];
    assert_eq!(counts, expected.into_iter().collect());
    counts
}

async fn counters_come_right() {
    let server = Server::start(Kind::Redis).await;
    let queue = open(&server).await;
    let counts = some_tasks(&queue).await;
    let wrong = [
        "HSET",
        "{test:0}:n",
        "r echo",
        "99",
        "p ghost",
        "7",
        "c echo",
        "-3",
        "open",
        "5000",
    ];
    say(&server, &wrong).await;
    say(&server, &["HDEL", "{test:0}:n", "f echo"]).await;
    // What counts on them stands still.
    let limited = limited(want(&[("echo", 1)], 1, HOUR), "echo", 3);
    assert!(queue.lease(&limited).await.unwrap().is_empty());
    let more = async || {
        queue
            .submit(vec![task("more", "echo", b"x")])
            .await
            .unwrap()
    };
    assert_eq!(more().await, [Submitted::Full]);
    until("the counters are right", async || {
        queue.counts().await.unwrap() == counts
    })
    .await;
    assert_eq!(queue.lease(&limited).await.unwrap().len(), 1);
    assert!(queue.lease(&limited).await.unwrap().is_empty(), "three run");
    assert_eq!(more().await, [Submitted::Created]);
    queue.close().await;
}

async fn strays_are_dropped() {
    let server = Server::start(Kind::Redis).await;
    let queue = open(&server).await;
    let counts = some_tasks(&queue).await;
    let far = "9000000000000";
    let places = [
        ("ended", "t4"), // which waits
        ("ended", "nobody"),
        ("dead:f", "t4"),
        ("dead:x", "t0"), // which failed
        ("leases", "t0"),
        ("leases", "nobody"),
    ];
    for (set, id) in places {
        say(&server, &["ZADD", &format!("{{test:0}}:{set}"), far, id]).await;
    }
    // A place in another lane hands nobody a task that is not for him.
    say(&server, &["ZADD", "{test:0}:r:other", "1", "t4"]).await;
    let other = want(&[("other", 1)], 1, HOUR);
    assert!(queue.lease(&other).await.unwrap().is_empty());
    // Who asks for the ended ones to be forgotten does not lose one that waits.
    say(&server, &["ZADD", "{test:0}:ended", "1", "t3"]).await;
    assert_eq!(queue.purge(HOUR, 9).await.unwrap(), 1);
    assert!(queue.get(&name("t3")).await.unwrap().is_some());
    until("they are dropped", async || {
        let mut left = false;
        for (set, id) in places {
            let place = say(&server, &["ZSCORE", &format!("{{test:0}}:{set}"), id]).await;
            left |= place != redis::Value::Nil;
        }
        !left
    })
    .await;
    assert_eq!(queue.counts().await.unwrap(), counts);
    queue.close().await;
}

async fn mend(server: &Server) -> (u64, u64) {
    let keys = ["2", "{test:0}", "{test:0}:n"];
    let words = [&["EVAL", MEND][..], &keys, &["test", "7"]].concat();
    let answer = say(server, &words).await;
    redis::FromRedisValue::from_redis_value(answer).unwrap()
}

/// Each script that changes a task keeps the sweep's counting in step, wherever it is.
async fn the_sweep_changes_nothing_sound() {
    let server = Server::start(Kind::Redis).await;
    let queue = Arc::new(open(&server).await);
    let over = Arc::new(AtomicBool::new(false));
    let mut random = support::random("the sweep");
    let mut doing = JoinSet::new();
    for _ in 0..3 {
        let (queue, over, random) = (queue.clone(), over.clone(), random.fork());
        doing.spawn(async move { do_anything(&queue, &over, random).await });
    }
    // Each pass finds what was spoiled at its beginning, and nothing else. What it has counted agrees with
    // the sets at its end, or it would find nothing at all.
    let mut found = 0;
    for pass in 0..PASSES {
        say(&server, &["HSET", "{test:0}:n", "p ghost", "1"]).await;
        let mut in_pass = 0;
        loop {
            let (mended, is_over) = mend(&server).await;
            in_pass += mended;
            if is_over == 1 {
                break;
            }
        }
        assert!(in_pass <= 1, "{in_pass} in pass {pass}");
        found += in_pass;
    }
    over.store(true, Ordering::Relaxed);
    while let Some(done) = doing.join_next().await {
        done.unwrap();
    }
    // The queue's own sweep may have ended one of the passes, now and then.
    assert!(found > PASSES * 9 / 10, "{found} of {PASSES}");
    queue.close().await;
}

async fn do_anything(queue: &RedisQueue, over: &AtomicBool, mut random: fastrand::Rng) {
    while !over.load(Ordering::Relaxed) {
        let id = format!("t{}", random.u8(..60));
        match random.u8(..8) {
            0..3 => {
                queue.submit(vec![task(&id, "echo", b"x")]).await.unwrap();
            }
            3..5 => {
                let want = want(&[("echo", 3)], 3, HOUR);
                for leased in queue.lease(&want).await.unwrap() {
                    let outcome = match random.u8(..5) {
                        0 => Outcome::Completed { result: "x".into() },
                        1 => Outcome::Failed { error: "x".into() },
                        2 => Outcome::Cancelled,
                        3 => Outcome::Released,
                        _ => Outcome::Retry {
                            after: Duration::ZERO,
                            error: "x".into(),
                        },
                    };
                    finish_one(queue, &leased.token, outcome).await;
                }
            }
            5 => {
                queue.cancel(&name(&id)).await.unwrap();
            }
            6 => {
                queue.requeue(&name(&id)).await.unwrap();
            }
            _ => {
                queue.purge(Duration::ZERO, 2).await.unwrap();
            }
        }
    }
}
