//! `hostel die-with-parent`: runs a program that the kernel kills when its parent ends. The demo's
//! cluster starts its processes with this hidden command; it is a command because the death signal
//! has to be set in the child process before it becomes the program.

use crate::{cli::error::CliError, parent};
use anyhow::anyhow;
use clap::Args;
use std::{ffi::OsString, os::unix::process::CommandExt, process::Command};

/// Run a program that is killed when its parent ends
#[derive(Debug, Args)]
pub struct DieWithParent {
    /// The process id of the parent
    parent: u32,
    program: OsString,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl DieWithParent {
    /// Replaces this process by the program; returns only on failure. The death signal survives the
    /// `exec`.
    pub fn run(self) -> CliError {
        if let Err(error) = parent::die_with_parent(self.parent) {
            return anyhow!(error).into();
        }
        let error = Command::new(&self.program).args(&self.arguments).exec();
        let program = self.program.to_string_lossy();
        anyhow!(error)
            .context(format!("cannot run {program}"))
            .into()
    }
}
