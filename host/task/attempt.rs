//! One attempt of a task, as the task's history has it: who ran it, how it ended and what it used; and the
//! bounds of that history. Pure.

use super::{
    name::Name,
    record::ExecutedBy,
    transition::{AttemptResult, Outcome},
    unix_ms::UnixMs,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The most attempts that are kept of a task: the latest ones.
pub const MAX_ATTEMPTS: usize = 32;

/// The most bytes that are kept of the error of an attempt. The task keeps more of the latest one.
pub const MAX_ATTEMPT_ERROR_BYTES: usize = 1 << 10;

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptClass {
    /// The handler returned its result.
    Completed,
    /// The handler returned a retryable error.
    Retryable,
    /// The handler returned a permanent error.
    Permanent,
    /// The attempt took too long.
    Timeout,
    /// The guest panicked, exited or broke a rule of WebAssembly.
    Trap,
    /// The guest reached a limit of its sandbox.
    Limit,
    /// The guest was not admitted in time.
    NoRoom,
    /// The node itself failed.
    Node,
    /// A cancellation was requested, and the guest was interrupted.
    Cancelled,
    /// The node was shutting down. The attempt is not counted.
    Released,
    /// The node died or lost its lease.
    Lost,
}

impl AttemptClass {
    /// All classes. A store may have their places in this list, so that new ones come last.
    pub const ALL: [Self; 11] = [
        Self::Completed,
        Self::Retryable,
        Self::Permanent,
        Self::Timeout,
        Self::Trap,
        Self::Limit,
        Self::NoRoom,
        Self::Node,
        Self::Cancelled,
        Self::Released,
        Self::Lost,
    ];

    /// Returns the class of an attempt of which no more is known than its result.
    pub fn of(result: &AttemptResult) -> Self {
        match result {
            AttemptResult::Returned(_) => Self::Completed,
            AttemptResult::Retryable { .. } => Self::Retryable,
            AttemptResult::Permanent { .. } => Self::Permanent,
            AttemptResult::Lost { .. } => Self::Lost,
            AttemptResult::Cancelled => Self::Cancelled,
            AttemptResult::Drained => Self::Released,
        }
    }

    /// Returns the text of `TaskAttempt.outcome`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Retryable => "retryable",
            Self::Permanent => "permanent",
            Self::Timeout => "timeout",
            Self::Trap => "trap",
            Self::Limit => "limit",
            Self::NoRoom => "no_room",
            Self::Node => "node",
            Self::Cancelled => "cancelled",
            Self::Released => "released",
            Self::Lost => "lost",
        }
    }

    /// Whether such an attempt has an error.
    pub fn has_error(self) -> bool {
        !matches!(self, Self::Completed | Self::Cancelled | Self::Released)
    }
}

/// What an attempt used of its limits. All zero if it is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptUsage {
    /// Processor time in microseconds.
    pub cpu_us: u64,
    /// The largest sum of all linear memories, in bytes.
    pub peak_memory_bytes: u64,
    /// What the guest logged, in bytes, without what was dropped.
    pub log_bytes: u64,
}

/// What the worker knows of an attempt that has ended, beside the outcome and the plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptReport {
    /// How it ended.
    pub class: AttemptClass,
    /// What it used.
    pub usage: AttemptUsage,
}

impl AttemptReport {
    /// The report of an attempt of which no more is known than its outcome.
    pub fn of(outcome: &Outcome) -> Self {
        let class = match outcome {
            Outcome::Completed { .. } => AttemptClass::Completed,
            Outcome::Retry { .. } => AttemptClass::Retryable,
            Outcome::Failed { .. } => AttemptClass::Permanent,
            Outcome::Cancelled => AttemptClass::Cancelled,
            Outcome::Released => AttemptClass::Released,
            Outcome::Lost { .. } => AttemptClass::Lost,
        };
        Self::without_usage(class)
    }

    /// The report of an attempt that was lost with its node.
    pub fn lost() -> Self {
        Self::without_usage(AttemptClass::Lost)
    }

    fn without_usage(class: AttemptClass) -> Self {
        Self {
            class,
            usage: AttemptUsage::default(),
        }
    }

    /// Whether the attempt belongs into the history: not if it was given back before it began.
    pub fn is_recorded(&self, executed_by: Option<&ExecutedBy>) -> bool {
        self.class != AttemptClass::Released || executed_by.is_some()
    }
}

/// An attempt that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRecord {
    /// The number of the attempt, from 1. An attempt that is not counted has the same number as the next
    /// one, and a requeued task counts from 1 again.
    pub number: u32,
    /// How it ended.
    pub class: AttemptClass,
    /// Its error, if it has one.
    pub error: Option<String>,
    /// The node that had its lease.
    pub node: Option<Name>,
    /// The plugin that ran it, unless it was lost.
    pub plugin: Option<Name>,
    /// The version of this plugin.
    pub plugin_version: Option<Arc<str>>,
    /// When its lease began.
    pub started_at: UnixMs,
    /// When the queue took note of its end.
    pub ended_at: UnixMs,
    /// What it used.
    pub usage: AttemptUsage,
}

/// The ended attempts of a task, as far as they are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttemptHistory {
    latest: Vec<AttemptRecord>,
    left_out: u32,
}

impl AttemptHistory {
    /// The history of a task of which `left_out` attempts are not kept.
    pub fn after(left_out: u32) -> Self {
        Self {
            latest: Vec::new(),
            left_out,
        }
    }

    /// Adds the next attempt. Its error is cut to the bound, and the oldest attempt makes room.
    pub fn push(&mut self, mut attempt: AttemptRecord) {
        attempt.error = attempt.error.filter(|_| attempt.class.has_error());
        if let Some(error) = &mut attempt.error
            && error.len() > MAX_ATTEMPT_ERROR_BYTES
        {
            let end = error.floor_char_boundary(MAX_ATTEMPT_ERROR_BYTES - '…'.len_utf8());
            error.truncate(end);
            error.push('…');
        }
        if self.latest.len() == MAX_ATTEMPTS {
            self.latest.remove(0);
            self.left_out = self.left_out.saturating_add(1);
        }
        self.latest.push(attempt);
    }

    /// The attempts that are kept, the oldest first.
    pub fn latest(&self) -> impl ExactSizeIterator<Item = &AttemptRecord> {
        self.latest.iter()
    }

    /// How many earlier attempts are not kept.
    pub fn left_out(&self) -> u32 {
        self.left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(number: u32, class: AttemptClass, error: &str) -> AttemptRecord {
        AttemptRecord {
            number,
            class,
            error: Some(error.into()),
            node: None,
            plugin: None,
            plugin_version: None,
            started_at: UnixMs(0),
            ended_at: UnixMs(0),
            usage: AttemptUsage::default(),
        }
    }

    #[test]
    fn the_latest_attempts_are_kept_and_the_others_counted() {
        let mut history = AttemptHistory::after(3);
        for number in 1..=40 {
            history.push(attempt(number, AttemptClass::Retryable, "no"));
        }
        let numbers: Vec<u32> = history.latest().map(|attempt| attempt.number).collect();
        assert_eq!(numbers, (9..=40).collect::<Vec<_>>());
        assert_eq!(history.left_out(), 3 + 8);
    }

    #[test]
    fn errors_are_cut_and_belong_to_failures_only() {
        let mut history = AttemptHistory::default();
        let long = "ä".repeat(MAX_ATTEMPT_ERROR_BYTES);
        history.push(attempt(1, AttemptClass::Trap, &long));
        history.push(attempt(2, AttemptClass::Completed, "of an earlier attempt"));
        let errors: Vec<_> = history.latest().map(|it| it.error.as_deref()).collect();
        let cut = errors[0].unwrap();
        assert!(cut.len() <= MAX_ATTEMPT_ERROR_BYTES && cut.ends_with("ä…"));
        assert_eq!(errors[1], None);
    }

    #[test]
    fn a_lease_that_is_given_back_unused_is_no_attempt() {
        let released = AttemptReport::of(&Outcome::Released);
        let name = |given| Name::parse("name", given).unwrap();
        let by = ExecutedBy {
            node: name("node-1"),
            plugin: name("echo"),
            plugin_version: "1".into(),
        };
        assert!(!released.is_recorded(None));
        assert!(released.is_recorded(Some(&by)));
        assert!(AttemptReport::lost().is_recorded(None));
    }

    #[test]
    fn each_class_has_a_name_of_its_own() {
        let mut names: Vec<_> = AttemptClass::ALL.map(AttemptClass::as_str).into();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), AttemptClass::ALL.len());
        for (place, class) in AttemptClass::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, place);
            let stored = serde_json::to_string(&class).unwrap();
            assert_eq!(stored, format!("{:?}", class.as_str()));
        }
    }
}
