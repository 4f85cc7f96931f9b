//! Plugins for tests, built once a run with `hostel plugins build`, as an author would.

use super::node::hostel;
use hostel::plugin::Sample;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, OnceLock, PoisonError},
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

/// A showcase plugin: `echo`, `rates`, `text` or `thumbnail`.
pub fn showcase(name: &'static str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        for name in ["echo", "rates", "text", "thumbnail"] {
            build(&source().join("plugins").join(name), &built());
        }
    });
    built().join(format!("{name}.wasm"))
}

/// The plugin of `tests/guests`: a task type for each way of misbehaving.
pub fn hostile() -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| build(&source().join("tests/guests"), &built()));
    built().join("hostel-test-guests.wasm")
}

/// The plugin of `tests/components`, called `probe`: a component that does what a message says. Of
/// that version, which its answers name.
pub fn probe(version: &str) -> PathBuf {
    let source = source().join("tests/components/src/lib.rs");
    from_source(
        "probe",
        version,
        &fs::read_to_string(source).expect("the source"),
    )
}

const SIGNING: &str = r#"use hostel_sdk::prelude::*;

fn echo(mut payload: Vec<u8>) -> Vec<u8> {
    payload.extend_from_slice(concat!("@", env!("CARGO_PKG_VERSION")).as_bytes());
    payload
}

hostel_sdk::plugin! {
    task("echo", echo),
}
"#;

/// A plugin called `echo`, of that version, that signs each result: `@` and its version follow the
/// payload.
pub fn signing_echo(version: &str) -> PathBuf {
    from_source("echo", version, SIGNING)
}

/// A plugin of that name and version, from what its `src/lib.rs` shall be. Built once a run, since
/// the source or the SDK may have changed after an earlier one.
pub fn from_source(name: &str, version: &str, text: &str) -> PathBuf {
    // Within one target directory libraries of the same name take each other's place.
    let library = format!("{name}_{}", version.replace(['.', '-'], "_"));
    let file = built().join(format!("{library}.wasm"));
    static DONE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    if done.contains(&file) {
        return file;
    }
    let copy = built().join("source").join(&library);
    author(&copy, name, version, &library, "Another version", text);
    // Every version is called as its plugin is, so each is built into a directory of its own.
    build(&copy, &copy);
    fs::rename(copy.join(name).with_extension("wasm"), &file).expect("a file");
    done.insert(file.clone());
    file
}

/// A crate in `dir` of what an author writes: a plugin whose library is called `library`.
pub fn author(dir: &Path, name: &str, version: &str, library: &str, description: &str, text: &str) {
    fs::create_dir_all(dir.join("src")).expect("a directory");
    fs::write(dir.join("src/lib.rs"), text).expect("the source");
    let sdk = source().join("plugin-sdk");
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"{version}\"\nedition = \"2024\"\n\
         description = \"{description}\"\n\
         [lib]\nname = \"{library}\"\ncrate-type = [\"cdylib\"]\n\
         [dependencies]\nhostel-sdk = {{ path = {sdk:?} }}\n\
         [profile.release]\nstrip = true\n[workspace]\n"
    );
    fs::write(dir.join("Cargo.toml"), manifest).expect("the manifest");
    // The workspace's own lock file keeps the versions that are built already.
    fs::copy(source().join("Cargo.lock"), dir.join("Cargo.lock")).expect("the lock file");
}

/// A guest written by hand, as its file's bytes.
pub fn guest(sample: &Sample) -> Vec<u8> {
    sample.wasm().expect("valid text")
}

/// What `handle` of a guest does to be busy for as many milliseconds as the payload's first four
/// bytes say, little end first, and then to echo. `u32::MAX` is for ever.
pub const BUSY: &str = "(i64.store (i32.const 4096) (i64.add (call $now)
      (i64.mul (i64.extend_i32_u (i32.load (local.get $payload))) (i64.const 1000000))))
    (loop $l (br_if $l (i64.lt_u (call $now) (i64.load (i32.const 4096)))))
    (local.set $result (local.get $payload))
    (local.set $result-len (local.get $payload-len))";

/// As `handle` or `describe` of a guest.
pub const TRAP: &str = "unreachable";

/// `hostel plugins build`, in the one target directory, one after the other: libraries of the same
/// name leave their file at the same place there.
pub fn build(dir: &Path, out: &Path) {
    static BUILDING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
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
