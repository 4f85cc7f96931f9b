//! Which plugin serves which task type at this moment. Readers take a snapshot; the loader alone
//! puts in a new one.

use super::generation::{Generation, Handler};
use hostel_task::Name;
use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

pub struct Catalog {
    view: RwLock<Arc<View>>,
}

impl Default for Catalog {
    fn default() -> Self {
        let empty = View::new(Vec::new(), Vec::new(), Vec::new(), false);
        Self {
            view: RwLock::new(Arc::new(empty)),
        }
    }
}

/// What is loaded, and what could not be.
#[derive(Debug)]
pub struct View {
    pub generations: BTreeMap<Name, Arc<Generation>>,
    pub task_types: HashMap<Name, Handler>,
    /// In the order of file names.
    pub rejected: Vec<Rejection>,
    /// The files that are being loaded, in the order of their names.
    pub loading: Vec<Loading>,
    /// Whether the files that were there at the start have all been dealt with. Until then a task
    /// type that is not here may still come.
    pub scanned: bool,
}

/// A file that is being loaded. An older generation from it may serve meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loading {
    pub file: PathBuf,
    pub since: SystemTime,
    /// The task types that its content had when it last loaded, as far as that is recorded.
    pub task_types: Vec<Name>,
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
    pub(super) fn new(
        serving: Vec<Arc<Generation>>,
        rejected: Vec<Rejection>,
        loading: Vec<Loading>,
        scanned: bool,
    ) -> Self {
        let mut view = Self {
            generations: BTreeMap::new(),
            task_types: HashMap::new(),
            rejected,
            loading,
            scanned,
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

    /// The recorded task types of what is being loaded and does not serve yet.
    pub fn expected_types(&self) -> impl Iterator<Item = &Name> {
        let recorded = self.loading.iter().flat_map(|file| &file.task_types);
        recorded.filter(|name| !self.task_types.contains_key(*name))
    }

    /// Whether the same generations serve and the same files are loaded and refused.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let same = |(one, another): (&Arc<Generation>, &Arc<Generation>)| Arc::ptr_eq(one, another);
        self.rejected == other.rejected
            && self.loading == other.loading
            && self.scanned == other.scanned
            && self.generations.len() == other.generations.len()
            && self
                .generations
                .values()
                .zip(other.generations.values())
                .all(same)
    }
}
