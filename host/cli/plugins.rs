//! `hostel plugins`: lists the plugins of a node; inspects, verifies and builds plugin files.

use super::{
    build,
    config_args::ConfigArgs,
    connection::ConnectionArgs,
    error::CliError,
    inspection,
    output::{duration, print_json, print_table},
};
use crate::{
    Config, plugin,
    proto::hostel::v1::{ListPluginsResponse, Plugin},
    untrusted::Untrusted,
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
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
    /// List the plugins of a node, and the files that it refuses
    List {
        #[command(flatten)]
        connection: ConnectionArgs,
        #[arg(long)]
        json: bool,
    },
    /// Show the manifest, exports and imports of a plugin file, and its errors
    Inspect {
        file: PathBuf,
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Load a plugin file as a node without other plugins would and report all errors, or test the sandbox on
    /// this machine
    Verify {
        /// The plugin file
        #[arg(required_unless_present = "own", conflicts_with = "own")]
        file: Option<PathBuf>,
        /// Run built-in hostile guests with this configuration and report whether each limit holds
        #[arg(id = "own", long = "self")]
        own: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Build the plugin in DIR from source and install it in the plugins directory
    ///
    /// The file is named as the plugin in its manifest. A plugin that a node with this configuration
    /// would refuse is not installed.
    Build {
        /// The crate of the plugin
        dir: PathBuf,
        /// The directory for the file [default: plugins.dir of the configuration]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

impl Plugins {
    pub async fn run(self) -> Result<(), CliError> {
        match self.command {
            PluginsCommand::List { connection, json } => list(&connection, json).await,
            PluginsCommand::Inspect { file, json, config } => {
                let inspection = plugin::inspect(&config.load()?, &file).await;
                inspection::print(&inspection.map_err(CliError::failed)?, json)
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
                    print_line!("{}", file.display());
                }
                Ok(())
            }
        }
    }
}

async fn verify(config: &Config, file: &Path) -> Result<(), CliError> {
    let inspection = plugin::inspect(config, file).await;
    let inspection = inspection.map_err(CliError::failed)?;
    let file = Untrusted::path(file);
    for diagnostic in &inspection.diagnostics {
        print_line!("{file}: {diagnostic}");
    }
    for warning in &inspection.warnings {
        print_line!("{file}: warning: {warning}");
    }
    if !inspection.diagnostics.is_empty() {
        return Err(CliError::failed(format!("a node would refuse {file}")));
    }
    print_line!("{file}: no errors");
    Ok(())
}

async fn verify_self(config: &Config) -> Result<(), CliError> {
    let checks = plugin::verify_self(config).await;
    let checks = checks.map_err(CliError::failed)?;
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
        failed => Err(CliError::failed(format!(
            "{failed} of {} limits do not hold on this machine",
            checks.len()
        ))),
    }
}

async fn list(connection: &ConnectionArgs, json: bool) -> Result<(), CliError> {
    let listed = connection.connect().await?.list_plugins().await?;
    let ListPluginsResponse {
        plugins,
        rejected,
        loading,
        starting,
    } = listed;
    if json {
        let plugins: Vec<_> = plugins.iter().map(as_json).collect();
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
    let rows: Vec<_> = plugins.iter().flat_map(rows_of).collect();
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
        print_line!("");
        print_line!("loading for {seconds} s: {}", loading.file);
    }
    for rejected in rejected {
        print_line!("");
        print_line!("refused: {}: {}", rejected.file, rejected.error);
    }
    Ok(())
}

/// Returns a row for each task type, or one row for a plugin without any, which is a component only.
fn rows_of(plugin: &Plugin) -> Vec<Vec<String>> {
    let row = |task_type: String, attempts: String, timeout: String| {
        let [name, version, file] = [&plugin.name, &plugin.version, &plugin.file].map(Clone::clone);
        vec![name, version, task_type, attempts, timeout, file]
    };
    let none = || "-".to_owned();
    if plugin.task_types.is_empty() {
        return vec![row(none(), none(), none())];
    }
    let rows = plugin.task_types.iter().map(|task_type| {
        let attempts = task_type.max_attempts.to_string();
        row(
            task_type.name.clone(),
            attempts,
            duration(task_type.timeout_ms),
        )
    });
    rows.collect()
}

fn as_json(plugin: &Plugin) -> Value {
    let task_types = plugin.task_types.iter().map(|task_type| {
        json!({
            "name": task_type.name,
            "description": task_type.description,
            "timeout_ms": task_type.timeout_ms,
            "max_attempts": task_type.max_attempts,
            "backoff_initial_ms": task_type.backoff_initial_ms,
            "backoff_max_ms": task_type.backoff_max_ms,
            "max_concurrency": task_type.max_concurrency,
        })
    });
    json!({
        "name": plugin.name,
        "version": plugin.version,
        "description": plugin.description,
        "sha256": plugin.sha256,
        "file": plugin.file,
        "loaded_at_ms": plugin.loaded_at_ms,
        "task_types": task_types.collect::<Vec<_>>(),
    })
}
