//! `hostel demo --cluster`, as in the README's section on several nodes.

use super::run;
use crate::support::{eventually, node::hostel, plugins::source};
use std::{
    fs::{self, File},
    path::PathBuf,
    process::Stdio,
};

/// Each task runs on the node with its plugin, is submitted to another and read from the third. No file
/// or process is left behind.
pub async fn cluster() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = hostel();
    command.current_dir(source()).env("TMPDIR", dir.path());
    // A variable of the user must not reach the nodes.
    command.env("HOSTEL__NODE__ID", "stray");
    let ran = run(command.args(["demo", "--cluster", "--exit"]));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let out = String::from_utf8(ran.out).expect("text");
    for line in [
        "    Hello, sandbox!\n    submitted to east, run by north, and completed at south\n",
        "    submitted to south, run by east, and completed at north\n",
        "    submitted to north, run by south, and completed at east\n",
        "  the table of the component rates on south, queried from north\n",
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

/// Returns the running processes with `path` in their command line.
fn processes_in(path: &str) -> Vec<PathBuf> {
    let all = fs::read_dir("/proc").expect("Linux").flatten();
    let all = all.map(|process| process.path());
    all.filter(|process| {
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(path)
    })
    .collect()
}

/// Without Redis and etcd, the error names the packages to install.
pub async fn cluster_without_servers() {
    let ran = run(hostel().args(["demo", "--cluster"]).env("PATH", ""));
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("redis-server etcd-server"), "{}", ran.err);
}

/// SIGKILL of the demo leaves no process behind.
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
    let output = || fs::read_to_string(dir.path().join("out")).unwrap_or_default();
    let children = eventually("the cluster serves", || {
        let ended = demo.try_wait().expect("a status");
        assert!(ended.is_none(), "{}", output());
        let serves = output().contains("The nodes keep serving");
        std::future::ready(serves.then(|| children_of(demo.id())))
    })
    .await;
    // A Redis, an etcd and three nodes.
    assert_eq!(children.len(), 5, "{children:?}");
    demo.kill().expect("a signal");
    demo.wait().expect("a status");
    eventually("all children have ended", async || {
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

/// Returns the parent of a process, or `None` once the process has ended, even as a zombie.
fn parent_of(id: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (state != "Z" && state != "X").then_some(parent)
}
