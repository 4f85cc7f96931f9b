//! The queue that several nodes share: tasks in Redis. Every change is one script over a batch of tasks
//! (`scripts/*.lua`). The layout of the keys and records:
#![doc = include_str!("layout.md")]

mod attempts;
mod batching;
mod bulk;
mod changes;
mod coalescer;
mod control;
mod details;
mod entry;
mod errors;
mod event;
mod events;
mod faults;
mod finish;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod key_by_key;
mod key_holder;
mod key_reservation;
mod key_sweep;
mod lease_args;
mod lease_guard;
mod lease_sequence;
mod leases;
mod limits;
mod listing;
mod maintenance;
mod memory;
mod offers;
mod options;
mod pauses;
mod pending;
mod permit_calls;
mod permits;
mod queries;
mod queue;
mod record;
mod schedules;
mod scripts;
mod shard_client;
mod store_identity;
mod submit_batcher;
mod unique;

pub use queue::RedisQueue;
