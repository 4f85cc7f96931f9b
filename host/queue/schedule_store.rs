//! The contract of a store of schedules, which every queue backend keeps, and the values of its calls.
//! A backend stores and finds; what a schedule does is decided by `hostel_schedule`.
//!
//! A firing happens once, although any node may make it and may die at any moment. A node reads a
//! schedule that is due, decides, submits the tasks and only then stores the new record, as a
//! compare-and-set:
//! - If it dies before it has submitted, the record is as before, and another node finds it due.
//! - If it dies between the two, another node decides the same from the same record, and submits the
//!   same tasks again: their ids make them the existing ones.
//! - If two nodes do it at once, the ids make their tasks one, and the compare-and-set lets one of them
//!   store the record. The other's tasks were the same, for the record was the same.
//! - Once the record is stored, its times have been dealt with, and no id is needed for that any more:
//!   the tasks may end and be purged.
//!
//! So a task is made twice only if it ends and is purged between its submission and the record's change:
//! if a node stops just there for longer than ended tasks are kept.

use super::error::Error;
use async_trait::async_trait;
use hostel_schedule::{Origin, Record, Schedule, ScheduleSpec};
use hostel_task::{Name, UnixMs};
use serde::{Deserialize, Serialize};

/// The most schedules of a queue.
pub const MAX_SCHEDULES: usize = 10_000;

/// Stores schedules, beside the tasks of a queue.
#[async_trait]
pub trait ScheduleStore: Send + Sync {
    /// Returns the time of the backend's wall clock, by which schedules fire.
    async fn schedule_time(&self) -> Result<UnixMs, Error>;

    /// Stores a schedule if its stored version is `expected`: `None` if there must be none. `Full` if
    /// it is new and there are `MAX_SCHEDULES`.
    async fn put_schedule(
        &self,
        schedule: &Schedule,
        expected: Option<u64>,
    ) -> Result<PutSchedule, Error>;

    /// Removes a schedule if its version is `expected`, or whatever it is without one, and returns
    /// whether it did.
    async fn remove_schedule(&self, name: &Name, expected: Option<u64>) -> Result<bool, Error>;

    /// Returns a schedule, if there is one with this name.
    async fn schedule(&self, name: &Name) -> Result<Option<VersionedSchedule>, Error>;

    /// Returns up to `max` schedules whose names follow `after`, in the order of their names.
    async fn schedules(&self, after: Option<&Name>, max: usize) -> Result<SchedulePage, Error>;

    /// Returns up to `max` schedules whose `Record::next` has come, the longest due first. A shared
    /// backend keeps them from other nodes for a second, so that usually one node fires each.
    async fn due_schedules(&self, max: usize) -> Result<DueSchedules, Error>;

    /// Stores the records of schedules whose versions are those given, and returns which were.
    async fn advance_schedules(&self, advances: &[AdvanceSchedule]) -> Result<Vec<bool>, Error>;
}

/// A stored schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionedSchedule {
    /// The schedule.
    pub schedule: Schedule,
    /// Another number after each change, and never one that a schedule has had before.
    pub version: u64,
}

/// Some of the stored schedules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SchedulePage {
    /// The schedules, in the order of their names.
    pub schedules: Vec<VersionedSchedule>,
    /// The name that the next page follows; `None` if there is none.
    pub next: Option<Name>,
    /// The names of those that cannot be read.
    pub damaged: Vec<String>,
}

/// The result of storing a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutSchedule {
    /// It is stored with this version.
    Stored(u64),
    /// The stored version is another one; nothing changed.
    Changed,
    /// There are `MAX_SCHEDULES`.
    Full,
}

/// The schedules that are due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueSchedules {
    /// The time of the backend's wall clock.
    pub now: UnixMs,
    /// The schedules.
    pub due: Vec<VersionedSchedule>,
    /// When the next one is due, if one is; it may be in the past.
    pub next: Option<UnixMs>,
    /// The names of due schedules that cannot be read.
    pub damaged: Vec<String>,
}

/// A change of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdvanceSchedule {
    /// The name of the schedule.
    pub name: Name,
    /// The version that the decision was made on.
    pub expected: u64,
    /// The record from now on.
    pub record: Record,
}

/// What only a user changes of a schedule, as it is stored.
#[derive(Serialize)]
struct Defined<'a> {
    spec: &'a ScheduleSpec,
    origin: &'a Origin,
}

#[derive(Deserialize)]
struct StoredDefined {
    spec: ScheduleSpec,
    origin: Origin,
}

/// Returns what is stored of a schedule: what it is, and its record.
pub(crate) fn encode(schedule: &Schedule) -> Result<[String; 2], Error> {
    let Schedule {
        spec,
        origin,
        record,
    } = schedule;
    let spec = serde_json::to_string(&Defined { spec, origin });
    let spec = spec.map_err(|error| Error::Corrupt(error.to_string()))?;
    Ok([spec, encode_record(record)?])
}

pub(crate) fn encode_record(record: &Record) -> Result<String, Error> {
    serde_json::to_string(record).map_err(|error| Error::Corrupt(error.to_string()))
}

/// Reads what `encode` has made.
pub(crate) fn decode(
    name: &str,
    version: u64,
    spec: &str,
    record: &str,
) -> Result<VersionedSchedule, Error> {
    let corrupt = |error| Error::Corrupt(format!("schedule {name} cannot be read: {error}"));
    let StoredDefined { spec, origin } = serde_json::from_str(spec).map_err(corrupt)?;
    let record = serde_json::from_str(record).map_err(corrupt)?;
    let schedule = Schedule {
        spec,
        origin,
        record,
    };
    Ok(VersionedSchedule { schedule, version })
}
