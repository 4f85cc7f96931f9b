//! How many tasks run, in all and of each type. Counts only; the tasks themselves are elsewhere.

use crate::{
    queue::{Leased, RequestedTypes},
    task::Name,
};
use std::{
    collections::{BTreeMap, HashMap},
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
    suspects: usize,
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

    /// How many slots there are.
    pub fn max(&self) -> usize {
        self.max
    }

    pub fn free_slots(&self) -> usize {
        self.max.saturating_sub(self.lock().all)
    }

    /// How many more there may be of those types that run and have a limit of their own.
    pub fn left(&self, types: &RequestedTypes) -> BTreeMap<Name, usize> {
        let counts = self.lock();
        let left = counts.by_type.iter().filter_map(|(name, &running)| {
            let max = types.get(name)?.max;
            (max < usize::MAX).then(|| (name.clone(), max.saturating_sub(running)))
        });
        left.collect()
    }

    /// Whether a suspect runs.
    pub fn has_suspect(&self) -> bool {
        self.lock().suspects > 0
    }

    /// Whether to wake the dispatcher when the next slot becomes free.
    pub fn set_hungry(&self, hungry: bool) {
        self.lock().hungry = hungry;
    }

    pub fn take(&self, leased: &Leased) {
        let mut counts = self.lock();
        counts.all += 1;
        counts.suspects += usize::from(leased.suspect);
        *counts.by_type.entry(leased.task_type.clone()).or_default() += 1;
    }

    /// Frees the slot of a task, and says whether the dispatcher waits for one.
    pub fn free(&self, task_type: &Name, suspect: bool) -> bool {
        let mut counts = self.lock();
        counts.all = counts.all.saturating_sub(1);
        counts.suspects = counts.suspects.saturating_sub(usize::from(suspect));
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
            attempt: 1,
            suspect,
        }
    }

    #[test]
    fn a_type_stops_at_its_own_limit_and_all_stop_at_the_nodes() {
        let busy = Busy::new(3);
        let wanted = |max| RequestedType {
            max,
            max_cluster_concurrency: None,
            needs: Resources::default(),
        };
        let types = RequestedTypes::from([(name("a"), wanted(2)), (name("b"), wanted(usize::MAX))]);
        let left = |busy: &Busy| busy.left(&types).into_iter().collect::<Vec<_>>();
        assert_eq!((left(&busy), busy.free_slots()), (vec![], 3));
        busy.take(&leased("a", false));
        assert_eq!(left(&busy), [(name("a"), 1)]);
        busy.take(&leased("a", true));
        busy.take(&leased("b", false));
        assert_eq!(left(&busy), [(name("a"), 0)]);
        assert_eq!((busy.free_slots(), busy.has_suspect()), (0, true));
        busy.set_hungry(true);
        assert!(busy.free(&name("a"), true));
        assert_eq!(left(&busy), [(name("a"), 1)]);
        assert_eq!((busy.free_slots(), busy.has_suspect()), (1, false));
    }
}
