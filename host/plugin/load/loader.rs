//! The one task that changes the catalog: scans the plugins directory, has generations made of the
//! files that changed, and swaps them in. If a file is refused, what serves goes on serving.

use super::{
    builder::Builder,
    job::{self, Done, Outcome},
    registry::Registry,
    scan,
    watcher::Watcher,
};
use crate::{
    catalog::{Catalog, Loading},
    diagnostic::Diagnostic,
};
use hostel_runtime::file_fingerprint::Fingerprint;
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

/// The delay from a change event to the scan of the directory, so that one scan serves many events.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// A file that was written to more recently may be unfinished: its diagnostics are not reported yet.
const SETTLE: Duration = Duration::from_millis(250);
/// A fingerprint taken sooner after a change may hide a second change.
const CLOCK_TICK: Duration = Duration::from_secs(1);
/// The delay before a file is retried that was refused for a reason that may pass. It doubles with
/// each further try, since a try can take all of its time limit.
const RETRY: Duration = Duration::from_secs(10);
const MAX_RETRY: Duration = Duration::from_secs(600);

/// While a node starts, how long a loaded plugin may wait to be published together with the next.
const PUBLISH: Duration = Duration::from_millis(100);
/// How often a long start logs its progress.
const PROGRESS: Duration = Duration::from_secs(5);
/// How many files the line names.
const NAMED: usize = 5;

/// Follows the plugins directory.
pub struct Loader {
    dir: PathBuf,
    rescan: Duration,
    builder: Arc<Builder>,
    catalog: Arc<Catalog>,
    changed: watch::Sender<u64>,
    registry: Registry,
    files: BTreeMap<PathBuf, FileState>,
    jobs: JoinSet<Done>,
    wake: Arc<Notify>,
    watcher: Watcher,
    /// When to scan again, besides the regular scans.
    scan_at: Option<Instant>,
    unreadable: bool,
    /// The jobs of the first scan that are not done.
    first_jobs: HashSet<task::Id>,
    scanned: bool,
    /// When to publish what has been loaded.
    publish_at: Option<Instant>,
    /// The system's clock, which a file's time of change is compared with.
    clock: fn() -> SystemTime,
}

#[derive(Default)]
struct FileState {
    /// The latest fingerprint that a scan has found, and when it first did.
    seen: Option<(Fingerprint, Instant)>,
    /// The fingerprint of the content that was loaded or refused.
    fingerprint: Option<Fingerprint>,
    /// When to read it again even if it has not changed.
    again_at: Option<Instant>,
    /// The latest retry delay of this content.
    retry: Option<Duration>,
    /// The job that is reading or loading it.
    job: Option<task::Id>,
    /// The job as the catalog shows it; `None` while it may turn out that the content serves already.
    loading: Option<Loading>,
}

impl FileState {
    /// For how long the file has had this fingerprint at least. A file system whose clock is ahead shows
    /// no age, so the time for which scans have found the fingerprint counts as well.
    fn age(&self, fingerprint: Fingerprint, now: SystemTime) -> Duration {
        let seen = self.seen.filter(|(seen, _)| *seen == fingerprint);
        let seen = seen.map_or(Duration::ZERO, |(_, since)| since.elapsed());
        fingerprint.age_at(now).max(seen)
    }
}

impl Loader {
    /// Creates a loader that begins with what the catalog has: after a loader that panicked, its successor
    /// goes on serving the same generations.
    pub fn new(
        dir: PathBuf,
        rescan: Duration,
        builder: Arc<Builder>,
        catalog: Arc<Catalog>,
        changed: watch::Sender<u64>,
    ) -> Self {
        let wake = Arc::new(Notify::new());
        let view = catalog.view();
        let registry = Registry::of(&view);
        // Known before the first scan, so that it notices which of them are gone.
        let files = registry.files().filter(|file| **file != dir);
        let files = files.map(|file| (file.clone(), FileState::default()));
        Self {
            files: files.collect(),
            watcher: Watcher::new(dir.clone(), rescan, wake.clone()),
            dir,
            rescan,
            builder,
            catalog,
            changed,
            registry,
            jobs: JoinSet::new(),
            wake,
            scan_at: None,
            unreadable: false,
            first_jobs: HashSet::new(),
            scanned: view.scanned,
            publish_at: None,
            clock: SystemTime::now,
        }
    }

    /// Scans the directory, signals `begun`, loads the plugins and follows the directory until `stop`.
    pub async fn run(mut self, stop: CancellationToken, begun: Option<oneshot::Sender<()>>) {
        if stop.run_until_cancelled(self.scan()).await.is_none() {
            return;
        }
        if !self.scanned {
            self.first_jobs = self.files.values().filter_map(|known| known.job).collect();
        }
        if !self.first_jobs.is_empty() {
            let dir = self.dir.display();
            tracing::info!("loading {} plugins from {dir}", self.first_jobs.len());
        }
        let count = self.first_jobs.len();
        self.publish();
        // The receiver may be gone.
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
                () = self.wake.notified() => self.scan_within(DEBOUNCE),
                _ = regular.tick() => self.scan().await,
                _ = progress.tick(), if !self.scanned => self.log_progress(count),
                () = at(self.publish_at), if self.publish_at.is_some() => self.publish(),
                () = at(self.scan_at), if self.scan_at.is_some() => {
                    self.scan_at = None;
                    self.scan().await;
                }
            }
        }
    }

    fn done(&mut self, done: Result<(task::Id, Done), JoinError>) {
        let starting = !self.scanned;
        match done {
            Ok((job, done)) => self.take(job, done, starting),
            Err(error) => self.job_panicked(&error),
        }
        if starting && !self.first_jobs.is_empty() {
            // Publishing each of a thousand plugins by itself would take longer than loading them.
            let at = Instant::now() + PUBLISH;
            self.publish_at.get_or_insert(at);
        } else {
            self.publish();
        }
        if !starting {
            // The file may have changed again meanwhile.
            self.scan_within(Duration::ZERO);
        }
    }

    fn log_progress(&self, count: usize) {
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
        let left = self.first_jobs.len();
        tracing::info!("still loading {left} of {count} plugins: {named}{more}");
    }

    fn scan_within(&mut self, delay: Duration) {
        self.scan_no_later(Instant::now() + delay);
    }

    fn scan_no_later(&mut self, at: Instant) {
        self.scan_at = Some(self.scan_at.map_or(at, |already| already.min(at)));
    }

    /// Starts a job for each file whose content may be new, and drops the files that are gone.
    async fn scan(&mut self) {
        // This scan may come before the time at which a file is to be retried.
        let now = Instant::now();
        let retries = self.files.values().filter_map(|known| known.again_at);
        if let Some(at) = retries.filter(|&at| at > now).min() {
            self.scan_no_later(at);
        }
        self.watcher.refresh();
        let dir = self.dir.clone();
        let known: Vec<PathBuf> = self.files.keys().cloned().collect();
        let scanned = tokio::task::spawn_blocking(move || scan_files(&dir, known)).await;
        let Scanned { found, gone } = match scanned {
            Ok(Ok(scanned)) => scanned,
            Ok(Err(error)) => return self.cannot_scan(&error),
            Err(_) => return,
        };
        if self.unreadable {
            self.unreadable = false;
            tracing::info!("{} can be read again", self.dir.display());
        }
        // The diagnostic of the directory itself, if it had one.
        let mut removed = self.registry.remove(&self.dir);
        for file in gone {
            self.files.remove(&file);
            removed |= self.remove(&file);
        }
        for (file, fingerprint) in found {
            let known = self.files.entry(file.clone()).or_default();
            if known.seen.is_none_or(|(seen, _)| seen != fingerprint) {
                known.seen = Some((fingerprint, Instant::now()));
            }
            let due = known.again_at.is_some_and(|at| at <= Instant::now());
            if known.job.is_none() && (due || known.fingerprint != Some(fingerprint)) {
                if !self.scanned {
                    known.loading = Some(loading(&file, Vec::new()));
                }
                let known_here = self.registry.known_contents(&file);
                let job = job::read(self.builder.clone(), file, fingerprint, known_here);
                known.job = Some(self.jobs.spawn(job).id());
            }
        }
        if removed {
            self.publish();
        }
    }

    fn cannot_scan(&mut self, error: &io::Error) {
        if !self.unreadable {
            self.unreadable = true;
            let dir = self.dir.display();
            tracing::warn!("the plugins directory {dir} cannot be read; trying again: {error}");
            // Listed with the refused files.
            let diagnostic =
                Diagnostic::new(format!("the plugins directory cannot be read: {error}"));
            self.registry.reject(&self.dir, None, &[diagnostic]);
            self.publish();
        }
    }

    fn remove(&mut self, file: &Path) -> bool {
        if let Some(gone) = self.registry.serving(file) {
            let file = file.display();
            tracing::info!(plugin = %gone.name, version = gone.version, "{file} is gone; its running tasks finish");
        }
        self.registry.remove(file)
    }

    /// Retries the file of a job that panicked.
    fn job_panicked(&mut self, error: &JoinError) {
        let job = error.id();
        self.first_jobs.remove(&job);
        let its = |(_, known): &(&PathBuf, &mut FileState)| known.job == Some(job);
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
        self.scan_no_later(at);
    }

    fn take(&mut self, job: task::Id, done: Done, starting: bool) {
        let is_first = self.first_jobs.remove(&job);
        let Some(known) = self.files.get_mut(&done.file) else {
            return;
        };
        if known.job != Some(job) {
            return;
        }
        let outcome = match done.outcome {
            Outcome::Read(wasm, task_types) => {
                known.loading = Some(loading(&done.file, task_types));
                let job = job::make(self.builder.clone(), done.file, done.fingerprint, wasm);
                let job = self.jobs.spawn(job).id();
                known.job = Some(job);
                if is_first {
                    self.first_jobs.insert(job);
                }
                return;
            }
            outcome => outcome,
        };
        let age = known.age(done.fingerprint, (self.clock)());
        if known.fingerprint != Some(done.fingerprint) {
            known.retry = None;
        }
        let again = match &outcome {
            Outcome::Unstable => Some(SETTLE),
            Outcome::Refused(..) if age < SETTLE && !starting => Some(SETTLE),
            // Refused for a reason that may pass.
            Outcome::Refused(None, _) => {
                known.retry = Some(retry_after(known.retry));
                known.retry
            }
            _ => (age < CLOCK_TICK).then_some(CLOCK_TICK),
        };
        let unfinished = again == Some(SETTLE);
        known.job = None;
        known.loading = None;
        known.fingerprint = Some(done.fingerprint);
        known.again_at = again.map(|delay| Instant::now() + delay);
        if let Some(delay) = again {
            self.scan_within(delay);
        }
        if unfinished {
            return;
        }
        match outcome {
            Outcome::Unstable | Outcome::Read(..) => {}
            Outcome::Same(sha256) => self.registry.restore(&done.file, &sha256),
            Outcome::Made(generation) => self.registry.insert(&done.file, *generation),
            Outcome::Refused(sha256, diagnostics) => {
                if self.registry.reject(&done.file, sha256, &diagnostics) {
                    self.report(&done.file);
                }
            }
        }
    }

    /// Makes the catalog match the registry.
    fn publish(&mut self) {
        self.publish_at = None;
        // Up to and including the publication that ends the first scan.
        let changed = self.registry.resolve(!self.scanned);
        let ended = !self.scanned && self.first_jobs.is_empty();
        self.scanned |= ended;
        let loading = self
            .files
            .values()
            .filter_map(|known| known.loading.clone());
        let view = self.registry.view(loading.collect(), self.scanned);
        let same = self.catalog.view().is_same(&view);
        if same {
            return;
        }
        self.catalog.replace(view);
        self.changed.send_modify(|count| *count += 1);
        for file in changed {
            if self.registry.rejection(&file).is_some() {
                self.report(&file);
            } else if let Some(serving) = self.registry.serving(&file) {
                let file = file.display();
                let sha256 = &serving.sha256[..12];
                tracing::info!(plugin = %serving.name, version = serving.version, sha256, "{file} serves");
            }
        }
    }

    fn report(&self, file: &Path) {
        let Some(rejection) = self.registry.rejection(file) else {
            return;
        };
        let error = &rejection.error;
        match self.registry.serving(file) {
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

struct Scanned {
    found: BTreeMap<PathBuf, Fingerprint>,
    gone: Vec<PathBuf>,
}

fn scan_files(dir: &Path, known: Vec<PathBuf>) -> io::Result<Scanned> {
    let found = scan::plugin_files(dir)?;
    let gone = known
        .into_iter()
        .filter(|file| !found.contains_key(file) && scan::is_gone(file))
        .collect();
    Ok(Scanned { found, gone })
}

fn loading(file: &Path, task_types: Vec<Name>) -> Loading {
    Loading {
        file: file.to_owned(),
        since: SystemTime::now(),
        task_types,
    }
}

#[cfg(test)]
mod tests;
