//! The choice of a queue backend.

use super::{
    RedisQueue, error::Error, limit_store::LimitStore, schedule_store::ScheduleStore,
    sqlite::SqliteQueue, task_queue::TaskQueue,
};
use hostel_config as config;
use hostel_runtime::health::Health;
use std::sync::Arc;

/// A queue backend, as the contracts that it keeps.
#[derive(Clone)]
pub struct Opened {
    /// The tasks.
    pub tasks: Arc<dyn TaskQueue>,
    /// The schedules. They end with the queue of tasks.
    pub schedules: Arc<dyn ScheduleStore>,
    /// The limits that are set at run time. They end with the queue of tasks.
    pub limits: Arc<dyn LimitStore>,
}

impl Opened {
    /// Makes one of a backend.
    pub fn new<Q: TaskQueue + ScheduleStore + LimitStore + 'static>(queue: Q) -> Self {
        let queue = Arc::new(queue);
        Self {
            tasks: queue.clone(),
            schedules: queue.clone(),
            limits: queue,
        }
    }
}

/// Opens the configured backend, which reports its faults to `health`.
pub async fn open(queue: &config::Queue, health: &Health) -> Result<Arc<dyn TaskQueue>, Error> {
    Ok(open_with_schedules(queue, health).await?.tasks)
}

/// Opens the configured backend for tasks and schedules.
pub async fn open_with_schedules(queue: &config::Queue, health: &Health) -> Result<Opened, Error> {
    match &queue.backend {
        config::QueueBackend::Sqlite(settings) => {
            Ok(Opened::new(SqliteQueue::open(settings, health).await?))
        }
        config::QueueBackend::Redis(settings) => {
            let queue = RedisQueue::open_reporting(settings, health.clone()).await?;
            Ok(Opened::new(queue))
        }
    }
}
