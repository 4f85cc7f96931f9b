//! Counts running tasks, in total and of each type, against the limits of the node.

use crate::{
    queue::{Leased, RequestedTypes},
    task::Name,
};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};

/// The slots of a worker.
pub struct Slots {
    max: usize,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    total: usize,
    by_type: HashMap<Name, usize>,
    suspects: usize,
    /// Whether the dispatcher waits for a free slot.
    wake_on_free: bool,
}

impl Slots {
    pub fn new(max: usize) -> Self {
        Self {
            max,
            counts: Mutex::default(),
        }
    }

    /// The number of slots, free and taken.
    pub fn max(&self) -> usize {
        self.max
    }

    /// The number of free slots.
    pub fn free_slots(&self) -> usize {
        self.max.saturating_sub(self.counts.lock().total)
    }

    /// How many more tasks of a type may start, for each type that is running and has a limit of its
    /// own.
    pub fn left(&self, types: &RequestedTypes) -> BTreeMap<Name, usize> {
        let counts = self.counts.lock();
        let left = counts.by_type.iter().filter_map(|(name, &running)| {
            let max = types.get(name)?.max;
            (max < usize::MAX).then(|| (name.clone(), max.saturating_sub(running)))
        });
        left.collect()
    }

    /// Whether a suspect is running.
    pub fn has_suspect(&self) -> bool {
        self.counts.lock().suspects > 0
    }

    /// Sets whether to wake the dispatcher when a slot becomes free.
    pub fn set_wake_on_free(&self, wake_on_free: bool) {
        self.counts.lock().wake_on_free = wake_on_free;
    }

    /// Takes a slot for a leased task.
    pub fn take(&self, leased: &Leased) {
        let mut counts = self.counts.lock();
        counts.total += 1;
        counts.suspects += usize::from(leased.suspect);
        *counts.by_type.entry(leased.task_type.clone()).or_default() += 1;
    }

    /// Frees the slot of a task. Returns whether to wake the dispatcher.
    pub fn free(&self, task_type: &Name, suspect: bool) -> bool {
        let mut counts = self.counts.lock();
        counts.total = counts.total.saturating_sub(1);
        counts.suspects = counts.suspects.saturating_sub(usize::from(suspect));
        if let Some(running) = counts.by_type.get_mut(task_type) {
            *running -= 1;
            if *running == 0 {
                counts.by_type.remove(task_type);
            }
        }
        counts.wake_on_free
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        queue::{LeaseToken, RequestedType},
        task::Resources,
    };

    fn name(given: &str) -> Name {
        Name::parse("type", given).unwrap()
    }

    fn leased(task_type: &str, suspect: bool) -> Leased {
        Leased {
            token: LeaseToken {
                id: name("id"),
                fence: 1,
            },
            task_type: name(task_type),
            payload: bytes::Bytes::new(),
            metadata: std::sync::Arc::default(),
            options: None,
            attempt: 1,
            suspect,
        }
    }

    #[test]
    fn a_type_stops_at_its_own_limit_and_all_stop_at_the_nodes() {
        let slots = Slots::new(3);
        let requested = |max| RequestedType::unlimited(max, Resources::default());
        let types = RequestedTypes::from([
            (name("a"), requested(2)),
            (name("b"), requested(usize::MAX)),
        ]);
        let left = |slots: &Slots| slots.left(&types).into_iter().collect::<Vec<_>>();
        assert_eq!((left(&slots), slots.free_slots()), (vec![], 3));
        slots.take(&leased("a", false));
        assert_eq!(left(&slots), [(name("a"), 1)]);
        slots.take(&leased("a", true));
        slots.take(&leased("b", false));
        assert_eq!(left(&slots), [(name("a"), 0)]);
        assert_eq!((slots.free_slots(), slots.has_suspect()), (0, true));
        slots.set_wake_on_free(true);
        assert!(slots.free(&name("a"), true));
        assert_eq!(left(&slots), [(name("a"), 1)]);
        assert_eq!((slots.free_slots(), slots.has_suspect()), (1, false));
    }
}
