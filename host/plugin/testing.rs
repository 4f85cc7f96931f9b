//! Helpers for the tests of this folder: the default configuration with directories of its own.

use hostel_config::Config;
use hostel_task::Name;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

pub fn config(dir: &Path) -> Config {
    let mut config = Config::default();
    config.node.data_dir = dir.join("data");
    let plugins = &mut config.plugins;
    plugins.dir = dir.join("plugins");
    plugins.compiler = Some(compiler());
    plugins.rescan = Duration::from_millis(200);
    plugins.max_compiles = 2;
    plugins.max_tasks = 32;
    plugins.threads = 2;
    plugins.sandbox.max_cpu = Duration::from_secs(10);
    config
}

/// The `hostel` binary beside this test program. `cargo test` without `--lib` builds it, as does
/// `cargo build`.
pub fn compiler() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let hostel = own.parent().unwrap().parent().unwrap().join("hostel");
    assert!(
        hostel.exists(),
        "run `cargo build --release` first: no {}",
        hostel.display()
    );
    hostel
}

pub fn name(name: &str) -> Name {
    Name::parse("name", name).unwrap()
}
