//! The conformance suite of the queue backends: the contract of `TaskQueue`, one case a sentence. A
//! backend outside this repository runs it in its own tests:
//!
//! ```ignore
//! for case in conformance::cases().chain(conformance::ordered_cases()) {
//!     case.run(|| async { Arc::new(open_an_empty_queue().await) as Arc<dyn TaskQueue> }).await;
//! }
//! ```
//!
//! Each case needs a fresh, empty queue that admits `MAX_OPEN_TASKS` open tasks, and panics where the
//! queue breaks the contract. No case depends on the speed of the backend: a lease that has to expire
//! is short and is waited for; one that must not expire lasts an hour.

mod actions;
mod case;
mod finishing;
mod following;
mod groups;
mod helpers;
mod history;
mod leasing;
mod limit_store;
mod limits;
mod model;
mod options;
mod pauses;
mod priorities;
mod progress;
mod reading;
mod routing;
mod schedules;
mod searching;
mod starting;
mod submitting;
mod suspects;
mod unique;
mod usage;

pub use case::{Case, MAX_OPEN_TASKS, cases, ordered_cases};
pub use helpers::{finish_one, limited, name, request, task, task_with, with_options};
pub use limit_store::{LimitCase, limit_cases};
pub use schedules::{ScheduleCase, schedule_cases};
