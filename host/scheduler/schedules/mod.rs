//! Schedules: what clients do with them (this file), what the configuration has (`declare`), and the part
//! of a node that fires them (`runner`). `hostel_schedule` decides, and `queue::ScheduleStore` stores.

mod declare;
mod error;
mod runner;
#[cfg(test)]
mod tests;

pub use error::Error;
pub use runner::ScheduleRunner;

use super::{Accepted, TaskScheduler};
use crate::{
    queue::{AdvanceSchedule, PutSchedule, SchedulePage, ScheduleStore, VersionedSchedule},
    schedule::{GivenSchedule, Origin, Record, Schedule, ScheduleSpec, run_id},
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
                    let Schedule {
                        spec: before,
                        record,
                        ..
                    } = &found.schedule;
                    let record = record.replaced(before, &spec, &timing, now);
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
            let spec = &schedule.spec;
            let timing = spec.timing().map_err(|why| unreadable(name, why))?;
            schedule.record = schedule.record.with_paused(paused, spec, &timing, now);
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
