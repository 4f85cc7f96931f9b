//! `hostel demo --cluster`: the promise of the README's section on several nodes, kept by its very
//! command.

use super::run;
use crate::support::{eventually, node::hostel, plugins::source};
use std::{
    fs::{self, File},
    path::PathBuf,
    process::Stdio,
};

/// Each task runs where its plugin is, given elsewhere and asked for at the third node; nothing is
/// left behind.
pub async fn cluster() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = hostel();
    command.current_dir(source()).env("TMPDIR", dir.path());
    // What is set for one node must not reach the three.
    command.env("HOSTEL__NODE__ID", "stray");
    let ran = run(command.args(["demo", "--cluster", "--exit"]));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let out = String::from_utf8(ran.out).expect("text");
    for line in [
        "    Hello, sandbox!\n    given to east, run by north, and completed at south\n",
        "    given to south, run by east, and completed at north\n",
        "    given to north, run by south, and completed at east\n",
        "  the component rates on south, asked from north for its table\n",
        "96 x 72 pixels in ",
        "\nNODE ",
        "\nnorth ",
        "\neast ",
        "\nsouth ",
    ] {
        assert!(out.contains(line), "{line:?} is not in:\n{out}");
    }
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0);
    assert_eq!(
        processes_in(dir.path().to_str().expect("text")),
        Vec::<PathBuf>::new()
    );
}

/// Whoever has `path` in its command line and still runs.
fn processes_in(path: &str) -> Vec<PathBuf> {
    let all = fs::read_dir("/proc").expect("Linux").flatten();
    let all = all.map(|process| process.path());
    all.filter(|process| {
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(path)
    })
    .collect()
}

/// Who has neither Redis nor etcd is told what to install.
pub async fn cluster_without_servers() {
    let ran = run(hostel().args(["demo", "--cluster"]).env("PATH", ""));
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("redis-server etcd-server"), "{}", ran.err);
}

/// kill -9, which it cannot see coming, leaves no process behind.
pub async fn cluster_killed() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = File::create(dir.path().join("out")).expect("a file");
    let mut demo = hostel()
        .current_dir(source())
        .env("TMPDIR", dir.path())
        .args(["demo", "--cluster"])
        .stdin(Stdio::null())
        .stdout(out.try_clone().expect("a file"))
        .stderr(out)
        .spawn()
        .expect("hostel runs");
    let said = || fs::read_to_string(dir.path().join("out")).unwrap_or_default();
    let children = eventually("all of it serves", || {
        let ended = demo.try_wait().expect("a status");
        assert!(ended.is_none(), "{}", said());
        let serves = said().contains("The nodes keep serving");
        std::future::ready(serves.then(|| children_of(demo.id())))
    })
    .await;
    // A Redis, an etcd and three nodes.
    assert_eq!(children.len(), 5, "{children:?}");
    demo.kill().expect("a signal");
    demo.wait().expect("a status");
    eventually("they have ended too", async || {
        let left = children.iter().filter(|&&id| parent_of(id).is_some());
        (left.count() == 0).then_some(())
    })
    .await;
}

fn children_of(parent: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").expect("Linux").flatten();
    let ids = all.filter_map(|process| process.file_name().to_str()?.parse().ok());
    ids.filter(|&id| parent_of(id) == Some(parent)).collect()
}

/// `None` once it has ended, whether or not anybody has asked how.
fn parent_of(id: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (state != "Z" && state != "X").then_some(parent)
}
