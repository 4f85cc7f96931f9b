//! What a task is and how it moves from state to state: pure values and decisions. No IO, no clock,
//! nothing asynchronous, and of the other crates only the delays of `hostel_backoff`.

mod action;
mod attempt;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod given_limits;
mod given_options;
mod limits;
mod name;
mod options;
mod progress;
mod rate;
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
pub use attempt::{
    AttemptClass, AttemptHistory, AttemptRecord, AttemptReport, AttemptUsage,
    MAX_ATTEMPT_ERROR_BYTES, MAX_ATTEMPTS,
};
pub use given_limits::{
    GivenLimit, GivenLimits, LimitTexts, Limits, MAX_CLUSTER_CONCURRENCY, MAX_CONCURRENCY,
    MAX_PENDING,
};
pub use given_options::{GivenOptions, OptionLimits};
pub use limits::{
    DeclaredLimits, GroupLimits, LimitInForce, LimitOrigin, LimitScope, LimitsInForce,
    RuntimeLimits, TypeLimits,
};
pub use name::{InvalidName, Name, TaskId};
pub use options::{MAX_TAGS, Priority, SHARES, Start, TaskOptions, Unique};
pub use progress::{MAX_NOTE_BYTES, Progress};
pub use rate::{PERMIT, Rate, Spent};
pub use record::{ErrorClass, ExecutedBy, State, StateKind, Task};
pub use resources::Resources;
pub use retention::{KeepTimes, Retention};
pub use route::{Route, Target};
pub use submission::{PendingLimits, Submission, SubmissionLimits};
pub use transition::{
    AttemptResult, MAX_RETRY_DELAY, Outcome, RetryPolicy, SUSPECT_AFTER, is_suspect, transition,
};
pub use type_pause::{MAX_PAUSED_TYPES, PausedTypes, TypePause};
pub use unix_ms::UnixMs;
pub use violations::{Violation, Violations};
