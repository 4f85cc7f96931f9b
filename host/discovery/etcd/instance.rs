//! The instance id of a node, in a file of its data directory. By it a node that was killed recognizes
//! the record that it left under its node id.

use crate::error::Error;
use hostel_runtime::atomic_file;
use std::{fs, io, path::Path};
use uuid::Uuid;

/// The file's name. It is beside `node-id`, which exists only if the configuration has no node.id.
const FILE: &str = "node-instance";

/// Returns the instance id of the node with this data directory, and creates it at the first call.
pub(super) fn load_or_create(data_dir: &Path) -> Result<String, Error> {
    let file = data_dir.join(FILE);
    let cannot = |error: io::Error| {
        let file = file.display();
        Error::Misconfigured(format!(
            "cannot keep this node's instance id in {file}: {error}"
        ))
    };
    match fs::read_to_string(&file) {
        Ok(text) => {
            if let Ok(instance) = Uuid::try_parse(text.trim()) {
                return Ok(instance.to_string());
            }
            let file = file.display();
            tracing::warn!(
                "{file} is damaged and written anew; a record that this node left in etcd has to expire first"
            );
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(cannot(error)),
    }
    let instance = Uuid::now_v7().to_string();
    atomic_file::write(&file, &[instance.as_bytes()]).map_err(cannot)?;
    Ok(instance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_id_is_kept_and_replaced_when_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let first = load_or_create(dir.path()).unwrap();
        assert_eq!(load_or_create(dir.path()).unwrap(), first);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(load_or_create(other.path()).unwrap(), first);
        fs::write(dir.path().join(FILE), "0197").unwrap();
        let replaced = load_or_create(dir.path()).unwrap();
        assert_eq!(load_or_create(dir.path()).unwrap(), replaced);
        let missing = load_or_create(&dir.path().join("gone")).unwrap_err();
        assert!(missing.to_string().contains(FILE), "{missing}");
    }
}
