//! `hostel demo --cluster`: three nodes, one Redis and one etcd on this machine. Every task is
//! given to a node that cannot run it and asked for at a third, and a message crosses nodes.

use super::{
    process::{self, Process, Programs},
    source_tree, work,
};
use crate::{
    Config,
    cli::{
        build, compile,
        exit::Failure,
        nodes,
        output::{note, paragraph},
        serve::Signals,
    },
    client::DistributedClient,
};
use anyhow::{Context, ensure};
use std::{fs, time::Duration};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// Who runs what: the id of each node, its plugins as cargo knows them, and their task types.
const NODES: [(&str, &[&str], &[&str]); 3] = [
    ("north", &["echo"], &["echo"]),
    ("east", &["text", "thumbnail"], &["word-count", "thumbnail"]),
    ("south", &["rates"], &["record-event"]),
];

/// How long nodes may take to see each other.
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn run(exit: bool) -> Result<(), Failure> {
    let programs = Programs::find()?;
    let source = source_tree()?;
    let dir = tempfile::Builder::new().prefix("hostel-demo-").tempdir();
    let dir = dir.context("no temporary directory")?;
    note(format_args!(
        "building the showcase plugins into {}",
        dir.path().display()
    ));
    let config = compile::by_this_program(Config::default());
    for (id, plugins, _) in NODES {
        let out = dir.path().join(id).join("plugins");
        build::build(&config, &source, plugins, &out).await?;
    }

    let mut cluster = Cluster::new(dir);
    let mut signals = Signals::new()?;
    let done = tokio::select! {
        done = cluster.show(&programs, exit) => done,
        _ = signals.next() => Ok(()),
    };
    // Whatever was said above, nothing is left behind.
    let ended = cluster.end().await;
    Ok(done.and(ended)?)
}

/// What runs, and where it keeps its files, which go with it.
struct Cluster {
    nodes: Vec<Node>,
    /// Redis and etcd, which nodes need to the end.
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

    async fn show(&mut self, programs: &Programs, exit: bool) -> anyhow::Result<()> {
        self.start(programs).await?;
        self.meet().await?;
        self.work().await?;
        if exit {
            return Ok(());
        }
        paragraph(format_args!("{}", self.how_to_go_on()));
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
        // All of them compile their plugins meanwhile.
        for node in &mut self.nodes {
            node.address = process::address(&mut node.process, &dir.join(node.id)).await?;
        }
        paragraph(format_args!(
            "\nA Redis at {redis_url}, an etcd at {etcd_url}, and three nodes:\n"
        ));
        for (node, (_, plugins, _)) in self.nodes.iter().zip(NODES) {
            let (id, address) = (node.id, &node.address);
            say!("  {id:5} at {address} has {}", plugins.join(" and "));
        }
        Ok(())
    }

    /// What the others can do is known a moment after they serve.
    async fn meet(&self) -> anyhow::Result<()> {
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
                ensure!(since.elapsed() < PATIENCE, "{id} does not see the others");
                sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// Every task is given to the node behind its own, and asked for at the third.
    async fn work(&self) -> anyhow::Result<()> {
        paragraph(format_args!(
            "\nTasks for them, each given to one that has not the plugin:\n"
        ));
        for work in work::all()? {
            let task_type = work.task.task_type.as_str();
            let own = NODES
                .iter()
                .position(|(.., types)| types.contains(&task_type));
            let own = own.context("a task that no node has a plugin for")?;
            let [home, given, asked] = [own, own + 1, own + 2].map(|at| &self.nodes[at % 3]);
            let status = work.run(&mut given.client().await?).await?;
            ensure!(
                status.node_id == home.id,
                "{task_type} ran on {} and not where its plugin is",
                status.node_id
            );
            let told = asked
                .client()
                .await?
                .get_task_status(&status.task_id)
                .await?;
            let shown = work.shown(&told.result, self.dir.path())?;
            paragraph(format_args!("{}    {shown}", work::of_plugin(&status)));
            paragraph(format_args!(
                "    given to {}, run by {}, and {} at {}\n",
                given.id, status.node_id, told.status, asked.id
            ));
        }
        let [north, east] = [0, 1].map(|at| &self.nodes[at]);
        let table = work::ask_rates(&mut north.client().await?).await?;
        paragraph(format_args!(
            "  the component rates on south, asked from north for its table\n    {table}\n"
        ));
        paragraph(format_args!("The nodes, as east sees them:\n"));
        nodes::list(&east.client().await?.list_nodes().await?, false);
        Ok(())
    }

    fn how_to_go_on(&self) -> String {
        let [north, east, south] = [0, 1, 2].map(|at| self.nodes[at].address.as_str());
        let dir = self.dir.path().display();
        format!(
            "
The nodes keep serving; Ctrl-C ends all of it. In another terminal, here:

  target/release/hostel submit echo --payload hi --wait --server http://{south}
  target/release/hostel nodes drain north --server http://{east}
  target/release/hostel submit echo --id waits --payload hi --server http://{south}
  target/release/hostel tasks get waits --server http://{east}
  target/release/hostel nodes undrain north --server http://{east}
  target/release/hostel nodes list --server http://{north}

Each node's hostel.toml, plugins and log are in {dir}/NODE."
        )
    }

    /// Nodes first, all at once: they finish what runs, and need Redis for that.
    async fn end(self) -> anyhow::Result<()> {
        let nodes = self.nodes.into_iter().map(|node| node.process.end());
        let nodes = futures_util::future::join_all(nodes).await;
        let servers = self.servers.into_iter().map(Process::end);
        let servers = futures_util::future::join_all(servers).await;
        nodes.into_iter().chain(servers).collect()
    }
}

impl Node {
    async fn client(&self) -> anyhow::Result<DistributedClient> {
        DistributedClient::connect(&self.address).await
    }
}

/// What makes a node one of many. The directory is that of the file.
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
