//! The files of the plugins directory, and fingerprints that tell one content of a file from the next
//! without reading it.

use std::{
    collections::BTreeMap,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
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
    /// Follows links, so that a swapped link is a change.
    pub fn of(file: &Path) -> io::Result<Self> {
        Ok(Self::from(&fs::metadata(file)?))
    }

    /// Whether `file` still has this fingerprint.
    pub fn matches(&self, file: &Path) -> bool {
        Self::of(file).is_ok_and(|now| now == *self)
    }

    /// How long ago the file was changed; zero if the clocks disagree.
    pub fn age(&self) -> Duration {
        let (seconds, nanoseconds) = self.changed;
        let since = Duration::new(
            u64::try_from(seconds).unwrap_or(0),
            u32::try_from(nanoseconds).unwrap_or(0),
        );
        SystemTime::now()
            .duration_since(UNIX_EPOCH + since)
            .unwrap_or_default()
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

/// The `*.wasm` files directly in `dir`, without hidden ones. The case of the extension does not
/// matter.
pub fn plugin_files(dir: &Path) -> io::Result<BTreeMap<PathBuf, Fingerprint>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let file = entry?.path();
        let name = file.file_name().unwrap_or_default().as_encoded_bytes();
        if name.starts_with(b".") || !name.to_ascii_lowercase().ends_with(b".wasm") {
            continue;
        }
        // Excludes broken links and files that have just gone; reading a pipe would block.
        if let Ok(metadata) = fs::metadata(&file)
            && metadata.is_file()
        {
            found.insert(file, Fingerprint::from(&metadata));
        }
    }
    Ok(found)
}

/// Whether `file` is certainly gone. A listing alone can miss a file that is being renamed.
pub fn is_gone(file: &Path) -> bool {
    fs::metadata(file).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// The device and inode of `dir`, which tell it from a directory that took its place.
pub fn identity(dir: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(dir).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_wasm_files_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let names = ["b.wasm", "a.wasm", "RATES.WASM"];
        for name in names
            .into_iter()
            .chain([".hidden.wasm", "c.wasm.tmp", "d.txt"])
        {
            fs::write(path(name), "x").unwrap();
        }
        fs::create_dir(path("dir.wasm")).unwrap();
        std::os::unix::fs::symlink(path("b.wasm"), path("link.wasm")).unwrap();
        std::os::unix::fs::symlink("nowhere", path("broken.wasm")).unwrap();
        let found: Vec<_> = plugin_files(dir.path()).unwrap().into_keys().collect();
        assert_eq!(
            found,
            ["RATES.WASM", "a.wasm", "b.wasm", "link.wasm"].map(path)
        );
        assert!(is_gone(&path("nothing.wasm")) && !is_gone(&path("a.wasm")));
    }

    #[test]
    fn a_write_and_a_swapped_link_change_the_fingerprint() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("a"), "1").unwrap();
        fs::write(path("b"), "1").unwrap();
        std::os::unix::fs::symlink(path("a"), path("link")).unwrap();
        let first = Fingerprint::of(&path("link")).unwrap();
        assert_eq!(first, Fingerprint::of(&path("a")).unwrap());
        assert!(first.age() < Duration::from_secs(60));
        fs::write(path("a"), "12").unwrap();
        let second = Fingerprint::of(&path("link")).unwrap();
        assert_ne!(first, second);
        fs::remove_file(path("link")).unwrap();
        std::os::unix::fs::symlink(path("b"), path("link")).unwrap();
        assert_ne!(second, Fingerprint::of(&path("link")).unwrap());
    }
}
