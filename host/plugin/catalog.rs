//! Which plugin serves which task type. Readers take a snapshot; only the loader replaces it.

use super::generation::{Generation, Handler};
use hostel_task::Name;
use parking_lot::RwLock;
use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
    time::SystemTime,
};

/// The current view of the plugins.
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

/// The plugins that serve, that are being loaded and that were refused.
#[derive(Debug)]
pub struct View {
    /// The generations that serve, by plugin.
    pub generations: BTreeMap<Name, Arc<Generation>>,
    /// The handlers that serve, by task type.
    pub task_types: HashMap<Name, Handler>,
    /// In the order of file names.
    pub rejected: Vec<Rejection>,
    /// The files that are being loaded, in the order of their names.
    pub loading: Vec<Loading>,
    /// Whether all files of the first scan have been loaded or refused. Until then a task type that
    /// is missing here may still appear.
    pub scanned: bool,
}

/// A file that is being loaded. An older generation of it may serve meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loading {
    /// The name of the file, below the plugins directory.
    pub file: PathBuf,
    /// When loading began.
    pub since: SystemTime,
    /// The task types that its content had when it was last loaded, if they were recorded.
    pub task_types: Vec<Name>,
}

/// A file that was refused. An older generation of it may serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The name of the file, below the plugins directory.
    pub file: PathBuf,
    /// Every diagnostic, in one line.
    pub error: String,
    /// When it was refused.
    pub at: SystemTime,
}

impl Catalog {
    /// The handler that runs tasks of this type now.
    pub fn resolve(&self, task_type: &str) -> Option<Handler> {
        self.view.read().task_types.get(task_type).cloned()
    }

    /// Returns what is served now. Later changes do not show in it.
    pub fn view(&self) -> Arc<View> {
        self.view.read().clone()
    }

    pub(crate) fn replace(&self, view: View) {
        let old = std::mem::replace(&mut *self.view.write(), Arc::new(view));
        // Without the lock, since this may unmap a plugin's code.
        drop(old);
    }
}

impl View {
    pub(crate) fn new(
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

    /// The recorded task types of files that are being loaded, without those that serve already.
    pub fn expected_types(&self) -> impl Iterator<Item = &Name> {
        let recorded = self.loading.iter().flat_map(|file| &file.task_types);
        recorded.filter(|name| !self.task_types.contains_key(*name))
    }

    /// Whether the same generations serve and the same files are being loaded and refused.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
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
