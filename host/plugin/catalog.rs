//! Which plugin serves which task type at this moment. Readers take a snapshot; the loader alone
//! puts in a new one.

use super::generation::{Generation, Handler};
use crate::task::Name;
use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

#[derive(Default)]
pub struct Catalog {
    view: RwLock<Arc<View>>,
}

/// What is loaded, and what could not be.
#[derive(Debug, Default)]
pub struct View {
    pub generations: BTreeMap<Name, Arc<Generation>>,
    pub task_types: HashMap<Name, Handler>,
    /// In the order of file names.
    pub rejected: Vec<Rejection>,
}

/// A file that is there and does not serve. An older generation from it may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub file: PathBuf,
    /// Every fault, in one line.
    pub error: String,
    pub at: SystemTime,
}

impl Catalog {
    /// Who runs tasks of this type now.
    pub fn resolve(&self, task_type: &str) -> Option<Handler> {
        self.lock().task_types.get(task_type).cloned()
    }

    pub fn view(&self) -> Arc<View> {
        self.lock().clone()
    }

    pub(super) fn replace(&self, view: View) {
        let old = {
            let mut current = self.view.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, Arc::new(view))
        };
        // Outside of the lock: it may unmap a plugin's code.
        drop(old);
    }

    fn lock(&self) -> std::sync::RwLockReadGuard<'_, Arc<View>> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View {
    pub(super) fn new(serving: Vec<Arc<Generation>>, rejected: Vec<Rejection>) -> Self {
        let mut view = Self {
            rejected,
            ..Self::default()
        };
        for generation in serving {
            for task_type in &generation.task_types {
                let handler = Handler {
                    generation: generation.clone(),
                    task_type: task_type.clone(),
                };
                view.task_types.insert(task_type.name.clone(), handler);
            }
            view.generations.insert(generation.name.clone(), generation);
        }
        view
    }

    /// Whether the same generations serve and the same files are refused.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let same = |(one, another): (&Arc<Generation>, &Arc<Generation>)| Arc::ptr_eq(one, another);
        self.rejected == other.rejected
            && self.generations.len() == other.generations.len()
            && self
                .generations
                .values()
                .zip(other.generations.values())
                .all(same)
    }
}
