//! What a release may not take back: the proto and the public API of client and SDK, compared with
//! the commit that `RELEASING.md` names. Ignored where git does not have that commit.

mod items;
mod proto;

use crate::support::plugins::source;
use libtest_mimic::{Completion, Failed, Trial};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

/// Sources of the public API. Everything `pub` in them counts.
const API: &[&str] = &["host/client", "plugin-sdk/src"];

/// Sources among them of which nothing is re-exported.
const PRIVATE: &[&str] = &[
    "/guest/",
    "/mock/component",
    "/mock/kv",
    "/mock/messaging",
    "/mock/node",
    "tests.rs",
];

const PROTO: &[&str] = &["proto"];

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::ignorable_test("compatibility::the_proto_only_grows", || {
            compare(PROTO, proto::removals)
        }),
        Trial::ignorable_test("compatibility::removals_from_the_api_are_announced", || {
            compare(API, announced_removals)
        }),
    ]
}

/// Files by their paths in the repository.
type Files = BTreeMap<String, String>;

/// Fails with what `removals` finds missing now that the named commit had.
fn compare(
    folders: &[&str],
    removals: impl Fn(&Files, &Files) -> Vec<String>,
) -> Result<Completion, Failed> {
    let commit = named_commit();
    let Some(old) = files_of(&commit, folders) else {
        return Ok(Completion::ignored_with(format!(
            "git has no commit {commit}"
        )));
    };
    let removed = removals(&old, &files_now(folders));
    if removed.is_empty() {
        return Ok(Completion::Completed);
    }
    let removed = removed.join("\n");
    Err(format!("since {commit} these are gone or different:\n{removed}").into())
}

/// The commit in the line `compared-with: COMMIT`.
fn named_commit() -> String {
    let page = fs::read_to_string(source().join("RELEASING.md")).expect("RELEASING.md");
    let lines = page.lines().map(str::trim);
    let commit = lines
        .filter_map(|line| line.strip_prefix("compared-with: "))
        .next();
    commit
        .expect("a line `compared-with: COMMIT` in RELEASING.md")
        .to_owned()
}

fn git(arguments: &[&str]) -> Option<String> {
    let git = Command::new("git")
        .current_dir(source())
        .args(arguments)
        .output()
        .ok()?;
    git.status
        .success()
        .then(|| String::from_utf8_lossy(&git.stdout).into_owned())
}

fn files_of(commit: &str, folders: &[&str]) -> Option<Files> {
    let list = [&["ls-tree", "-r", "--name-only", commit, "--"], folders].concat();
    let names = git(&list)?;
    let names = names.lines().map(str::to_owned);
    let files = names.map(|name| {
        let text = git(&["show", &format!("{commit}:{name}")]);
        (name, text.expect("a file of that commit"))
    });
    Some(files.collect())
}

fn files_now(folders: &[&str]) -> Files {
    let list = [
        &[
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "--",
        ],
        folders,
    ]
    .concat();
    let names = git(&list).expect("git ls-files");
    let files = names.lines().filter_map(|name| {
        let text = fs::read_to_string(source().join(name)).ok()?;
        Some((name.to_owned(), text))
    });
    files.collect()
}

/// Public items that are gone, unless the changelog's part "Unreleased" names them in backticks.
fn announced_removals(old: &Files, now: &Files) -> Vec<String> {
    let now = public_items(now);
    let changelog = fs::read_to_string(source().join("CHANGELOG.md")).expect("CHANGELOG.md");
    let unreleased = changelog.split("\n## ").nth(1).unwrap_or_default();
    // What goes with its type is announced with it.
    let is_announced = |item: &items::Item| {
        let parent = item.name.split("::").next().unwrap_or_default();
        let parent_is_gone = !now.iter().any(|other| other.name == parent);
        let names = [
            item.name.as_str(),
            if parent_is_gone { parent } else { &item.name },
        ];
        names
            .iter()
            .any(|name| unreleased.contains(&format!("`{name}`")))
    };
    let gone = public_items(old)
        .into_iter()
        .filter(|item| !now.contains(item));
    gone.filter(|item| !is_announced(item))
        .map(|item| {
            format!(
                "{} (announce `{}` in CHANGELOG.md)",
                item.signature, item.name
            )
        })
        .collect()
}

/// What the sources declare `pub`, without what belongs to a private type.
fn public_items(files: &Files) -> Vec<items::Item> {
    let rust = files.iter().filter(|(name, _)| name.ends_with(".rs"));
    let rust = rust.filter(|(name, _)| !PRIVATE.iter().any(|part| name.contains(part)));
    let all: Vec<_> = rust
        .flat_map(|(name, text)| items::public(name, text))
        .collect();
    let names: BTreeSet<_> = all.iter().map(|item| item.name.clone()).collect();
    let belongs = |item: &items::Item| match item.name.split_once("::") {
        Some((parent, _)) => names.contains(parent),
        None => true,
    };
    all.into_iter().filter(belongs).collect()
}
