//! `hostel demo --cluster`: three nodes, a Redis and an etcd on this machine. Every task is submitted to a
//! node that cannot run it and its status read from a third, and a message is sent across nodes.

use super::{
    process::{self, Process, Programs},
    source::source_tree,
    tasks,
};
use crate::{
    Config,
    cli::{
        build, compile,
        error::CliError,
        nodes,
        output::{print_lines, print_note},
        signals::Signals,
    },
    client::DistributedClient,
};
use anyhow::{Context, ensure};
use std::{fs, time::Duration};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// The id of each node, the cargo packages of its plugins, and their task types.
const NODES: [(&str, &[&str], &[&str]); 3] = [
    ("north", &["echo"], &["echo"]),
    ("east", &["text", "thumbnail"], &["word-count", "thumbnail"]),
    ("south", &["rates"], &["record-event"]),
];

/// How long nodes may take to discover each other.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(60);

pub async fn run(exit: bool) -> Result<(), CliError> {
    let programs = Programs::find()?;
    let source = source_tree()?;
    let dir = tempfile::Builder::new().prefix("hostel-demo-").tempdir();
    let dir = dir.context("no temporary directory")?;
    print_note(format_args!(
        "building the showcase plugins into {}",
        dir.path().display()
    ));
    let config = compile::with_default_compiler(Config::default());
    for (id, plugins, _) in NODES {
        let out = dir.path().join(id).join("plugins");
        build::build(&config, &source, plugins, &out).await?;
    }

    let mut cluster = Cluster::new(dir);
    let mut signals = Signals::new()?;
    let done = tokio::select! {
        done = cluster.run(&programs, exit) => done,
        _ = signals.next() => Ok(()),
    };
    // Everything is stopped and removed, even after an error.
    let stopped = cluster.stop().await;
    Ok(done.and(stopped)?)
}

/// The processes of the cluster and their directory, which is removed with it.
struct Cluster {
    nodes: Vec<Node>,
    /// Redis and etcd. They are stopped after the nodes, which need them.
    servers: Vec<Process>,
    dir: TempDir,
}

struct Node {
    id: &'static str,
    process: Process,
    address: String,
}

impl Cluster {
    fn new(dir: TempDir) -> Self {
        Self {
            nodes: Vec::new(),
            servers: Vec::new(),
            dir,
        }
    }

    /// Starts the cluster, runs the tasks, and unless `exit` is set, watches its processes.
    async fn run(&mut self, programs: &Programs, exit: bool) -> anyhow::Result<()> {
        self.start(programs).await?;
        self.discover().await?;
        self.run_tasks().await?;
        if exit {
            return Ok(());
        }
        print_lines(format_args!("{}", self.next_steps()));
        loop {
            sleep(Duration::from_secs(1)).await;
            for node in &mut self.nodes {
                node.process.check()?;
            }
            for server in &mut self.servers {
                server.check()?;
            }
        }
    }

    /// Starts Redis, etcd and the nodes, and prints their addresses.
    async fn start(&mut self, programs: &Programs) -> anyhow::Result<()> {
        let dir = self.dir.path();
        let (redis, redis_url) = programs.redis(dir).await?;
        self.servers.push(redis);
        let (etcd, etcd_url) = programs.etcd(dir).await?;
        self.servers.push(etcd);
        for (id, ..) in NODES {
            let dir = dir.join(id);
            fs::write(dir.join("hostel.toml"), settings(id, &redis_url, &etcd_url))
                .with_context(|| format!("cannot write into {}", dir.display()))?;
            self.nodes.push(Node {
                id,
                process: process::node(&dir)?,
                address: String::new(),
            });
        }
        // All nodes compile their plugins at the same time.
        for node in &mut self.nodes {
            node.address = process::address(&mut node.process, &dir.join(node.id)).await?;
        }
        print_lines(format_args!(
            "\nA Redis at {redis_url}, an etcd at {etcd_url}, and three nodes:\n"
        ));
        for (node, (_, plugins, _)) in self.nodes.iter().zip(NODES) {
            let (id, address) = (node.id, &node.address);
            print_line!("  {id:5} at {address} has {}", plugins.join(" and "));
        }
        Ok(())
    }

    /// Waits until each node sees the task types of the others.
    async fn discover(&self) -> anyhow::Result<()> {
        let since = Instant::now();
        for node in &self.nodes {
            let mut client = node.client().await?;
            loop {
                let seen = client.list_nodes().await?.nodes;
                let complete = NODES.iter().all(|(id, _, types)| {
                    seen.iter().any(|node| {
                        let rates = || node.components.iter().any(|component| component == "rates");
                        node.id == *id
                            && node.task_types.len() == types.len()
                            && (node.id != "south" || rates())
                    })
                });
                if complete {
                    break;
                }
                let id = node.id;
                ensure!(
                    since.elapsed() < DISCOVERY_TIMEOUT,
                    "{id} does not see the others"
                );
                sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// Submits every task to the node after its own, and reads its status from the third.
    async fn run_tasks(&self) -> anyhow::Result<()> {
        print_lines(format_args!(
            "\nTasks, each submitted to a node without the plugin:\n"
        ));
        for task in tasks::all()? {
            let task_type = task.task.task_type.as_str();
            let own = NODES
                .iter()
                .position(|(.., types)| types.contains(&task_type));
            let own = own.context("no node has a plugin for the task")?;
            let [home, submitted, read] = [own, own + 1, own + 2].map(|at| &self.nodes[at % 3]);
            let status = task.run(&mut submitted.client().await?).await?;
            ensure!(
                status.node_id == home.id,
                "{task_type} ran on {}, which does not have its plugin",
                status.node_id
            );
            let seen = read
                .client()
                .await?
                .get_task_status(&status.task_id)
                .await?;
            let shown = task.shown(&seen.result, self.dir.path())?;
            print_lines(format_args!("{}    {shown}", tasks::heading(&status)));
            print_lines(format_args!(
                "    submitted to {}, run by {}, and {} at {}\n",
                submitted.id, status.node_id, seen.status, read.id
            ));
        }
        let [north, east] = [0, 1].map(|at| &self.nodes[at]);
        let table = tasks::query_rates(&mut north.client().await?).await?;
        print_lines(format_args!(
            "  the table of the component rates on south, queried from north\n    {table}\n"
        ));
        print_lines(format_args!("The nodes, as east sees them:\n"));
        nodes::list(&east.client().await?.list_nodes().await?, false);
        Ok(())
    }

    fn next_steps(&self) -> String {
        let [north, east, south] = [0, 1, 2].map(|at| self.nodes[at].address.as_str());
        let dir = self.dir.path().display();
        format!(
            "
The nodes keep serving; Ctrl-C stops them. In another terminal, in this directory:

  target/release/hostel submit echo --payload hi --wait --server http://{south}
  target/release/hostel nodes drain north --server http://{east}
  target/release/hostel submit echo --id waits --payload hi --server http://{south}
  target/release/hostel tasks get waits --server http://{east}
  target/release/hostel nodes undrain north --server http://{east}
  target/release/hostel nodes list --server http://{north}

Each node's hostel.toml, plugins and log are in {dir}/NODE."
        )
    }

    /// Stops all nodes at once, then the servers: nodes need Redis to finish their running tasks.
    async fn stop(self) -> anyhow::Result<()> {
        let nodes = self.nodes.into_iter().map(|node| node.process.stop());
        let nodes = futures_util::future::join_all(nodes).await;
        let servers = self.servers.into_iter().map(Process::stop);
        let servers = futures_util::future::join_all(servers).await;
        nodes.into_iter().chain(servers).collect()
    }
}

impl Node {
    async fn client(&self) -> anyhow::Result<DistributedClient> {
        DistributedClient::connect(&self.address).await
    }
}

/// Returns the configuration of a node of the cluster. Paths start at the directory of its file.
fn settings(id: &str, redis: &str, etcd: &str) -> String {
    format!(
        r#"[node]
id = "{id}"
listen = "127.0.0.1:0"
data_dir = "data"

[plugins]
dir = "plugins"

[queue]
kind = "redis"
url = "{redis}"

[broker]
kind = "redis"
url = "{redis}"

[discovery]
kind = "etcd"
endpoints = ["{etcd}"]
"#
    )
}
