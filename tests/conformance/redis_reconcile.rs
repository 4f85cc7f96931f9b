//! The reconciliation of the Redis queue: entries that were damaged by hand are repaired, and valid ones are
//! left alone while tasks change.

use super::{
    queue::{finish_one, limited, name, request, task, with_options},
    queue_redis::{open, say, until},
};
use crate::support::{
    self,
    servers::{Kind, Server},
};
use hostel::{
    queue::{Counts, RedisQueue, Renew, Submitted, TaskQueue},
    task::{Outcome, Priority, Progress, Retention, StateKind, Submission, TaskOptions, UnixMs},
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

/// How many passes reconcile all tasks while they change.
const PASSES: u64 = 200;

/// The script itself, for a test that cannot wait for the background maintenance.
const RECONCILE: &str = concat!(
    include_str!("../../host/queue/redis/scripts/shared/base.lua"),
    include_str!("../../host/queue/redis/scripts/shared/library.lua"),
    include_str!("../../host/queue/redis/scripts/reconcile.lua"),
);

pub fn trials() -> Vec<Trial> {
    vec![
        trial("wrong_counters_are_corrected", wrong_counters_are_corrected),
        trial("wrong_entries_are_removed", wrong_entries_are_removed),
        trial(
            "what_a_lost_record_left_is_deleted",
            what_a_lost_record_left_is_deleted,
        ),
        trial(
            "sets_of_tasks_with_options_are_restored",
            sets_of_tasks_with_options_are_restored,
        ),
        trial(
            "reconciliation_changes_no_valid_task",
            reconciliation_changes_no_valid_task,
        ),
    ]
}

fn trial<F>(name: &str, case: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = ()>,
{
    let name = format!("queue::redis::{name}");
    support::trial_needing(&name, Kind::Redis.is_installed(), case)
}

/// Creates two pending tasks, two running ones and a failed one.
async fn some_tasks(queue: &RedisQueue) -> Counts {
    let batch = (0..5).map(|n| task(&format!("t{n}"), "echo", b"x"));
    queue.submit(batch.collect()).await.unwrap();
    let leased = queue
        .lease(&request(&[("echo", 3)], 3, HOUR))
        .await
        .unwrap();
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

async fn wrong_counters_are_corrected() {
    let server = Server::start(Kind::Redis).await;
    let queue = open(&server).await;
    let counts = some_tasks(&queue).await;
    say(&server, &["HSET", "{test:0}:shard", "open", "5000"]).await;
    // A lease of no task takes a place under a limit.
    let ghost = ["ZADD", "{test:0}:leases:echo", "9000000000000", "ghost"];
    say(&server, &ghost).await;
    let limited = limited(request(&[("echo", 1)], 1, HOUR), "echo", 3);
    assert!(queue.lease(&limited).await.unwrap().is_empty());
    let more = async || {
        queue
            .submit(vec![task("more", "echo", b"x")])
            .await
            .unwrap()
    };
    assert_eq!(more().await, [Submitted::Full]);
    until("the ghost is gone", async || {
        queue.counts().await.unwrap() == counts
    })
    .await;
    until("there is room again", async || {
        more().await == [Submitted::Created]
    })
    .await;
    assert_eq!(queue.lease(&limited).await.unwrap().len(), 1);
    assert!(queue.lease(&limited).await.unwrap().is_empty(), "three run");
    queue.close().await;
}

async fn wrong_entries_are_removed() {
    let server = Server::start(Kind::Redis).await;
    let queue = open(&server).await;
    let counts = some_tasks(&queue).await;
    let far = "9000000000000";
    let places = [
        ("ended:c:echo", "t4"), // which is pending
        ("ended:c:echo", "nobody"),
        ("ended:f:echo", "t4"),
        ("ended:x:echo", "t0"), // which failed
        ("leases:echo", "t0"),
        ("leases:echo", "nobody"),
        ("others:echo", "t0"),
        ("kept", "t4"),
        ("ready:echo", "t0"),
    ];
    for (set, id) in places {
        say(&server, &["ZADD", &format!("{{test:0}}:{set}"), far, id]).await;
    }
    // A task in the backlog of another route is not leased from it.
    say(&server, &["ZADD", "{test:0}:ready:other", "1", "t4"]).await;
    say(&server, &["ZADD", "{test:0}:heads", "1", "other"]).await;
    let other = request(&[("other", 1)], 1, HOUR);
    assert!(queue.lease(&other).await.unwrap().is_empty());
    // Purging does not delete a pending task.
    say(&server, &["LPUSH", "{test:0}:purge:f:echo", "1 t3"]).await;
    assert_eq!(queue.purge(&Retention::of(HOUR), 9).await.unwrap(), 0);
    assert!(queue.get(&name("t3")).await.unwrap().is_some());
    until("they are removed", async || {
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

/// A new task of the same id has no end, no earlier attempt and no progress.
async fn what_a_lost_record_left_is_deleted() {
    let server = Server::start(Kind::Redis).await;
    let queue = open(&server).await;
    let submit = async || queue.submit(vec![task("t", "echo", b"x")]).await.unwrap();
    submit().await;
    let (after, error) = (Duration::ZERO, "no".to_owned());
    let retry = Outcome::Retry {
        after,
        error: error.clone(),
    };
    for outcome in [retry, Outcome::Failed { error }] {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let one = request(&[("echo", 1)], 1, HOUR);
        let token = queue.lease(&one).await.unwrap().remove(0).token;
        let progress = Some(Progress::new(1, 2, "half"));
        let renew = Renew {
            token: token.clone(),
            progress,
        };
        queue.renew(&[renew], HOUR).await.unwrap();
        finish_one(&queue, &token, outcome).await;
    }
    say(&server, &["DEL", "{test:0}:task:t"]).await;
    until("it is deleted", async || {
        let keys = ["EXISTS", "{test:0}:end:t", "{test:0}:past:t"];
        let progress = ["HEXISTS", "{test:0}:progress", "t"];
        let none = redis::Value::Int(0);
        say(&server, &keys).await == none && say(&server, &progress).await == none
    })
    .await;
    assert_eq!(submit().await, [Submitted::Created]);
    let created = queue.get(&name("t")).await.unwrap().unwrap();
    assert_eq!(created.state.kind(), StateKind::Pending);
    assert_eq!((created.error, created.progress), (None, None));
    queue.close().await;
}

async fn sets_of_tasks_with_options_are_restored() {
    let server = Server::start(Kind::Redis).await;
    let queue = open(&server).await;
    let far = queue.now().after(HOUR);
    let options = |priority, group: &str, start_by| TaskOptions {
        priority,
        start_by,
        group: Some(name(group)),
        tags: [name("red")].into(),
        result_ttl: Some(HOUR),
        ..TaskOptions::default()
    };
    let tasks = vec![
        with_options("a", "echo", options(Priority::High, "g1", None)),
        with_options("b", "echo", options(Priority::High, "g2", Some(far))),
        with_options("c", "echo", options(Priority::Low, "g2", None)),
        with_options(
            "late",
            "echo",
            options(Priority::Low, "g1", Some(UnixMs(1))),
        ),
        with_options("ended", "other", options(Priority::Normal, "g1", None)),
        task("plain", "echo", b"x"),
    ];
    let count = tasks.len();
    let created = vec![Submitted::Created; count];
    assert_eq!(queue.submit(tasks).await.unwrap(), created);
    queue.cancel(&name("ended")).await.unwrap();
    let sets = [
        "ready:echo+/g1",
        "ready:echo+/g2",
        "ready:echo~/g2",
        "ring:echo+",
        "ring:echo~",
        "heads",
        "heads+",
        "heads~",
        "others:echo",
        "start",
        "late:echo",
        "ended:x:other",
        "kept",
        "index",
        "index:g:g1",
        "index:t:red",
    ];
    let keys = sets.map(|set| format!("{{test:0}}:{set}"));
    let mut before = Vec::new();
    for key in &keys {
        before.push(content(&server, key).await);
        assert!(!before.last().unwrap().is_empty(), "{key}");
    }
    // A deadline that has passed is restored as one that is to come, so that set is left as it is.
    for key in keys.iter().filter(|key| !key.ends_with(":late:echo")) {
        say(&server, &["DEL", key]).await;
    }
    // Of an ended task and of none: both are in no set of theirs.
    let strays = [
        ("start", "ended"),
        ("late:echo", "nobody"),
        ("kept", "a"),
        ("index:g:g9", "nobody"),
    ];
    for (set, id) in strays {
        say(&server, &["ZADD", &format!("{{test:0}}:{set}"), "1", id]).await;
    }
    say(&server, &["ZADD", "{test:0}:index", "0", "g:g9"]).await;
    until("they are as before", async || {
        let mut is_restored = true;
        for (key, before) in keys.iter().zip(&before) {
            is_restored &= content(&server, key).await == *before;
        }
        is_restored
    })
    .await;
    let stray = say(&server, &["EXISTS", "{test:0}:index:g:g9"]).await;
    assert_eq!(stray, redis::Value::Int(0));
    let all = request(&[("echo", 9)], 9, HOUR);
    assert_eq!(queue.lease(&all).await.unwrap().len(), 4);
    assert_eq!(queue.expire(9).await.unwrap(), 1);
    queue.close().await;
}

/// Returns the members of a sorted set.
async fn content(server: &Server, key: &str) -> Vec<String> {
    let content = say(server, &["ZRANGE", key, "0", "-1"]).await;
    let mut content: Vec<String> = redis::FromRedisValue::from_redis_value(content).unwrap();
    content.sort_unstable();
    content
}

async fn reconcile(server: &Server) -> (u64, u64) {
    let keys = ["2", "{test:0}", "{test:0}:shard"];
    let words = [&["EVAL", RECONCILE][..], &keys, &["test", "7"]].concat();
    let answer = say(server, &words).await;
    redis::FromRedisValue::from_redis_value(answer).unwrap()
}

/// The reconciliation agrees with each script that changes a task.
async fn reconciliation_changes_no_valid_task() {
    let server = Server::start(Kind::Redis).await;
    let queue = Arc::new(open(&server).await);
    let over = Arc::new(AtomicBool::new(false));
    let mut random = support::random("the reconciliation");
    let mut doing = JoinSet::new();
    for _ in 0..3 {
        let (queue, over, random) = (queue.clone(), over.clone(), random.fork());
        doing.spawn(async move { do_anything(&queue, &over, random).await });
    }
    // Each pass repairs the lease that was added at its beginning, and nothing else.
    let mut repaired_in_all = 0;
    for pass in 0..PASSES {
        let ghost = ["ZADD", "{test:0}:leases:echo", "9000000000000", "ghost"];
        say(&server, &ghost).await;
        let mut in_pass = 0;
        loop {
            let (repaired, is_over) = reconcile(&server).await;
            in_pass += repaired;
            if is_over == 1 {
                break;
            }
        }
        assert!(in_pass <= 1, "{in_pass} in pass {pass}");
        repaired_in_all += in_pass;
    }
    over.store(true, Ordering::Relaxed);
    while let Some(done) = doing.join_next().await {
        done.unwrap();
    }
    // The queue's own maintenance may have ended some of the passes.
    assert!(
        repaired_in_all > PASSES * 9 / 10,
        "{repaired_in_all} of {PASSES}"
    );
    queue.close().await;
}

/// A task with any of the options that decide in which sets it is.
fn any_task(id: &str, random: &mut fastrand::Rng) -> Submission {
    let some = ["g1", "g2", "g3"].map(name);
    let mut any = || random.choice(&some).filter(|_| random.bool()).cloned();
    let (group, tag) = (any(), any());
    let options = TaskOptions {
        priority: Priority::ALL[random.usize(..3)],
        group,
        tags: tag.into_iter().collect(),
        start_by: (random.u8(..6) == 0).then_some(UnixMs(random.u64(1..3))),
        result_ttl: random.bool().then_some(HOUR),
        ..TaskOptions::default()
    };
    with_options(
        id,
        "echo",
        if random.bool() {
            options
        } else {
            TaskOptions::default()
        },
    )
}

async fn do_anything(queue: &RedisQueue, over: &AtomicBool, mut random: fastrand::Rng) {
    while !over.load(Ordering::Relaxed) {
        let id = format!("t{}", random.u8(..60));
        match random.u8(..8) {
            0..3 => {
                let task = any_task(&id, &mut random);
                queue.submit(vec![task]).await.unwrap();
            }
            3..5 => {
                let request = request(&[("echo", 3)], 3, HOUR);
                for leased in queue.lease(&request).await.unwrap() {
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
                queue
                    .purge(&Retention::of(Duration::ZERO), 2)
                    .await
                    .unwrap();
                queue.expire(2).await.unwrap();
            }
        }
    }
}
