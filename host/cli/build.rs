//! Builds plugins from source: adds the wasm target if it is missing, runs cargo, and installs each
//! component that a node would accept in the plugins directory, under the name of its plugin.

use super::output::print_note;
use crate::{Config, atomic_file, plugin, untrusted::Untrusted};
use anyhow::{Context, bail, ensure};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const TARGET: &str = "wasm32-wasip2";

/// Builds `packages` of the crate or workspace in `dir`, or all that make components if it is empty,
/// installs the files in `out` and returns their paths. A file has the name in its plugin's manifest,
/// as the section `[plugin.NAME]` has. If a node with this configuration would refuse one of them,
/// none is installed.
pub async fn build(
    config: &Config,
    dir: &Path,
    packages: &[&str],
    out: &Path,
) -> anyhow::Result<Vec<PathBuf>> {
    let mut checked = Vec::new();
    for file in compile(dir, packages)? {
        let name = plugin_name(config, &file).await?;
        checked.push((file, name));
    }
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    checked
        .iter()
        .map(|(file, name)| install(file, &out.join(format!("{name}.wasm"))))
        .collect()
}

/// Runs cargo and returns the components that it makes.
fn compile(dir: &Path, packages: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
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
    Ok(components)
}

/// Returns the name of the plugin, if a node would accept it.
async fn plugin_name(config: &Config, file: &Path) -> anyhow::Result<String> {
    let inspection = plugin::inspect(config, file).await?;
    match inspection.plugin {
        Some(plugin) if inspection.diagnostics.is_empty() => Ok(plugin.name.to_string()),
        _ => {
            let errors = inspection
                .diagnostics
                .iter()
                .map(|error| format!("\n{error}"));
            let file = file.display();
            let errors: String = errors.collect();
            bail!("{file} is built but not installed, because a node would refuse it:{errors}")
        }
    }
}

/// Adds the wasm target through rustup if it is missing.
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
    print_note(format_args!("adding the Rust target {TARGET}"));
    let added = Command::new("rustup")
        .args(["target", "add", TARGET])
        .status();
    let added = added.with_context(|| {
        format!("cannot run rustup; add the target {TARGET} with the tool that installed Rust")
    })?;
    ensure!(added.success(), "rustup could not add the target {TARGET}");
    Ok(())
}

fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Returns the wasm files among cargo's messages, one JSON document per line.
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

/// Copies `file` to `to` atomically, so that a node that watches never sees half a file.
fn install(file: &Path, to: &Path) -> anyhow::Result<PathBuf> {
    atomic_file::copy(file, to)
        .with_context(|| format!("cannot install {} as {}", file.display(), to.display()))?;
    let old = to.with_file_name(file.file_name().unwrap_or_default());
    if old != to && old.exists() {
        print_note(format_args!(
            "hostel: {} is another file of this plugin, perhaps of an earlier build, and prevents \
             {} from serving: remove it",
            Untrusted::path(&old),
            Untrusted::path(to)
        ));
    }
    Ok(to.to_owned())
}
