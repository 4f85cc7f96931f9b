//! What a worker can take from the queue, as every engine is asked for it. No engine is named here.

use hostel_task::{Lane, Name, Resources, Target};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

/// What a worker can take.
#[derive(Debug, Clone)]
pub struct Want {
    pub node: Name,
    /// What is said of the node besides, for tasks that ask for it.
    pub labels: Vec<Name>,
    /// The types that the node runs. The same value as long as they are the same: an engine keeps what
    /// it has made of it.
    pub types: Arc<WantedTypes>,
    /// How many more tasks of a type, where that is fewer than the type allows.
    pub left: BTreeMap<Name, usize>,
    /// This type alone.
    pub only: Option<Name>,
    /// What the tasks may take in all. What does not fit is passed by.
    pub room: Resources,
    /// The most tasks in all.
    pub max: usize,
    /// Whether one of the tasks may be a suspect.
    pub suspect: bool,
    pub ttl: Duration,
}

pub type WantedTypes = HashMap<Name, WantedType>;

/// A type that a worker can take.
#[derive(Debug, Clone)]
pub struct WantedType {
    /// The most tasks of it at once.
    pub max: usize,
    /// How many of it may run on all nodes together.
    pub max_in_cluster: Option<usize>,
    /// What one task of it takes.
    pub needs: Resources,
}

impl Want {
    /// Up to `max` tasks of one type, of any size.
    pub fn of_type(node: Name, task_type: Name, max: usize, ttl: Duration) -> Self {
        let wanted = WantedType {
            max,
            max_in_cluster: None,
            needs: Resources::default(),
        };
        Self {
            node,
            labels: Vec::new(),
            types: Arc::new(WantedTypes::from([(task_type, wanted)])),
            left: BTreeMap::new(),
            only: None,
            room: Resources::UNLIMITED,
            max,
            suspect: true,
            ttl,
        }
    }

    /// The targets of the tasks that it may have.
    pub fn targets(&self) -> impl Iterator<Item = Target> {
        let targets = [Target::Any, Target::Node(self.node.clone())];
        let labels = self.labels.iter().cloned().map(Target::Label);
        targets.into_iter().chain(labels)
    }

    /// What it wants of the tasks in `lane`, if it may have any.
    pub fn of_lane(&self, lane: &Lane) -> Option<&WantedType> {
        let is_target = match &lane.target {
            Target::Any => true,
            Target::Node(id) => *id == self.node,
            Target::Label(label) => self.labels.contains(label),
        };
        if !is_target
            || self
                .only
                .as_ref()
                .is_some_and(|only| *only != lane.task_type)
        {
            return None;
        }
        self.types.get(&lane.task_type)
    }

    /// How many more of a type there may be.
    pub fn left_of(&self, task_type: &Name, wanted: &WantedType) -> usize {
        let left = self.left.get(task_type).copied();
        left.map_or(wanted.max, |left| left.min(wanted.max))
    }

    /// Takes a task of this type out of what is wanted; `false`, and nothing changes, where it is more
    /// than that.
    pub fn take(&mut self, task_type: &Name) -> bool {
        let Some(wanted) = self.types.get(task_type) else {
            return false;
        };
        let left = self.left_of(task_type, wanted);
        match (left, self.max, self.room.less(wanted.needs)) {
            (1.., 1.., Some(room)) => {
                self.room = room;
                self.max -= 1;
                if left < usize::MAX {
                    self.left.insert(task_type.clone(), left - 1);
                }
                true
            }
            _ => false,
        }
    }
}
