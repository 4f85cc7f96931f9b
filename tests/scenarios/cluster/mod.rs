//! Several nodes that share an etcd and a Redis: they list each other, components answer requests from
//! every node, and dead nodes leave the list. In this file, each node has its own queue.

mod faults;
mod rejections;
mod shared_queue;

pub(super) use crate::support::backend::Shared;
use crate::support::{
    self, eventually,
    node::Node,
    plugins::{self, probe},
};
use hostel::proto::distributed::{Message, MessageResponse};
use libtest_mimic::Trial;
use std::{
    path::Path,
    time::{Duration, Instant},
};

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![
        trial(
            "a_component_answers_requests_from_another_node",
            a_component_answers_requests_from_another_node,
        ),
        trial("a_topic_reaches_every_node", a_topic_reaches_every_node),
        trial("a_dead_node_leaves_the_list", a_dead_node_leaves_the_list),
        trial(
            "nodes_survive_restarts_of_etcd_and_redis",
            nodes_survive_restarts_of_etcd_and_redis,
        ),
        trial(
            "a_second_node_with_the_same_id_is_rejected",
            a_second_node_with_the_same_id_is_rejected,
        ),
        trial(
            "the_advertised_address_is_listed",
            the_advertised_address_is_listed,
        ),
    ];
    trials.extend(faults::trials());
    trials.extend(rejections::trials());
    trials.extend(shared_queue::trials());
    trials
}

pub(super) fn trial<F>(name: &str, scenario: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = ()>,
{
    let possible = Shared::is_installed() && plugins::can_build();
    support::trial_needing(&format!("cluster::{name}"), possible, scenario)
}

/// The time after which a dead node is no longer listed.
const TTL: Duration = Duration::from_secs(2);

impl Shared {
    fn prepare(&self, id: &str, plugins: &[&Path]) -> Node {
        self.prepare_with(id, plugins, TTL)
    }

    pub fn prepare_with(&self, id: &str, plugins: &[&Path], ttl: Duration) -> Node {
        let mut node = Node::prepare(plugins, &self.discovery_settings()).named(id);
        node.set_in("discovery", &format!("ttl_ms = {}", ttl.as_millis()));
        node
    }

    /// Prepares a node whose queue is in the shared Redis as well.
    pub fn prepare_sharing_tasks(&self, id: &str, plugins: &[&Path], ttl: Duration) -> Node {
        let mut node = self.prepare_with(id, plugins, ttl);
        node.add_settings(&self.queue_settings());
        node.set_in("queue", "lease_ttl_ms = 3000");
        node
    }

    async fn node(&self, id: &str, plugins: &[&Path]) -> Node {
        self.prepare(id, plugins).started().await
    }
}

fn message(to: &str, message_type: &str) -> Message {
    Message {
        to_node: to.into(),
        message_type: message_type.into(),
        payload: "hello".into(),
        ..Message::default()
    }
}

/// Sends a request through this node.
async fn ask(node: &Node, to: &str, message_type: &str) -> MessageResponse {
    let mut question = message(to, message_type);
    question.reply_timeout_ms = 10_000;
    node.client().send_message(question).await.expect("a reply")
}

async fn answer(node: &Node, to: &str, message_type: &str) -> String {
    let reply = eventually("the request is answered", async || {
        let response = ask(node, to, message_type).await;
        response.success.then_some(response.reply).flatten()
    })
    .await;
    String::from_utf8(reply.payload.to_vec()).expect("text")
}

/// Returns the ids that `hostel nodes list` prints.
fn listed(node: &Node) -> Vec<String> {
    let out = node.cli(&["nodes", "list", "--json"]);
    assert!(out.status.success(), "{out:?}");
    let listed: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let nodes = listed["nodes"].as_array().expect("an array");
    let ids = nodes.iter().map(|node| node["id"].as_str().expect("an id"));
    ids.map(str::to_owned).collect()
}

async fn wait_for_list(node: &Node, expected: &[&str]) {
    eventually(&format!("{expected:?} are listed"), async || {
        (listed(node) == expected).then_some(())
    })
    .await;
}

async fn a_component_answers_requests_from_another_node() {
    let shared = Shared::start().await;
    let a = shared.node("a", &[]).await;
    let b = shared.node("b", &[&probe("1.0.0")]).await;
    assert_eq!(answer(&a, "probe", "echo").await, "hello");
    assert_eq!(answer(&b, "probe", "version").await, "1.0.0");
    // The text of an error is returned as well.
    let refused = ask(&a, "probe", "error").await;
    assert!(
        refused.message.contains("the error's own words"),
        "{refused:?}"
    );
    // A node answers requests to its id from every node.
    assert!(answer(&a, "b", "").await.contains("\"probe\""));

    wait_for_list(&a, &["a", "b"]).await;
    wait_for_list(&b, &["a", "b"]).await;
    let table = String::from_utf8(a.cli(&["nodes", "list"]).stdout).expect("text");
    let line = table
        .lines()
        .find(|line| line.starts_with("b "))
        .expect("b");
    assert!(
        line.contains("probe@1.0.0") && line.contains(b.address()),
        "{table}"
    );
}

async fn a_topic_reaches_every_node() {
    let shared = Shared::start().await;
    let probe = probe("1.0.0");
    let a = shared.node("a", &[&probe]).await;
    let b = shared.node("b", &[&probe]).await;
    for node in [&a, &b] {
        // The component has subscribed once it answers, with the first count.
        assert_eq!(answer(node, "probe", "memory").await, "1");
    }
    let sent = a
        .client()
        .send_message(message("probe.topic", "memory"))
        .await;
    assert!(sent.expect("a reply").success);
    for node in [&a, &b] {
        // The message to the topic and this request may arrive in either order.
        eventually("both messages arrived", async || {
            let count: u64 = answer(node, "probe", "memory")
                .await
                .parse()
                .expect("a count");
            (count > 2).then_some(())
        })
        .await;
    }
}

async fn a_dead_node_leaves_the_list() {
    let shared = Shared::start().await;
    let a = shared.node("a", &[]).await;
    let mut b = shared.node("b", &[&probe("1.0.0")]).await;
    assert_eq!(answer(&a, "probe", "echo").await, "hello");
    let since = Instant::now();
    b.kill();
    let refused = ask(&a, "probe", "echo").await;
    assert!(
        !refused.success && refused.message.contains("receives messages for"),
        "{refused:?}"
    );
    wait_for_list(&a, &["a"]).await;
    println!("a dead node was listed for {:.1?}", since.elapsed());
    assert!(since.elapsed() < TTL * 5);
    let refused = ask(&a, "probe", "echo").await;
    assert!(
        refused.message.contains("receives messages for"),
        "{refused:?}"
    );

    b.restart().await;
    assert_eq!(answer(&a, "probe", "echo").await, "hello");
    // A node that stops leaves the list at once.
    assert!(b.terminate().await.success());
    assert_eq!(listed(&a), ["a"]);
}

async fn nodes_survive_restarts_of_etcd_and_redis() {
    let mut shared = Shared::start().await;
    let a = shared.node("a", &[]).await;
    let mut b = shared.node("b", &[&probe("1.0.0")]).await;
    assert_eq!(answer(&a, "probe", "echo").await, "hello");

    shared.etcd.kill();
    tokio::time::sleep(TTL * 2).await;
    assert_eq!(
        answer(&a, "probe", "echo").await,
        "hello",
        "the last view is used"
    );
    assert_eq!(listed(&a), ["a", "b"]);
    shared.etcd.restart().await;

    shared.redis.kill();
    let since = Instant::now();
    let refused = a.client().send_message(message("probe", "echo")).await;
    assert_eq!(refused.unwrap_err().code(), tonic::Code::Unavailable);
    assert!(since.elapsed() < Duration::from_secs(8));
    shared.redis.restart().await;
    eventually("messages pass again", async || {
        let mut question = message("probe", "echo");
        question.reply_timeout_ms = 2000;
        let response = a.client().send_message(question).await.ok()?;
        response.success.then_some(())
    })
    .await;
    tokio::time::sleep(TTL * 2).await;
    assert_eq!(listed(&a), ["a", "b"]);

    // A node without etcd and Redis still stops in time.
    shared.etcd.kill();
    shared.redis.kill();
    let since = Instant::now();
    b.terminate().await;
    assert!(
        since.elapsed() < Duration::from_secs(25),
        "{:?}",
        since.elapsed()
    );
}

async fn a_second_node_with_the_same_id_is_rejected() {
    let shared = Shared::start().await;
    let a = shared.node("a", &[]).await;
    let mut other = shared.prepare("a", &[]);
    other.spawn();
    assert!(!other.wait_for_exit().await.success());
    let log = other.log();
    assert!(
        log.contains("node.id") && log.contains(a.address()),
        "{log}"
    );
    assert_eq!(listed(&a), ["a"]);
}

async fn the_advertised_address_is_listed() {
    let shared = Shared::start().await;
    let port = |node: &Node| {
        let (_, port) = node.address().rsplit_once(':').expect("a port");
        port.to_owned()
    };
    // Without a port, the port of the socket is advertised.
    let mut named = shared.prepare("a", &[]);
    named.set("advertise = \"a.example\"");
    let named = named.started().await;
    let mut mapped = shared.prepare("b", &[]);
    mapped.set("advertise = \"b.example:7\"");
    let mapped = mapped.started().await;
    wait_for_list(&named, &["a", "b"]).await;
    let table = String::from_utf8(mapped.cli(&["nodes", "list"]).stdout).expect("text");
    let own = format!("a.example:{}", port(&named));
    assert!(
        table.contains(&own) && table.contains(" b.example:7 "),
        "{table}"
    );
    assert!(!table.contains("127.0.0.1"), "{table}");

    let mut everywhere = shared.prepare("c", &[]);
    everywhere.set_listen("0.0.0.0:0");
    everywhere.set("insecure = true");
    let outward = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
    if outward.connect("192.0.2.1:9").is_err() {
        // A machine without a network has no such address.
        everywhere.spawn();
        assert!(!everywhere.wait_for_exit().await.success());
        assert!(everywhere.log().contains("node.advertise"));
        return;
    }
    let everywhere = everywhere.started().await;
    wait_for_list(&named, &["a", "b", "c"]).await;
    let listed = named.client().list_nodes().await.expect("a list").nodes;
    let address = &listed[2].address;
    assert!(!address.starts_with("0.0.0.0"), "{address}");
    assert!(everywhere.log().contains(address), "{}", everywhere.log());
    // The advertised address can be reached.
    let stream = tokio::net::TcpStream::connect(address).await;
    stream.expect("a connection");
}
