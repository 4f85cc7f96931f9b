//! Runs tasks: leases what this node can take, calls the guests, and writes the results. Meets clients
//! only in the queue; `task::transition` decides what the end of an attempt means. A drained node
//! finishes its tasks and takes no more until it is undrained.

mod active_leases;
mod attempt;
mod change_listener;
mod dispatcher;
mod failure_log;
mod finisher;
mod heartbeat;
mod hosted_types;
mod reaper;
mod shared;
mod slot;
mod slots;
mod turns;

use crate::{
    budget::Budget,
    config,
    discovery::ServiceDiscovery,
    health::{Background, Health, Part},
    lifecycle::Component,
    plugin::PluginHost,
    queue::{LimitTable, TaskQueue},
    task::Name,
};
use active_leases::ActiveLeases;
use async_trait::async_trait;
use attempt::InterruptReason;
use failure_log::FailureLog;
use parking_lot::Mutex;
use shared::Shared;
use slot::UnwrittenResult;
use slots::Slots;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long interrupted guests may take to return, after the drain time.
const INTERRUPT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long writing results may take at least, even if the drain time is over.
const MIN_WRITE_TIME: Duration = Duration::from_secs(3);

/// The part of a node that runs tasks.
pub struct Worker {
    shared: Arc<Shared>,
    health: Health,
    started: Mutex<Option<Started>>,
    drain: Duration,
}

/// What a stop ends. Dropping it ends all of it at once, if the stop is cancelled.
struct Started {
    dispatcher: Background,
    /// Heartbeat, reaper and queue listener, which go on until all results are written.
    others: [Background; 3],
    running: TaskTracker,
    finisher: Background,
    /// The last sender except those of running attempts: dropping it lets the finisher end.
    finished: mpsc::Sender<UnwrittenResult>,
    /// Makes the finisher release the tasks whose results are not written.
    too_late: CancellationToken,
}

impl Worker {
    /// Creates the worker of `node`. It takes tasks from its start on.
    pub fn new(
        node: Name,
        queue: Arc<dyn TaskQueue>,
        plugins: Arc<PluginHost>,
        discovery: Arc<dyn ServiceDiscovery>,
        limits: Arc<LimitTable>,
        health: Health,
        config: &config::Config,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                node,
                labels: config.node.labels.clone(),
                queue,
                plugins,
                discovery,
                limits,
                slots: Slots::new(config.plugins.max_tasks),
                active_leases: ActiveLeases::new(config.plugins.cancel_grace),
                unwritten: Budget::new(config.queue.max_unwritten_bytes),
                failures: FailureLog::default(),
                lease_ttl: config.queue.lease_ttl,
                retention: config.retention(),
                max_timeout: config.plugins.max_timeout,
                wake: Notify::new(),
            }),
            health,
            started: Mutex::default(),
            drain: config.node.drain,
        }
    }

    /// Runs a background task of the worker, again whenever it ends.
    fn restarting<F>(
        &self,
        name: &'static str,
        run: impl Fn(Arc<Shared>) -> F + Send + 'static,
    ) -> Background
    where
        F: Future<Output = ()> + Send,
    {
        let shared = self.shared.clone();
        self.health
            .restarting(Part::Worker, name, move || run(shared.clone()))
    }
}

#[async_trait]
impl Component for Worker {
    async fn start(&self) -> anyhow::Result<()> {
        // One place for each slot, so that no ended attempt waits for another.
        let (finished, results) = mpsc::channel(self.shared.slots.max());
        let running = TaskTracker::new();
        let too_late = CancellationToken::new();
        let finish = finisher::write_results(self.shared.clone(), results, too_late.clone());
        let runner = dispatcher::Runner {
            shared: self.shared.clone(),
            running: running.clone(),
            finished: finished.clone(),
        };
        *self.started.lock() = Some(Started {
            // Vital: the results that it was about to write exist nowhere else.
            finisher: self.health.vital(Part::Worker, "finisher", finish),
            others: [
                self.restarting("heartbeat", heartbeat::renew),
                self.restarting("reaper", reaper::reap),
                self.restarting("change-listener", |shared| {
                    let watch = shared.queue.watch();
                    change_listener::listen(shared, watch)
                }),
            ],
            dispatcher: self
                .restarting("dispatcher", move |_| dispatcher::dispatch(runner.clone())),
            running,
            finished,
            too_late,
        });
        Ok(())
    }

    /// Takes no more tasks, waits for running ones and for their results to be written until the drain
    /// time is over, and releases the rest.
    async fn stop(&self) -> anyhow::Result<()> {
        let Some(mut started) = self.started.lock().take() else {
            return Ok(());
        };
        let drained = Instant::now() + self.drain;
        // When it has ended, every task that it leased is among the running ones.
        started.dispatcher.stop().await;
        started.running.close();
        if timeout_at(drained, started.running.wait()).await.is_err() {
            let left = started.running.len();
            tracing::warn!(
                "{left} tasks still run after {:?} (node.drain_ms); they are interrupted and released",
                self.drain
            );
            self.shared
                .active_leases
                .interrupt_all(InterruptReason::Drain);
            // Guests are interrupted within an epoch; only a host call may take longer.
            let _ = tokio::time::timeout(INTERRUPT_TIMEOUT, started.running.wait()).await;
        }
        started.finisher.expect_end();
        drop(started.finished);
        // Leases are renewed meanwhile, so that a result being written does not come too late.
        let written = drained.max(Instant::now() + MIN_WRITE_TIME);
        if timeout_at(written, started.finisher.ended()).await.is_err() {
            started.too_late.cancel();
            started.finisher.ended().await;
        }
        for background in started.others {
            background.stop().await;
        }
        Ok(())
    }

    fn get_id(&self) -> &str {
        "worker"
    }
}
