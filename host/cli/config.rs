//! `hostel config`: prints or checks the configuration of a node.

use super::{config_args::ConfigArgs, error::CliError, output::print_lines};
use crate::config::{Secrets, show};
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub struct Configuration {
    #[command(subcommand)]
    command: ConfigurationCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigurationCommand {
    /// Print all settings in force with their documentation, as a configuration file
    ///
    /// Values in [plugin.NAME.config] may be secret and are printed as "***".
    Show {
        /// Also print the values in [plugin.NAME.config]
        #[arg(long)]
        show_secrets: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Report all errors of the configuration at once
    Check {
        #[command(flatten)]
        config: ConfigArgs,
    },
}

impl Configuration {
    pub fn run(self) -> Result<(), CliError> {
        match self.command {
            ConfigurationCommand::Show {
                show_secrets,
                config,
            } => {
                let secrets = if show_secrets {
                    Secrets::Shown
                } else {
                    Secrets::Masked
                };
                let shown = show(&config.read()?, secrets);
                print_lines(format_args!("{}", shown.trim_end()));
                Ok(())
            }
            ConfigurationCommand::Check { config } => {
                config.read()?;
                print_line!("no errors");
                Ok(())
            }
        }
    }
}
