//! Creates the fixtures with the binary of an earlier version. These trials are ignored unless
//! `tests/fixtures/make` runs them.

use super::{SERVICE, VERSION, facts, fixture, message, prepare, tasks};
use crate::support::{
    backend::Shared,
    eventually,
    node::Node,
    servers::{Kind, Server},
};
use etcd_client::GetOptions;
use futures_util::StreamExt;
use hostel::{
    DistributedClient,
    proto::distributed::{RegisterRequest, TaskStatus},
};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::{collections::HashMap, env, fs, future::Future, path::PathBuf};

/// The variable with the path of the binary that creates the fixtures.
const BINARY: &str = "HOSTEL_FIXTURES_BY";

pub fn trials() -> Vec<Trial> {
    [
        trial("embedded", || async { embedded().await }),
        trial("redis_of_one_shard", || redis(1)),
        trial("redis_of_three_shards", || redis(3)),
        trial("etcd", || async { etcd().await }),
        trial("broker", || async { broker().await }),
    ]
    .into()
}

fn trial<F: Future<Output = ()>>(name: &str, make: impl FnOnce() -> F + Send + 'static) -> Trial {
    let name = format!("stored::make::{name}");
    let run = move || {
        let runtime = tokio::runtime::Runtime::new()?;
        runtime.block_on(make());
        Ok(())
    };
    Trial::test(name, run).with_ignored_flag(true)
}

async fn start(settings: &str) -> Node {
    let binary = env::var_os(BINARY).unwrap_or_else(|| panic!("{BINARY} names no binary"));
    let mut node = prepare(settings, false);
    node.set_program(PathBuf::from(binary));
    node.started().await
}

async fn becomes(client: &DistributedClient, id: &str, is: impl Fn(&TaskStatus) -> bool) {
    eventually(&format!("{id} reaches its state"), async || {
        let status = client.clone().get_task_status(id).await.expect("known");
        is(&status).then_some(())
    })
    .await;
}

/// Brings every task into its state and returns the statuses.
async fn bring_about(node: &Node) -> Value {
    let mut client = node.client();
    for task in tasks() {
        let id = task.task_id.clone();
        client.submit_task(task).await.expect("accepted");
        let state = id.split('-').next().expect("a state").to_owned();
        match id.as_str() {
            "failed-again" => {
                becomes(&client, &id, |task| task.status == "failed").await;
                client.requeue_task(&id).await.expect("requeued");
                becomes(&client, &id, |task| task.status == "failed").await;
            }
            "cancelled" => {
                becomes(&client, &id, |task| {
                    task.attempts == 1 && task.due_at_ms > 0
                })
                .await;
                client.cancel_task(&id).await.expect("cancelled");
            }
            "cancelled-running" => {
                becomes(&client, &id, |task| task.status == "running").await;
                client.cancel_task(&id).await.expect("an answer");
                becomes(&client, &id, |task| task.status == "cancelled").await;
            }
            "waiting" => {
                becomes(&client, &id, |task| {
                    task.attempts == 1 && task.due_at_ms > 0
                })
                .await
            }
            "queued" => becomes(&client, &id, |task| task.status == "pending").await,
            _ => becomes(&client, &id, |task| task.status == state).await,
        }
    }
    let mut statuses = Vec::new();
    for task in tasks() {
        let status = client.get_task_status(&task.task_id).await.expect("known");
        statuses.push(facts(&status));
    }
    statuses.into()
}

fn write(name: &str, content: &Value) {
    let text = serde_json::to_string_pretty(content).expect("JSON");
    fs::write(fixture(VERSION, name), text + "\n").expect("a fixture");
}

/// Creates `queue.db` and `kv.db` as a kill leaves them, with their write-ahead logs merged.
async fn embedded() {
    let mut node = start("").await;
    let statuses = bring_about(&node).await;
    let data = node.path("data");
    node.kill();
    for file in ["queue.db", "kv.db"] {
        let database = rusqlite::Connection::open(data.join(file)).expect("a database");
        let merge = "PRAGMA wal_checkpoint(TRUNCATE)";
        database.query_row(merge, (), |_| Ok(())).expect("a log");
        drop(database);
        fs::copy(data.join(file), fixture(VERSION, file)).expect("a fixture");
    }
    write("queue.json", &statuses);
}

/// Creates the data of a Redis whose nodes were killed.
async fn redis(shards: usize) {
    let more = |_: &std::path::Path, _| ["--appendonly", "no"].map(str::to_owned).to_vec();
    let server = Server::start_with(Kind::Redis, more).await;
    let settings = format!(
        "[queue]\nkind = \"redis\"\nurl = \"{}\"\nshards = {shards}\n",
        server.url()
    );
    let mut node = start(&settings).await;
    let statuses = bring_about(&node).await;
    node.kill();
    server.command(&["SAVE"]).await.expect("saved");
    let dump = server.dir().join("dump.rdb");
    fs::copy(dump, fixture(VERSION, &format!("redis-{shards}.rdb"))).expect("a fixture");
    write(&format!("redis-{shards}.json"), &statuses);
}

/// Creates a file with every key of a cluster in etcd and its value.
async fn etcd() {
    let shared = Shared::start().await;
    let node = start(&shared.discovery_settings()).await;
    let mut client = node.client();
    let (service_name, node_id, address) = SERVICE;
    let service = RegisterRequest {
        node_id: node_id.into(),
        service_name: service_name.into(),
        address: address.into(),
        metadata: HashMap::from(super::METADATA.map(|(key, value)| (key.into(), value.into()))),
        ttl_ms: 600_000,
    };
    client.register(service).await.expect("registered");
    client.drain_node("test").await.expect("drained");
    let admin = etcd_client::Client::connect([shared.etcd.url()], None)
        .await
        .expect("an etcd");
    let all = eventually("the plugins are announced", async || {
        let all = GetOptions::new().with_prefix();
        let got = admin.clone().get("/hostel/", Some(all)).await.ok()?;
        let texts = got.kvs().iter().map(|pair| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
            (text(pair.key()), text(pair.value()))
        });
        let all: Vec<(String, String)> = texts.collect();
        let announced = all.iter().any(|(_, value)| value.contains("record-event"));
        announced.then_some(all)
    })
    .await;
    // This key exists only for the first half minute.
    let all: serde_json::Map<String, Value> = all
        .into_iter()
        .filter(|(key, _)| !key.ends_with("store-is-new"))
        .map(|(key, value)| (key, value.into()))
        .collect();
    write("etcd.json", &all.into());
}

/// Creates a file with the channel and the bytes of a message in Redis.
async fn broker() {
    let shared = Shared::start().await;
    let node = start(&shared.discovery_settings()).await;
    let redis = redis::Client::open(shared.redis.url()).expect("an address");
    let mut listener = redis.get_async_pubsub().await.expect("a connection");
    listener.psubscribe("hostel:*").await.expect("subscribed");
    let mut incoming = listener.on_message();
    node.client().send_message(message()).await.expect("sent");
    let message = loop {
        let message = incoming.next().await.expect("a message");
        if message.get_channel_name().ends_with("room") {
            break message;
        }
    };
    let bytes = message.get_payload_bytes();
    write(
        "message.json",
        &json!({ "channel": message.get_channel_name(), "bytes": bytes }),
    );
}
