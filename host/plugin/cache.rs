//! Compiled plugins on disk, so that a node starts without its compiler. Keyed by the wasm's sha256
//! and the engine's compatibility hash; each entry carries a checksum. Nothing in here is needed:
//! what cannot be read is compiled again, what cannot be written is compiled next time.

use sha2::{Digest, Sha256};
use std::{
    fs::{self, DirBuilder, File, Permissions},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};
use wasmtime::{Engine, component::Component};

const MAGIC: &[u8; 8] = b"hostel01";
const CHECKSUM_BYTES: usize = 32;
/// Beyond this the entries that were not used for longest go.
const MAX_CACHE_BYTES: u64 = 512 << 20;

pub struct Cache {
    dir: PathBuf,
    engine_key: u64,
}

impl Cache {
    /// Makes `dir` if it is missing, private to the user.
    pub fn open(dir: PathBuf, engine: &Engine) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        // Whoever writes here runs code in the node.
        fs::set_permissions(&dir, Permissions::from_mode(0o700))?;
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self {
            dir,
            engine_key: hasher.finish(),
        })
    }

    /// The component of the wasm with `sha256`, if it was compiled before.
    pub fn get(&self, engine: &Engine, sha256: &str) -> Option<Component> {
        let path = self.path(sha256);
        let entry = fs::read(&path).ok()?;
        let compiled = checked(&entry)?;
        // SAFETY: the bytes were written by `put` of this module into a directory that only this
        // user can write, for an engine with the same compatibility hash, and their checksum holds.
        #[allow(unsafe_code)]
        let component = unsafe { Component::deserialize(engine, compiled) }.ok()?;
        // Eviction goes by this time; a failure costs no more than a compilation.
        let _ = File::options()
            .append(true)
            .open(&path)
            .and_then(|file| file.set_modified(SystemTime::now()));
        Some(component)
    }

    /// Keeps `component`. Written beside and renamed, so that nobody reads half of it.
    pub fn put(&self, sha256: &str, component: &Component) -> io::Result<()> {
        let compiled = component.serialize().map_err(io::Error::other)?;
        let path = self.path(sha256);
        let temporary = path.with_extension(format!("{}.tmp", fastrand::u64(..)));
        let written = File::create(&temporary).and_then(|mut file| {
            file.write_all(MAGIC)?;
            file.write_all(&Sha256::digest(&compiled))?;
            file.write_all(&compiled)
        });
        let kept = written.and_then(|()| fs::rename(&temporary, &path));
        if kept.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        kept?;
        self.evict(MAX_CACHE_BYTES, &path)
    }

    /// Removes the oldest entries until the rest fits, and what a crash left half-written.
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
            let abandoned = path.extension().is_some_and(|end| end == "tmp")
                && modified.elapsed().is_ok_and(|age| age.as_secs() > 600);
            if (total > max_bytes || abandoned) && path != keep {
                fs::remove_file(&path)?;
                total -= bytes;
            }
        }
        Ok(())
    }

    fn path(&self, sha256: &str) -> PathBuf {
        self.dir
            .join(format!("{sha256}-{:016x}.cwasm", self.engine_key))
    }
}

/// What follows the heading, if the checksum holds.
fn checked(entry: &[u8]) -> Option<&[u8]> {
    let rest = entry.strip_prefix(MAGIC)?;
    let (checksum, compiled) = rest.split_at_checked(CHECKSUM_BYTES)?;
    (Sha256::digest(compiled).as_slice() == checksum).then_some(compiled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_and_corrupt_ones_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let cache = Cache::open(dir.path().join("cache"), &engine).unwrap();
        let component = Component::new(&engine, "(component)").unwrap();
        assert!(cache.get(&engine, "aa").is_none());
        cache.put("aa", &component).unwrap();
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
        cache.put("aa", &component).unwrap();
        assert!(cache.get(&engine, "aa").is_some());
    }

    #[test]
    fn the_oldest_go_first() {
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
}
