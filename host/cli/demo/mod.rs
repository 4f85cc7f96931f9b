//! `hostel demo`: builds the showcase plugins, serves them with the default configuration, and submits
//! tasks to each of them over gRPC; with `--cluster`, on three nodes. `tasks` has the tasks, `cluster` the
//! cluster and `process` its processes.

mod cluster;
mod process;
mod source;
mod tasks;

use super::{
    build, compile,
    error::CliError,
    output::{print_lines, print_note},
    serve,
    signals::Signals,
};
use crate::{Config, client::DistributedClient, node::DistributedNode};
use clap::Args;
use source::source_tree;
use std::path::Path;
use tasks::QUERY;
use tokio::net::TcpListener;

/// The cargo packages of the showcase plugins.
const SHOWCASE: [&str; 4] = ["echo", "rates", "text", "thumbnail"];

/// Build the showcase plugins, run a node and submit some tasks to it
///
/// Needs the source tree. Builds into plugins/, stores its data in target/demo, and keeps serving until
/// Ctrl-C unless --exit is given. A cluster uses a temporary directory and free ports of this machine.
#[derive(Debug, Args)]
pub struct Demo {
    /// Stop after the results are printed
    #[arg(long)]
    exit: bool,
    /// Run three nodes that share a Redis and an etcd, which have to be installed
    #[arg(long)]
    cluster: bool,
}

impl Demo {
    pub async fn run(self) -> Result<(), CliError> {
        if self.cluster {
            return cluster::run(self.exit).await;
        }
        let source = source_tree()?;
        let plugins = source.join("plugins");
        print_note(format_args!(
            "building the showcase plugins into {}",
            plugins.display()
        ));
        let data = source.join("target/demo");
        let mut config = embedded_defaults(&plugins, &data)?;
        build::build(&config, &source, &SHOWCASE, &plugins).await?;

        let mut signals = Signals::new()?;
        if self.exit || !is_free(config.node.listen).await {
            config.node.listen.set_port(0);
        }
        let mut node = tokio::select! {
            created = DistributedNode::from_config(&config) => created?,
            () = signals.stop() => return Ok(()),
        };
        let done = tokio::select! {
            done = self.serve(&mut node, &data) => done,
            () = signals.stop() => Ok(()),
        };
        let stopped = serve::stop(&mut node, &mut signals).await;
        done.and(Ok(stopped?))
    }

    /// Starts the node, runs the tasks, and serves until the node fails; with --exit until they are done.
    async fn serve(&self, node: &mut DistributedNode, data: &Path) -> Result<(), CliError> {
        node.start().await?;
        run_tasks(node, data).await?;
        if self.exit {
            return Ok(());
        }
        print_lines(format_args!("{}", next_steps(node)));
        Err(CliError::node_ended(node.failed().await))
    }
}

/// Returns the default configuration with these directories.
fn embedded_defaults(plugins: &Path, data: &Path) -> Result<Config, CliError> {
    let variable = |name: &str, path: &Path| (name.into(), path.to_string_lossy().into_owned());
    let places = [
        variable("HOSTEL__PLUGINS__DIR", plugins),
        variable("HOSTEL__NODE__DATA_DIR", data),
    ];
    let config = Config::parse("", places.into_iter()).map_err(CliError::usage)?;
    Ok(compile::with_default_compiler(config))
}

/// Submits tasks for each plugin over gRPC, as any client would.
async fn run_tasks(node: &DistributedNode, out: &Path) -> anyhow::Result<()> {
    let address = node.address();
    print_lines(format_args!(
        "\nA node serves on {address}. Some tasks for it:\n"
    ));
    let mut client = DistributedClient::connect(&address.to_string()).await?;
    for task in tasks::all()? {
        let status = task.run(&mut client).await?;
        let heading = tasks::heading(&status);
        let shown = task.shown(&status.result, out)?;
        print_lines(format_args!("{heading}    {shown}\n"));
    }
    // The component counts the events that tasks record, and answers queries.
    let table = tasks::query_rates(&mut client).await?;
    print_lines(format_args!(
        "  the table of the component rates\n    {table}\n"
    ));
    Ok(())
}

async fn is_free(address: std::net::SocketAddr) -> bool {
    TcpListener::bind(address).await.is_ok()
}

fn next_steps(node: &DistributedNode) -> String {
    let address = node.address();
    format!(
        "The node keeps serving; Ctrl-C stops it. In another terminal, in this directory:

  export HOSTEL_SERVER=http://{address}
  target/release/hostel submit word-count --file README.md --wait
  target/release/hostel send rates --payload '{QUERY}' --wait
  target/release/hostel plugins list
  target/release/hostel tasks list

Copy another .wasm file into plugins/ and it serves within a second."
    )
}
