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

/// Creates `file` with the concatenation of `parts`, and syncs it to disk. Fails with `AlreadyExists`, and
/// changes nothing, if there is such a file.
pub fn create(file: &Path, parts: &[&[u8]]) -> io::Result<()> {
    fill(
        file,
        |temporary| parts.iter().try_for_each(|part| temporary.write_all(part)),
        |temporary| match fs::hard_link(temporary, file) {
            Ok(()) => fs::remove_file(temporary),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
            // A file system without links.
            Err(_) => fs::rename(temporary, file),
        },
    )
}

/// Replaces `to` with a copy of `from`, and syncs it to disk.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    replace(to, |temporary| io::copy(&mut source, temporary).map(drop))
}

/// Fills a temporary file and renames it into place.
fn replace(file: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    fill(file, write, |temporary| fs::rename(temporary, file))
}

/// Fills a temporary file in the same directory, syncs it, and has it placed.
fn fill(
    file: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
    place: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = temporary_path(file);
    let placed = File::create_new(&temporary).and_then(|mut content| {
        write(&mut content)?;
        content.sync_all()?;
        place(&temporary)
    });
    if placed.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    placed?;
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
    fn a_file_is_created_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        create(&file, &[b"fir", b"st"]).unwrap();
        let again = create(&file, &[b"second"]).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&file).unwrap(), b"first");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
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
