//! One way to send commands, whether to a server or to a cluster. Decides nothing.

use redis::{
    Cmd, FromRedisValue, Pipeline, RedisFuture, RedisResult, Value,
    aio::{ConnectionLike, ConnectionManager},
    cluster_async::ClusterConnection,
    cluster_routing::{
        MultipleNodeRoutingInfo, Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr,
    },
};
use std::collections::HashMap;

/// Cheap to clone; clones share what is behind it.
#[derive(Clone)]
pub(crate) enum Connection {
    Server(ConnectionManager),
    /// Finds the node by a command's key.
    Cluster(ClusterConnection),
}

/// Which servers of a cluster.
#[derive(Clone, Copy)]
pub(crate) enum Nodes {
    /// Those that hold keys of their own.
    Masters,
    All,
}

impl Connection {
    /// Sends a command that names no key to where this one is.
    pub async fn beside<T: FromRedisValue>(&mut self, key: &str, command: Cmd) -> RedisResult<T> {
        match self {
            Self::Server(connection) => command.query_async(connection).await,
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
            Self::Server(connection) => Ok(vec![command.query_async(connection).await?]),
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

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Server(connection) => connection.req_packed_command(command),
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
            Self::Server(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Server(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}
