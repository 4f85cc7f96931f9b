//! Fingerprints that tell one content of a file from the next without reading it.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A fingerprint of a file's content. It changes with the content, unless two changes fall into one
/// tick of the file system's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    /// Unlike `modified`, this cannot be set back.
    changed: (i64, i64),
}

impl Fingerprint {
    /// The fingerprint of a file. Follows links, so that a swapped link is a change.
    pub fn of(file: &Path) -> io::Result<Self> {
        Ok(Self::from(&fs::metadata(file)?))
    }

    /// Whether `file` still has this fingerprint.
    pub fn matches(&self, file: &Path) -> bool {
        Self::of(file).is_ok_and(|now| now == *self)
    }

    /// How long before `now` the file was changed; zero if the clock of its file system is ahead, however
    /// long ago it was changed.
    pub fn age_at(&self, now: SystemTime) -> Duration {
        let (seconds, nanoseconds) = self.changed;
        let since = Duration::new(
            u64::try_from(seconds).unwrap_or(0),
            u32::try_from(nanoseconds).unwrap_or(0),
        );
        now.duration_since(UNIX_EPOCH + since).unwrap_or_default()
    }
}

impl From<&Metadata> for Fingerprint {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_and_a_swapped_link_change_the_fingerprint() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("a"), "1").unwrap();
        fs::write(path("b"), "1").unwrap();
        std::os::unix::fs::symlink(path("a"), path("link")).unwrap();
        let first = Fingerprint::of(&path("link")).unwrap();
        assert_eq!(first, Fingerprint::of(&path("a")).unwrap());
        let now = SystemTime::now();
        assert!(first.age_at(now) < Duration::from_secs(60));
        let minute = Duration::from_secs(60);
        assert!(first.age_at(now + minute) >= minute);
        assert_eq!(first.age_at(now - minute), Duration::ZERO);
        fs::write(path("a"), "12").unwrap();
        let second = Fingerprint::of(&path("link")).unwrap();
        assert_ne!(first, second);
        fs::remove_file(path("link")).unwrap();
        std::os::unix::fs::symlink(path("b"), path("link")).unwrap();
        assert_ne!(second, Fingerprint::of(&path("link")).unwrap());
    }
}
