//! A Redis Cluster for one test: three masters on free ports. It can move slots between them and add
//! replicas.

use super::{
    eventually,
    servers::{Kind, Server, free_port},
};
use redis::{FromRedisValue, RedisResult, Value};
use std::time::Duration;

const MASTERS: usize = 3;
const SLOTS: usize = 16384;

pub struct RedisCluster {
    /// The masters, followed by the replicas.
    pub nodes: Vec<Server>,
    patience: Duration,
}

impl RedisCluster {
    /// Starts a cluster and waits until every slot is served. A node that does not answer for `patience`
    /// counts as down.
    pub async fn start(patience: Duration) -> Self {
        let mut nodes = Vec::new();
        for _ in 0..MASTERS {
            nodes.push(node(patience).await);
        }
        let cluster = Self { nodes, patience };
        for (index, node) in cluster.nodes.iter().enumerate() {
            let (first, last) = (index * SLOTS / MASTERS, (index + 1) * SLOTS / MASTERS - 1);
            let (first, last) = (first.to_string(), last.to_string());
            let epoch = (index + 1).to_string();
            let () = query(node, &["CLUSTER", "ADDSLOTSRANGE", &first, &last]).await;
            let () = query(node, &["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await;
        }
        for node in &cluster.nodes[1..] {
            cluster.meet(node).await;
        }
        cluster.is_whole().await;
        cluster
    }

    /// Adds a replica, which takes over when its master dies.
    pub async fn add_replica(&mut self, master: usize) {
        let replica = node(self.patience).await;
        self.meet(&replica).await;
        let master = id(&self.nodes[master]).await;
        eventually("it knows its master", async || {
            let replicate = ["CLUSTER", "REPLICATE", &master];
            try_query::<()>(&replica, &replicate).await.ok()
        })
        .await;
        eventually("it has what its master has", async || {
            let info: String = try_query(&replica, &["INFO", "replication"]).await.ok()?;
            info.contains("master_link_status:up").then_some(())
        })
        .await;
        self.nodes.push(replica);
        self.is_whole().await;
    }

    async fn meet(&self, node: &Server) {
        let first = &self.nodes[0];
        let bus: (String, String) = query(first, &["CONFIG", "GET", "cluster-port"]).await;
        let port = first.port().to_string();
        let () = query(node, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus.1]).await;
    }

    /// Waits until every node reports that every slot is served and is linked to all others: published
    /// messages only reach linked nodes.
    pub async fn is_whole(&self) {
        for node in &self.nodes {
            eventually("the cluster is whole", async || {
                let info: String = try_query(node, &["CLUSTER", "INFO"]).await.ok()?;
                let has = |line: &str| info.lines().any(|found| found == line);
                let whole = has("cluster_state:ok")
                    && has("cluster_slots_ok:16384")
                    && has(&format!("cluster_known_nodes:{}", self.nodes.len()));
                let nodes: String = try_query(node, &["CLUSTER", "NODES"]).await.ok()?;
                let linked = !nodes.contains("disconnected") && !nodes.contains("handshake");
                (whole && linked).then_some(())
            })
            .await;
        }
    }

    /// Returns the URLs of all nodes for the configuration.
    pub fn url(&self) -> String {
        let urls: Vec<String> = self.nodes.iter().map(Server::url).collect();
        urls.join(",")
    }

    pub async fn slot(&self, key: &str) -> u16 {
        query(&self.nodes[0], &["CLUSTER", "KEYSLOT", key]).await
    }

    /// Returns the index of the node that serves a key, as reported by the first node.
    pub async fn owner(&self, key: &str) -> usize {
        let slot = self.slot(key).await;
        // Each range has the first slot, the last slot, and the nodes with address, port and more.
        let ranges: Vec<Vec<Value>> = query(&self.nodes[0], &["CLUSTER", "SLOTS"]).await;
        let number = |value: &Value| match value {
            Value::Int(number) => u16::try_from(*number).expect("a slot or a port"),
            other => panic!("{other:?}"),
        };
        let mut ranges = ranges.iter();
        let range = ranges.find(|range| (number(&range[0])..=number(&range[1])).contains(&slot));
        let Value::Array(master) = &range.expect("every slot is served")[2] else {
            panic!("{range:?}");
        };
        let port = number(&master[1]);
        let mut nodes = self.nodes.iter();
        nodes.position(|node| node.port() == port).expect("a node")
    }

    /// Begins to move a slot between two nodes.
    pub async fn begin_to_move(&self, slot: u16, from: usize, to: usize) {
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        let slot = slot.to_string();
        let (here, there) = (id(source).await, id(target).await);
        let words = ["CLUSTER", "SETSLOT", &slot];
        let () = query(target, &[&words[..], &["IMPORTING", &here]].concat()).await;
        let () = query(source, &[&words[..], &["MIGRATING", &there]].concat()).await;
    }

    /// Moves at most `max` keys of the slot and returns their number.
    pub async fn move_keys(&self, slot: u16, from: usize, to: usize, max: usize) -> usize {
        let (slot, max) = (slot.to_string(), max.to_string());
        let get = ["CLUSTER", "GETKEYSINSLOT", &slot, &max];
        let keys: Vec<String> = query(&self.nodes[from], &get).await;
        if !keys.is_empty() {
            let port = self.nodes[to].port().to_string();
            let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            migrate.extend(keys.iter().map(String::as_str));
            let () = query(&self.nodes[from], &migrate).await;
        }
        keys.len()
    }

    /// Ends the move: the slot belongs to the other node.
    pub async fn end_move(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        let owner = id(&self.nodes[to]).await;
        let others = (0..self.nodes.len()).filter(|&node| node != to && node != from);
        for node in [to, from].into_iter().chain(others) {
            let words = ["CLUSTER", "SETSLOT", &slot, "NODE", &owner];
            let () = query(&self.nodes[node], &words).await;
        }
    }
}

async fn node(patience: Duration) -> Server {
    let patience = patience.as_millis().to_string();
    let more = |_: &_, _| {
        let bus = free_port().to_string();
        let more = ["--cluster-enabled", "yes", "--cluster-port", &bus];
        let more = more
            .into_iter()
            .chain(["--cluster-node-timeout", &patience]);
        more.map(str::to_owned).collect()
    };
    Server::start_with(Kind::Redis, more).await
}

async fn id(node: &Server) -> String {
    query(node, &["CLUSTER", "MYID"]).await
}

async fn try_query<T: FromRedisValue>(node: &Server, words: &[&str]) -> RedisResult<T> {
    Ok(T::from_redis_value(node.command(words).await?)?)
}

async fn query<T: FromRedisValue>(node: &Server, words: &[&str]) -> T {
    let answer = try_query(node, words).await;
    answer.unwrap_or_else(|error| panic!("{words:?}: {error}"))
}
