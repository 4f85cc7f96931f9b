//! The broker's suite over Redis, and what only a server that fails can show.

use super::broker::{self, BACKLOG, message, next, publish, received, subscribe, topic};
use crate::support::{
    self, eventually,
    servers::{Kind, Server},
};
use bytes::Bytes;
use hdrhistogram::Histogram;
use hostel::{
    broker::{Error, MessageBroker, RedisBroker, Topic},
    task::Name,
};
use libtest_mimic::Trial;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Longer than a connection is trusted without a word, and than Redis keeps one that is idle for as
/// little as it can be told to.
const REST: Duration = Duration::from_secs(3);

pub fn trials() -> Vec<Trial> {
    let cases = broker::CASES.iter().map(|&(name, case)| {
        trial(name, move || async move {
            let server = Server::start(Kind::Redis).await;
            case(connect(&server).await).await;
        })
    });
    let mut trials: Vec<Trial> = cases.collect();
    trials.extend([
        trial("nodes_hear_each_other", nodes_hear_each_other),
        trial("prefixes_are_worlds_apart", prefixes_are_worlds_apart),
        trial(
            "one_subscription_serves_a_node",
            one_subscription_serves_a_node,
        ),
        trial(
            "it_listens_again_after_a_restart",
            it_listens_again_after_a_restart,
        ),
        trial(
            "it_listens_again_after_its_kill",
            it_listens_again_after_its_kill,
        ),
        trial(
            "the_first_message_after_a_rest_arrives",
            the_first_message_after_a_rest_arrives,
        ),
        trial(
            "callers_may_have_a_runtime_of_their_own",
            callers_may_have_a_runtime_of_their_own,
        ),
        trial(
            "it_can_begin_while_redis_is_away",
            it_can_begin_while_redis_is_away,
        ),
        trial(
            "publishing_fails_in_time_while_away",
            publishing_fails_in_time_while_away,
        ),
        trial(
            "publishing_fails_in_time_while_paused",
            publishing_fails_in_time_while_paused,
        ),
        trial("who_is_refused_is_told_why", who_is_refused_is_told_why),
        trial(
            "the_way_through_redis_is_short",
            the_way_through_redis_is_short,
        ),
    ]);
    trials
}

fn trial<F>(name: &str, case: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = ()>,
{
    let name = format!("broker::redis::{name}");
    support::trial_needing(&name, Kind::Redis.is_here(), case)
}

async fn connect(server: &Server) -> Arc<dyn MessageBroker> {
    Arc::new(RedisBroker::new(&server.url()).await.unwrap())
}

async fn nodes_hear_each_other() {
    let server = Server::start(Kind::Redis).await;
    let (here, there) = (connect(&server).await, connect(&server).await);
    let topic = topic();
    let mut first = subscribe(&here, &topic).await;
    let mut second = subscribe(&there, &topic).await;
    let mut sent = message(&topic, "a", 1);
    sent.payload = Bytes::from(vec![0xfe; 4 << 20]);
    let shared = Topic::Shared(topic);
    let published = here.publish(&shared, sent.clone()).await.unwrap();
    assert_eq!(published.receivers, 2, "nodes are counted");
    assert_eq!(received(&mut first).await, sent);
    assert_eq!(received(&mut second).await, sent);
}

async fn prefixes_are_worlds_apart() {
    let server = Server::start(Kind::Redis).await;
    let open = |prefix: &str| -> Arc<dyn MessageBroker> {
        let settings = hostel::config::Redis::at(&server.url(), prefix).unwrap();
        Arc::new(RedisBroker::open(&settings).unwrap())
    };
    let (here, there) = (open("a"), open("b"));
    let topic = topic();
    let _listening = subscribe(&here, &topic).await;
    assert_eq!(publish(&there, &topic, "a", 1).await, 0);
    assert_eq!(publish(&here, &topic, "a", 1).await, 1);
}

async fn one_subscription_serves_a_node() {
    let server = Server::start(Kind::Redis).await;
    let broker = connect(&server).await;
    let topic = topic();
    let mut all = Vec::new();
    for _ in 0..10 {
        all.push(subscribe(&broker, &topic).await);
    }
    assert_eq!(publish(&broker, &topic, "a", 1).await, 1);
    for subscription in &mut all {
        assert_eq!(received(subscription).await.id, "1");
    }
    // Come and gone in quick succession: whoever is there in the end hears.
    for number in 2..50 {
        all.clear();
        all.push(subscribe(&broker, &topic).await);
        assert_eq!(publish(&broker, &topic, "a", number).await, 1);
        assert_eq!(received(&mut all[0]).await.id, number.to_string());
    }
}

/// Whether the server was away meanwhile, or has closed what was idle.
async fn the_first_message_after_a_rest_arrives() {
    let mut server = Server::start(Kind::Redis).await;
    let broker = connect(&server).await;
    let topic = topic();
    assert_eq!(publish(&broker, &topic, "a", 1).await, 0);
    server.restart().await;
    tokio::time::sleep(REST).await;
    assert_eq!(publish(&broker, &topic, "a", 2).await, 0);
    server
        .say(&["CONFIG", "SET", "timeout", "1"])
        .await
        .unwrap();
    for number in 3..5 {
        tokio::time::sleep(REST).await;
        assert_eq!(publish(&broker, &topic, "a", number).await, 0);
    }
}

async fn it_listens_again_after_a_restart() {
    let mut server = Server::start(Kind::Redis).await;
    let broker = connect(&server).await;
    let topics: Vec<Name> = (0..50).map(|_| topic()).collect();
    let mut all = Vec::new();
    for topic in &topics {
        all.push(subscribe(&broker, topic).await);
    }
    server.restart().await;
    for (topic, subscription) in topics.iter().zip(&mut all) {
        heard_again(&broker, topic).await;
        received(subscription).await;
    }
}

async fn it_listens_again_after_its_kill() {
    let server = Server::start(Kind::Redis).await;
    let broker = connect(&server).await;
    let topic = topic();
    let mut subscription = subscribe(&broker, &topic).await;
    let admin = redis::Client::open(server.url()).unwrap();
    let mut admin = admin.get_multiplexed_async_connection().await.unwrap();
    // As Redis does with who takes its messages too slowly.
    for _ in 0..3 {
        let mut kill = redis::cmd("CLIENT");
        kill.arg("KILL").arg("TYPE").arg("pubsub");
        let killed: usize = kill.query_async(&mut admin).await.unwrap();
        assert_eq!(killed, 1);
        heard_again(&broker, &topic).await;
        received(&mut subscription).await;
    }
}

/// As components do, whose runtime has no sockets.
async fn callers_may_have_a_runtime_of_their_own() {
    let server = Server::start(Kind::Redis).await;
    let broker = connect(&server).await;
    let topic = topic();
    let elsewhere = {
        let (broker, topic) = (broker.clone(), topic.clone());
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build();
            runtime.unwrap().block_on(async {
                let mut subscription = subscribe(&broker, &topic).await;
                assert_eq!(publish(&broker, &topic, "a", 1).await, 1);
                received(&mut subscription).await;
                subscription
            })
        }
    };
    let mut subscription = tokio::task::spawn_blocking(elsewhere).await.unwrap();
    // The other runtime has gone, the connections have not.
    assert_eq!(publish(&broker, &topic, "a", 2).await, 1);
    assert_eq!(received(&mut subscription).await.id, "2");
}

async fn it_can_begin_while_redis_is_away() {
    let mut server = Server::start(Kind::Redis).await;
    server.kill();
    let broker = connect(&server).await;
    let topic = topic();
    let since = Instant::now();
    let mut subscription = subscribe(&broker, &topic).await;
    assert!(since.elapsed() < Duration::from_secs(10));
    server.restart().await;
    heard_again(&broker, &topic).await;
    received(&mut subscription).await;
}

async fn publishing_fails_in_time_while_away() {
    let mut server = Server::start(Kind::Redis).await;
    let broker = connect(&server).await;
    let topic = topic();
    assert_eq!(publish(&broker, &topic, "a", 1).await, 0);
    server.kill();
    fails_in_time(&broker, &topic).await;
    server.restart().await;
    eventually("publishing works again", async || {
        try_publish(&broker, &topic).await.ok()
    })
    .await;
}

async fn publishing_fails_in_time_while_paused() {
    let server = Server::start(Kind::Redis).await;
    let broker = connect(&server).await;
    let topic = topic();
    let mut subscription = subscribe(&broker, &topic).await;
    server.pause();
    fails_in_time(&broker, &topic).await;
    server.resume();
    heard_again(&broker, &topic).await;
    assert!(next(&mut subscription).await.is_some());
}

async fn who_is_refused_is_told_why() {
    let server = Server::start(Kind::Redis).await;
    let admin = redis::Client::open(server.url()).unwrap();
    let mut admin = admin.get_multiplexed_async_connection().await.unwrap();
    let mut user = redis::cmd("ACL");
    let rules = [
        "SETUSER",
        "node",
        "on",
        ">hush",
        "&hostel:*",
        "-@all",
        "+publish",
        "+subscribe",
        "+unsubscribe",
        "+ping",
    ];
    let () = user.arg(&rules).query_async(&mut admin).await.unwrap();
    let with = |credentials: &str| {
        server
            .url()
            .replace("redis://", &format!("redis://{credentials}@"))
    };
    let topic = topic();

    let broker: Arc<dyn MessageBroker> =
        Arc::new(RedisBroker::new(&with("node:hush")).await.unwrap());
    let mut subscription = subscribe(&broker, &topic).await;
    assert_eq!(publish(&broker, &topic, "a", 1).await, 1);
    received(&mut subscription).await;
    // It has all that it needs: the last one leaves a topic, and the connection stays.
    let another = self::topic();
    let mut stays = subscribe(&broker, &another).await;
    drop(subscription);
    eventually("the topic is left", async || {
        (publish(&broker, &topic, "a", 2).await == 0).then_some(())
    })
    .await;
    assert_eq!(publish(&broker, &another, "a", 1).await, 1);
    received(&mut stays).await;
    let denied = server.say(&["ACL", "LOG"]).await.unwrap();
    assert_eq!(denied, redis::Value::Array(Vec::new()));

    let broker: Arc<dyn MessageBroker> =
        Arc::new(RedisBroker::new(&with("node:wrong")).await.unwrap());
    let error = try_publish(&broker, &topic).await.unwrap_err().to_string();
    assert!(
        error.contains("check the user and password in broker.url"),
        "{error}"
    );

    let Err(error) = RedisBroker::new("redis://me:hush@host:not-a-port").await else {
        panic!("no such URL");
    };
    let error = error.to_string();
    assert!(
        error.contains("broker.url") && !error.contains("hush"),
        "{error}"
    );
}

/// Prints how long a message takes from one node to another on this machine.
async fn the_way_through_redis_is_short() {
    const MESSAGES: usize = 2000;
    let server = Server::start(Kind::Redis).await;
    let (here, there) = (connect(&server).await, connect(&server).await);
    let topic = topic();
    let mut subscription = subscribe(&there, &topic).await;
    let mut took = Histogram::<u64>::new(3).unwrap();
    for number in 0..MESSAGES {
        let since = Instant::now();
        publish(&here, &topic, "a", number).await;
        received(&mut subscription).await;
        let micros = u64::try_from(since.elapsed().as_micros()).unwrap();
        took.record(micros).unwrap();
    }
    let (half, most) = (took.value_at_quantile(0.5), took.value_at_quantile(0.99));
    println!("publish to receive through Redis: p50 {half} µs, p99 {most} µs");

    // Many senders share the connection, and so its round trips.
    let room = Arc::new(tokio::sync::Semaphore::new(BACKLOG / 2));
    let since = Instant::now();
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let (here, topic, room) = (here.clone(), topic.clone(), room.clone());
        senders.spawn(async move {
            for number in 0..MESSAGES / 4 {
                room.acquire().await.unwrap().forget();
                publish(&here, &topic, "a", number).await;
            }
        });
    }
    for _ in 0..32 * (MESSAGES / 4) {
        received(&mut subscription).await;
        room.add_permits(1);
    }
    let rate = 32.0 * (MESSAGES / 4) as f64 / since.elapsed().as_secs_f64();
    println!("32 senders through Redis: {rate:.0} messages/s");
}

pub(super) async fn try_publish(
    broker: &Arc<dyn MessageBroker>,
    topic: &Name,
) -> Result<usize, Error> {
    let shared = Topic::Shared(topic.clone());
    let published = broker.publish(&shared, message(topic, "a", 1)).await;
    published.map(|published| published.receivers)
}

async fn heard_again(broker: &Arc<dyn MessageBroker>, topic: &Name) {
    eventually("the topic is heard again", async || {
        try_publish(broker, topic)
            .await
            .ok()
            .filter(|&nodes| nodes > 0)
    })
    .await;
}

/// Many at once, as nodes with many tasks do.
async fn fails_in_time(broker: &Arc<dyn MessageBroker>, topic: &Name) {
    let since = Instant::now();
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..500 {
        let (broker, topic) = (broker.clone(), topic.clone());
        senders.spawn(async move { try_publish(&broker, &topic).await });
    }
    while let Some(failed) = senders.join_next().await {
        assert!(matches!(failed.unwrap(), Err(Error::Unavailable(_))));
    }
    assert!(
        since.elapsed() < Duration::from_secs(8),
        "{:?}",
        since.elapsed()
    );
}
