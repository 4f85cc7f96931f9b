//! A node that starts with plugins that take long to compile: loaded plugins serve, loading ones are
//! listed, and tasks that a loading plugin may handle are not rejected permanently.

use crate::support::{eventually, node::Node, plugins::showcase, task, trial};
use hostel::{DistributedClient, plugin::hostile, proto::hostel::v1::ListPluginsResponse};
use libtest_mimic::Trial;
use sha2::{Digest, Sha256};
use std::{net::TcpListener, time::Duration};
use tonic::Code;

pub fn trials() -> Vec<Trial> {
    vec![trial(
        "startup::loaded_plugins_serve_while_others_load",
        loaded_plugins_serve_while_others_load,
    )]
}

async fn loaded_plugins_serve_while_others_load() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    // The first plugin uses all of its compile time on any machine.
    let mut node = Node::prepare(
        &[&showcase("echo")],
        "[plugins]\ncompile_timeout_ms = 15000\nmax_compiles = 2\n",
    );
    let slow = hostile::endless();
    node.add_wasm("a-slow.wasm", &slow);
    node.set_listen(&address);
    // The cache has its task types as if an engine of another version had loaded it before.
    let cache = node.path("data").join("cache");
    std::fs::create_dir_all(&cache).unwrap();
    let sha256: String = Sha256::digest(&slow)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    std::fs::write(cache.join(format!("{sha256}.types")), "slow").unwrap();
    node.spawn();

    let client = DistributedClient::connect_lazy(&address).unwrap();
    let mut client = client.with_retry_timeout(Duration::ZERO);
    let listed = eventually("the node answers before it is ready", async || {
        let listed = client.clone().list_plugins().await.ok()?;
        let served = listed.plugins.iter().any(|plugin| plugin.name == "echo");
        served.then_some(listed)
    })
    .await;
    assert!(
        !node.path("ports.json").exists(),
        "the node is not ready yet"
    );
    assert_eq!(
        loading(&listed),
        [("a-slow.wasm", &["slow".to_owned()][..])]
    );
    assert!(listed.starting);
    let done = client.submit_and_wait(task("echo", "hello")).await.unwrap();
    assert_eq!(&done.result[..], b"hello");

    let unknown = client.submit_task(task("other", "")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::Unavailable, "{unknown:?}");
    assert!(unknown.message().contains("still loading"), "{unknown:?}");
    assert_eq!(
        unknown.metadata().get("grpc-retry-pushback-ms").unwrap(),
        "1000"
    );
    let accepted = client.submit_task(task("slow", "")).await.unwrap();
    let status = client.get_task_status(&accepted).await.unwrap();
    assert_eq!(status.status, "pending");
    assert_eq!(status.waiting_for, "a plugin that test is still loading");

    node.wait_until_serving().await;
    // The node waits for its plugins for the compile timeout of one.
    let listed = eventually("all files are loaded or rejected", async || {
        let listed = client.clone().list_plugins().await.unwrap();
        (!listed.starting).then_some(listed)
    })
    .await;
    assert_eq!(loading(&listed), []);
    assert_eq!(listed.rejected.len(), 1);
    let unknown = client.submit_task(task("other", "")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::FailedPrecondition, "{unknown:?}");
    let log = node.log();
    assert!(log.contains("loading 2 plugins from"), "{log}");
    assert!(
        log.contains("still loading 1 of 2 plugins: a-slow.wasm"),
        "{log}"
    );
}

fn loading(listed: &ListPluginsResponse) -> Vec<(&str, &[String])> {
    let loading = listed.loading.iter();
    loading
        .map(|file| (file.file.as_str(), &file.task_types[..]))
        .collect()
}
