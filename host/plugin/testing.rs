//! Helpers for the tests and fuzz targets of this folder: the default configuration with directories of its
//! own.

use hostel_config::Config;
#[cfg(test)]
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

/// The `hostel` beside this test program, unless `HOSTEL_FUZZ_COMPILER` names another, as it has to for a
/// program that lies elsewhere. `cargo test` without `--lib` and `cargo build` make it.
pub fn compiler() -> PathBuf {
    if let Some(given) = std::env::var_os("HOSTEL_FUZZ_COMPILER") {
        return given.into();
    }
    let own = std::env::current_exe().unwrap();
    let hostel = own.parent().unwrap().parent().unwrap().join("hostel");
    assert!(
        hostel.exists(),
        "run `cargo build --release` first: no {}",
        hostel.display()
    );
    hostel
}

#[cfg(test)]
pub fn name(name: &str) -> Name {
    Name::parse("name", name).unwrap()
}
