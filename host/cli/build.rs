//! Building plugins from source: the wasm target if it is missing, cargo, and each component moved
//! into the plugins directory whole.

use anyhow::{Context, ensure};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const TARGET: &str = "wasm32-wasip2";

/// Builds the plugin packages of the crate or workspace in `dir` (all that make components, or only
/// those named), puts the files into `out` and returns where they are.
pub fn build(dir: &Path, packages: &[&str], out: &Path) -> anyhow::Result<Vec<PathBuf>> {
    add_target()?;
    let mut cargo = Command::new(cargo());
    cargo
        .current_dir(dir)
        .args(["build", "--release", "--target", TARGET])
        .arg("--message-format=json-render-diagnostics")
        .args(packages.iter().flat_map(|package| ["--package", package]))
        .stderr(Stdio::inherit());
    let built = cargo
        .output()
        .with_context(|| format!("cannot run {cargo:?}"))?;
    ensure!(
        built.status.success(),
        "cargo could not build the plugin in {}",
        dir.display()
    );
    let components = components(&String::from_utf8_lossy(&built.stdout));
    ensure!(
        !components.is_empty(),
        "{} builds, but makes no component: its Cargo.toml needs [lib] crate-type = [\"cdylib\"]",
        dir.display()
    );
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    components.iter().map(|file| put(file, out)).collect()
}

/// Adds the wasm target through rustup unless it is there.
fn add_target() -> anyhow::Result<()> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let libraries = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .context("cannot run rustc; install Rust from https://rustup.rs")?;
    let path = String::from_utf8_lossy(&libraries.stdout);
    if Path::new(path.trim()).is_dir() {
        return Ok(());
    }
    eprintln!("adding the Rust target {TARGET}");
    let added = Command::new("rustup")
        .args(["target", "add", TARGET])
        .status();
    let added = added.with_context(|| {
        format!("cannot run rustup; add the target {TARGET} in the way your Rust was installed")
    })?;
    ensure!(added.success(), "rustup could not add the target {TARGET}");
    Ok(())
}

fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The wasm files among cargo's messages, one JSON document a line.
fn components(messages: &str) -> Vec<PathBuf> {
    let messages = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    messages
        .filter(|message| list(&message["target"]["kind"]).any(|kind| kind == "cdylib"))
        .flat_map(|message| list(&message["filenames"]).cloned().collect::<Vec<_>>())
        .filter_map(|file| file.as_str().map(PathBuf::from))
        .filter(|file| {
            file.extension()
                .is_some_and(|extension| extension == "wasm")
        })
        .collect()
}

fn list(value: &serde_json::Value) -> impl Iterator<Item = &serde_json::Value> {
    value.as_array().into_iter().flatten()
}

/// Copied beside and renamed into place: a node that watches never sees half a file.
fn put(file: &Path, out: &Path) -> anyhow::Result<PathBuf> {
    let name = file.file_name().unwrap_or_default();
    let (to, beside) = (out.join(name), out.join(name).with_extension("wasm.part"));
    std::fs::copy(file, &beside)
        .and_then(|_| std::fs::rename(&beside, &to))
        .with_context(|| format!("cannot put {} into {}", file.display(), out.display()))?;
    Ok(to)
}
