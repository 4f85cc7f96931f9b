//! A connection for scripts that carry payloads and results. It is apart from the one for short calls,
//! which would wait behind megabytes; a call may take as much longer as it has more to carry; and what
//! a call that timed out has left in the socket's queue goes away together with the connection. Knows
//! no verb.

use super::core::{CALL, Core};
use crate::{Error, transfer_time};
use hostel_redis::{Connection, Server};
use redis::{RedisError, RedisResult};
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

pub(super) struct Bulk(Mutex<Connection>);

impl Bulk {
    pub async fn connect(server: &Server) -> Result<Self, RedisError> {
        Ok(Self(Mutex::new(server.connect_for_bulk().await?)))
    }

    pub fn connection(&self) -> Connection {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The answer to a call that carries so many bytes, or what its absence means.
    pub async fn within<T>(
        &self,
        core: &Core,
        bytes: usize,
        answer: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, Error> {
        let limit = CALL + transfer_time(bytes);
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(core.explain(&error)),
            Err(_) => {
                self.renew(&core.server).await;
                Err(no_answer(limit))
            }
        }
    }

    /// Drops the connection and what waits for it.
    async fn renew(&self, server: &Server) {
        // To one server this connects with the first call, and does not wait.
        if let Ok(connection) = server.connect_for_bulk().await {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = connection;
        }
    }
}

pub(super) fn no_answer(within: Duration) -> Error {
    Error::Unavailable {
        reason: format!("no answer from Redis within {} s", within.as_secs()),
        outcome_unknown: true,
    }
}
