//! `hostel demo`: the shortest way from a clone to a result. Builds the showcase plugins, serves
//! them on the embedded defaults, and gives each one real work over gRPC. With `--cluster` on three
//! nodes. What the work is lives in `work`, the cluster in `cluster`, its processes in `process`
//! and `tied`.

mod cluster;
mod process;
mod tied;
mod work;

pub use tied::Tied;

use super::{
    build, compile,
    exit::Failure,
    output::{note, paragraph},
    serve::Signals,
};
use crate::{Config, client::DistributedClient, node::DistributedNode};
use anyhow::Context;
use clap::Args;
use std::path::{Path, PathBuf};
use tokio::net::TcpListener;
use work::QUERY;

/// The showcase plugins, as cargo knows them.
const SHOWCASE: [&str; 4] = ["echo", "rates", "text", "thumbnail"];

/// Build the showcase plugins, run a node and let it do some work
///
/// Needs the source tree. Builds into plugins/, keeps its data in target/demo, and goes on serving
/// until Ctrl-C unless told to exit. A cluster has everything in a temporary directory, and on free
/// ports of this machine.
#[derive(Debug, Args)]
pub struct Demo {
    /// Stop after the results
    #[arg(long)]
    exit: bool,
    /// Three nodes that share a Redis and an etcd, which have to be installed
    #[arg(long)]
    cluster: bool,
}

impl Demo {
    pub async fn run(self) -> Result<(), Failure> {
        if self.cluster {
            return cluster::run(self.exit).await;
        }
        let source = source_tree()?;
        let plugins = source.join("plugins");
        note(format_args!(
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
        let mut node = DistributedNode::from_config(&config).await?;
        node.start().await?;
        let worked = serve_some(&node, &data).await;
        if self.exit || worked.is_err() {
            node.stop().await?;
            return Ok(worked?);
        }
        paragraph(format_args!("{}", how_to_go_on(&node)));
        signals.next().await;
        Ok(node.stop().await?)
    }
}

/// What a node does without a file, but for where it keeps things.
fn embedded_defaults(plugins: &Path, data: &Path) -> Result<Config, Failure> {
    let variable = |name: &str, path: &Path| (name.into(), path.to_string_lossy().into_owned());
    let places = [
        variable("HOSTEL__PLUGINS__DIR", plugins),
        variable("HOSTEL__NODE__DATA_DIR", data),
    ];
    let config = Config::parse("", places.into_iter()).map_err(Failure::usage)?;
    Ok(compile::by_this_program(config))
}

/// Real work for each plugin, over gRPC like everybody else's.
async fn serve_some(node: &DistributedNode, out: &Path) -> anyhow::Result<()> {
    let address = node.address();
    paragraph(format_args!(
        "\nA node serves on {address}. Some work for it:\n"
    ));
    let mut client = DistributedClient::connect(&address.to_string()).await?;
    for work in work::all()? {
        let status = work.run(&mut client).await?;
        let ran = work::of_plugin(&status);
        let shown = work.shown(&status.result, out)?;
        paragraph(format_args!("{ran}    {shown}\n"));
    }
    // The component counts what tasks record, and answers what it is asked.
    let table = work::ask_rates(&mut client).await?;
    paragraph(format_args!(
        "  the component rates, asked for its table\n    {table}\n"
    ));
    Ok(())
}

/// The clone that this binary was built from, or the directory in which it is called.
fn source_tree() -> anyhow::Result<PathBuf> {
    let built_in = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let here = std::env::current_dir().unwrap_or_default();
    let found = [here, built_in]
        .into_iter()
        .find(|dir| dir.join("plugins/echo/Cargo.toml").is_file());
    found.context(
        "the demo builds the showcase plugins and needs Hostel's source tree: run it there",
    )
}

async fn is_free(address: std::net::SocketAddr) -> bool {
    TcpListener::bind(address).await.is_ok()
}

fn how_to_go_on(node: &DistributedNode) -> String {
    let address = node.address();
    format!(
        "The node keeps serving; Ctrl-C stops it. In another terminal, here:

  export HOSTEL_SERVER=http://{address}
  target/release/hostel submit word-count --file README.md --wait
  target/release/hostel send rates --payload '{QUERY}' --wait
  target/release/hostel plugins list
  target/release/hostel tasks list

Drop another .wasm into plugins/ and it serves within the second."
    )
}
