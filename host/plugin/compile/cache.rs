//! The cache of compiled plugins on disk, so that a node starts without its compiler, and of the task
//! types that each declares. Artifacts are keyed by the wasm's sha256 and the engine's compatibility
//! hash, and carry a checksum; task types are keyed by the sha256 alone, so that they are known while
//! a new engine compiles. An entry that cannot be read is made anew.

use crate::sandbox::engine_config;
use hostel_runtime::atomic_file::{self, TEMPORARY};
use hostel_task::Name;
use sha2::{Digest, Sha256};
use std::{
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};
use wasmtime::{Engine, component::Component};

const MAGIC: &[u8; 8] = b"hostel01";
const CHECKSUM_BYTES: usize = 32;
/// If the cache is larger, the least recently used entries are evicted.
const MAX_CACHE_BYTES: u64 = 512 << 20;
/// The largest artifact that a compile process may write.
pub const MAX_ARTIFACT_BYTES: u64 = MAX_CACHE_BYTES;

pub struct Cache {
    dir: PathBuf,
    engine_key: u64,
}

impl Cache {
    /// Creates `dir` if it is missing, private to the user.
    pub fn open(dir: PathBuf, engine: &Engine) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        // Write access to it is the right to run code in the node.
        fs::set_permissions(&dir, Permissions::from_mode(0o700))?;
        Ok(Self {
            dir,
            engine_key: engine_config::key(engine),
        })
    }

    /// The component of the wasm with `sha256`, if it was compiled before.
    pub fn get(&self, engine: &Engine, sha256: &str) -> Option<Component> {
        let path = self.path(sha256);
        let entry = fs::read(&path).ok()?;
        let compiled = checked(&entry)?;
        // Sound: `put` wrote it into a directory that only this user can write, for an engine with
        // the same compatibility hash, and the checksum matches.
        let component = load(engine, compiled).ok()?;
        // Eviction goes by this time; if it cannot be set, the entry may be compiled again.
        let _ = File::options()
            .append(true)
            .open(&path)
            .and_then(|file| file.set_modified(SystemTime::now()));
        Some(component)
    }

    /// Stores the artifact `compiled`.
    pub fn put(&self, sha256: &str, compiled: &[u8]) -> io::Result<()> {
        let checksum = Sha256::digest(compiled);
        let path = self.path(sha256);
        atomic_file::write(&path, &[MAGIC, &checksum, compiled])?;
        self.evict(MAX_CACHE_BYTES, &path)
    }

    /// The task types of the wasm with `sha256` when it was last loaded; none if it never was.
    pub fn task_types(&self, sha256: &str) -> Vec<Name> {
        let stored = fs::read_to_string(self.types_path(sha256)).unwrap_or_default();
        let names = stored.lines().map(|name| Name::parse("task type", name));
        names.flatten().collect()
    }

    /// Stores what `task_types` returns.
    pub fn put_task_types(&self, sha256: &str, task_types: &[Name]) -> io::Result<()> {
        if self.task_types(sha256) == task_types {
            return Ok(());
        }
        let names: Vec<&str> = task_types.iter().map(Name::as_str).collect();
        atomic_file::write(&self.types_path(sha256), &[names.join("\n").as_bytes()])
    }

    /// Removes the oldest entries until the rest fits, and the temporary files of a crash.
    fn evict(&self, max_bytes: u64, keep: &Path) -> io::Result<()> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if let Ok(metadata) = entry.metadata() {
                entries.push((metadata.modified()?, metadata.len(), entry.path()));
            }
        }
        entries.sort();
        let mut total: u64 = entries.iter().map(|(_, bytes, _)| bytes).sum();
        for (modified, bytes, path) in entries {
            let abandoned = path.extension().is_some_and(|end| end == TEMPORARY)
                && modified.elapsed().is_ok_and(|age| age.as_secs() > 600);
            if (total > max_bytes || abandoned) && path != keep {
                match fs::remove_file(&path) {
                    // Another compilation has evicted it meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    removed => removed?,
                }
                total -= bytes;
            }
        }
        Ok(())
    }

    fn types_path(&self, sha256: &str) -> PathBuf {
        self.dir.join(format!("{sha256}.types"))
    }

    fn path(&self, sha256: &str) -> PathBuf {
        self.dir
            .join(format!("{sha256}-{:016x}.cwasm", self.engine_key))
    }
}

/// Loads an artifact. Only for artifacts that a compile process of this node has made for an engine
/// like `engine`: they are code that the node will run.
pub fn load(engine: &Engine, compiled: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the callers ensure where the bytes come from, as required above.
    #[allow(unsafe_code)]
    unsafe {
        Component::deserialize(engine, compiled)
    }
}

/// The content of an entry, if its checksum matches.
fn checked(entry: &[u8]) -> Option<&[u8]> {
    let rest = entry.strip_prefix(MAGIC)?;
    let (checksum, compiled) = rest.split_at_checked(CHECKSUM_BYTES)?;
    (Sha256::digest(compiled).as_slice() == checksum).then_some(compiled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_entries_are_returned_and_corrupt_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let cache = Cache::open(dir.path().join("cache"), &engine).unwrap();
        let compiled = engine.precompile_component(b"(component)").unwrap();
        assert!(cache.get(&engine, "aa").is_none());
        cache.put("aa", &compiled).unwrap();
        assert!(cache.get(&engine, "aa").is_some());
        assert!(cache.get(&engine, "bb").is_none());

        let path = cache.path("aa");
        let mode = fs::metadata(dir.path().join("cache"))
            .unwrap()
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o700);
        let mut entry = fs::read(&path).unwrap();
        let last = entry.len() - 1;
        entry[last] ^= 1;
        fs::write(&path, &entry).unwrap();
        assert!(cache.get(&engine, "aa").is_none());
        fs::write(&path, &entry[..20]).unwrap();
        assert!(cache.get(&engine, "aa").is_none());
        cache.put("aa", &compiled).unwrap();
        assert!(cache.get(&engine, "aa").is_some());
    }

    #[test]
    fn task_types_are_stored_by_content() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let cache = Cache::open(dir.path().join("cache"), &engine).unwrap();
        let names = ["b", "a"].map(|name| Name::parse("task type", name).unwrap());
        assert!(cache.task_types("aa").is_empty());
        cache.put_task_types("aa", &names).unwrap();
        assert_eq!(cache.task_types("aa"), names);
        fs::write(cache.types_path("bb"), "a\n{no name}").unwrap();
        assert_eq!(cache.task_types("bb"), names[1..]);
    }

    #[test]
    fn the_oldest_entries_are_evicted_first() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let cache = Cache::open(dir.path().to_owned(), &engine).unwrap();
        for (name, age) in [("old", 30), ("new", 10)] {
            let path = cache.path(name);
            fs::write(&path, [0; 100]).unwrap();
            let time = SystemTime::now() - std::time::Duration::from_secs(age);
            File::options()
                .append(true)
                .open(&path)
                .unwrap()
                .set_modified(time)
                .unwrap();
        }
        cache.evict(150, Path::new("")).unwrap();
        assert!(!cache.path("old").exists() && cache.path("new").exists());
    }

    #[test]
    fn several_may_evict_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let cache = Cache::open(dir.path().to_owned(), &engine).unwrap();
        for entry in 0..1000 {
            fs::write(cache.path(&entry.to_string()), [0; 10]).unwrap();
        }
        let begin = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            let evict = || {
                begin.wait();
                cache.evict(0, Path::new(""))
            };
            for evicting in [0; 4].map(|_| scope.spawn(evict)) {
                evicting.join().unwrap().unwrap();
            }
        });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
