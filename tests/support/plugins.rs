//! Plugins for tests, built once a run with `hostel plugins build`, as an author would.

use super::node::hostel;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The root of the source tree.
pub fn source() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where built plugins are kept between runs.
pub fn built() -> PathBuf {
    source().join("target/test-plugins")
}

/// Whether plugins can be built here: the wasm target is there or rustup can add it.
pub fn can_build() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| {
        let there = Command::new("rustc")
            .args(["--print", "target-libdir", "--target", "wasm32-wasip2"])
            .output()
            .is_ok_and(|out| Path::new(String::from_utf8_lossy(&out.stdout).trim()).is_dir());
        there
            || Command::new("rustup")
                .args(["target", "add", "wasm32-wasip2"])
                .status()
                .is_ok_and(|status| status.success())
    })
}

/// A showcase plugin: `echo`, `text` or `thumbnail`.
pub fn showcase(name: &'static str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        for name in ["echo", "text", "thumbnail"] {
            build(&source().join("plugins").join(name), &built());
        }
    });
    built().join(format!("{name}.wasm"))
}

/// The plugin of `tests/guests`: a task type for each way of misbehaving.
pub fn hostile() -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| build(&source().join("tests/guests"), &built()));
    built().join("hostel_test_guests.wasm")
}

/// The echo plugin with another version number, everything else the same.
pub fn echo_version(version: &str) -> PathBuf {
    let out = built().join(format!("echo-{version}"));
    let file = out.join("echo.wasm");
    if file.exists() {
        return file;
    }
    let copy = source().join("target/test-plugins/source").join(version);
    fs::create_dir_all(copy.join("src")).expect("a directory");
    let echo = source().join("plugins/echo");
    let code = fs::read_to_string(echo.join("src/lib.rs")).expect("the source of echo");
    fs::write(copy.join("src/lib.rs"), code).expect("the copy");
    let sdk = source().join("plugin-sdk");
    let manifest = format!(
        "[package]\nname = \"echo\"\nversion = \"{version}\"\nedition = \"2024\"\n\
         description = \"Another version\"\n[lib]\ncrate-type = [\"cdylib\"]\n\
         [dependencies]\nhostel-sdk = {{ path = {sdk:?} }}\n\
         [profile.release]\nstrip = true\n[workspace]\n"
    );
    fs::write(copy.join("Cargo.toml"), manifest).expect("the copy");
    // The workspace's own lock file keeps the versions that are built already.
    fs::copy(source().join("Cargo.lock"), copy.join("Cargo.lock")).expect("the lock file");
    build(&copy, &out);
    file
}

/// `hostel plugins build`, in the one target directory.
pub fn build(dir: &Path, out: &Path) {
    let built = hostel()
        .args(["plugins", "build"])
        .arg(dir)
        .arg("--out")
        .arg(out)
        .env("CARGO_TARGET_DIR", source().join("target"))
        .output()
        .expect("hostel runs");
    assert!(
        built.status.success(),
        "cannot build {}:\n{}",
        dir.display(),
        String::from_utf8_lossy(&built.stderr)
    );
}
