//! Schedules: what clients do with them (this file), what the configuration has (`declare`), and the part
//! of a node that fires them (`runner`). `hostel_schedule` decides, and `queue::ScheduleStore` stores.

mod declare;
mod error;
mod runner;
#[cfg(test)]
mod tests;

pub use error::Error;
pub use runner::ScheduleRunner;

use super::{Accepted, TaskScheduler, WaitOptions};
use crate::{
    queue::{self, AdvanceSchedule, PutSchedule, SchedulePage, ScheduleStore, VersionedSchedule},
    schedule::{
        Firing, GivenSchedule, MAX_FIRINGS, Origin, Record, Schedule, ScheduleSpec, decide, run_id,
        with_firings,
    },
    task::{Name, SubmissionLimits, TaskId, UnixMs},
};
use std::sync::Arc;
use tokio::sync::Notify;

/// How often a change is tried again that others got ahead of.
const ATTEMPTS: usize = 16;

/// How many of the next times are shown.
const UPCOMING: usize = 5;

/// The schedules of a queue.
#[derive(Clone)]
pub struct Schedules {
    store: Arc<dyn ScheduleStore>,
    scheduler: Arc<dyn TaskScheduler>,
    limits: SubmissionLimits,
    /// Wakes the runner of this node after a change.
    changed: Arc<Notify>,
}

/// A schedule, and when it fires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleStatus {
    /// The schedule.
    pub schedule: Schedule,
    /// The next five times, without jitter; none while it is paused.
    pub upcoming: Vec<UnixMs>,
}

/// What a creation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The schedule is new.
    New,
    /// The same schedule was there before; nothing changed.
    Existing,
    /// It took the place of another one of its name.
    Replaced,
}

impl Schedules {
    /// Creates the schedules over a store. `limits` are those of their tasks.
    pub fn new(
        store: Arc<dyn ScheduleStore>,
        scheduler: Arc<dyn TaskScheduler>,
        limits: SubmissionLimits,
    ) -> Self {
        Self {
            store,
            scheduler,
            limits,
            changed: Arc::default(),
        }
    }

    /// Creates a schedule. One of the same name that differs is an error, unless `replace` says that the
    /// new one takes its place; what has become of the old one stays.
    pub async fn create(
        &self,
        given: GivenSchedule,
        replace: bool,
    ) -> Result<(Created, ScheduleStatus), Error> {
        for _ in 0..ATTEMPTS {
            let now = self.store.schedule_time().await?;
            let spec = ScheduleSpec::new(given.clone(), &self.limits, now)?;
            let timing = spec.timing().map_err(|why| unreadable(&spec.name, why))?;
            let found = self.store.schedule(&spec.name).await?;
            let (created, expected, record) = match found {
                None => (Created::New, None, Record::new(&spec, &timing, now)),
                Some(VersionedSchedule {
                    schedule: Schedule { origin, .. },
                    ..
                }) if origin != Origin::Api => return Err(Error::Declared(spec.name, origin)),
                Some(found) if found.schedule.spec == spec => {
                    return Ok((Created::Existing, status(found.schedule, now)));
                }
                Some(found) if replace => {
                    let record = self.record_of(&found.schedule, now).await;
                    let record = record.replaced(&found.schedule.spec, &spec, &timing, now);
                    (Created::Replaced, Some(found.version), record)
                }
                Some(_) => return Err(Error::Exists(spec.name)),
            };
            let schedule = Schedule {
                spec,
                origin: Origin::Api,
                record,
            };
            match self.store.put_schedule(&schedule, expected).await? {
                PutSchedule::Stored(_) => {
                    self.changed.notify_one();
                    return Ok((created, status(schedule, now)));
                }
                PutSchedule::Changed => {}
                PutSchedule::Full => return Err(Error::Full),
            }
        }
        Err(Error::Contended)
    }

    /// Returns a schedule.
    pub async fn get(&self, name: &Name) -> Result<ScheduleStatus, Error> {
        let now = self.store.schedule_time().await?;
        Ok(status(self.find(name).await?.schedule, now))
    }

    /// Returns up to `max` schedules whose names follow `after`, in the order of their names, and the name
    /// that the next page follows.
    pub async fn list(
        &self,
        after: Option<&Name>,
        max: usize,
    ) -> Result<(Vec<ScheduleStatus>, Option<Name>), Error> {
        let now = self.store.schedule_time().await?;
        let SchedulePage {
            schedules,
            next,
            damaged,
        } = self.store.schedules(after, max).await?;
        if !damaged.is_empty() {
            let names = damaged.join(", ");
            tracing::debug!("these schedules cannot be read and are not listed: {names}");
        }
        let found = schedules.into_iter();
        Ok((
            found.map(|found| status(found.schedule, now)).collect(),
            next,
        ))
    }

    /// Pauses a schedule, or ends its pause. Times that pass during a pause are not made up for.
    pub async fn set_paused(&self, name: &Name, paused: bool) -> Result<ScheduleStatus, Error> {
        for _ in 0..ATTEMPTS {
            let now = self.store.schedule_time().await?;
            let VersionedSchedule {
                mut schedule,
                version,
            } = self.find(name).await?;
            if schedule.record.paused == paused {
                return Ok(status(schedule, now));
            }
            let record = self.record_of(&schedule, now).await;
            let spec = &schedule.spec;
            let timing = spec.timing().map_err(|why| unreadable(name, why))?;
            schedule.record = record.with_paused(paused, spec, &timing, now);
            let advance = AdvanceSchedule {
                name: name.clone(),
                expected: version,
                record: schedule.record.clone(),
            };
            if self.store.advance_schedules(&[advance]).await? == [true] {
                self.changed.notify_one();
                return Ok(status(schedule, now));
            }
        }
        Err(Error::Contended)
    }

    /// Submits a task of the schedule now, whether it is paused or its last task is open. It counts as
    /// no firing. The same `run` again is the same task.
    pub async fn run_now(&self, name: &Name, run: &Name) -> Result<(TaskId, Accepted), Error> {
        let spec = self.find(name).await?.schedule.spec;
        let id = run_id(name, run).map_err(Error::InvalidRun)?;
        let task = spec.submission(&id).map_err(|why| unreadable(name, why))?;
        let accepted = self.scheduler.submit_task(task).await?;
        Ok((id, accepted))
    }

    /// Deletes a schedule. Its tasks stay. One of the configuration needs `force`, since the nodes that
    /// have it would make it again at their next start; and so does one that cannot be read.
    pub async fn delete(&self, name: &Name, force: bool) -> Result<(), Error> {
        if force {
            if self.store.remove_schedule(name, None).await? {
                return Ok(());
            }
            return Err(Error::Unknown(name.clone()));
        }
        for _ in 0..ATTEMPTS {
            let VersionedSchedule { schedule, version } = self.find(name).await?;
            if schedule.origin != Origin::Api {
                return Err(Error::Declared(name.clone(), schedule.origin));
            }
            if self.store.remove_schedule(name, Some(version)).await? {
                return Ok(());
            }
        }
        Err(Error::Contended)
    }

    /// Returns the record of a schedule that is about to be changed, with the firings whose tasks a node has
    /// stored and not recorded: it has died, or is about to record them and then finds the change. A change is
    /// not held up by tasks that cannot be looked for.
    async fn record_of(&self, schedule: &Schedule, now: UnixMs) -> Record {
        let Schedule { spec, record, .. } = schedule;
        let Ok(timing) = spec.timing() else {
            return record.clone();
        };
        let mut firings = decide(spec, &timing, record, false, now, MAX_FIRINGS).firings;
        let wait = WaitOptions::default();
        for n in 0..firings.len() {
            let found = self.scheduler.get_task_status(&firings[n].id, &wait);
            if found.await.is_err() {
                firings.truncate(n);
                break;
            }
        }
        with_firings(record, &firings)
    }

    /// Records firings whose tasks are stored, after the record has changed since they were decided.
    async fn record_firings(&self, name: &Name, firings: &[Firing]) -> Result<(), queue::Error> {
        for _ in 0..ATTEMPTS {
            let Some(found) = self.store.schedule(name).await? else {
                break;
            };
            let before = found.schedule.record;
            let record = with_firings(&before, firings);
            if record == before {
                break;
            }
            let advance = AdvanceSchedule {
                name: name.clone(),
                expected: found.version,
                record,
            };
            if self.store.advance_schedules(&[advance]).await? == [true] {
                break;
            }
        }
        Ok(())
    }

    async fn find(&self, name: &Name) -> Result<VersionedSchedule, Error> {
        let found = self.store.schedule(name).await?;
        found.ok_or_else(|| Error::Unknown(name.clone()))
    }
}

fn status(schedule: Schedule, now: UnixMs) -> ScheduleStatus {
    let after = schedule.record.handled.max(now);
    let timing = schedule.spec.timing().ok();
    let timing = timing.filter(|_| !schedule.record.paused);
    let upcoming = timing.map(|timing| timing.upcoming(after, UPCOMING));
    ScheduleStatus {
        schedule,
        upcoming: upcoming.unwrap_or_default(),
    }
}

/// The error of a stored schedule that this version does not understand.
fn unreadable(name: &Name, why: String) -> Error {
    let what = format!("schedule {name} cannot be read: {why}");
    crate::queue::Error::Corrupt(what).into()
}
