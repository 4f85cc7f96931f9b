//! A broken environment: no plugins directory, no space on disk or in Redis, no free port. The node
//! reports it, keeps every acknowledged task, and recovers by itself.

use crate::support::{
    DEADLINE,
    backend::{Backend, Shared, on_both, on_both_needing},
    eventually,
    node::{Node, can_mount, hostel},
    plugins::{can_build, showcase},
    task, trial_needing,
};
use hostel::{DistributedClient, proto::distributed::Task};
use libtest_mimic::Trial;
use std::{fs, io::Write, net::TcpListener, path::Path, time::Instant};
use tonic::Code;

pub fn trials() -> Vec<Trial> {
    let on_backends = [
        on_both(
            "environment::a_missing_plugins_directory_is_picked_up_later",
            a_missing_plugins_directory_is_picked_up_later,
        ),
        on_both(
            "environment::loaded_plugins_survive_a_removed_directory",
            loaded_plugins_survive_a_removed_directory,
        ),
        on_both_needing(
            "environment::a_data_directory_in_use_is_rejected",
            true,
            a_data_directory_in_use_is_rejected,
        ),
    ];
    let others = [
        trial_needing(
            "environment::a_full_disk_rejects_submissions_only",
            can_mount() && can_build(),
            a_full_disk_rejects_submissions_only,
        ),
        trial_needing(
            "environment::a_full_redis_rejects_submissions_only",
            can_build() && Shared::is_installed(),
            a_full_redis_rejects_submissions_only,
        ),
        trial_needing(
            "environment::an_unusable_port_or_directory_is_reported",
            true,
            an_unusable_port_or_directory_is_reported,
        ),
    ];
    on_backends.into_iter().flatten().chain(others).collect()
}

async fn a_missing_plugins_directory_is_picked_up_later(on: Backend) {
    let mut node = on.prepare(&[], "").await;
    fs::remove_dir(node.plugins_dir()).unwrap();
    fs::write(node.plugins_dir(), "not a directory").unwrap();
    node.restart().await;
    assert!(node.log().contains("plugins directory"), "{}", node.log());

    let mut client = node.client();
    let refused = client.submit_task(task("echo", "")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("put a plugin"), "{refused}");

    fs::remove_file(node.plugins_dir()).unwrap();
    fs::create_dir(node.plugins_dir()).unwrap();
    node.add_plugin(&showcase("echo"));
    wait_for_plugins(&client, &["echo"]).await;
    assert_echoes(&mut client).await;
}

async fn loaded_plugins_survive_a_removed_directory(on: Backend) {
    let node = on.start(&[&showcase("echo")], "").await;
    let mut client = node.client();
    assert_echoes(&mut client).await;

    let away = node.path("away");
    fs::rename(node.plugins_dir(), &away).unwrap();
    eventually("the log reports the missing directory", || async {
        node.log().contains("cannot be read").then_some(())
    })
    .await;
    // Loaded plugins keep serving, because no plugin was deleted.
    assert_echoes(&mut client).await;
    let listed = || String::from_utf8(node.cli(&["plugins", "list"]).stdout).unwrap();
    assert!(listed().contains("cannot be read"), "{}", listed());

    fs::create_dir(node.plugins_dir()).unwrap();
    node.add_plugin(&showcase("text"));
    wait_for_plugins(&client, &["text"]).await;
    let words = client.submit_and_wait(task("word-count", "a b")).await;
    assert_eq!(words.unwrap().status, "completed");

    fs::remove_dir_all(node.plugins_dir()).unwrap();
    fs::rename(&away, node.plugins_dir()).unwrap();
    wait_for_plugins(&client, &["echo"]).await;
    assert_echoes(&mut client).await;
    assert!(!listed().contains("cannot be read"), "{}", listed());
}

/// Waits until exactly these plugins serve and accept submissions.
async fn wait_for_plugins(client: &DistributedClient, plugins: &[&str]) {
    eventually("the plugins serve", || {
        let mut client = client.clone();
        async move {
            let listed = client.list_plugins().await.unwrap().plugins;
            let nodes = client.discover("distributed_node").await.unwrap();
            let names: Vec<_> = listed.iter().map(|plugin| plugin.name.as_str()).collect();
            let types: Vec<_> = listed
                .iter()
                .flat_map(|plugin| &plugin.task_types)
                .collect();
            let announced = format!("{nodes:?}");
            (names == plugins && types.iter().all(|t| announced.contains(&t.name))).then_some(())
        }
    })
    .await;
}

async fn assert_echoes(client: &mut DistributedClient) {
    let echoed = client.submit_and_wait(task("echo", "over")).await.unwrap();
    assert_eq!(echoed.status, "completed", "{echoed:?}");
    assert_eq!(echoed.result, "over".as_bytes());
}

/// Large enough that several commits fill the disk.
const PAYLOAD: usize = 20_000;

async fn a_full_disk_rejects_submissions_only() {
    let mut node = Node::prepare(&[&showcase("echo")], "").with_small_disk("8m");
    node.restart().await;
    assert_echoes(&mut node.client()).await;
    let ballast = node.data_dir().join("ballast");
    fill(&ballast, 1 << 20);
    let full = FullQueue::fill(&node).await;
    // The log tells the operator what to do.
    let log = node.log();
    assert!(log.contains("is full; free some space"), "{log}");
    assert!(node.exit_status().is_none());
    fs::remove_file(ballast).unwrap();
    full.assert_recovers(&node).await;
}

async fn a_full_redis_rejects_submissions_only() {
    let mut node = Backend::Shared.start(&[&showcase("echo")], "").await;
    assert_echoes(&mut node.client()).await;
    let limit = async |node: &Node, to| {
        let shared = node.shared.as_ref().unwrap();
        let set = ["CONFIG", "SET", "maxmemory", to];
        shared.redis.command(&set).await.unwrap();
    };
    limit(&node, "8mb").await;
    let full = FullQueue::fill(&node).await;
    eventually("the log names the setting", async || {
        node.log().contains("queue.reserve_percent").then_some(())
    })
    .await;
    assert!(node.exit_status().is_none());
    limit(&node, "0").await;
    full.assert_recovers(&node).await;
}

/// A ledger of a full queue: the acknowledged and the rejected tasks.
struct FullQueue {
    acknowledged: Vec<usize>,
    rejected: Vec<usize>,
}

impl FullQueue {
    /// Submits tasks until some are rejected.
    async fn fill(node: &Node) -> Self {
        let mut client = node.client();
        let (mut acknowledged, mut rejected) = (Vec::new(), Vec::new());
        let since = Instant::now();
        for n in 0.. {
            let error = match client.submit_task(numbered(n)).await {
                Ok(_) => {
                    acknowledged.push(n);
                    continue;
                }
                Err(error) => error,
            };
            let message = error.message();
            // The reserve rejects tasks with its reason; a full disk reports that nothing has changed.
            let expected = match error.code() {
                Code::ResourceExhausted => "takes no new tasks",
                Code::Unavailable => "nothing has changed; try again later",
                other => panic!("{other:?}: {message}"),
            };
            assert!(message.contains(expected), "{message}");
            assert!(!message.contains("queue.db"), "{message}");
            rejected.push(n);
            if rejected.len() >= 20 {
                break;
            }
            assert!(since.elapsed() < DEADLINE, "the store never filled up");
        }
        let count = acknowledged.len();
        assert!(count > 5, "{count} acknowledged");
        // Reading still works, and rejected tasks are not stored.
        for &n in &acknowledged {
            client.get_task_status(&id(n)).await.unwrap();
        }
        for &n in &rejected {
            let unknown = client.get_task_status(&id(n)).await.unwrap_err();
            assert_eq!(unknown.code(), Code::NotFound);
        }
        Self {
            acknowledged,
            rejected,
        }
    }

    /// Checks that acknowledged tasks end and rejected ones are accepted now.
    async fn assert_recovers(self, node: &Node) {
        let mut client = node.client().with_retry_timeout(DEADLINE);
        for &n in &self.rejected {
            client.submit_task(numbered(n)).await.unwrap();
        }
        for &n in self.acknowledged.iter().chain(&self.rejected) {
            let ended = client.wait_for_task(&id(n)).await.unwrap();
            assert_eq!((ended.status.as_str(), ended.finishes), ("completed", 1));
            assert_eq!(ended.result, numbered(n).payload);
        }
        assert_echoes(&mut client).await;
    }
}

/// Returns a task whose payload repeats its number.
fn numbered(n: usize) -> Task {
    let text = format!("{n} ");
    Task {
        task_id: id(n),
        ..task("echo", text.repeat(PAYLOAD / text.len()))
    }
}

fn id(n: usize) -> String {
    format!("task-{n}")
}

/// Fills the file system except for `but` bytes.
fn fill(path: &Path, but: u64) {
    let mut file = fs::File::create(path).unwrap();
    let piece = [1; 4096];
    while file.write_all(&piece).is_ok() {}
    let full = file.metadata().unwrap().len();
    file.set_len(full - but).unwrap();
}

async fn a_data_directory_in_use_is_rejected(on: Backend) {
    let node = on.start(&[], "").await;
    let out = node.cli(&["serve", "--config", "hostel.toml"]);
    let errors = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{errors}");
    assert!(errors.contains("is in use by another hostel"), "{errors}");
    assert!(errors.contains("data_dir"), "{errors}");
    // The first node is not affected.
    let mut client = node.client();
    assert!(client.list_plugins().await.is_ok());

    // After its end, even by a kill, the directory can be used again.
    let mut node = node;
    node.kill();
    node.restart().await;
}

async fn an_unusable_port_or_directory_is_reported() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let out = hostel()
        .current_dir(dir.path())
        .env("HOSTEL__NODE__LISTEN", &address)
        .env("HOSTEL__NODE__DATA_DIR", dir.path().join("data"))
        .args(["serve", "--ports-file", "ports.json"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{errors}");
    let words = format!("cannot listen on {address} (node.listen)");
    assert!(
        errors.contains(&words) && errors.contains("in use"),
        "{errors}"
    );
    assert!(!dir.path().join("ports.json").exists());
    assert!(began.elapsed() < DEADLINE, "it gave up too late");

    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let out = hostel()
        .current_dir(dir.path())
        .env("HOSTEL__NODE__LISTEN", "127.0.0.1:0")
        .env("HOSTEL__NODE__DATA_DIR", file.join("data"))
        .arg("serve")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{errors}");
    assert!(errors.contains("(node.data_dir)"), "{errors}");
}
