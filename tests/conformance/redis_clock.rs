//! A Redis whose clock is set while tasks wait: no task is stuck, and no ended one is purged too early. The
//! tests set the difference between the queue's time and the clock, which has the same effect.

use super::{
    queue::{finish_one, name, request, task},
    queue_redis::{open, say, until},
};
use crate::support::{
    self,
    servers::{Kind, Server},
};
use hostel::{
    queue::{Leased, RedisQueue, Requeue, TaskQueue},
    task::{Outcome, Retention},
};
use libtest_mimic::Trial;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const HOUR: Duration = Duration::from_secs(3600);
const TWO_DAYS: u64 = 2 * 24 * 3_600_000;
const COUNTERS: &str = "{test:0}:shard";

pub fn trials() -> Vec<Trial> {
    let case = "queue::redis::a_changed_clock_delays_and_purges_nothing";
    vec![support::trial_needing(
        case,
        Kind::Redis.is_installed(),
        set_back_and_right,
    )]
}

async fn set(server: &Server, field: &str, value: u64) {
    say(server, &["HSET", COUNTERS, field, &value.to_string()]).await;
}

/// Queries expired leases, as every node does, and leases the only task.
async fn due(queue: &RedisQueue) -> Leased {
    let mut leased = None;
    until("a task is due", async || {
        queue.expired(HOUR, &[], 9).await.unwrap();
        let mut some = queue
            .lease(&request(&[("echo", 1)], 1, HOUR))
            .await
            .unwrap();
        leased = some.pop();
        leased.is_some()
    })
    .await;
    leased.expect("a task")
}

async fn set_back_and_right() {
    let server = Server::start(Kind::Redis).await;
    let queue = open(&server).await;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = u64::try_from(since.as_millis()).unwrap();
    set(&server, "looked", now + TWO_DAYS).await;
    set(&server, "skew", TWO_DAYS).await;
    queue.submit(vec![task("t", "echo", b"x")]).await.unwrap();
    let retry = Outcome::Retry {
        after: Duration::from_secs(1),
        error: "again".into(),
    };
    let first = due(&queue).await;
    finish_one(&queue, &first.token, retry).await;
    // Back by two days, once with a pending task and once with a requeued one.
    set(&server, "skew", 0).await;
    let second = due(&queue).await;
    assert_eq!(second.attempt, 2);
    assert!(queue.now().0.abs_diff(now + TWO_DAYS) < 60_000);
    let error = "no".into();
    finish_one(&queue, &second.token, Outcome::Failed { error }).await;
    set(&server, "skew", 0).await;
    let requeued = queue.requeue(&name("t")).await.unwrap();
    assert_eq!(requeued, Requeue::Requeued);
    let third = due(&queue).await;
    let result = "done".into();
    finish_one(&queue, &third.token, Outcome::Completed { result }).await;
    // Forward by two days, and then by a year.
    set(&server, "skew", 2 * TWO_DAYS).await;
    for looked in [None, Some(now - 365 * TWO_DAYS / 2)] {
        if let Some(looked) = looked {
            set(&server, "looked", looked).await;
        }
        queue.expired(HOUR, &[], 9).await.unwrap();
        assert_eq!(queue.purge(&Retention::of(HOUR * 3), 9).await.unwrap(), 0);
        assert!(queue.get(&name("t")).await.unwrap().is_some());
    }
    queue.close().await;
}
