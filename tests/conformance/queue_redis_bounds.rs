//! The limits of the Redis queue: the size of one script, and the rights that it needs.

use super::{
    queue::{finish_one, name, request, task, with_options},
    queue_redis::{say, settings, trial},
};
use crate::support::servers::{Kind, Server};
use hostel::{
    config,
    queue::{Cancel, Filter, Finished, Page, RedisQueue, Requeue, Submitted, TaskQueue},
    task::{Outcome, Priority, Retention, StateKind, TaskOptions, Unique, UnixMs},
};
use libtest_mimic::Trial;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "a_large_lease_is_taken_in_parts",
            a_large_lease_is_taken_in_parts,
        ),
        trial(
            "the_documented_acl_is_sufficient",
            the_documented_acl_is_sufficient,
        ),
    ]
}

/// Leases more tasks than one script takes, and more bytes than one answer has.
async fn a_large_lease_is_taken_in_parts() {
    const MANY: usize = 4500;
    let server = Server::start(Kind::Redis).await;
    let settings = config::RedisQueue {
        max_open_tasks: 10_000,
        ..settings(&server)
    };
    let queue = RedisQueue::open(&settings).await.unwrap();
    let small = (0..MANY).map(|number| task(&format!("s{number}"), "small", b"x"));
    queue.submit(small.collect()).await.unwrap();
    let all = request(&[("small", MANY)], MANY, HOUR);
    let leased = queue.lease(&all).await.unwrap();
    assert_eq!(leased.len(), MANY);
    assert!(leased.iter().all(|task| task.attempt == 1));
    let running = queue.counts().await.unwrap()[&(name("small"), StateKind::Running)];
    assert_eq!(running, MANY as u64);

    let large = vec![7; 3 << 20];
    let large = (0..5).map(|number| task(&format!("l{number}"), "large", &large));
    queue.submit(large.collect()).await.unwrap();
    let all = request(&[("large", 5)], 5, HOUR);
    assert_eq!(queue.lease(&all).await.unwrap().len(), 5);
    queue.close().await;
}

/// A user with exactly the documented rights can use every script.
async fn the_documented_acl_is_sufficient() {
    let server = Server::start(Kind::Redis).await;
    let rights = "ACL SETUSER app on >pass resetchannels ~{test:* -@all +evalsha +eval \
        +script|load +time +type +scan +exists +unlink +del +pexpire +get +set +mget +mset +msetnx +strlen +getrange \
        +setrange +hget +hmget +hset +hsetnx +hdel +hincrby +hgetall +hexists +hlen +hscan +sadd +srem +smembers +zadd \
        +zrem +zrange +zscore +zcard +zcount +zlexcount +incr +rpush +lpush +lpop +lindex +xadd +xread +xrange \
        +xrevrange +xtrim +ping";
    let rights: Vec<&str> = rights.split_whitespace().collect();
    say(&server, &rights).await;
    let url = server.url().replace("redis://", "redis://app:pass@");
    let mut limited = settings(&server);
    limited.server = config::Redis::at(&url, "test").unwrap();
    let queue = RedisQueue::open(&limited).await.unwrap();
    // From now on changes are numbered.
    let followed = queue.read_changes(None, 9).await.unwrap().cursor;
    let options = |key: &str| TaskOptions {
        priority: Priority::High,
        group: Some(name("g")),
        tags: [name("t")].into(),
        start_by: Some(UnixMs(1)),
        result_ttl: Some(Duration::from_millis(1)),
        unique: Some(Unique {
            key: name(key),
            time: None,
        }),
        ..TaskOptions::default()
    };
    let late = with_options("late", "echo", options("key"));
    let submitted = queue.submit(vec![late]).await.unwrap();
    assert_eq!(submitted, [Submitted::Created]);
    assert_eq!(queue.expire(9).await.unwrap(), 1);
    let next = with_options("next", "echo", options("key"));
    let submitted = queue.submit(vec![next]).await.unwrap();
    assert_eq!(submitted, [Submitted::Created]);
    queue.cancel(&name("next")).await.unwrap();
    let requeued = queue.requeue(&name("next")).await.unwrap();
    assert_eq!(requeued, Requeue::Requeued);
    assert!(queue.place(&name("next")).await.unwrap().is_some());
    let read = queue.read_changes(Some(&followed), 9).await.unwrap();
    assert!(!read.changes.is_empty() && !read.resync, "{read:?}");
    let leased = queue.lease(&request(&[("echo", 9)], 9, HOUR)).await;
    assert_eq!(leased.unwrap().len(), 1);
    let tasks = ["a", "b"].map(|id| task(id, "echo", b"x"));
    queue.submit(tasks.into()).await.unwrap();
    let leased = queue
        .lease(&request(&[("echo", 2)], 2, HOUR))
        .await
        .unwrap();
    let [ended, open] = &leased[..] else {
        panic!("{leased:?}")
    };
    queue
        .renew(&[ended.token.clone().into()], HOUR)
        .await
        .unwrap();
    let done = finish_one(&queue, &ended.token, Outcome::Cancelled).await;
    assert_eq!(done, Finished::Applied);
    super::schedules_redis::use_all(&queue).await;
    super::limits_redis::use_all(&queue).await;
    // A queue of its own, which has not read these tasks.
    let reader = RedisQueue::open(&limited).await.unwrap();
    assert!(reader.get(&open.token.id).await.unwrap().is_some());
    let status = reader.get_status(&ended.token.id, 1 << 20).await.unwrap();
    assert!(status.is_some());
    let page = Page {
        size: 10,
        after: None,
    };
    let listed = reader.list(&Filter::default(), &page).await.unwrap();
    assert_eq!(listed.tasks.len(), 5);
    let tagged = Filter {
        tag: Some(name("t")),
        ..Filter::default()
    };
    let listed = reader.list(&tagged, &page).await.unwrap();
    assert_eq!(listed.tasks.len(), 2);
    let again = reader.compare(&task("a", "echo", b"x")).await.unwrap();
    assert_eq!(again, Some(Submitted::Existing));
    reader.close().await;
    let requeued = queue.requeue(&ended.token.id).await.unwrap();
    assert_eq!(requeued, Requeue::Requeued);
    let cancelled = queue.cancel(&ended.token.id).await.unwrap();
    assert_eq!(cancelled, Cancel::Cancelled);
    queue
        .purge(&Retention::of(Duration::ZERO), 9)
        .await
        .unwrap();
    queue.expired(HOUR, &[], 9).await.unwrap();
    queue.counts().await.unwrap();
    queue.close().await;
}
