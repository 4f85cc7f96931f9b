//! Explains what a task waits for: what discovery says (`routing`), and beyond that what the queue and this
//! node's plugins know. Changes nothing.

use super::{limits_reached, routing::Routing, wait_reason::WaitReason};
use crate::{
    plugin::{Handler, PluginHost},
    queue::{self, LimitTable, Place, TaskQueue},
    task::{Name, State, StateKind, Task, TypePause, UnixMs, is_suspect},
};
use std::sync::Arc;

/// What became of a task, or what it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The state of the task.
    pub state: StateKind,
    /// Why it does not run if it is pending, the first one first.
    pub reasons: Vec<WaitReason>,
    /// The same as a sentence.
    pub sentence: String,
}

/// This node, if it runs tasks itself.
pub(super) struct LocalNode {
    pub id: Name,
    pub plugins: Arc<PluginHost>,
}

/// What is known of a pending task beside its record and the nodes.
#[derive(Default)]
pub(super) struct Facts {
    /// Its type is paused in the whole cluster.
    pub pause: Option<TypePause>,
    /// Where it waits.
    pub place: Place,
    /// The limits of its type and its group that are reached.
    pub limits: Vec<WaitReason>,
    /// This node could run it, but for its memory.
    pub no_room: Option<WaitReason>,
}

/// Gathers what the queue, the limits and this node, if it runs tasks, know of a pending task.
pub(super) async fn facts(
    queue: &dyn TaskQueue,
    routing: &Routing,
    limits: &LimitTable,
    local: Option<&LocalNode>,
    task: &Task,
) -> Result<Facts, queue::Error> {
    if task.state.kind() != StateKind::Pending {
        return Ok(Facts::default());
    }
    let mut facts = Facts {
        pause: queue.paused_types().get(&task.task_type).cloned(),
        place: queue.place(&task.id).await?.unwrap_or_default(),
        ..Facts::default()
    };
    if let Some(local) = local {
        let handler = local.plugins.catalog().resolve(task.task_type.as_str());
        let declared = handler.as_ref().map(|handler| handler.task_type.limits);
        let in_force = limits.of(&task.task_type, declared.as_ref());
        facts.limits = limits_reached::of(queue, &in_force, &local.id, task).await?;
        let handler = handler.filter(|_| routing.may_run_on(&local.id, task));
        facts.no_room = handler.and_then(|handler| local.no_room(&handler));
    }
    Ok(facts)
}

impl LocalNode {
    /// Returns the lack of memory that keeps this node from running a task.
    fn no_room(&self, handler: &Handler) -> Option<WaitReason> {
        let (needs, free) = (handler.needs(), self.plugins.free());
        // Slots of the pool are as many as tasks may run.
        (needs.memory_bytes > free.memory_bytes).then(|| WaitReason::NoRoom {
            node: self.id.clone(),
            needed_bytes: needs.memory_bytes as u64,
            free_bytes: free.memory_bytes as u64,
        })
    }
}

/// Explains a task at the time `now` of the queue's clock.
pub(super) fn explain(routing: &Routing, task: &Task, facts: Facts, now: UnixMs) -> Explanation {
    let reasons = reasons(routing, task, facts, now);
    Explanation {
        state: task.state.kind(),
        sentence: sentence(task, &reasons),
        reasons,
    }
}

fn reasons(routing: &Routing, task: &Task, facts: Facts, now: UnixMs) -> Vec<WaitReason> {
    let State::Pending { due_at } = task.state else {
        return Vec::new();
    };
    let Facts {
        pause,
        place,
        limits,
        no_room,
    } = facts;
    let mut reasons = Vec::new();
    if place.is_expired {
        reasons.push(WaitReason::StartExpired);
    }
    reasons.extend(pause.map(|pause| WaitReason::paused(&task.task_type, &pause)));
    reasons.extend(routing.obstacles(task, now));
    if due_at <= now {
        reasons.extend(limits);
        reasons.extend((place.ahead > 0).then(|| WaitReason::Behind {
            count: place.ahead as u64,
            at_least: place.is_more,
            group: task.options.as_ref().and_then(|it| it.group.clone()),
        }));
        reasons.extend(no_room);
    }
    reasons.extend(is_suspect(task.losses).then_some(WaitReason::Suspect {
        losses: task.losses,
    }));
    if reasons.is_empty() {
        reasons.push(WaitReason::Slot);
    }
    reasons
}

fn sentence(task: &Task, reasons: &[WaitReason]) -> String {
    let id = &task.id;
    match &task.state {
        State::Pending { .. } => {
            let words: Vec<String> = reasons.iter().map(ToString::to_string).collect();
            format!("{id} waits for {}.", words.join("; and for "))
        }
        State::Running {
            cancel_requested: true,
            ..
        } => format!("{id} is being interrupted, since it is to be cancelled."),
        State::Running { node, .. } => {
            format!("{id} runs on {node}, as attempt {}.", task.attempt)
        }
        ended => format!("{id} has ended: {}.", ended.kind()),
    }
}
