//! The compiler's errors for invalid plugins: they name the part that is wrong.

use crate::support::{plugins::source, trial_needing};
use libtest_mimic::Trial;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

pub fn trials() -> Vec<Trial> {
    vec![trial_needing(
        "sdk::the_compiler_names_the_mismatched_part",
        true,
        the_compiler_names_the_mismatched_part,
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

async fn the_compiler_names_the_mismatched_part() {
    let sdk = sdk();
    let dir = tempfile::tempdir().expect("a directory");
    let errors = |items: &str, plugin: &str| {
        let text = format!("{COMPONENT}{items}\nhostel_sdk::plugin! {{ {plugin} }}");
        check(&sdk, dir.path(), &text)
    };
    let a = "task(\"a\", a)";
    assert_eq!(errors("", "component = C, task(\"a\", good)"), "");
    // As many as a node accepts, and every number that a group may have.
    for count in [2, 3, 4, 5, 6, 7, 8, 9, 256] {
        let tasks = |n| format!("task(\"a{n}\", good).attempts(3)");
        let tasks: Vec<String> = (0..count).map(tasks).collect();
        assert_eq!(errors("", &tasks.join(",\n")), "", "{count} task types");
    }
    for (items, plugin, words) in [
        ("", "", "plugin! is empty: a plugin has task types"),
        (
            "",
            "task(\"a\", good), component = C",
            "`component = Type` comes first and once",
        ),
        (
            "",
            "task(\"a\", good), task(\"b\", good), component = C, task(\"c\", good)",
            "`component = Type` comes first and once",
        ),
        (
            "",
            "task(\"a\", good), task(\"b\", good), task(\"c\", good), component = C",
            "`component = Type` comes first and once",
        ),
        (
            "",
            "task(\"a\", good), task(\"b\", good), task(\"c\", good), task(\"d\", good), component = C",
            "`component = Type` comes first and once",
        ),
        (
            "fn a(_: u32) -> String { todo!() }",
            "task(\"b\", good), task(\"c\", good), task(\"a\", a), task(\"d\", good), task(\"e\", good)",
            "`u32` cannot be used as a payload",
        ),
        (
            "",
            "component = C, component = C",
            "`component = Type` comes first and once",
        ),
        ("struct D;", "component = D", "`D` is not a component"),
        (
            "fn a(_: u32) -> String { todo!() }",
            a,
            "`u32` cannot be used as a payload",
        ),
        (
            "fn a(_: &str) -> String { todo!() }",
            a,
            "`&str` cannot be used as a payload",
        ),
        (
            "fn a(_: String) -> Result<u32> { todo!() }",
            a,
            "`u32` cannot be used as a result",
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
        let errors = errors(items, plugin);
        assert!(
            errors.contains(words),
            "{items} {plugin}: {words}\n{errors}"
        );
    }
}

/// Builds the SDK for this machine and returns the library.
fn sdk() -> PathBuf {
    let built = Command::new(env!("CARGO"))
        .current_dir(source())
        .args(["build", "--release", "--package", "hostel-sdk"])
        .env("CARGO_TARGET_DIR", source().join("target"))
        .output()
        .expect("cargo runs");
    let errors = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{errors}");
    source().join("target/release/libhostel_sdk.rlib")
}

/// Returns the compiler's errors for a plugin; empty if it is valid.
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
