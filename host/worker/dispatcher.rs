//! Leases due tasks that can run now, and runs each in its guest. Resources are reserved before tasks
//! are leased, so that no task waits under a lease. The signals of the queue only wake the dispatcher;
//! the lease decides.

use super::{
    attempt::{Attempt, InterruptReason},
    hosted_types::HostedTypes,
    shared::Shared,
    slot::{Slot, UnwrittenResult},
    turns::Turns,
};
use crate::{
    log_limit::LogLimit,
    plugin::{Call, CallOutcome, Handler, Permit},
    queue::{Error, Finish, LeaseRequest, Leased},
    task::{AttemptClass, AttemptReport, AttemptResult, ExecutedBy, Name, Resources, transition},
};
use futures_util::FutureExt;
use std::{panic::AssertUnwindSafe, sync::Arc};
use tokio::{
    sync::mpsc,
    time::{Duration, Instant},
};
use tokio_util::task::TaskTracker;

/// How long an idle dispatcher relies on signals before it leases again without one.
const MAX_IDLE: Duration = Duration::from_secs(1);

/// The least time between two queries for the next due task.
const DUE_QUERY_INTERVAL: Duration = Duration::from_millis(50);

/// Starts the attempts of leased tasks.
#[derive(Clone)]
pub struct Runner {
    pub shared: Arc<Shared>,
    pub running: TaskTracker,
    pub finished: mpsc::Sender<UnwrittenResult>,
}

/// The slots, and the resources in them, that one lease request may use.
struct LeaseCapacity {
    max: usize,
    permit: Permit,
}

/// What ends the dispatcher's wait.
enum Event {
    /// The resources of the type whose turn it is have come together.
    Turn(Name, Permit),
    /// Tasks were started as they were submitted. Whether they were all that is due.
    HandedOff(Result<bool, Error>),
    /// There may be tasks to lease.
    Signal,
}

/// What the log has of the reasons for which this node takes no tasks.
#[derive(Default)]
struct Logged {
    drained: bool,
    id_contested: bool,
}

/// Leases and runs tasks, for ever.
pub async fn dispatch(runner: Runner) {
    let shared = runner.shared.clone();
    let mut hosted = HostedTypes::of(shared.plugins.catalog(), &shared.limits);
    let mut turns = Turns::new();
    let mut last_due_query: Option<Instant> = None;
    let mut logged = Logged::default();
    // Whether tasks may be due that no hand-off has taken.
    let mut may_be_due = true;
    let limit = LogLimit::of_retries();
    loop {
        logged.update(&shared);
        // Before the lease: a slot that is freed, or a result that is written, while the lease runs
        // wakes the dispatcher afterwards.
        shared.slots.set_wake_on_free(true);
        if !shared.may_lease() {
            // A turn that is not waited for would keep what it has collected.
            turns = Turns::new();
            let _ = tokio::time::timeout(MAX_IDLE, shared.wake.notified()).await;
            continue;
        }
        hosted.update(shared.plugins.catalog(), &shared.limits);
        if !may_be_due {
            shared.slots.set_wake_on_free(shared.is_short(&hosted));
        } else if let Some(capacity) = shared.capacity(&hosted) {
            let max = capacity.max;
            match runner.lease(&hosted, None, capacity).await {
                Ok(count) if count == max => continue,
                // Unless resources are short, everything due is leased now, and the queue signals
                // what becomes due.
                Ok(_) => shared.slots.set_wake_on_free(shared.is_short(&hosted)),
                Err(error) => {
                    turns = Turns::new();
                    log_lease_error(&limit, &error);
                    tokio::time::sleep(MAX_IDLE).await;
                    continue;
                }
            }
        }
        if turns.is_check_due(Instant::now()) {
            let passed = shared.passed_by(&hosted, turns.current().cloned()).await;
            turns.update(Instant::now(), passed, |task_type| {
                let needs = hosted.types.get(task_type).map(|requested| requested.needs);
                let plugins = shared.plugins.clone();
                Box::pin(async move { plugins.reserve(needs.unwrap_or_default()).await })
            });
        }
        let delay = idle_delay(&shared, &hosted, &mut last_due_query).await;
        // A turn collects resources, which a hand-off would hold.
        let is_turn = turns.current().is_some();
        let event = tokio::select! {
            (task_type, permit) = turns.ready() => Event::Turn(task_type, permit),
            handed_off = runner.hand_off(&hosted), if !is_turn => Event::HandedOff(handed_off),
            _ = tokio::time::timeout(delay, shared.wake.notified()) => Event::Signal,
        };
        may_be_due = true;
        let result = match event {
            Event::Turn(task_type, permit) => runner.take_turn(&hosted, task_type, permit).await,
            Event::HandedOff(all_due) => all_due.map(|all_due| may_be_due = !all_due),
            Event::Signal => Ok(()),
        };
        if let Err(error) = result {
            log_lease_error(&limit, &error);
        }
    }
}

fn log_lease_error(limit: &LogLimit, error: &Error) {
    if let Some(left_out) = limit.permit() {
        tracing::warn!(left_out, "cannot lease tasks: {error}");
    }
}

impl Logged {
    /// Logs what has changed.
    fn update(&mut self, shared: &Shared) {
        let drained = shared.discovery.is_drained(&shared.node);
        if std::mem::replace(&mut self.drained, drained) != drained {
            if drained {
                tracing::info!("drained: this node takes no new task until it is undrained");
            } else {
                tracing::info!("undrained: this node takes tasks again");
            }
        }
        let contested = shared.discovery.is_id_contested();
        if std::mem::replace(&mut self.id_contested, contested) != contested {
            if contested {
                tracing::warn!(
                    "another node may use this node's id: this node takes no task until it owns its id \
                     again"
                );
            } else {
                tracing::info!("this node owns its id: it takes tasks again");
            }
        }
    }
}

/// How long to sleep unless a signal comes: until the next task is due, as far as is known. Tasks that
/// lack resources here wait for another to end, which wakes the dispatcher.
async fn idle_delay(
    shared: &Shared,
    hosted: &HostedTypes,
    last_due_query: &mut Option<Instant>,
) -> Duration {
    if last_due_query.is_some_and(|at| at.elapsed() < DUE_QUERY_INTERVAL) {
        return DUE_QUERY_INTERVAL;
    }
    if shared.slots.free_slots() == 0 || hosted.types.is_empty() {
        return MAX_IDLE;
    }
    *last_due_query = Some(Instant::now());
    let request = shared.lease_request(hosted, 1, shared.plugins.free());
    match shared.queue.next_due(&request).await {
        Ok(Some(due)) => due.clamp(DUE_QUERY_INTERVAL / 10, MAX_IDLE),
        Ok(None) => MAX_IDLE,
        Err(error) => {
            // The next lease reports it if it lasts.
            tracing::debug!("cannot query the next due task: {error}");
            MAX_IDLE
        }
    }
}

impl Shared {
    /// Reserves what leased tasks will need before any is leased; `None` if that is not enough for one
    /// task. The reservation is given back unless a run takes it.
    fn capacity(&self, hosted: &HostedTypes) -> Option<LeaseCapacity> {
        self.reserve(hosted, self.slots.free_slots(), hosted.smallest)
    }

    /// Reserves what tasks will need that are handed off, which may take long to come: a guest more than
    /// these fits at any time. `None` if that is not enough for one task.
    fn spare_capacity(&self, hosted: &HostedTypes) -> Option<LeaseCapacity> {
        let count = self.plugins.free().count_of(hosted.largest);
        let max = self.slots.free_slots().min(count.saturating_sub(1));
        self.reserve(hosted, max, hosted.largest.saturating_mul(max))
    }

    /// Reserves what is free for up to `max` tasks of any type; `None` if it is less than `least`.
    fn reserve(&self, hosted: &HostedTypes, max: usize, least: Resources) -> Option<LeaseCapacity> {
        if max == 0 || hosted.types.is_empty() {
            return None;
        }
        let permit = self
            .plugins
            .reserve_up_to(hosted.largest.saturating_mul(max));
        let is_enough = least.fits_in(permit.resources());
        is_enough.then_some(LeaseCapacity { max, permit })
    }

    /// Whether a due task may have to wait until a task of this node ends.
    fn is_short(&self, hosted: &HostedTypes) -> bool {
        self.slots.free_slots() == 0
            || self.slots.has_suspect()
            || self
                .slots
                .left(&hosted.types)
                .values()
                .any(|&left| left == 0)
            || hosted.has_group_limits
            || !hosted.largest.fits_in(self.plugins.free())
    }

    /// The type of the oldest due task that does not fit into the free resources, if any; of all types
    /// or of `only` one.
    async fn passed_by(&self, hosted: &HostedTypes, only: Option<Name>) -> Option<Name> {
        let free = self.plugins.free();
        if hosted.largest.fits_in(free) {
            return None;
        }
        let request = LeaseRequest {
            only,
            ..self.lease_request(hosted, 1, free)
        };
        let passed = self.queue.oldest_blocked(&request).await;
        passed.unwrap_or_else(|error| {
            tracing::debug!("cannot query tasks that wait for resources: {error}");
            None
        })
    }

    fn lease_request(
        &self,
        hosted: &HostedTypes,
        max: usize,
        available: Resources,
    ) -> LeaseRequest {
        LeaseRequest {
            node: self.node.clone(),
            labels: self.labels.clone(),
            types: hosted.types.clone(),
            remaining: self.slots.left(&hosted.types),
            only: None,
            available,
            max,
            allow_suspect: !self.slots.has_suspect(),
            ttl: self.lease_ttl,
        }
    }
}

impl Runner {
    /// Leases tasks that fit into the capacity, of one type or of all, and starts them. Returns their
    /// number.
    async fn lease(
        &self,
        hosted: &HostedTypes,
        only: Option<Name>,
        capacity: LeaseCapacity,
    ) -> Result<usize, Error> {
        let request = LeaseRequest {
            only,
            ..self
                .shared
                .lease_request(hosted, capacity.max, capacity.permit.resources())
        };
        let leased = self.shared.queue.lease(&request).await?;
        let count = leased.len();
        self.start(hosted, leased, capacity);
        Ok(count)
    }

    /// Starts tasks as they are submitted. Returns whether they were all that is due. Pending for ever
    /// while resources are short.
    async fn hand_off(&self, hosted: &HostedTypes) -> Result<bool, Error> {
        let Some(capacity) = self.shared.spare_capacity(hosted) else {
            return std::future::pending().await;
        };
        let (max, available) = (capacity.max, capacity.permit.resources());
        let request = self.shared.lease_request(hosted, max, available);
        let leased = self.shared.queue.hand_off(&request).await?;
        let all_due = !leased.is_empty() && leased.len() < max;
        self.start(hosted, leased, capacity);
        Ok(all_due)
    }

    /// Starts leased tasks, each within its part of the capacity.
    fn start(&self, hosted: &HostedTypes, leased: Vec<Leased>, mut capacity: LeaseCapacity) {
        for task in leased {
            let needs = hosted.types.get(&task.task_type);
            // The queue respects the capacity; a task beyond it is released.
            let permit = needs.and_then(|requested| capacity.permit.split(requested.needs));
            let (slot, running) = Slot::take(&self.shared, &task);
            let run = run(
                self.shared.clone(),
                task,
                (slot, permit, running),
                self.finished.clone(),
            );
            // Boxed: the runtime moves the futures that it runs, and this one has some kilobytes.
            self.running
                .spawn_on(Box::pin(run), self.shared.plugins.runtime());
        }
    }

    /// Leases one task of the type whose turn it is, once a slot is free, if a task still waits.
    async fn take_turn(
        &self,
        hosted: &HostedTypes,
        task_type: Name,
        permit: Permit,
    ) -> Result<(), Error> {
        while self.shared.slots.free_slots() == 0 {
            self.shared.slots.set_wake_on_free(true);
            let _ = tokio::time::timeout(MAX_IDLE, self.shared.wake.notified()).await;
        }
        // The node may have been drained during the waits. Returning gives the resources back.
        if !self.shared.may_lease() {
            return Ok(());
        }
        let capacity = LeaseCapacity { max: 1, permit };
        self.lease(hosted, Some(task_type), capacity)
            .await
            .map(|_| ())
    }
}

/// Runs one attempt, from its lease until the finisher has its result.
async fn run(
    shared: Arc<Shared>,
    task: Leased,
    (slot, permit, running): (Slot, Option<Permit>, Arc<Attempt>),
    finished: mpsc::Sender<UnwrittenResult>,
) {
    let handler = shared.plugins.catalog().resolve(task.task_type.as_str());
    // The plugin may have been removed since the lease, or its new version may need more than is free.
    let ready = handler.zip(permit).and_then(|(handler, permit)| {
        let permit = shared.plugins.grow(permit, handler.needs())?;
        Some((handler, permit))
    });
    let finish = match ready {
        Some((handler, permit)) => attempt(&shared, handler, permit, task, &running).await,
        None => Some(Finish::released(slot.token().clone())),
    };
    let Some(finish) = finish else {
        return;
    };
    slot.set_finishing();
    let unwritten = UnwrittenResult::new(finish, slot, &running).await;
    // The finisher outlives every run.
    let _ = finished.send(unwritten).await;
}

/// Catches a panic of the node's own code: it must cost one attempt, and neither the slot nor the
/// lease.
async fn guarded(run: impl Future<Output = CallOutcome>) -> CallOutcome {
    AssertUnwindSafe(run)
        .catch_unwind()
        .await
        .unwrap_or_else(|_| {
            tracing::error!("the node panicked while it ran a task; the panic is logged above");
            CallOutcome::node_failed()
        })
}

/// Runs the guest. No end means that the lease was lost.
async fn attempt(
    shared: &Shared,
    handler: Handler,
    permit: Permit,
    task: Leased,
    running: &Arc<Attempt>,
) -> Option<Finish> {
    let executed_by = ExecutedBy {
        node: shared.node.clone(),
        plugin: handler.generation.name.clone(),
        plugin_version: handler.generation.version.as_str().into(),
    };
    let attempt = task.attempt;
    let token = task.token;
    let options = task.options.as_deref();
    let of_type = handler.task_type.retry;
    let policy = options.map_or(of_type, |options| options.retry_policy(of_type));
    let timeout = options.and_then(|options| options.timeout);
    let call = Call {
        id: token.id.clone(),
        payload: task.payload,
        metadata: task.metadata,
        attempt,
        max_attempts: Some(policy.max_attempts),
        // Another node, with other settings, may have accepted the task.
        timeout: timeout.map(|timeout| timeout.min(shared.max_timeout)),
        cancel: running.token(),
        observer: Some(running.clone()),
    };
    let finished = guarded(handler.run_in(permit, call)).await;
    let (ended, class) = match finished.ended {
        // The guest was told to stop, and an error is how it does.
        AttemptResult::Retryable { .. } | AttemptResult::Permanent { .. } if running.was_told() => {
            (AttemptResult::Cancelled, None)
        }
        ended => (ended, finished.class),
    };
    let ended = match (ended, running.reason()) {
        (AttemptResult::Cancelled, Some(InterruptReason::LeaseLost)) => return None,
        (AttemptResult::Cancelled, Some(InterruptReason::Drain)) => AttemptResult::Drained,
        (ended, _) => ended,
    };
    let report = AttemptReport {
        class: class.map_or_else(|| AttemptClass::of(&ended), AttemptClass::from),
        usage: finished.usage.into(),
    };
    let outcome = transition(ended, attempt, &policy, fastrand::f64());
    if let Some(class) = class {
        let attempts = (attempt, policy.max_attempts);
        let failures = &shared.failures;
        failures.report(&handler, &token.id, attempts, class, &outcome);
    }
    Some(Finish {
        token,
        outcome,
        executed_by: Some(executed_by),
        report,
    })
}
