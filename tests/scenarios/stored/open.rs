//! The current binary opens the data of earlier versions without losing or changing anything.

use super::{EVENT, FIRST, METADATA, SERVICE, VERSIONS, facts, fixture, prepare, tasks};
use crate::support::{
    backend::Shared,
    eventually,
    node::Node,
    now_ms,
    plugins::can_build,
    servers::{Kind, Server},
    trial, trial_needing,
};
use hostel::proto::{
    distributed::{Message, Task},
    hostel::v1::ListTasksRequest,
};
use libtest_mimic::Trial;
use serde_json::Value;
use std::{fs, path::Path};
use tokio_stream::StreamExt;
use tonic::Code;

pub fn trials() -> Vec<Trial> {
    let on_redis = can_build() && Kind::Redis.is_installed();
    let on_both = can_build() && Shared::is_installed();
    vec![
        trial("stored::a_database_opens", || async {
            for version in VERSIONS {
                a_database_opens(version).await;
            }
        }),
        trial_needing("stored::a_redis_of_one_shard_opens", on_redis, || {
            a_redis_opens(1)
        }),
        trial_needing("stored::a_redis_of_three_shards_opens", on_redis, || {
            a_redis_opens(3)
        }),
        trial_needing(
            "stored::records_in_etcd_are_read",
            on_both,
            records_in_etcd_are_read,
        ),
        trial_needing(
            "stored::a_message_is_delivered",
            on_both,
            a_message_is_heard,
        ),
    ]
}

fn read(version: &str, name: &str) -> Value {
    let text = fs::read_to_string(fixture(version, name)).expect("a fixture");
    serde_json::from_str(&text).expect("JSON")
}

async fn a_database_opens(version: &str) {
    let node = prepare("", true);
    let data = node.path("data");
    fs::create_dir(&data).expect("the data directory");
    for file in ["queue.db", "kv.db"] {
        fs::copy(fixture(version, file), data.join(file)).expect("a fixture");
    }
    let node = node.started().await;
    assert_complete(&node, &read(version, "queue.json")).await;
    assert_plugin_data(&node).await;
}

async fn a_redis_opens(shards: usize) {
    let stored = fixture(FIRST, &format!("redis-{shards}.rdb"));
    let more = |dir: &Path, _| {
        fs::copy(&stored, dir.join("dump.rdb")).expect("a fixture");
        ["--appendonly", "no"].map(str::to_owned).to_vec()
    };
    let server = Server::start_with(Kind::Redis, more).await;
    let settings = format!(
        "[queue]\nkind = \"redis\"\nurl = \"{}\"\nshards = {shards}\n",
        server.url()
    );
    let node = prepare(&settings, true).started().await;
    assert_complete(&node, &read(FIRST, &format!("redis-{shards}.json"))).await;
}

/// Checks that ended tasks are unchanged and that the others continue from their state.
async fn assert_complete(node: &Node, stored: &Value) {
    let mut client = node.client();
    let stored = stored.as_array().expect("statuses");
    let submitted = tasks();
    let listed = client.list_tasks(ListTasksRequest::default()).await;
    assert_eq!(listed.expect("a list").tasks.len(), submitted.len());
    for (before, task) in stored.iter().zip(submitted) {
        let id = before["id"].as_str().expect("an id");
        let status = client.get_task_status(id).await.expect("known");
        if before["due_at_ms"].as_u64() > Some(now_ms()) || is_over(before) {
            assert_eq!(facts(&status), *before);
        } else {
            let status = client.wait_for_task(id).await.expect("known");
            let attempts = before["attempts"].as_u64().expect("a number");
            assert_eq!(
                (status.status.as_str(), status.finishes),
                ("completed", 1),
                "{status:?}"
            );
            // A running attempt was lost, which is not charged.
            let begun = u64::from(status.attempts + status.losses);
            assert_eq!(begun, attempts + 1, "{status:?}");
            assert_eq!(status.submitted_at_ms, before["submitted_at_ms"]);
            assert_eq!(status.result, task.payload, "{id}");
        }
        // The id belongs to the submitted content only.
        let again = client.submit(task.clone()).await.expect("the same");
        assert!(again.existing, "{id}");
        for other in others(&task) {
            let refused = client.submit(other).await.expect_err("other content");
            assert_eq!(refused.code(), Code::AlreadyExists, "{id}: {refused}");
        }
        if before["status"] != "completed" && is_over(before) {
            client.requeue_task(id).await.expect("requeued");
            let now = client.wait_for_task(id).await.expect("known");
            assert_eq!(
                (now.status.as_str(), now.attempts),
                ("completed", 1),
                "{now:?}"
            );
            assert_eq!(now.result, task.payload, "{id}");
        }
    }
}

fn is_over(status: &Value) -> bool {
    status["status"] != "pending" && status["status"] != "running"
}

/// Returns variants of the task with one change each.
fn others(task: &Task) -> [Task; 3] {
    let other_type = if task.task_type == "echo" {
        "trap"
    } else {
        "echo"
    };
    let mut more = task.metadata.clone();
    more.insert("another".into(), String::new());
    [
        Task {
            payload: "other".into(),
            ..task.clone()
        },
        Task {
            metadata: more,
            ..task.clone()
        },
        Task {
            task_type: other_type.into(),
            ..task.clone()
        },
    ]
}

async fn assert_plugin_data(node: &Node) {
    let query = Message {
        to_node: "rates".into(),
        payload: "{\"query\":{}}".into(),
        reply_timeout_ms: 60_000,
        ..Message::default()
    };
    let reply = eventually("its component answers", async || {
        node.client().send_message(query.clone()).await.ok()?.reply
    })
    .await;
    let rates: Value = serde_json::from_slice(&reply.payload).expect("JSON");
    assert_eq!(rates[EVENT.0]["count"], EVENT.1, "{rates}");
}

async fn records_in_etcd_are_read() {
    let shared = Shared::start().await;
    let url = shared.etcd.url();
    let mut admin = etcd_client::Client::connect([url], None)
        .await
        .expect("an etcd");
    for (key, value) in read(FIRST, "etcd.json").as_object().expect("keys") {
        let value = value.as_str().expect("a text");
        admin.put(key.as_str(), value, None).await.expect("written");
    }
    let node = prepare(&shared.discovery_settings(), true)
        .named("other")
        .started()
        .await;
    let mut client = node.client();
    let listed = eventually("both nodes are listed", async || {
        let listed = node.client().list_nodes().await.ok()?;
        (listed.nodes.len() == 2).then_some(listed)
    })
    .await;
    let earlier = listed
        .nodes
        .iter()
        .find(|node| node.id == "test")
        .expect("the earlier");
    assert_eq!((earlier.version.as_str(), earlier.capacity), ("0.1.0", 64));
    assert_eq!(earlier.labels, ["gpu"]);
    let mut task_types = earlier.task_types.clone();
    task_types.sort();
    assert_eq!(
        task_types,
        ["busy", "echo", "later", "record-event", "trap"]
    );
    assert_eq!(earlier.components, ["rates"]);
    assert!(earlier.drained && earlier.plugins.len() == 4, "{earlier:?}");
    assert!(
        earlier
            .plugins
            .iter()
            .all(|plugin| plugin.sha256.len() == 64)
    );
    let found = client.discover(SERVICE.0).await.expect("services");
    let [web] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(
        (web.node_id.as_str(), web.address.as_str()),
        (SERVICE.1, SERVICE.2)
    );
    for (key, value) in METADATA {
        assert_eq!(web.metadata[key], value);
    }
    client.undrain_node("test").await.expect("undrained");
}

async fn a_message_is_heard() {
    let stored = read(FIRST, "message.json");
    let channel = stored["channel"].as_str().expect("a channel");
    let bytes: Vec<u8> = serde_json::from_value(stored["bytes"].clone()).expect("bytes");
    let shared = Shared::start().await;
    let node = prepare(&shared.discovery_settings(), true).started().await;
    let hello = Message {
        from_node: "room".into(),
        message_id: "hello".into(),
        ..Message::default()
    };
    let outgoing = tokio_stream::once(hello).chain(tokio_stream::pending());
    let mut client = node.client();
    let mut incoming = client.stream_messages(outgoing).await.expect("a stream");
    let response = incoming
        .next()
        .await
        .expect("an answer")
        .expect("subscribed");
    assert_eq!(response.in_reply_to, "hello");
    let redis = redis::Client::open(shared.redis.url()).expect("an address");
    let mut redis = redis
        .get_multiplexed_async_connection()
        .await
        .expect("a connection");
    let mut publish = redis::cmd("PUBLISH");
    publish.arg(channel).arg(bytes);
    let receivers: u64 = publish.query_async(&mut redis).await.expect("published");
    assert_eq!(receivers, 1);
    let message = incoming
        .next()
        .await
        .expect("a message")
        .expect("a message");
    let expected = Message {
        reply_timeout_ms: 0,
        ..super::message()
    };
    assert_eq!(message, expected);
}
