//! Atomic replacement of a file: readers see the old content or the new, never a part of it, and after
//! a crash one of the two is there.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// The extension of files that are being written. An old one may be deleted.
pub const TEMPORARY: &str = "tmp";

/// Replaces `file` with the concatenation of `parts`, and syncs it to disk.
pub fn write(file: &Path, parts: &[&[u8]]) -> io::Result<()> {
    replace(file, |temporary| {
        parts.iter().try_for_each(|part| temporary.write_all(part))
    })
}

/// Replaces `to` with a copy of `from`, and syncs it to disk.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    replace(to, |temporary| io::copy(&mut source, temporary).map(drop))
}

/// Fills a temporary file in the same directory and renames it into place.
fn replace(file: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let temporary = temporary_path(file);
    let replaced = File::create_new(&temporary).and_then(|mut content| {
        fill(&mut content)?;
        content.sync_all()?;
        fs::rename(&temporary, file)
    });
    if replaced.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    replaced?;
    sync_parent(file)
}

/// A name of its own for each write, so that two writers of one file do not mix their content.
fn temporary_path(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:016x}.{TEMPORARY}", fastrand::u64(..)));
    file.with_file_name(name)
}

/// Makes the rename durable. File systems that cannot sync a directory do that by themselves.
fn sync_parent(file: &Path) -> io::Result<()> {
    let parent = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match File::open(parent)?.sync_all() {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_no_temporary_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (file, copied) = (dir.path().join("file"), dir.path().join("copied"));
        fs::write(&file, "old").unwrap();
        write(&file, &[b"ne", b"w"]).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        copy(&file, &copied).unwrap();
        assert_eq!(fs::read(&copied).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "old").unwrap();
        let full = io::ErrorKind::StorageFull;
        let failed = replace(&file, |temporary| {
            temporary.write_all(b"half")?;
            Err(full.into())
        });
        assert_eq!(failed.unwrap_err().kind(), full);
        assert_eq!(fs::read(&file).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(copy(&dir.path().join("missing"), &file).is_err());
        assert!(write(&dir.path().join("no/file"), &[b"x"]).is_err());
    }
}
