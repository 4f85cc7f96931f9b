//! `hostel config`: what a node would run with, and whether it could.

use super::{ConfigFile, exit::Failure};
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub struct ConfigCommand {
    #[command(subcommand)]
    command: ShowOrCheck,
}

#[derive(Debug, Subcommand)]
enum ShowOrCheck {
    /// Print every setting in force, with its explanation, as a configuration file
    Show {
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
            ShowOrCheck::Show { config } => {
                say!("{}", crate::config::show(&config.load()?).trim_end());
                Ok(())
            }
            ShowOrCheck::Check { config } => {
                config.load()?;
                say!("no faults");
                Ok(())
            }
        }
    }
}
