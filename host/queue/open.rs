//! The choice of a queue backend.

use super::{RedisQueue, error::Error, sqlite::SqliteQueue, task_queue::TaskQueue};
use hostel_config as config;
use hostel_runtime::health::Health;
use std::sync::Arc;

/// Opens the configured backend, which reports its faults to `health`.
pub async fn open(queue: &config::Queue, health: &Health) -> Result<Arc<dyn TaskQueue>, Error> {
    match &queue.backend {
        config::QueueBackend::Sqlite(settings) => {
            Ok(Arc::new(SqliteQueue::open(settings, health).await?))
        }
        config::QueueBackend::Redis(settings) => {
            let queue = RedisQueue::open_reporting(settings, health.clone()).await?;
            Ok(Arc::new(queue))
        }
    }
}
