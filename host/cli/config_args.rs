//! The `--config` option of the commands that read the node's configuration.

use super::{compile, error::CliError};
use crate::config::{self, Config};
use clap::Args;
use std::path::PathBuf;

/// Which configuration a command uses.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigArgs {
    /// The configuration file [default: ./hostel.toml, then hostel/hostel.toml in the XDG
    /// configuration directory, then the built-in defaults]
    // The id is explicit because commands have a `file` argument of their own.
    #[arg(id = "config", long = "config", value_name = "FILE")]
    file: Option<PathBuf>,
}

impl ConfigArgs {
    /// Returns the file that is read, if there is one.
    pub fn path(&self) -> Option<PathBuf> {
        self.file.clone().or_else(config::find_file)
    }

    /// Loads the configuration of a node that runs in this process.
    pub fn load(&self) -> Result<Config, CliError> {
        self.read().map(compile::with_default_compiler)
    }

    /// Loads the configuration exactly as the file and the environment give it.
    pub fn read(&self) -> Result<Config, CliError> {
        Config::load(self.file.as_deref(), config::env_vars()).map_err(CliError::usage)
    }
}
