//! Values that are read from files and read again when these change. Knows neither certificates nor
//! tokens; `tls` and `auth` do.

use std::{
    fmt,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// How often the files are looked at. Their metadata only, so often costs nothing.
const LOOK: Duration = Duration::from_secs(1);

/// Where a value comes from.
pub trait Source: Send + Sync + 'static {
    type Value: Send + Sync;
    type Error: fmt::Display;
    /// For the log, such as "the tokens".
    const WHAT: &str;
    fn files(&self) -> Vec<&Path>;
    fn read(&self) -> Result<Self::Value, Self::Error>;
    /// Looks at a value in force, whether or not its files have changed.
    fn check(_value: &Self::Value) {}
}

/// The value in force, and what its files looked like when it was read.
pub struct Watched<S: Source> {
    current: watch::Sender<Arc<S::Value>>,
    seen: Mutex<Seen<S>>,
}

struct Seen<S> {
    source: S,
    stamps: Vec<Stamp>,
}

/// What changes with a file's content. The time of its last change of any kind is among it, since a
/// copy can keep the time of its writing; `None` where there is no file.
type Stamp = Option<(i64, i64, i64, i64, u64, u64, u64)>;

impl<S: Source> Watched<S> {
    pub fn open(source: S) -> Result<Self, S::Error> {
        // Before it is read: a change in between is then seen as one.
        let stamps = stamps(&source);
        let value = source.read()?;
        S::check(&value);
        Ok(Self {
            current: watch::Sender::new(Arc::new(value)),
            seen: Mutex::new(Seen { source, stamps }),
        })
    }

    /// Reads from `source` from now on, and at once. Whether that is in force now; if not, the log
    /// says why, and what was in force is still.
    pub fn reread(&self, source: S) -> bool {
        let mut seen = self.seen();
        let stamps = stamps(&source);
        let is_read = self.read(&source);
        if is_read {
            *seen = Seen { source, stamps };
        }
        is_read
    }

    fn read(&self, source: &S) -> bool {
        match source.read() {
            Ok(value) => {
                self.current.send_replace(Arc::new(value));
                tracing::info!("{} were read again and are in force", S::WHAT);
                true
            }
            Err(error) => {
                tracing::warn!("{error}; {} from before stay in force", S::WHAT);
                false
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen<S>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn current(&self) -> Arc<S::Value> {
        self.current.borrow().clone()
    }

    /// Changes whenever another value has come into force.
    pub fn changes(&self) -> watch::Receiver<Arc<S::Value>> {
        self.current.subscribe()
    }
}

/// Something whose files can be looked at.
pub trait Look: Send + Sync {
    /// Reads what has changed. What is broken is told once, and leaves in force what was.
    fn look(&self);
}

impl<S: Source> Look for Watched<S> {
    fn look(&self) {
        let mut seen = self.seen();
        let now = stamps(&seen.source);
        if seen.stamps != now {
            seen.stamps = now;
            self.read(&seen.source);
        }
        S::check(&self.current());
    }
}

/// Looks at all of `parts` for ever.
pub async fn watch(parts: Vec<Arc<dyn Look>>) {
    if parts.is_empty() {
        std::future::pending::<()>().await;
    }
    let parts: Arc<[_]> = parts.into();
    loop {
        tokio::time::sleep(LOOK).await;
        let parts = parts.clone();
        // A file on a network can take its time.
        let looked = tokio::task::spawn_blocking(move || parts.iter().for_each(|part| part.look()));
        if let Err(error) = looked.await {
            tracing::error!("looking at certificates and tokens failed: {error}");
        }
    }
}

fn stamps(source: &impl Source) -> Vec<Stamp> {
    source.files().into_iter().map(stamp).collect()
}

fn stamp(file: &Path) -> Stamp {
    let data = std::fs::metadata(file).ok()?;
    Some((
        data.mtime(),
        data.mtime_nsec(),
        data.ctime(),
        data.ctime_nsec(),
        data.len(),
        data.dev(),
        data.ino(),
    ))
}

/// A file that a setting names, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {} {problem}", .file.display())]
pub struct Unusable {
    pub setting: &'static str,
    pub file: PathBuf,
    pub problem: String,
}

impl Unusable {
    pub fn of(setting: &'static str, file: &Path, problem: impl fmt::Display) -> Self {
        Self {
            setting,
            file: file.to_owned(),
            problem: problem.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Number(PathBuf);

    impl Source for Number {
        type Value = u32;
        type Error = Unusable;
        const WHAT: &str = "the numbers";

        fn files(&self) -> Vec<&Path> {
            vec![&self.0]
        }

        fn read(&self) -> Result<u32, Unusable> {
            let unusable = |problem: String| Unusable::of("test.number", &self.0, problem);
            let text = fs::read_to_string(&self.0).map_err(|error| unusable(error.to_string()))?;
            text.parse().map_err(|_| unusable("is no number".into()))
        }
    }

    #[test]
    fn every_way_to_change_a_file_is_seen_and_a_broken_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let file = path("number");
        let told = Watched::open(Number(file.clone())).err().unwrap();
        assert!(told.to_string().starts_with("test.number: /"), "{told}");

        fs::write(&file, "1").unwrap();
        let watched = Watched::open(Number(file.clone())).unwrap();
        let now = || {
            watched.look();
            *watched.current()
        };
        assert_eq!(now(), 1);
        fs::write(&file, "22").unwrap();
        assert_eq!(now(), 22);
        fs::write(&file, "none").unwrap();
        assert_eq!(now(), 22);
        fs::remove_file(&file).unwrap();
        assert_eq!(now(), 22);
        // Put into place by a rename, as long as the one before and as old.
        fs::write(&file, "33").unwrap();
        assert_eq!(now(), 33);
        let written = fs::metadata(&file).unwrap().modified().unwrap();
        fs::write(path("next"), "44").unwrap();
        let next = fs::File::options().append(true).open(path("next")).unwrap();
        next.set_modified(written).unwrap();
        fs::rename(path("next"), &file).unwrap();
        assert_eq!(now(), 44);
        // Behind a symlink that is turned, as Kubernetes does it.
        fs::write(path("a"), "5").unwrap();
        fs::write(path("b"), "6").unwrap();
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink(path("a"), &file).unwrap();
        assert_eq!(now(), 5);
        std::os::unix::fs::symlink(path("b"), path("turned")).unwrap();
        fs::rename(path("turned"), &file).unwrap();
        assert_eq!(now(), 6);
    }
}
