//! What a task is and how it moves from state to state: pure values and decisions, the bottom of
//! the house. No IO, no clock, no tokio, and no name from any other module.

mod lane;
mod name;
mod record;
mod resources;
mod submission;
mod transition;

pub use lane::{Lane, Target};
pub use name::{InvalidName, Name, TaskId};
pub use record::{ErrorClass, Ran, State, StateKind, Task, UnixMs};
pub use resources::Resources;
pub use submission::{InvalidSubmission, Submission, SubmissionLimits};
pub use transition::{Ended, Outcome, RetryPolicy, SUSPECT_AFTER, is_suspect, transition};
