//! Values that are read from files, and read again when the files change.

use crate::file_fingerprint::Fingerprint;
use parking_lot::Mutex;
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

/// How often files are checked for changes. Only their metadata is read, which costs next to nothing.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The files that a value is read from.
pub trait ReloadSource: Send + Sync + 'static {
    type Value: Send + Sync;
    type Error: fmt::Display;
    /// The name of the value in the log, such as "the tokens".
    const WHAT: &str;
    fn files(&self) -> Vec<&Path>;
    fn read(&self) -> Result<Self::Value, Self::Error>;
    /// Checks the value in force at every interval, whether or not its files have changed.
    fn check(_value: &Self::Value) {}
}

/// A value in force, and the state of its files when it was read.
pub struct Reloadable<S: ReloadSource> {
    current: watch::Sender<Arc<S::Value>>,
    latest: Mutex<Latest<S>>,
}

struct Latest<S> {
    source: S,
    fingerprints: Fingerprints,
}

/// The fingerprint of each file; `None` if it does not exist.
type Fingerprints = Vec<Option<Fingerprint>>;

impl<S: ReloadSource> Reloadable<S> {
    /// Reads the value for the first time.
    pub fn open(source: S) -> Result<Self, S::Error> {
        // Before reading, so that a change in between is noticed.
        let fingerprints = fingerprints(&source);
        let value = source.read()?;
        S::check(&value);
        Ok(Self {
            current: watch::Sender::new(Arc::new(value)),
            latest: Mutex::new(Latest {
                source,
                fingerprints,
            }),
        })
    }

    /// Reads from another `source` at once and from now on. Returns whether that succeeded; if not, the
    /// log says why, and the former value and source stay in force.
    pub fn reread(&self, source: S) -> bool {
        let mut latest = self.latest.lock();
        let fingerprints = fingerprints(&source);
        let is_read = self.read(&source);
        if is_read {
            *latest = Latest {
                source,
                fingerprints,
            };
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

    /// The value in force.
    pub fn current(&self) -> Arc<S::Value> {
        self.current.borrow().clone()
    }

    /// Changes whenever another value is in force.
    pub fn changes(&self) -> watch::Receiver<Arc<S::Value>> {
        self.current.subscribe()
    }
}

/// A value of any type that can be read again.
pub trait Reload: Send + Sync {
    /// Reads the value again if its files have changed. An error is logged once, and the former value
    /// stays in force.
    fn reload_if_changed(&self);
}

impl<S: ReloadSource> Reload for Reloadable<S> {
    fn reload_if_changed(&self) {
        let mut latest = self.latest.lock();
        let now = fingerprints(&latest.source);
        if latest.fingerprints != now {
            latest.fingerprints = now;
            self.read(&latest.source);
        }
        S::check(&self.current());
    }
}

/// Checks all `values` for changes, for ever.
pub async fn watch(values: Vec<Arc<dyn Reload>>) {
    if values.is_empty() {
        std::future::pending::<()>().await;
    }
    let values: Arc<[_]> = values.into();
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        let values = values.clone();
        // Blocking: a file on a network may be slow.
        let checked = tokio::task::spawn_blocking(move || {
            values.iter().for_each(|value| value.reload_if_changed());
        });
        if let Err(error) = checked.await {
            tracing::error!("checking certificates and tokens for changes failed: {error}");
        }
    }
}

fn fingerprints(source: &impl ReloadSource) -> Fingerprints {
    let files = source.files().into_iter();
    files.map(|file| Fingerprint::of(file).ok()).collect()
}

/// A problem with a file that a setting names.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {} {problem}", .file.display())]
pub struct FileError {
    pub setting: &'static str,
    pub file: PathBuf,
    pub problem: String,
}

impl FileError {
    pub fn new(setting: &'static str, file: &Path, problem: impl fmt::Display) -> Self {
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

    impl ReloadSource for Number {
        type Value = u32;
        type Error = FileError;
        const WHAT: &str = "the numbers";

        fn files(&self) -> Vec<&Path> {
            vec![&self.0]
        }

        fn read(&self) -> Result<u32, FileError> {
            let error = |problem: String| FileError::new("test.number", &self.0, problem);
            let text = fs::read_to_string(&self.0).map_err(|io| error(io.to_string()))?;
            text.parse().map_err(|_| error("is not a number".into()))
        }
    }

    #[test]
    fn every_change_of_a_file_is_noticed_and_a_broken_file_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let file = path("number");
        let error = Reloadable::open(Number(file.clone())).err().unwrap();
        assert!(error.to_string().starts_with("test.number: /"), "{error}");

        fs::write(&file, "1").unwrap();
        let value = Reloadable::open(Number(file.clone())).unwrap();
        let now = || {
            value.reload_if_changed();
            *value.current()
        };
        assert_eq!(now(), 1);
        fs::write(&file, "22").unwrap();
        assert_eq!(now(), 22);
        fs::write(&file, "none").unwrap();
        assert_eq!(now(), 22);
        fs::remove_file(&file).unwrap();
        assert_eq!(now(), 22);
        // Renamed into place, with the size and the time of the file before.
        fs::write(&file, "33").unwrap();
        assert_eq!(now(), 33);
        let written = fs::metadata(&file).unwrap().modified().unwrap();
        fs::write(path("next"), "44").unwrap();
        let next = fs::File::options().append(true).open(path("next")).unwrap();
        next.set_modified(written).unwrap();
        fs::rename(path("next"), &file).unwrap();
        assert_eq!(now(), 44);
        // Behind a symlink that changes, as Kubernetes does it.
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
