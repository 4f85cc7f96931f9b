//! `hostel serve`: runs a node in the foreground until a signal stops it.

use super::{
    config_args::ConfigArgs,
    config_watcher::ConfigWatcher,
    error::CliError,
    signals::{SignalRequest, Signals},
};
use crate::{
    api::Reloaded,
    atomic_file,
    config::{self, Config},
    node::DistributedNode,
};
use anyhow::Context;
use clap::Args;
use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    process,
};

/// Run a node
///
/// SIGTERM, SIGINT or SIGQUIT stops it: running tasks get node.drain_ms to end, and those that still run
/// are released without having lost an attempt. A second signal ends the process at once; no accepted task is lost by
/// that either. SIGHUP makes the node read the configuration with its schedules, tokens and certificates again;
/// the log lists the settings that need a restart.
#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    config: ConfigArgs,
    /// Write the bound address and the node's id as JSON to this file
    ///
    /// {"grpc": "127.0.0.1:50051", "node_id": "node-1"}
    #[arg(long, value_name = "FILE")]
    ports_file: Option<PathBuf>,
}

impl Serve {
    pub async fn run(&self) -> Result<(), CliError> {
        // First, because a signal ends the process until it is received here.
        let mut signals = Signals::new()?;
        let mut config = self.config.load()?;
        // A start may take long: it waits for servers and compiles plugins.
        let mut node = tokio::select! {
            created = DistributedNode::from_config(&config) => created?,
            () = signals.stop() => {
                log_early_stop();
                return Ok(());
            }
        };
        tokio::select! {
            started = node.start() => started?,
            () = signals.stop() => {
                log_early_stop();
                return Ok(stop(&mut node, &mut signals).await?);
            }
        }
        if let Some(file) = &self.ports_file
            && let Err(error) = write_ports(file, &node)
        {
            stop(&mut node, &mut signals).await?;
            return Err(error.into());
        }
        tracing::info!(
            node = %node.id(),
            plugins = %config.plugins.dir.display(),
            "serving on {}",
            node.address()
        );
        let failed = loop {
            tokio::select! {
                request = signals.next() => match request {
                    SignalRequest::Reload => self.reload(&node, &mut config),
                    SignalRequest::Stop => break None,
                },
                reason = node.failed() => break Some(reason),
            }
        };
        tracing::info!("stopping; a second signal ends the process at once");
        let stopped = stop(&mut node, &mut signals).await;
        match failed {
            Some(reason) => Err(CliError::node_ended(reason)),
            None => Ok(stopped?),
        }
    }

    /// Applies the settings that a running node can reload, and logs those that need a restart.
    fn reload(&self, node: &DistributedNode, config: &mut Config) {
        let new = match self.config.load() {
            Ok(new) => new,
            Err(error) => {
                tracing::warn!(
                    "SIGHUP: the configuration is not reloaded: {}",
                    error.message()
                );
                return;
            }
        };
        let reloaded = node.reload(&new);
        let is = |section: &str, outcome| reloaded.contains(&(section, outcome));
        let changes = config::changes(config, &new);
        let is_fixed = |name: &String| {
            let section = name.split('.').next().unwrap_or_default();
            is(section, Reloaded::FixedAtStart)
        };
        let fixed = changes.reloadable.into_iter().filter(is_fixed);
        let waiting: Vec<_> = changes.at_start.into_iter().chain(fixed).collect();
        let failed = reloaded
            .iter()
            .filter(|(_, outcome)| *outcome == Reloaded::Failed);
        let failed: Vec<_> = failed.map(|(section, _)| format!("[{section}]")).collect();
        if !failed.is_empty() {
            tracing::warn!(
                "SIGHUP: files of {} cannot be read, and what was read before stays in force; correct them \
                 and send SIGHUP again",
                failed.join(" and ")
            );
        }
        if !waiting.is_empty() {
            tracing::warn!(
                "SIGHUP: these settings have changed and need a restart: {}",
                waiting.join(", ")
            );
        }
        if failed.is_empty() {
            tracing::info!("SIGHUP: the configuration is reloaded");
        }
        // All other settings keep the values that the node was started with.
        if is("tls", Reloaded::InForce) {
            config.tls = new.tls;
        }
        if is("auth", Reloaded::InForce) {
            config.auth = new.auth;
        }
        if is("schedule", Reloaded::InForce) {
            config.schedule = new.schedule;
        }
    }
}

/// Stops the node, or ends the process at the next signal.
pub(super) async fn stop(node: &mut DistributedNode, signals: &mut Signals) -> anyhow::Result<()> {
    tokio::select! {
        stopped = node.stop() => stopped,
        () = signals.stop() => end_at_once(),
    }
}

fn log_early_stop() {
    tracing::info!("stopped before the start was complete");
}

impl Serve {
    /// Logs changes of the configuration file. Never returns.
    pub async fn watch_config(&self) -> Infallible {
        match self.config.path() {
            Some(file) => ConfigWatcher::new(file).run().await,
            None => std::future::pending().await,
        }
    }
}

/// Writes the address and the id of the node, so that the file is never read half written.
fn write_ports(file: &Path, node: &DistributedNode) -> anyhow::Result<()> {
    let ports =
        serde_json::json!({ "grpc": node.address().to_string(), "node_id": node.id().as_str() });
    atomic_file::write(file, &[format!("{ports}\n").as_bytes()])
        .with_context(|| format!("cannot write {} (--ports-file)", file.display()))
}

/// Ends the process as a second signal asks, without the rest of the drain.
#[expect(
    clippy::disallowed_methods,
    reason = "the node still stops, and nothing may wait for it"
)]
fn end_at_once() -> ! {
    process::exit(130)
}
