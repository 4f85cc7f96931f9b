//! A connection for scripts that carry payloads and results. It is separate from the one for short calls,
//! which would wait behind megabytes. The time limit of a call grows with its bytes, and a call that times
//! out replaces the connection, so that its bytes do not delay the next call.

use super::errors::{explain, no_answer};
use crate::{Error, transfer_time};
use hostel_redis::{Connection, Server};
use parking_lot::Mutex;
use redis::RedisResult;
use std::time::Duration;

/// A connection for large arguments or answers.
pub(super) struct BulkConnection {
    server: Server,
    reserve_percent: u64,
    connection: Mutex<Connection>,
}

impl BulkConnection {
    pub async fn connect(server: &Server, reserve_percent: u64) -> Result<Self, Error> {
        let connection = server.connect_for_bulk().await;
        let connection = connection.map_err(|error| explain(server, reserve_percent, &error))?;
        Ok(Self {
            server: server.clone(),
            reserve_percent,
            connection: Mutex::new(connection),
        })
    }

    pub fn connection(&self) -> Connection {
        self.connection.lock().clone()
    }

    /// Waits for an answer within `limit` and the time that `bytes` take on their way.
    pub async fn within<T>(
        &self,
        limit: Duration,
        bytes: usize,
        answer: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, Error> {
        let limit = limit + transfer_time(bytes);
        match tokio::time::timeout(limit, answer).await {
            Ok(answer) => {
                answer.map_err(|error| explain(&self.server, self.reserve_percent, &error))
            }
            Err(_) => {
                self.replace().await;
                Err(no_answer(limit))
            }
        }
    }

    /// Replaces the connection, which drops what waits to be sent on it.
    async fn replace(&self) {
        // To a single server this connects at the next call, and does not wait.
        if let Ok(connection) = self.server.connect_for_bulk().await {
            *self.connection.lock() = connection;
        }
    }
}
