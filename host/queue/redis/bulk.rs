//! A connection for calls that carry payloads and results. It is separate from the one for short calls,
//! which would wait behind megabytes. The time limit of a call grows with its bytes and with those of the
//! calls before it. A call that times out replaces the connection, so that its bytes do not delay the next
//! call.

use super::errors::{explain, no_answer};
use crate::{Error, transfer_time};
use hostel_redis::{Connection, Server};
use parking_lot::Mutex;
use redis::RedisResult;
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

/// A connection for large arguments or answers.
pub(super) struct BulkConnection {
    server: Server,
    reserve_percent: u64,
    connection: Mutex<Connection>,
    /// The bytes of the calls that are not answered yet.
    unanswered: AtomicUsize,
}

/// The bytes of one call, until it is answered or dropped.
struct Unanswered<'a>(&'a AtomicUsize, usize);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

impl BulkConnection {
    pub async fn connect(server: &Server, reserve_percent: u64) -> Result<Self, Error> {
        let connection = server.connect_for_bulk().await;
        let connection = connection.map_err(|error| explain(server, reserve_percent, &error))?;
        Ok(Self {
            server: server.clone(),
            reserve_percent,
            connection: Mutex::new(connection),
            unanswered: AtomicUsize::new(0),
        })
    }

    pub fn connection(&self) -> Connection {
        self.connection.lock().clone()
    }

    /// Waits for an answer within `limit` and the time that `bytes`, and those of the calls before, take on
    /// their way.
    pub async fn within<T>(
        &self,
        limit: Duration,
        bytes: usize,
        answer: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, Error> {
        let before = self.unanswered.fetch_add(bytes, Ordering::Relaxed);
        let _unanswered = Unanswered(&self.unanswered, bytes);
        let limit = limit + transfer_time(before.saturating_add(bytes));
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
