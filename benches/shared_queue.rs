//! Tasks through a queue in Redis, compared with bare entries on the same server: with one, two and three
//! nodes, synced every second and always. Nodes, clients and Redis share the cores of this machine, so
//! more nodes do not increase the throughput.

use crate::{
    load::{CONNECTIONS, Done, IN_FLIGHT, MEASURED, PAYLOAD_BYTES, result_rate, submit_rate},
    report::Row,
    runtime,
    support::{node::Node, plugins::showcase, servers::Kind},
    synced_redis::{self, SYNCS},
};
use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use std::time::Instant;

/// The number of entries of a pipeline, and the number of connections.
const PIPELINE: usize = 64;
const PIPELINES: usize = 4;

pub fn rows() -> Vec<Row> {
    if !Kind::Redis.is_installed() {
        eprintln!("shared-queue: redis-server is not installed");
        return Vec::new();
    }
    let runtime = runtime();
    SYNCS
        .into_iter()
        .flat_map(|sync| runtime.block_on(with(sync)))
        .collect()
}

async fn with(sync: &str) -> Vec<Row> {
    let (server, mut redis) = synced_redis::start(sync).await;
    let client = redis::Client::open(server.url()).expect("a URL");
    let connect = async || client.get_multiplexed_async_connection().await;
    let bare = bare(join_all((0..PIPELINES).map(|_| connect())).await).await;

    let mut nodes = Vec::new();
    let mut rows = Vec::new();
    let limit = "bare pipelined XADD";
    for id in ["a", "b", "c"] {
        let settings = format!("[queue]\nkind = \"redis\"\nurl = \"{}\"\n", server.url());
        let node = Node::prepare(&[&showcase("echo")], &settings).named(id);
        nodes.push(node.started().await);
        if let [node] = &nodes[..] {
            let submits = submit_rate(node.address(), node.pid()).await.per_second;
            let what = format!("{sync}: submits while the worker runs them");
            rows.push(Row::new(what, "/s", submits).beside(limit, bare));
            run_out(&mut redis).await;
        }
        let before = redis_cpu(&mut redis).await;
        let rates = nodes
            .iter()
            .map(|node| result_rate(node.address(), node.pid()));
        let rates: Vec<Done> = join_all(rates).await;
        let per_second: f64 = rates.iter().map(|done| done.per_second).sum();
        let cpu = redis_cpu(&mut redis).await - before;
        let load = format!("{IN_FLIGHT} in flight on {CONNECTIONS} connections to each");
        let what = format!(
            "{sync}: tasks with results compared, {} nodes, {load}",
            nodes.len()
        );
        rows.push(Row::new(what, "/s", per_second).beside(limit, bare));
        if nodes.len() == 1 {
            // Both include the warm-up.
            let all = cpu / (per_second * 1.2 * MEASURED.as_secs_f64());
            let what = format!("{sync}: processor time of Redis for one task");
            rows.push(Row::new(what, "µs", all * 1e6));
        }
    }
    rows
}

/// Waits until all submitted tasks have run, because results would wait behind them.
async fn run_out(redis: &mut MultiplexedConnection) {
    let mut open = redis::cmd("HGET");
    open.arg("{hostel:0}:n").arg("open");
    loop {
        let open: Option<u64> = open.query_async(redis).await.expect("a counter");
        if open.unwrap_or_default() == 0 {
            return;
        }
        tokio::time::sleep(MEASURED / 20).await;
    }
}

/// Measures the bare entries a second.
async fn bare(connections: Vec<redis::RedisResult<MultiplexedConnection>>) -> f64 {
    let payload = vec![7_u8; PAYLOAD_BYTES];
    let end = Instant::now() + MEASURED;
    let writers = connections.into_iter().map(async |connection| {
        let (mut connection, mut added) = (connection.expect("a connection"), 0);
        while Instant::now() < end {
            let mut pipeline = redis::pipe();
            for _ in 0..PIPELINE {
                pipeline
                    .cmd("XADD")
                    .arg("bare")
                    .arg("*")
                    .arg("p")
                    .arg(&payload)
                    .ignore();
            }
            pipeline.exec_async(&mut connection).await.expect("entries");
            added += PIPELINE;
        }
        added
    });
    let added: usize = join_all(writers).await.into_iter().sum();
    added as f64 / MEASURED.as_secs_f64()
}

/// Returns the processor time of Redis in seconds.
async fn redis_cpu(redis: &mut MultiplexedConnection) -> f64 {
    let mut info = redis::cmd("INFO");
    let info: String = info.arg("cpu").query_async(redis).await.expect("its state");
    let used = |key: &str| -> f64 {
        let line = info.lines().find_map(|line| line.strip_prefix(key));
        line.expect("a figure").trim().parse().expect("a number")
    };
    used("used_cpu_user:") + used("used_cpu_sys:")
}
