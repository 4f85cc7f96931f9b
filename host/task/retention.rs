//! How long tasks are kept after their end: by state, and by type where a type has times of its own. The
//! `result_ttl` of a task's options counts instead. Pure.

use super::{name::Name, record::StateKind};
use std::{collections::BTreeMap, time::Duration};

/// How long ended tasks are kept, by their state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepTimes {
    /// Of completed tasks.
    pub completed: Duration,
    /// Of failed tasks.
    pub failed: Duration,
    /// Of cancelled tasks.
    pub cancelled: Duration,
}

/// How long ended tasks are kept, by their type and state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    general: KeepTimes,
    of_types: BTreeMap<Name, KeepTimes>,
}

impl KeepTimes {
    /// Returns how long a task is kept after it has ended in this state; for ever if it has not ended.
    pub fn of(&self, state: StateKind) -> Duration {
        match state {
            StateKind::Pending | StateKind::Running => Duration::MAX,
            StateKind::Completed => self.completed,
            StateKind::Failed => self.failed,
            StateKind::Cancelled => self.cancelled,
        }
    }
}

impl Retention {
    /// The states in which a task has ended.
    pub const STATES: [StateKind; 3] = [
        StateKind::Completed,
        StateKind::Failed,
        StateKind::Cancelled,
    ];

    /// Keeps tasks for the times of their type in `of_types`, and those of other types for `general`.
    pub fn new(general: KeepTimes, of_types: BTreeMap<Name, KeepTimes>) -> Self {
        Self { general, of_types }
    }

    /// Keeps every task for the same time.
    pub fn of(time: Duration) -> Self {
        let general = KeepTimes {
            completed: time,
            failed: time,
            cancelled: time,
        };
        Self::new(general, BTreeMap::new())
    }

    /// Returns the times of types without times of their own.
    pub fn general(&self) -> &KeepTimes {
        &self.general
    }

    /// Returns the types with times of their own.
    pub fn of_types(&self) -> impl Iterator<Item = (&Name, &KeepTimes)> {
        self.of_types.iter()
    }

    /// Returns how long a task of this type is kept after it has ended in this state.
    pub fn keep(&self, task_type: &Name, state: StateKind) -> Duration {
        let times = self.of_types.get(task_type).unwrap_or(&self.general);
        times.of(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_a_type_come_before_the_general_ones() {
        let seconds = Duration::from_secs;
        let times = |completed, failed, cancelled| KeepTimes {
            completed: seconds(completed),
            failed: seconds(failed),
            cancelled: seconds(cancelled),
        };
        let name = |given| Name::parse("task type", given).unwrap();
        let own = BTreeMap::from([(name("report"), times(4, 5, 6))]);
        let retention = Retention::new(times(1, 2, 3), own);
        let of = |task_type| {
            let task_type = name(task_type);
            Retention::STATES.map(|state| retention.keep(&task_type, state).as_secs())
        };
        assert_eq!(of("report"), [4, 5, 6]);
        assert_eq!(of("other"), [1, 2, 3]);
        let open = retention.keep(&name("report"), StateKind::Running);
        assert_eq!(open, Duration::MAX);
    }
}
