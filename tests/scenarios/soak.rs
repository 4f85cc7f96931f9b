//! All faults at once, with ordinary load: hostile files and tasks, results of a megabyte over a slow
//! connection, a full store, clients that do not read or disconnect, and kills of another node. The node
//! keeps running, its memory does not grow, and the ledger is complete.
//!
//! `HOSTEL_TEST_LONG` makes it run for an hour, or for its value in seconds if that is at least 60. A
//! long run checks bounds of the memory and of the latency of the ordinary load; a short one only prints
//! them.

use super::cluster::Shared;
use crate::support::{
    ledger::{Load, SETTINGS},
    node::Node,
    plugins::{BUSY, can_build, guest, showcase},
    proxy::Proxy,
    random, task, trial_needing,
};
use hdrhistogram::Histogram;
use hostel::{
    DistributedClient,
    plugin::{TestGuest, test_guest},
    proto::distributed::Message,
};
use libtest_mimic::Trial;
use parking_lot::Mutex;
use std::{
    env,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{task::JoinSet, time::sleep};

/// The bandwidth of the connection to Redis in bytes a second.
const BANDWIDTH: usize = 12 << 20;

/// The memory limit of Redis while it is not full. The results of an hour fit into it.
const STORE: &str = "4gb";

/// The pause between two large results, of which an hour has at most 2,400.
const LARGE_PAUSE: Duration = Duration::from_millis(1500);

/// The pause of each client of the ordinary load between two tasks.
const PAUSE: Duration = Duration::from_millis(300);

const LARGE: usize = 1 << 20;

pub fn trials() -> Vec<Trial> {
    vec![trial_needing(
        "soak::acknowledged_tasks_survive_all_faults_at_once",
        Shared::is_installed() && can_build(),
        acknowledged_tasks_survive_all_faults_at_once,
    )]
}

/// Returns the duration of the faults, and whether it is long enough to check the bounds.
fn length() -> (Duration, bool) {
    match env::var("HOSTEL_TEST_LONG") {
        Ok(given) => {
            let seconds = given.parse().ok().filter(|seconds| *seconds >= 60);
            let seconds = seconds.unwrap_or(3600);
            (Duration::from_secs(seconds), seconds >= 1200)
        }
        Err(_) => (Duration::from_secs(15), false),
    }
}

/// Task types that misbehave, with the code of each. The plugin has the same name.
const HOSTILE: [(&str, &str); 4] = [
    ("traps", test_guest::TRAP),
    ("spins", test_guest::SPIN),
    ("grows", test_guest::GROW_MEMORY),
    ("recurses", test_guest::RECURSE),
];

fn prepare(id: &str, settings: &str) -> Node {
    let mut node = Node::prepare(&[&showcase("echo")], settings).named(id);
    node.add_settings(SETTINGS);
    node.set_in("queue", "lease_ttl_ms = 3000");
    node.set_in("queue", "keep_completed_ms = 7200000");
    node.set_in("queue", "keep_failed_ms = 7200000");
    node.set_in("queue", "keep_cancelled_ms = 7200000");
    node.set_in("discovery", "ttl_ms = 2000");
    let large = test_guest::result_of(LARGE);
    for (name, handle) in HOSTILE
        .into_iter()
        .chain([("large", &*large), ("busy", BUSY)])
    {
        let plugin = guest(&TestGuest {
            name,
            task_types: &[name],
            handle,
            ..TestGuest::default()
        });
        node.add_wasm(&format!("{name}.wasm"), &plugin);
        let section = format!("plugin.{name}.task.{name}");
        node.set_in(&section, "max_attempts = 2");
        node.set_in(&section, "timeout_ms = 1000");
        node.set_in(&section, "backoff_initial_ms = 10");
    }
    node.set_in("plugin.busy.task.busy", "max_concurrency = 1");
    node
}

async fn acknowledged_tasks_survive_all_faults_at_once() {
    let (length, is_long) = length();
    let mut rng = random("soak");
    let shared = Shared::start_with(&["--maxmemory", STORE]).await;
    let proxy =
        Proxy::with_bandwidth(&format!("127.0.0.1:{}", shared.redis.port()), BANDWIDTH).await;
    let settings = shared.discovery_settings()
        + &format!(
            "[queue]\nkind = \"redis\"\nurl = \"redis://{}\"\n",
            proxy.address()
        );
    let mut steady = prepare("steady", &settings).started().await;
    let mut killed = prepare("killed", &settings).started().await;

    let mut load = Load::start_paced(&mut rng, PAUSE);
    load.ledger.may_be_full.store(true, Relaxed);
    load.set_addresses(vec![steady.address().into()]);
    load.wait_for_more(50).await;
    let quiet = Probe::start(&steady);
    sleep(length / 10).await;
    let quiet = quiet.stop().await;

    let done = Arc::<Faults>::default();
    let mut faults = JoinSet::new();
    faults.spawn(hostile_tasks(steady.client(), done.clone()));
    faults.spawn(large_results(steady.client(), done.clone()));
    faults.spawn(unread_stream(steady.client(), done.clone()));
    faults.spawn(abandoned_calls(steady.client(), done.clone()));
    faults.spawn(full_store(shared.redis.url(), done.clone()));
    let with_faults = Probe::start(&steady);
    let begun = Instant::now();
    let mut memory = Vec::new();
    let mut turn = 0;
    while begun.elapsed() < length {
        change_files(&steady, turn);
        if turn % 3 == 2 {
            killed.kill();
            killed.restart().await;
            done.kills.fetch_add(1, Relaxed);
        }
        load.wait_for_more(10).await;
        load.ledger.audit(steady.address(), &mut rng).await;
        sleep(length.min(Duration::from_secs(60)) / 12).await;
        if let Some(status) = steady.exit_status() {
            panic!("the node ended with {status}:\n{}", steady.log());
        }
        memory.push((begun.elapsed(), steady.resident_kib()));
        if let Some(ended) = faults.try_join_next() {
            panic!("a source of faults ended: {ended:?}");
        }
        turn += 1;
    }
    let minutes = |from: u64| Duration::from_secs(60 * from);
    let at_minute_ten = median(&memory, minutes(5)..minutes(10));
    let at_end = median(&memory, length.saturating_sub(minutes(5))..Duration::MAX);
    faults.shutdown().await;
    // It may have been full at that moment.
    set_memory_limit(&shared.redis.url(), STORE).await;
    let with_faults = with_faults.stop().await;
    change_files(&steady, usize::MAX);
    let (tasks, lost) = load.settle(steady.address()).await;
    println!(
        "soak: {tasks} tasks of ordinary load, {lost} attempts lost and repeated; {done:?}; \
         p99 {quiet:?} before and {with_faults:?} during the faults; {at_minute_ten} KiB resident in \
         minutes five to ten, {at_end} KiB in the last five, {} KiB at most",
        steady.peak_resident_kib()
    );
    assert_eq!(steady.exit_status(), None, "it ended:\n{}", steady.log());
    if is_long {
        assert!(
            at_end <= at_minute_ten + at_minute_ten / 10,
            "memory has grown"
        );
        assert!(with_faults <= quiet * 3, "ordinary tasks waited too long");
    }
    assert!(steady.terminate().await.success());
}

/// Returns the median of the samples of a time, since one sample may fall into a burst; zero without any.
fn median(samples: &[(Duration, u64)], time: Range<Duration>) -> u64 {
    let within = samples.iter().filter(|(at, _)| time.contains(at));
    let mut within: Vec<u64> = within.map(|(_, sample)| *sample).collect();
    within.sort_unstable();
    within.get(within.len() / 2).copied().unwrap_or_default()
}

/// Counts of the faults so far.
#[derive(Debug, Default)]
struct Faults {
    hostile: AtomicU64,
    large: AtomicU64,
    floods: AtomicU64,
    abandoned: AtomicU64,
    fillings: AtomicU64,
    kills: AtomicU64,
}

/// Measures the time from a submission to its result, repeatedly, for a small ordinary task.
struct Probe(tokio::task::JoinHandle<()>, Arc<Mutex<Histogram<u64>>>);

impl Probe {
    fn start(node: &Node) -> Self {
        let times = Arc::new(Mutex::new(Histogram::new(3).expect("a histogram")));
        let (mut client, recorded) = (node.client(), times.clone());
        let probing = tokio::spawn(async move {
            loop {
                let since = Instant::now();
                let done = client.submit_and_wait(task("echo", "probe")).await;
                // A full store rejects the task; such calls are not measured.
                if done.is_ok_and(|done| done.status == "completed") {
                    let micros = since.elapsed().as_micros().try_into().expect("a time");
                    recorded.lock().record(micros).expect("a time");
                }
                sleep(Duration::from_millis(20)).await;
            }
        });
        Self(probing, times)
    }

    async fn stop(self) -> Duration {
        self.0.abort();
        let _ = self.0.await;
        let times = self.1.lock();
        assert!(!times.is_empty(), "no ordinary task was completed");
        Duration::from_micros(times.value_at_quantile(0.99))
    }
}

/// Replaces the files that no node can load.
fn change_files(node: &Node, turn: usize) {
    let describe = |describe| {
        guest(&TestGuest {
            name: "hostile",
            describe,
            ..TestGuest::default()
        })
    };
    for name in ["a.wasm", "b.wasm"] {
        let _ = std::fs::remove_file(node.plugins_dir().join(name));
    }
    let file = match turn % 6 {
        _ if turn == usize::MAX => return,
        0 => b"\0asm\x0d\0\x01\0 and then something else".to_vec(),
        1 => describe(test_guest::SPIN),
        2 => describe(test_guest::TRAP),
        3 => describe(test_guest::GROW_MEMORY),
        4 => describe(test_guest::RECURSE),
        _ => nested(900),
    };
    node.add_wasm(["a.wasm", "b.wasm"][turn % 2], &file);
}

/// Returns a component of a few kilobytes whose types are nested so deeply that the compiler's stack
/// overflows.
fn nested(depth: usize) -> Vec<u8> {
    let mut wasm = b"\0asm\x0d\0\x01\0".to_vec();
    let mut types = vec![0x42, 0x00];
    for _ in 0..depth {
        // An instance type that contains the previous type.
        types = [&[0x42, 0x01, 0x01][..], &types].concat();
    }
    types.insert(0, 1);
    wasm.push(7);
    let mut length = types.len();
    while length >= 0x80 {
        wasm.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    wasm.push(length as u8);
    wasm.extend(types);
    wasm
}

async fn hostile_tasks(mut client: DistributedClient, done: Arc<Faults>) {
    for turn in 0.. {
        let (name, _) = HOSTILE[turn % HOSTILE.len()];
        if client.submit_task(task(name, "x")).await.is_ok() {
            done.hostile.fetch_add(1, Relaxed);
        }
        sleep(Duration::from_millis(200)).await;
    }
}

async fn large_results(mut client: DistributedClient, done: Arc<Faults>) {
    loop {
        let ended = client.submit_and_wait(task("large", "x")).await;
        if let Ok(ended) = ended
            && ended.status == "completed"
        {
            assert_eq!(ended.result.len(), LARGE);
            done.large.fetch_add(1, Relaxed);
        }
        sleep(LARGE_PAUSE).await;
    }
}

/// Subscribes to a topic, reads nothing, and gets more messages than any backlog holds.
async fn unread_stream(mut client: DistributedClient, done: Arc<Faults>) {
    loop {
        let hello = Message {
            from_node: "unread".into(),
            ..Message::default()
        };
        let outgoing = async_stream::stream! {
            yield hello;
            std::future::pending::<()>().await;
        };
        let stream = client.stream_messages(outgoing).await;
        for _ in 0..200 {
            let message = Message {
                to_node: "unread".into(),
                payload: vec![7; 64 << 10].into(),
                ..Message::default()
            };
            let _ = client.send_message(message).await;
        }
        drop(stream);
        done.floods.fetch_add(1, Relaxed);
        sleep(Duration::from_secs(2)).await;
    }
}

/// Submits tasks and abandons the calls before their end.
async fn abandoned_calls(client: DistributedClient, done: Arc<Faults>) {
    loop {
        let mut calls = JoinSet::new();
        for _ in 0..50 {
            let mut client = client.clone();
            calls.spawn(async move {
                let brief = task("busy", 50_u32.to_le_bytes());
                let wait = Duration::from_millis(20);
                let _ = tokio::time::timeout(wait, client.submit_and_wait(brief)).await;
            });
        }
        done.abandoned.fetch_add(50, Relaxed);
        calls.join_all().await;
        sleep(Duration::from_secs(3)).await;
    }
}

/// Fills Redis at times by lowering its memory limit.
async fn full_store(redis: String, done: Arc<Faults>) {
    loop {
        sleep(Duration::from_secs(5)).await;
        set_memory_limit(&redis, "1mb").await;
        sleep(Duration::from_secs(2)).await;
        set_memory_limit(&redis, STORE).await;
        done.fillings.fetch_add(1, Relaxed);
    }
}

/// Sets how much memory Redis may use.
async fn set_memory_limit(redis: &str, bytes: &str) {
    let client = redis::Client::open(redis).expect("an address");
    // The machine is busy, and Redis with it.
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let mut connection = client
        .get_multiplexed_async_connection_with_config(&patient)
        .await
        .expect("a connection");
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg("maxmemory").arg(bytes);
    set.query_async::<()>(&mut connection).await.expect("set");
}
