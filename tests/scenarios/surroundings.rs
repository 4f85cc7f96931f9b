//! A bad place to live: no plugins directory, no space on disk or in Redis, no free port. The node says
//! so, loses nothing that it acknowledged, and goes on by itself once things are better.

use crate::support::{
    PATIENCE,
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
            "surroundings::a_file_in_place_of_the_plugins_directory",
            no_directory,
        ),
        on_both(
            "surroundings::a_plugins_directory_that_goes_away",
            directory_goes_away,
        ),
        on_both_needing("surroundings::one_node_a_data_directory", true, data_in_use),
    ];
    let others = [
        trial_needing(
            "surroundings::a_full_disk_under_the_queue",
            can_mount() && can_build(),
            full_disk,
        ),
        trial_needing(
            "surroundings::a_full_queue_on_redis",
            can_build() && Shared::is_here(),
            full_redis,
        ),
        trial_needing("surroundings::a_taken_port", true, taken_port),
    ];
    on_backends.into_iter().flatten().chain(others).collect()
}

async fn no_directory(on: Backend) {
    let mut node = on.prepare(&[], "").await;
    fs::remove_dir(node.plugins_dir()).unwrap();
    fs::write(node.plugins_dir(), "not a directory").unwrap();
    node.restart().await;
    assert!(node.log().contains("plugins directory"), "{}", node.log());

    let mut client = node.client();
    let refused = client.submit_task(task("echo", "")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("drop a plugin"), "{refused}");

    fs::remove_file(node.plugins_dir()).unwrap();
    fs::create_dir(node.plugins_dir()).unwrap();
    node.add_plugin(&showcase("echo"));
    hosts(&client, &["echo"]).await;
    echo(&mut client).await;
}

async fn directory_goes_away(on: Backend) {
    let node = on.start(&[&showcase("echo")], "").await;
    let mut client = node.client();
    echo(&mut client).await;

    let away = node.path("away");
    fs::rename(node.plugins_dir(), &away).unwrap();
    eventually("the node says that the directory is gone", || async {
        node.log().contains("cannot be read").then_some(())
    })
    .await;
    // What serves goes on serving: nobody has deleted a plugin.
    echo(&mut client).await;
    let listed = || String::from_utf8(node.cli(&["plugins", "list"]).stdout).unwrap();
    assert!(listed().contains("cannot be read"), "{}", listed());

    fs::create_dir(node.plugins_dir()).unwrap();
    node.add_plugin(&showcase("text"));
    hosts(&client, &["text"]).await;
    let words = client.submit_and_wait(task("word-count", "a b")).await;
    assert_eq!(words.unwrap().status, "completed");

    fs::remove_dir_all(node.plugins_dir()).unwrap();
    fs::rename(&away, node.plugins_dir()).unwrap();
    hosts(&client, &["echo"]).await;
    echo(&mut client).await;
    assert!(!listed().contains("cannot be read"), "{}", listed());
}

/// Waits until exactly these plugins serve, submissions included.
async fn hosts(client: &DistributedClient, plugins: &[&str]) {
    eventually("the plugins that are there serve", || {
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

async fn echo(client: &mut DistributedClient) {
    let echoed = client.submit_and_wait(task("echo", "over")).await.unwrap();
    assert_eq!(echoed.status, "completed", "{echoed:?}");
    assert_eq!(echoed.result, "over".as_bytes());
}

/// Several commits' worth, so that each refusal is the disk's.
const PAYLOAD: usize = 20_000;

async fn full_disk() {
    let mut node = Node::prepare(&[&showcase("echo")], "").on_small_disk("8m");
    node.restart().await;
    echo(&mut node.client()).await;
    let ballast = node.data_dir().join("ballast");
    fill(&ballast, 1 << 20);
    let full = Full::found(&node).await;
    // The operator is told what to do.
    let log = node.log();
    assert!(log.contains("is full; free some space"), "{log}");
    assert!(node.exit_status().is_none());
    fs::remove_file(ballast).unwrap();
    full.has_room_again(&node).await;
}

async fn full_redis() {
    let mut node = Backend::Shared.start(&[&showcase("echo")], "").await;
    echo(&mut node.client()).await;
    let limit = async |node: &Node, to| {
        let shared = node.shared.as_ref().unwrap();
        let set = ["CONFIG", "SET", "maxmemory", to];
        shared.redis.say(&set).await.unwrap();
    };
    limit(&node, "8mb").await;
    let full = Full::found(&node).await;
    eventually("the operator is told", async || {
        node.log().contains("queue.reserve_percent").then_some(())
    })
    .await;
    assert!(node.exit_status().is_none());
    limit(&node, "0").await;
    full.has_room_again(&node).await;
}

/// Ledgers of our own, of a queue that has no room: what was acknowledged, and what was refused.
struct Full {
    acknowledged: Vec<usize>,
    refused: Vec<usize>,
}

impl Full {
    /// Submits until there is no room, and somewhat longer.
    async fn found(node: &Node) -> Self {
        let mut client = node.client();
        let (mut acknowledged, mut refused) = (Vec::new(), Vec::new());
        let since = Instant::now();
        for n in 0.. {
            let error = match client.submit_task(numbered(n)).await {
                Ok(_) => {
                    acknowledged.push(n);
                    continue;
                }
                Err(error) => error,
            };
            let told = error.message();
            // What stops short of the last room says which; what comes to the end of it, that it waits.
            let expected = match error.code() {
                Code::ResourceExhausted => "takes no new tasks",
                Code::Unavailable => "nothing has changed; try again later",
                other => panic!("{other:?}: {told}"),
            };
            assert!(told.contains(expected), "{told}");
            assert!(!told.contains("queue.db"), "{told}");
            refused.push(n);
            if refused.len() >= 20 {
                break;
            }
            assert!(since.elapsed() < PATIENCE, "it never filled up");
        }
        let count = acknowledged.len();
        assert!(count > 5, "{count} acknowledged");
        // Questions are still answered, and the refused left nothing behind.
        for &n in &acknowledged {
            client.get_task_status(&id(n)).await.unwrap();
        }
        for &n in &refused {
            let unknown = client.get_task_status(&id(n)).await.unwrap_err();
            assert_eq!(unknown.code(), Code::NotFound);
        }
        Self {
            acknowledged,
            refused,
        }
    }

    /// Whatever was acknowledged ends, and what was refused is taken now.
    async fn has_room_again(self, node: &Node) {
        let mut patient = node.client().with_patience(PATIENCE);
        for &n in &self.refused {
            patient.submit_task(numbered(n)).await.unwrap();
        }
        for &n in self.acknowledged.iter().chain(&self.refused) {
            let ended = patient.wait_for_task(&id(n)).await.unwrap();
            assert_eq!((ended.status.as_str(), ended.finishes), ("completed", 1));
            assert_eq!(ended.result, numbered(n).payload);
        }
        echo(&mut patient).await;
    }
}

/// A task that is its number, many times over.
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

/// Takes all room but these bytes.
fn fill(path: &Path, but: u64) {
    let mut file = fs::File::create(path).unwrap();
    let piece = [1; 4096];
    while file.write_all(&piece).is_ok() {}
    let full = file.metadata().unwrap().len();
    file.set_len(full - but).unwrap();
}

async fn data_in_use(on: Backend) {
    let node = on.start(&[], "").await;
    let out = node.cli(&["serve", "--config", "hostel.toml"]);
    let told = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{told}");
    assert!(told.contains("is in use by another hostel"), "{told}");
    assert!(told.contains("data_dir"), "{told}");
    // The first one has not noticed.
    let mut client = node.client();
    assert!(client.list_plugins().await.is_ok());

    // When it is gone, its place is free, however it went.
    let mut node = node;
    node.kill();
    node.restart().await;
}

async fn taken_port() {
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
    let told = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{told}");
    let words = format!("cannot listen on {address} (node.listen)");
    assert!(told.contains(&words) && told.contains("in use"), "{told}");
    assert!(!dir.path().join("ports.json").exists());
    assert!(began.elapsed() < PATIENCE, "it gave up late");

    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let out = hostel()
        .current_dir(dir.path())
        .env("HOSTEL__NODE__LISTEN", "127.0.0.1:0")
        .env("HOSTEL__NODE__DATA_DIR", file.join("data"))
        .arg("serve")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{told}");
    assert!(told.contains("(node.data_dir)"), "{told}");
}
