//! The files of the plugins directory.

use hostel_runtime::file_fingerprint::Fingerprint;
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

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
}
