//! Runs tasks: leases what this node can take, hands it to the guest, writes down how it ended.
//! Meets clients only in the queue; what an ending means is decided in `task::transition`. A drained
//! node runs out what it has, and takes nothing until it is undrained.

mod busy;
mod dispatch;
mod failure_log;
mod finish;
mod held;
mod hosted;
mod slot;
mod tend;
mod turns;

use crate::{
    budget::Budget,
    config,
    discovery::ServiceDiscovery,
    health::{Background, Health, Part},
    lifecycle::Component,
    plugin::PluginHost,
    queue::TaskQueue,
    task::Name,
};
use async_trait::async_trait;
use busy::Busy;
use failure_log::FailureLog;
use held::{Held, Why};
use slot::Unwritten;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long interrupted guests get to let go, once the drain time is over.
const INTERRUPT: Duration = Duration::from_secs(2);

/// How long writing outcomes gets at least, however late it is.
const WRITE: Duration = Duration::from_secs(3);

/// The part of a node that runs tasks.
pub struct Worker {
    shared: Arc<Shared>,
    health: Health,
    started: Mutex<Option<Started>>,
    drain: Duration,
}

/// What the worker's loops and the tasks they run have in common.
struct Shared {
    node: Name,
    labels: Vec<Name>,
    queue: Arc<dyn TaskQueue>,
    plugins: Arc<PluginHost>,
    /// Says whether this node is drained.
    discovery: Arc<dyn ServiceDiscovery>,
    busy: Busy,
    held: Held,
    /// For results that the queue has not confirmed.
    unwritten: Budget,
    failures: FailureLog,
    /// How long a lease holds without being renewed: the time after which another node may take over.
    lease_ttl: Duration,
    /// How long ended tasks are kept.
    keep_ended: Duration,
    /// Something changed that the dispatcher should look at.
    wake: Notify,
}

/// What has to be ended at stop. Dropping it ends all of it, when a stop is given up.
struct Started {
    dispatcher: Background,
    /// Heartbeat, reaper and listener, which go on while tasks run out.
    tending: [Background; 3],
    running: TaskTracker,
    finisher: Background,
    /// The last sender but those of running tasks: dropping it lets the finisher end.
    finished: mpsc::Sender<Unwritten>,
    /// The finisher gives back what is not written by then.
    too_late: CancellationToken,
}

impl Shared {
    /// Whether this node may take tasks: it is not drained, its id is its own, and results are written
    /// as fast as they come. Half of the budget for results is for those of tasks that run already.
    fn may_lease(&self) -> bool {
        !self.discovery.is_drained(&self.node)
            && !self.discovery.is_id_contested()
            && self.unwritten.free_bytes() >= self.unwritten.total_bytes() / 2
    }
}

impl Worker {
    pub fn new(
        node: Name,
        queue: Arc<dyn TaskQueue>,
        plugins: Arc<PluginHost>,
        discovery: Arc<dyn ServiceDiscovery>,
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
                busy: Busy::new(config.plugins.max_tasks),
                held: Held::default(),
                unwritten: Budget::new(config.queue.max_unwritten_bytes),
                failures: FailureLog::default(),
                lease_ttl: config.queue.lease_ttl,
                keep_ended: config.queue.keep_ended,
                wake: Notify::new(),
            }),
            health,
            started: Mutex::default(),
            drain: config.node.drain,
        }
    }

    fn started(&self) -> std::sync::MutexGuard<'_, Option<Started>> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Component for Worker {
    async fn start(&self) -> anyhow::Result<()> {
        // One place for each slot: what has ended never waits for another's.
        let (finished, ended) = mpsc::channel(self.shared.busy.max());
        let running = TaskTracker::new();
        let shared = &self.shared;
        let too_late = CancellationToken::new();
        let finish = finish::write_down(shared.clone(), ended, too_late.clone());
        let renewing = shared.clone();
        let sweeping = shared.clone();
        let listening = shared.clone();
        let runs = dispatch::Runs {
            shared: shared.clone(),
            running: running.clone(),
            finished: finished.clone(),
        };
        *self.started() = Some(Started {
            // What it was about to write is known to nobody else.
            finisher: self.health.vital(Part::Worker, "finisher", finish),
            tending: [
                self.health.restarting(Part::Worker, "heartbeat", move || {
                    tend::renew(renewing.clone())
                }),
                self.health.restarting(Part::Worker, "reaper", move || {
                    tend::sweep(sweeping.clone())
                }),
                self.health
                    .restarting(Part::Worker, "queue-listener", move || {
                        tend::listen(listening.clone(), listening.queue.watch())
                    }),
            ],
            dispatcher: self.health.restarting(Part::Worker, "dispatcher", move || {
                dispatch::dispatch(runs.clone())
            }),
            running,
            finished,
            too_late,
        });
        Ok(())
    }

    /// Leases nothing more, waits until the drain time is over for running tasks and for their outcomes
    /// to be written, and gives back the rest.
    async fn stop(&self) -> anyhow::Result<()> {
        let Some(mut started) = self.started().take() else {
            return Ok(());
        };
        let drained = Instant::now() + self.drain;
        // What it has leased already has been handed to `running` when it is gone.
        started.dispatcher.stop().await;
        started.running.close();
        if timeout_at(drained, started.running.wait()).await.is_err() {
            let left = started.running.len();
            tracing::warn!(
                "{left} tasks still run after {:?}; they go back to the queue",
                self.drain
            );
            self.shared.held.interrupt_all(Why::Drain);
            // Guests are interrupted within an epoch; only a host call could take longer.
            let _ = tokio::time::timeout(INTERRUPT, started.running.wait()).await;
        }
        started.finisher.expect_end();
        drop(started.finished);
        // Leases are renewed until then: a result that is being written must not come too late.
        let written = drained.max(Instant::now() + WRITE);
        if timeout_at(written, started.finisher.ended()).await.is_err() {
            started.too_late.cancel();
            started.finisher.ended().await;
        }
        for tending in started.tending {
            tending.stop().await;
        }
        Ok(())
    }

    fn get_id(&self) -> &str {
        "worker"
    }
}
