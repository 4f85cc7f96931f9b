//! The task that has a unique key, and whether it keeps it. Pure.

use hostel_task::{Name, TaskId};
use std::time::Duration;

/// For how long a reserved key belongs to a task that is not known to be stored.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// The task that has a key.
#[derive(Debug, Clone)]
pub(super) struct Holder {
    pub id: TaskId,
    pub token: String,
    /// It is known to be stored, or to have been.
    pub is_stored: bool,
    /// The time for which it has the key at least is not over.
    pub is_in_time: bool,
    /// How long ago the key was reserved.
    pub age: Duration,
}

/// The state of the task that has a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HolderState {
    Open,
    Ended,
    /// There is no task of this id with the key.
    Unknown,
}

/// What is known of a key that another task has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The other task keeps it.
    Held,
    /// The other task may be on its way.
    Undecided,
    /// The other task has no claim any more.
    Free,
}

impl Holder {
    pub fn parse(words: &[String]) -> Option<Self> {
        let [id, token, stored, in_time, age] = words else {
            return None;
        };
        Some(Self {
            id: Name::parse("task id", id).ok()?,
            token: token.clone(),
            is_stored: stored == "1",
            is_in_time: in_time == "1",
            age: Duration::from_millis(age.parse().ok()?),
        })
    }

    /// Whether a submission of its task may be on its way to its shard.
    pub fn is_young(&self) -> bool {
        !self.is_stored && self.age < GRACE
    }

    /// Whether it keeps the key whatever the state of its task is.
    pub fn is_certain(&self) -> bool {
        self.is_stored && self.is_in_time
    }

    pub fn verdict(&self, state: HolderState) -> Verdict {
        match state {
            _ if self.is_certain() => Verdict::Held,
            HolderState::Open => Verdict::Held,
            HolderState::Ended if self.is_in_time => Verdict::Held,
            _ if self.is_young() => Verdict::Undecided,
            HolderState::Ended | HolderState::Unknown => Verdict::Free,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(is_stored: bool, is_in_time: bool, age: Duration) -> Holder {
        Holder {
            id: Name::parse("id", "a").unwrap(),
            token: "t".into(),
            is_stored,
            is_in_time,
            age,
        }
    }

    #[test]
    fn a_key_is_free_once_its_task_has_no_claim() {
        use HolderState::{Ended, Open, Unknown};
        use Verdict::{Free, Held, Undecided};
        for (stored, in_time, age, expected) in [
            (true, true, Duration::ZERO, [Held, Held, Held]),
            (true, false, Duration::ZERO, [Held, Free, Free]),
            // A submission of a task that is not known to be stored may be on its way at first.
            (false, true, Duration::ZERO, [Held, Held, Undecided]),
            (false, false, Duration::ZERO, [Held, Undecided, Undecided]),
            (false, true, GRACE, [Held, Held, Free]),
            (false, false, GRACE, [Held, Free, Free]),
        ] {
            let holder = holder(stored, in_time, age);
            let verdicts = [Open, Ended, Unknown].map(|state| holder.verdict(state));
            assert_eq!(verdicts, expected, "{holder:?}");
        }
    }
}
