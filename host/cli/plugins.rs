//! `hostel plugins`: what a node hosts, and what a plugin file is before any node hosts it.

use super::{
    ConfigFile, Server, build,
    exit::Failure,
    inspection,
    output::{duration, plugin_json, print_json, print_table},
};
use crate::{Config, plugin, proto::hostel::v1::ListPluginsResponse, untrusted::Untrusted};
use clap::{Args, Subcommand};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

#[derive(Debug, Args)]
pub struct Plugins {
    #[command(subcommand)]
    command: PluginsCommand,
}

#[derive(Debug, Subcommand)]
enum PluginsCommand {
    /// List what a node hosts, and the files that it refuses
    List {
        #[command(flatten)]
        server: Server,
        #[arg(long)]
        json: bool,
    },
    /// Show what a plugin file has, what it wants, and what is wrong with it
    Inspect {
        file: PathBuf,
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Load a plugin file as a node would and report every fault, or prove the sandbox here
    Verify {
        /// The plugin file
        #[arg(required_unless_present = "own", conflicts_with = "own")]
        file: Option<PathBuf>,
        /// Run built-in hostile guests under this configuration and report each limit that fires
        #[arg(id = "own", long = "self")]
        own: bool,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Build the plugin in DIR from source and put it into the plugins directory
    ///
    /// The file is named as the plugin's manifest says. What a node with this configuration would
    /// refuse is not put in place.
    Build {
        /// The plugin's crate
        dir: PathBuf,
        /// Where to put the file [default: plugins.dir of the configuration]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        #[command(flatten)]
        config: ConfigFile,
    },
}

impl Plugins {
    pub async fn run(self) -> Result<(), Failure> {
        match self.command {
            PluginsCommand::List { server, json } => list(&server, json).await,
            PluginsCommand::Inspect { file, json, config } => {
                let inspection = plugin::inspect(&config.load()?, &file).await;
                inspection::print(&inspection.map_err(Failure::found_in)?, json)
            }
            PluginsCommand::Verify { file, config, .. } => {
                let config = config.load()?;
                match file {
                    Some(file) => verify(&config, &file).await,
                    None => verify_self(&config).await,
                }
            }
            PluginsCommand::Build { dir, out, config } => {
                let config = config.load()?;
                let out = out.unwrap_or_else(|| config.plugins.dir.clone());
                for file in build::build(&config, &dir, &[], &out).await? {
                    say!("{}", file.display());
                }
                Ok(())
            }
        }
    }
}

async fn verify(config: &Config, file: &Path) -> Result<(), Failure> {
    let inspection = plugin::inspect(config, file).await;
    let inspection = inspection.map_err(Failure::found_in)?;
    let file = Untrusted::path(file);
    for fault in &inspection.faults {
        say!("{file}: {fault}");
    }
    for warning in &inspection.warnings {
        say!("{file}: warning: {warning}");
    }
    if !inspection.faults.is_empty() {
        return Err(Failure::found(format!("a node would refuse {file}")));
    }
    say!("{file}: no faults");
    Ok(())
}

async fn verify_self(config: &Config) -> Result<(), Failure> {
    let checks = plugin::verify_self(config).await;
    let checks = checks.map_err(Failure::found_in)?;
    let rows: Vec<_> = checks
        .iter()
        .map(|check| {
            let fired = if check.fired { "holds" } else { "FAILS" };
            let cells = [check.limit, check.setting, fired, &check.detail];
            cells.map(str::to_owned).to_vec()
        })
        .collect();
    print_table(
        &["LIMIT", "SETTING", "", "WHAT THE HOSTILE GUEST GOT"],
        &rows,
    );
    match checks.iter().filter(|check| !check.fired).count() {
        0 => Ok(()),
        failed => Err(Failure::found(format!(
            "{failed} of {} limits do not hold on this machine",
            checks.len()
        ))),
    }
}

async fn list(server: &Server, json: bool) -> Result<(), Failure> {
    let listed = server.connect().await?.list_plugins().await?;
    let ListPluginsResponse {
        plugins,
        rejected,
        loading,
        starting,
    } = listed;
    if json {
        let plugins: Vec<_> = plugins.iter().map(plugin_json).collect();
        let rejected: Vec<_> = rejected
            .iter()
            .map(|rejected| json!({ "file": rejected.file, "error": rejected.error }))
            .collect();
        let loading: Vec<_> = loading
            .iter()
            .map(|loading| {
                json!({
                    "file": loading.file,
                    "since_ms": loading.since_ms,
                    "task_types": loading.task_types,
                })
            })
            .collect();
        print_json(&json!({
            "plugins": plugins,
            "rejected": rejected,
            "loading": loading,
            "starting": starting,
        }));
        return Ok(());
    }
    let rows: Vec<_> = plugins
        .iter()
        .flat_map(|plugin| {
            plugin
                .task_types
                .iter()
                .map(move |task_type| (plugin, task_type))
        })
        .map(|(plugin, task_type)| {
            vec![
                plugin.name.clone(),
                plugin.version.clone(),
                task_type.name.clone(),
                task_type.max_attempts.to_string(),
                duration(task_type.timeout_ms),
                plugin.file.clone(),
            ]
        })
        .collect();
    print_table(
        &[
            "PLUGIN",
            "VERSION",
            "TASK TYPE",
            "ATTEMPTS",
            "TIMEOUT",
            "FILE",
        ],
        &rows,
    );
    for loading in loading {
        let since = UNIX_EPOCH + Duration::from_millis(loading.since_ms);
        let seconds = since.elapsed().unwrap_or_default().as_secs();
        say!("\nloading for {seconds} s: {}", loading.file);
    }
    for rejected in rejected {
        say!("");
        say!("refused: {}: {}", rejected.file, rejected.error);
    }
    Ok(())
}
