//! The files of the plugins directory and the result of loading each. Decides which generations
//! serve: a name and a task type belong to the generation that serves them, else to the first file in
//! the order of names; a file that was refused because of another is retried when that one goes. While
//! a node starts, the order of file names alone decides, so that compile times do not. Does no IO.

use crate::{
    catalog::{Loading, Rejection, View},
    diagnostic::Diagnostic,
    generation::Generation,
};
use hostel_task::Name;
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

/// What the names of all generations that serve may take of the node's record in the cluster, which a
/// store accepts up to a size only (etcd: 1.5 MiB).
const MAX_NAMES_BYTES: usize = 512 << 10;
/// The same for the task types of files that are being loaded.
const MAX_EXPECTED_BYTES: usize = 256 << 10;
/// What a record takes for each name besides its text, and for each plugin besides names and version.
const NAME_BYTES: usize = 3;
const PLUGIN_BYTES: usize = 104;

#[derive(Default)]
pub struct Registry {
    files: BTreeMap<PathBuf, Entry>,
}

/// What is known of one file.
#[derive(Default)]
struct Entry {
    serving: Option<Arc<Generation>>,
    /// A sound generation that does not serve yet, or cannot because of another plugin.
    candidate: Option<Arc<Generation>>,
    rejection: Option<Rejection>,
    /// The content that `rejection` is about, if it could be read.
    rejected_sha256: Option<String>,
}

impl Entry {
    fn clear_rejection(&mut self) {
        self.rejection = None;
        self.rejected_sha256 = None;
    }
}

impl Registry {
    /// Creates the registry with which a view was made. The contents that were refused are not known any
    /// more, so they are loaded again.
    pub fn of(view: &View) -> Self {
        let mut files: BTreeMap<PathBuf, Entry> = BTreeMap::new();
        for generation in view.generations.values() {
            let entry = files.entry(generation.file.clone()).or_default();
            entry.serving = Some(generation.clone());
        }
        for rejection in &view.rejected {
            let entry = files.entry(rejection.file.clone()).or_default();
            entry.rejection = Some(rejection.clone());
        }
        Self { files }
    }

    /// The files that are known, in the order of their names.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.keys()
    }

    /// The contents of `file`, by hash, that need not be loaded again.
    pub fn known_contents(&self, file: &Path) -> Vec<String> {
        let Some(entry) = self.files.get(file) else {
            return Vec::new();
        };
        let generations = [&entry.serving, &entry.candidate].into_iter().flatten();
        let sound = generations.map(|generation| generation.sha256.clone());
        sound.chain(entry.rejected_sha256.clone()).collect()
    }

    /// Forgets other content of `file`, if it holds again the content that serves.
    pub fn restore(&mut self, file: &Path, sha256: &str) {
        let serves = |generation: &Arc<Generation>| generation.sha256 == sha256;
        if let Some(entry) = self.files.get_mut(file)
            && entry.serving.as_ref().is_some_and(serves)
        {
            entry.candidate = None;
            entry.clear_rejection();
        }
    }

    /// Adds a generation that was made of `file`, as a candidate.
    pub fn insert(&mut self, file: &Path, generation: Generation) {
        let entry = self.files.entry(file.to_owned()).or_default();
        entry.candidate = Some(Arc::new(generation));
        entry.clear_rejection();
    }

    /// Records the diagnostics of `file`. Returns whether they are new.
    pub fn reject(
        &mut self,
        file: &Path,
        sha256: Option<String>,
        diagnostics: &[Diagnostic],
    ) -> bool {
        let entry = self.files.entry(file.to_owned()).or_default();
        let diagnostics: Vec<String> = diagnostics.iter().map(Diagnostic::to_string).collect();
        let error = diagnostics.join("; ");
        entry.candidate = None;
        let known = entry.rejection.as_ref();
        let is_new =
            entry.rejected_sha256 != sha256 || known.is_none_or(|known| known.error != error);
        if is_new {
            entry.rejection = Some(rejection(file, error));
            entry.rejected_sha256 = sha256;
        }
        is_new
    }

    /// Returns whether the file was there.
    pub fn remove(&mut self, file: &Path) -> bool {
        self.files.remove(file).is_some()
    }

    pub fn serving(&self, file: &Path) -> Option<&Arc<Generation>> {
        self.files.get(file)?.serving.as_ref()
    }

    pub fn rejection(&self, file: &Path) -> Option<&Rejection> {
        self.files.get(file)?.rejection.as_ref()
    }

    /// Makes every candidate serve that can, and rejects the others, each for what is in its way now.
    /// Returns the files that serve or are rejected anew. With `by_name` the order of file names decides over all files, even against
    /// those that serve.
    pub fn resolve(&mut self, by_name: bool) -> Vec<PathBuf> {
        let mut before = BTreeMap::new();
        if by_name {
            for (file, entry) in &mut self.files {
                // A generation with a successor goes on serving until that can.
                if entry.candidate.is_none()
                    && let Some(serving) = entry.serving.take()
                {
                    before.insert(file.clone(), serving.clone());
                    entry.candidate = Some(serving);
                }
            }
        }
        let mut changed = self.promote_candidates();
        changed.retain(|file| {
            let serving = self.serving(file);
            let same = |old: &Arc<Generation>| serving.is_some_and(|now| Arc::ptr_eq(old, now));
            !before.get(file).is_some_and(same)
        });
        let claims = Claims::of(&self.files);
        for (file, entry) in &mut self.files {
            let Some(candidate) = &entry.candidate else {
                continue;
            };
            let obstacle = claims.obstacle(file, candidate, entry.serving.as_deref());
            let Some(obstacle) = obstacle else { continue };
            let Some(diagnostic) = obstacle.diagnostic(candidate) else {
                continue;
            };
            let error = diagnostic.to_string();
            match &mut entry.rejection {
                Some(known) if known.error == error => {}
                // Their number changes with every plugin; the file has been refused for it before.
                Some(known) if matches!(obstacle, Obstacle::Names(_)) => known.error = error,
                other => {
                    *other = Some(rejection(file, error));
                    changed.push(file.clone());
                }
            }
        }
        changed
    }

    /// Makes candidates serve until no further one can.
    fn promote_candidates(&mut self) -> Vec<PathBuf> {
        let mut changed = Vec::new();
        let mut claims = Claims::of(&self.files);
        let mut again = true;
        while std::mem::take(&mut again) {
            for (file, entry) in &mut self.files {
                let serving = entry.serving.as_deref();
                let can_serve = |candidate: &mut Arc<Generation>| {
                    claims.obstacle(file, candidate, serving).is_none()
                };
                let Some(candidate) = entry.candidate.take_if(can_serve) else {
                    continue;
                };
                claims.add(file, &candidate);
                let old = entry.serving.replace(candidate);
                entry.rejection = None;
                changed.push(file.clone());
                if let Some(old) = old {
                    // What it no longer claims may let a file before it serve.
                    claims.remove(file, &old);
                    again = true;
                    break;
                }
            }
        }
        changed
    }

    /// The view for the catalog, together with what is being loaded and whether the first scan is
    /// done.
    pub fn view(&self, mut loading: Vec<Loading>, scanned: bool) -> View {
        let mut bytes = 0;
        for file in &mut loading {
            bytes += names_bytes(&file.task_types);
            if bytes > MAX_EXPECTED_BYTES {
                file.task_types.clear();
            }
        }
        let entries = self.files.values();
        let serving = entries.clone().filter_map(|entry| entry.serving.clone());
        let rejected = entries.filter_map(|entry| entry.rejection.clone());
        View::new(serving.collect(), rejected.collect(), loading, scanned)
    }
}

/// The names and task types of the generations that serve, with their files.
struct Claims {
    names: HashMap<Name, Claim>,
    task_types: HashMap<Name, Claim>,
    /// What all of them take of the node's record.
    bytes: usize,
}

/// Why a candidate cannot serve.
enum Obstacle {
    /// The generation of another file owns its name or a task type.
    Owner(Arc<Generation>),
    /// With it the names of all plugins would take this many bytes.
    Names(usize),
}

type Claim = (PathBuf, Arc<Generation>);

impl Claims {
    fn of(files: &BTreeMap<PathBuf, Entry>) -> Self {
        let mut claims = Self {
            names: HashMap::new(),
            task_types: HashMap::new(),
            bytes: 0,
        };
        for (file, entry) in files {
            if let Some(serving) = &entry.serving {
                claims.add(file, serving);
            }
        }
        claims
    }

    fn add(&mut self, file: &Path, serving: &Arc<Generation>) {
        let claim = || (file.to_owned(), serving.clone());
        self.bytes += record_bytes(serving);
        self.names.insert(serving.name.clone(), claim());
        for task_type in &serving.task_types {
            self.task_types.insert(task_type.name.clone(), claim());
        }
    }

    /// Removes what `old` of `file` claimed and its successor does not.
    fn remove(&mut self, file: &Path, old: &Arc<Generation>) {
        let is_old = |claim: &Claim| claim.0 == file && Arc::ptr_eq(&claim.1, old);
        self.bytes -= record_bytes(old);
        if self.names.get(&old.name).is_some_and(is_old) {
            self.names.remove(&old.name);
        }
        for task_type in &old.task_types {
            if self.task_types.get(&task_type.name).is_some_and(is_old) {
                self.task_types.remove(&task_type.name);
            }
        }
    }

    /// Why `candidate` of `file` cannot take the place of what serves of it.
    fn obstacle(
        &self,
        file: &Path,
        candidate: &Generation,
        serving: Option<&Generation>,
    ) -> Option<Obstacle> {
        if let Some(owner) = self.owner_against(file, candidate) {
            return Some(Obstacle::Owner(owner));
        }
        let others = self.bytes - serving.map_or(0, record_bytes);
        let bytes = others + record_bytes(candidate);
        (bytes > MAX_NAMES_BYTES).then_some(Obstacle::Names(bytes))
    }

    /// The generation of another file that owns the name or a task type of `candidate`.
    fn owner_against(&self, file: &Path, candidate: &Generation) -> Option<Arc<Generation>> {
        let types = candidate.task_types.iter();
        let types = types.filter_map(|task_type| self.task_types.get(&task_type.name));
        let mut claims = self.names.get(&candidate.name).into_iter().chain(types);
        claims
            .find(|(other, _)| other != file)
            .map(|(_, other)| other.clone())
    }
}

impl Obstacle {
    fn diagnostic(&self, candidate: &Generation) -> Option<Diagnostic> {
        match self {
            Self::Owner(other) => conflict(candidate, other),
            Self::Names(bytes) => Some(Diagnostic::new(format!(
                "with its task types the names of all plugins of this node would take {bytes} bytes of \
                 the node's record, and at most {MAX_NAMES_BYTES} are allowed: give the task types \
                 shorter names, or remove plugins from this node"
            ))),
        }
    }
}

/// What a generation takes of the node's record.
fn record_bytes(generation: &Generation) -> usize {
    let types = generation.task_types.iter();
    let types: usize = types.map(|one| name_bytes(&one.name)).sum();
    // Once as a plugin, and once as a component.
    types + 2 * name_bytes(&generation.name) + generation.version.len() + PLUGIN_BYTES
}

fn names_bytes(names: &[Name]) -> usize {
    names.iter().map(name_bytes).sum()
}

fn name_bytes(name: &Name) -> usize {
    name.as_str().len() + NAME_BYTES
}

fn conflict(candidate: &Generation, other: &Generation) -> Option<Diagnostic> {
    let file = other.file.file_name().unwrap_or_default().to_string_lossy();
    if candidate.name == other.name {
        return Some(Diagnostic::new(format!(
            "its name {} is taken by {file}: give it another name in its manifest, or remove {file}",
            other.name
        )));
    }
    let has = |name| other.task_types.iter().any(|owned| owned.name == name);
    let taken = candidate
        .task_types
        .iter()
        .find(|wanted| has(wanted.name.clone()))?;
    Some(Diagnostic::new(format!(
        "its task type {} is taken by plugin {} ({file}): rename the type, or remove {file}",
        taken.name, other.name
    )))
}

fn rejection(file: &Path, error: String) -> Rejection {
    Rejection {
        file: file.to_owned(),
        error,
        at: SystemTime::now(),
    }
}

#[cfg(test)]
mod tests;
