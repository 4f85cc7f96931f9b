//! `hostel serve`: a node in the foreground, until a signal ends it.

use super::{ConfigFile, config_watch::ConfigWatch, exit::Failure};
use crate::{
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
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Run a node
///
/// SIGTERM, SIGINT or SIGQUIT stops it: running tasks get node.drain_ms to end, the rest is due again at
/// the next start. A second one ends the process at once; nothing accepted is lost by that either.
/// SIGHUP reads the configuration, tokens and certificates again; the log says what of it waits for the
/// next start.
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
        // Before all else: until they are listened to, signals end the process.
        let mut signals = Signals::new()?;
        let mut config = self.config.load()?;
        // A start may take long: servers are waited for and plugins compiled.
        let mut node = tokio::select! {
            made = DistributedNode::from_config(&config) => made?,
            () = signals.stop() => {
                stopped_early();
                return Ok(());
            }
        };
        tokio::select! {
            started = node.start() => started?,
            () = signals.stop() => {
                stopped_early();
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
        let failed = loop {
            tokio::select! {
                told = signals.next() => match told {
                    Told::Reload => self.reload(&node, &mut config),
                    Told::Stop => break None,
                },
                why = node.failed() => break Some(why),
            }
        };
        tracing::info!("stopping; a second signal ends the process at once");
        let stopped = tokio::select! {
            stopped = node.stop() => stopped,
            () = signals.stop() => process::exit(130),
        };
        match failed {
            Some(why) => Err(Failure::part(why)),
            None => Ok(stopped?),
        }
    }

    /// Puts into force what can be changed in a node that runs, and says what cannot.
    fn reload(&self, node: &DistributedNode, config: &mut Config) {
        let new = match self.config.load() {
            Ok(new) => new,
            Err(failure) => {
                tracing::warn!("SIGHUP: nothing has changed: {}", failure.message());
                return;
            }
        };
        let in_force = node.reload(&new);
        let changed = config::differences(config, &new);
        let waits = |name: &String| !in_force.iter().any(|section| name.starts_with(section));
        let waiting: Vec<_> = changed.into_iter().filter(waits).collect();
        if waiting.is_empty() {
            tracing::info!("SIGHUP: the configuration was read again");
        } else {
            tracing::warn!(
                "SIGHUP: the configuration was read again; these settings have changed and wait for the \
                 next start: {}",
                waiting.join(", ")
            );
        }
        // The rest is compared with what the node was started with, also the next time.
        if in_force.contains(&"tls.") {
            config.tls = new.tls;
        }
        if in_force.contains(&"auth.") {
            config.auth = new.auth;
        }
    }
}

fn stopped_early() {
    tracing::info!("asked to stop before the start was over");
}

/// The signals that a node listens to.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Stop,
    Reload,
}

impl Signals {
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    pub async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.quit.recv() => Told::Stop,
            _ = self.hangup.recv() => Told::Reload,
        }
    }

    /// Waits for one that asks for the end.
    async fn stop(&mut self) {
        while self.next().await == Told::Reload {
            tracing::info!("SIGHUP: nothing is read again while the node starts or stops");
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
