//! Builds plugins from source: adds the wasm target if it is missing, runs cargo, and installs each
//! component that a node would accept in the plugins directory, under the name of its plugin.

use super::output::print_note;
use crate::{Config, atomic_file, plugin, untrusted::Untrusted};
use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const TARGET: &str = "wasm32-wasip2";

/// A component that cargo has made.
#[derive(Debug, PartialEq, Eq)]
struct Built {
    /// The name of the package, which is that of the plugin.
    package: String,
    file: PathBuf,
}

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
    for built in compile(dir, packages)? {
        let name = plugin_name(config, &built).await?;
        checked.push((built.file, name));
    }
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    checked
        .iter()
        .map(|(file, name)| install(file, &out.join(format!("{name}.wasm"))))
        .collect()
}

/// Runs cargo and returns the components that it makes.
fn compile(dir: &Path, packages: &[&str]) -> anyhow::Result<Vec<Built>> {
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
async fn plugin_name(config: &Config, built: &Built) -> anyhow::Result<String> {
    // The limits while it describes itself are those of its file's name, and cargo's has underscores.
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let installed = dir.path().join(format!("{}.wasm", built.package));
    symlink(std::path::absolute(&built.file)?, &installed)
        .with_context(|| format!("cannot make {}", installed.display()))?;
    let inspection = plugin::inspect(config, &installed).await?;
    match inspection.plugin {
        Some(plugin) if inspection.diagnostics.is_empty() => Ok(plugin.name.to_string()),
        _ => {
            let errors = inspection
                .diagnostics
                .iter()
                .map(|error| format!("\n{error}"));
            let file = built.file.display();
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

/// Returns the components among cargo's messages, one JSON document per line.
fn components(messages: &str) -> Vec<Built> {
    let mut components = Vec::new();
    for line in messages.lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        if !list(&message["target"]["kind"]).any(|kind| kind == "cdylib") {
            continue;
        }
        let files = list(&message["filenames"]).filter_map(Value::as_str);
        for file in files.map(PathBuf::from) {
            if file.extension().is_some_and(|end| end == "wasm") {
                let package = message["package_id"].as_str().and_then(package_name);
                let stem = || file.file_stem().unwrap_or_default().to_string_lossy();
                let package = package.map_or_else(|| stem().into_owned(), str::to_owned);
                components.push(Built { package, file });
            }
        }
    }
    components
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Returns the name in cargo's id of a package: `URL#NAME@VERSION`, or `URL#VERSION` if the URL ends with
/// the name.
fn package_name(id: &str) -> Option<&str> {
    let (url, rest) = id.rsplit_once('#')?;
    match rest.split_once('@') {
        Some((name, _)) => Some(name),
        None => url.rsplit('/').next(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_have_the_name_of_their_package() {
        let message = |id: &str, kind: &str, file: &str| {
            let message = serde_json::json!({
                "reason": "compiler-artifact",
                "package_id": id,
                "target": { "kind": [kind] },
                "filenames": [format!("/t/{file}.wasm"), format!("/t/{file}.d")],
            });
            message.to_string()
        };
        let messages = [
            message("path+file:///src/my-plugin#0.1.0", "cdylib", "my_plugin"),
            message("path+file:///src/dir#other-one@1.0.0", "cdylib", "lib"),
            message("path+file:///src/rlib#0.1.0", "lib", "rlib"),
            message("in another format", "cdylib", "third"),
            "no JSON".to_owned(),
        ];
        let built = |package: &str, file: &str| Built {
            package: package.to_owned(),
            file: PathBuf::from(format!("/t/{file}.wasm")),
        };
        assert_eq!(
            components(&messages.join("\n")),
            [
                built("my-plugin", "my_plugin"),
                built("other-one", "lib"),
                built("third", "third"),
            ]
        );
    }
}
