//! Faults under load on nodes that share a queue: nodes, servers and connections fail and recover.
//! Acknowledged tasks end exactly once, checked against a ledger outside the nodes.
//! `HOSTEL_TEST_LONG=1` gives each fault more time.

use super::Shared;
use crate::support::{
    eventually,
    ledger::{Load, SETTINGS},
    node::Node,
    plugins::{BUSY, guest},
    proxy::Proxy,
    random, task,
};
use hostel::plugin::TestGuest;
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::HashSet,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};
use tokio::time::sleep;

const NODES: [&str; 3] = ["a", "b", "c"];

/// The time after which a dead node is no longer listed.
const TTL: Duration = Duration::from_secs(2);

/// Somewhat more than the TTL of a lease in these clusters.
const PAST_THE_LEASE: Duration = Duration::from_secs(5);

pub fn trials() -> Vec<Trial> {
    vec![
        super::trial(
            "faults::acknowledged_tasks_survive_node_kills",
            acknowledged_tasks_survive_node_kills,
        ),
        super::trial(
            "faults::a_paused_node_loses_its_leases",
            a_paused_node_loses_its_leases,
        ),
        super::trial(
            "faults::a_late_result_is_rejected",
            a_late_result_is_rejected,
        ),
        super::trial(
            "faults::a_new_node_waits_for_existing_leases",
            a_new_node_waits_for_existing_leases,
        ),
        super::trial(
            "faults::tasks_survive_redis_restarts_and_pauses",
            tasks_survive_redis_restarts_and_pauses,
        ),
        super::trial(
            "faults::tasks_survive_etcd_restarts_and_lost_leases",
            tasks_survive_etcd_restarts_and_lost_leases,
        ),
        super::trial(
            "faults::tasks_survive_a_network_partition",
            tasks_survive_a_network_partition,
        ),
        super::trial(
            "faults::tasks_survive_plugin_changes_on_one_node",
            tasks_survive_plugin_changes_on_one_node,
        ),
        super::trial(
            "faults::a_rolling_restart_loses_no_attempt",
            a_rolling_restart_loses_no_attempt,
        ),
    ]
}

/// Returns the number of repetitions of an ordinary or a long run.
fn times(ordinary: usize, long: usize) -> usize {
    match std::env::var_os("HOSTEL_TEST_LONG") {
        Some(_) => long,
        None => ordinary,
    }
}

/// The text that a guest logs when it runs. The log does not depend on the task's record.
pub(super) const RUNS: &str = "it runs";

/// Returns a guest that logs this text and then runs `handle`.
fn logging_guest(name: &str, version: &str, handle: &str) -> Vec<u8> {
    let log = format!(
        "(call $log (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 5000) (i32.const {}))",
        RUNS.len()
    );
    guest(&TestGuest {
        name,
        version,
        task_types: &[name],
        handle: &format!("{log} {handle}"),
        extra: &format!("(data (i32.const 5000) \"{RUNS}\")"),
        ..TestGuest::default()
    })
}

fn echo(version: &str) -> Vec<u8> {
    logging_guest("echo", version, TestGuest::default().handle)
}

pub(super) fn prepare(shared: &Shared, id: &str) -> Node {
    let mut node = shared.prepare_sharing_tasks(id, &[], TTL);
    node.add_settings(SETTINGS);
    node.add_wasm("echo.wasm", &echo("1.0.0"));
    node
}

async fn three(shared: &Shared) -> Vec<Node> {
    let mut nodes = Vec::new();
    for id in NODES {
        nodes.push(prepare(shared, id).started().await);
    }
    nodes
}

fn addresses(nodes: &[Node]) -> Vec<String> {
    nodes.iter().map(|node| node.address().to_owned()).collect()
}

/// Ends the load, reads all acknowledged tasks from the node, and prints a summary. Returns the number
/// of lost attempts.
async fn settle(what: &str, load: Load, nodes: &[Node], reader: usize) -> u64 {
    let ledger = load.ledger.clone();
    let (tasks, lost) = load.settle(nodes[reader].address()).await;
    let (mut runs, mut run) = (0, HashSet::new());
    for log in nodes.iter().map(Node::log) {
        let lines = log.lines().filter(|line| line.contains(RUNS));
        for task in lines.filter_map(|line| line.split_once(" task=")) {
            let id = task.1.split(' ').next().unwrap_or_default();
            runs += 1;
            run.insert(id.to_owned());
        }
    }
    println!(
        "{what}: {tasks} tasks acknowledged and ended once, {} calls broken, {lost} attempts lost \
         and repeated; according to the guests, {} tasks ran and {} of {runs} runs were repetitions",
        ledger.broken_calls.load(Relaxed),
        run.len(),
        runs - run.len(),
    );
    assert!(run.len() >= tasks, "not all have run");
    lost
}

async fn acknowledged_tasks_survive_node_kills() {
    let mut rng = random("nodes");
    let shared = Shared::start().await;
    let mut nodes = three(&shared).await;
    let mut load = Load::start(&mut rng);
    load.set_addresses(addresses(&nodes));
    for _ in 0..times(12, 60) {
        let since = Instant::now();
        load.wait_for_more(rng.u64(1..100)).await;
        let victim = rng.usize(..nodes.len());
        nodes[victim].kill();
        nodes[victim].restart().await;
        load.set_addresses(addresses(&nodes));
        let reader = rng.usize(..nodes.len());
        load.ledger.audit(nodes[reader].address(), &mut rng).await;
        sleep(Duration::from_secs(2).saturating_sub(since.elapsed())).await;
    }
    let lost = settle("nodes killed", load, &nodes, 0).await;
    assert!(
        lost > 0,
        "no kill hit a running task, so the test shows nothing"
    );
}

pub(super) fn signal(node: &Node, signal: Signal) {
    let pid = Pid::from_raw(node.pid().cast_signed()).expect("a process");
    kill_process(pid, signal).expect("a signal");
}

async fn a_paused_node_loses_its_leases() {
    let mut rng = random("stop");
    let shared = Shared::start().await;
    let nodes = three(&shared).await;
    let mut load = Load::start(&mut rng);
    // Until the stopped node held a lease, which another node reaps.
    let reaped = |node: &Node| node.log().contains("attempts that were lost");
    let mut stops = 0;
    while stops < times(2, 10) || !nodes.iter().any(reaped) {
        load.set_addresses(addresses(&nodes));
        load.wait_for_more(rng.u64(50..100)).await;
        signal(&nodes[1], Signal::STOP);
        load.set_addresses(vec![nodes[0].address().into(), nodes[2].address().into()]);
        sleep(PAST_THE_LEASE).await;
        signal(&nodes[1], Signal::CONT);
        load.wait_for_more(50).await;
        stops += 1;
        assert!(
            stops < 50,
            "no stop hit a running task, so the test shows nothing"
        );
    }
    settle("a node stopped", load, &nodes, 1).await;
}

/// The node with the lease is stopped while another node runs the task, and then returns its result.
async fn a_late_result_is_rejected() {
    let shared = Shared::start().await;
    let busy = logging_guest("busy", "1.0.0", BUSY);
    let mut nodes = Vec::new();
    for id in ["a", "b"] {
        let node = shared.prepare_sharing_tasks(id, &[], TTL);
        node.add_wasm("busy.wasm", &busy);
        nodes.push(node.started().await);
    }
    let client = nodes[0].client();
    let work = task("busy", 4000_u32.to_le_bytes());
    let id = eventually("the task is accepted", async || {
        client.clone().submit_task(work.clone()).await.ok()
    })
    .await;
    // Redis marks a task as running before the node has read the reply, so the log shows that it runs.
    let holder = eventually("it runs", async || {
        nodes.iter().position(|node| node.log().contains(RUNS))
    })
    .await;
    let (holder, other) = (&nodes[holder], &nodes[1 - holder]);
    signal(holder, Signal::STOP);
    let status = other.client().get_task_status(&id).await.expect("known");
    assert_eq!(
        status.status, "running",
        "the task has ended too early for this test"
    );
    let ended = other.client().wait_for_task(&id).await.expect("known");
    // The lost attempt is not charged, because the task is not suspected.
    assert_eq!((ended.status.as_str(), ended.attempts), ("completed", 1));
    assert_eq!(ended.losses, 1);
    signal(holder, Signal::CONT);
    eventually("the node learns that its lease is lost", async || {
        let status = holder.client().get_task_status(&id).await.expect("known");
        assert_eq!(status, ended, "an ended task has changed");
        let log = holder.log();
        log.contains("was lost").then_some(())
    })
    .await;
    // By now, the guest has ended or was interrupted.
    sleep(Duration::from_secs(2)).await;
    assert_eq!(
        holder.client().get_task_status(&id).await.expect("known"),
        ended
    );
}

/// Redis is unavailable for longer than a lease, and a new node starts when it returns.
async fn a_new_node_waits_for_existing_leases() {
    let mut shared = Shared::start_with(&["--appendfsync", "always"]).await;
    let busy = logging_guest("busy", "1.0.0", BUSY);
    let prepare = |id| {
        let mut node = shared.prepare_sharing_tasks(id, &[], TTL);
        node.replace_setting("lease_ttl_ms = 3000", "lease_ttl_ms = 6000");
        node.add_wasm("busy.wasm", &busy);
        node
    };
    let holder = prepare("a").started().await;
    let newcomer = prepare("b");
    let work = task("busy", 20_000_u32.to_le_bytes());
    let id = holder.client().submit_task(work).await.expect("accepted");
    eventually("it runs", async || {
        holder.log().contains(RUNS).then_some(())
    })
    .await;
    shared.redis.kill();
    sleep(Duration::from_secs(8)).await;
    let newcomer = tokio::spawn(newcomer.started());
    sleep(Duration::from_millis(500)).await;
    shared.redis.restart().await;
    let newcomer = newcomer.await.expect("a started node");
    let ended = newcomer.client().wait_for_task(&id).await.expect("known");
    assert_eq!((ended.status.as_str(), ended.attempts), ("completed", 1));
    assert_eq!(ended.node_id, "a");
}

async fn tasks_survive_redis_restarts_and_pauses() {
    let mut rng = random("redis");
    // Otherwise Redis may reply before a write has reached the kernel.
    let mut shared = Shared::start_with(&["--appendfsync", "always"]).await;
    let nodes = three(&shared).await;
    let mut load = Load::start(&mut rng);
    load.set_addresses(addresses(&nodes));
    for _ in 0..times(3, 10) {
        load.wait_for_more(rng.u64(50..200)).await;
        shared.redis.restart().await;
    }
    load.wait_for_more(100).await;
    shared.redis.pause();
    sleep(Duration::from_secs(20)).await;
    shared.redis.resume();
    load.wait_for_more(100).await;
    settle("redis restarted and paused", load, &nodes, 2).await;
}

async fn tasks_survive_etcd_restarts_and_lost_leases() {
    let mut rng = random("etcd");
    let mut shared = Shared::start().await;
    let nodes = three(&shared).await;
    let mut load = Load::start(&mut rng);
    load.set_addresses(addresses(&nodes));
    for _ in 0..times(2, 6) {
        load.wait_for_more(rng.u64(50..200)).await;
        shared.etcd.kill();
        sleep(TTL).await;
        load.wait_for_more(50).await;
        shared.etcd.restart().await;
        load.wait_for_more(50).await;
        let mut client = etcd_client::Client::connect([shared.etcd.url()], None)
            .await
            .expect("etcd");
        // Without its history, watches cannot resume; then every lease is revoked.
        let put = client.put("elsewhere", "x", None).await.expect("a put");
        let revision = put.header().expect("a header").revision();
        client.compact(revision, None).await.expect("a compaction");
        let leases = client.leases().await.expect("leases");
        for lease in leases.leases() {
            let _ = client.lease_revoke(lease.id()).await;
        }
        load.wait_for_more(50).await;
        eventually("all nodes are listed again", async || {
            let nodes = nodes[0].client().list_nodes().await.ok()?;
            (nodes.nodes.len() == NODES.len() && !nodes.stale).then_some(())
        })
        .await;
    }
    settle("etcd restarted and forgetful", load, &nodes, 0).await;
}

async fn tasks_survive_a_network_partition() {
    let mut rng = random("cut");
    let shared = Shared::start().await;
    let without_scheme = |url: String| url.split_once("://").expect("a URL").1.to_owned();
    let redis = Proxy::to(&without_scheme(shared.redis.url())).await;
    let etcd = Proxy::to(&without_scheme(shared.etcd.url())).await;
    let mut nodes = Vec::new();
    for id in NODES {
        let mut node = prepare(&shared, id);
        if id == "b" {
            node.replace_setting(
                &without_scheme(shared.redis.url()),
                &redis.address().to_string(),
            );
            node.replace_setting(
                &without_scheme(shared.etcd.url()),
                &etcd.address().to_string(),
            );
        }
        nodes.push(node.started().await);
    }
    let mut load = Load::start(&mut rng);
    for proxy in [&redis, &etcd] {
        for _ in 0..times(1, 5) {
            load.set_addresses(addresses(&nodes));
            load.wait_for_more(100).await;
            proxy.cut();
            load.set_addresses(vec![nodes[0].address().into(), nodes[2].address().into()]);
            load.wait_for_more(100).await;
            sleep(PAST_THE_LEASE).await;
            proxy.restore();
            load.wait_for_more(50).await;
        }
    }
    load.set_addresses(addresses(&nodes));
    eventually("the node serves again", async || {
        let done = nodes[1]
            .client()
            .submit_and_wait(task("echo", "again"))
            .await;
        done.is_ok().then_some(())
    })
    .await;
    settle("a node cut off", load, &nodes, 1).await;
}

async fn tasks_survive_plugin_changes_on_one_node() {
    let mut rng = random("reload");
    let other = echo("99.0.0");
    let shared = Shared::start().await;
    let nodes = three(&shared).await;
    let mut load = Load::start(&mut rng);
    load.set_addresses(addresses(&nodes));
    load.wait_for_more(50).await;
    for turn in 0..times(12, 60) {
        // Deleted, added as another version, replaced by the first one: the task type and its versions
        // change on this node.
        let file = nodes[0].plugins_dir().join("echo.wasm");
        match turn % 3 {
            0 => std::fs::remove_file(&file).expect("the plugin"),
            1 => {
                nodes[0].add_wasm("echo.wasm", &other);
                eventually("a task runs on the other version", async || {
                    let done = nodes[1].client().submit_and_wait(task("echo", "who")).await;
                    (done.ok()?.plugin_version == "99.0.0").then_some(())
                })
                .await;
            }
            _ => nodes[0].add_wasm("echo.wasm", &echo("1.0.0")),
        }
        load.wait_for_more(100).await;
    }
    settle("a plugin replaced", load, &nodes, 0).await;
}

/// With the client's retry, no submission fails and no task is lost.
async fn a_rolling_restart_loses_no_attempt() {
    let mut rng = random("rolling");
    let shared = Shared::start().await;
    let mut nodes = three(&shared).await;
    let mut load = Load::start(&mut rng);
    load.set_addresses(addresses(&nodes));
    let patient: Vec<_> = nodes.iter().map(|node| node.address().to_owned()).collect();
    let patient = tokio::spawn(async move {
        let mut submitted = 0;
        let until = Instant::now() + Duration::from_secs(times(15, 60) as u64);
        let mut clients = Vec::new();
        for address in &patient {
            clients.push(hostel::DistributedClient::connect_lazy(address).expect("an address"));
        }
        while Instant::now() < until {
            for client in &mut clients {
                let done = client.submit_and_wait(task("echo", "rolling")).await;
                let done = done.expect("no submission fails");
                assert_eq!(done.status, "completed");
                submitted += 1;
            }
        }
        submitted
    });
    while !patient.is_finished() {
        for number in 0..nodes.len() {
            load.wait_for_more(30).await;
            // At the address that clients use.
            let address = nodes[number].address().to_owned();
            nodes[number].set_listen(&address);
            let mut others = addresses(&nodes);
            others.remove(number);
            load.set_addresses(others);
            assert!(nodes[number].terminate().await.success());
            nodes[number].restart().await;
            load.set_addresses(addresses(&nodes));
        }
    }
    let submitted = patient.await.expect("no submission fails");
    let lost = settle("rolling restart", load, &nodes, 0).await;
    println!("rolling restart: {submitted} submissions with the client's retry, none failed");
    assert_eq!(lost, 0, "a node that stops loses no attempt");
}
