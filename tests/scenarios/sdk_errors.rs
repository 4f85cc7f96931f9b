//! What the compiler tells the author of a plugin that is not right: which part of it does not fit.

use crate::support::{plugins::source, trial_needing};
use libtest_mimic::Trial;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

pub fn trials() -> Vec<Trial> {
    vec![trial_needing(
        "sdk_errors::the_part_that_does_not_fit_is_named",
        true,
        named,
    )]
}

const COMPONENT: &str = "struct C;
impl Component for C {
    type In = String;
    type Out = ();
    fn start() -> Result<Self> { Ok(C) }
    fn on_message(&mut self, _: String, _: &Message) -> Result<()> { Ok(()) }
}
fn good(text: String) -> String { text }
";

async fn named() {
    let sdk = sdk();
    let dir = tempfile::tempdir().expect("a directory");
    let told = |items: &str, plugin: &str| {
        let text = format!("{COMPONENT}{items}\nhostel_sdk::plugin! {{ {plugin} }}");
        check(&sdk, dir.path(), &text)
    };
    let a = "task(\"a\", a)";
    assert_eq!(told("", "component = C, task(\"a\", good)"), "");
    for (items, plugin, words) in [
        ("", "", "plugin! is empty: a plugin has task types"),
        (
            "",
            "task(\"a\", good), component = C",
            "`component = Type` comes first and once",
        ),
        (
            "",
            "component = C, component = C",
            "`component = Type` comes first and once",
        ),
        ("struct D;", "component = D", "`D` is no component"),
        (
            "fn a(_: u32) -> String { todo!() }",
            a,
            "`u32` is no payload that can be taken",
        ),
        (
            "fn a(_: &str) -> String { todo!() }",
            a,
            "`&str` is no payload that can be taken",
        ),
        (
            "fn a(_: String) -> Result<u32> { todo!() }",
            a,
            "`u32` is no result that can be returned",
        ),
        (
            "fn a(_: String, _: Task) -> String { todo!() }",
            a,
            "the arguments of",
        ),
        (
            "fn a() -> String { todo!() }",
            a,
            "takes the payload, owned, and after that nothing or `&Task`",
        ),
    ] {
        let told = told(items, plugin);
        assert!(told.contains(words), "{items} {plugin}: {words}\n{told}");
    }
}

/// The SDK as a library for this machine, and where what it needs lies.
fn sdk() -> PathBuf {
    let built = Command::new(env!("CARGO"))
        .current_dir(source())
        .args(["build", "--release", "--package", "hostel-sdk"])
        .env("CARGO_TARGET_DIR", source().join("target"))
        .output()
        .expect("cargo runs");
    let told = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{told}");
    source().join("target/release/libhostel_sdk.rlib")
}

/// What the compiler says of a plugin; nothing when it takes it.
fn check(sdk: &Path, dir: &Path, text: &str) -> String {
    let file = dir.join("lib.rs");
    let text = format!("#![allow(warnings)]\nuse hostel_sdk::prelude::*;\n{text}");
    fs::write(&file, text).expect("the source");
    let checked = Command::new("rustc")
        .current_dir(dir)
        .args([
            "--edition",
            "2024",
            "--crate-type",
            "lib",
            "--emit",
            "metadata",
        ])
        .arg(format!("--extern=hostel_sdk={}", sdk.display()))
        .arg(format!(
            "-Ldependency={}",
            sdk.with_file_name("deps").display()
        ))
        .arg(&file)
        .env("CARGO_PKG_NAME", "a")
        .env("CARGO_PKG_VERSION", "1.0.0")
        .env("CARGO_PKG_DESCRIPTION", "")
        .output()
        .expect("rustc runs");
    String::from_utf8(checked.stderr).expect("text")
}
