//! Writes services to etcd, each under a lease of its own. A write that has begun does not end with its
//! caller: a lease that was granted and not used would stay in etcd for its whole time to live, and no
//! limit would count it.

use super::{
    cluster_view::{ClusterView, PendingService},
    keyspace::Entry,
    server::{Server, lease_seconds},
};
use crate::{error::Error, record::ServiceInfo};
use etcd_client::{Client, LeaseGrantOptions, PutOptions};
use std::{sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

/// How many writes run at once, those whose caller is gone included.
const MAX_WRITES: usize = 64;

/// Writes the services that clients of this node register.
pub(super) struct ServiceWriter {
    writer: Writer,
    turns: Arc<Semaphore>,
}

/// A turn to write one service, given back when the write has ended.
pub(super) struct Turn {
    _pending: PendingService,
    _permit: OwnedSemaphorePermit,
}

#[derive(Clone)]
struct Writer {
    server: Arc<Server>,
    view: Arc<ClusterView>,
    prefix: String,
    /// The writes that have begun.
    running: TaskTracker,
}

/// The result of a successful write.
struct Written {
    ttl: Duration,
    /// The lease of the service's previous write, which holds no key any more; 0 if there was none.
    previous: i64,
}

impl ServiceWriter {
    pub fn new(server: Arc<Server>, view: Arc<ClusterView>, prefix: String) -> Self {
        Self {
            writer: Writer {
                server,
                view,
                prefix,
                running: TaskTracker::new(),
            },
            turns: Arc::new(Semaphore::new(MAX_WRITES)),
        }
    }

    /// Waits for the turn of a write that is counted as `pending`.
    pub async fn turn(&self, pending: PendingService) -> Result<Turn, Error> {
        let permit = self.turns.clone().acquire_owned().await;
        Ok(Turn {
            _pending: pending,
            _permit: permit.map_err(|_| stopping())?,
        })
    }

    /// Writes a service, and returns the time to live that etcd granted. Goes on if it is dropped.
    pub async fn write(
        &self,
        turn: Turn,
        client: Client,
        service: ServiceInfo,
        ttl: Duration,
    ) -> Result<Duration, Error> {
        let writer = self.writer.clone();
        let write = async move { writer.write(turn, client, service, ttl).await };
        let running = self.writer.running.spawn(write);
        running.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Waits for the end of the writes that have begun.
    pub async fn finished(&self) {
        self.writer.running.close();
        self.writer.running.wait().await;
    }
}

impl Writer {
    async fn write(
        self,
        turn: Turn,
        client: Client,
        service: ServiceInfo,
        ttl: Duration,
    ) -> Result<Duration, Error> {
        // Chosen here, so that it can be revoked even if the answer of etcd does not arrive.
        let lease = fastrand::i64(1..=i64::MAX);
        match self.put(client.clone(), lease, service, ttl).await {
            Ok(written) => {
                self.revoke(client, written.previous).await;
                Ok(written.ttl)
            }
            Err(error) => {
                // The caller has waited for long enough.
                let running = self.running.clone();
                running.spawn(async move {
                    self.revoke(client, lease).await;
                    drop(turn);
                });
                Err(error)
            }
        }
    }

    async fn put(
        &self,
        mut client: Client,
        lease: i64,
        service: ServiceInfo,
        ttl: Duration,
    ) -> Result<Written, Error> {
        let entry = Entry::Service(service);
        let value = entry
            .value()
            .map_err(|error| Error::Unavailable(error.to_string()))?;
        let options = LeaseGrantOptions::new().with_id(lease);
        let granted = client.lease_grant(lease_seconds(ttl), Some(options));
        let granted = self.server.within(granted).await?;
        let options = PutOptions::new().with_lease(lease).with_prev_key();
        let put = client.put(entry.key().path(&self.prefix), value, Some(options));
        let put = self.server.within(put).await?;
        let revision = put.header().map_or(0, |header| header.revision());
        self.view.lock().apply_write(entry, revision);
        Ok(Written {
            ttl: Duration::from_secs(u64::try_from(granted.ttl()).unwrap_or_default()),
            previous: put.prev_key().map_or(0, |before| before.lease()),
        })
    }

    async fn revoke(&self, mut client: Client, lease: i64) {
        if lease != 0
            && let Err(error) = self.server.within(client.lease_revoke(lease)).await
        {
            tracing::debug!("cannot revoke an unused lease, which ends by itself: {error}");
        }
    }
}

fn stopping() -> Error {
    Error::Unavailable("the node is stopping".into())
}
