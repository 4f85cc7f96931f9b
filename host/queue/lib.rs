//! The task queue: the contract of a backend (`TaskQueue`), its two backends, and what both share.

mod batch_size;
mod change_log;
#[cfg(feature = "conformance")]
pub mod conformance;
mod details;
mod error;
mod filter;
/// Fuzz targets.
#[cfg(fuzzing)]
pub mod fuzz {
    pub use super::{redis::fuzz::*, sqlite::fuzz::*};
}
mod lease;
mod lease_request;
mod limit_store;
mod limit_table;
mod open;
mod redis;
mod schedule_store;
mod sqlite;
mod status_read;
mod task_cache;
mod task_queue;
mod usage;
mod watch;

pub use self::redis::RedisQueue;
pub use batch_size::{BatchSize, transfer_time};
pub use change_log::{ChangesRead, LoggedChange};
pub use details::{Place, ReadLimits, TaskDetails};
pub use error::Error;
pub use lease_request::{LeaseRequest, RequestedType, RequestedTypes};
pub use limit_store::{LimitStore, MAX_LIMITS, PutLimits, StoredLimits};
pub use limit_table::LimitTable;
pub use open::{Opened, open, open_with_schedules};
pub use schedule_store::{
    AdvanceSchedule, DueSchedules, MAX_SCHEDULES, PutSchedule, SchedulePage, ScheduleStore,
    VersionedSchedule,
};
pub use sqlite::SqliteQueue;
pub use status_read::StatusRead;
pub use task_queue::{
    Cancel, Counts, Durability, Expired, Filter, Finish, Finished, LeaseToken, Leased, Listing,
    MAX_ACTED, Page, Renew, Renewal, Requeue, Submitted, TaskQueue, TimeRange, now,
};
pub use usage::{Usage, UsageScope};
pub use watch::{Change, Changes, Publisher, Watch};
