//! The trackers that follow one task. Mostly that is one, which takes no memory of its own; a task that is
//! followed under many positions still has each removed in constant time.

use super::end_signals::EndSignals;
use std::{collections::HashMap, sync::Arc};

/// The number of a tracker, and the position that it follows the task under.
pub(super) type FollowerId = (u64, u64);

/// The followers of a task, at least one.
pub(super) enum Followers {
    One(FollowerId, Arc<EndSignals>),
    Many(HashMap<FollowerId, Arc<EndSignals>>),
}

impl Followers {
    /// Adds a follower.
    pub fn add(&mut self, id: FollowerId, signals: Arc<EndSignals>) {
        match self {
            Self::One(one, its) => {
                let many = HashMap::from([(*one, its.clone()), (id, signals)]);
                *self = Self::Many(many);
            }
            Self::Many(many) => drop(many.insert(id, signals)),
        }
    }

    /// Removes a follower, and returns whether none is left.
    pub fn remove(&mut self, id: FollowerId) -> bool {
        match self {
            Self::One(one, _) => *one == id,
            Self::Many(many) => {
                many.remove(&id);
                many.is_empty()
            }
        }
    }

    /// Signals the end of the task to all followers.
    pub fn signal(&self) {
        match self {
            Self::One((_, position), signals) => signals.end(*position),
            Self::Many(many) => {
                for ((_, position), signals) in many {
                    signals.end(*position);
                }
            }
        }
    }
}
