//! Decides which live nodes could run a task, and explains what a task waits for. Sends nothing to any
//! node: nodes lease their tasks themselves.

use super::{error::Error, recently_left::RecentlyLeft, wait_reason::WaitReason};
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

    /// What a pending task waits for first, at the time `now` of the queue's clock. `pause` is that of its type.
    pub fn waiting_for(
        &self,
        task: &Task,
        pause: Option<&TypePause>,
        now: UnixMs,
    ) -> Option<String> {
        let State::Pending { .. } = task.state else {
            return None;
        };
        let pause = pause.map(|pause| WaitReason::paused(&task.task_type, pause));
        let first = pause.or_else(|| self.obstacles(task, now).into_iter().next());
        Some(first.unwrap_or(WaitReason::Slot).to_string())
    }

    /// Returns what keeps a pending task from being leased now, as far as its record and the live nodes tell.
    pub fn obstacles(&self, task: &Task, now: UnixMs) -> Vec<WaitReason> {
        let State::Pending { due_at } = task.state else {
            return Vec::new();
        };
        let nodes = self.discovery.nodes();
        let capable = self.capable(&nodes, task);
        let (capable, mut obstacles) = match capable {
            Ok(capable) => (capable, Vec::new()),
            Err(obstacle) => (Vec::new(), vec![obstacle]),
        };
        if due_at > now {
            obstacles.push(WaitReason::NotDue {
                until: due_at,
                wait_ms: due_at.0 - now.0,
                attempt: task.attempt,
                has_begun: task.attempt > 0 || task.losses > 0,
            });
        }
        let drained = |node: &&NodeRecord| self.discovery.is_drained(&node.id);
        if !capable.is_empty() && capable.iter().all(drained) {
            let nodes = capable.iter().map(|node| node.id.clone()).collect();
            obstacles.push(WaitReason::Drained { nodes });
        }
        obstacles
    }

    /// Returns the nodes that could run a task, or why there are none.
    fn capable<'n>(
        &self,
        nodes: &'n [NodeRecord],
        task: &Task,
    ) -> Result<Vec<&'n NodeRecord>, WaitReason> {
        let task_type = &task.task_type;
        let serving = || nodes.iter().filter(|node| self.serves(node));
        let of_type: Vec<_> = serving().filter(|node| node.handles(task_type)).collect();
        if of_type.is_empty() {
            return Err(match serving().find(|node| node.expects(task_type)) {
                Some(node) => WaitReason::PluginLoading {
                    node: node.id.clone(),
                },
                None => WaitReason::NoPlugin {
                    task_type: task_type.clone(),
                },
            });
        }
        let of_type = of_type.into_iter();
        let capable: Vec<_> = of_type.filter(|node| matches(node, &task.target)).collect();
        if capable.is_empty() {
            return Err(WaitReason::NoTarget {
                target: task.target.clone(),
                task_type: task_type.clone(),
            });
        }
        Ok(capable)
    }

    /// Whether a node is one of those that could run a task, and is not drained.
    pub fn may_run_on(&self, id: &Name, task: &Task) -> bool {
        let nodes = self.discovery.nodes();
        let mut nodes = nodes.iter().filter(|node| node.id == *id);
        let is_target = nodes.any(|node| matches(node, &task.target) && self.serves(node));
        is_target && !self.discovery.is_drained(id)
    }

    /// Whether a node takes tasks from this queue.
    fn serves(&self, node: &NodeRecord) -> bool {
        self.only.as_ref().is_none_or(|only| node.id == *only)
    }
}

fn matches(node: &NodeRecord, target: &Target) -> bool {
    target.includes(&node.id, &node.labels)
}
