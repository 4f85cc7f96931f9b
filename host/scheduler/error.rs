//! Why a request about a task was refused or failed.

use crate::{
    queue,
    task::{MAX_PAUSED_TYPES, Name, Route, StateKind, Target, TaskId},
};

/// Why the scheduler refused a request or could not fulfil it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No live node handles the task type.
    #[error("{}", unknown_type(.task_type, .known))]
    UnknownType {
        /// The type of the refused task.
        task_type: Name,
        /// The types that live nodes handle.
        known: Vec<Name>,
    },
    /// Live nodes handle the task type, but not the target.
    #[error("{}", no_such_target(.route, *.is_live, .known))]
    NoSuchTarget {
        /// The type and the target of the refused task.
        route: Route,
        /// Whether the target is live, and handles other types.
        is_live: bool,
        /// The nodes, or their labels, that handle the type.
        known: Vec<Name>,
    },
    /// A plugin that handles the type may be loaded within moments.
    #[error(
        "no live node handles {task_type} yet, but {node} is still loading the plugins that it \
         found at its start; retry in a second"
    )]
    Starting {
        /// The type of the refused task.
        task_type: Name,
        /// The node that is still loading plugins.
        node: Name,
    },
    /// No task has this id.
    #[error("no task has the id {0}")]
    UnknownTask(TaskId),
    /// The id of the submission is that of another task.
    #[error("another task, with other content, has the id {0}; submit it under another id")]
    Conflict(TaskId),
    /// The queue has no room for another open task.
    #[error("the queue has reached its limit of open tasks (queue.max_open_tasks); retry later")]
    Full,
    /// As many task types are paused as may be.
    #[error(
        "{} task types are paused, and no more can be; resume some",
        MAX_PAUSED_TYPES
    )]
    TooManyPaused,
    /// The task's type has no room for another pending task.
    #[error(
        "the type of the task {0} has as many pending tasks as it may have (max_pending); retry later"
    )]
    TypeFull(TaskId),
    /// The task's group has no room for another pending task.
    #[error(
        "the group of the task {0} has as many pending tasks as it may have (max_pending of its type's \
         groups); retry later"
    )]
    GroupFull(TaskId),
    /// The task cannot be requeued in its state.
    #[error("task {id} is {state}; only failed and cancelled tasks can be requeued")]
    NotRequeued {
        /// The task.
        id: TaskId,
        /// Its state.
        state: StateKind,
    },
    /// What was requested of the task does not fit into a message.
    #[error(
        "what was requested of task {id} has {bytes} bytes, and a message may have {max_bytes} \
         (limits.max_message_bytes); request its payload and its result one at a time, or at a node that \
         sends larger messages"
    )]
    TooLarge {
        /// The task.
        id: TaskId,
        /// The size of payload and result, as far as they were requested.
        bytes: usize,
        /// The largest size.
        max_bytes: usize,
    },
    /// It is not known whether the task is stored.
    #[error("{1}; it is not known whether the task {0} is stored")]
    OutcomeUnknown(TaskId, queue::Error),
    /// The queue failed.
    #[error(transparent)]
    Queue(#[from] queue::Error),
}

impl Error {
    /// Whether the same submission may be accepted soon, with nothing else to be done: there is no room for
    /// it, or its plugin is still being loaded. A type or a group may stay full for long, and holds up no
    /// other.
    pub fn passes_soon(&self) -> bool {
        matches!(
            self,
            Self::Full | Self::Starting { .. } | Self::Queue(queue::Error::Full { .. })
        )
    }

    /// Whether the queue does not work now.
    pub fn is_outage(&self) -> bool {
        matches!(
            self,
            Self::OutcomeUnknown(..) | Self::Queue(queue::Error::Unavailable { .. })
        )
    }

    /// The failure of the submission of the task `id`.
    pub(super) fn of_submission(id: &TaskId, error: queue::Error) -> Self {
        match error {
            queue::Error::Unavailable {
                outcome_unknown: true,
                ..
            } => Self::OutcomeUnknown(id.clone(), error),
            other => other.into(),
        }
    }
}

fn unknown_type(task_type: &Name, known: &[Name]) -> String {
    if known.is_empty() {
        return format!(
            "no live node handles {task_type} or any other task type; put a plugin into the plugins \
             directory of a node"
        );
    }
    let listed = Name::list(known);
    format!("no live node handles {task_type}; known task types: {listed}")
}

fn no_such_target(route: &Route, is_live: bool, known: &[Name]) -> String {
    let Route { task_type, target } = route;
    let kind = match target {
        Target::Label(_) => "node labels",
        _ => "live nodes",
    };
    let known = if known.is_empty() {
        "none".into()
    } else {
        Name::list(known)
    };
    let target = describe(target);
    if is_live {
        format!(
            "{target} is live, but has no plugin that handles {task_type}; {kind} with such a plugin: \
             {known}"
        )
    } else {
        format!("{target} is not registered; {kind} that handle {task_type}: {known}")
    }
}

/// The target in words.
pub(super) fn describe(target: &Target) -> String {
    match target {
        Target::Any => "a node".into(),
        Target::Node(id) => format!("the node {id}"),
        Target::Label(label) => format!("a node with the label {label}"),
    }
}
