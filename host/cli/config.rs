//! `hostel config`: what a node would run with, and whether it could.

use super::{ConfigFile, exit::Failure, output::paragraph};
use crate::config::{Secrets, show};
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub struct ConfigCommand {
    #[command(subcommand)]
    command: ShowOrCheck,
}

#[derive(Debug, Subcommand)]
enum ShowOrCheck {
    /// Print every setting in force, with its explanation, as a configuration file
    ///
    /// The values under [plugin.NAME.config] may be secrets, so three stars stand for each of them.
    Show {
        /// Print the values under [plugin.NAME.config] too
        #[arg(long)]
        show_secrets: bool,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Report all faults of the configuration at once
    Check {
        #[command(flatten)]
        config: ConfigFile,
    },
}

impl ConfigCommand {
    pub fn run(self) -> Result<(), Failure> {
        match self.command {
            ShowOrCheck::Show {
                show_secrets,
                config,
            } => {
                let secrets = match show_secrets {
                    true => Secrets::Shown,
                    false => Secrets::Masked,
                };
                let shown = show(&config.read()?, secrets);
                paragraph(format_args!("{}", shown.trim_end()));
                Ok(())
            }
            ShowOrCheck::Check { config } => {
                config.read()?;
                say!("no faults");
                Ok(())
            }
        }
    }
}
