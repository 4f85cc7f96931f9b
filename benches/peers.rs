//! Hostel beside BullMQ: tasks with results, with the same payloads and calls in flight, each on a fresh Redis
//! with the same settings, in turn. Needs Node.js with npm, and installs BullMQ below `target/`, so it is
//! measured only if it is named: `cargo bench -- peers`.

use crate::{
    load::{IN_FLIGHT, PAYLOAD_BYTES, result_rate},
    median,
    report::{Aim, Row},
    rounds, runtime,
    support::{node::Node, plugins::showcase, servers::Kind},
    synced_redis::{self, SYNCS},
};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// The jobs of one measurement of BullMQ.
const JOBS: usize = 20_000;

/// The jobs that its worker runs at the same time.
const CONCURRENCY: usize = 256;

const PEER: &str = "BullMQ 6.7";

pub fn rows() -> Vec<Row> {
    if !Kind::Redis.is_installed() {
        eprintln!("peers: redis-server is not installed");
        return Vec::new();
    }
    let program = match install() {
        Ok(program) => program,
        Err(why) => {
            eprintln!("peers: BullMQ cannot be installed: {why}");
            return Vec::new();
        }
    };
    let runtime = runtime();
    let on_redis: Vec<Vec<[f64; 2]>> = SYNCS
        .map(|sync| {
            rounds(|_| {
                let peer = runtime.block_on(bullmq(&program, sync));
                let ours = runtime.block_on(on_redis(sync));
                [peer, ours]
            })
        })
        .into();
    let on_sqlite: Vec<f64> = rounds(|_| runtime.block_on(on_sqlite()));
    let column = |measured: &[[f64; 2]], index: usize| {
        median(measured.iter().map(|round| round[index]).collect())
    };
    let mut rows = Vec::new();
    for (sync, measured) in SYNCS.iter().zip(&on_redis) {
        let what =
            format!("{sync}: tasks with results on Redis, one by one, {IN_FLIGHT} in flight");
        let row = Row::new(what, "/s", column(measured, 1)).beside(PEER, column(measured, 0));
        rows.push(row.aim(Aim::RatioAtLeast(3.0)));
    }
    let what = "the same on SQLite, where each result is on disk (beside `always`)";
    let row = Row::new(what, "/s", median(on_sqlite)).beside(PEER, column(&on_redis[1], 0));
    rows.push(row.aim(Aim::RatioAtLeast(4.0)));
    rows
}

/// Installs BullMQ, and returns the program beside it.
fn install() -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers");
    fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
    for file in ["package.json", "bullmq.mjs"] {
        fs::copy(source.join(file), dir.join(file)).map_err(|error| error.to_string())?;
    }
    let installed = Command::new("npm")
        .args([
            "install",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--silent",
        ])
        .current_dir(&dir)
        .status()
        .map_err(|error| format!("npm: {error}"))?;
    if !installed.success() {
        return Err(format!("npm install: {installed}"));
    }
    Ok(dir.join("bullmq.mjs"))
}

/// A process that ends when this is dropped.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures the jobs that BullMQ completes a second.
async fn bullmq(program: &Path, sync: &str) -> f64 {
    let (server, _) = synced_redis::start(sync).await;
    let port = server.port().to_string();
    let _worker = worker(program, &port);
    let load = Command::new("node")
        .arg(program)
        .args(["load", &port, "one-by-one"])
        .args([JOBS, IN_FLIGHT, PAYLOAD_BYTES].map(|number| number.to_string()))
        .stderr(Stdio::inherit())
        .output()
        .expect("node");
    let answer = String::from_utf8_lossy(&load.stdout);
    answer.trim().parse().expect("the jobs a second")
}

fn worker(program: &Path, port: &str) -> Peer {
    let mut worker = Command::new("node")
        .arg(program)
        .args(["worker", port, &CONCURRENCY.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("node");
    let output = worker.stdout.take().expect("the output");
    let peer = Peer(worker);
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).expect("a line");
    assert_eq!(line.trim(), "ready");
    peer
}

async fn on_redis(sync: &str) -> f64 {
    let (server, _) = synced_redis::start(sync).await;
    let settings = format!("[queue]\nkind = \"redis\"\nurl = \"{}\"\n", server.url());
    let node = Node::start(&[&showcase("echo")], &settings).await;
    result_rate(node.address(), node.pid()).await.per_second
}

async fn on_sqlite() -> f64 {
    let node = Node::start(&[&showcase("echo")], "").await;
    result_rate(node.address(), node.pid()).await.per_second
}
