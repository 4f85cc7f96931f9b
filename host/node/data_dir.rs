//! The data directory of a node, and the id that is kept in it.

use crate::{atomic_file, config, task::Name};
use anyhow::Context;
use std::{io::ErrorKind, os::unix::fs::DirBuilderExt, path::Path};
use uuid::Uuid;

/// The configured id, or one that is generated once and kept in the data directory.
pub fn node_id(node: &config::Node) -> anyhow::Result<Name> {
    if let Some(id) = &node.id {
        return Ok(id.clone());
    }
    let file = node.data_dir.join("node-id");
    let cannot = || format!("cannot keep the node's id in {}", file.display());
    match std::fs::read_to_string(&file) {
        Ok(kept) => return Name::parse("node id", kept.trim()).with_context(cannot),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        // The node has an id, which other nodes know.
        Err(error) => {
            return Err(error).with_context(|| {
                format!(
                    "cannot read the node's id in {}; make the file readable, or set node.id",
                    file.display()
                )
            });
        }
    }
    let id = format!("node-{}", Uuid::now_v7().simple());
    match atomic_file::create(&file, &[id.as_bytes()]) {
        Ok(()) => Ok(Name::parse("node id", &id)?),
        // Another process that starts in this directory was faster.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => node_id(node),
        Err(error) => Err(error).with_context(cannot),
    }
}

/// Creates the directory, which only this user can access.
pub fn create(dir: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot create {} (node.data_dir)", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    #[test]
    fn an_id_that_cannot_be_read_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let node = config::Node {
            data_dir: dir.path().to_owned(),
            id: None,
            ..Config::default().node
        };
        let made = node_id(&node).unwrap();
        assert_eq!(node_id(&node).unwrap(), made);
        let file = dir.path().join("node-id");
        std::fs::write(&file, [0xFF, 0xFE]).unwrap();
        let error = format!("{:#}", node_id(&node).unwrap_err());
        assert!(
            error.contains("node-id") && error.contains("node.id"),
            "{error}"
        );
        assert_eq!(std::fs::read(&file).unwrap(), [0xFF, 0xFE]);
        // A file that cannot be read at all.
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        assert!(node_id(&node).is_err());
        assert!(file.is_dir());
    }
}
