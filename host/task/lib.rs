//! What a task is and how it moves from state to state: pure values and decisions. No IO, no clock,
//! nothing asynchronous, and of the other crates only the delays of `hostel_backoff`.

mod action;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod given_options;
mod name;
mod options;
mod progress;
mod record;
mod resources;
mod retention;
mod route;
mod submission;
mod transition;
mod type_pause;
mod unix_ms;
mod violations;

pub use action::{Acted, Action, MAX_REASON_BYTES, parse_reason};
pub use given_options::{GivenOptions, OptionLimits};
pub use name::{InvalidName, Name, TaskId};
pub use options::{MAX_TAGS, Priority, SHARES, Start, TaskOptions, Unique};
pub use progress::{MAX_NOTE_BYTES, Progress};
pub use record::{ErrorClass, ExecutedBy, State, StateKind, Task};
pub use resources::Resources;
pub use retention::{KeepTimes, Retention};
pub use route::{Route, Target};
pub use submission::{Submission, SubmissionLimits};
pub use transition::{
    AttemptResult, MAX_RETRY_DELAY, Outcome, RetryPolicy, SUSPECT_AFTER, is_suspect, transition,
};
pub use type_pause::{MAX_PAUSED_TYPES, PausedTypes, TypePause};
pub use unix_ms::UnixMs;
pub use violations::{Violation, Violations};
