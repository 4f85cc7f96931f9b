//! What has become of a schedule: its record, which the store keeps beside it.

use super::{jitter::fire_at, spec::ScheduleSpec, timing::Timing, when::When};
use hostel_task::{TaskId, UnixMs};
use serde::{Deserialize, Serialize};

/// The record of a schedule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Record {
    /// All times up to this one have been dealt with: they never fire again.
    pub handled: UnixMs,
    /// When a node has to look at the schedule again; `None` if it does not fire.
    pub next: Option<UnixMs>,
    /// The time of the latest firing.
    pub last_fired: Option<UnixMs>,
    /// The task of the latest firing.
    pub last_task: Option<TaskId>,
    /// The time whose firing waits for the end of `last_task`.
    pub waiting: Option<UnixMs>,
    /// Whether it is paused.
    pub paused: bool,
    /// How often it has fired.
    pub fired: u64,
    /// How many firings were skipped because the task before was open.
    pub skipped: u64,
}

impl Record {
    /// Returns the record of a schedule that is created at `now`.
    pub fn new(spec: &ScheduleSpec, timing: &Timing, now: UnixMs) -> Self {
        let record = Self {
            handled: now,
            paused: spec.paused,
            ..Self::default()
        };
        record.with_next(spec, timing)
    }

    /// Returns the record after `spec` has taken the place of `before`. With other times, those that have
    /// passed do not fire any more; `paused` changes where it was changed.
    pub fn replaced(
        &self,
        before: &ScheduleSpec,
        spec: &ScheduleSpec,
        timing: &Timing,
        now: UnixMs,
    ) -> Self {
        let times = |spec: &ScheduleSpec| -> (When, _) { (spec.when.clone(), spec.jitter) };
        let mut record = self.clone();
        if times(before) != times(spec) {
            record.handled = record.handled.max(now);
            record.waiting = None;
        }
        if before.paused != spec.paused {
            return record.with_paused(spec.paused, spec, timing, now);
        }
        record.with_next(spec, timing)
    }

    /// Returns the record after a pause or its end. Times that pass during a pause are not missed.
    pub fn with_paused(
        &self,
        paused: bool,
        spec: &ScheduleSpec,
        timing: &Timing,
        now: UnixMs,
    ) -> Self {
        let mut record = self.clone();
        if record.paused && !paused {
            record.handled = record.handled.max(now);
        }
        if paused {
            record.waiting = None;
        }
        record.paused = paused;
        record.with_next(spec, timing)
    }

    fn with_next(mut self, spec: &ScheduleSpec, timing: &Timing) -> Self {
        let next = if self.paused {
            None
        } else {
            timing.next_after(self.handled)
        };
        self.next = next.map(|time| fire_at(spec, time));
        if self.waiting.is_some() {
            self.next = self.next.into_iter().chain(self.waiting).min();
        }
        self
    }
}
