//! How many tasks run, in all and of each type. Counts only; the tasks themselves are elsewhere.

use crate::task::Name;
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The slots of a worker.
pub struct Busy {
    max: usize,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    all: usize,
    by_type: HashMap<Name, usize>,
    /// The last lease could have been larger if more slots had been free.
    hungry: bool,
}

impl Busy {
    pub fn new(max: usize) -> Self {
        Self {
            max,
            counts: Mutex::default(),
        }
    }

    /// Of `types`, each with its own limit, those which have room and how much, with the room in
    /// all. Also remembers whether any of them would take more.
    pub fn room(&self, types: Vec<(Name, Option<usize>)>) -> (Vec<(Name, usize)>, usize) {
        let counts = self.lock();
        let free = self.max.saturating_sub(counts.all);
        let room = types
            .into_iter()
            .map(|(name, limit)| {
                let running = counts.by_type.get(&name).copied().unwrap_or(0);
                let own = limit.map_or(free, |limit| limit.saturating_sub(running));
                (name, own.min(free))
            })
            .filter(|&(_, room)| room > 0)
            .collect();
        (room, free)
    }

    /// Whether to wake the dispatcher when the next slot becomes free.
    pub fn set_hungry(&self, hungry: bool) {
        self.lock().hungry = hungry;
    }

    pub fn take(&self, task_type: &Name) {
        let mut counts = self.lock();
        counts.all += 1;
        *counts.by_type.entry(task_type.clone()).or_default() += 1;
    }

    /// Frees a slot and says whether the dispatcher waits for one.
    pub fn free(&self, task_type: &Name) -> bool {
        let mut counts = self.lock();
        counts.all = counts.all.saturating_sub(1);
        if let Some(running) = counts.by_type.get_mut(task_type) {
            *running -= 1;
            if *running == 0 {
                counts.by_type.remove(task_type);
            }
        }
        counts.hungry
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(given: &str) -> Name {
        Name::parse("type", given).unwrap()
    }

    #[test]
    fn a_type_stops_at_its_own_limit_and_all_stop_at_the_nodes() {
        let busy = Busy::new(3);
        let types = || vec![(name("a"), Some(2)), (name("b"), None)];
        assert_eq!(
            busy.room(types()),
            (vec![(name("a"), 2), (name("b"), 3)], 3)
        );
        busy.take(&name("a"));
        busy.take(&name("a"));
        assert_eq!(busy.room(types()), (vec![(name("b"), 1)], 1));
        busy.take(&name("b"));
        assert_eq!(busy.room(types()), (vec![], 0));
        busy.set_hungry(true);
        assert!(busy.free(&name("a")));
        assert_eq!(
            busy.room(types()),
            (vec![(name("a"), 1), (name("b"), 1)], 1)
        );
    }
}
