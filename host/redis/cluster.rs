//! Sends commands to a Redis Cluster, and again if that may help: while a node is replaced, and while a slot
//! moves from one node to another.
//!
//! The client could repeat commands by itself. But while a slot moves, the node that has it names another one
//! for a key that has moved already (ASK), which serves only the command behind ASKING. The client sends the
//! two one after the other over a connection that all callers share. Another command may come between them,
//! and then the key is not found where it is. Here they are sent as one, over a connection of their own.

use crate::{RETRIES, RETRY_MS, Server};
use redis::{
    Cmd, Pipeline, RedisError, RedisResult, RetryMethod, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster_async::ClusterConnection,
    cluster_routing::RoutingInfo,
};
use std::{sync::Arc, time::Duration};
use tokio::sync::Mutex;

/// A connection to a cluster. Clones share it.
#[derive(Clone)]
pub struct Cluster {
    /// Repeats nothing.
    pub(crate) connection: ClusterConnection,
    server: Arc<Server>,
    /// The connection to the node that was named last by ASK.
    asked: Arc<Mutex<Option<Asked>>>,
}

/// A node and a connection to it.
type Asked = ((String, u16), MultiplexedConnection);

impl Cluster {
    /// Wraps a connection of a client that repeats nothing.
    pub(crate) fn new(connection: ClusterConnection, server: Server) -> Self {
        Self {
            connection,
            server: Arc::new(server),
            asked: Arc::default(),
        }
    }

    /// Sends a command to the node that has its key, or to that of `route`, and again if that may help.
    pub async fn send(&mut self, command: &Cmd, route: Option<&RoutingInfo>) -> RedisResult<Value> {
        let mut retries = 0;
        loop {
            let answer = match self.send_once(command, route).await {
                Err(error) => self.follow(command, error).await,
                answer => answer,
            };
            let Err(error) = &answer else {
                return answer;
            };
            retries += 1;
            if retries > RETRIES || !self.may_repeat(error) {
                return answer;
            }
            if !matches!(error.retry_method(), RetryMethod::MovedRedirect) || retries > 1 {
                let most = (RETRY_MS.0 << retries).min(RETRY_MS.1);
                let wait = Duration::from_millis(fastrand::u64(RETRY_MS.0..=most));
                tokio::time::sleep(wait).await;
            }
        }
    }

    async fn send_once(
        &mut self,
        command: &Cmd,
        route: Option<&RoutingInfo>,
    ) -> RedisResult<Value> {
        let answer = match route {
            None => self.connection.req_packed_command(command).await?,
            Some(route) => {
                let route = route.clone();
                self.connection
                    .route_command(command.clone(), route)
                    .await?
            }
        };
        Ok(answer)
    }

    /// Whether a command that has failed may succeed if it is sent again. A node that redirects has not executed
    /// it; otherwise it may be executed twice.
    fn may_repeat(&self, error: &RedisError) -> bool {
        match error.retry_method() {
            RetryMethod::NoRetry => false,
            RetryMethod::AskRedirect | RetryMethod::MovedRedirect => true,
            _ => self.server.retries,
        }
    }

    /// Sends a command to the node that ASK names; returns any other error as it is.
    async fn follow(&self, command: &Cmd, error: RedisError) -> RedisResult<Value> {
        if !matches!(error.retry_method(), RetryMethod::AskRedirect) {
            return Err(error);
        }
        let node = error.redirect_node();
        let node = node.and_then(|(address, _slot)| address.rsplit_once(':'));
        let node = node.and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
        let Some(node) = node else {
            return Err(error);
        };
        let mut connection = self.connect(&node).await?;
        let mut both = Pipeline::new();
        both.add_command(redis::cmd("ASKING"));
        both.add_command(command.clone());
        let answers = connection.req_packed_commands(&both, 1, 1).await;
        if let Err(error) = &answers
            && error.is_unrecoverable_error()
        {
            *self.asked.lock().await = None;
        }
        let answer = answers?.pop().ok_or(error)?;
        answer.extract_error()
    }

    /// Returns a connection to a node that ASK names.
    async fn connect(&self, node: &(String, u16)) -> RedisResult<MultiplexedConnection> {
        let mut asked = self.asked.lock().await;
        if let Some((known, connection)) = &*asked
            && known == node
        {
            return Ok(connection.clone());
        }
        let connection = self
            .server
            .connect_blocking(Some(node), Duration::ZERO)
            .await?;
        *asked = Some((node.clone(), connection.clone()));
        Ok(connection)
    }
}
