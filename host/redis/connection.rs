//! One way to send commands, whether to a server or to a cluster. Decides nothing.

use redis::{
    Cmd, FromRedisValue, Pipeline, RedisFuture, RedisResult, Value,
    aio::{ConnectionLike, ConnectionManager},
    cluster_async::ClusterConnection,
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

/// After how long without an answer a connection is asked whether it still is one.
const REST: Duration = Duration::from_secs(1);
/// How often it is asked: the first question may only find out that it is none.
const QUESTIONS: usize = 2;

/// Cheap to clone; clones share what is behind it.
#[derive(Clone)]
pub enum Connection {
    Server(OneServer),
    /// Finds the node by a command's key.
    Cluster(ClusterConnection),
}

/// A connection that is made anew when it is lost. Nobody is told that it was closed until a command
/// fails by it, and no command but a question may be sent twice: so who comes after a rest asks first.
#[derive(Clone)]
pub struct OneServer {
    manager: ConnectionManager,
    made_at: Instant,
    /// When it last gave an answer, counted from `made_at`.
    heard_ms: Arc<AtomicU64>,
}

/// Which servers of a cluster.
#[derive(Clone, Copy)]
pub enum Nodes {
    /// Those that hold keys of their own.
    Masters,
    All,
}

impl Connection {
    /// Sends a command that names no key to where this one is.
    pub async fn beside<T: FromRedisValue>(&mut self, key: &str, command: Cmd) -> RedisResult<T> {
        match self {
            Self::Server(_) => command.query_async(self).await,
            Self::Cluster(connection) => {
                let route = Route::with_key(key, SlotAddr::Master);
                let node = SingleNodeRoutingInfo::SpecificNode(route);
                let node = RoutingInfo::SingleNode(node);
                let answer = connection.route_command(command, node).await?;
                Ok(T::from_redis_value(answer)?)
            }
        }
    }

    /// Sends a command to these, and brings the answer of each.
    pub async fn everywhere<T: FromRedisValue>(
        &mut self,
        nodes: Nodes,
        command: Cmd,
    ) -> RedisResult<Vec<T>> {
        match self {
            Self::Server(_) => Ok(vec![command.query_async(self).await?]),
            Self::Cluster(connection) => {
                let nodes = match nodes {
                    Nodes::Masters => MultipleNodeRoutingInfo::AllMasters,
                    Nodes::All => MultipleNodeRoutingInfo::AllNodes,
                };
                let nodes = RoutingInfo::MultiNode((nodes, None));
                let answers = connection.route_command(command, nodes).await?;
                let answers: HashMap<String, T> =
                    FromRedisValue::from_redis_value(answers.extract_error()?)?;
                Ok(answers.into_values().collect())
            }
        }
    }
}

impl OneServer {
    pub fn new(manager: ConnectionManager) -> Self {
        Self {
            manager,
            made_at: Instant::now(),
            heard_ms: Arc::default(),
        }
    }

    fn ms(&self) -> u64 {
        u64::try_from(self.made_at.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn heard<T>(&self, answer: &RedisResult<T>) {
        if answer.is_ok() {
            self.heard_ms.store(self.ms(), Relaxed);
        }
    }

    /// Whatever is wrong now, the command that follows will say.
    async fn ask_after_rest(&mut self) {
        let rested = Duration::from_millis(self.ms().saturating_sub(self.heard_ms.load(Relaxed)));
        if rested < REST {
            return;
        }
        for _ in 0..QUESTIONS {
            match self.manager.send_packed_command(&redis::cmd("PING")).await {
                Err(error) if error.is_unrecoverable_error() || error.is_io_error() => {}
                // Even a refusal is an answer.
                _ => return,
            }
        }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Server(server) => Box::pin(async move {
                server.ask_after_rest().await;
                let answer = server.manager.req_packed_command(command).await;
                server.heard(&answer);
                answer
            }),
            Self::Cluster(connection) => connection.req_packed_command(command),
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
                server.ask_after_rest().await;
                let answers = server.manager.req_packed_commands(pipeline, offset, count);
                let answers = answers.await;
                server.heard(&answers);
                answers
            }),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Server(server) => server.manager.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}
