//! What an operator does to tasks that are stored, and in which states a task has to be for it. Pure.

use super::{options::Priority, record::StateKind, retention::Retention};
use std::{fmt, sync::Arc};

/// The longest reason of a cancellation or a pause in bytes.
pub const MAX_REASON_BYTES: usize = 1024;

/// What is to be done to tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Cancels a task: at once if it is pending, through its holder if it runs. The reason becomes the error
    /// of the cancelled task.
    Cancel(Option<Arc<str>>),
    /// Makes a failed or cancelled task due now, with its attempts counted from 0.
    Requeue,
    /// Deletes a task that has ended.
    Purge,
    /// Changes the priority of a pending task. The submission keeps the one that it had.
    SetPriority(Priority),
    /// Makes a pending task that is delayed, or waits for its next attempt, due now.
    RunNow,
}

/// What became of one task that an action was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acted {
    /// The task is as the action makes it.
    Done,
    /// The task runs, and its holder learns of the cancellation.
    Requested,
    /// The action is not for tasks in this state; nothing changed.
    Refused(StateKind),
    /// No task has the id.
    Unknown,
}

impl Action {
    /// Returns the states in which a task has to be for the action.
    pub fn states(&self) -> &'static [StateKind] {
        match self {
            Self::Cancel(_) => &[StateKind::Pending, StateKind::Running],
            Self::Requeue => &[StateKind::Failed, StateKind::Cancelled],
            Self::Purge => &Retention::STATES,
            Self::SetPriority(_) | Self::RunNow => &[StateKind::Pending],
        }
    }

    /// Whether the action is for tasks in this state.
    pub fn is_for(&self, state: StateKind) -> bool {
        self.states().contains(&state)
    }

    /// Returns its name, as commands have it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Cancel(_) => "cancel",
            Self::Requeue => "requeue",
            Self::Purge => "purge",
            Self::SetPriority(_) => "set-priority",
            Self::RunNow => "run-now",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Returns the reason of a cancellation or a pause, `None` if the text is empty. The error says what is
/// accepted.
pub fn parse_reason(given: &str) -> Result<Option<Arc<str>>, String> {
    let length = given.len();
    if length > MAX_REASON_BYTES {
        return Err(format!(
            "the reason has {length} bytes; at most {MAX_REASON_BYTES} are allowed"
        ));
    }
    Ok((!given.is_empty()).then(|| given.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_the_actions_that_change_it() {
        let priority = Action::SetPriority(Priority::High);
        let all = [
            Action::Cancel(None),
            Action::Requeue,
            Action::Purge,
            priority,
            Action::RunNow,
        ];
        let of = |state| {
            let actions = all.iter().filter(|action| action.is_for(state));
            let names: Vec<_> = actions.map(Action::as_str).collect();
            names.join(" ")
        };
        assert_eq!(of(StateKind::Pending), "cancel set-priority run-now");
        assert_eq!(of(StateKind::Running), "cancel");
        assert_eq!(of(StateKind::Completed), "purge");
        assert_eq!(of(StateKind::Failed), "requeue purge");
        assert_eq!(of(StateKind::Cancelled), "requeue purge");
    }

    #[test]
    fn a_reason_is_bounded_and_may_be_absent() {
        assert_eq!(parse_reason(""), Ok(None));
        let longest = "x".repeat(MAX_REASON_BYTES);
        assert_eq!(parse_reason(&longest), Ok(Some(longest.as_str().into())));
        let refused = parse_reason(&format!("{longest}x")).unwrap_err();
        assert!(refused.contains("1025 bytes; at most 1024"), "{refused}");
    }
}
