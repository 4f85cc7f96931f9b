//! Messages: over a stream, compared with a bare stream; to a component and back, compared with a unary
//! echo; and within a node, compared with bare calls of a warm instance.

use crate::{
    child::Server,
    latency,
    load::{CONNECTIONS, Client, MEASURED, PAYLOAD_BYTES, WARM_UP},
    median,
    report::{Aim, Row},
    rounds, runtime,
    support::{node::Node, plugins::build_source},
    warm::Warm,
};
use bytes::Bytes;
use hostel::{
    Config,
    broker::{self, LocalBroker},
    component::{Components, Router},
    discovery::LocalDiscovery,
    health::Health,
    lifecycle::Component as _,
    plugin::{Capabilities, PluginHost},
    proto::distributed::Message,
    task::Name,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

/// The number of messages in flight on a stream, large enough that neither side waits.
const WINDOW: usize = 1024;
/// The number of requests in flight to a component.
const ASKING: usize = 64;

/// A component that answers with the payload.
const PARROT: &str = r#"use hostel_sdk::prelude::*;

struct Parrot;

impl Component for Parrot {
    type In = Vec<u8>;
    type Out = Vec<u8>;

    fn start() -> Result<Self> {
        Ok(Self)
    }

    fn on_message(&mut self, payload: Vec<u8>, _: &Message) -> Result<Vec<u8>> {
        Ok(payload)
    }
}

hostel_sdk::plugin! {
    component = Parrot,
}
"#;

pub fn parrot() -> PathBuf {
    build_source("parrot", "1.0.0", PARROT)
}

pub fn message(to: &str) -> Message {
    Message {
        from_node: "bench".into(),
        to_node: to.into(),
        payload: Bytes::from_static(&[7; PAYLOAD_BYTES]),
        ..Message::default()
    }
}

pub fn rows() -> Vec<Row> {
    let runtime = runtime();
    let echo = Server::echo();
    let node = runtime.block_on(Node::start(&[&parrot()], ""));
    let measured: Vec<[f64; 6]> = rounds(|_| {
        runtime.block_on(async {
            let asking = async |address: &str| {
                let client = Client::connect(address).await;
                latency::times(client, |mut client| async move {
                    client.ask(message("parrot")).await;
                })
                .await
            };
            let (call, _) = asking(&echo.address).await;
            let (p50, p99) = asking(node.address()).await;
            [
                stream_rate(&echo.address, "").await,
                stream_rate(node.address(), "").await,
                stream_rate(node.address(), "bench").await,
                call,
                p50,
                p99,
            ]
        })
    });
    let column = |index: usize| median(measured.iter().map(|round| round[index]).collect());
    let stream =
        |what: String, ours| Row::new(what, "/s", ours).beside("bare stream echo", column(0));
    let streams = format!("{WINDOW} under way on each of {CONNECTIONS} streams");
    let mut rows = vec![
        stream(format!("messages answered, {streams}"), column(1)).aim(Aim::RatioAtLeast(0.25)),
        stream(
            "the same, each delivered to its topic as well".into(),
            column(2),
        ),
        Row::new("client to component and back, p50", "ms", column(4))
            .beside("one unary echo", column(3)),
        Row::new("the same, p99", "ms", column(5)).beside("one unary echo", column(3)),
    ];
    rows.extend(inside(&runtime));
    rows
}

/// Measures the messages a second on streams with a full window in flight. With a topic, to which the
/// stream itself subscribes, each message has to arrive there as well.
async fn stream_rate(address: &str, to: &'static str) -> f64 {
    let begin = Instant::now() + WARM_UP;
    let end = begin + MEASURED;
    let mut streams = Vec::new();
    for index in 0..CONNECTIONS {
        let mut client = Client::connect(address).await;
        // Each stream has its own topic.
        let own = format!("bench-{index}");
        let next = move || Message {
            from_node: own.clone(),
            to_node: if to.is_empty() {
                String::new()
            } else {
                own.clone()
            },
            ..message("")
        };
        streams.push(tokio::spawn(async move {
            let (say, said) = mpsc::channel(WINDOW);
            for _ in 0..WINDOW {
                say.send(next()).await.expect("a stream");
            }
            let mut hear = client.stream(ReceiverStream::new(said)).await;
            let mut counted = 0_u32;
            loop {
                let heard = hear.next().await.expect("a stream").expect("a message");
                assert_eq!(heard.error, "");
                // With a topic, both the response and the message arrive.
                if to.is_empty() != (heard.message_type == "response") {
                    continue;
                }
                let now = Instant::now();
                if now >= end {
                    return counted;
                }
                counted += u32::from(now >= begin);
                say.send(next()).await.expect("a stream");
            }
        }));
    }
    let mut counted = 0;
    for stream in streams {
        counted += stream.await.expect("a client");
    }
    f64::from(counted) / MEASURED.as_secs_f64()
}

/// Measures messages within one process and without gRPC: from the router through the mailbox and back,
/// compared with calls of the guest's function.
fn inside(runtime: &tokio::runtime::Runtime) -> Vec<Row> {
    let dir = tempfile::tempdir().expect("a directory");
    let config = config(dir.path());
    let limits = &config.limits;
    let discovery = Arc::new(LocalDiscovery::new(limits));
    let broker = Arc::new(LocalBroker::default());
    let node = name("bench");
    let bytes = limits.max_payload_bytes;
    let router = Arc::new(Router::new(node, broker, discovery, bytes));
    let host = PluginHost::new(&config, Capabilities::default(), &Health::default())
        .expect("a plugin host");
    let components = Components::new(host.clone(), router.clone(), Health::default(), &config);
    runtime.block_on(async {
        host.start().await.expect("a start");
        host.loaded().await;
        components.start().await.expect("a start");
    });
    let measured: Vec<[f64; 2]> = rounds(|_| {
        let warm = Warm::new(&config, &parrot());
        let raw = host.runtime().spawn(warm.per_second());
        [
            runtime.block_on(raw).expect("a measurement"),
            runtime.block_on(asked_per_second(&router)),
        ]
    });
    runtime.block_on(async {
        components.stop().await.expect("a stop");
        host.stop().await.expect("a stop");
    });
    let column = |index: usize| median(measured.iter().map(|round| round[index]).collect());
    vec![
        Row::new(
            "messages through one component, within the node",
            "/s",
            column(1),
        )
        .beside("bare calls of a warm instance", column(0)),
    ]
}

async fn asked_per_second(router: &Arc<Router>) -> f64 {
    let begin = Instant::now() + WARM_UP;
    let end = begin + MEASURED;
    let asking: Vec<_> = (0..ASKING)
        .map(|_| {
            let router = router.clone();
            tokio::spawn(async move {
                let mut counted = 0_u32;
                loop {
                    let pending = router.request(question()).await.expect("a receiver");
                    let answer = pending.wait(Duration::from_secs(30)).await;
                    assert_eq!(answer.expect("an answer").error, "");
                    let now = Instant::now();
                    if now >= end {
                        return counted;
                    }
                    counted += u32::from(now >= begin);
                }
            })
        })
        .collect();
    let mut counted = 0;
    for each in asking {
        counted += each.await.expect("a measurement");
    }
    f64::from(counted) / MEASURED.as_secs_f64()
}

fn question() -> broker::Message {
    broker::Message {
        id: "one".into(),
        from: String::new(),
        to: name("parrot"),
        message_type: String::new(),
        payload: Bytes::from_static(&[7; PAYLOAD_BYTES]),
        in_reply_to: String::new(),
        error: String::new(),
        reply_to: None,
    }
}

fn name(given: &str) -> Name {
    Name::parse("name", given).expect("a name")
}

fn config(dir: &Path) -> Config {
    let plugins = dir.join("plugins");
    std::fs::create_dir(&plugins).expect("a directory");
    std::fs::copy(parrot(), plugins.join("parrot.wasm")).expect("the plugin");
    let mut config = Config::default();
    config.plugins.dir = plugins;
    config.plugins.compiler = Some(env!("CARGO_BIN_EXE_hostel").into());
    config.node.data_dir = dir.join("data");
    config
}
