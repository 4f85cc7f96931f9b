//! The files of the plugins directory and what came of each. Decides which generation serves: a
//! name and a task type belong to whoever serves them already, else to the first file by name; who
//! was refused for another's sake is tried again when that one goes. While a node starts, file names
//! alone decide, so that compile times do not. Does no IO.

use super::{
    Fault,
    catalog::{Loading, Rejection, View},
    generation::Generation,
};
use hostel_task::Name;
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

#[derive(Default)]
pub struct Shelf {
    files: BTreeMap<PathBuf, Place>,
}

#[derive(Default)]
struct Place {
    serving: Option<Arc<Generation>>,
    /// Sound, but not serving yet or kept from it by another plugin.
    candidate: Option<Arc<Generation>>,
    rejection: Option<Rejection>,
    /// The content that `rejection` is about, where it could be read.
    rejected_sha256: Option<String>,
}

impl Shelf {
    /// The contents of `file`, by hash, that need no second look.
    pub fn known_contents(&self, file: &Path) -> Vec<String> {
        let Some(place) = self.files.get(file) else {
            return Vec::new();
        };
        let generations = [&place.serving, &place.candidate].into_iter().flatten();
        let sound = generations.map(|generation| generation.sha256.clone());
        sound.chain(place.rejected_sha256.clone()).collect()
    }

    /// What `file` holds now is what it serves already, after something else was there.
    pub fn restore(&mut self, file: &Path, sha256: &str) -> bool {
        let Some(place) = self.files.get_mut(file) else {
            return false;
        };
        let serves = |generation: &Arc<Generation>| generation.sha256 == sha256;
        if !place.serving.as_ref().is_some_and(serves) {
            return false;
        }
        place.candidate = None;
        place.rejection = None;
        place.rejected_sha256 = None;
        true
    }

    pub fn put(&mut self, file: &Path, generation: Generation) {
        let place = self.files.entry(file.to_owned()).or_default();
        place.candidate = Some(Arc::new(generation));
        place.rejection = None;
        place.rejected_sha256 = None;
    }

    /// Says whether this is news.
    pub fn reject(&mut self, file: &Path, sha256: Option<String>, faults: &[Fault]) -> bool {
        let place = self.files.entry(file.to_owned()).or_default();
        let faults: Vec<String> = faults.iter().map(Fault::to_string).collect();
        let error = faults.join("; ");
        place.candidate = None;
        let news = place.rejected_sha256 != sha256
            || place
                .rejection
                .as_ref()
                .is_none_or(|old| old.error != error);
        if news {
            place.rejection = Some(rejection(file, error));
            place.rejected_sha256 = sha256;
        }
        news
    }

    /// Says whether it was there.
    pub fn remove(&mut self, file: &Path) -> bool {
        self.files.remove(file).is_some()
    }

    pub fn serving(&self, file: &Path) -> Option<&Arc<Generation>> {
        self.files.get(file)?.serving.as_ref()
    }

    pub fn rejection(&self, file: &Path) -> Option<&Rejection> {
        self.files.get(file)?.rejection.as_ref()
    }

    /// Lets every candidate serve that can, and gives the files whose standing changed. With
    /// `by_name` the order of file names decides over all files, also against those that serve.
    pub fn settle(&mut self, by_name: bool) -> Vec<PathBuf> {
        let mut before = BTreeMap::new();
        if by_name {
            for (file, place) in &mut self.files {
                // What has a successor goes on serving until that one can.
                if place.candidate.is_none()
                    && let Some(serving) = place.serving.take()
                {
                    before.insert(file.clone(), serving.clone());
                    place.candidate = Some(serving);
                }
            }
        }
        let mut changed = self.admit();
        changed.retain(|file| {
            let serving = self
                .files
                .get(file)
                .and_then(|place| place.serving.as_ref());
            let same = |old: &Arc<Generation>| serving.is_some_and(|now| Arc::ptr_eq(old, now));
            !before.get(file).is_some_and(same)
        });
        let claims = Claims::of(&self.files);
        for (file, place) in &mut self.files {
            if place.rejection.is_none()
                && let Some(candidate) = &place.candidate
                && let Some(other) = claims.in_the_way(file, candidate)
                && let Some(fault) = conflict(candidate, &other)
            {
                place.rejection = Some(rejection(file, fault.to_string()));
                changed.push(file.clone());
            }
        }
        changed
    }

    /// Makes candidates serve until none can any more.
    fn admit(&mut self) -> Vec<PathBuf> {
        let mut changed = Vec::new();
        let mut claims = Claims::of(&self.files);
        let mut again = true;
        while std::mem::take(&mut again) {
            for (file, place) in &mut self.files {
                let can =
                    |candidate: &mut Arc<Generation>| claims.in_the_way(file, candidate).is_none();
                let Some(candidate) = place.candidate.take_if(can) else {
                    continue;
                };
                claims.add(file, &candidate);
                let old = place.serving.replace(candidate);
                place.rejection = None;
                changed.push(file.clone());
                if let Some(old) = old {
                    // What it gave up may let in a file before it.
                    claims.remove(file, &old);
                    again = true;
                    break;
                }
            }
        }
        changed
    }

    /// With what is being loaded, and whether the files of the start have been dealt with.
    pub fn view(&self, loading: Vec<Loading>, scanned: bool) -> View {
        let places = || self.files.values();
        View::new(
            places().filter_map(|place| place.serving.clone()).collect(),
            places()
                .filter_map(|place| place.rejection.clone())
                .collect(),
            loading,
            scanned,
        )
    }
}

/// Which names and task types belong to which serving file.
struct Claims {
    names: HashMap<Name, Claim>,
    task_types: HashMap<Name, Claim>,
}

type Claim = (PathBuf, Arc<Generation>);

impl Claims {
    fn of(files: &BTreeMap<PathBuf, Place>) -> Self {
        let mut claims = Self {
            names: HashMap::new(),
            task_types: HashMap::new(),
        };
        for (file, place) in files {
            if let Some(serving) = &place.serving {
                claims.add(file, serving);
            }
        }
        claims
    }

    fn add(&mut self, file: &Path, serving: &Arc<Generation>) {
        let claim = || (file.to_owned(), serving.clone());
        self.names.insert(serving.name.clone(), claim());
        for task_type in &serving.task_types {
            self.task_types.insert(task_type.name.clone(), claim());
        }
    }

    /// Takes back what `old` of `file` held and its successor does not.
    fn remove(&mut self, file: &Path, old: &Arc<Generation>) {
        let is_old = |claim: &Claim| claim.0 == file && Arc::ptr_eq(&claim.1, old);
        if self.names.get(&old.name).is_some_and(is_old) {
            self.names.remove(&old.name);
        }
        for task_type in &old.task_types {
            if self.task_types.get(&task_type.name).is_some_and(is_old) {
                self.task_types.remove(&task_type.name);
            }
        }
    }

    /// The plugin of another file that has the name or a task type of `candidate`.
    fn in_the_way(&self, file: &Path, candidate: &Generation) -> Option<Arc<Generation>> {
        let types = candidate.task_types.iter();
        let types = types.filter_map(|task_type| self.task_types.get(&task_type.name));
        let mut claims = self.names.get(&candidate.name).into_iter().chain(types);
        claims
            .find(|(other, _)| other != file)
            .map(|(_, other)| other.clone())
    }
}

fn conflict(candidate: &Generation, other: &Generation) -> Option<Fault> {
    let file = other.file.file_name().unwrap_or_default().to_string_lossy();
    if candidate.name == other.name {
        return Some(Fault::new(format!(
            "its name {} is taken by {file}: give it another name in its manifest, or remove {file}",
            other.name
        )));
    }
    let has = |name| other.task_types.iter().any(|held| held.name == name);
    let taken = candidate
        .task_types
        .iter()
        .find(|wanted| has(wanted.name.clone()))?;
    Some(Fault::new(format!(
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
