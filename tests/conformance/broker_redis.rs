//! The conformance suite of the broker over Redis, and cases that need a server which fails.

use crate::support::{
    self, eventually,
    servers::{Kind, Server},
};
use bytes::Bytes;
use hdrhistogram::Histogram;
use hostel::{
    broker::{
        Error, MessageBroker, RedisBroker, Topic,
        conformance::{self, BACKLOG, message, next, publish, received, subscribe, topic},
    },
    task::Name,
};
use libtest_mimic::Trial;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Longer than a connection is used without a PING, and than the shortest idle timeout of Redis.
const IDLE: Duration = Duration::from_secs(3);

pub fn trials() -> Vec<Trial> {
    let cases = conformance::cases().map(|case| {
        trial(case.name(), async move || {
            let server = Server::start(Kind::Redis).await;
            case.run(|| connect(&server)).await;
        })
    });
    let mut trials: Vec<Trial> = cases.collect();
    trials.extend([
        trial(
            "nodes_receive_from_each_other",
            nodes_receive_from_each_other,
        ),
        trial("prefixes_separate_brokers", prefixes_separate_brokers),
        trial(
            "one_subscription_serves_a_node",
            one_subscription_serves_a_node,
        ),
        trial(
            "it_listens_again_after_a_restart",
            it_listens_again_after_a_restart,
        ),
        trial(
            "it_listens_again_after_its_connection_was_killed",
            it_listens_again_after_its_connection_was_killed,
        ),
        trial(
            "the_first_message_after_an_idle_time_arrives",
            the_first_message_after_an_idle_time_arrives,
        ),
        trial(
            "callers_may_have_another_runtime",
            callers_may_have_another_runtime,
        ),
        trial(
            "it_can_subscribe_while_redis_is_away",
            it_can_subscribe_while_redis_is_away,
        ),
        trial(
            "publishing_fails_in_time_while_away",
            publishing_fails_in_time_while_away,
        ),
        trial(
            "publishing_fails_in_time_while_paused",
            publishing_fails_in_time_while_paused,
        ),
        trial(
            "a_refused_user_reports_what_to_check",
            a_refused_user_reports_what_to_check,
        ),
        trial(
            "the_latency_through_redis_is_low",
            the_latency_through_redis_is_low,
        ),
    ]);
    trials
}

fn trial<F>(name: &str, case: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = ()>,
{
    let name = format!("broker::redis::{name}");
    support::trial_needing(&name, Kind::Redis.is_installed(), case)
}

async fn connect(server: &Server) -> Arc<dyn MessageBroker> {
    Arc::new(RedisBroker::new(&server.url()).await.unwrap())
}

async fn nodes_receive_from_each_other() {
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

async fn prefixes_separate_brokers() {
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
    // Receivers come and go in quick succession, and the last one receives.
    for number in 2..50 {
        all.clear();
        all.push(subscribe(&broker, &topic).await);
        assert_eq!(publish(&broker, &topic, "a", number).await, 1);
        assert_eq!(received(&mut all[0]).await.id, number.to_string());
    }
}

/// Whether the server was restarted meanwhile, or has closed idle connections.
async fn the_first_message_after_an_idle_time_arrives() {
    let mut server = Server::start(Kind::Redis).await;
    let broker = connect(&server).await;
    let topic = topic();
    assert_eq!(publish(&broker, &topic, "a", 1).await, 0);
    server.restart().await;
    tokio::time::sleep(IDLE).await;
    assert_eq!(publish(&broker, &topic, "a", 2).await, 0);
    server
        .command(&["CONFIG", "SET", "timeout", "1"])
        .await
        .unwrap();
    for number in 3..5 {
        tokio::time::sleep(IDLE).await;
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
        receives_again(&broker, topic).await;
        received(subscription).await;
    }
}

async fn it_listens_again_after_its_connection_was_killed() {
    let server = Server::start(Kind::Redis).await;
    let broker = connect(&server).await;
    let topic = topic();
    let mut subscription = subscribe(&broker, &topic).await;
    let admin = redis::Client::open(server.url()).unwrap();
    let mut admin = admin.get_multiplexed_async_connection().await.unwrap();
    // Redis does the same with a client that reads too slowly.
    for _ in 0..3 {
        let mut kill = redis::cmd("CLIENT");
        kill.arg("KILL").arg("TYPE").arg("pubsub");
        let killed: usize = kill.query_async(&mut admin).await.unwrap();
        assert_eq!(killed, 1);
        receives_again(&broker, &topic).await;
        received(&mut subscription).await;
    }
}

/// Components have a runtime without sockets.
async fn callers_may_have_another_runtime() {
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
    // The other runtime is gone, the connections are not.
    assert_eq!(publish(&broker, &topic, "a", 2).await, 1);
    assert_eq!(received(&mut subscription).await.id, "2");
}

async fn it_can_subscribe_while_redis_is_away() {
    let mut server = Server::start(Kind::Redis).await;
    server.kill();
    let broker = connect(&server).await;
    let topic = topic();
    let since = Instant::now();
    let mut subscription = subscribe(&broker, &topic).await;
    assert!(since.elapsed() < Duration::from_secs(10));
    server.restart().await;
    receives_again(&broker, &topic).await;
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
    receives_again(&broker, &topic).await;
    assert!(next(&mut subscription).await.is_some());
}

async fn a_refused_user_reports_what_to_check() {
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
    // Its rights suffice: the channel without a receiver is left, and the connection stays.
    let another = self::topic();
    let mut other = subscribe(&broker, &another).await;
    drop(subscription);
    eventually("the channel is left", async || {
        (publish(&broker, &topic, "a", 2).await == 0).then_some(())
    })
    .await;
    assert_eq!(publish(&broker, &another, "a", 1).await, 1);
    received(&mut other).await;
    let denied = server.command(&["ACL", "LOG"]).await.unwrap();
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
async fn the_latency_through_redis_is_low() {
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

    // Many senders share the connection and its round trips.
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

async fn receives_again(broker: &Arc<dyn MessageBroker>, topic: &Name) {
    eventually("the topic has a receiver again", async || {
        try_publish(broker, topic)
            .await
            .ok()
            .filter(|&nodes| nodes > 0)
    })
    .await;
}

/// Publishes many messages at once, as nodes with many tasks do, which must fail within the time limit.
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
