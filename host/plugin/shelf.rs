//! The files of the plugins directory and what came of each. Decides which generation serves: a
//! name and a task type belong to whoever serves them already, else to the first file by name; who
//! was refused for another's sake is tried again when that one goes. Does no IO.

use super::{
    Fault,
    catalog::{Rejection, View},
    generation::Generation,
};
use std::{
    collections::BTreeMap,
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

    /// Lets every candidate serve that can, and gives the files whose standing changed.
    pub fn settle(&mut self) -> Vec<PathBuf> {
        let mut changed = Vec::new();
        // A plugin that gives up a type may let another one in, so until nothing moves.
        while let Some(file) = self.next_to_serve() {
            if let Some(place) = self.files.get_mut(&file) {
                place.serving = place.candidate.take();
                place.rejection = None;
            }
            changed.push(file);
        }
        let waiting: Vec<_> = self
            .files
            .iter()
            .filter_map(|(file, place)| Some((file.clone(), place.candidate.clone()?)))
            .collect();
        for (file, candidate) in waiting {
            let Some(fault) = self.in_the_way(&file, &candidate) else {
                continue;
            };
            if let Some(place) = self.files.get_mut(&file)
                && place.rejection.is_none()
            {
                place.rejection = Some(rejection(&file, fault.to_string()));
                changed.push(file);
            }
        }
        changed
    }

    pub fn view(&self) -> View {
        let places = || self.files.values();
        View::new(
            places().filter_map(|place| place.serving.clone()).collect(),
            places()
                .filter_map(|place| place.rejection.clone())
                .collect(),
        )
    }

    fn next_to_serve(&self) -> Option<PathBuf> {
        let mut candidates = self
            .files
            .iter()
            .filter_map(|(file, place)| Some((file, place.candidate.as_ref()?)));
        candidates
            .find(|(file, candidate)| self.in_the_way(file, candidate).is_none())
            .map(|(file, _)| file.clone())
    }

    fn in_the_way(&self, file: &Path, candidate: &Generation) -> Option<Fault> {
        let others = self.files.iter().filter(|(other, _)| *other != file);
        let mut serving = others.filter_map(|(_, place)| place.serving.as_ref());
        serving.find_map(|other| conflict(candidate, other))
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
