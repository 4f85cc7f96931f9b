//! Decides which live nodes could run a task, and explains what a task waits for. Sends nothing to any
//! node: nodes lease their tasks themselves.

use super::{
    error::{Error, describe},
    recently_left::RecentlyLeft,
};
use crate::{
    discovery::{NodeRecord, ServiceDiscovery},
    task::{Name, Route, State, Target, Task, TypePause, UnixMs},
};
use std::{collections::BTreeSet, sync::Arc};

pub(super) struct Routing {
    pub discovery: Arc<dyn ServiceDiscovery>,
    pub recently_left: RecentlyLeft,
    /// The one node that takes tasks from this queue, if the queue is not shared.
    pub only: Option<Name>,
}

impl Routing {
    /// Refuses what no live node could run. Drained nodes and nodes that left recently count: they are
    /// expected to return.
    pub fn admit(&self, route: &Route) -> Result<(), Error> {
        let nodes = self.discovery.nodes();
        // Iterated and not collected: a node may run thousands of types.
        let serving = || nodes.iter().filter(|node| self.serves(node));
        let of_type = || serving().filter(|node| node.expects(&route.task_type));
        if of_type().any(|node| matches(node, &route.target)) {
            return Ok(());
        }
        let could = |node: &NodeRecord| {
            node.handles(&route.task_type) && matches(node, &route.target) && self.serves(node)
        };
        if self.recently_left.any(could) {
            return Ok(());
        }
        let mut starting = serving().filter(|node| node.starting);
        if let Some(node) = starting.find(|node| matches(node, &route.target)) {
            return Err(Error::Starting {
                task_type: route.task_type.clone(),
                node: node.id.clone(),
            });
        }
        let named = |names: BTreeSet<&Name>| names.into_iter().cloned().collect();
        Err(match of_type().next() {
            None => Error::UnknownType {
                task_type: route.task_type.clone(),
                known: named(serving().flat_map(|node| &node.task_types).collect()),
            },
            Some(_) => Error::NoSuchTarget {
                route: route.clone(),
                is_live: serving().any(|node| matches(node, &route.target)),
                known: named(match route.target {
                    Target::Label(_) => of_type().flat_map(|node| &node.labels).collect(),
                    _ => of_type().map(|node| &node.id).collect(),
                }),
            },
        })
    }

    /// What a pending task waits for, at the time `now` of the queue's clock. `pause` is that of its type.
    pub fn waiting_for(
        &self,
        task: &Task,
        pause: Option<&TypePause>,
        now: UnixMs,
    ) -> Option<String> {
        let State::Pending { due_at } = task.state else {
            return None;
        };
        let task_type = &task.task_type;
        if let Some(pause) = pause {
            let reason = pause.reason.as_deref();
            let reason = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
            return Some(format!("the end of the pause of {task_type}{reason}"));
        }
        let nodes = self.discovery.nodes();
        let serving = || nodes.iter().filter(|node| self.serves(node));
        let of_type: Vec<_> = serving().filter(|node| node.handles(task_type)).collect();
        if of_type.is_empty() {
            if let Some(node) = serving().find(|node| node.expects(task_type)) {
                return Some(format!("a plugin that {} is still loading", node.id));
            }
            return Some(format!("a plugin: no live node handles {task_type} now"));
        }
        let of_type = of_type.into_iter();
        let capable: Vec<_> = of_type.filter(|node| matches(node, &task.target)).collect();
        if capable.is_empty() {
            let target = describe(&task.target);
            return Some(format!(
                "{target} with a plugin for {task_type}: none is live now"
            ));
        }
        if due_at > now {
            let ms = due_at.0 - now.0;
            let has_begun = task.attempt > 0 || task.losses > 0;
            let attempt = if has_begun { "next" } else { "first" };
            return Some(format!("its {attempt} attempt, due in {ms} ms"));
        }
        let drained = |node: &&NodeRecord| self.discovery.is_drained(&node.id);
        if capable.iter().all(drained) {
            let ids: Vec<&str> = capable.iter().map(|node| node.id.as_str()).collect();
            let ids = ids.join(", ");
            return Some(format!(
                "a node that is not drained: {ids} could run it, and is drained"
            ));
        }
        Some("a free slot, within the limit of its task type: it is due".into())
    }

    /// Whether a node takes tasks from this queue.
    fn serves(&self, node: &NodeRecord) -> bool {
        self.only.as_ref().is_none_or(|only| node.id == *only)
    }
}

fn matches(node: &NodeRecord, target: &Target) -> bool {
    target.includes(&node.id, &node.labels)
}
