//! What a list of tasks selects, and its pages.

use hostel_task::{Name, State, StateKind, Task, UnixMs};
use std::sync::Arc;

/// Selects tasks to list; all by default.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The state, if not all.
    pub state: Option<StateKind>,
    /// The task type, if not all.
    pub task_type: Option<Name>,
    /// The group of the tasks, if it matters.
    pub group: Option<Name>,
    /// A tag that the tasks have, if it matters.
    pub tag: Option<Name>,
    /// The node that runs the task, or else that ran its latest attempt, if it matters.
    pub node: Option<Name>,
    /// The plugin that ran the latest attempt that has ended, if it matters.
    pub plugin: Option<Name>,
    /// The version of that plugin, if it matters.
    pub plugin_version: Option<Arc<str>>,
    /// When the tasks were submitted.
    pub submitted: TimeRange,
    /// When the tasks ended. A bound excludes open tasks.
    pub finished: TimeRange,
}

/// A range of time; all of it by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TimeRange {
    /// The first moment of the range.
    pub from: Option<UnixMs>,
    /// The first moment after the range.
    pub until: Option<UnixMs>,
}

impl TimeRange {
    /// Whether the range is all of time.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a moment is in the range.
    pub fn contains(&self, time: UnixMs) -> bool {
        self.from.is_none_or(|from| time >= from) && self.until.is_none_or(|until| time < until)
    }
}

impl Filter {
    /// Whether a task can only be selected by what executed it, or by its times.
    pub fn needs_search(&self) -> bool {
        self.node.is_some()
            || self.plugin.is_some()
            || self.plugin_version.is_some()
            || !self.submitted.is_all()
            || !self.finished.is_all()
    }

    /// Whether a task is selected by what executed it and by its times.
    pub fn selects(&self, task: &Task) -> bool {
        let ran = task.executed_by.as_ref();
        let node = match &task.state {
            State::Running { node, .. } => Some(node),
            _ => ran.map(|ran| &ran.node),
        };
        let finished_at = match task.state {
            State::Pending { .. } | State::Running { .. } => None,
            State::Completed { finished_at, .. }
            | State::Failed { finished_at, .. }
            | State::Cancelled { finished_at, .. } => Some(finished_at),
        };
        let version = ran.map(|ran| &ran.plugin_version);
        let has_finished = |at| self.finished.contains(at);
        is_any_or(self.node.as_ref(), node)
            && is_any_or(self.plugin.as_ref(), ran.map(|ran| &ran.plugin))
            && is_any_or(self.plugin_version.as_ref(), version)
            && self.submitted.contains(task.submitted_at)
            && (self.finished.is_all() || finished_at.is_some_and(has_finished))
    }
}

/// Whether nothing in particular is expected, or just this.
fn is_any_or<T: PartialEq>(expected: Option<&T>, found: Option<&T>) -> bool {
    expected.is_none() || expected == found
}

/// Selects a page of a listing.
#[derive(Debug, Clone)]
pub struct Page {
    /// The largest number of tasks.
    pub size: usize,
    /// `Listing::next` of the previous page.
    pub after: Option<String>,
}

/// A page of tasks.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// The tasks, newest first.
    pub tasks: Vec<Task>,
    /// The token of the next page, if there may be more tasks.
    pub next: Option<String>,
}
