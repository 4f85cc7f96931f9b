//! The one task that changes the catalog: looks through the plugins directory, has generations made
//! of what changed, and swaps them in. Whatever goes wrong with a file, what serves goes on serving.

use super::{
    Fault,
    catalog::{Catalog, Loading},
    load::{self, Done, Outcome},
    scan::{self, Stamp},
    shelf::Shelf,
    watcher::Watcher,
    workshop::Workshop,
};
use hostel_task::Name;
use std::{
    collections::{BTreeMap, HashSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{Notify, oneshot, watch},
    task::{self, JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// From a change event to the look at the directory, so that one look serves many events.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// A file that was written to more recently may not be finished: its faults are not reported yet.
const SETTLE: Duration = Duration::from_millis(250);
/// A stamp taken sooner after a change may hide a second one.
const CLOCK_TICK: Duration = Duration::from_secs(1);
/// When a file is tried again that was refused for a reason that may pass. Each further time the
/// delay doubles, since a try can cost all of its time limit.
const RETRY: Duration = Duration::from_secs(10);
const MAX_RETRY: Duration = Duration::from_secs(600);

/// While a node starts, how long what was loaded may wait to be published with what comes next.
const PUBLISH: Duration = Duration::from_millis(100);
/// How often a start that takes long says how far it is.
const PROGRESS: Duration = Duration::from_secs(5);
/// How many files such a line names.
const NAMED: usize = 5;

pub struct Loader {
    dir: PathBuf,
    rescan: Duration,
    workshop: Arc<Workshop>,
    catalog: Arc<Catalog>,
    changed: watch::Sender<u64>,
    shelf: Shelf,
    files: BTreeMap<PathBuf, Known>,
    jobs: JoinSet<Done>,
    wake: Arc<Notify>,
    watcher: Watcher,
    /// When to look again, besides the regular looks.
    look_at: Option<Instant>,
    unreadable: bool,
    /// The jobs of the first look that are not done.
    first: HashSet<task::Id>,
    scanned: bool,
    /// When to publish what was loaded meanwhile.
    publish_at: Option<Instant>,
}

#[derive(Default)]
struct Known {
    /// Of the content that was dealt with.
    stamp: Option<Stamp>,
    /// When to read it again all the same.
    again_at: Option<Instant>,
    /// How long the last try for a reason that may pass was put off, while the content stays.
    retry: Option<Duration>,
    /// The job that is reading or loading it.
    job: Option<task::Id>,
    /// What is told of that job; nothing where it may find the content that serves.
    loading: Option<Loading>,
}

impl Loader {
    pub fn new(
        dir: PathBuf,
        rescan: Duration,
        workshop: Arc<Workshop>,
        catalog: Arc<Catalog>,
        changed: watch::Sender<u64>,
    ) -> Self {
        let wake = Arc::new(Notify::new());
        Self {
            watcher: Watcher::new(dir.clone(), rescan, wake.clone()),
            dir,
            rescan,
            workshop,
            catalog,
            changed,
            shelf: Shelf::default(),
            files: BTreeMap::new(),
            jobs: JoinSet::new(),
            wake,
            look_at: None,
            unreadable: false,
            first: HashSet::new(),
            scanned: false,
            publish_at: None,
        }
    }

    /// Looks at what is there, says through `begun` that it is known, loads it, and follows the
    /// directory until `stop`.
    pub async fn run(mut self, stop: CancellationToken, begun: Option<oneshot::Sender<()>>) {
        if stop.run_until_cancelled(self.look()).await.is_none() {
            return;
        }
        self.first = self.files.values().filter_map(|known| known.job).collect();
        if !self.first.is_empty() {
            let dir = self.dir.display();
            tracing::info!("loading {} plugins from {dir}", self.first.len());
        }
        let count = self.first.len();
        self.publish();
        // Whoever waits for it may have gone.
        let _ = begun.map(|begun| begun.send(()));
        let mut regular = tokio::time::interval(self.rescan.max(Duration::from_millis(10)));
        regular.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut progress = tokio::time::interval_at(Instant::now() + PROGRESS, PROGRESS);
        loop {
            let at =
                |at: Option<Instant>| tokio::time::sleep_until(at.unwrap_or_else(Instant::now));
            tokio::select! {
                () = stop.cancelled() => return,
                Some(done) = self.jobs.join_next_with_id() => self.done(done),
                () = self.wake.notified() => self.look_within(DEBOUNCE),
                _ = regular.tick() => self.look().await,
                _ = progress.tick(), if !self.scanned => self.name_the_late(count),
                () = at(self.publish_at), if self.publish_at.is_some() => self.publish(),
                () = at(self.look_at), if self.look_at.is_some() => {
                    self.look_at = None;
                    self.look().await;
                }
            }
        }
    }

    fn done(&mut self, done: Result<(task::Id, Done), JoinError>) {
        let first = !self.scanned;
        match done {
            Ok((job, done)) => self.take(job, done, first),
            Err(error) => self.lost(&error),
        }
        if first && !self.first.is_empty() {
            // A view for each of a thousand plugins would cost more than loading them.
            let at = Instant::now() + PUBLISH;
            self.publish_at.get_or_insert(at);
        } else {
            self.publish();
        }
        if !first {
            // It may have changed again meanwhile.
            self.look_within(Duration::ZERO);
        }
    }

    fn name_the_late(&self, count: usize) {
        let late = self
            .files
            .values()
            .filter_map(|known| known.loading.as_ref());
        let names = late.map(|loading| loading.file.file_name().unwrap_or_default());
        let late: Vec<_> = names.map(|name| name.to_string_lossy()).collect();
        let named = late[..late.len().min(NAMED)].join(", ");
        let more = match late.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let left = self.first.len();
        tracing::info!("still loading {left} of {count} plugins: {named}{more}");
    }

    fn look_within(&mut self, delay: Duration) {
        self.look_no_later(Instant::now() + delay);
    }

    fn look_no_later(&mut self, at: Instant) {
        self.look_at = Some(self.look_at.map_or(at, |already| already.min(at)));
    }

    /// Starts a job for each file whose content may be new, and drops what is gone.
    async fn look(&mut self) {
        // This look may come before the one that a file waits for.
        let now = Instant::now();
        let again = self.files.values().filter_map(|known| known.again_at);
        if let Some(at) = again.filter(|&at| at > now).min() {
            self.look_no_later(at);
        }
        self.watcher.refresh();
        let dir = self.dir.clone();
        let known: Vec<PathBuf> = self.files.keys().cloned().collect();
        let looked = tokio::task::spawn_blocking(move || look_at(&dir, known)).await;
        let (found, gone) = match looked {
            Ok(Ok(looked)) => looked,
            Ok(Err(error)) => return self.cannot_look(&error),
            Err(_) => return,
        };
        if self.unreadable {
            self.unreadable = false;
            tracing::info!("{} can be read again", self.dir.display());
        }
        // The directory's own fault.
        let mut removed = self.shelf.remove(&self.dir);
        for file in gone {
            self.files.remove(&file);
            removed |= self.remove(&file);
        }
        for (file, stamp) in found {
            let known = self.files.entry(file.clone()).or_default();
            let due = known.again_at.is_some_and(|at| at <= Instant::now());
            if known.job.is_none() && (due || known.stamp != Some(stamp)) {
                if !self.scanned {
                    known.loading = Some(loading(&file, Vec::new()));
                }
                let known_here = self.shelf.known_contents(&file);
                let job = load::read(self.workshop.clone(), file, stamp, known_here);
                known.job = Some(self.jobs.spawn(job).id());
            }
        }
        if removed {
            self.publish();
        }
    }

    fn cannot_look(&mut self, error: &io::Error) {
        if !self.unreadable {
            self.unreadable = true;
            let dir = self.dir.display();
            tracing::warn!("the plugins directory {dir} cannot be read; trying on: {error}");
            // Told where what is refused is told.
            let fault = Fault::new(format!("the plugins directory cannot be read: {error}"));
            self.shelf.reject(&self.dir, None, &[fault]);
            self.publish();
        }
    }

    fn remove(&mut self, file: &Path) -> bool {
        if let Some(gone) = self.shelf.serving(file) {
            let file = file.display();
            tracing::info!(plugin = %gone.name, version = gone.version, "{file} is gone; its tasks run out");
        }
        self.shelf.remove(file)
    }

    /// A job that panicked. Its file is tried again.
    fn lost(&mut self, error: &JoinError) {
        let job = error.id();
        self.first.remove(&job);
        let its = |(_, known): &(&PathBuf, &mut Known)| known.job == Some(job);
        let Some((file, known)) = self.files.iter_mut().find(its) else {
            return;
        };
        tracing::error!(
            "the node failed while it loaded {}: {error}",
            file.display()
        );
        let at = Instant::now() + RETRY;
        known.job = None;
        known.loading = None;
        known.again_at = Some(at);
        self.look_no_later(at);
    }

    fn take(&mut self, job: task::Id, done: Done, first: bool) {
        let first_of_all = self.first.remove(&job);
        let Some(known) = self.files.get_mut(&done.file) else {
            return;
        };
        if known.job != Some(job) {
            return;
        }
        let outcome = match done.outcome {
            Outcome::Read(wasm, task_types) => {
                known.loading = Some(loading(&done.file, task_types));
                let job = load::make(self.workshop.clone(), done.file, done.stamp, wasm);
                let job = self.jobs.spawn(job).id();
                known.job = Some(job);
                if first_of_all {
                    self.first.insert(job);
                }
                return;
            }
            outcome => outcome,
        };
        let age = done.stamp.age();
        if known.stamp != Some(done.stamp) {
            known.retry = None;
        }
        let again = match &outcome {
            Outcome::Unstable => Some(SETTLE),
            Outcome::Refused(..) if age < SETTLE && !first => Some(SETTLE),
            // It was not for its content; the reason may pass.
            Outcome::Refused(None, _) => {
                known.retry = Some(retry_after(known.retry));
                known.retry
            }
            _ => (age < CLOCK_TICK).then_some(CLOCK_TICK),
        };
        let unfinished = again == Some(SETTLE);
        known.job = None;
        known.loading = None;
        known.stamp = Some(done.stamp);
        known.again_at = again.map(|delay| Instant::now() + delay);
        if let Some(delay) = again {
            self.look_within(delay);
        }
        if unfinished {
            return;
        }
        match outcome {
            Outcome::Unstable | Outcome::Read(..) => {}
            Outcome::Same(sha256) => {
                self.shelf.restore(&done.file, &sha256);
            }
            Outcome::Made(generation) => self.shelf.put(&done.file, *generation),
            Outcome::Refused(sha256, faults) => {
                if self.shelf.reject(&done.file, sha256, &faults) {
                    self.report(&done.file);
                }
            }
        }
    }

    /// Brings the catalog to what the shelf says.
    fn publish(&mut self) {
        self.publish_at = None;
        // Until all that was there has been looked at, and this once more.
        let changed = self.shelf.settle(!self.scanned);
        let ended = !self.scanned && self.first.is_empty();
        self.scanned |= ended;
        let loading = self
            .files
            .values()
            .filter_map(|known| known.loading.clone());
        let view = self.shelf.view(loading.collect(), self.scanned);
        let same = self.catalog.view().is_same(&view);
        if same {
            return;
        }
        self.catalog.replace(view);
        self.changed.send_modify(|count| *count += 1);
        for file in changed {
            if self.shelf.rejection(&file).is_some() {
                self.report(&file);
            } else if let Some(serving) = self.shelf.serving(&file) {
                let file = file.display();
                let sha256 = &serving.sha256[..12];
                tracing::info!(plugin = %serving.name, version = serving.version, sha256, "{file} serves");
            }
        }
    }

    fn report(&self, file: &Path) {
        let Some(rejection) = self.shelf.rejection(file) else {
            return;
        };
        let error = &rejection.error;
        match self.shelf.serving(file) {
            Some(old) => tracing::warn!(
                "{} is refused, and {old:?} goes on serving: {error}",
                file.display()
            ),
            None => tracing::warn!("{} is refused: {error}", file.display()),
        }
    }
}

fn retry_after(last: Option<Duration>) -> Duration {
    last.map_or(RETRY, |last| MAX_RETRY.min(last * 2))
}

type Looked = (BTreeMap<PathBuf, Stamp>, Vec<PathBuf>);

fn look_at(dir: &Path, known: Vec<PathBuf>) -> io::Result<Looked> {
    let found = scan::plugin_files(dir)?;
    let gone = known
        .into_iter()
        .filter(|file| !found.contains_key(file) && scan::is_gone(file))
        .collect();
    Ok((found, gone))
}

fn loading(file: &Path, task_types: Vec<Name>) -> Loading {
    Loading {
        file: file.to_owned(),
        since: SystemTime::now(),
        task_types,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_again_and_again_is_tried_less_and_less() {
        let delays = std::iter::successors(Some(RETRY), |last| Some(retry_after(Some(*last))));
        let seconds: Vec<u64> = delays.map(|delay| delay.as_secs()).take(8).collect();
        assert_eq!(seconds, [10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(retry_after(None), RETRY);
    }
}
