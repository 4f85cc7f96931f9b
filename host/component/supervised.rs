//! A plugin's component as a part of the node: its mailbox, which outlives every instance, and how
//! it is started, given new code, watched and stopped. What happens in between is in `life`.

use super::{
    life::{Life, Shared},
    router::Router,
    status::{State, Status},
};
use crate::{
    broker::{Overflow, Subscription},
    config,
    health::{Background, Health, Part},
    lifecycle::Component,
    plugin::Generation,
    task::Name,
};
use async_trait::async_trait;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, oneshot, watch},
};
use tokio_util::sync::CancellationToken;

/// How long an interrupted guest gets to let go.
const INTERRUPT: Duration = Duration::from_secs(1);

pub struct Supervised {
    shared: Arc<Shared>,
    /// The generation that should run.
    wanted: watch::Sender<Arc<Generation>>,
    /// Where its guest runs.
    guests: Handle,
    running: Mutex<Option<Running>>,
}

struct Running {
    stop: CancellationToken,
    interrupt: CancellationToken,
    life: Background,
}

/// What all components of a node share.
#[derive(Clone)]
pub struct Surroundings {
    pub router: Arc<Router>,
    pub health: Health,
    /// One for each component that may run.
    pub places: Arc<Semaphore>,
    /// Told of every change of a state.
    pub changed: watch::Sender<u64>,
}

impl Supervised {
    pub fn new(
        generation: Arc<Generation>,
        limits: config::Component,
        surroundings: Surroundings,
        guests: Handle,
    ) -> Self {
        let status = Status {
            id: generation.name.clone(),
            state: State::Starting,
            version: generation.version.clone(),
            sha256: generation.sha256.clone(),
            topics: Vec::new(),
            since: SystemTime::now(),
            error: None,
            handled: 0,
            failed: 0,
            refused: 0,
            waiting: 0,
            starts: 0,
        };
        Self {
            shared: Arc::new(Shared::new(status, limits, surroundings)),
            wanted: watch::Sender::new(generation),
            guests,
            running: Mutex::default(),
        }
    }

    pub fn id(&self) -> &Name {
        &self.shared.id
    }

    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// Has it run this code from the next message on.
    pub fn replace(&self, generation: Arc<Generation>) {
        self.wanted.send_if_modified(|wanted| {
            let new = !Arc::ptr_eq(wanted, &generation);
            if new {
                *wanted = generation;
            }
            new
        });
    }

    /// A life with a mailbox of its own; `None` where another has its id.
    fn begin(shared: &Arc<Shared>, wanted: &watch::Sender<Arc<Generation>>) -> Option<Life> {
        let (inbox, mailbox) = Subscription::new(shared.limits.mailbox, Overflow::Refuse);
        let router = &shared.surroundings.router;
        let residence = match router.settle(&shared.id, inbox.clone()) {
            Ok(residence) => residence,
            Err(taken) => {
                tracing::warn!(component = %shared.id, "cannot be reached: {taken}");
                shared.refuse(taken.to_string());
                return None;
            }
        };
        shared.open(inbox.clone());
        let wanted = wanted.subscribe();
        Some(Life::new(shared.clone(), inbox, mailbox, residence, wanted))
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Component for Supervised {
    /// Returns when the first try to start the guest is over. One that failed is no error here: it
    /// is tried again, and the node goes on without it.
    async fn start(&self) -> anyhow::Result<()> {
        let Some(first) = Self::begin(&self.shared, &self.wanted) else {
            return Ok(());
        };
        let (stop, interrupt) = (CancellationToken::new(), CancellationToken::new());
        let (ready, started) = oneshot::channel();
        let (mut first, mut ready) = (Some(first), Some(ready));
        let (shared, wanted) = (self.shared.clone(), self.wanted.clone());
        let (stopped, interrupted) = (stop.clone(), interrupt.clone());
        let live = move || {
            // After a fault of the node's own, with an empty mailbox.
            let life = first.take().or_else(|| Self::begin(&shared, &wanted));
            let (stopped, interrupted) = (stopped.clone(), interrupted.clone());
            let ready = ready.take();
            async move {
                if let Some(life) = life {
                    life.live(stopped, interrupted, ready).await;
                }
            }
        };
        let health = &self.shared.surroundings.health;
        let life = health.restarting_on(&self.guests, Part::Plugins, "component", live);
        *self.running() = Some(Running {
            stop,
            interrupt,
            life,
        });
        // Without an answer it was stopped meanwhile.
        let _ = started.await;
        Ok(())
    }

    /// Lets the component handle what waits for it, as long as it may, and calls its `stop`.
    async fn stop(&self) -> anyhow::Result<()> {
        let Some(mut running) = self.running().take() else {
            return Ok(());
        };
        running.life.expect_end();
        running.stop.cancel();
        let patience = self.shared.limits.stop_timeout;
        if tokio::time::timeout(patience, running.life.ended())
            .await
            .is_ok()
        {
            return Ok(());
        }
        // From here on its messages are refused, and only its `stop` can still take time.
        running.interrupt.cancel();
        let last = patience + INTERRUPT;
        let ended = tokio::time::timeout(last, running.life.ended()).await;
        let id = self.id();
        anyhow::ensure!(ended.is_ok(), "{id} could not be stopped");
        Ok(())
    }

    fn get_id(&self) -> &str {
        self.shared.id.as_str()
    }
}
