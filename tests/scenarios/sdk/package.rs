//! The package that is published on a registry: it is complete, and a plugin outside the clone builds
//! against it.

use crate::support::{
    crates,
    node::hostel,
    plugins::{can_build, source},
    trial_needing,
};
use libtest_mimic::Trial;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

pub fn trials() -> Vec<Trial> {
    vec![
        trial_needing(
            "sdk::the_package_has_the_contract_of_the_node",
            true,
            the_package_has_the_contract_of_the_node,
        ),
        trial_needing(
            "sdk::a_plugin_builds_against_the_package",
            can_build(),
            a_plugin_builds_against_the_package,
        ),
    ]
}

const NAME: &str = concat!("hostel-sdk-", env!("CARGO_PKG_VERSION"));

const PLUGIN: &str = r#"use hostel_sdk::prelude::*;

fn shout(text: String) -> String {
    text.to_uppercase()
}

hostel_sdk::plugin! {
    task("shout", shout),
}
"#;

/// The files of a directory and its subdirectories, with their content.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                pending.push(path);
            } else {
                let name = path.strip_prefix(dir).expect("a path below");
                files.insert(name.to_owned(), fs::read(&path).expect("a file"));
            }
        }
    }
    files
}

/// Packages the SDK once a run and returns the archive.
fn archive() -> &'static Path {
    static ARCHIVE: OnceLock<PathBuf> = OnceLock::new();
    ARCHIVE.get_or_init(|| {
        let target = crates::target("sdk");
        let package = || {
            let mut command = crates::cargo(&target);
            command
                .current_dir(source())
                .args(["package", "--package", "hostel-sdk"])
                .args(["--no-verify", "--allow-dirty"]);
            command
        };
        // The index of the registry may be missing on a machine that has built nothing yet.
        let offline = package().arg("--offline").output().expect("cargo runs");
        if !offline.status.success() {
            crates::run(&mut package());
        }
        target.join("package").join(format!("{NAME}.crate"))
    })
}

/// Unpacks the package into `dir`, which is outside the clone.
fn unpacked(dir: &Path) -> PathBuf {
    crates::run(
        Command::new("tar")
            .arg("-xzf")
            .arg(archive())
            .arg("-C")
            .arg(dir),
    );
    dir.join(NAME)
}

async fn the_package_has_the_contract_of_the_node() {
    let dir = tempfile::tempdir().expect("a directory");
    let package = unpacked(dir.path());
    let contract = files(&source().join("wit"));
    assert!(contract.contains_key(Path::new("hostel.wit")));
    assert_eq!(contract, files(&package.join("wit")));
    assert_eq!(
        fs::read(package.join("LICENSE")).expect("the licence"),
        fs::read(source().join("LICENSE")).expect("the licence"),
    );
    let manifest = fs::read_to_string(package.join("Cargo.toml")).expect("the manifest");
    let manifest: toml::Table = manifest.parse().expect("TOML");
    for field in ["description", "license", "readme", "repository"] {
        let value = manifest["package"].get(field).and_then(toml::Value::as_str);
        assert!(value.is_some_and(|value| !value.is_empty()), "{field}");
    }
    assert!(package.join("README.md").exists());
}

async fn a_plugin_builds_against_the_package() {
    let dir = tempfile::tempdir().expect("a directory");
    let package = unpacked(dir.path());
    let plugin = dir.path().join("plugin");
    let manifest = format!(
        "[package]\nname = \"packaged\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\
         [lib]\ncrate-type = [\"cdylib\"]\n\
         [dependencies]\nhostel-sdk = {{ path = {package:?} }}\n"
    );
    crates::write(&plugin, &manifest, "src/lib.rs", PLUGIN);
    let target = crates::target("sdk");
    crates::run(crates::cargo(&target).current_dir(plugin).args([
        "build",
        "--release",
        "--target",
        "wasm32-wasip2",
    ]));
    let file = target.join("wasm32-wasip2/release/packaged.wasm");
    crates::run(hostel().args(["plugins", "verify"]).arg(file));
}
