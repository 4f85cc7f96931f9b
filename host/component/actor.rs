//! A plugin's component as a part of the node: its mailbox, which outlives every instance, and its
//! start, its stop and its next generation. The loop that runs it in between is `actor_loop`.

use super::{
    actor_loop::ActorLoop,
    actor_state::{ActorContext, ActorState},
    status::{State, Status},
};
use crate::{
    broker::{Overflow, Subscription},
    config,
    health::{Background, Part},
    lifecycle::Component,
    plugin::Generation,
    task::Name,
};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
};
use tokio_util::sync::CancellationToken;

/// How long an interrupted guest may take to return.
const INTERRUPT: Duration = Duration::from_secs(1);

/// The component of one plugin.
pub struct Actor {
    state: Arc<ActorState>,
    /// The generation that should run.
    wanted: watch::Sender<Arc<Generation>>,
    /// Where its guest runs.
    guests: Handle,
    running: Mutex<Option<Running>>,
}

struct Running {
    stop: CancellationToken,
    interrupt: CancellationToken,
    task: Background,
}

impl Actor {
    pub fn new(
        generation: Arc<Generation>,
        limits: config::Component,
        context: ActorContext,
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
            state: Arc::new(ActorState::new(status, limits, context)),
            wanted: watch::Sender::new(generation),
            guests,
            running: Mutex::default(),
        }
    }

    pub fn id(&self) -> &Name {
        &self.state.id
    }

    pub fn status(&self) -> Status {
        self.state.status()
    }

    /// Replaces the code that runs, from the next message on.
    pub fn replace(&self, generation: Arc<Generation>) {
        self.wanted.send_if_modified(|wanted| {
            let new = !Arc::ptr_eq(wanted, &generation);
            if new {
                *wanted = generation;
            }
            new
        });
    }

    /// Makes a loop with a mailbox of its own; `None` if the id is taken.
    fn open(state: &Arc<ActorState>, wanted: &watch::Sender<Arc<Generation>>) -> Option<ActorLoop> {
        let (inbox, mailbox) = Subscription::new(state.limits.mailbox, Overflow::Refuse);
        let registration = match state.context.router.register(&state.id, inbox.clone()) {
            Ok(registration) => registration,
            Err(taken) => {
                let why = format!("{taken}; rename the plugin in its manifest, or set node.id");
                tracing::warn!(component = %state.id, "cannot be reached: {why}");
                state.refuse(why);
                return None;
            }
        };
        state.open(inbox.clone());
        let wanted = wanted.subscribe();
        Some(ActorLoop::new(
            state.clone(),
            inbox,
            mailbox,
            registration,
            wanted,
        ))
    }
}

#[async_trait]
impl Component for Actor {
    /// Returns once the first start of the guest has been tried. A failure of it is no error here:
    /// the start is retried, and the node runs without the component meanwhile.
    async fn start(&self) -> anyhow::Result<()> {
        let Some(first) = Self::open(&self.state, &self.wanted) else {
            return Ok(());
        };
        let (stop, interrupt) = (CancellationToken::new(), CancellationToken::new());
        let (ready, started) = oneshot::channel();
        let (mut first, mut ready) = (Some(first), Some(ready));
        let (state, wanted) = (self.state.clone(), self.wanted.clone());
        let (stopped, interrupted) = (stop.clone(), interrupt.clone());
        let run = move || {
            // A loop that panicked is followed by a new one, with an empty mailbox.
            let actor_loop = first.take().or_else(|| Self::open(&state, &wanted));
            let (stopped, interrupted) = (stopped.clone(), interrupted.clone());
            let ready = ready.take();
            async move {
                if let Some(actor_loop) = actor_loop {
                    actor_loop.run(stopped, interrupted, ready).await;
                }
            }
        };
        let health = &self.state.context.health;
        let task = health.restarting_on(&self.guests, Part::Plugins, "component", run);
        *self.running.lock() = Some(Running {
            stop,
            interrupt,
            task,
        });
        // An error means that it was stopped meanwhile.
        let _ = started.await;
        Ok(())
    }

    /// Lets the component handle the messages in its mailbox, within its stop timeout, and then calls
    /// its `stop`.
    async fn stop(&self) -> anyhow::Result<()> {
        let Some(mut running) = self.running.lock().take() else {
            return Ok(());
        };
        running.task.expect_end();
        running.stop.cancel();
        let timeout = self.state.limits.stop_timeout;
        if tokio::time::timeout(timeout, running.task.ended())
            .await
            .is_ok()
        {
            return Ok(());
        }
        // From here on its messages are refused, and only its `stop` can still take time.
        running.interrupt.cancel();
        let ended = tokio::time::timeout(timeout + INTERRUPT, running.task.ended()).await;
        let id = self.id();
        anyhow::ensure!(ended.is_ok(), "{id} could not be stopped");
        Ok(())
    }

    fn get_id(&self) -> &str {
        self.state.id.as_str()
    }
}
