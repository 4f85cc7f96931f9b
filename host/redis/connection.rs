//! Sends commands to a single Redis server or to a Redis Cluster, through one type.

use crate::cluster::Cluster;
use redis::{
    Cmd, FromRedisValue, Pipeline, RedisFuture, RedisResult, Value,
    aio::{ConnectionLike, ConnectionManager},
    cluster_routing::{
        MultipleNodeRoutingInfo, Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr,
    },
};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// A connection without an answer for this long is checked with PING before it is used.
const IDLE: Duration = Duration::from_secs(1);
/// How many PINGs are sent: the first may only discover that the connection is lost.
const PINGS: usize = 2;

/// A connection to one server or to a cluster. Clones share it.
#[derive(Clone)]
pub enum Connection {
    /// A single server.
    Server(SingleServer),
    /// Routes each command to the node that holds its key.
    Cluster(Cluster),
}

/// A connection to one server that reconnects by itself.
///
/// A closed connection is only noticed when a command fails on it, and a command other than PING must
/// not be sent twice. After an idle time a PING therefore goes first.
#[derive(Clone)]
pub struct SingleServer {
    manager: ConnectionManager,
    created: Instant,
    /// When the last answer came, in milliseconds since `created`.
    last_answer_ms: Arc<AtomicU64>,
}

/// Selects nodes of a cluster.
#[derive(Clone, Copy)]
pub enum Nodes {
    /// The nodes that hold keys of their own.
    Masters,
    /// Every node, replicas included.
    All,
}

impl Connection {
    /// Sends a command that names no key to the node that holds `key`.
    pub async fn on_node_of_key<T: FromRedisValue>(
        &mut self,
        key: &str,
        command: Cmd,
    ) -> RedisResult<T> {
        match self {
            Self::Server(_) => command.query_async(self).await,
            Self::Cluster(cluster) => {
                let route = Route::with_key(key, SlotAddr::Master);
                let node = SingleNodeRoutingInfo::SpecificNode(route);
                let node = RoutingInfo::SingleNode(node);
                let answer = cluster.send(&command, Some(&node)).await?;
                Ok(T::from_redis_value(answer)?)
            }
        }
    }

    /// Sends a command to each of `nodes`, and returns their answers.
    pub async fn on_nodes<T: FromRedisValue>(
        &mut self,
        nodes: Nodes,
        command: Cmd,
    ) -> RedisResult<Vec<T>> {
        match self {
            Self::Server(_) => Ok(vec![command.query_async(self).await?]),
            Self::Cluster(cluster) => {
                let nodes = match nodes {
                    Nodes::Masters => MultipleNodeRoutingInfo::AllMasters,
                    Nodes::All => MultipleNodeRoutingInfo::AllNodes,
                };
                let nodes = RoutingInfo::MultiNode((nodes, None));
                let answers = cluster.send(&command, Some(&nodes)).await?;
                let answers: HashMap<String, T> =
                    FromRedisValue::from_redis_value(answers.extract_error()?)?;
                Ok(answers.into_values().collect())
            }
        }
    }
}

impl SingleServer {
    /// Wraps a connection manager.
    pub fn new(manager: ConnectionManager) -> Self {
        Self {
            manager,
            created: Instant::now(),
            last_answer_ms: Arc::default(),
        }
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.created.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn note_answer<T>(&self, answer: &RedisResult<T>) {
        if answer.is_ok() {
            self.last_answer_ms.store(self.elapsed_ms(), Relaxed);
        }
    }

    /// Sends PING if the connection was idle, so that a lost one is replaced. Does not report an error:
    /// the command that follows fails with it.
    async fn ping_if_idle(&mut self) {
        let idle = Duration::from_millis(
            self.elapsed_ms()
                .saturating_sub(self.last_answer_ms.load(Relaxed)),
        );
        if idle < IDLE {
            return;
        }
        for _ in 0..PINGS {
            match self.manager.send_packed_command(&redis::cmd("PING")).await {
                Err(error) if error.is_unrecoverable_error() || error.is_io_error() => {}
                // An error reply is an answer, too.
                _ => return,
            }
        }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Server(server) => Box::pin(async move {
                server.ping_if_idle().await;
                let answer = server.manager.req_packed_command(command).await;
                server.note_answer(&answer);
                answer
            }),
            Self::Cluster(cluster) => Box::pin(cluster.send(command, None)),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Server(server) => Box::pin(async move {
                server.ping_if_idle().await;
                let answers = server.manager.req_packed_commands(pipeline, offset, count);
                let answers = answers.await;
                server.note_answer(&answers);
                answers
            }),
            Self::Cluster(cluster) => {
                let connection = &mut cluster.connection;
                connection.req_packed_commands(pipeline, offset, count)
            }
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Server(server) => server.manager.get_db(),
            Self::Cluster(cluster) => cluster.connection.get_db(),
        }
    }
}
