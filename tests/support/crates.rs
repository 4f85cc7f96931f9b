//! Crates outside the clone, as the users of Hostel's libraries have them, and the calls of cargo that
//! build them.

use super::plugins::source;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Writes a crate with one source file, `file`, into the directory `dir`. The lock file of the
/// workspace is copied, so that the versions that are already downloaded are used. A crate that must
/// not see the clone's configuration has to be outside the clone, since cargo reads the configuration
/// of all parent directories.
pub fn write(dir: &Path, manifest: &str, file: &str, text: &str) {
    let file = dir.join(file);
    fs::create_dir_all(file.parent().expect("a parent")).expect("a directory");
    fs::write(file, text).expect("the source");
    fs::write(dir.join("Cargo.toml"), format!("{manifest}[workspace]\n")).expect("the manifest");
    fs::copy(source().join("Cargo.lock"), dir.join("Cargo.lock")).expect("the lock file");
}

/// A target directory for crates outside the clone. It is kept between runs.
pub fn target(name: &str) -> PathBuf {
    source().join("target/tmp").join(name)
}

/// The cargo that runs the tests, without the settings that it passed to them.
pub fn cargo(target: &Path) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.env("CARGO_TARGET_DIR", target).env_remove("PROTOC");
    command
}

/// Runs a command that must succeed.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().expect("the command runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}:\n{errors}");
    output
}
