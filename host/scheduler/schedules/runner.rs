//! The part of a node that fires schedules. Every node runs one, and there is no leader: see
//! `queue::schedule_store` for why a firing happens once. The work of one step is bounded, and a node that
//! has nothing to do looks once a second.

use super::{
    Schedules,
    declare::{self, Undeclared},
};
use crate::{
    health::{Background, Health, Part},
    lifecycle::Component,
    log_limit::LogLimit,
    queue::{self, AdvanceSchedule, Error, StatusRead, Submitted, TaskQueue, VersionedSchedule},
    schedule::{Firing, MAX_FIRINGS, Overlap, Record, Schedule, ScheduleSpec, decide},
    task::{Name, Submission, UnixMs},
};
use async_trait::async_trait;
use futures_util::future::join_all;
use parking_lot::Mutex;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// The most schedules of one step.
const MAX_DUE: usize = 64;

/// How long a node waits for the next due schedule at most: another node may have made one.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long after a failure the next step follows.
const RETRY: Duration = Duration::from_millis(500);

/// When a schedule is looked at again that this version does not understand.
const UNREADABLE_AGAIN: Duration = Duration::from_secs(60);

/// The kinds of faults.
const FIRING: &str = "schedules";
const DECLARING: &str = "schedules-in-config";
const UNREADABLE: &str = "schedules-unreadable";

/// Fires the schedules of a queue, and brings those of the configuration into it.
pub struct ScheduleRunner {
    shared: Arc<Shared>,
    running: Mutex<Option<Background>>,
}

/// What the steps of a runner share.
pub(super) struct Shared {
    pub node: Name,
    pub queue: Arc<dyn TaskQueue>,
    pub schedules: Schedules,
    pub declared: Mutex<Declared>,
    pub health: Health,
    pub log_limit: LogLimit,
    /// When a schedule was found last that cannot be read.
    pub unreadable_at: Mutex<Option<Instant>>,
}

/// The schedules of the configuration.
pub(super) struct Declared {
    specs: Arc<Vec<ScheduleSpec>>,
    /// Whether the store has them.
    is_stored: bool,
}

impl Declared {
    pub fn new(specs: Vec<ScheduleSpec>) -> Self {
        Self {
            specs: Arc::new(specs),
            is_stored: false,
        }
    }
}

/// What became of one schedule.
struct Fired {
    advance: Option<AdvanceSchedule>,
    /// The firings in the record of `advance` whose tasks are stored.
    firings: Vec<Firing>,
    error: Option<Error>,
    /// Its name, and why this version does not understand it.
    unreadable: Option<String>,
}

impl Fired {
    fn all(advance: AdvanceSchedule, firings: Vec<Firing>) -> Self {
        Self {
            advance: Some(advance),
            firings,
            error: None,
            unreadable: None,
        }
    }

    fn failed(error: Error) -> Self {
        Self {
            advance: None,
            firings: Vec::new(),
            error: Some(error),
            unreadable: None,
        }
    }
}

impl ScheduleRunner {
    /// Creates the runner of `node`, whose configuration has the schedules `declared`. It fires from its
    /// start on.
    pub fn new(
        node: Name,
        queue: Arc<dyn TaskQueue>,
        schedules: Schedules,
        declared: Vec<ScheduleSpec>,
        health: Health,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                node,
                queue,
                schedules,
                declared: Mutex::new(Declared::new(declared)),
                health,
                log_limit: LogLimit::of_retries(),
                unreadable_at: Mutex::default(),
            }),
            running: Mutex::default(),
        }
    }

    /// Takes over the schedules of a configuration that was read again.
    pub fn declare(&self, specs: Vec<ScheduleSpec>) {
        *self.shared.declared.lock() = Declared::new(specs);
        self.shared.schedules.changed.notify_one();
    }
}

#[async_trait]
impl Component for ScheduleRunner {
    async fn start(&self) -> anyhow::Result<()> {
        let shared = self.shared.clone();
        let run = move || run(shared.clone());
        let health = &self.shared.health;
        *self.running.lock() = Some(health.restarting(Part::Queue, "schedule-runner", run));
        Ok(())
    }

    /// May end between a submission and its record: the next step of any node makes up for it.
    async fn stop(&self) -> anyhow::Result<()> {
        let running = self.running.lock().take();
        if let Some(running) = running {
            running.stop().await;
        }
        Ok(())
    }

    fn get_id(&self) -> &str {
        "schedules"
    }
}

async fn run(shared: Arc<Shared>) {
    loop {
        let step = async {
            shared.declare().await?;
            shared.step().await
        };
        let wait = match step.await {
            Ok(wait) => {
                shared.health.clear(Part::Queue, FIRING);
                wait
            }
            Err(error) => {
                let reason = format!("schedules do not fire: {error}");
                if let Some(left_out) = shared.log_limit.permit() {
                    tracing::warn!(left_out, "{reason}");
                }
                shared.health.warn(Part::Queue, FIRING, reason);
                RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shared.schedules.changed.notified() => {}
        }
    }
}

impl Shared {
    /// Brings the schedules of the configuration into the store, unless it has them.
    pub async fn declare(&self) -> Result<(), Error> {
        let specs = {
            let declared = self.declared.lock();
            (!declared.is_stored).then(|| Arc::clone(&declared.specs))
        };
        let Some(specs) = specs else {
            return Ok(());
        };
        let undeclared = declare::declare(&self.schedules, &self.node, &specs).await?;
        self.report_undeclared(&undeclared);
        let mut declared = self.declared.lock();
        // Meanwhile the configuration may have been read again.
        declared.is_stored = Arc::ptr_eq(&declared.specs, &specs);
        Ok(())
    }

    fn report_undeclared(&self, undeclared: &Undeclared) {
        let mut reasons = Vec::new();
        if !undeclared.taken.is_empty() {
            let names = Name::list(&undeclared.taken);
            reasons.push(format!(
                "schedules of the configuration are not in force, since clients have created others of \
                 their names: {names}; delete those (hostel schedules delete) and restart the node or send it \
                 SIGHUP, or choose other names"
            ));
        }
        if !undeclared.full.is_empty() {
            let names = Name::list(&undeclared.full);
            reasons.push(format!(
                "schedules of the configuration are not in force, since there are {} already: {names}",
                queue::MAX_SCHEDULES
            ));
        }
        if reasons.is_empty() {
            self.health.clear(Part::Queue, DECLARING);
        } else {
            let reason = reasons.join("; ");
            tracing::warn!("{reason}");
            self.health.warn(Part::Queue, DECLARING, reason);
        }
    }

    /// Fires what is due, and returns how long to wait for the next step. A schedule that cannot be fired
    /// stops no other.
    pub async fn step(&self) -> Result<Duration, Error> {
        let store = &*self.schedules.store;
        let due = store.due_schedules(MAX_DUE).await?;
        let (begun, now) = (Instant::now(), due.now);
        // The queue makes batches of what arrives together.
        let fired = join_all(due.due.iter().map(|found| self.fire(found, now))).await;
        let (mut advances, mut unreadable, mut failure) = (Vec::new(), due.damaged, None);
        let mut submitted = Vec::new();
        for Fired {
            advance,
            firings,
            error,
            unreadable: why,
        } in fired
        {
            if let Some(advance) = advance {
                advances.push(advance);
                submitted.push(firings);
            }
            failure = failure.or(error);
            unreadable.extend(why);
        }
        let nexts = advances.iter().filter_map(|advance| advance.record.next);
        let next = nexts.chain(due.next).min();
        let recorded = store.advance_schedules(&advances).await?;
        for ((advance, firings), is_recorded) in advances.iter().zip(&submitted).zip(recorded) {
            if !is_recorded && !firings.is_empty() {
                self.schedules
                    .record_firings(&advance.name, firings)
                    .await?;
            }
        }
        self.report_unreadable(&unreadable);
        match failure {
            Some(error) => Err(error),
            None => Ok(wait_until(next, now, begun.elapsed())),
        }
    }

    /// Decides about one schedule, and submits its tasks.
    async fn fire(&self, found: &VersionedSchedule, now: UnixMs) -> Fired {
        let spec = &found.schedule.spec;
        let is_open = match self.is_open(found).await {
            Ok(is_open) => is_open,
            Err(error) => return Fired::failed(error),
        };
        let (advance, firings, tasks) = match decide_on(found, is_open, now, MAX_FIRINGS) {
            Ok(decided) => decided,
            Err(why) => {
                let mut record = found.schedule.record.clone();
                record.next = Some(now.after(UNREADABLE_AGAIN));
                return Fired {
                    advance: Some(advance(found, record)),
                    firings: Vec::new(),
                    error: None,
                    unreadable: Some(format!("{} ({why})", spec.name)),
                };
            }
        };
        if tasks.is_empty() {
            return Fired::all(advance, firings);
        }
        let answers = match self.queue.submit(tasks).await {
            Ok(answers) => answers,
            Err(error) => return Fired::failed(error),
        };
        // Each other answer says that there is a task of this id. One with other content was made by an
        // earlier version of the schedule for the same time.
        let full = answers.iter().position(|answer| *answer == Submitted::Full);
        let Some(stored) = full else {
            return Fired::all(advance, firings);
        };
        let reason = "the queue has as many open tasks as it may have (queue.max_open_tasks)";
        let part = decide_on(found, is_open, now, stored).ok();
        let part = part.filter(|_| stored > 0);
        let part = part.map(|(advance, firings, _)| (advance, firings));
        let (advance, firings) = part.unzip();
        Fired {
            advance,
            firings: firings.unwrap_or_default(),
            error: Some(Error::Full {
                reason: reason.into(),
            }),
            unreadable: None,
        }
    }

    /// Whether the latest task of a schedule has not ended, where that matters.
    async fn is_open(&self, found: &VersionedSchedule) -> Result<bool, Error> {
        let last = &found.schedule.record.last_task;
        let Some(id) = last
            .as_ref()
            .filter(|_| found.schedule.spec.overlap != Overlap::Allow)
        else {
            return Ok(false);
        };
        Ok(match self.queue.get_status(id, 0).await? {
            Some(StatusRead::Task(task)) => !task.state.kind().is_terminal(),
            // Only a task that has ended has a result.
            Some(StatusRead::ResultTooLarge { .. }) | None => false,
        })
    }

    fn report_unreadable(&self, unreadable: &[String]) {
        let mut found_at = self.unreadable_at.lock();
        if unreadable.is_empty() {
            // Each is found again within `UNREADABLE_AGAIN`, by this node or another one.
            if found_at.is_some_and(|found| found.elapsed() > 2 * UNREADABLE_AGAIN) {
                *found_at = None;
                self.health.clear(Part::Queue, UNREADABLE);
            }
            return;
        }
        *found_at = Some(Instant::now());
        let reason = format!(
            "these schedules cannot be read, and do not fire: {}; delete them (hostel schedules delete \
             --force), and create them again",
            unreadable.join(", ")
        );
        if let Some(left_out) = self.log_limit.permit() {
            tracing::warn!(left_out, "{reason}");
        }
        self.health.warn(Part::Queue, UNREADABLE, reason);
    }
}

/// Decides about a schedule: at most `max` firings with their tasks, and the record after those are stored. The error is what
/// this version does not understand.
pub(super) fn decide_on(
    found: &VersionedSchedule,
    is_open: bool,
    now: UnixMs,
    max: usize,
) -> Result<(AdvanceSchedule, Vec<Firing>, Vec<Submission>), String> {
    let Schedule { spec, record, .. } = &found.schedule;
    let decision = decide(spec, &spec.timing()?, record, is_open, now, max);
    let firings = decision.firings.iter();
    let tasks = firings.map(|firing| spec.submission(&firing.id));
    let tasks = tasks.collect::<Result<_, _>>()?;
    Ok((advance(found, decision.record), decision.firings, tasks))
}

fn advance(found: &VersionedSchedule, record: Record) -> AdvanceSchedule {
    AdvanceSchedule {
        name: found.schedule.spec.name.clone(),
        expected: found.version,
        record,
    }
}

/// Returns how long it is until `next`, if it was `now` so long ago.
fn wait_until(next: Option<UnixMs>, now: UnixMs, elapsed: Duration) -> Duration {
    let until = next.map_or(LOOK_INTERVAL, |next| {
        Duration::from_millis(next.0.saturating_sub(now.0))
    });
    until.saturating_sub(elapsed).min(LOOK_INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_waits_for_the_next_schedule_and_a_second_at_most() {
        let wait = |next: Option<u64>, elapsed| {
            let elapsed = Duration::from_millis(elapsed);
            wait_until(next.map(UnixMs), UnixMs(10_000), elapsed).as_millis()
        };
        assert_eq!(wait(None, 0), 1000);
        assert_eq!(wait(Some(10_250), 50), 200);
        assert_eq!(wait(Some(90_000), 50), 1000);
        assert_eq!(wait(Some(9000), 0), 0);
        assert_eq!(wait(Some(10_100), 500), 0);
    }
}
