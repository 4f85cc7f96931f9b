//! The time from the kill of a node until its running task runs on another node. Most of it is the lease,
//! which the dead node cannot release.

use crate::{
    median,
    report::Row,
    rounds, runtime,
    support::{
        eventually,
        node::Node,
        now_ms,
        plugins::{BUSY, guest},
        servers::{Kind, Server},
        task,
    },
};
use hostel::plugin::TestGuest;
use std::time::Duration;

/// The default and a short lease.
const LEASES: [Duration; 2] = [Duration::from_secs(15), Duration::from_secs(3)];

/// The run time of the task, longer than the benchmark.
const RUNS_MS: u32 = 600_000;

pub fn rows() -> Vec<Row> {
    if !Kind::Redis.is_installed() {
        eprintln!("takeover: redis-server is not installed");
        return Vec::new();
    }
    let runtime = runtime();
    let row = |lease: Duration| {
        let taken = rounds(|round| runtime.block_on(takeover(lease, round)));
        let what = format!(
            "from kill -9 of a node to its task's start on another, lease {lease:?}, backoff up to 1 s"
        );
        Row::new(what, "s", median(taken)).beside("the lease", lease.as_secs_f64())
    };
    LEASES.into_iter().map(row).collect()
}

async fn takeover(lease: Duration, round: usize) -> f64 {
    let redis = Server::start(Kind::Redis).await;
    let settings = format!(
        "[queue]\nkind = \"redis\"\nurl = \"{}\"\nlease_ttl_ms = {}\n\
         [plugin.busy.task.busy]\ntimeout_ms = {RUNS_MS}\n\
         [plugin.busy.limits]\nmax_cpu_ms = {RUNS_MS}\n",
        redis.url(),
        lease.as_millis()
    );
    let sample = TestGuest {
        name: "busy",
        task_types: &["busy"],
        handle: BUSY,
        ..TestGuest::default()
    };
    let nodes = ["a", "b"].map(|id| {
        let node = Node::prepare(&[], &settings).named(id);
        node.add_wasm("busy.wasm", &guest(&sample));
        node
    });
    let [first, second] = nodes;
    let mut first = first.started().await;
    let id = first
        .client()
        .submit_task(task("busy", RUNS_MS.to_le_bytes()))
        .await
        .expect("accepted");
    let started_on = async |node: &Node, id: &str| {
        eventually("it runs there", async || {
            let status = node.client().get_task_status(id).await.expect("known");
            (status.status == "running").then_some(status)
        })
        .await
    };
    assert_eq!(started_on(&first, &id).await.node_id, "a");
    let second = second.started().await;
    // A lease is renewed three times within its TTL; each round kills at another time between renewals.
    tokio::time::sleep(lease / 9 * u32::try_from(round).unwrap_or_default()).await;
    let killed_at = now_ms();
    first.kill();
    let status = eventually("it runs elsewhere", async || {
        let status = second.client().get_task_status(&id).await.expect("known");
        (status.status == "running" && status.node_id == "b").then_some(status)
    })
    .await;
    assert_eq!((status.attempts, status.losses), (1, 1));
    Duration::from_millis(status.started_at_ms - killed_at).as_secs_f64()
}
