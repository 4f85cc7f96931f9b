//! Takes due tasks that can run now, and runs each in its guest: room is reserved first and tasks are
//! leased second, so that none waits under a lease. The queue's signal only wakes the dispatcher; what
//! it leases decides.

use super::{
    Shared,
    held::{Interrupt, Why},
    hosted::Hosted,
    slot::{Slot, Unwritten},
    turns::Turns,
};
use crate::{
    log_limit::LogLimit,
    plugin::{Call, Finished, Handler, Room},
    queue::{Error, Finish, LeaseRequest, Leased},
    task::{AttemptResult, ExecutedBy, Name, Outcome, Resources, transition},
};
use futures_util::FutureExt;
use std::{panic::AssertUnwindSafe, sync::Arc};
use tokio::{
    sync::mpsc,
    time::{Duration, Instant},
};
use tokio_util::task::TaskTracker;

/// How long an idle dispatcher trusts the signals before it looks for itself.
const SCAN: Duration = Duration::from_secs(1);

/// The least time between two questions for the next due task.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Where runs go.
#[derive(Clone)]
pub struct Runs {
    pub shared: Arc<Shared>,
    pub running: TaskTracker,
    pub finished: mpsc::Sender<Unwritten>,
}

/// What a lease may bring: slots, and the room that its tasks will run in.
struct Offer {
    max: usize,
    room: Room,
}

/// Leases and runs, for ever.
pub async fn dispatch(runs: Runs) {
    let shared = runs.shared.clone();
    let mut hosted = Hosted::of(shared.plugins.catalog());
    let mut turns = Turns::new();
    let mut asked: Option<Instant> = None;
    let (mut was_drained, mut was_in_doubt) = (false, false);
    let limit = LogLimit::of_retries();
    loop {
        let drained = shared.discovery.is_drained(&shared.node);
        if drained != was_drained {
            was_drained = drained;
            match drained {
                true => {
                    tracing::info!("drained: this node takes no new task until it is undrained")
                }
                false => tracing::info!("undrained: this node takes tasks again"),
            }
        }
        let in_doubt = shared.discovery.is_id_contested();
        if in_doubt != was_in_doubt {
            was_in_doubt = in_doubt;
            match in_doubt {
                true => tracing::warn!(
                    "another node may have this node's id: it takes no task until it has its id again"
                ),
                false => tracing::info!("this node has its id: it takes tasks again"),
            }
        }
        // Before the lease: a slot that becomes free during it wakes us afterwards, as does a result that
        // is written.
        shared.busy.set_hungry(true);
        if !shared.may_lease() {
            let _ = tokio::time::timeout(SCAN, shared.wake.notified()).await;
            continue;
        }
        hosted.follow(shared.plugins.catalog());
        if let Some(offer) = shared.offer(&hosted) {
            let max = offer.max;
            match runs.lease(&hosted, None, offer).await {
                Ok(count) if count == max => continue,
                // Unless something has no room, everything due is ours now, and what becomes due
                // wakes us by itself.
                Ok(_) => shared.busy.set_hungry(shared.is_short(&hosted)),
                Err(error) => {
                    if let Some(left_out) = limit.permit() {
                        tracing::warn!(left_out, "cannot lease tasks: {error}");
                    }
                    tokio::time::sleep(SCAN).await;
                    continue;
                }
            }
        }
        if turns.should_look(Instant::now()) {
            let passed = shared.oldest_blocked(&hosted, turns.whose().cloned()).await;
            turns.saw(Instant::now(), passed, |task_type| {
                let needs = hosted.types.get(task_type).map(|wanted| wanted.needs);
                let plugins = shared.plugins.clone();
                Box::pin(async move { plugins.reserve(needs.unwrap_or_default()).await })
            });
        }
        let nap = nap(&shared, &hosted, &mut asked).await;
        let turn = tokio::select! {
            (task_type, room) = turns.ready() => Some((task_type, room)),
            _ = tokio::time::timeout(nap, shared.wake.notified()) => None,
        };
        if let Some((task_type, room)) = turn
            && let Err(error) = runs.take_turn(&hosted, task_type, room).await
            && let Some(left_out) = limit.permit()
        {
            tracing::warn!(left_out, "cannot lease tasks: {error}");
        }
    }
}

/// How long to sleep if nothing wakes us: until the next task is due, as far as we know. What has no
/// room here waits for an end, and that wakes us.
async fn nap(shared: &Shared, hosted: &Hosted, asked: &mut Option<Instant>) -> Duration {
    if asked.is_some_and(|at| at.elapsed() < ASK_AGAIN) {
        return ASK_AGAIN;
    }
    if shared.busy.free_slots() == 0 || hosted.types.is_empty() {
        return SCAN;
    }
    *asked = Some(Instant::now());
    let want = shared.want(hosted, 1, shared.plugins.free());
    match shared.queue.next_due(&want).await {
        Ok(Some(due)) => due.clamp(ASK_AGAIN / 10, SCAN),
        Ok(None) => SCAN,
        Err(error) => {
            // The next lease says so where it matters.
            tracing::debug!("cannot ask for the next due task: {error}");
            SCAN
        }
    }
}

impl Shared {
    /// Asks everything that leased tasks will need, before any is leased; `None` when there is no room
    /// for one. What is offered stays reserved until it is given back or taken by a run.
    fn offer(&self, hosted: &Hosted) -> Option<Offer> {
        let max = self.busy.free_slots();
        if max == 0 || hosted.types.is_empty() {
            return None;
        }
        let room = self.plugins.offer(hosted.largest.saturating_mul(max));
        let fits = hosted.smallest.fits_in(room.resources());
        fits.then_some(Offer { max, room })
    }

    /// Whether a task may be due that has no room here until one of ours ends.
    fn is_short(&self, hosted: &Hosted) -> bool {
        self.busy.free_slots() == 0
            || self.busy.has_suspect()
            || self
                .busy
                .left(&hosted.types)
                .values()
                .any(|&left| left == 0)
            || !hosted.largest.fits_in(self.plugins.free())
    }

    /// The type of the oldest due task that waits for room here, if one does; of all types or of one.
    async fn oldest_blocked(&self, hosted: &Hosted, only: Option<Name>) -> Option<Name> {
        let free = self.plugins.free();
        if hosted.largest.fits_in(free) {
            return None;
        }
        let want = LeaseRequest {
            only,
            ..self.want(hosted, 1, free)
        };
        let passed = self.queue.oldest_blocked(&want).await;
        passed.unwrap_or_else(|error| {
            tracing::debug!("cannot ask for tasks that wait for room: {error}");
            None
        })
    }

    fn want(&self, hosted: &Hosted, max: usize, room: Resources) -> LeaseRequest {
        LeaseRequest {
            node: self.node.clone(),
            labels: self.labels.clone(),
            types: hosted.types.clone(),
            remaining: self.busy.left(&hosted.types),
            only: None,
            available: room,
            max,
            allow_suspect: !self.busy.has_suspect(),
            ttl: self.lease_ttl,
        }
    }
}

impl Runs {
    /// Leases what fits into the offer, of one type or of all, and starts it. Says how many tasks
    /// there were.
    async fn lease(
        &self,
        hosted: &Hosted,
        only: Option<Name>,
        mut offer: Offer,
    ) -> Result<usize, Error> {
        let want = LeaseRequest {
            only,
            ..self.shared.want(hosted, offer.max, offer.room.resources())
        };
        let leased = self.shared.queue.lease(&want).await?;
        let count = leased.len();
        for task in leased {
            let needs = hosted.types.get(&task.task_type);
            // The queue keeps to the room; what it gave beyond goes back.
            let room = needs.and_then(|wanted| offer.room.split(wanted.needs));
            let (slot, interrupt) = Slot::take(&self.shared, &task);
            let run = run(
                self.shared.clone(),
                task,
                (slot, room, interrupt),
                self.finished.clone(),
            );
            // Boxed: the runtime moves what it runs about, and this is some kilobytes.
            self.running
                .spawn_on(Box::pin(run), self.shared.plugins.runtime());
        }
        Ok(count)
    }

    /// Leases one task of the type whose turn it is, if there still is one and a slot.
    async fn take_turn(&self, hosted: &Hosted, task_type: Name, room: Room) -> Result<(), Error> {
        while self.shared.busy.free_slots() == 0 {
            self.shared.busy.set_hungry(true);
            let _ = tokio::time::timeout(SCAN, self.shared.wake.notified()).await;
        }
        // What forbids leasing may have begun during the waits. The room goes back then.
        if !self.shared.may_lease() {
            return Ok(());
        }
        let offer = Offer { max: 1, room };
        self.lease(hosted, Some(task_type), offer).await.map(|_| ())
    }
}

/// One attempt, from its lease to the finisher.
async fn run(
    shared: Arc<Shared>,
    task: Leased,
    (slot, room, interrupt): (Slot, Option<Room>, Interrupt),
    finished: mpsc::Sender<Unwritten>,
) {
    let handler = shared.plugins.catalog().resolve(task.task_type.as_str());
    // The plugin may have gone since the lease, or newer code may need more room than there is.
    let ready = handler.zip(room).and_then(|(handler, room)| {
        let room = shared.plugins.fit(room, handler.needs())?;
        Some((handler, room))
    });
    let (outcome, executed_by) = match ready {
        Some((handler, room)) => attempt(&shared, handler, room, task, &interrupt).await,
        None => (Some(Outcome::Released), None),
    };
    let Some(outcome) = outcome else {
        return;
    };
    slot.finishing();
    let finish = Finish {
        token: slot.token().clone(),
        outcome,
        executed_by,
    };
    let unwritten = Unwritten::new(finish, slot, &interrupt).await;
    // The finisher outlives every run.
    let _ = finished.send(unwritten).await;
}

/// A fault of the node's own must cost one attempt, and neither the slot nor the lease.
async fn guarded(run: impl Future<Output = Finished>) -> Finished {
    AssertUnwindSafe(run)
        .catch_unwind()
        .await
        .unwrap_or_else(|_| {
            tracing::error!("the node failed while it ran a task; the panic above says where");
            Finished::node_failed()
        })
}

/// Runs the guest, on its own threads. No outcome means that the task is not ours any more.
async fn attempt(
    shared: &Shared,
    handler: Handler,
    room: Room,
    task: Leased,
    interrupt: &Interrupt,
) -> (Option<Outcome>, Option<ExecutedBy>) {
    let ran = ExecutedBy {
        node: shared.node.clone(),
        plugin: handler.generation.name.clone(),
        plugin_version: handler.generation.version.as_str().into(),
    };
    let attempt = task.attempt;
    let id = task.token.id.clone();
    let call = Call {
        id: task.token.id,
        payload: task.payload,
        metadata: task.metadata,
        attempt,
        cancel: interrupt.token(),
    };
    let finished = guarded(handler.run_in(room, call)).await;
    let ended = match (finished.ended, interrupt.why()) {
        (AttemptResult::Cancelled, Some(Why::Lost)) => return (None, None),
        (AttemptResult::Cancelled, Some(Why::Drain)) => AttemptResult::Drained,
        (ended, _) => ended,
    };
    let policy = &handler.task_type.retry;
    let outcome = transition(ended, attempt, policy, fastrand::f64());
    if let Some(class) = finished.class {
        let failures = &shared.failures;
        failures.report(&handler, &id, attempt, class, &outcome);
    }
    (Some(outcome), Some(ran))
}
