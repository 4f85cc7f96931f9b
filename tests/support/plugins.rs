//! Plugins for tests. They are built once a run with `hostel plugins build`, as authors do.

use super::{crates, node::hostel};
use hostel::plugin::TestGuest;
use parking_lot::Mutex;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// Returns the root of the source tree.
pub fn source() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the root of the workspace")
}

/// Returns the directory of built plugins, which is kept between runs.
pub fn built() -> PathBuf {
    source().join("target/test-plugins")
}

/// Returns `true` if plugins can be built: the wasm target is installed or rustup can add it.
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

/// Returns the file of a showcase plugin: `echo`, `rates`, `text` or `thumbnail`.
pub fn showcase(name: &'static str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        for name in ["echo", "rates", "text", "thumbnail"] {
            build(&source().join("plugins").join(name), &built());
        }
    });
    built().join(format!("{name}.wasm"))
}

/// Returns the file of the plugin in `tests/guests`, which has one task type for each kind of
/// misbehaviour.
pub fn hostile() -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| build(&source().join("tests/guests"), &built()));
    built().join("hostel-test-guests.wasm")
}

/// Returns the file of the plugin `probe` in `tests/components`, whose component acts on the content of
/// its messages. The answers contain the version.
pub fn probe(version: &str) -> PathBuf {
    let source = source().join("tests/components/src/lib.rs");
    build_source(
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

/// Returns the file of a plugin called `echo` that appends `@` and its version to the payload.
pub fn signing_echo(version: &str) -> PathBuf {
    build_source("echo", version, SIGNING)
}

/// Builds a plugin from the text of its `src/lib.rs` and returns the file. It is built once a run,
/// since the source or the SDK may have changed since an earlier run.
pub fn build_source(name: &str, version: &str, text: &str) -> PathBuf {
    // Libraries of the same name overwrite each other in the target directory.
    let library = format!("{name}_{}", version.replace(['.', '-'], "_"));
    let file = built().join(format!("{library}.wasm"));
    static DONE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let mut done = DONE.lock();
    if done.contains(&file) {
        return file;
    }
    let copy = built().join("source").join(&library);
    write_crate(&copy, name, version, &library, "Another version", text);
    // The file is called like the plugin in every version, so each version has its own directory.
    build(&copy, &copy);
    fs::rename(copy.join(name).with_extension("wasm"), &file).expect("a file");
    done.insert(file.clone());
    file
}

/// Writes the crate of a plugin whose library is called `library` into `dir`.
pub fn write_crate(
    dir: &Path,
    name: &str,
    version: &str,
    library: &str,
    description: &str,
    text: &str,
) {
    let sdk = source().join("plugin-sdk");
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"{version}\"\nedition = \"2024\"\n\
         description = \"{description}\"\n\
         [lib]\nname = \"{library}\"\ncrate-type = [\"cdylib\"]\n\
         [dependencies]\nhostel-sdk = {{ path = {sdk:?} }}\n\
         [profile.release]\nstrip = true\n"
    );
    crates::write(dir, &manifest, "src/lib.rs", text);
}

/// Returns the bytes of a hand-written guest.
pub fn guest(sample: &TestGuest) -> Vec<u8> {
    sample.wasm().expect("valid text")
}

/// A `handle` that computes for the number of milliseconds in the first four bytes of the payload, in
/// little-endian order, and then returns the payload. `u32::MAX` never ends.
pub const BUSY: &str = "(i64.store (i32.const 4096) (i64.add (call $now)
      (i64.mul (i64.extend_i32_u (i32.load (local.get $payload))) (i64.const 1000000))))
    (loop $l (br_if $l (i64.lt_u (call $now) (i64.load (i32.const 4096)))))
    (local.set $result (local.get $payload))
    (local.set $result-len (local.get $payload-len))";

/// A `handle` or `describe` that traps.
pub const TRAP: &str = "unreachable";

/// Runs `hostel plugins build`. Builds run one at a time, because libraries of the same name write the
/// same file of the target directory.
pub fn build(dir: &Path, out: &Path) {
    static BUILDING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = BUILDING.lock();
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
