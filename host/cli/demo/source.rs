//! Hostel's source tree, from which the demo builds the showcase plugins.

use anyhow::Context;
use std::path::PathBuf;

/// Returns the current directory if it is a clone, else the clone that this binary was built from.
pub fn source_tree() -> anyhow::Result<PathBuf> {
    let built_in = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let current = std::env::current_dir().unwrap_or_default();
    let found = [current, built_in]
        .into_iter()
        .find(|dir| dir.join("plugins/echo/Cargo.toml").is_file());
    found.context(
        "the demo builds the showcase plugins and needs Hostel's source tree: run it in a clone",
    )
}
