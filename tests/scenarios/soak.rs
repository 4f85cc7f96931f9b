//! Everything at once, beside ordinary load: hostile files that come and go, hostile tasks, results of
//! a megabyte over a thin line, a full store, clients that do not read or go away, and kills of another
//! node. No node ends unasked, memory does not grow, and the ledger is whole.
//!
//! `HOSTEL_TEST_LONG` gives it an hour (or as many seconds as it says, from 60 on), and then the memory
//! and the latency of the ordinary load are held to their bounds; a short run only reports them.

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
    plugin::{Sample, sample},
    proto::distributed::Message,
};
use libtest_mimic::Trial;
use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{task::JoinSet, time::sleep};

/// What the line to Redis carries in a second.
const LINE: usize = 12 << 20;

/// The memory of Redis while it is not full: enough for an hour of all of it.
const STORE: &str = "4gb";

/// How long each client of the ordinary load rests between two tasks.
const PAUSE: Duration = Duration::from_millis(300);

const LARGE: usize = 1 << 20;

pub fn trials() -> Vec<Trial> {
    vec![trial_needing(
        "soak::all_of_it_at_once",
        Shared::is_here() && can_build(),
        all_of_it_at_once,
    )]
}

/// How long the storm lasts, and whether that is long enough to hold it to its bounds.
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

/// What misbehaves when it runs, each a task type that is called as its plugin.
const HOSTILE: [(&str, &str); 4] = [
    ("traps", sample::TRAP),
    ("spins", sample::SPIN),
    ("grows", sample::GROW_MEMORY),
    ("recurses", sample::RECURSE),
];

fn prepare(id: &str, settings: &str) -> Node {
    let mut node = Node::prepare(&[&showcase("echo")], settings).named(id);
    node.add_settings(SETTINGS);
    node.set_in("queue", "lease_ttl_ms = 3000");
    node.set_in("queue", "keep_ended_ms = 7200000");
    node.set_in("discovery", "ttl_ms = 2000");
    let large = sample::result_of(LARGE);
    for (name, handle) in HOSTILE
        .into_iter()
        .chain([("large", &*large), ("busy", BUSY)])
    {
        let plugin = guest(&Sample {
            name,
            task_types: &[name],
            handle,
            ..Sample::default()
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

async fn all_of_it_at_once() {
    let (length, is_long) = length();
    let mut rng = random("soak");
    let shared = Shared::start_with(&["--maxmemory", STORE]).await;
    let proxy = Proxy::thin(&format!("127.0.0.1:{}", shared.redis.port()), LINE).await;
    let settings = shared.presence()
        + &format!(
            "[queue]\nkind = \"redis\"\nurl = \"redis://{}\"\n",
            proxy.address()
        );
    let mut steady = prepare("steady", &settings).started().await;
    let mut killed = prepare("killed", &settings).started().await;

    let mut load = Load::start_paced(&mut rng, PAUSE);
    load.ledger.may_be_full.store(true, Relaxed);
    load.serve_at(vec![steady.address().into()]);
    load.goes_on(50).await;
    let quiet = Probe::start(&steady);
    sleep(length / 10).await;
    let quiet = quiet.stop().await;

    let done = Arc::<Done>::default();
    let mut storm = JoinSet::new();
    storm.spawn(hostile_tasks(steady.client(), done.clone()));
    storm.spawn(large_results(steady.client(), done.clone()));
    storm.spawn(unread_stream(steady.client(), done.clone()));
    storm.spawn(calls_given_up(steady.client(), done.clone()));
    storm.spawn(full_store(shared.redis.url(), done.clone()));
    let stormy = Probe::start(&steady);
    let begun = Instant::now();
    let mut at_minute_ten = 0;
    let mut turn = 0;
    while begun.elapsed() < length {
        come_and_go(&steady, turn);
        if turn % 3 == 2 {
            killed.kill();
            killed.restart().await;
            done.kills.fetch_add(1, Relaxed);
        }
        load.goes_on(10).await;
        load.ledger.audit(steady.address(), &mut rng).await;
        sleep(length.min(Duration::from_secs(60)) / 12).await;
        if let Some(status) = steady.exit_status() {
            panic!("the node ended with {status}:\n{}", steady.log());
        }
        if at_minute_ten == 0 && begun.elapsed() > Duration::from_secs(600) {
            at_minute_ten = steady.resident_kib();
        }
        if let Some(ended) = storm.try_join_next() {
            panic!("a part of the storm ended: {ended:?}");
        }
        turn += 1;
    }
    let at_end = steady.resident_kib();
    storm.shutdown().await;
    let stormy = stormy.stop().await;
    come_and_go(&steady, usize::MAX);
    let (tasks, lost) = load.settle(steady.address()).await;
    println!(
        "soak: {tasks} tasks of ordinary load, {lost} attempts lost and made good; {done:?}; \
         p99 {quiet:?} before and {stormy:?} during the storm; {at_minute_ten} KiB resident after \
         ten minutes, {at_end} KiB at the end, {} KiB at most",
        steady.peak_resident_kib()
    );
    assert_eq!(steady.exit_status(), None, "it ended:\n{}", steady.log());
    if is_long {
        assert!(
            at_end <= at_minute_ten + at_minute_ten / 10,
            "memory has grown"
        );
        assert!(stormy <= quiet * 3, "ordinary tasks waited too long");
    }
    assert!(steady.terminate().await.success());
}

/// What the storm has done so far.
#[derive(Debug, Default)]
struct Done {
    hostile: AtomicU64,
    large: AtomicU64,
    floods: AtomicU64,
    given_up: AtomicU64,
    fillings: AtomicU64,
    kills: AtomicU64,
}

/// The time from a submission to its result, again and again, for a small task of the ordinary kind.
struct Probe(
    tokio::task::JoinHandle<()>,
    Arc<std::sync::Mutex<Histogram<u64>>>,
);

impl Probe {
    fn start(node: &Node) -> Self {
        let times = Arc::new(std::sync::Mutex::new(
            Histogram::new(3).expect("a histogram"),
        ));
        let (mut client, recorded) = (node.client(), times.clone());
        let probing = tokio::spawn(async move {
            loop {
                let since = Instant::now();
                let done = client.submit_and_wait(task("echo", "probe")).await;
                // While the store is full it is refused, which is no answer to wait for.
                if done.is_ok_and(|done| done.status == "completed") {
                    let micros = since.elapsed().as_micros().try_into().expect("a time");
                    recorded
                        .lock()
                        .expect("no panic")
                        .record(micros)
                        .expect("a time");
                }
                sleep(Duration::from_millis(20)).await;
            }
        });
        Self(probing, times)
    }

    async fn stop(self) -> Duration {
        self.0.abort();
        let _ = self.0.await;
        let times = self.1.lock().expect("no panic");
        assert!(!times.is_empty(), "no ordinary task was completed");
        Duration::from_micros(times.value_at_quantile(0.99))
    }
}

/// Files that no node can load come and go in turn.
fn come_and_go(node: &Node, turn: usize) {
    let describe = |describe| {
        guest(&Sample {
            name: "hostile",
            describe,
            ..Sample::default()
        })
    };
    for name in ["a.wasm", "b.wasm"] {
        let _ = std::fs::remove_file(node.plugins_dir().join(name));
    }
    let file = match turn % 6 {
        _ if turn == usize::MAX => return,
        0 => b"\0asm\x0d\0\x01\0 and then something else".to_vec(),
        1 => describe(sample::SPIN),
        2 => describe(sample::TRAP),
        3 => describe(sample::GROW_MEMORY),
        4 => describe(sample::RECURSE),
        _ => nested(900),
    };
    node.add_wasm(["a.wasm", "b.wasm"][turn % 2], &file);
}

/// A component of a few kilobytes whose types are nested so deeply that a compiler's stack overflows.
fn nested(depth: usize) -> Vec<u8> {
    let mut wasm = b"\0asm\x0d\0\x01\0".to_vec();
    let mut types = vec![0x42, 0x00];
    for _ in 0..depth {
        // An instance type of one type: the one before.
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

async fn hostile_tasks(mut client: DistributedClient, done: Arc<Done>) {
    for turn in 0.. {
        let (name, _) = HOSTILE[turn % HOSTILE.len()];
        if client.submit_task(task(name, "x")).await.is_ok() {
            done.hostile.fetch_add(1, Relaxed);
        }
        sleep(Duration::from_millis(200)).await;
    }
}

async fn large_results(mut client: DistributedClient, done: Arc<Done>) {
    loop {
        let ended = client.submit_and_wait(task("large", "x")).await;
        if let Ok(ended) = ended
            && ended.status == "completed"
        {
            assert_eq!(ended.result.len(), LARGE);
            done.large.fetch_add(1, Relaxed);
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Subscribes to a topic, reads nothing, and is sent more than anybody holds for it.
async fn unread_stream(mut client: DistributedClient, done: Arc<Done>) {
    loop {
        let hello = Message {
            from_node: "unread".into(),
            ..Message::default()
        };
        let said = async_stream::stream! {
            yield hello;
            std::future::pending::<()>().await;
        };
        let stream = client.stream_messages(said).await;
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

/// Submits, waits, and goes away before the end.
async fn calls_given_up(client: DistributedClient, done: Arc<Done>) {
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
        done.given_up.fetch_add(50, Relaxed);
        calls.join_all().await;
        sleep(Duration::from_secs(3)).await;
    }
}

/// Has Redis reach its bound now and then: what it holds at that moment is all that it may hold.
async fn full_store(redis: String, done: Arc<Done>) {
    let client = redis::Client::open(redis).expect("an address");
    let mut connection = client
        .get_multiplexed_async_connection()
        .await
        .expect("a connection");
    let mut bound = async |bytes: String| {
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg("maxmemory").arg(bytes);
        set.query_async::<()>(&mut connection).await.expect("set");
    };
    loop {
        sleep(Duration::from_secs(5)).await;
        bound("1mb".into()).await;
        sleep(Duration::from_secs(2)).await;
        bound(STORE.into()).await;
        done.fillings.fetch_add(1, Relaxed);
    }
}
