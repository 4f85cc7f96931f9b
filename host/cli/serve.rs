//! `hostel serve`: a node in the foreground, until a signal ends it.

use super::{ConfigFile, config_watch::ConfigWatch, exit::Failure};
use crate::node::DistributedNode;
use anyhow::Context;
use clap::Args;
use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    process,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Run a node
///
/// SIGTERM or SIGINT stops it: running tasks get node.drain_ms to end, the rest is due again at the
/// next start. A second signal ends the process at once; nothing accepted is lost by that either.
#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    config: ConfigFile,
    /// Write what was bound, as JSON, to this file: {"grpc": "127.0.0.1:50051"}
    #[arg(long, value_name = "FILE")]
    ports_file: Option<PathBuf>,
}

impl Serve {
    pub async fn run(&self) -> Result<(), Failure> {
        let config = self.config.load()?;
        let mut signals = Signals::new()?;
        let mut node = DistributedNode::from_config(&config).await?;
        // A signal during a long start (plugins being compiled) must not wait for its end.
        tokio::select! {
            started = node.start() => started?,
            () = signals.next() => {
                tracing::info!("told to stop before the start was over");
                return Ok(node.stop().await?);
            }
        }
        if let Some(file) = &self.ports_file
            && let Err(error) = write_ports(file, &node)
        {
            node.stop().await?;
            return Err(error.into());
        }
        tracing::info!(
            node = %node.id(),
            plugins = %config.plugins.dir.display(),
            "serving on {}",
            node.address()
        );
        let failed = tokio::select! {
            () = signals.next() => None,
            why = node.failed() => Some(why),
        };
        tracing::info!("stopping; a second signal ends the process at once");
        let stopped = tokio::select! {
            stopped = node.stop() => stopped,
            () = signals.next() => process::exit(130),
        };
        match failed {
            Some(why) => Err(Failure::part(why)),
            None => Ok(stopped?),
        }
    }
}

/// The signals that end a node.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl Serve {
    /// Says in the log when the configuration file changes, for ever.
    pub async fn watch_config(&self) -> Infallible {
        match self.config.path() {
            Some(file) => ConfigWatch::new(file).run().await,
            None => std::future::pending().await,
        }
    }
}

/// Written beside and renamed into place: who waits for the file never reads half of it.
fn write_ports(file: &Path, node: &DistributedNode) -> anyhow::Result<()> {
    let ports =
        serde_json::json!({ "grpc": node.address().to_string(), "node_id": node.id().as_str() });
    let beside = file.with_extension("tmp");
    std::fs::write(&beside, format!("{ports}\n"))
        .and_then(|()| std::fs::rename(&beside, file))
        .with_context(|| format!("cannot write {} (--ports-file)", file.display()))
}
