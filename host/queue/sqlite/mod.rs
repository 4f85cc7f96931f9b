//! The queue of one machine: a SQLite file, one thread that writes, two that read. The transitions are
//! in `transaction`, `finish` and `control`.

mod clock;
mod control;
mod damage;
mod encoding;
mod error;
mod finish;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod index;
mod lease_guard;
mod marking;
mod queries;
mod queue;
mod row;
mod schedule_schema;
mod schedules;
mod schema;
mod statements;
mod stats;
mod submit_cache;
#[cfg(test)]
mod tests;
mod transaction;
mod writer;

pub use queue::SqliteQueue;
