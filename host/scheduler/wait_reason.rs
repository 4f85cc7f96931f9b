//! Why a pending task does not run: reasons as values, and in words that follow "it waits for". Pure.

use super::error::describe;
use crate::task::{Name, Rate, Target, TypePause, UnixMs};
use std::{fmt, sync::Arc};

/// Why a pending task does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitReason {
    /// It is not due.
    NotDue {
        /// When it is.
        until: UnixMs,
        /// How long that takes, in milliseconds.
        wait_ms: u64,
        /// Its latest attempt that is counted; 0 before the first.
        attempt: u32,
        /// Whether an attempt has begun.
        has_begun: bool,
    },
    /// Its type is paused.
    Paused {
        /// The type.
        task_type: Name,
        /// Why, if an operator has said so.
        reason: Option<Arc<str>>,
    },
    /// No live node has a plugin for its type.
    NoPlugin {
        /// The type.
        task_type: Name,
    },
    /// A plugin for its type is still being loaded.
    PluginLoading {
        /// The node that loads it.
        node: Name,
    },
    /// No live node of its target has a plugin for its type.
    NoTarget {
        /// Where it may run.
        target: Target,
        /// The type.
        task_type: Name,
    },
    /// All nodes that could run it are drained.
    Drained {
        /// These nodes.
        nodes: Vec<Name>,
    },
    /// A limit on tasks that run is reached.
    LimitReached {
        /// The name of the limit.
        limit: &'static str,
        /// The group whose limit it is, if it is none of the type.
        group: Option<Name>,
        /// Its value.
        value: u64,
        /// How many tasks run that count towards it.
        count: u64,
    },
    /// A rate allows no further task now.
    RateReached {
        /// The rate.
        rate: Rate,
        /// The group whose rate it is, if it is none of the type.
        group: Option<Name>,
        /// When it allows the next task.
        until: UnixMs,
        /// How long that takes, in milliseconds.
        wait_ms: u64,
    },
    /// Other tasks of its route, its priority and its group come first.
    Behind {
        /// How many.
        count: u64,
        /// Whether there are more.
        at_least: bool,
        /// Its group, if it has one.
        group: Option<Name>,
    },
    /// The node has too little memory free for it.
    NoRoom {
        /// The node.
        node: Name,
        /// What the task needs, in bytes.
        needed_bytes: u64,
        /// What is free, in bytes.
        free_bytes: u64,
    },
    /// It is suspected of killing its nodes, and waits for one that runs no other suspect.
    Suspect {
        /// How often it was lost.
        losses: u32,
    },
    /// Its first attempt did not begin in time, and it is about to fail.
    StartExpired,
    /// It is due, and waits for a free slot.
    Slot,
}

impl WaitReason {
    /// The pause of a type.
    pub(super) fn paused(task_type: &Name, pause: &TypePause) -> Self {
        Self::Paused {
            task_type: task_type.clone(),
            reason: pause.reason.clone(),
        }
    }
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDue {
                wait_ms, has_begun, ..
            } => {
                let attempt = if *has_begun { "next" } else { "first" };
                write!(f, "its {attempt} attempt, due in {wait_ms} ms")
            }
            Self::Paused { task_type, reason } => {
                write!(f, "the end of the pause of {task_type}")?;
                reason
                    .iter()
                    .try_for_each(|reason| write!(f, " ({reason})"))
            }
            Self::NoPlugin { task_type } => {
                write!(f, "a plugin: no live node handles {task_type} now")
            }
            Self::PluginLoading { node } => write!(f, "a plugin that {node} is still loading"),
            Self::NoTarget { target, task_type } => {
                let target = describe(target);
                write!(
                    f,
                    "{target} with a plugin for {task_type}: none is live now"
                )
            }
            Self::Drained { nodes } => {
                let ids: Vec<&str> = nodes.iter().map(Name::as_str).collect();
                let ids = ids.join(", ");
                write!(
                    f,
                    "a node that is not drained: {ids} could run it, and is drained"
                )
            }
            Self::LimitReached {
                limit,
                group,
                value,
                count,
            } => {
                let of = OfGroup(group.as_ref());
                write!(
                    f,
                    "room within {limit} = {value}{of}: {count} such tasks run"
                )
            }
            Self::RateReached {
                rate,
                group,
                wait_ms,
                ..
            } => {
                let of = OfGroup(group.as_ref());
                write!(
                    f,
                    "max_rate = {rate}{of}, which allows the next task in {wait_ms} ms"
                )
            }
            Self::Behind {
                count,
                at_least,
                group,
            } => {
                let count = Count(*count, *at_least);
                match group {
                    Some(group) => {
                        write!(f, "its turn: {count} of its group {group} come first")
                    }
                    None => write!(f, "its turn: {count} of its type come first"),
                }
            }
            Self::NoRoom {
                node,
                needed_bytes,
                free_bytes,
            } => write!(
                f,
                "memory: it needs {} MiB, and {node} has {} MiB free",
                needed_bytes.div_ceil(1 << 20),
                free_bytes >> 20
            ),
            Self::Suspect { losses } => write!(
                f,
                "a node that runs no other suspect: {losses} nodes were lost while they ran it"
            ),
            Self::StartExpired => f.write_str(
                "its end: no attempt had begun by its start_by_ms, and it is about to fail",
            ),
            Self::Slot => f.write_str("a free slot, within the limit of its task type: it is due"),
        }
    }
}

/// Whose limit it is, unless it is that of the type.
struct OfGroup<'n>(Option<&'n Name>);

impl fmt::Display for OfGroup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(group) => write!(f, " of its group {group}"),
            None => Ok(()),
        }
    }
}

/// A number of tasks, and whether there are more.
struct Count(u64, bool);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at_least = if self.1 { "at least " } else { "" };
        let tasks = if self.0 == 1 { "task" } else { "tasks" };
        write!(f, "{at_least}{} {tasks}", self.0)
    }
}
