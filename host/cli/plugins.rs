//! `hostel plugins`: what a node hosts, and what a plugin file is before any node hosts it.

use super::{
    ConfigFile, Server, build,
    exit::Failure,
    output::{duration, plugin_json, print_json, print_table},
};
use crate::proto::hostel::v1::ListPluginsResponse;
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::PathBuf;

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
    /// Build the plugin in DIR from source and put it into the plugins directory
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
            PluginsCommand::Build { dir, out, config } => {
                let out = match out {
                    Some(out) => out,
                    None => config.load()?.plugins.dir,
                };
                for file in build::build(&dir, &[], &out)? {
                    println!("{}", file.display());
                }
                Ok(())
            }
        }
    }
}

async fn list(server: &Server, json: bool) -> Result<(), Failure> {
    let listed = server.connect().await?.list_plugins().await?;
    let ListPluginsResponse { plugins, rejected } = listed;
    if json {
        let plugins: Vec<_> = plugins.iter().map(plugin_json).collect();
        let rejected: Vec<_> = rejected
            .iter()
            .map(|rejected| json!({ "file": rejected.file, "error": rejected.error }))
            .collect();
        print_json(&json!({ "plugins": plugins, "rejected": rejected }));
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
    for rejected in rejected {
        println!("\nrefused: {}: {}", rejected.file, rejected.error);
    }
    Ok(())
}
