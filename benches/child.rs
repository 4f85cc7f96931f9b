//! Servers in processes of their own, with their own threads and memory like the node that they are
//! compared with. They are this program in another role.

use crate::echo;
use hostel::{
    Config, DistributedNode,
    broker::LocalBroker,
    config::Sqlite,
    discovery::{LocalDiscovery, NodeRecord, ServiceDiscovery},
    health::Health,
    queue::SqliteQueue,
    scheduler::DistributedTaskScheduler,
    task::Name,
};
use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdout, Command, ExitCode, Stdio},
    sync::Arc,
};

/// The first argument of a child.
pub const ROLE: &str = "play";

/// A running server. Dropping it ends the process.
pub struct Server {
    process: Child,
    pub address: String,
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    /// Starts a bare tonic server: `echo::serve`.
    pub fn echo() -> Self {
        Self::start("echo")
    }

    /// Starts the API with a queue on disk and without a worker.
    pub fn without_worker() -> Self {
        Self::start("without-worker")
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    fn start(role: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("this program"))
            .args([ROLE, role])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let mut stdout = BufReader::new(process.stdout.take().expect("the output"));
        let mut address = String::new();
        stdout.read_line(&mut address).expect("an address");
        Self {
            process,
            address: address.trim().into(),
            _stdout: stdout,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs the role of the child process.
pub fn play(role: &str) -> ExitCode {
    // The runtime of a node.
    let runtime = hostel::node::runtime().expect("a runtime");
    match role {
        "echo" => runtime.block_on(echo::serve(announce)),
        "without-worker" => runtime.block_on(without_worker()),
        _ => return ExitCode::FAILURE,
    }
    ExitCode::SUCCESS
}

fn announce(address: std::net::SocketAddr) {
    println!("{address}");
}

/// Blocks until the parent process has ended.
pub fn orphaned() {
    let _ = std::io::stdin().read(&mut [0]);
}

async fn without_worker() {
    let limits = Config::default().limits;
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let settings = Sqlite {
        path: dir.path().join("queue.db"),
        max_open_tasks: 10_000_000,
        max_batch: 512,
        reserve_bytes: 1 << 20,
    };
    let queue = SqliteQueue::open(&settings, &Health::default())
        .await
        .expect("a queue");
    let discovery = Arc::new(LocalDiscovery::new(&limits));
    let name = |given: &str| Name::parse("name", given).expect("a name");
    let record = NodeRecord {
        task_types: [name("echo")].into(),
        ..NodeRecord::new(name("elsewhere"), "")
    };
    let scheduler = DistributedTaskScheduler::new(Arc::new(queue), discovery.clone());
    let mut node = DistributedNode::new(
        "bench",
        "127.0.0.1:0",
        discovery.clone(),
        Arc::new(LocalBroker::default()),
        Arc::new(scheduler),
    )
    .await
    .expect("a node");
    node.start().await.expect("a start");
    // After the node's own record, which it replaces.
    discovery.register_node(record).await.expect("a record");
    announce(node.address());
    let _ = tokio::task::spawn_blocking(orphaned).await;
}
