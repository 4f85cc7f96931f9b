//! Which node this is, whatever its id says: a mark in the data directory, by which a node that was
//! killed knows its own record again. Reads and writes that one file.

use super::super::Error;
use std::{fs, io, path::Path};
use uuid::Uuid;

/// Beside `node-id`, which is only there where the configuration gives none.
const FILE: &str = "node-instance";

/// The mark of the node that has this data directory; made at the first call.
pub(super) fn kept_in(data_dir: &Path) -> Result<String, Error> {
    let file = data_dir.join(FILE);
    let cannot = |error: io::Error| {
        let file = file.display();
        Error::Misconfigured(format!("cannot keep this node's mark in {file}: {error}"))
    };
    match fs::read_to_string(&file) {
        Ok(kept) => {
            if let Ok(kept) = Uuid::try_parse(kept.trim()) {
                return Ok(kept.to_string());
            }
            let file = file.display();
            tracing::warn!("{file} is damaged and made anew; an earlier record is waited for");
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(cannot(error)),
    }
    let instance = Uuid::now_v7().to_string();
    // Renamed into place: a kill in between must not leave half a mark.
    let beside = file.with_extension("new");
    fs::write(&beside, &instance)
        .and_then(|()| fs::rename(&beside, &file))
        .map_err(cannot)?;
    Ok(instance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_kept_and_mended() {
        let dir = tempfile::tempdir().unwrap();
        let first = kept_in(dir.path()).unwrap();
        assert_eq!(kept_in(dir.path()).unwrap(), first);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(kept_in(other.path()).unwrap(), first);
        fs::write(dir.path().join(FILE), "0197").unwrap();
        let mended = kept_in(dir.path()).unwrap();
        assert_eq!(kept_in(dir.path()).unwrap(), mended);
        let gone = kept_in(&dir.path().join("gone")).unwrap_err();
        assert!(gone.to_string().contains(FILE), "{gone}");
    }
}
