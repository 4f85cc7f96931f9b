//! What a schedule is, when it fires, and which tasks are to be submitted now: pure values and decisions.
//! No IO, no clock, nothing asynchronous.
//!
//! A time of a schedule is given by its cron pattern or its interval; a firing is the submission of a task
//! whose id is made of the schedule's name and that time. The id makes a firing happen once, although any
//! node may submit it, and the schedule's [`Record`] keeps a task that was purged from being submitted
//! again.

mod cron;
mod decision;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod jitter;
mod payload;
mod record;
mod schedule;
mod spec;
mod timing;
mod when;

#[cfg(test)]
mod tests;

pub use decision::{
    Decision, Firing, GRACE, MAX_FIRINGS, MAX_MISSED, POLL_INTERVAL, decide, run_id, task_id,
    with_firings,
};
pub use record::Record;
pub use schedule::{MAX_DECLARING_NODES, Origin, Schedule};
pub use spec::{
    GivenSchedule, MAX_CRON_BYTES, MAX_INTERVAL, MAX_JITTER, MAX_NAME_BYTES, MAX_PAYLOAD_BYTES,
    MIN_INTERVAL, Missed, Overlap, ScheduleSpec,
};
pub use timing::Timing;
pub use when::When;
