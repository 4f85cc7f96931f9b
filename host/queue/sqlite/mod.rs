//! The queue of one machine: a SQLite file, one thread that writes, two that read. The transitions are
//! in `transaction`, `finish`, `control` and `purge`.

mod attempts;
mod backlog;
mod clock;
mod control;
mod damage;
mod details;
mod encoding;
mod error;
mod finish;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod hand_off;
mod heads;
mod index;
mod lease_guard;
mod limits;
mod listing;
mod marking;
mod offers;
mod options;
mod pauses;
mod placement;
mod purge;
mod queries;
mod queue;
mod rates;
mod room;
mod route_index;
mod row;
mod running;
mod schedule_schema;
mod schedules;
mod schema;
mod search;
mod statements;
mod stats;
mod submit_cache;
mod take_due;
#[cfg(test)]
mod tests;
mod transaction;
mod unique_keys;
mod waiting;
mod writer;

pub use queue::SqliteQueue;
