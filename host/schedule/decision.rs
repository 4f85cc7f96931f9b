//! What a schedule does now: which of its times fire, with which task ids, and its record after that.

use super::{
    jitter::{fire_at, ms},
    record::Record,
    spec::{Missed, Overlap, ScheduleSpec},
    timing::Timing,
};
use hostel_task::{Name, TaskId, UnixMs};
use jiff::Timestamp;
use std::time::Duration;

/// A firing that is no later than this is in time; any other is missed.
pub const GRACE: Duration = Duration::from_secs(60);

/// The most missed firings that are made up for: the latest.
pub const MAX_MISSED: usize = 1000;

/// The most firings of one decision. Others follow with the next one.
pub const MAX_FIRINGS: usize = 10;

/// How often a schedule whose firing waits for the end of a task looks at that task.
pub const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The most times that one decision deals with.
const MAX_TIMES: usize = 100;

/// A firing: the task to be submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firing {
    /// The time that it is for.
    pub time: UnixMs,
    /// The id of its task.
    pub id: TaskId,
}

/// What a schedule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The firings, in the order of their times.
    pub firings: Vec<Firing>,
    /// The record, to be stored after the tasks of all firings have been.
    pub record: Record,
}

/// Decides what a schedule with this record does at `now`. `is_open` says whether the task of its latest
/// firing has not ended yet; it matters unless `overlap` is `allow`. There are at most `max` firings, the
/// earliest; [`MAX_FIRINGS`] is the usual number, and fewer may be asked for if the queue took no more.
///
/// The decision is the same on all nodes that see the same record, and a record that is not stored is
/// decided upon again: so a node may die at any moment, and another one submits the same tasks, whose ids
/// make them one.
pub fn decide(
    spec: &ScheduleSpec,
    timing: &Timing,
    record: &Record,
    is_open: bool,
    now: UnixMs,
    max: usize,
) -> Decision {
    let mut decision = Decision {
        firings: Vec::new(),
        record: record.clone(),
    };
    if record.paused {
        decision.record.next = None;
        return decision;
    }
    let mut is_open = is_open;
    if !is_open
        && max > 0
        && let Some(time) = decision.record.waiting.take()
    {
        decision.fire(spec, time);
        is_open = true;
    }
    let record = &mut decision.record;
    let late = GRACE.saturating_add(spec.jitter);
    let cutoff = UnixMs(now.0.saturating_sub(ms(late)));
    if timing
        .next_after(record.handled)
        .is_some_and(|time| time < cutoff)
    {
        let count = match spec.missed {
            Missed::Skip => 0,
            Missed::Once => 1,
            Missed::All => MAX_MISSED,
        };
        let first = match count {
            0 => None,
            count => timing
                .latest(record.handled, cutoff, count)
                .first()
                .copied(),
        };
        let first = first.unwrap_or(cutoff);
        record.handled = record.handled.max(UnixMs(first.0.saturating_sub(1)));
    }
    let mut next = timing.next_after(decision.record.handled);
    for _ in 0..MAX_TIMES {
        let Some(time) = next.filter(|&time| fire_at(spec, time) <= now) else {
            break;
        };
        if decision.firings.len() >= max {
            break;
        }
        decision.record.handled = time;
        match spec.overlap {
            Overlap::Skip if is_open => decision.record.skipped += 1,
            Overlap::Queue if is_open && decision.record.waiting.is_none() => {
                decision.record.waiting = Some(time);
            }
            Overlap::Queue if is_open => decision.record.skipped += 1,
            Overlap::Skip | Overlap::Queue | Overlap::Allow => {
                decision.fire(spec, time);
                is_open = true;
            }
        }
        next = timing.next_after(time);
    }
    let next = next.map(|time| fire_at(spec, time));
    let poll = decision.record.waiting.map(|_| now.after(POLL_INTERVAL));
    decision.record.next = next.into_iter().chain(poll).min();
    decision
}

impl Decision {
    fn fire(&mut self, spec: &ScheduleSpec, time: UnixMs) {
        let id = task_id(&spec.name, time);
        let firing = Firing { time, id };
        count(&mut self.record, &firing);
        self.firings.push(firing);
    }
}

fn count(record: &mut Record, firing: &Firing) {
    record.fired += 1;
    record.last_fired = Some(firing.time);
    record.last_task = Some(firing.id.clone());
}

/// Returns a record with firings, in the order of their times, whose tasks are stored. Those that it has
/// already are not counted again.
pub fn with_firings(record: &Record, firings: &[Firing]) -> Record {
    let mut record = record.clone();
    for firing in firings {
        let time = firing.time;
        if record.last_fired.is_none_or(|last| last < time) {
            count(&mut record, firing);
            record.handled = record.handled.max(time);
            record.waiting = record.waiting.filter(|waiting| *waiting > time);
        }
    }
    record
}

/// Returns the id of the task of a firing: `schedule:NAME:TIME`, with the time in UTC.
pub fn task_id(schedule: &Name, time: UnixMs) -> TaskId {
    let ms = i64::try_from(time.0).unwrap_or(i64::MAX);
    let text = match Timestamp::from_millisecond(ms) {
        Ok(time) => time.to_string(),
        // Beyond the year 9999.
        Err(_) => time.0.to_string(),
    };
    name_of(schedule, &text)
}

/// Returns the id of the task of a run that a user asked for: `schedule:NAME:run:RUN`.
pub fn run_id(schedule: &Name, run: &Name) -> Result<TaskId, hostel_task::InvalidName> {
    Name::parse("task id", &format!("schedule:{schedule}:run:{run}"))
}

/// A name of a schedule is so short that the id is always valid.
fn name_of(schedule: &Name, text: &str) -> TaskId {
    let id = format!("schedule:{schedule}:{text}");
    Name::parse("task id", &id).unwrap_or_else(|_| schedule.clone())
}
