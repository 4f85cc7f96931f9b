//! The conformance suites of queue and broker over a Redis Cluster, and cases that need a cluster: a node
//! that dies, a slot that moves, nodes with different settings.

use super::{
    queue,
    queue_redis::{refusal, say, share_their_tasks, until},
    redis_flow::Flow,
};
use crate::support::{self, eventually, redis_cluster::RedisCluster, servers::Kind};
use hostel::{
    broker::{MessageBroker, RedisBroker, conformance as broker},
    config,
    queue::{Durability, RedisQueue, TaskQueue},
};
use libtest_mimic::Trial;
use std::{sync::Arc, time::Duration};
use tokio::sync::OnceCell;

/// After how long a node without an answer counts as down: for clusters whose nodes must stay up on a slow
/// machine, and for those of which a node is killed.
const STEADY: Duration = Duration::from_secs(30);
const QUICK: Duration = Duration::from_secs(2);

/// One cluster for many trials, which ends with the last of them.
type Shared = Arc<OnceCell<RedisCluster>>;

pub fn trials() -> Vec<Trial> {
    let shared = Shared::default();
    let mut trials = Vec::new();
    let in_three_shards = queue::cases().map(|case| (case, 3));
    let in_one_shard = queue::ordered_cases().map(|case| (case, 1));
    for (case, shards) in in_three_shards.chain(in_one_shard) {
        let shared = shared.clone();
        trials.push(trial("queue", case.name(), move || async move {
            let cluster = shared.get_or_init(|| RedisCluster::start(STEADY)).await;
            let settings = settings(cluster, case.name(), shards).await;
            let open = || async {
                let queue = RedisQueue::open(&settings).await.unwrap();
                Arc::new(queue) as Arc<dyn TaskQueue>
            };
            case.run(open).await;
        }));
    }
    // A node of a cluster forwards messages after it has answered the sender, so a message may reach a
    // receiver that came later.
    for case in broker::cases().filter(|case| case.name() != "earlier_messages_are_not_received") {
        let shared = shared.clone();
        trials.push(trial("broker", case.name(), async move || {
            let cluster = shared.get_or_init(|| RedisCluster::start(STEADY)).await;
            case.run(async || connect(&cluster.url())).await;
        }));
    }
    trials.extend([
        trial(
            "queue",
            "shards_are_spread_over_nodes",
            shards_are_spread_over_nodes,
        ),
        trial(
            "queue",
            "a_killed_node_loses_nothing",
            a_killed_node_loses_nothing,
        ),
        trial(
            "queue",
            "a_promoted_replica_has_every_acknowledged_task",
            a_promoted_replica_has_every_acknowledged_task,
        ),
        trial(
            "queue",
            "a_slot_moves_while_tasks_flow",
            a_slot_moves_while_tasks_flow,
        ),
        trial(
            "queue",
            "the_weakest_node_decides_the_durability",
            the_weakest_node_decides_the_durability,
        ),
        trial(
            "broker",
            "nodes_receive_from_each_other",
            nodes_receive_from_each_other,
        ),
        trial(
            "broker",
            "another_node_serves_after_a_kill",
            another_node_serves_after_a_kill,
        ),
    ]);
    trials
}

fn trial<F>(what: &str, name: &str, case: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = ()>,
{
    let name = format!("{what}::redis_cluster::{name}");
    support::trial_needing(&name, Kind::Redis.is_installed(), case)
}

/// Returns settings with a prefix for the case, under which each shard is on another node.
async fn settings(cluster: &RedisCluster, name: &str, shards: u32) -> config::RedisQueue {
    let mut prefix = String::new();
    for number in 0.. {
        prefix = format!("{name}-{number}");
        let mut owners = Vec::new();
        for shard in 0..shards {
            owners.push(cluster.owner(&tag(&prefix, shard)).await);
        }
        owners.sort_unstable();
        owners.dedup();
        if owners.len() == shards as usize {
            break;
        }
    }
    let mut server = config::Redis::at(&cluster.url(), &prefix).unwrap();
    server.cluster = true;
    config::RedisQueue {
        server,
        shards,
        max_open_tasks: queue::MAX_OPEN_TASKS,
        replicas: 0,
        reserve_percent: config::RedisQueue::RESERVE_PERCENT,
    }
}

fn tag(prefix: &str, shard: u32) -> String {
    format!("{{{prefix}:{shard}}}")
}

fn connect(url: &str) -> Arc<dyn MessageBroker> {
    let mut settings = config::Redis::at(url, "test").unwrap();
    settings.cluster = true;
    Arc::new(RedisBroker::open(&settings).unwrap())
}

async fn shards_are_spread_over_nodes() {
    let cluster = RedisCluster::start(STEADY).await;
    let settings = settings(&cluster, "test", 3).await;
    let queue = RedisQueue::open(&settings).await.unwrap();
    let batch = (0..60).map(|n| queue::task(&format!("t{n}"), "echo", b"x"));
    queue.submit(batch.collect()).await.unwrap();
    for node in &cluster.nodes {
        let keys = say(node, &["DBSIZE"]).await;
        assert!(matches!(keys, redis::Value::Int(10..)), "{keys:?}");
    }
    // Scripts that the nodes have lost are loaded again.
    for node in &cluster.nodes {
        say(node, &["SCRIPT", "FLUSH"]).await;
    }
    let all = queue::request(&[("echo", 99)], 99, STEADY);
    assert_eq!(queue.lease(&all).await.unwrap().len(), 60);
    queue.close().await;
    share_their_tasks(&settings).await;
}

async fn a_killed_node_loses_nothing() {
    let mut cluster = RedisCluster::start(QUICK).await;
    let settings = settings(&cluster, "test", 3).await;
    let queue = Arc::new(RedisQueue::open(&settings).await.unwrap());
    let owner = cluster
        .owner(&tag(settings.server.prefix.as_str(), 0))
        .await;
    let flow = Flow::start(queue.clone());
    flow.accepts(300).await;
    cluster.nodes[owner].kill();
    // The cluster serves no slot while one has no node.
    flow.fails_with("CLUSTERDOWN").await;
    cluster.nodes[owner].restart().await;
    flow.accepts(300).await;
    flow.all_exist().await;
    flow.ends_once().await;
    queue.close().await;
}

/// An acknowledged task is on the replica as well, so the promoted replica has it.
async fn a_promoted_replica_has_every_acknowledged_task() {
    let mut cluster = RedisCluster::start(QUICK).await;
    let mut settings = settings(&cluster, "test", 1).await;
    let owner = cluster
        .owner(&tag(settings.server.prefix.as_str(), 0))
        .await;
    cluster.add_replica(owner).await;
    // The other masters have no replica, which does not matter to this shard.
    settings.replicas = 1;
    let queue = Arc::new(RedisQueue::open(&settings).await.unwrap());
    let flow = Flow::start(queue.clone());
    flow.accepts(300).await;
    cluster.nodes[owner].kill();
    // The new master has no replica until the old one is back.
    flow.fails_with("0 of 1 replicas").await;
    cluster.nodes[owner].restart().await;
    flow.accepts(300).await;
    flow.all_exist().await;
    // Replicas do not confirm results, so one may be lost and its task run again.
    let twice = flow.ends().await;
    println!("run again after the replica took over: {}", twice.len());
    queue.close().await;
}

async fn a_slot_moves_while_tasks_flow() {
    let cluster = RedisCluster::start(STEADY).await;
    let settings = settings(&cluster, "test", 3).await;
    let queue = Arc::new(RedisQueue::open(&settings).await.unwrap());
    let key = tag(settings.server.prefix.as_str(), 0);
    let (slot, from) = (cluster.slot(&key).await, cluster.owner(&key).await);
    let to = (from + 1) % cluster.nodes.len();
    let flow = Flow::start(queue.clone());
    flow.accepts(300).await;
    cluster.begin_to_move(slot, from, to).await;
    // While keys are on both nodes, tasks are found, and none is created or changed.
    assert_eq!(cluster.move_keys(slot, from, to, 40).await, 40);
    flow.fails_with("TRYAGAIN").await;
    flow.all_exist().await;
    while cluster.move_keys(slot, from, to, 100).await > 0 {}
    cluster.end_move(slot, from, to).await;
    flow.accepts(300).await;
    assert_eq!(cluster.owner(&key).await, to);
    flow.all_exist().await;
    flow.ends_once().await;
    queue.close().await;
}

async fn the_weakest_node_decides_the_durability() {
    let cluster = RedisCluster::start(STEADY).await;
    let settings = settings(&cluster, "test", 1).await;
    for node in &cluster.nodes {
        say(node, &["CONFIG", "SET", "appendfsync", "always"]).await;
    }
    let detected = async || {
        let queue = RedisQueue::open(&settings).await.unwrap();
        let durability = queue.durability();
        queue.close().await;
        durability
    };
    assert_eq!(detected().await, Durability::Synced);
    say(
        &cluster.nodes[2],
        &["CONFIG", "SET", "appendfsync", "everysec"],
    )
    .await;
    assert_eq!(detected().await, Durability::Periodic);
    say(&cluster.nodes[0], &["CONFIG", "SET", "appendonly", "no"]).await;
    assert_eq!(detected().await, Durability::Memory);
    let user = ["ACL", "SETUSER", "default", "-config"];
    say(&cluster.nodes[1], &user).await;
    assert_eq!(detected().await, Durability::Unknown);
    say(&cluster.nodes[1], &["ACL", "SETUSER", "default", "+config"]).await;
    let policy = ["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"];
    say(&cluster.nodes[1], &policy).await;
    let why = refusal(&settings).await;
    assert!(why.contains("allkeys-lru"), "{why}");
}

/// Each broker uses another node of the Redis Cluster.
async fn nodes_receive_from_each_other() {
    let cluster = RedisCluster::start(STEADY).await;
    let brokers: Vec<_> = cluster
        .nodes
        .iter()
        .map(|node| connect(&node.url()))
        .collect();
    let topic = broker::topic();
    let mut all = Vec::new();
    for broker in &brokers {
        all.push(broker::subscribe(broker, &topic).await);
    }
    for (number, broker) in brokers.iter().enumerate() {
        assert_eq!(broker::publish(broker, &topic, "a", number).await, 3);
        for subscription in &mut all {
            assert_eq!(broker::received(subscription).await.id, number.to_string());
        }
    }
    // One broker listens, and the others count one receiver.
    all.truncate(1);
    for broker in &brokers {
        eventually("the others have left", async || {
            let receivers = broker::publish(broker, &topic, "a", 9).await;
            (receivers == 1).then_some(())
        })
        .await;
    }
}

async fn another_node_serves_after_a_kill() {
    let mut cluster = RedisCluster::start(QUICK).await;
    let (here, there) = (connect(&cluster.url()), connect(&cluster.url()));
    let topic = broker::topic();
    let mut subscription = broker::subscribe(&here, &topic).await;
    assert_eq!(broker::publish(&there, &topic, "a", 1).await, 1);
    // Both brokers listen to this node first.
    cluster.nodes[0].kill();
    until("a message is received", async || {
        // Publishing may fail if the listeners cannot be counted.
        let _ = super::broker_redis::try_publish(&there, &topic).await;
        let next = broker::next(&mut subscription);
        let next = tokio::time::timeout(Duration::from_millis(200), next).await;
        next.is_ok_and(|next| next.is_some())
    })
    .await;
    cluster.nodes[0].restart().await;
    cluster.is_whole().await;
    eventually("the receiver is counted", async || {
        let sent = super::broker_redis::try_publish(&there, &topic).await;
        sent.ok().filter(|&nodes| nodes == 1)
    })
    .await;
}
