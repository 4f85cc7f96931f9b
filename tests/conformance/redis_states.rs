//! States in which a Redis refuses work (it is a replica, it loads, it lacks replicas), and replicas that
//! confirm. The queue reports them as unavailable, and continues afterwards.

use super::{
    queue::{MAX_OPEN_TASKS, name, task},
    queue_redis::{open, say, settings, until},
};
use crate::support::{
    self,
    servers::{Kind, Server},
};
use hostel::{
    config,
    queue::{Durability, Error, RedisQueue, Submitted, TaskQueue},
};
use libtest_mimic::Trial;
use std::time::{Duration, Instant};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("replicas_confirm", replicas_confirm),
        trial(
            "a_server_that_became_a_replica_is_reported",
            a_server_that_became_a_replica_is_reported,
        ),
        trial(
            "a_replica_without_its_master_is_reported",
            a_replica_without_its_master_is_reported,
        ),
        trial("a_loading_server_is_reported", a_loading_server_is_reported),
        trial(
            "a_server_that_refuses_writes_is_reported",
            a_server_that_refuses_writes_is_reported,
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

/// Starts a replica of a server.
async fn replica_of(master: &Server) -> Server {
    let replica = Server::start(Kind::Redis).await;
    follow(&replica, master).await;
    replica
}

async fn follow(replica: &Server, master: &Server) {
    let port = master.port().to_string();
    say(replica, &["REPLICAOF", "127.0.0.1", &port]).await;
    until("the replica follows", async || {
        let info = say(replica, &["INFO", "replication"]).await;
        let info: String = redis::FromRedisValue::from_redis_value(info).unwrap();
        info.contains("master_link_status:up")
    })
    .await;
}

async fn submit(queue: &RedisQueue, id: &str) -> Result<Submitted, Error> {
    let mut answers = queue.submit(vec![task(id, "echo", b"x")]).await?;
    Ok(answers.remove(0))
}

/// Asserts that nothing was done, for the reason that the server gave.
fn assert_unavailable<T: std::fmt::Debug>(answer: Result<T, Error>, word: &str) {
    match answer {
        Err(Error::Unavailable {
            reason,
            outcome_unknown: false,
        }) => assert!(reason.contains(word), "{reason}"),
        other => panic!("{word}: {other:?}"),
    }
}

async fn replicas_confirm() {
    let server = Server::start(Kind::Redis).await;
    let replica = replica_of(&server).await;
    let replicated = config::RedisQueue {
        replicas: 1,
        ..settings(&server)
    };
    let queue = RedisQueue::open(&replicated).await.unwrap();
    assert_eq!(queue.durability(), Durability::Replicated);
    assert_eq!(submit(&queue, "a").await.unwrap(), Submitted::Created);
    // The replica has a confirmed task.
    let there = say(&replica, &["EXISTS", "{test:0}:task:a"]).await;
    assert_eq!(there, redis::Value::Int(1));
    replica.pause();
    let since = Instant::now();
    match submit(&queue, "b").await {
        Err(Error::Unavailable {
            reason,
            outcome_unknown: true,
        }) => assert!(reason.contains("0 of 1 replicas"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert!(
        since.elapsed() < Duration::from_secs(10),
        "{:?}",
        since.elapsed()
    );
    // Submitting again fails as well, although the task exists.
    assert!(submit(&queue, "b").await.is_err());
    replica.resume();
    until("the replica confirms", async || {
        match submit(&queue, "b").await {
            Ok(submitted) => {
                assert_eq!(submitted, Submitted::Existing);
                true
            }
            Err(_) => false,
        }
    })
    .await;
    assert_eq!(submit(&queue, "c").await.unwrap(), Submitted::Created);
    queue.close().await;
}

async fn a_server_that_became_a_replica_is_reported() {
    let server = Server::start(Kind::Redis).await;
    let queue = open(&server).await;
    submit(&queue, "a").await.unwrap();
    let other = replica_of(&server).await;
    // This happens in a failover.
    say(&other, &["REPLICAOF", "NO", "ONE"]).await;
    follow(&server, &other).await;
    assert_unavailable(submit(&queue, "b").await, "READONLY");
    assert_unavailable(queue.cancel(&name("a")).await, "READONLY");
    assert!(queue.get(&name("a")).await.unwrap().is_some());
    say(&server, &["REPLICAOF", "NO", "ONE"]).await;
    assert_eq!(submit(&queue, "b").await.unwrap(), Submitted::Created);
    queue.close().await;
}

async fn a_replica_without_its_master_is_reported() {
    let server = Server::start(Kind::Redis).await;
    let queue = open(&server).await;
    submit(&queue, "a").await.unwrap();
    say(
        &server,
        &["CONFIG", "SET", "replica-serve-stale-data", "no"],
    )
    .await;
    let unused = support::servers::free_port().to_string();
    say(&server, &["REPLICAOF", "127.0.0.1", &unused]).await;
    assert_unavailable(queue.get(&name("a")).await, "MASTERDOWN");
    let refused = submit(&queue, "b").await.unwrap_err();
    assert!(matches!(refused, Error::Unavailable { .. }), "{refused:?}");
    say(&server, &["REPLICAOF", "NO", "ONE"]).await;
    assert!(queue.get(&name("a")).await.unwrap().is_some());
    assert_eq!(submit(&queue, "b").await.unwrap(), Submitted::Created);
    queue.close().await;
}

async fn a_loading_server_is_reported() {
    // It takes 20 ms to load a key.
    let slow = |_: &_, _| {
        let slow = [
            "--key-load-delay",
            "20000",
            "--loading-process-events-interval-bytes",
            "1024",
        ];
        slow.map(str::to_owned).into()
    };
    let mut server = Server::start_with(Kind::Redis, slow).await;
    let queue = open(&server).await;
    let batch = (0..MAX_OPEN_TASKS / 10).map(|n| task(&format!("t{n}"), "echo", b"x"));
    queue.submit(batch.collect()).await.unwrap();
    say(&server, &["BGREWRITEAOF"]).await;
    until("the file is rewritten", async || {
        let info = say(&server, &["INFO", "persistence"]).await;
        let info: String = redis::FromRedisValue::from_redis_value(info).unwrap();
        info.contains("aof_rewrite_in_progress:0") && info.contains("aof_rewrite_scheduled:0")
    })
    .await;
    server.restart_without_waiting();
    until("the server reports that it loads", async || {
        match submit(&queue, "t0").await {
            Err(Error::Unavailable { reason, .. }) => reason.contains("LOADING"),
            other => panic!("{other:?}"),
        }
    })
    .await;
    // Opening a queue now waits until the server has loaded.
    let other = tokio::time::timeout(support::DEADLINE, async {
        loop {
            match RedisQueue::open(&settings(&server)).await {
                Ok(queue) => return queue,
                Err(error) => assert!(matches!(error, Error::Unavailable { .. }), "{error:?}"),
            }
        }
    });
    let other = other.await.unwrap();
    assert_eq!(submit(&queue, "t0").await.unwrap(), Submitted::Existing);
    other.close().await;
    queue.close().await;
}

async fn a_server_that_refuses_writes_is_reported() {
    let server = Server::start(Kind::Redis).await;
    let queue = open(&server).await;
    let set = async |setting, value| {
        say(&server, &["CONFIG", "SET", setting, value]).await;
    };
    set("min-replicas-to-write", "1").await;
    assert_unavailable(submit(&queue, "a").await, "NOREPLICAS");
    set("min-replicas-to-write", "0").await;
    assert_eq!(submit(&queue, "a").await.unwrap(), Submitted::Created);
    queue.close().await;
}
