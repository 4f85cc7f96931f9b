//! Faults under load, on nodes that share a queue: nodes, servers and the ways between them die, stop
//! and come back. Whatever was acknowledged ends exactly once; the ledger is outside of the nodes.
//! `HOSTEL_TEST_LONG=1` gives each fault more time.

use super::cluster::{self, Shared};
use crate::support::{
    eventually,
    ledger::{Load, SETTINGS},
    node::Node,
    plugins::{BUSY, guest},
    proxy::Proxy,
    random, task,
};
use hostel::plugin::Sample;
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::HashSet,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};
use tokio::time::sleep;

const NODES: [&str; 3] = ["a", "b", "c"];

/// How long a dead node is still listed.
const TTL: Duration = Duration::from_secs(2);

/// How long a lease holds in these clusters, and somewhat more.
const PAST_THE_LEASE: Duration = Duration::from_secs(5);

pub fn trials() -> Vec<Trial> {
    vec![
        cluster::trial("faults::nodes_are_killed", nodes_are_killed),
        cluster::trial(
            "faults::a_node_stops_past_its_lease",
            a_node_stops_past_its_lease,
        ),
        cluster::trial("faults::a_late_result_is_refused", a_late_result_is_refused),
        cluster::trial(
            "faults::a_newcomer_waits_for_those_who_hold",
            a_newcomer_waits_for_those_who_hold,
        ),
        cluster::trial(
            "faults::redis_restarts_and_pauses",
            redis_restarts_and_pauses,
        ),
        cluster::trial(
            "faults::etcd_restarts_and_forgets",
            etcd_restarts_and_forgets,
        ),
        cluster::trial("faults::a_node_is_cut_off", a_node_is_cut_off),
        cluster::trial(
            "faults::a_plugin_is_replaced_on_one",
            a_plugin_is_replaced_on_one,
        ),
        cluster::trial(
            "faults::all_nodes_are_restarted_in_turn",
            all_nodes_are_restarted_in_turn,
        ),
    ]
}

/// As many as in an ordinary run, or in a long one.
fn times(ordinary: usize, long: usize) -> usize {
    match std::env::var_os("HOSTEL_TEST_LONG") {
        Some(_) => long,
        None => ordinary,
    }
}

/// What a guest says in its node's log when it runs: that is known there before it is anywhere else,
/// and stays known whatever becomes of the task's record.
pub(super) const RUNS: &str = "it runs";

/// A guest that says so, and then does `handle`.
fn telling(name: &str, version: &str, handle: &str) -> Vec<u8> {
    let say = format!(
        "(call $log (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 5000) (i32.const {}))",
        RUNS.len()
    );
    guest(&Sample {
        name,
        version,
        task_types: &[name],
        handle: &format!("{say} {handle}"),
        extra: &format!("(data (i32.const 5000) \"{RUNS}\")"),
        ..Sample::default()
    })
}

fn echo(version: &str) -> Vec<u8> {
    telling("echo", version, Sample::default().handle)
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

/// Ends the load, asks the node for all that was acknowledged, and says what it has seen. Returns how
/// many attempts were lost.
async fn settle(what: &str, load: Load, nodes: &[Node], asked: usize) -> u64 {
    let ledger = load.ledger.clone();
    let (tasks, lost) = load.settle(nodes[asked].address()).await;
    let (mut runs, mut run) = (0, HashSet::new());
    for log in nodes.iter().map(Node::log) {
        let said = log.lines().filter(|line| line.contains(RUNS));
        for task in said.filter_map(|line| line.split_once(" task=")) {
            let id = task.1.split(' ').next().unwrap_or_default();
            runs += 1;
            run.insert(id.to_owned());
        }
    }
    println!(
        "{what}: {tasks} tasks acknowledged and ended once, {} calls broken, {lost} attempts lost \
         and made good; by the guests' own words {} tasks ran, {} of {runs} runs were not the first",
        ledger.broken_calls.load(Relaxed),
        run.len(),
        runs - run.len(),
    );
    assert!(run.len() >= tasks, "not all have run");
    lost
}

async fn nodes_are_killed() {
    let mut rng = random("nodes");
    let shared = Shared::start().await;
    let mut nodes = three(&shared).await;
    let mut load = Load::start(&mut rng);
    load.serve_at(addresses(&nodes));
    for _ in 0..times(12, 60) {
        let since = Instant::now();
        load.goes_on(rng.u64(1..100)).await;
        let victim = rng.usize(..nodes.len());
        nodes[victim].kill();
        nodes[victim].restart().await;
        load.serve_at(addresses(&nodes));
        let asked = rng.usize(..nodes.len());
        load.ledger.audit(nodes[asked].address(), &mut rng).await;
        sleep(Duration::from_secs(2).saturating_sub(since.elapsed())).await;
    }
    let lost = settle("nodes killed", load, &nodes, 0).await;
    assert!(lost > 0, "no kill hit a running task: this proves nothing");
}

pub(super) fn signal(node: &Node, signal: Signal) {
    let pid = Pid::from_raw(node.pid().cast_signed()).expect("a process");
    kill_process(pid, signal).expect("a signal");
}

async fn a_node_stops_past_its_lease() {
    let mut rng = random("stop");
    let shared = Shared::start().await;
    let nodes = three(&shared).await;
    let mut load = Load::start(&mut rng);
    // Until it was stopped while it held something, which the others take over.
    let takes_over = |node: &Node| node.log().contains("attempts were lost");
    let mut stops = 0;
    while stops < times(2, 10) || !nodes.iter().any(takes_over) {
        load.serve_at(addresses(&nodes));
        load.goes_on(rng.u64(50..100)).await;
        signal(&nodes[1], Signal::STOP);
        load.serve_at(vec![nodes[0].address().into(), nodes[2].address().into()]);
        sleep(PAST_THE_LEASE).await;
        signal(&nodes[1], Signal::CONT);
        load.goes_on(50).await;
        stops += 1;
        assert!(
            stops < 50,
            "no stop hit a running task: this proves nothing"
        );
    }
    settle("a node stopped", load, &nodes, 1).await;
}

/// The holder sleeps while another node does its work, and comes back with a result of its own.
async fn a_late_result_is_refused() {
    let shared = Shared::start().await;
    let busy = telling("busy", "1.0.0", BUSY);
    let mut nodes = Vec::new();
    for id in ["a", "b"] {
        let node = shared.prepare_sharing_tasks(id, &[], TTL);
        node.add_wasm("busy.wasm", &busy);
        nodes.push(node.started().await);
    }
    let asked = nodes[0].client();
    let work = task("busy", 4000_u32.to_le_bytes());
    let id = eventually("the task is accepted", async || {
        asked.clone().submit_task(work.clone()).await.ok()
    })
    .await;
    // Redis calls a task running before its holder has read so, and who stops then never held it.
    let holder = eventually("it runs", async || {
        nodes.iter().position(|node| node.log().contains(RUNS))
    })
    .await;
    let (holder, other) = (&nodes[holder], &nodes[1 - holder]);
    signal(holder, Signal::STOP);
    let status = other.client().get_task_status(&id).await.expect("known");
    assert_eq!(status.status, "running", "too quick for this");
    let ended = other.client().wait_for_task(&id).await.expect("known");
    // The lost attempt is not charged, for the task was not suspected.
    assert_eq!((ended.status.as_str(), ended.attempts), ("completed", 1));
    assert_eq!(ended.losses, 1);
    signal(holder, Signal::CONT);
    eventually("the holder learns of it", async || {
        let asked = holder.client().get_task_status(&id).await.expect("known");
        assert_eq!(asked, ended, "an ended task has changed");
        let log = holder.log();
        log.contains("not ours any more").then_some(())
    })
    .await;
    // Its guest has run out by now, or was interrupted.
    sleep(Duration::from_secs(2)).await;
    assert_eq!(
        holder.client().get_task_status(&id).await.expect("known"),
        ended
    );
}

/// Redis is away for longer than a lease, and a node that knows nothing of it comes together with it.
async fn a_newcomer_waits_for_those_who_hold() {
    let mut shared = Shared::start_with(&["--appendfsync", "always"]).await;
    let busy = telling("busy", "1.0.0", BUSY);
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
    let newcomer = newcomer.await.expect("it starts");
    let ended = newcomer.client().wait_for_task(&id).await.expect("known");
    assert_eq!((ended.status.as_str(), ended.attempts), ("completed", 1));
    assert_eq!(ended.node_id, "a");
}

async fn redis_restarts_and_pauses() {
    let mut rng = random("redis");
    // Otherwise it may answer before a write has reached so much as the kernel.
    let mut shared = Shared::start_with(&["--appendfsync", "always"]).await;
    let nodes = three(&shared).await;
    let mut load = Load::start(&mut rng);
    load.serve_at(addresses(&nodes));
    for _ in 0..times(3, 10) {
        load.goes_on(rng.u64(50..200)).await;
        shared.redis.restart().await;
    }
    load.goes_on(100).await;
    shared.redis.pause();
    sleep(Duration::from_secs(20)).await;
    shared.redis.resume();
    load.goes_on(100).await;
    settle("redis restarted and paused", load, &nodes, 2).await;
}

async fn etcd_restarts_and_forgets() {
    let mut rng = random("etcd");
    let mut shared = Shared::start().await;
    let nodes = three(&shared).await;
    let mut load = Load::start(&mut rng);
    load.serve_at(addresses(&nodes));
    for _ in 0..times(2, 6) {
        load.goes_on(rng.u64(50..200)).await;
        shared.etcd.kill();
        sleep(TTL).await;
        load.goes_on(50).await;
        shared.etcd.restart().await;
        load.goes_on(50).await;
        let mut client = etcd_client::Client::connect([shared.etcd.url()], None)
            .await
            .expect("etcd");
        // Its history goes, and with it what watches could go on from; then every lease.
        let put = client.put("elsewhere", "x", None).await.expect("a put");
        let revision = put.header().expect("a header").revision();
        client.compact(revision, None).await.expect("a compaction");
        let leases = client.leases().await.expect("leases");
        for lease in leases.leases() {
            let _ = client.lease_revoke(lease.id()).await;
        }
        load.goes_on(50).await;
        eventually("all nodes are listed again", async || {
            let nodes = nodes[0].client().list_nodes().await.ok()?;
            (nodes.nodes.len() == NODES.len() && !nodes.stale).then_some(())
        })
        .await;
    }
    settle("etcd restarted and forgetful", load, &nodes, 0).await;
}

async fn a_node_is_cut_off() {
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
    for way in [&redis, &etcd] {
        for _ in 0..times(1, 5) {
            load.serve_at(addresses(&nodes));
            load.goes_on(100).await;
            way.cut();
            load.serve_at(vec![nodes[0].address().into(), nodes[2].address().into()]);
            load.goes_on(100).await;
            sleep(PAST_THE_LEASE).await;
            way.mend();
            load.goes_on(50).await;
        }
    }
    load.serve_at(addresses(&nodes));
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

async fn a_plugin_is_replaced_on_one() {
    let mut rng = random("reload");
    let other = echo("99.0.0");
    let shared = Shared::start().await;
    let nodes = three(&shared).await;
    let mut load = Load::start(&mut rng);
    load.serve_at(addresses(&nodes));
    load.goes_on(50).await;
    for turn in 0..times(12, 60) {
        // Deleted, put back as another version, replaced by the first: the type comes and goes on
        // this node, and so do its versions.
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
        load.goes_on(100).await;
    }
    settle("a plugin replaced", load, &nodes, 0).await;
}

/// With the client's own retry no submission fails, and no task is lost.
async fn all_nodes_are_restarted_in_turn() {
    let mut rng = random("rolling");
    let shared = Shared::start().await;
    let mut nodes = three(&shared).await;
    let mut load = Load::start(&mut rng);
    load.serve_at(addresses(&nodes));
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
            load.goes_on(30).await;
            // Where clients know it.
            let address = nodes[number].address().to_owned();
            nodes[number].listen(&address);
            let mut others = addresses(&nodes);
            others.remove(number);
            load.serve_at(others);
            assert!(nodes[number].terminate().await.success());
            nodes[number].restart().await;
            load.serve_at(addresses(&nodes));
        }
    }
    let submitted = patient.await.expect("no submission fails");
    let lost = settle("rolling restart", load, &nodes, 0).await;
    println!("rolling restart: {submitted} submissions with the client's own retry, none failed");
    assert_eq!(lost, 0, "a node that is asked to stop loses no attempt");
}
