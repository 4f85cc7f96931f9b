//! The one task that changes the catalog: looks through the plugins directory, has generations made
//! of what changed, and swaps them in. Whatever goes wrong with a file, what serves goes on serving.

use super::{
    Fault,
    catalog::Catalog,
    generation::Generation,
    scan::{self, Stamp},
    shelf::Shelf,
    watcher::Watcher,
    workshop::Workshop,
};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Notify, oneshot, watch},
    task::JoinSet,
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

pub struct Loader {
    dir: PathBuf,
    rescan: Duration,
    /// How long a start waits for the plugins that are there.
    patience: Duration,
    workshop: Arc<Workshop>,
    catalog: Arc<Catalog>,
    changed: watch::Sender<u64>,
    shelf: Shelf,
    files: BTreeMap<PathBuf, Known>,
    jobs: JoinSet<Done>,
    next_job: u64,
    wake: Arc<Notify>,
    watcher: Watcher,
    /// When to look again, besides the regular looks.
    look_at: Option<Instant>,
    unreadable: bool,
}

#[derive(Default)]
struct Known {
    /// Of the content that was dealt with.
    stamp: Option<Stamp>,
    /// When to read it again all the same.
    again_at: Option<Instant>,
    /// How long the last try for a reason that may pass was put off, while the content stays.
    retry: Option<Duration>,
    /// The job that is reading it.
    job: Option<u64>,
}

struct Done {
    job: u64,
    file: PathBuf,
    stamp: Stamp,
    outcome: Outcome,
}

enum Outcome {
    /// It changed while it was read.
    Unstable,
    /// This content is served, or was refused before.
    Same(String),
    Made(Box<Generation>),
    Refused(Option<String>, Vec<Fault>),
}

impl Loader {
    pub fn new(
        dir: PathBuf,
        rescan: Duration,
        patience: Duration,
        workshop: Arc<Workshop>,
        catalog: Arc<Catalog>,
        changed: watch::Sender<u64>,
    ) -> Self {
        let wake = Arc::new(Notify::new());
        Self {
            watcher: Watcher::new(dir.clone(), rescan, wake.clone()),
            dir,
            rescan,
            patience,
            workshop,
            catalog,
            changed,
            shelf: Shelf::default(),
            files: BTreeMap::new(),
            jobs: JoinSet::new(),
            next_job: 0,
            wake,
            look_at: None,
            unreadable: false,
        }
    }

    /// Loads what is there, as far as `patience` allows, says so through `ready`, then follows the
    /// directory until `stop`.
    pub async fn run(mut self, stop: CancellationToken, ready: oneshot::Sender<()>) {
        let first = async {
            self.look().await;
            // All together, so that file names decide who comes first and not compile times. A
            // file that takes longer than the node can wait comes after all of these.
            let until = Instant::now() + self.patience;
            loop {
                match tokio::time::timeout_at(until, self.jobs.join_next()).await {
                    Ok(Some(done)) => self.take(done, true),
                    Ok(None) => break,
                    Err(_) => {
                        self.name_the_late();
                        break;
                    }
                }
            }
            self.publish();
        };
        if stop.run_until_cancelled(first).await.is_none() {
            return;
        }
        // Whoever waits for it may have gone.
        let _ = ready.send(());
        let mut regular = tokio::time::interval(self.rescan.max(Duration::from_millis(10)));
        regular.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let look_at = self.look_at;
            tokio::select! {
                () = stop.cancelled() => return,
                Some(done) = self.jobs.join_next() => {
                    self.take(done, false);
                    self.publish();
                    // It may have changed again meanwhile.
                    self.look_within(Duration::ZERO);
                }
                () = self.wake.notified() => self.look_within(DEBOUNCE),
                _ = regular.tick() => self.look().await,
                () = tokio::time::sleep_until(look_at.unwrap_or_else(Instant::now)),
                    if look_at.is_some() =>
                {
                    self.look_at = None;
                    self.look().await;
                }
            }
        }
    }

    fn name_the_late(&self) {
        let late = self.files.iter().filter(|(_, known)| known.job.is_some());
        let late: Vec<_> = late
            .map(|(file, _)| file.file_name().unwrap_or_default().to_string_lossy())
            .collect();
        tracing::warn!(
            "serving without plugins that take longer than {} ms to load; they serve once they are \
             loaded, if no other plugin has their names by then: {}",
            self.patience.as_millis(),
            late.join(", ")
        );
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
                self.next_job += 1;
                known.job = Some(self.next_job);
                let known_here = self.shelf.known_contents(&file);
                let job = read(
                    self.workshop.clone(),
                    self.next_job,
                    file,
                    stamp,
                    known_here,
                );
                self.jobs.spawn(job);
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

    fn take(&mut self, done: Result<Done, tokio::task::JoinError>, first: bool) {
        let Ok(done) = done else { return };
        let Some(known) = self.files.get_mut(&done.file) else {
            return;
        };
        if known.job != Some(done.job) {
            return;
        }
        let age = done.stamp.age();
        if known.stamp != Some(done.stamp) {
            known.retry = None;
        }
        let again = match &done.outcome {
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
        known.stamp = Some(done.stamp);
        known.again_at = again.map(|delay| Instant::now() + delay);
        if let Some(delay) = again {
            self.look_within(delay);
        }
        if unfinished {
            return;
        }
        match done.outcome {
            Outcome::Unstable => {}
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
        let changed = self.shelf.settle();
        let view = self.shelf.view();
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

async fn read(
    workshop: Arc<Workshop>,
    job: u64,
    file: PathBuf,
    stamp: Stamp,
    known: Vec<String>,
) -> Done {
    let outcome = read_one(&workshop, &file, stamp, &known).await;
    Done {
        job,
        file,
        stamp,
        outcome,
    }
}

async fn read_one(
    workshop: &Arc<Workshop>,
    file: &Path,
    stamp: Stamp,
    known: &[String],
) -> Outcome {
    let (reader, path) = (workshop.clone(), file.to_owned());
    let reading = tokio::task::spawn_blocking(move || {
        let wasm = reader.read(&path);
        let stable = Stamp::of(&path).is_ok_and(|after| after == stamp);
        (wasm, stable)
    });
    let Ok((wasm, stable)) = reading.await else {
        return Outcome::Unstable;
    };
    match wasm {
        _ if !stable => Outcome::Unstable,
        Err(fault) => Outcome::Refused(None, vec![fault]),
        Ok(wasm) if known.contains(&wasm.sha256) => Outcome::Same(wasm.sha256),
        Ok(wasm) => {
            let sha256 = wasm.sha256.clone();
            match workshop.make(file, wasm).await {
                Ok(generation) => Outcome::Made(Box::new(generation)),
                Err(faults) => {
                    let lasting = !faults.iter().any(Fault::may_pass);
                    Outcome::Refused(lasting.then_some(sha256), faults)
                }
            }
        }
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
